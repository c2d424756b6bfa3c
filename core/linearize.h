// The one walk that reading, masks, importing, exporting and checking share: the elements of a
// range of a view's element stream, as blocks inside bricks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "core/box.h"
#include "core/dtype.h"
#include "core/view.h"

namespace accrete {

// A cuboid of elements that lies within one brick and at regular places of the stream.
// Dimension 0 is the view's fastest. Element (i0, i1, …) of it lies in the brick file at
// file_offset + Σ i_d * file_stride[d] (bytes) and in the stream at
// stream_index + Σ i_d * stream_stride[d] (elements, relative to the range's first).
struct Block {
  const Box* box = nullptr;  // valid as long as the boxes that were walked
  std::uint64_t file_offset = 0;
  std::uint64_t stream_index = 0;
  Shape extent;
  PerAxis<std::uint64_t> file_stride;
  PerAxis<std::uint64_t> stream_stride;

  std::uint64_t element_count() const;
};

enum class Slots { written, all };  // `all`: also slots that are not committed yet (importing)

// Visits the blocks that hold the elements [range.begin, range.end) of the view's stream, each
// element at most once, in no particular order. Elements that are visited by no block are pad.
// Returns how many elements were visited. REQUIRES: range.end <= view.element_count().
// Pure; thread-safe.
std::uint64_t for_blocks(const View& view, const BoxIndex& boxes, std::size_t element_size,
                         Slots slots, Interval range,
                         const std::function<void(const Block&)>& visit);

// The same elements as runs that are contiguous in the stream and in the brick file: visit(place in
// the range, elements, file offset, box), in no particular order.
void for_runs_in_boxes(
    const View& view, const BoxIndex& boxes, std::size_t element_size, Slots slots, Interval range,
    const std::function<void(std::uint64_t, std::uint64_t, std::uint64_t, const Box&)>& visit);

// A contiguous piece of the stream that is contiguous in the brick file too, or pad.
struct StreamRun {
  std::uint64_t stream_index = 0;  // elements, relative to the range's first
  std::uint64_t length = 0;        // elements
  std::uint64_t file_offset = 0;   // bytes
  bool is_pad = false;
};

// The same range as runs in stream order, neighbours merged, pad runs filling the gaps; stops and
// returns false when there would be more than `most` runs.
bool collect_runs(const View& view, const BoxIndex& boxes, std::size_t element_size, Slots slots,
                  Interval range, std::size_t most, std::vector<StreamRun>& runs);

// Copies the elements `range` of the view's stream out of the mapped brick file into `target`
// (range.length() elements), converting the coding; what no block holds becomes `pad` (given in
// the target's coding). `mapping`: address of byte 0 of the brick file. Transposed views are copied
// in cache-sized blocks, the byte swap in the same pass. False: the file could not be read
// (core/fault_guard.h), and `target` holds anything. Thread-safe.
[[nodiscard]] bool gather(const View& view, const BoxIndex& boxes, const std::byte* mapping,
                          Coding at_rest, Interval range, std::byte* target, Coding coding,
                          const Element& pad);
// The same without pad: what no block holds stays as it is in `target`.
[[nodiscard]] bool gather_over(const View& view, const BoxIndex& boxes, const std::byte* mapping,
                               Coding at_rest, Interval range, std::byte* target, Coding coding);

// The mask of the same range, a byte an element: 1 where a live frame gave it, that is where a
// written slot of a box holds it, else 0. Looks at no element. Thread-safe.
void gather_mask(const View& view, const BoxIndex& boxes, Interval range, std::byte* target);
// Sets those bytes only, and leaves the others as they are.
void gather_mask_over(const View& view, const BoxIndex& boxes, Interval range, std::byte* target);

}  // namespace accrete
