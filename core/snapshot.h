// One immutable version of a cube, and the one function that makes the next.
//
// Every structural change is a Delta: what it adds to axes, boxes, frames and properties. A running
// cube and recovery both call apply(); so what is recovered is what was published.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/axis.h"
#include "core/box.h"
#include "core/convert.h"
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

// live: part of the cube. removed: out of it, may come back. gone: for good; the row is history.
enum class FrameState : std::uint8_t { live = 1, removed = 2, gone = 3 };

// Where along an axis a frame was put: at its end, its start, or before an index.
enum class Side : std::uint8_t { append = 0, prepend = 1, insert = 2 };

// What is known of a frame. Fixed size, so that a checkpoint is a table of these.
struct FrameRow {
  FrameId id = 0;
  FrameState state = FrameState::live;
  HeapRef name;                 // bytes, no terminator
  std::uint64_t name_hash = 0;  // XXH3-64 of the name
  HeapRef prefix;               // the file's bytes before its elements
  HeapRef suffix;               // the file's bytes after its elements
  HeapRef original;  // the whole file, where these and the elements cannot make it again;
                     // `prefix` is then the primary and the image's header
  bool packed = false;  // that is compressed; `layout` is then of what it unpacks to
  HeapRef cards;        // the image's cards, 80 characters each, where they have been changed and
                        // are not those of `prefix` any more
  HeapRef runs;      // physical runs an axis, when one of them has several (else empty)
  HeapRef sums;      // checksums of the chunks, when there are several
  std::uint64_t first_sum = 0;            // checksum of the only chunk, or of none
  std::array<std::uint64_t, 2> digest{};  // XXH3-128 (low, high) of the file as it came
  FrameLayout layout;                     // of the file made of prefix, elements and suffix
  std::uint8_t grow_axis = 0;             // along which it was added
  Side side = Side::append;               // the door that it came through: side,
  bool names_axis = false;                // whether that named the axis,
  std::uint64_t at = 0;                   // and the index, for insert
  Coords first;                           // physical start an axis (of the first run)
  Shape extent;               // elements an axis; its product is the frame's element count
  std::int64_t mtime_ns = 0;  // as the writer left them
  std::int64_t arrival_ns = 0;
  std::uint32_t mode = 0;  // permission bits
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;

  std::uint64_t file_bytes() const {
    return original.length > 0 ? original.length
                               : prefix.length + layout.data_bytes + suffix.length;
  }
  // Of what the image's cards are read.
  FormatId cards_format() const { return cards.length > 0 ? FormatId::fits : layout.format; }
  // All that lies in the heap but the name.
  std::array<HeapRef, 6> texts() const { return {prefix, suffix, original, runs, sums, cards}; }
};

// Frames whose extents across the axis that grows are not those of the cube: all taken; only
// smaller ones taken; none taken.
enum class Ragged : std::uint8_t { pad = 0, smaller = 1, refuse = 2 };
// A frame of a name that is in use. once: the same bytes are no other frame; other bytes are one,
// and the older gets another name. append: any bytes are another frame. replace: other bytes take
// the older one's place. refuse: refused.
enum class SameName : std::uint8_t { once = 0, append = 1, replace = 2, refuse = 3 };

// What a user set, as text of meta/ where it is text; empty: not set.
struct Settings {
  std::string dtype;
  std::string letters;  // "xyz"
  std::string pad;
  std::string grow;                  // axis letter; empty: the slowest
  std::string formats;               // "fits npy"; empty: the first frame's
  std::string order;                 // "name", or FITS keywords; empty: arrival
  std::string header;                // the cube's own FITS cards, 80 characters each
  Coords header_first, header_last;  // the coordinates that the axes began and ended with when that
  Shape header_extent;               // was set, and their extents; empty: it was not defined yet
  Ragged ragged = Ragged::pad;
  SameName same_name = SameName::once;
  Rounding rounding = Rounding::exact;  // convert
  bool drops_residue = false;           // residue = drop
  std::string hdu;                      // which image of a file; empty: the first
  bool sync_each_close = false;         // durability = disk

  friend bool operator==(const Settings&, const Settings&) = default;
};

// What defines a cube: its settings and, from the first frame until the last is gone, what that
// frame made of them.
struct Definition {
  Settings settings;
  bool defined = false;
  Coding coding;         // of the elements at rest; valid when defined
  std::size_t rank = 0;  // number of letters
  std::string letters;   // axis letters, fastest first; those that were set while not defined
  Element pad;           // native coding; valid when defined
  std::int64_t poked_ns = 0;  // when elements were last changed in place, as far as it was noted
  std::string formats;   // in which views are listed; those that were set while not defined

  friend bool operator==(const Definition&, const Definition&) = default;
};

