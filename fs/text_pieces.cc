#include "fs/text_pieces.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

namespace accrete {

namespace {

using Text = std::array<std::byte, 64>;

// An element as the file shows it now.
Result<Text> text_of(const Cube& cube, const Shown& shown, std::uint64_t i) {
  const Content& content = shown.content;
  const DType type = content.coding.type;
  Element element;
  ACCRETE_CHECK(
      cube.read(shown.pinned, *content.view, {i, i + 1}, element.bytes.data(), native(type)));
  Text text{};
  content.printer->print(element.bytes.data(), 1, type, reinterpret_cast<char*>(text.data()));
  return text;
}

Status write_elements(Cube& cube, const Shown& shown, std::uint64_t offset,
                      std::span<const std::byte> bytes, PokeOrigin origin,
                      std::vector<Poked>& poked) {
  Written written;
  Status status = write_range(cube, shown, offset, bytes, origin, written);
  std::move(written.poked.begin(), written.poked.end(), std::back_inserter(poked));
  return status;
}

}  // namespace

Status TextPieces::write(Cube& cube, const Shown& shown, std::uint64_t offset,
                         std::span<const std::byte> bytes, PokeOrigin origin,
                         std::vector<Poked>& poked) {
  const std::uint64_t width = shown.content.bytes_per_element;
  const std::uint64_t total = shown.content.total();
  MutexLock lock(mutex_);
  if (offset > total || bytes.size() > total - offset)
    return write_elements(cube, shown, offset, bytes, origin, poked);  // which refuses it
  // Whole elements are [first, last).
  const std::uint64_t end = offset + bytes.size();
  const std::uint64_t first = std::min((offset + width - 1) / width * width, end);
  const std::uint64_t last = std::max(end / width * width, first);
  if (first < last) {
    ACCRETE_CHECK(write_elements(cube, shown, first, bytes.subspan(first - offset, last - first),
                                 origin, poked));
    pieces_.erase(pieces_.lower_bound(first / width), pieces_.lower_bound(last / width));
  }
  ACCRETE_CHECK(put(cube, shown, offset, bytes.first(first - offset), origin, poked));
  return put(cube, shown, last, bytes.subspan(last - offset), origin, poked);
}

// Bytes of one element, not all of it.
Status TextPieces::put(Cube& cube, const Shown& shown, std::uint64_t offset,
                       std::span<const std::byte> bytes, PokeOrigin origin,
                       std::vector<Poked>& poked) {
  if (bytes.empty()) return {};
  const std::uint64_t width = shown.content.bytes_per_element;
  const std::uint64_t element = offset / width;
  const std::uint64_t skip = offset % width;
  ACCRETE_TRY(const Text now, text_of(cube, shown, element));
  Piece& piece = pieces_[element];
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const std::uint64_t bit = std::uint64_t{1} << (skip + i);
    piece.text[skip + i] = bytes[i];
    piece.written |= bit;
    piece.changed = bytes[i] != now[skip + i] ? piece.changed | bit : piece.changed & ~bit;
  }
  const std::uint64_t all = ~std::uint64_t{0} >> (64 - width);
  if (piece.written != all) return {};
  const Piece whole = piece;
  pieces_.erase(element);
  return take(cube, shown, element, whole, origin, poked);
}

Status TextPieces::take(Cube& cube, const Shown& shown, std::uint64_t element, const Piece& piece,
                        PokeOrigin origin, std::vector<Poked>& poked) {
  if (piece.changed == 0) return {};
  const std::uint64_t width = shown.content.bytes_per_element;
  ACCRETE_TRY(Text text, text_of(cube, shown, element));
  for (std::size_t i = 0; i < width; ++i)
    if ((piece.changed >> i & 1) != 0) text[i] = piece.text[i];
  return write_elements(cube, shown, element * width, std::span(text).first(width), origin, poked);
}

Status TextPieces::settle(Cube& cube, const Shown& shown, std::vector<Poked>& poked) {
  MutexLock lock(mutex_);
  const auto pieces = std::exchange(pieces_, {});
  for (const auto& [element, piece] : pieces)
    ACCRETE_CHECK(take(cube, shown, element, piece, PokeOrigin{}, poked));
  return {};
}

}  // namespace accrete
