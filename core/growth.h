// Where new elements go: which coordinates, boxes and layers an incoming frame gets.
//
// The algebra. A frame of extents f that grows axis g brings fresh coordinates on g and, where it
// is wider than the cube on another axis a, fresh coordinates for that surplus; elsewhere it covers
// the coordinates that the logical indexes 0 … f_a-1 have. Its elements therefore lie in
//     (fresh run on g) × Π_{a≠g} (coordinates of 0 … f_a-1)
// and, since no committed frame has any coordinate of the fresh run, in no box that holds committed
// elements: boxes stay disjoint, and nothing that exists is moved, rewritten or even looked at.
// The cross-section is taken as its physical hull; where that has gaps (the axis has several runs
// and the frame does not cover all of them), they are filled with pad.
//
// Boxes reserve layers ahead so that a cube that grows plane by plane has deep bricks: a series of
// frames of one cross-section opens boxes of 1, 1, 2, 4 … 64 layers, never more than the series
// has stored already; a frame of at least as many layers gets a box of its own size. When another
// cross-section comes, the series ends: layers that were not used are cut off the last box, and
// their coordinates and space go back. Coordinates of committed frames are never given again.
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
#include "core/snapshot.h"

namespace accrete {

// What a frame holds from its reservation to its commit.
struct Slab {
  struct Part {
    std::uint64_t box = 0;
    std::uint64_t first_slot = 0;
    std::uint64_t slots = 0;
  };
  std::size_t axis = 0;            // that grows
  PerAxis<std::vector<Run>> runs;  // coordinates of the frame's indexes, an axis
  PerAxis<Run> surplus;            // fresh coordinates on the other axes; length 0: none
  Shape base;                      // the cube's extents when it was reserved
  std::vector<Part> parts;
  BoxIndex boxes;         // just those of the parts, with only its own slots written
  bool has_gaps = false;  // the boxes hold more coordinates than the frame

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
  // the last run may have left bytes in slots that were not committed.
  void restore(const Snapshot& snapshot, bool reclaim);

  // Layers for a frame of these extents (one for each axis of the cube) that grows `axis`; the
  // slots read as zeros and hold blocks where that could be had beforehand.
  // ENOSPC, EDQUOT, EFBIG: nothing is held.
  Result<Slab> reserve(const Snapshot& snapshot, std::size_t axis, const Shape& extent,
                       std::size_t element_size);
  // True while a frame that widens the cube (or defines it) holds a slab.
  bool widening() const { return widening_ > 0; }

  // Would the slab's coordinates still mean its indexes if it were committed now?
  static bool still_fits(const Snapshot& snapshot, const Slab& slab);
  // Adds the slab's part to a delta on `snapshot`: box rows, surplus, growth at logical `at` of its
  // axis (counted after the delta's own edits so far).
  void describe(const Snapshot& snapshot, const Slab& slab, std::uint64_t at, Delta& delta) const;
  // The delta was published / the slab is not needed any more.
  void commit(const Slab& slab);
  void give_back(const Slab& slab);

 private:
  struct OpenBox {
    Box box;                  // `written` is that of the snapshot, not kept here
    std::uint64_t taken = 0;  // slots committed or held
    unsigned holders = 0;     // slabs that hold slots
    bool has_blocks = false;  // for all slots
    std::size_t axis = 0;     // along which it was opened
    bool published = false;   // a snapshot has it
    bool closed = false;      // offers no more slots
    bool has_news = false;    // it was trimmed and no delta has said so yet
  };
  struct Series {  // along one axis
    std::optional<std::uint64_t> box;
    std::uint64_t layers = 0;  // given so far
    Coords origin;             // cross-section; entry of the axis itself is unused
    Shape extent;
  };
  struct Cross {
    Coords origin;
    Shape extent;
    bool has_gaps = false;
  };

  static Cross cross_section(const Slab& slab);
  bool clear_slots(const Box& box, std::uint64_t first, std::uint64_t count);  // zeros, no blocks
  Status take_layers(Slab& slab, const Cross& cross, std::uint64_t layers,
                     std::size_t element_size);
  Status take_slots(Slab& slab, OpenBox& open, std::uint64_t first, std::uint64_t count);
  Result<OpenBox*> open_box(const Cross& cross, std::size_t axis, std::uint64_t layers, bool ahead,
                            std::size_t element_size);
  void close_series(std::size_t axis);
  void drop(OpenBox& open);
  void trim(OpenBox& open, std::uint64_t slots);
  void settle(std::uint64_t id);  // trims or drops a box that nobody holds and that is closed

  BrickFile& bricks_;
  std::map<std::uint64_t, OpenBox> boxes_;  // in use by slabs, series or with news for a delta
  std::array<Series, max_rank> series_;
  std::array<std::int64_t, max_rank> high_{};  // coordinates from here on are unused
  std::uint64_t next_box_ = 1;
  unsigned widening_ = 0;
};

// Calls visit(offset, length) for the byte ranges of slots in the brick file.
void for_slot_ranges(const Box& box, std::uint64_t first_slot, std::uint64_t slots,
                     const std::function<void(std::uint64_t, std::uint64_t)>& visit);

}  // namespace accrete
