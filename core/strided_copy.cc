// Three kinds of blocks, told apart by which dimension's elements touch each other in memory:
//   - the same one in source and target: runs, recoded one by one;
//   - one in the source, another in the target: a transposition, in tiles of one cache line by one
//     cache line. A tile's source lines are read once each, whole: brick layers are a power of two
//     apart, so lines of the same column fall into one set of a cache and cannot stay there
//     together. The tile is transposed and recoded in the innermost cache and written by lines. The
//     next tile is the next one along the source: few streams of reads, which the machine foresees;
//   - none in one of them (a column): element by element, through a small buffer.
#include "core/strided_copy.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace accrete {

namespace {

struct Dimension {
  std::uint64_t extent = 0;
  std::uint64_t target = 0;  // strides
  std::uint64_t source = 0;
};

// The dimensions worth a loop, fastest in the target first: those of extent 1 are dropped, those
// that continue each other in both are merged.
PerAxis<Dimension> simplified(const PerAxis<std::uint64_t>& target_stride,
                              const PerAxis<std::uint64_t>& source_stride, const Shape& extent) {
  PerAxis<Dimension> sorted;
  for (std::size_t d = 0; d < extent.size(); ++d) {
    if (extent[d] == 1) continue;
    sorted.push_back({extent[d], target_stride[d], source_stride[d]});
    for (std::size_t i = sorted.size() - 1; i > 0 && sorted[i].target < sorted[i - 1].target; --i)
      std::swap(sorted[i], sorted[i - 1]);
  }
  PerAxis<Dimension> merged;
  for (const Dimension& d : sorted) {
    if (!merged.empty() && d.target == merged.back().target * merged.back().extent &&
        d.source == merged.back().source * merged.back().extent)
      merged.back().extent *= d.extent;
    else
      merged.push_back(d);
  }
  return merged;
}

// Calls visit(target, source) for each index of the dimensions that are not among the inner ones.
template <class Visit>
void for_outer(const PerAxis<Dimension>& dimensions, std::size_t inner, std::size_t other_inner,
               std::byte* target, const std::byte* source, const Visit& visit) {
  PerAxis<Dimension> outer;
  for (std::size_t d = 0; d < dimensions.size(); ++d)
    if (d != inner && d != other_inner) outer.push_back(dimensions[d]);
  PerAxis<std::uint64_t> index(outer.size(), 0);
  for (;;) {
    visit(target, source);
    std::size_t d = 0;
    for (; d < outer.size(); ++d) {
      target += outer[d].target;
      source += outer[d].source;
      if (++index[d] < outer[d].extent) break;
      target -= outer[d].target * outer[d].extent;
      source -= outer[d].source * outer[d].extent;
      index[d] = 0;
    }
    if (d == outer.size()) return;
  }
}

constexpr std::size_t line_bytes = 64;

template <std::size_t size>
struct UnsignedOf;
template <>
struct UnsignedOf<1> {
  using type = std::uint8_t;
};
template <>
struct UnsignedOf<2> {
  using type = std::uint16_t;
};
template <>
struct UnsignedOf<4> {
  using type = std::uint32_t;
};
template <>
struct UnsignedOf<8> {
  using type = std::uint64_t;
};

// Transposes squares of 16 bytes by 16 bytes: rows i and i + lanes/2 are interleaved into the rows
// 2i and 2i + 1, which moves the top bit of the row number to the bottom of the column number;
// after log2(lanes) rounds all bits have changed places.
template <std::size_t size>
struct Square {
  static constexpr std::size_t lanes = 16 / size;
  using Unsigned = typename UnsignedOf<size>::type;
  using Vector [[gnu::vector_size(16)]] = Unsigned;

  template <int first, int... index>
  static Vector interleave(const Vector& a, const Vector& b, std::integer_sequence<int, index...>) {
    return __builtin_shufflevector(a, b,
                                   (first + index / 2 + (index % 2) * static_cast<int>(lanes))...);
  }

