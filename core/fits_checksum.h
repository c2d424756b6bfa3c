// The checksums of an HDU (FITS standard 4.0, 4.4.2.7 and appendix J): 32-bit ones' complement sums
// of big-endian words.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/result.h"

namespace accrete {

// Sums bytes that come piece by piece from a multiple of four on; what is missing of the last word
// counts as zeros. Not thread-safe.
class FitsSummer {
 public:
  void add(std::span<const std::byte> bytes);
  std::uint64_t bytes() const { return bytes_; }
  std::uint32_t sum() const;

 private:
  std::uint64_t sum_ = 0;  // of words, folded in time
  std::uint64_t bytes_ = 0;
  std::uint32_t word_ = 0;  // that has begun
};

// EINVAL when DATASUM is not the sum of the data, or the whole HDU does not sum up to zero although
// it has a CHECKSUM. Cards that are not there, or whose string is empty, say nothing. `header`: all
// blocks of it. Thread-safe.
Status check_fits_sums(std::string_view header, const std::optional<std::string>& datasum_card,
                       const std::optional<std::string>& checksum_card, std::uint32_t data_sum);

}  // namespace accrete
