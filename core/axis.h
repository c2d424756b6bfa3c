// An axis as a piece table: which physical coordinate each logical index means.
//
// Logical indexes 0 … extent-1 are what a user counts. Each maps to a signed physical coordinate,
// at which the store keeps the elements for ever. Growth gives fresh coordinates to fresh indexes
// and never changes the coordinate of an existing element; so no data ever moves:
//   append   takes coordinates above all used ones, prepend below, an insertion splits a run.
// Coordinates whose frames are all removed, but may come back, are *dormant*: they have no index,
// and keep their place among the others. *Positions* count both: 0 … positions()-1.
// The map is a sequence of runs (consecutive coordinates) in a persistent balanced tree, so a copy
// is O(1), an edit O(log runs), and a snapshot keeps its own version. Neighbouring runs that
// continue each other are merged: n serial appends (or prepends) are one run.
//
// \invariant runs are non-empty, mutually disjoint in physical space, and maximal (neighbours that
// continue each other are not both dormant or both not)
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "core/persistent_sequence.h"
#include "core/shape.h"

namespace accrete {

// Coordinates c satisfy -coordinate_limit < c < coordinate_limit, so that sums and differences of
// two of them, and the length of any hull, fit an int64.
inline constexpr std::int64_t coordinate_limit = std::int64_t{1} << 62;

// `length` consecutive physical coordinates from `first`.
struct Run {
  std::int64_t first = 0;
  std::uint64_t length = 0;

  std::int64_t end() const { return first + static_cast<std::int64_t>(length); }
  friend bool operator==(const Run&, const Run&) = default;
};

// Immutable value; all members are thread-safe.
class Axis {
 public:
  struct Piece {
    Run run;
    bool dormant = false;

    friend bool operator==(const Piece&, const Piece&) = default;
  };

  Axis() = default;  // nothing
  // Runs in order; merged where they continue each other. `used`: holds every coordinate that the
  // axis ever had (extended by the runs' own).
  // EINVAL: an empty run, overlapping runs, a coordinate beyond coordinate_limit.
  static Result<Axis> from_pieces(std::span<const Piece> pieces, Run used = {});
  static Result<Axis> from_runs(std::span<const Run> runs);

  std::uint64_t extent() const;
  std::uint64_t positions() const;
  std::size_t run_count() const;  // dormant ones included
  // An interval that holds every coordinate that the axis has or ever had; {0, 0} when it never had
  // any. Coordinates outside are fresh.
  Run used() const { return used_; }

  // REQUIRES: logical < extent().
  std::int64_t physical(std::uint64_t logical) const;
  // The logical index of a coordinate, or nothing. O(log runs) when runs are mostly sorted.
  std::optional<std::uint64_t> logical(std::int64_t physical) const;

  // Calls visit(logical index of the run's first element, run) for the pieces of `range` in order,
  // cut to the range. REQUIRES: range.end <= extent().
  void for_runs(Interval range,
                const std::function<void(std::uint64_t logical, Run run)>& visit) const;
  std::vector<Run> runs(Interval range) const;
  // All runs of indexes, by place: found once for each version, then kept with it.
  struct Placed {
    Run run;
    std::uint64_t logical = 0;  // of its first coordinate
  };
  std::span<const Placed> runs_by_place() const;

  // ---- Positions ----
  // Of a logical index; positions() for extent(). REQUIRES: logical <= extent().
  std::uint64_t position_of_index(std::uint64_t logical) const;
  // Of a coordinate, dormant or not. As fast as logical().
  std::optional<std::uint64_t> position_of(std::int64_t physical) const;
  // How many indexes come before a position. REQUIRES: position <= positions().
  std::uint64_t indexes_before(std::uint64_t position) const;
  // REQUIRES: position < positions().
  std::int64_t coordinate_at(std::uint64_t position) const;
  // The first position behind all indexes: from there on everything is dormant.
  std::uint64_t end_position() const;
  // Pieces in order, the first and last cut to the positions. REQUIRES: range.end <= positions().
  std::vector<Piece> pieces(Interval positions) const;
  std::vector<Piece> pieces() const { return pieces({0, positions()}); }

