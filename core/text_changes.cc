#include "core/text_changes.h"

#include <algorithm>

namespace accrete {

void TextChanges::put(std::uint64_t offset, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  const std::uint64_t end = offset + bytes.size();
  std::erase_if(pieces_, [&](const Piece& p) { return offset <= p.offset && p.end() <= end; });
  if (!pieces_.empty() && pieces_.back().end() == offset)
    pieces_.back().bytes.insert(pieces_.back().bytes.end(), bytes.begin(), bytes.end());
  else
    pieces_.push_back({offset, {bytes.begin(), bytes.end()}});
}

void TextChanges::put(const TextChanges& later) {
  for (const Piece& piece : later.pieces_) put(piece.offset, piece.bytes);
}

void TextChanges::lay_over(std::uint64_t offset, std::span<std::byte> target) const {
  for (const Piece& piece : pieces_) {
    const std::uint64_t first = std::max(offset, piece.offset);
    const std::uint64_t last = std::min(offset + target.size(), piece.end());
    if (first >= last) continue;
    const auto from = piece.bytes.begin() + static_cast<std::ptrdiff_t>(first - piece.offset);
    std::copy(from, from + static_cast<std::ptrdiff_t>(last - first),
              target.begin() + static_cast<std::ptrdiff_t>(first - offset));
  }
}

}  // namespace accrete
