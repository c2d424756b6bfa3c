// Whether the codes of a compressed tile end within its bytes, which cfitsio takes on trust: it
// would read on behind them, and give whatever lies there as pixels. FITS standard 4.0, sections
// 10.4.1 and 10.4.3. Thread-safe.
#pragma once

#include <cstdint>
#include <span>

namespace accrete {

// How RICE_1 was told to code: `block` pixels share a code length; pixels have 1, 2 or 4 bytes.
struct RiceCoding {
  std::uint64_t block = 32;
  unsigned pixel_bytes = 4;
};
bool rice_codes_end_within(std::span<const unsigned char> tile, std::uint64_t pixels,
                           const RiceCoding& coding);

// The instructions of PLIO_1, 16-bit words in this machine's byte order.
bool plio_codes_end_within(std::span<const std::int16_t> tile);

}  // namespace accrete
