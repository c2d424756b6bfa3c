// Extents and coordinates of up to eight axes, fastest axis first.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "core/result.h"

namespace accrete {

inline constexpr std::size_t max_rank = 8;

// A sequence of at most max_rank values, one an axis, held in place. Out-of-range access is a bug.
template <class T>
class PerAxis {
 public:
  PerAxis() = default;
  explicit PerAxis(std::size_t rank, T value = T{}) : size_(rank) {
    for (std::size_t i = 0; i < rank; ++i) items_[i] = value;
  }
  PerAxis(std::initializer_list<T> values) {
    for (const T& v : values) push_back(v);
  }

  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T& operator[](std::size_t i) { return items_[i]; }
  const T& operator[](std::size_t i) const { return items_[i]; }
  void push_back(T value) { items_.at(size_) = std::move(value), ++size_; }
  void pop_back() { --size_; }
  T& back() { return items_[size_ - 1]; }
  const T& back() const { return items_[size_ - 1]; }
  T* begin() { return items_.data(); }
  T* end() { return items_.data() + size_; }
  const T* begin() const { return items_.data(); }
  const T* end() const { return items_.data() + size_; }

  friend bool operator==(const PerAxis& a, const PerAxis& b) {
    if (a.size_ != b.size_) return false;
    for (std::size_t i = 0; i < a.size_; ++i)
      if (!(a.items_[i] == b.items_[i])) return false;
    return true;
  }

 private:
  std::array<T, max_rank> items_{};
  std::size_t size_ = 0;
};

using Shape = PerAxis<std::uint64_t>;
using Coords = PerAxis<std::int64_t>;

// Half-open range of indexes.
struct Interval {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;

  std::uint64_t length() const { return end - begin; }
  bool empty() const { return begin >= end; }
  friend bool operator==(const Interval&, const Interval&) = default;
};

// Product of the extents (1 for none); EFBIG when it does not fit 63 bits.
Result<std::uint64_t> checked_product(std::span<const std::uint64_t> extents);
// a * b; EFBIG when it does not fit 63 bits.
Result<std::uint64_t> checked_multiply(std::uint64_t a, std::uint64_t b);

// "512 512 2000".
std::string to_string(const Shape& shape);

}  // namespace accrete
