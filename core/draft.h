// A change in the making: a delta on a snapshot, and the structure that it leads to so far.
//
// A step that cannot be is an error and leaves the draft unusable; nothing has changed then.
#pragma once

#include <map>

#include "core/brick_file.h"
#include "core/snapshot.h"

namespace accrete {

// Space of frames that are gone, to be reused once that is durable and no snapshot shows them.
struct FreedSpace {
  bool empty() const { return cleared.empty() && given_back.empty() && texts.empty(); }

  std::uint64_t generation = 0;              // first snapshot that does not show it
  std::uint64_t sequence = 0;                // journal record that must be durable
  std::vector<BrickFile::Range> cleared;     // of boxes that stay
  std::vector<BrickFile::Range> given_back;  // whole boxes
  std::vector<HeapRef> texts;                // in the heap
};

// Not thread-safe. The snapshot outlives it.
class Draft {
 public:
  explicit Draft(const Snapshot& base) : base_(base), axes_(base.axes) {}

  const Snapshot& base() const { return base_; }

  // Another definition; where it has another number of axes (0 while not defined) they are empty.
  void define(const Definition& definition);

  const PerAxis<Axis>& axes() const { return axes_; }
  // Axis::insert, hide … of that axis. EINVAL.
  Status edit(std::size_t axis, AxisEdit::Kind kind, Run run, std::uint64_t position = 0);

  // Axis::arrange, after all edits. EINVAL.
  Status arrange(std::size_t axis, std::vector<Axis::Piece> pieces);

  // As it is by now; nothing when there is none.
  std::optional<Box> box(std::uint64_t id) const;
  void put(const Box& box) { boxes_[box.id] = box; }
  void remove_box(std::uint64_t id) { boxes_[id] = std::nullopt; }

  void put_patch(const Box& patch) { delta_.patches.push_back(patch); }
  void remove_patch(std::uint64_t id) { delta_.removed_patches.push_back(id); }

  void set_redo(Redo redo) { delta_.redo = std::move(redo); }

  void put(const FrameRow& row) { delta_.frames.push_back(row); }

  FreedSpace freed;

  // The whole delta, to be published.
  Delta finish() &&;

 private:
  const Snapshot& base_;
  Delta delta_;
  PerAxis<Axis> axes_;
  std::map<std::uint64_t, std::optional<Box>> boxes_;  // nothing: removed
};

}  // namespace accrete
