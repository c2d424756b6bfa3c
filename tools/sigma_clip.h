// Iterated sigma clipping of one line of values around its median.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <type_traits>
#include <vector>

#include "tools/select.h"

namespace accrete {

// The middle of sorted values: the two values in the middle, or twice the one that is there.
template <class T>
struct Middle {
  T low{};
  T high{};

  // The median as a T: a mean of two is rounded, halves to even. Zero is +0, as the order of zeros
  // means nothing.
  T median() const {
    if constexpr (std::is_floating_point_v<T>) {
      return static_cast<T>(exact() + 0.0);
    } else {
      // Unsigned arithmetic wraps to the right result for signed values, too.
      const std::uint64_t gap = distance(low, high);
      const std::uint64_t below = static_cast<std::uint64_t>(low) + gap / 2;
      return static_cast<T>(below + (gap & below & 1));
    }
  }

  // value - median, where that is rounded once at most: 64-bit integers are subtracted as such.
  double deviation(T value) const {
    if constexpr (std::is_integral_v<T> && sizeof(T) == 8) {
      const double half = static_cast<double>(distance(low, high)) / 2;
      return (value < low ? -static_cast<double>(distance(value, low))
                          : static_cast<double>(distance(low, value))) -
             half;
    } else {
      return static_cast<double>(value) - exact();
    }
  }

 private:
  static std::uint64_t distance(T from, T to) {
    return static_cast<std::uint64_t>(to) - static_cast<std::uint64_t>(from);
  }
  double exact() const {
    return std::midpoint(static_cast<double>(low), static_cast<double>(high));
  }
};

// Clips lines one after the other, with the memory of the longest. Not thread-safe.
template <class T>
class SigmaClip {
 public:
  SigmaClip(double limit, std::uint64_t iterations) : limit_(limit), iterations_(iterations) {}

  // Sets `outliers` to the indexes of the values that are dropped, ascending, and returns the
  // median of those that stay; T{} where no value takes part. Values that are not given (0 in
  // `given`) or not finite take no part. REQUIRES: as many of `given` as of `values`.
  T clip(std::span<const T> values, std::span<const std::uint8_t> given,
         std::vector<std::size_t>& outliers) {
    outliers.clear();
    keep_those_that_take_part(values, given);
    if (kept_.empty()) return T{};
    Middle<T> middle = middle_of_kept();
    for (std::uint64_t i = 0; i < iterations_ && drop_far_from(middle, outliers); ++i)
      middle = middle_of_kept();
    std::sort(outliers.begin(), outliers.end());
    return middle.median();
  }

 private:
  void keep_those_that_take_part(std::span<const T> values, std::span<const std::uint8_t> given) {
    kept_.clear();
    places_.clear();
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (given[i] == 0) continue;
      if constexpr (std::is_floating_point_v<T>) {
        if (!std::isfinite(values[i])) continue;
      }
      kept_.push_back(values[i]);
      places_.push_back(i);
    }
  }

  Middle<T> middle_of_kept() {
    sorted_ = kept_;  // kept_ stays in the order of the line
    const std::size_t half = sorted_.size() / 2;
    select(std::span(sorted_), half);
    T low = sorted_[half];
    if (sorted_.size() % 2 == 0) {
      low = sorted_[0];
      for (std::size_t i = 1; i < half; ++i) low = std::max(low, sorted_[i]);
    }
    return {low, sorted_[half]};
  }

  // Whether any was dropped. None is where all would be, as a limit below √2 may have it.
  bool drop_far_from(const Middle<T>& middle, std::vector<std::size_t>& outliers) {
    deviations_.resize(kept_.size());
    double largest = 0;
    for (std::size_t i = 0; i < kept_.size(); ++i) {
      deviations_[i] = middle.deviation(kept_[i]);
      largest = std::max(largest, std::abs(deviations_[i]));
    }
    if (largest == 0 || std::isinf(largest)) return false;
    // Squares neither overflow nor vanish when the largest deviation is between 1 and 2.
    const double scale = std::ldexp(1.0, -std::max(std::ilogb(largest), -1022));
    const double limit = limit_ * scale_and_find_spread(scale);
    const auto is_far = [limit](double deviation) { return std::abs(deviation) > limit; };
    const auto far =
        static_cast<std::size_t>(std::count_if(deviations_.begin(), deviations_.end(), is_far));
    if (far == 0 || far == kept_.size()) return false;
    std::size_t stay = 0;
    for (std::size_t i = 0; i < kept_.size(); ++i) {
      if (is_far(deviations_[i])) {
        outliers.push_back(places_[i]);
      } else {
        kept_[stay] = kept_[i];
        places_[stay++] = places_[i];
      }
    }
    kept_.resize(stay);
    places_.resize(stay);
    return true;
  }

  // The standard deviation of the scaled values (of the population: divided by their number).
  double scale_and_find_spread(double scale) {
    const auto n = static_cast<double>(deviations_.size());
    for (double& deviation : deviations_) deviation *= scale;
    const double mean = sum_of([](double deviation) { return deviation; }) / n;
    return std::sqrt(sum_of([mean](double d) { return (d - mean) * (d - mean); }) / n);
  }

  // Of what `f` makes of the deviations. Several sums at once, as each addition takes its time.
  template <class F>
  double sum_of(F f) const {
    constexpr std::size_t lanes = 8;
    double sums[lanes] = {};
    const std::size_t whole = deviations_.size() / lanes * lanes;
    for (std::size_t i = 0; i < whole; i += lanes)
      for (std::size_t lane = 0; lane < lanes; ++lane) sums[lane] += f(deviations_[i + lane]);
    for (std::size_t i = whole; i < deviations_.size(); ++i) sums[i - whole] += f(deviations_[i]);
    return std::accumulate(std::begin(sums), std::end(sums), 0.0);
  }

  const double limit_;
  const std::uint64_t iterations_;
  std::vector<T> kept_;
  std::vector<std::size_t> places_;  // of kept_ in the line
  std::vector<T> sorted_;
  std::vector<double> deviations_;
};

}  // namespace accrete