// One step on one axis (core/axis.h says what each does). `at`: a position, of insert and move.
struct AxisEdit {
  enum class Kind : std::uint8_t { insert = 1, hide = 2, show = 3, drop = 4, move = 5 };
  Kind kind = Kind::insert;
  std::uint8_t axis = 0;
  std::uint64_t at = 0;
  Run run;

  friend bool operator==(const AxisEdit&, const AxisEdit&) = default;
};
// EINVAL when the axis does not allow it.
Result<Axis> apply(const Axis& axis, const AxisEdit& edit);

// Elements that take the place of those of a view, all or none, also when the daemon ends meanwhile:
// recovery stores them anew as long as no mark says that they are on disk.
struct Redo {
  PerAxis<std::uint8_t> order;       // the cube's axes that the view spans, its fastest first
  PerAxis<std::vector<Run>> runs;    // coordinates, for each axis of the cube
  HeapRef elements;                  // of the view's stream, in the coding at rest

  static Redo of(const View& view);  // without elements
  Result<View> view() const;         // EIO: it contradicts itself
};

// One operation, one journal record.
struct Delta {
  std::optional<Definition> definition;
  std::vector<AxisEdit> edits;
  struct Arrangement {
    std::uint8_t axis = 0;
    std::vector<Axis::Piece> pieces;
  };
  std::vector<Arrangement> arrangements;  // after the edits
  std::vector<Box> boxes;                 // added or replaced, by id
  std::vector<std::uint64_t> removed_boxes;
  std::vector<Box> patches;  // added, by id
  std::vector<std::uint64_t> removed_patches;
  std::vector<FrameRow> frames;  // added or replaced, by id
  std::optional<Redo> redo;      // to be stored when the rest is done
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
  // Those of this run that changed more than came to the ends of axes: what an index means, how
  // the cube is defined, what the headers of what was there say.
  std::uint64_t revision = 0;
  std::uint64_t row_changes = 0;  // deltas of this run that changed frames that were there
  Definition definition;
  PerAxis<Axis> axes;  // definition.rank of them, when defined
  BoxIndex boxes;
  // Elements that were written in place where no frame gave one: boxes of one written slot each,
  // disjoint among themselves. A written slot of `boxes` hides what they have there.
  BoxIndex patches;
  std::uint64_t patch_removals = 0;  // deltas of this run that took some away
  FrameTable frames;
  // Live and removed frames by (grow axis, physical start along it).
  struct Place {
    std::uint8_t axis = 0;
    bool removed = false;
    std::int64_t first = 0;
    FrameId id = 0;
  };
  struct Live {
    std::uint64_t count = 0;
    FrameId newest = 0;

    static Live of(const Place& place) { return place.removed ? Live{} : Live{1, place.id}; }
    friend Live operator+(Live a, Live b) {
      return {a.count + b.count, std::max(a.newest, b.newest)};
    }
  };
  PersistentSequence<Place, Live> places;
  FrameId newest = 0;  // the live frame that was committed last; 0: none

  std::uint64_t live_frames() const { return places.total().count; }
  std::uint64_t removed_frames() const { return places.size() - places.total().count; }
  Shape shape() const;  // empty while undefined
  // The live frame whose growth gave this physical coordinate of that axis.
  std::optional<FrameRow> frame_at(std::size_t axis, std::int64_t physical) const;
  // The same, live or removed.
  std::optional<Place> place_at(std::size_t axis, std::int64_t physical) const;
  // Frames in order of their places along the axis that grows, then along the others.
  std::vector<FrameId> frames_in_order(bool removed) const;
  // Axis that new frames grow. REQUIRES: definition.defined.
  std::size_t grow_axis() const;
  // Pad in the coding at rest.
  Element pad_at_rest() const;
};

// The next snapshot; EINVAL, with the reason, when the delta contradicts the snapshot (only a
// damaged or hostile journal does). `axes`: what the delta's edits make of the axes, where a draft
// has done them already: an axis grows at its end only once without a new epoch.
Result<std::shared_ptr<const Snapshot>> apply(const Snapshot& before, const Delta& delta,
                                              const PerAxis<Axis>* axes = nullptr);

// Coordinates of a frame's indexes, an axis. `text`: the heap text of row.runs, empty when the row
// has single runs. EIO when the two do not fit.
using FrameRuns = PerAxis<std::vector<Run>>;
Result<FrameRuns> frame_runs(const FrameRow& row, std::span<const std::byte> text);
// The view that a frame's own file shows: its elements in the file's order.
Result<View> frame_view(const FrameRow& row, const FrameRuns& runs);
// Calls visit(box, first slot, slots) for the boxes and slots that hold a frame's elements.
void for_boxes_of(const BoxIndex& boxes, const FrameRow& row, const FrameRuns& runs,
                  const std::function<void(const Box&, std::uint64_t, std::uint64_t)>& visit);

}  // namespace accrete