  // ---- Edits ----
  // Puts `fresh` in front of what is at `position`. EINVAL when position > positions(), when
  // `fresh` is empty or beyond coordinate_limit, or when one of its coordinates is in use.
  Result<Axis> insert(std::uint64_t position, Run fresh) const;
  // Coordinates become dormant, come back, go for good, or move with their states to a position
  // (counted without them). What they leave closes up. EINVAL unless the axis has all of them, for
  // hide() none dormant, for show() all dormant.
  Result<Axis> hide(Run coordinates) const;
  Result<Axis> show(Run coordinates) const;
  Result<Axis> drop(Run coordinates) const;
  Result<Axis> move(Run coordinates, std::uint64_t position) const;
  // The same coordinates, each in its state, in another order. EINVAL when they are not the same.
  Result<Axis> arrange(std::span<const Piece> pieces) const;

  // True when `other` is this axis with something appended at its end (or equal): every logical
  // index of this one means the same coordinate in `other`. O(1); true along a chain of appends;
  // may be false for axes that are equal by chance, or that are the second append to one version.
  bool is_prefix_of(const Axis& other) const;
  // Changes whenever an existing index changes its meaning; the first append to a version keeps it.
  // Two axes with the same epoch and extent are equal. Unique in a process; 0 when empty.
  std::uint64_t epoch() const { return lineage_ ? lineage_->epoch : 0; }

 private:
  // A chain of versions of which each is the one before it with something appended.
  struct Lineage {
    std::uint64_t epoch = 0;
    std::atomic<std::uint64_t> extent{0};  // of the last version
  };
  struct Measure {
    std::uint64_t shown = 0;                 // coordinates that are not dormant
    std::uint64_t length = 0;                // all coordinates
    std::int64_t lowest = coordinate_limit;  // smallest coordinate, and one past the greatest
    std::int64_t highest = -coordinate_limit;

    static Measure of(const Piece& piece) {
      const Run& run = piece.run;
      return {piece.dormant ? 0 : run.length, run.length, run.first, run.end()};
    }
    friend Measure operator+(const Measure& a, const Measure& b) {
      return {a.shown + b.shown, a.length + b.length, std::min(a.lowest, b.lowest),
              std::max(a.highest, b.highest)};
    }
  };
  using Pieces = PersistentSequence<Piece, Measure>;
  struct ByPlace {
    std::once_flag found;
    std::vector<Placed> runs;
  };
  struct Found {
    std::size_t index = 0;     // of a piece
    std::uint64_t before = 0;  // positions (or indexes) before it
  };

  Axis(Pieces pieces, std::shared_ptr<Lineage> lineage, Run used)
      : pieces_(std::move(pieces)),
        lineage_(std::move(lineage)),
        used_(used),
        by_place_(std::make_shared<ByPlace>()) {}
  static Axis with_fresh_epoch(Pieces pieces, Run used);
  // This axis with other pieces; `appends`: to the indexes of this one more were added at the end.
  Axis with(Pieces pieces, bool appends) const;
  Found find_index(std::uint64_t logical) const;
  Found find_position(std::uint64_t position) const;
  std::optional<Found> find_coordinate(std::int64_t physical) const;
  bool uses(const Run& coordinates) const;
  static Pieces inserted(const Pieces& pieces, std::uint64_t position, const Piece& piece);
  // Pieces cut to the coordinates, in order, with the index of each in pieces_. EINVAL unless all
  // are there.
  Result<std::vector<std::pair<std::size_t, Piece>>> covering(const Run& coordinates) const;
  Result<Axis> set_dormant(const Run& coordinates, bool dormant) const;
  Result<Pieces> without(const Run& coordinates) const;

  Pieces pieces_;
  std::shared_ptr<Lineage> lineage_;  // none while there is no index
  Run used_;
  std::shared_ptr<ByPlace> by_place_;  // none for a default-constructed axis
};

}  // namespace accrete
