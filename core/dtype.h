// Element types, how elements lie in bytes, and conversion between codings of one type.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/result.h"

namespace accrete {

// Values are part of the format at rest (FORMAT.md); never renumber.
enum class DType : std::uint8_t {
  u8 = 1,
  i8 = 2,
  u16 = 3,
  i16 = 4,
  u32 = 5,
  i32 = 6,
  u64 = 7,
  i64 = 8,
  f32 = 9,
  f64 = 10,
};

inline constexpr DType all_dtypes[] = {DType::u8,  DType::i8,  DType::u16, DType::i16, DType::u32,
                                       DType::i32, DType::u64, DType::i64, DType::f32, DType::f64};

std::size_t size_of(DType type);  // bytes of an element: 1, 2, 4 or 8
bool is_float(DType type);
bool is_signed(DType type);            // true for floats and signed integers
std::string_view name_of(DType type);  // numpy's name: "uint8" … "float64"
std::optional<DType> dtype_from_name(std::string_view name);
std::optional<DType> dtype_from_number(std::uint8_t number);

// How elements of a type lie in bytes. `sign_flipped`: integers are stored with the top bit
// inverted, which is what FITS' BZERO convention for unsigned (and signed byte) types amounts to.
// For one-byte types big_endian is kept false.
struct Coding {
  DType type = DType::u8;
  bool big_endian = false;
  bool sign_flipped = false;

  friend bool operator==(const Coding&, const Coding&) = default;
};

Coding native(DType type);  // this machine's byte order, nothing flipped
Coding little_endian(DType type);
// FITS: big-endian; u16 u32 u64 i8 sign-flipped (FITS standard 4.0, 5.2.5, table 11).
Coding fits_coding(DType type);

// Copies n elements from `source` to `target` (may be the same address, must not overlap
// otherwise), changing the coding. REQUIRES: from.type == to.type. Any alignment. Thread-safe.
void recode(std::byte* target, const std::byte* source, std::size_t n, Coding from, Coding to);

// One element in some coding; bytes beyond size_of(type) are zero.
struct Element {
  std::array<std::byte, 8> bytes{};

  friend bool operator==(const Element&, const Element&) = default;
};

// Parses a number ("nan", "inf", "-3", "1e5"; surrounding white space is ignored) as an element in
// the native coding. EINVAL when it is no number or the type cannot hold it exactly (floats: rounds
// to nearest, but EINVAL beyond the type's range).
Result<Element> parse_element(std::string_view text, DType type);
// Shortest text that parses back to the same element (any NaN is "nan"); native coding.
std::string format_element(const Element& element, DType type);
// NaN for floats, 0 for integers; native coding.
Element default_pad(DType type);
// Fills n elements at `target` with `element` (already in the target's coding).
void fill(std::byte* target, std::size_t n, const Element& element, DType type);

}  // namespace accrete
