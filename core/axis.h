// An axis as a piece table: which physical coordinate each logical index means.
//
// Logical indexes 0 … extent-1 are what a user counts. Each maps to a signed physical coordinate,
// at which the store keeps the elements for ever. Growth gives fresh coordinates to fresh indexes
// and never changes the coordinate of an existing element; so no data ever moves:
//   append   takes coordinates above all used ones, prepend below, an insertion splits a run.
// The map is a sequence of runs (consecutive coordinates) in a persistent balanced tree, so a copy
// is O(1), an edit O(log runs), and a snapshot keeps its own version. Neighbouring runs that
// continue each other are merged: n serial appends (or prepends) are one run.
//
// \invariant runs are non-empty, mutually disjoint in physical space, and maximal
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
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
  Axis() = default;  // extent 0
  // Runs in logical order; merged where they continue each other.
  // EINVAL: an empty run, overlapping runs, a coordinate beyond coordinate_limit.
  static Result<Axis> from_runs(std::span<const Run> runs);

  std::uint64_t extent() const;
  std::size_t run_count() const;
  // Smallest interval [low, high) holding all coordinates; {0, 0} when empty.
  Run hull() const;

  // REQUIRES: logical < extent().
  std::int64_t physical(std::uint64_t logical) const;
  // The logical index of a coordinate, or nothing. O(log runs) when runs are mostly sorted.
  std::optional<std::uint64_t> logical(std::int64_t physical) const;

  // Calls visit(logical index of the run's first element, run) for the pieces of `range` in order,
  // cut to the range. REQUIRES: range.end <= extent().
  void for_runs(Interval range,
                const std::function<void(std::uint64_t logical, Run run)>& visit) const;
  std::vector<Run> runs(Interval range) const;

  // Makes `fresh` the indexes from `at` on. EINVAL when at > extent(), when `fresh` is empty or
  // beyond coordinate_limit, or when one of its coordinates is in use.
  Result<Axis> insert(std::uint64_t at, Run fresh) const;
  // Drops the indexes of `range`; what follows closes up. EINVAL when it ends beyond extent().
  Result<Axis> erase(Interval range) const;

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
    std::uint64_t length = 0;
    std::int64_t lowest = coordinate_limit;  // smallest coordinate, and one past the greatest
    std::int64_t highest = -coordinate_limit;

    static Measure of(const Run& run) { return {run.length, run.first, run.end()}; }
    friend Measure operator+(const Measure& a, const Measure& b) {
      return {a.length + b.length, std::min(a.lowest, b.lowest), std::max(a.highest, b.highest)};
    }
  };
  using Runs = PersistentSequence<Run, Measure>;

  Axis(Runs runs, std::shared_ptr<Lineage> lineage)
      : runs_(std::move(runs)), lineage_(std::move(lineage)) {}
  static Axis with_fresh_epoch(Runs runs);
  // Index in runs_ of the run that holds a logical index, and the logical index of its first.
  std::pair<std::size_t, std::uint64_t> locate(std::uint64_t logical) const;
  bool uses(const Run& coordinates) const;

  Runs runs_;
  std::shared_ptr<Lineage> lineage_;  // none when empty
};

}  // namespace accrete
