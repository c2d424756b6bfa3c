#include "core/fits_checksum.h"

#include <bit>
#include <charconv>
#include <cstring>
#include <utility>

#include "core/bytes.h"
#include "core/fits_card.h"

namespace accrete {

namespace {

// The carries of a sum are added at its end, as often as there are any.
std::uint64_t fold(std::uint64_t sum) {
  while (sum >> 32 != 0) sum = (sum & 0xffffffff) + (sum >> 32);
  return sum;
}

}  // namespace

void FitsSummer::add(std::span<const std::byte> bytes) {
  const auto add_byte = [&](std::byte byte) {
    word_ |= std::to_integer<std::uint32_t>(byte) << (24 - 8 * (bytes_ % 4));
    if (++bytes_ % 4 == 0) sum_ += std::exchange(word_, 0);
  };
  while (!bytes.empty() && bytes_ % 4 != 0) {
    add_byte(bytes.front());
    bytes = bytes.subspan(1);
  }
  constexpr std::size_t stretch = std::size_t{1} << 20;  // words whose sum cannot overflow
  while (bytes.size() >= 4) {
    const std::size_t words = std::min(bytes.size() / 4, stretch);
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < words; ++i) {
      std::uint32_t word;
      std::memcpy(&word, bytes.data() + 4 * i, sizeof word);
      sum += __builtin_bswap32(word);
    }
    sum_ = fold(sum_ + sum);
    bytes_ += 4 * words;
    bytes = bytes.subspan(4 * words);
  }
  for (const std::byte byte : bytes) add_byte(byte);
}

std::uint32_t FitsSummer::sum() const {
  return static_cast<std::uint32_t>(fold(sum_ + word_));
}

Status check_fits_sums(std::string_view header, const std::optional<std::string>& datasum_card,
                       const std::optional<std::string>& checksum_card, std::uint32_t data_sum) {
  const auto text_of = [](const std::optional<std::string>& card) {
    return card ? string_of(*card).value_or("") : std::string();
  };
  if (const std::string text = text_of(datasum_card); !text.empty()) {
    std::uint32_t said = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), said);
    // All ones is zero, too.
    const auto same = [](std::uint32_t a, std::uint32_t b) {
      return a % 0xffffffffu == b % 0xffffffffu;
    };
    if (error != std::errc{} || end != text.data() + text.size() || !same(said, data_sum))
      return fail(std::errc::invalid_argument, "damaged: the sum of the data is " +
                                                   std::to_string(data_sum) +
                                                   ", the header says DATASUM = '" + text + "'");
  }
  if (!text_of(checksum_card).empty()) {
    FitsSummer summer;
    summer.add(as_bytes(header));
    const std::uint64_t sum = fold(std::uint64_t{summer.sum()} + data_sum);
    if (sum != 0 && sum != 0xffffffff)
      return fail(std::errc::invalid_argument,
                  "damaged: header and data are not those of which CHECKSUM is the checksum");
  }
  return {};
}

}  // namespace accrete
