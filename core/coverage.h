// How many frames cover each coordinate of an axis.
//
// Kept as the places where the number changes, so frames that follow each other, or that all cover
// the same, take no more room than one.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/persistent_sequence.h"
#include "core/snapshot.h"

namespace accrete {

// Immutable value with structural sharing; thread-safe.
class Coverage {
 public:
  Coverage() = default;
  // By frames that cover these. O(n log n).
  explicit Coverage(const std::vector<Run>& runs);

  // One frame more, or one less, on those coordinates. O(log n).
  Coverage add(Run run) const { return change(run.first, 1).change(run.end(), -1); }
  Coverage remove(Run run) const { return change(run.first, -1).change(run.end(), 1); }
  // The maximal parts of `run` that no frame covers, in order. O(log n + changes within).
  std::vector<Run> uncovered(Run run) const;

 private:
  struct Change {
    std::int64_t at = 0;
    std::int64_t by = 0;
  };
  struct Sum {
    std::int64_t total = 0;

    static Sum of(const Change& change) { return {change.by}; }
    friend Sum operator+(Sum a, Sum b) { return {a.total + b.total}; }
  };

  Coverage change(std::int64_t at, std::int64_t by) const;

  PersistentSequence<Change, Sum> changes_;  // by place
};

// Of all axes of a cube: by the frames that are live, and by those that are live or removed.
struct CubeCoverage {
  PerAxis<Coverage> live;
  PerAxis<Coverage> held;

  // `runs_of`: the runs of a frame.
  static CubeCoverage of(const Snapshot& snapshot,
                         const std::function<FrameRuns(const FrameRow&)>& runs_of);
  // A frame that had the one state has the other. `gone`: it covers nothing.
  CubeCoverage moved(const FrameRuns& runs, FrameState from, FrameState to) const;
};

}  // namespace accrete
