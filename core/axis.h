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

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "core/persistent_sequence.h"
#include "core/shape.h"

namespace accrete {

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
  // EINVAL: an empty run, overlapping runs, overflow.
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

  // `at` <= extent(); EINVAL when a coordinate of `fresh` is in use already or it is empty.
  Result<Axis> insert(std::uint64_t at, Run fresh) const;
  // Drops the indexes of `range` (<= extent()); what follows closes up.
  Result<Axis> erase(Interval range) const;

  // True when `other` is this axis with something appended at its end (or equal): every logical
  // index of this one means the same coordinate in `other`. O(1) for versions derived by appends
  // only; may be false for axes that are equal by chance.
  bool is_prefix_of(const Axis& other) const;
  // Changes whenever an existing index changes its meaning; appends keep it. Unique in a process.
  std::uint64_t epoch() const { return epoch_; }

 private:
  struct Measure;  // axis.cc: lengths and physical bounds of subtrees
  struct Content;
  // Sketch: a PersistentSequence<Run, …>; the epoch.
  PersistentSequence<Run> runs_;
  std::uint64_t epoch_ = 0;
};

}  // namespace accrete
