// Names of views that the kernel may believe for long, since they are revoked when what they mean
// may have become something else.
//
// Names go by classes. A class says what of a snapshot the meaning of its names rests on, its
// *ground*: as long as a newer snapshot gives the same, none of them means another inode; where it
// does not, all may. So a commit costs a comparison a class, and each name is revoked at most once
// for each time that it was looked up. The table of nodes (node_table.h) keeps who has a lease; the
// argument why no name is believed too long is in publish.h.
#pragma once

#include <compare>
#include <cstdint>

#include "core/snapshot.h"

namespace accrete {

struct Lease {
  struct Ground {
    std::uint64_t revision = 0;
    std::uint64_t frames = 0;
    Shape extents;

    friend bool operator==(const Ground&, const Ground&) = default;
  };

  struct Class {
    std::uint64_t cube = 0;      // its uid
    std::uint64_t axes = 0;      // bits of those to whose ends the names reach
    bool of_all_frames = false;  // frames that come may change the cards

    friend auto operator<=>(const Class&, const Class&) = default;
    Ground ground(const Snapshot& snapshot) const {
      Ground ground{snapshot.revision, of_all_frames ? snapshot.frames.count() : 0, {}};
      for (std::size_t axis = 0; axis < snapshot.axes.size(); ++axis)
        if ((axes >> axis & 1) != 0) ground.extents.push_back(snapshot.axes[axis].extent());
      return ground;
    }
  };

  Class names;
  Ground ground;

  friend bool operator==(const Lease&, const Lease&) = default;
};

// Seconds. Names are revoked long before; this is for what nobody looks at any more.
inline constexpr double lease_timeout = 3600;

}  // namespace accrete
