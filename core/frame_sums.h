// Checksums of a frame's elements.
//
// The element stream of a frame in its file's order, in the coding at rest, is cut into chunks of
// one mebibyte; each has its XXH3-64. (Chunks of the stream and not layers of a box: they can be
// computed while the file streams in, and do not depend on how it was laid out.) A row holds the
// checksum of its only chunk, or in `first_sum` that of the list, which lies in the heap.
#pragma once

#include <string>
#include <vector>

#include "core/checksum.h"
#include "core/snapshot.h"

namespace accrete {

inline constexpr std::uint64_t sum_chunk_bytes = 1 << 20;

// Sums a stream that comes in order, piece by piece.
class FrameSummer {
 public:
  void add(std::span<const std::byte> bytes);
  std::uint64_t bytes() const { return bytes_; }
  std::vector<std::uint64_t> finish();  // resets

 private:
  Checksummer chunk_;
  std::uint64_t bytes_ = 0;
  std::vector<std::uint64_t> sums_;
};

// The sums of what the boxes hold for a frame's view; none where it cannot be read.
std::vector<std::uint64_t> sum_frame(const View& view, const BoxIndex& boxes,
                                     const std::byte* mapping, Coding at_rest, const Element& pad);

// The list as heap text; empty when there is only one.
std::string sums_text(const std::vector<std::uint64_t>& sums);
std::uint64_t first_sum(const std::vector<std::uint64_t>& sums);
bool sums_match(const FrameRow& row, const std::string& heap_text,
                const std::vector<std::uint64_t>& sums);

}  // namespace accrete
