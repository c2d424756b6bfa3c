// A persistent sequence: an immutable value with O(log n) edits that share all but a path.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace accrete {

// Summary of nothing, for sequences that need no prefix sums.
struct NoMeasure {
  template <class T>
  static NoMeasure of(const T&) { return {}; }
  friend NoMeasure operator+(NoMeasure, NoMeasure) { return {}; }
};

// `Measure`: a monoid (default constructor is the neutral element, operator+ combines) with
// `static Measure of(const T&)`, kept for every subtree.
template <class T, class Measure = NoMeasure>
class PersistentSequence;

}  // namespace accrete
