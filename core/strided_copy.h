// Copies of N-d blocks between two orders of elements, the coding changed in the same pass.
#pragma once

#include <cstddef>
#include <span>
#include <cstdint>

#include "core/dtype.h"
#include "core/shape.h"

namespace accrete {

// For every index (i0, i1, …) below `extent`, copies the element at source + Σ i_d *
// source_stride[d] to target + Σ i_d * target_stride[d] (strides in bytes), changing its coding.
// Dimensions may come in any order; the fast ones are found by their strides. Reads and writes no
// other bytes. REQUIRES: from.type == to.type; all have the same rank; source and target do not
// overlap, and no two elements of the target do. Any alignment. Thread-safe.
void strided_copy(std::byte* target, const PerAxis<std::uint64_t>& target_stride,
                  const std::byte* source, const PerAxis<std::uint64_t>& source_stride,
                  const Shape& extent, Coding from, Coding to);

// A transposition of rows that lie anywhere: row i has `length` elements one after the other at
// sources[i]; element j of it goes to target + i * (element size) + j * target_stride.
// Otherwise as above.
void transpose_rows(std::byte* target, std::uint64_t target_stride,
                    std::span<const std::byte* const> sources, std::uint64_t length, Coding from,
                    Coding to);

}  // namespace accrete
