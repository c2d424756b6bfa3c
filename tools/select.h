// The k-th smallest of some values.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <span>
#include <utility>

namespace accrete {

// Reorders the values so that those before place k are not greater, and those behind it not
// smaller, than the one there; as std::nth_element() does, but without a jump that depends on a
// value: those of random values are mispredicted every other time. REQUIRES: k < values.size(),
// and an order (no NaN). Thread-safe.
template <class T>
void select(std::span<T> values, std::size_t k) {
  constexpr std::size_t few = 24;
  // Halves, more or less, each time; values that are laid out against it are left to the library.
  auto rounds = 2 * std::bit_width(values.size());
  const auto is_less = [](T a, T b) { return a < b; };
  while (values.size() > few) {
    const std::size_t n = values.size();
    if (rounds-- == 0) {
      std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(k),
                       values.end());
      return;
    }
    const T a = values[n / 4], b = values[n / 2], c = values[n - 1 - n / 4];
    const T pivot = std::max(std::min(a, b), std::min(std::max(a, b), c));
    const auto part = [&](auto goes_first) {
      std::size_t first = 0;
      for (std::size_t i = 0; i < n; ++i) {
        const T value = values[i];
        values[i] = values[first];
        values[first] = value;
        first += goes_first(value) ? 1 : 0;
      }
      return first;
    };
    std::size_t first = part([&](T value) { return is_less(value, pivot); });
    if (first == 0) {
      // It is the smallest; all that are as small come first.
      first = part([&](T value) { return !is_less(pivot, value); });
      if (k < first) return;
    }
    if (k < first) {
      values = values.first(first);
    } else {
      values = values.subspan(first);
      k -= first;
    }
  }
  std::sort(values.begin(), values.end());
}

}  // namespace accrete
