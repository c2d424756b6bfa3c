// What the kernel may believe for long, since it is revoked when it may have become something else:
// what names of views mean, and attributes of views that grow and of frames.
//
// Both go by classes. A class says what of a snapshot the belief rests on, its *ground*: as long as
// a newer snapshot gives the same, no name of the class means another inode, and no attribute has
// changed; where it does not, all may. So a commit costs a comparison a class, and each belief is
// revoked at most once for each time that it was asked for. The table of nodes (node_table.h) keeps
// who has a lease; the argument why nothing is believed too long is in publish.h.
#pragma once

#include <compare>
#include <cstdint>

#include "core/snapshot.h"

namespace accrete {

struct Lease {
  struct Ground {
    std::uint64_t revision = 0;
    std::uint64_t frames = 0;
    std::uint64_t row_changes = 0;
    Shape extents;

    friend bool operator==(const Ground&, const Ground&) = default;
  };

  struct Class {
    std::uint64_t cube = 0;      // its uid
    bool of_attributes = false;  // else of names
    std::uint64_t axes = 0;      // bits of those to whose ends the files reach
    bool of_all_frames = false;  // frames that come may change the cards
    bool of_rows = false;        // only what is noted of frames that were there changes it

    friend auto operator<=>(const Class&, const Class&) = default;
    Ground ground(const Snapshot& snapshot) const {
      Ground ground;
      if (of_rows)
        ground.row_changes = snapshot.row_changes;
      else
        ground.revision = snapshot.revision;
      if (of_all_frames) ground.frames = snapshot.frames.count();
      for (std::size_t axis = 0; axis < snapshot.axes.size(); ++axis)
        if ((axes >> axis & 1) != 0) ground.extents.push_back(snapshot.axes[axis].extent());
      return ground;
    }
  };

  Class of;
  Ground ground;

  friend bool operator==(const Lease&, const Lease&) = default;
};

// Seconds. What is believed is revoked long before; this is for what nobody looks at any more.
inline constexpr double lease_timeout = 3600;

}  // namespace accrete
