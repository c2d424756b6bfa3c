#include "core/frame_sums.h"

#include <algorithm>

#include "core/bytes.h"
#include "core/linearize.h"

namespace accrete {

void FrameSummer::add(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const std::uint64_t room = sum_chunk_bytes - bytes_ % sum_chunk_bytes;
    const auto piece = bytes.first(std::min<std::size_t>(room, bytes.size()));
    chunk_.add(piece);
    bytes_ += piece.size();
    if (bytes_ % sum_chunk_bytes == 0) {
      sums_.push_back(chunk_.sum64());
      chunk_.reset();
    }
    bytes = bytes.subspan(piece.size());
  }
}

std::vector<std::uint64_t> FrameSummer::finish() {
  if (bytes_ % sum_chunk_bytes != 0) sums_.push_back(chunk_.sum64());
  chunk_.reset();
  bytes_ = 0;
  return std::exchange(sums_, {});
}

std::vector<std::uint64_t> sum_frame(const View& view, const BoxIndex& boxes,
                                     const std::byte* mapping, Coding at_rest, const Element& pad) {
  const std::size_t size = size_of(at_rest.type);
  const std::uint64_t step = sum_chunk_bytes / size;
  const std::uint64_t count = view.element_count();
  std::vector<std::byte> chunk(std::min(count, step) * size);
  FrameSummer summer;
  for (std::uint64_t at = 0; at < count; at += step) {
    const Interval range{at, std::min(count, at + step)};
    if (!gather(view, boxes, mapping, at_rest, range, chunk.data(), at_rest, pad)) return {};
    summer.add(std::span(chunk).first(range.length() * size));
  }
  return summer.finish();
}

std::string sums_text(const std::vector<std::uint64_t>& sums) {
  if (sums.size() == 1) return {};
  ByteWriter out;
  for (const std::uint64_t sum : sums) out.put(sum);
  return out.take();
}

std::uint64_t first_sum(const std::vector<std::uint64_t>& sums) {
  return sums.size() == 1 ? sums.front() : checksum(as_bytes(sums_text(sums)));
}

bool sums_match(const FrameRow& row, const std::string& heap_text,
                const std::vector<std::uint64_t>& sums) {
  return row.first_sum == first_sum(sums) && heap_text == sums_text(sums);
}

}  // namespace accrete
