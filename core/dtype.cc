#include "core/dtype.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "core/with_type.h"

namespace accrete {

namespace {

struct TypeRow {
  std::string_view name;
  std::uint8_t size;
  bool is_float;
  bool is_signed;
};

// Indexed by the number of the type; row 0 is no type.
constexpr TypeRow type_rows[] = {
    {"", 0, false, false},       {"uint8", 1, false, false},  {"int8", 1, false, true},
    {"uint16", 2, false, false}, {"int16", 2, false, true},   {"uint32", 4, false, false},
    {"int32", 4, false, true},   {"uint64", 8, false, false}, {"int64", 8, false, true},
    {"float32", 4, true, true},  {"float64", 8, true, true},
};

const TypeRow& row_of(DType type) {
  return type_rows[static_cast<std::size_t>(type)];
}

constexpr bool machine_is_big_endian = std::endian::native == std::endian::big;

// A vector of bytes as wide as the machine's byte shuffle; every element size divides it.
#if defined(__x86_64__)
constexpr std::size_t lane_bytes = 32;  // AVX2
#else
constexpr std::size_t lane_bytes = 16;
#endif
using Lane [[gnu::vector_size(lane_bytes)]] = std::uint8_t;

// Reverses the bytes of each group of `width`, an element or 1.
template <std::size_t width, int... index>
[[gnu::always_inline]] inline void reverse(Lane& lane, std::integer_sequence<int, index...>) {
  if constexpr (width > 1)
    lane = __builtin_shufflevector(lane, lane, (index ^ static_cast<int>(width - 1))...);
}

// Reverses the bytes of each group of `width`, then xors with `flip`. Bytes pass through a local
// vector, so any alignment and target == source are well defined.
template <std::size_t width>
[[gnu::always_inline]] inline void convert(std::byte* target, const std::byte* source,
                                           std::size_t bytes, const Lane& flip) {
  constexpr auto indexes = std::make_integer_sequence<int, sizeof(Lane)>{};
  Lane lane{};
  for (; bytes >= sizeof lane; bytes -= sizeof lane) {
    std::memcpy(&lane, source, sizeof lane);
    reverse<width>(lane, indexes);
    lane ^= flip;
    std::memcpy(target, &lane, sizeof lane);
    source += sizeof lane;
    target += sizeof lane;
  }
  if (bytes == 0) return;
  std::memcpy(&lane, source, bytes);
  reverse<width>(lane, indexes);
  lane ^= flip;
  std::memcpy(target, &lane, bytes);
}

#if defined(__x86_64__)
// The baseline of x86-64 has no byte shuffle, though nearly every machine does.
template <std::size_t width>
[[gnu::target("avx2")]] void convert_avx2(std::byte* target, const std::byte* source,
                                          std::size_t bytes, const Lane& flip) {
  convert<width>(target, source, bytes, flip);
}
#endif

template <std::size_t width>
void convert_fast(std::byte* target, const std::byte* source, std::size_t bytes, const Lane& flip) {
#if defined(__x86_64__)
  static const bool has_avx2 = __builtin_cpu_supports("avx2");
  if (has_avx2) return convert_avx2<width>(target, source, bytes, flip);
#endif
  convert<width>(target, source, bytes, flip);
}

template <class T>
Element element_of(T value) {
  Element element;
  std::memcpy(element.bytes.data(), &value, sizeof value);
  return element;
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view space = " \t\r\n";
  const std::size_t first = text.find_first_not_of(space);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(space) - first + 1);
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// "1e5", "-2.50e1", "7." as plain digits with their sign, exactly; nothing when it is no such
// number, not whole, or far beyond 64 bits.
std::optional<std::string> whole_number(std::string_view text) {
  constexpr std::size_t longest = 20;  // digits of 2^64
  std::string sign;
  if (text.starts_with('-')) {
    sign = "-";
    text.remove_prefix(1);
  }
  const std::size_t e = text.find_first_of("eE");
  int exponent = 0;
  if (e != std::string_view::npos) {
    std::string_view power = text.substr(e + 1);
    if (power.starts_with('+') && !power.starts_with("+-")) power.remove_prefix(1);
    const auto [end, error] = std::from_chars(power.data(), power.data() + power.size(), exponent);
    if (error != std::errc{} || end != power.data() + power.size()) return std::nullopt;
    if (exponent > 1000 || exponent < -1000) return std::nullopt;
    text = text.substr(0, e);
  }
  const std::size_t point = text.find('.');
  std::string digits(text.substr(0, point));
  if (point != std::string_view::npos) {
    digits += text.substr(point + 1);
    exponent -= static_cast<int>(std::min(text.size() - point - 1, std::size_t{1000}));
  }
  if (digits.empty() || digits.size() > 1000 ||
      !std::all_of(digits.begin(), digits.end(), is_digit))
    return std::nullopt;
  digits.erase(0, std::min(digits.find_first_not_of('0'), digits.size()));
  if (digits.empty()) return "0";
  for (; exponent < 0; ++exponent) {
    if (digits.back() != '0') return std::nullopt;
    digits.pop_back();
  }
  if (digits.size() + static_cast<std::size_t>(exponent) > longest) return std::nullopt;
  return sign + digits + std::string(static_cast<std::size_t>(exponent), '0');
}

template <class T>
bool parse_whole(std::string_view text, T& value) {
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, value);
  return error == std::errc{} && end == last;
}

}  // namespace

