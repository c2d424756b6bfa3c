// Ranges of an element stream as cuboids of indexes.
#pragma once

#include "core/shape.h"

namespace accrete {

// A cuboid of a view's index space: one range a dimension, relative to the view's.
using Cuboid = PerAxis<Interval>;

// Calls visit() with `cuboid` set to each part of the range [begin, end) of the dimensions [0, d]:
// per dimension, from the slowest, the part of a row before the first whole one, the whole ones,
// and the part after them. `stride`: elements of one index of each dimension.
template <class Visit>
void for_cuboids(const Shape& shape, const PerAxis<std::uint64_t>& stride, std::size_t d,
                 std::uint64_t begin, std::uint64_t end, Cuboid& cuboid, const Visit& visit) {
  const std::uint64_t row = stride[d];
  std::uint64_t first = begin / row;
  const std::uint64_t last = end / row;  // what is left of it is end % row
  const auto part_of_row = [&](std::uint64_t index, std::uint64_t from, std::uint64_t to) {
    cuboid[d] = {index, index + 1};
    for_cuboids(shape, stride, d - 1, from, to, cuboid, visit);
  };
  if (first == last) {
    if (begin != end) part_of_row(first, begin % row, end % row);
    return;
  }
  if (begin % row != 0) part_of_row(first++, begin % row, row);
  if (first < last) {
    cuboid[d] = {first, last};
    for (std::size_t lower = 0; lower < d; ++lower) cuboid[lower] = {0, shape[lower]};
    visit();
  }
  if (end % row != 0) part_of_row(last, 0, end % row);
}

// Elements of one index of each dimension.
inline PerAxis<std::uint64_t> stream_strides(const Shape& shape) {
  PerAxis<std::uint64_t> strides;
  std::uint64_t stride = 1;
  for (const std::uint64_t extent : shape) {
    strides.push_back(stride);
    stride *= extent;
  }
  return strides;
}

}  // namespace accrete