  static void transpose(std::byte* target, const std::byte* source) {
    constexpr auto indexes = std::make_integer_sequence<int, static_cast<int>(lanes)>{};
    Vector rows[lanes];
    for (std::size_t i = 0; i < lanes; ++i) std::memcpy(&rows[i], source + i * line_bytes, 16);
    for (std::size_t round = 1; round < lanes; round *= 2) {
      Vector next[lanes];
      for (std::size_t i = 0; i < lanes / 2; ++i) {
        next[2 * i] = interleave<0>(rows[i], rows[i + lanes / 2], indexes);
        next[2 * i + 1] =
            interleave<static_cast<int>(lanes / 2)>(rows[i], rows[i + lanes / 2], indexes);
      }
      for (std::size_t i = 0; i < lanes; ++i) rows[i] = next[i];
    }
    for (std::size_t i = 0; i < lanes; ++i) std::memcpy(target + i * line_bytes, &rows[i], 16);
  }
};

// `rows` rows of `length` consecutive elements; row_at(i) is where one begins.
template <std::size_t size, class RowAt>
void transpose(std::byte* target, std::uint64_t target_stride, std::uint64_t rows,
               std::uint64_t length, const RowAt& row_at, Coding from, Coding to) {
  constexpr std::size_t side = line_bytes / size;
  constexpr std::size_t step = Square<size>::lanes;
  alignas(line_bytes) std::byte read[side * line_bytes];
  alignas(line_bytes) std::byte turned[side * line_bytes];
  for (std::uint64_t i = 0; i < rows; i += side) {
    const std::size_t height = std::min<std::uint64_t>(side, rows - i);
    for (std::uint64_t j = 0; j < length; j += side) {
      const std::size_t width = std::min<std::uint64_t>(side, length - j);
      std::byte* to_tile = target + i * size + j * target_stride;
      if (width == side && height == side) {
        for (std::size_t row = 0; row < side; ++row)
          std::memcpy(read + row * line_bytes, row_at(i + row) + j * size, line_bytes);
        for (std::size_t row = 0; row < side; row += step)
          for (std::size_t column = 0; column < side; column += step)
            Square<size>::transpose(turned + column * line_bytes + row * size,
                                    read + row * line_bytes + column * size);
        if (from != to) recode(turned, turned, side * side, from, to);
        for (std::size_t row = 0; row < side; ++row)
          std::memcpy(to_tile + row * target_stride, turned + row * line_bytes, line_bytes);
      } else {
        for (std::size_t row = 0; row < height; ++row)
          for (std::size_t column = 0; column < width; ++column)
            std::memcpy(turned + (column * height + row) * size,
                        row_at(i + row) + (j + column) * size, size);
        if (from != to) recode(turned, turned, width * height, from, to);
        for (std::size_t column = 0; column < width; ++column)
          std::memcpy(to_tile + column * target_stride, turned + column * height * size,
                      height * size);
      }
    }
  }
}

// Neither side need be contiguous.
template <std::size_t size>
void scatter(std::byte* target, const std::byte* source, const Dimension& along, Coding from,
             Coding to) {
  constexpr std::size_t most = 256;
  std::byte buffer[most * size];
  for (std::uint64_t done = 0; done < along.extent; done += most) {
    const std::size_t count = std::min<std::uint64_t>(most, along.extent - done);
    for (std::size_t i = 0; i < count; ++i)
      std::memcpy(buffer + i * size, source + i * along.source, size);
    if (from != to) recode(buffer, buffer, count, from, to);
    for (std::size_t i = 0; i < count; ++i)
      std::memcpy(target + i * along.target, buffer + i * size, size);
    source += count * along.source;
    target += count * along.target;
  }
}

template <std::size_t size>
void copy(const PerAxis<Dimension>& dimensions, std::byte* target, const std::byte* source,
          Coding from, Coding to) {
  const std::size_t none = dimensions.size();
  std::size_t in_target = none;
  std::size_t in_source = none;
  for (std::size_t d = 0; d < dimensions.size(); ++d) {
    if (dimensions[d].target == size) in_target = d;
    if (dimensions[d].source == size) in_source = d;
  }
  if (in_target != none && in_target == in_source) {
    const std::uint64_t length = dimensions[in_target].extent;
    for_outer(dimensions, in_target, none, target, source,
              [&](std::byte* t, const std::byte* s) { recode(t, s, length, from, to); });
  } else if (in_target != none && in_source != none) {
    const Dimension across = dimensions[in_target];
    const Dimension along = dimensions[in_source];
    for_outer(dimensions, in_target, in_source, target, source,
              [&](std::byte* t, const std::byte* s) {
                transpose<size>(
                    t, along.target, across.extent, along.extent,
                    [&](std::uint64_t row) { return s + row * across.source; }, from, to);
              });
  } else {
    // The fastest of the target, or of the source where only that one has a contiguous dimension.
    const std::size_t inner = in_source != none ? in_source : 0;
    const Dimension along = dimensions[inner];
    for_outer(dimensions, inner, none, target, source,
              [&](std::byte* t, const std::byte* s) { scatter<size>(t, s, along, from, to); });
  }
}

}  // namespace

void strided_copy(std::byte* target, const PerAxis<std::uint64_t>& target_stride,
                  const std::byte* source, const PerAxis<std::uint64_t>& source_stride,
                  const Shape& extent, Coding from, Coding to) {
  if (std::find(extent.begin(), extent.end(), 0) != extent.end()) return;
  PerAxis<Dimension> dimensions = simplified(target_stride, source_stride, extent);
  const std::size_t size = size_of(from.type);
  if (dimensions.empty()) dimensions.push_back({1, size, size});
  switch (size) {
    case 1:
      return copy<1>(dimensions, target, source, from, to);
    case 2:
      return copy<2>(dimensions, target, source, from, to);
    case 4:
      return copy<4>(dimensions, target, source, from, to);
    default:
      return copy<8>(dimensions, target, source, from, to);
  }
}

void transpose_rows(std::byte* target, std::uint64_t target_stride,
                    std::span<const std::byte* const> sources, std::uint64_t length, Coding from,
                    Coding to) {
  const auto copy_rows = [&]<std::size_t size>() {
    transpose<size>(
        target, target_stride, sources.size(), length,
        [&](std::uint64_t row) { return sources[row]; }, from, to);
  };
  switch (size_of(from.type)) {
    case 1:
      return copy_rows.template operator()<1>();
    case 2:
      return copy_rows.template operator()<2>();
    case 4:
      return copy_rows.template operator()<4>();
    default:
      return copy_rows.template operator()<8>();
  }
}

}  // namespace accrete