std::size_t size_of(DType type) {
  return row_of(type).size;
}
bool is_float(DType type) {
  return row_of(type).is_float;
}
bool is_signed(DType type) {
  return row_of(type).is_signed;
}
std::string_view name_of(DType type) {
  return row_of(type).name;
}

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const DType type : all_dtypes)
    if (name_of(type) == name) return type;
  return std::nullopt;
}

std::optional<DType> dtype_from_number(std::uint8_t number) {
  if (number == 0 || number >= std::size(type_rows)) return std::nullopt;
  return static_cast<DType>(number);
}

Coding native(DType type) {
  return {type, machine_is_big_endian && size_of(type) > 1, false};
}

Coding little_endian(DType type) {
  return {type, false, false};
}

Coding fits_coding(DType type) {
  const bool flipped =
      type == DType::i8 || type == DType::u16 || type == DType::u32 || type == DType::u64;
  return {type, size_of(type) > 1, flipped};
}

void recode(std::byte* target, const std::byte* source, std::size_t n, Coding from, Coding to) {
  assert(from.type == to.type);
  if (n == 0) return;
  const std::size_t size = size_of(from.type);
  const bool swap = size > 1 && from.big_endian != to.big_endian;
  const bool flip = from.sign_flipped != to.sign_flipped;
  if (!swap && !flip) {
    if (target != source) std::memcpy(target, source, n * size);
    return;
  }
  Lane flips{};
  if (flip)
    for (std::size_t i = 0; i < sizeof flips; i += size)
      flips[i + (to.big_endian ? 0 : size - 1)] = 0x80;
  switch (swap ? size : 1) {
    case 1:
      return convert_fast<1>(target, source, n * size, flips);
    case 2:
      return convert_fast<2>(target, source, n * size, flips);
    case 4:
      return convert_fast<4>(target, source, n * size, flips);
    default:
      return convert_fast<8>(target, source, n * size, flips);
  }
}

Result<Element> parse_element(std::string_view text, DType type) {
  const std::string_view whole = trim(text);
  std::string_view number = whole;
  if (number.starts_with('+') && !number.starts_with("+-")) number.remove_prefix(1);
  return with_type(type, [&](auto value) -> Result<Element> {
    if (parse_whole(number, value)) return element_of(value);
    if constexpr (std::is_integral_v<decltype(value)>) {
      const std::optional<std::string> digits = whole_number(number);
      if (digits && parse_whole(*digits, value)) return element_of(value);
    }
    const std::string quoted = '"' + std::string(whole.substr(0, 80)) + '"';
    double any = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), any);
    if (error == std::errc::invalid_argument || end != number.data() + number.size())
      return fail(std::errc::invalid_argument, quoted + " is not a number");
    return fail(std::errc::invalid_argument,
                std::string(name_of(type)) + " cannot hold the value " + quoted);
  });
}

std::string format_element(const Element& element, DType type) {
  return with_type(type, [&](auto value) -> std::string {
    std::memcpy(&value, element.bytes.data(), sizeof value);
    if constexpr (std::is_floating_point_v<decltype(value)>)
      if (std::isnan(value)) return "nan";
    char text[32];
    const auto [end, error] = std::to_chars(std::begin(text), std::end(text), value);
    assert(error == std::errc{});
    return std::string(text, end);
  });
}

Element default_pad(DType type) {
  return with_type(type, [](auto value) {
    using T = decltype(value);
    return element_of(std::is_floating_point_v<T> ? std::numeric_limits<T>::quiet_NaN() : T{});
  });
}

void fill(std::byte* target, std::size_t n, const Element& element, DType type) {
  const std::size_t total = n * size_of(type);
  std::size_t done = std::min(total, size_of(type));
  std::memcpy(target, element.bytes.data(), done);
  // One element is copied to a stretch that stays in the nearest cache, and that stretch onwards.
  constexpr std::size_t stretch = 4096;
  while (done < total) {
    const std::size_t next = std::min({total - done, done, stretch});
    std::memcpy(target + done, target, next);
    done += next;
  }
}

}  // namespace accrete
