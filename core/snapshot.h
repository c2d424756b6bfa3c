// One immutable version of a cube, and the one function that makes the next.
//
// Every structural change is a Delta: what it adds to axes, boxes, frames and properties. A running
// cube and recovery both call apply(); so what is recovered is what was published.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/axis.h"
#include "core/box.h"
#include "core/dtype.h"
#include "core/format.h"
#include "core/persistent_sequence.h"
#include "core/view.h"

namespace accrete {

using FrameId = std::uint64_t;  // 1, 2, … in order of commits; never used again

// A piece of the heap file with the checksum of its bytes. length 0: nothing.
struct HeapRef {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  std::uint64_t sum = 0;  // XXH3-64

  friend bool operator==(const HeapRef&, const HeapRef&) = default;
};

enum class FrameState : std::uint8_t { live = 1, removed = 2, gone = 3 };

// What is known of a frame. Fixed size, so that a checkpoint is a table of these.
struct FrameRow {
  FrameId id = 0;
  FrameState state = FrameState::live;
  HeapRef name;                 // bytes, no terminator
  std::uint64_t name_hash = 0;  // XXH3-64 of the name
  HeapRef prefix;               // the file's bytes before its elements
  HeapRef suffix;               // the file's bytes after its elements
  HeapRef runs;                 // physical runs an axis, when one of them has several (else empty)
  HeapRef sums;                 // checksums of the chunks, when there are several
  std::uint64_t first_sum = 0;  // checksum of the only chunk, or of none
  std::array<std::uint64_t, 2> digest{};  // XXH3-128 (low, high) of the file as it came
  FrameLayout layout;                     // of the file as it came
  std::uint8_t grow_axis = 0;             // along which it was added
  Coords first;                           // physical start an axis (of the first run)
  Shape extent;               // elements an axis; its product is the frame's element count
  std::int64_t mtime_ns = 0;  // as the writer left them
  std::int64_t arrival_ns = 0;
  std::uint32_t mode = 0;  // permission bits
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
};

// What defines a cube, and its settings. Text forms are those of meta/.
struct Definition {
  bool defined = false;          // by the first frame, until the last is gone
  Coding coding;                 // of the elements at rest; coding.type valid when has_dtype
  std::size_t rank = 0;          // 0 until the axes are known
  std::string letters;           // axis letters, fastest first; may be set before the first frame
  Element pad;                   // native coding; valid when defined
  bool has_dtype = false;        // dtype was set or defined
  std::string pad_text;          // what pad was set to; empty: the type's default
  std::string grow;              // axis letter, empty: the slowest
  std::string formats;           // "fits npy"; empty: the first frame's
  bool sync_each_close = false;  // durability = disk
  std::string header;            // the cube's own FITS cards, 80 characters each

  friend bool operator==(const Definition&, const Definition&) = default;
};

struct AxisEdit {
  std::uint8_t axis = 0;
  bool erase = false;    // drop `run.length` indexes from logical `at`
  std::uint64_t at = 0;  // logical
  Run run;               // insert: the fresh coordinates

  friend bool operator==(const AxisEdit&, const AxisEdit&) = default;
};

// One operation, one journal record.
struct Delta {
  std::optional<Definition> definition;
  std::vector<AxisEdit> edits;
  std::vector<Box> boxes;  // added or replaced, by id
  std::vector<std::uint64_t> removed_boxes;
  std::vector<FrameRow> frames;  // added or replaced, by id
};

// Frames by id. Old rows lie in the mapped checkpoint and are decoded when asked for; newer ones
// are an overlay of shared nodes. Immutable value: a copy is O(1), an edit O(log n).
class FrameTable {
 public:
  FrameTable() = default;
  // Rows 1 … count of a mapped checkpoint (frame_row_bytes each), which lives as long as the table.
  FrameTable(std::shared_ptr<const std::byte> rows, std::uint64_t count)
      : base_(std::move(rows)), base_count_(count), count_(count) {}

  std::uint64_t count() const { return count_; }  // ids are 1 … count
  std::optional<FrameRow> find(FrameId id) const;
  FrameTable put(const FrameRow& row) const;  // id <= count + 1
  // The same rows on another base: `written` has been stored as rows 1 … written.count() of a
  // checkpoint that is mapped at `rows`; only what changed since stays in the overlay.
  FrameTable rebased(std::shared_ptr<const std::byte> rows, const FrameTable& written) const;

 private:
  std::shared_ptr<const std::byte> base_;
  std::uint64_t base_count_ = 0;
  PersistentSequence<std::shared_ptr<const FrameRow>> changed_;  // sorted by id
  std::uint64_t count_ = 0;
};

struct Snapshot {
  std::uint64_t generation = 0;  // counts applied deltas
  Definition definition;
  PerAxis<Axis> axes;  // definition.rank of them, when defined
  BoxIndex boxes;
  FrameTable frames;
  // Live frames by (grow axis, physical start along it).
  struct Place {
    std::uint8_t axis = 0;
    std::int64_t first = 0;
    FrameId id = 0;
  };
  PersistentSequence<Place> places;
  FrameId newest = 0;  // the live frame that was committed last; 0: none

  std::uint64_t live_frames() const { return places.size(); }
  Shape shape() const;  // empty while undefined
  // The live frame whose growth gave this physical coordinate of that axis.
  std::optional<FrameRow> frame_at(std::size_t axis, std::int64_t physical) const;
  // Axis that new frames grow. REQUIRES: definition.defined.
  std::size_t grow_axis() const;
  // Pad in the coding at rest.
  Element pad_at_rest() const;
};

// The next snapshot; EINVAL, with the reason, when the delta contradicts the snapshot (only a
// damaged or hostile journal does).
Result<std::shared_ptr<const Snapshot>> apply(const Snapshot& before, const Delta& delta);

// The view that a frame's own file shows: its elements in the file's order.
// `runs`: the heap text of row.runs, empty when the row has single runs.
Result<View> frame_view(const FrameRow& row, std::span<const std::byte> runs);

}  // namespace accrete
