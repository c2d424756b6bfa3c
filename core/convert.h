// Conversion of element values from one type to another. Pure.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"

namespace accrete {

// exact: only values that the target type has. nearest: others are rounded (halves to even), and
// those beyond the type's range become its nearest finite value.
enum class Rounding : std::uint8_t { exact = 0, nearest = 1 };

struct Converted {
  // exact: how many elements were converted before the first whose value the target type does not
  // have; nearest: all.
  std::size_t count = 0;
  std::size_t changed = 0;  // nearest: elements whose value is another now
  bool invertible = true;   // converting the converted ones back exactly gives the same bits
};

// Converts n elements in native coding. A NaN is one value, whatever its bits; integers have none:
// `nan` (an element of the target type, native) takes its place when rounding to nearest.
// Any alignment; the two ranges do not overlap. Thread-safe.
Converted convert(std::byte* target, DType to, const std::byte* source, DType from, std::size_t n,
                  Rounding rounding, const Element& nan);

// The same to nearest, where nobody asks what became of the values.
void convert_nearest(std::byte* target, DType to, const std::byte* source, DType from,
                     std::size_t n, const Element& nan);

}  // namespace accrete
