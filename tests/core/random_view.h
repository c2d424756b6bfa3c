// Axes and views of them for tests.
#pragma once

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "core/view.h"

namespace accrete::testing {

// Coordinates 0 … extent-1.
inline Axis axis_of(std::uint64_t extent) {
  const Run run{0, extent};
  return *Axis::from_runs({&run, 1});
}

// A random cut-out in a random order of axes. REQUIRES: no extent is 0.
inline View random_view(std::mt19937_64& random, const PerAxis<Axis>& axes) {
  std::vector<std::size_t> order(axes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::shuffle(order.begin(), order.end(), random);
  order.resize(1 + random() % order.size());
  PerAxis<ViewAxis> spanned;
  for (const std::size_t a : order) {
    const std::uint64_t extent = axes[a].extent();
    const bool is_whole = random() % 2 == 0;
    const std::uint64_t begin = is_whole ? 0 : random() % extent;
    spanned.push_back({a, {begin, is_whole ? extent : begin + 1 + random() % (extent - begin)}});
  }
  Shape fixed;
  for (const Axis& axis : axes) fixed.push_back(random() % axis.extent());
  return *View::make(axes, spanned, fixed);
}

}  // namespace accrete::testing
