// Where new elements go: which coordinates, boxes and layers an incoming frame gets.
//
// The algebra. A frame of extents f that grows axis g brings fresh coordinates on g, above all used
// ones or below them; which index they become is settled at the commit, and does not matter here.
// On another axis a it covers the coordinates of the logical indexes 0 … f_a-1. Where it is wider
// than the cube there, these indexes are made: first of dormant coordinates behind the last index
// (they are the indexes that the cube had there before frames were removed), then of fresh ones at
// the end. Its elements therefore lie in
//     (fresh run on g) × Π_{a≠g} (coordinates of 0 … f_a-1)
// and, since no frame before has any coordinate of the fresh run, in no box that holds elements of
// others: boxes stay disjoint, and nothing that exists is moved, rewritten or even looked at. So
// each element of physical space was given by at most one frame. The cross-section is a product of
// sets of coordinates. Each set is cut into maximal intervals, and each combination of intervals
// gets a box: no box holds an element that no frame gives. (Coordinates have gaps only where frames
// are gone or layers were left unused, so mostly it is one box.)
//
// Boxes reserve layers ahead so that a cube that grows plane by plane has deep bricks: a series of
// frames of one cross-section opens groups of boxes of 1, 1, 2, 4 … 64 layers, never more than the
// series has stored already; a frame of at least as many layers gets boxes of its own size. Layers
// are given upwards to what is appended or inserted, downwards to what is prepended: so serial
// prepends continue each other, too. When another cross-section comes, the series ends, and the
// blocks of unused layers go back; with those at the upper end their coordinates, too. Coordinates
// of committed frames are never given again.
//
// Reserving decides coordinates and layers only; the logical place is settled at the commit.
// Between the two other frames may commit, so still_fits() must hold at the commit, or the frame
// has to be reserved anew (its elements then lie at coordinates that no longer mean its indexes).
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "core/brick_file.h"
#include "core/draft.h"
#include "core/snapshot.h"

namespace accrete {

// What a frame holds from its reservation to its commit.
struct Slab {
  struct Part {  // slots in all boxes of a group
    std::uint64_t group = 0;
    std::uint64_t first_slot = 0;
    std::uint64_t slots = 0;
  };
  std::size_t axis = 0;  // that grows
  Side side = Side::append;
  FrameRuns runs;                     // coordinates of the frame's indexes, an axis
  PerAxis<std::vector<Run>> revived;  // of them, dormant ones
  PerAxis<Run> surplus;               // fresh ones on the other axes; length 0: none
  std::vector<Part> parts;
  BoxIndex boxes;  // just those of the parts, with only its own slots written

  Run run() const { return runs[axis].front(); }
  bool widens() const;
  bool has_single_runs() const;
  // The runs as the heap keeps them: for each axis their number (32 bits), then first and length.
  std::string runs_text() const;
};

// Not thread-safe: the cube's commit lock guards it.
class Growth {
 public:
  explicit Growth(BrickFile& bricks) : bricks_(bricks) {}

  // Takes up the series and the limits of used coordinates of a cube that was opened. `reclaim`:
  // the last run may have left bytes in slots that hold no frame.
  void restore(const Snapshot& snapshot, bool reclaim);

  // Layers for a frame of these extents (one for each axis of the cube) that grows `axis`; the
  // slots read as zeros.
  // ENOSPC, EDQUOT, EFBIG: nothing is held.
  Result<Slab> reserve(const Snapshot& snapshot, std::size_t axis, Side side, const Shape& extent,
                       std::size_t element_size);
  // True while a frame that widens the cube (or defines it) holds a slab.
  bool widening() const { return widening_ > 0; }
  // True while any frame holds a slab.
  bool holding() const { return holding_ > 0; }
  // True while slots of the box may still be given, a slab holds some, or no draft has said yet
  // that it was trimmed. Such a box stays though all its frames be gone: a later draft removes it.
  bool is_open(std::uint64_t box) const;

  // Would the slab's coordinates still mean its indexes if it were committed now?
  static bool still_fits(const Snapshot& snapshot, const Slab& slab);
  // Adds the slab's part to a draft: box rows, wider axes, growth at `position` of its axis.
  Status describe(Draft& draft, const Slab& slab, std::uint64_t position) const;
  // The draft was published / the slab is not needed any more.
  void commit(const Slab& slab);
  void give_back(const Slab& slab);
  // Frees the blocks that are held for layers to come. Whether there were any.
  bool release_held();
  // All boxes are gone with the cube's last frame. REQUIRES: !holding().
  void forget_all();

 private:
  // Boxes that share their layers, one for each piece of a cross-section.
  struct Group {
    std::vector<Box> boxes;   // the masks are those of the snapshot, not kept here
    std::uint64_t taken = 0;  // slots that were ever committed, or are held
    unsigned holders = 0;     // slabs that hold slots
    std::size_t axis = 0;     // along which it was opened
    bool low = false;         // gives its slots downwards
    bool published = false;   // a snapshot has it
    bool closed = false;      // offers no more slots
    bool settled = false;     // its unused slots went back
    bool has_news = false;    // no draft has said yet that it was trimmed, or may be empty
    bool is_held = false;     // blocks are held for slots that are not taken
    std::vector<BrickFile::Range> cut_off;  // to be given back once one has

    const Box& front() const { return boxes.front(); }
    std::uint64_t slots() const { return front().slots(); }
  };
  struct Cuboid {  // entry of the axis that grows: unused
    Coords origin;
    Shape extent;

    friend bool operator==(const Cuboid&, const Cuboid&) = default;
  };
  using Cross = std::vector<Cuboid>;
  struct Series {  // along one axis, upwards or downwards
    std::optional<std::uint64_t> group;
    std::uint64_t layers = 0;  // given so far
    Cross cross;
    std::size_t element_size = 0;  // several, while frames race to define the cube
  };

  Series& series(std::size_t axis, bool low) { return series_[axis][low ? 1 : 0]; }
  static Result<Cross> cross_section(const Slab& slab);
  bool clear_slots(const Box& box, std::uint64_t first, std::uint64_t count);  // zeros, no blocks
  Status take_layers(Slab& slab, const Cross& cross, std::uint64_t layers,
                     std::size_t element_size);
  Status take_slots(Slab& slab, std::uint64_t id, std::uint64_t first, std::uint64_t count);
  Result<std::uint64_t> open_group(const Cross& cross, std::size_t axis, bool low,
                                   std::uint64_t layers, bool ahead, std::size_t element_size);
  void close_series(Series& series);
  void drop(const Group& group);
  void trim(Group& group, std::uint64_t slots);
  void settle(std::uint64_t id);  // trims or drops a group that nobody holds and that is closed

  BrickFile& bricks_;
  std::map<std::uint64_t, Group> groups_;  // by their first box: in use, or with news for a draft
  std::array<std::array<Series, 2>, max_rank> series_;
  std::array<std::int64_t, max_rank> high_{};  // coordinates from here on are unused
  std::array<std::int64_t, max_rank> low_{};   // and those below here
  std::uint64_t next_box_ = 1;
  unsigned widening_ = 0;
  unsigned holding_ = 0;
};

// Calls visit(offset, length) for the byte ranges of slots in the brick file.
void for_slot_ranges(const Box& box, std::uint64_t first_slot, std::uint64_t slots,
                     const std::function<void(std::uint64_t, std::uint64_t)>& visit);

}  // namespace accrete
