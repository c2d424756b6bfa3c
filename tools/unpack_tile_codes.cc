#include "tools/unpack_tile_codes.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace accrete {

namespace {

// Bits of a tile, most significant first.
class Bits {
 public:
  explicit Bits(std::span<const unsigned char> bytes) : bytes_(bytes), end_(bytes.size() * 8) {}

  bool skip(std::uint64_t count) {
    at_ += count;
    return at_ <= end_;
  }
  // At most 8 of them; those behind the end are zeros.
  unsigned take(unsigned count) {
    const auto value = static_cast<unsigned>(window() >> (64 - count));
    at_ += count;
    return value;
  }
  // Zeros and the one behind them.
  bool skip_unary() {
    while (at_ < end_) {
      const std::uint64_t bits = window();
      if (bits != 0) return skip(static_cast<unsigned>(std::countl_zero(bits)) + 1);
      at_ += window_bits;
    }
    return false;
  }
  bool is_within() const { return at_ <= end_; }

 private:
  static constexpr unsigned window_bits = 56;  // of the 64, whatever bit of a byte is the first

  // The next bits, in the uppermost place.
  std::uint64_t window() const {
    const std::uint64_t first = std::min<std::uint64_t>(at_ / 8, bytes_.size());
    std::uint64_t value = 0;
    std::memcpy(&value, bytes_.data() + first, std::min<std::size_t>(8, bytes_.size() - first));
    if constexpr (std::endian::native == std::endian::little) value = __builtin_bswap64(value);
    return value << at_ % 8;
  }

  const std::span<const unsigned char> bytes_;
  const std::uint64_t end_;
  std::uint64_t at_ = 0;
};

}  // namespace

bool rice_codes_end_within(std::span<const unsigned char> tile, std::uint64_t pixels,
                           const RiceCoding& coding) {
  const unsigned length_bits = coding.pixel_bytes == 1 ? 3 : coding.pixel_bytes == 2 ? 4 : 5;
  const unsigned longest = coding.pixel_bytes == 1 ? 6 : coding.pixel_bytes == 2 ? 14 : 25;
  Bits bits(tile);
  if (!bits.skip(std::uint64_t{coding.pixel_bytes} * 8)) return false;  // the first pixel
  for (std::uint64_t done = 0; done < pixels;) {
    const std::uint64_t count = std::min(coding.block, pixels - done);
    done += count;
    const unsigned length = bits.take(length_bits);
    if (!bits.is_within()) return false;
    if (length == 0) continue;  // all as the pixel before
    if (length - 1 == longest) {
      if (!bits.skip(count * coding.pixel_bytes * 8)) return false;
      continue;
    }
    for (std::uint64_t i = 0; i < count; ++i)
      if (!bits.skip_unary() || !bits.skip(length - 1)) return false;
  }
  return true;
}

bool plio_codes_end_within(std::span<const std::int16_t> tile) {
  // The third word is the length; where it is not positive, so are the next two, and the second
  // tells where the instructions begin.
  if (tile.size() < 3) return false;
  std::int64_t length = tile[2];
  if (length <= 0) {
    if (tile.size() < 5) return false;
    length = tile[4] * std::int64_t{1 << 15} + tile[3];
    if (tile[1] < 0) return false;
  }
  // Of none, no pixel would be set.
  if (length <= 0 || static_cast<std::uint64_t>(length) > tile.size()) return false;
  // An instruction that takes the next word for the rest of its value.
  constexpr int sets_value = 1;
  return tile[static_cast<std::size_t>(length) - 1] >> 12 != sets_value ||
         static_cast<std::uint64_t>(length) < tile.size();
}

}  // namespace accrete
