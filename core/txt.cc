#include "core/txt.h"

#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

namespace accrete {

namespace {

// The longest text of any value of the type.
std::size_t width_of(DType type) {
  switch (type) {
    case DType::u8:
      return 3;
    case DType::i8:
      return 4;
    case DType::u16:
      return 5;
    case DType::i16:
      return 6;
    case DType::u32:
      return 10;
    case DType::i32:
      return 11;
    case DType::u64:
    case DType::i64:
      return 20;
    case DType::f32:
      return 15;  // -1.17549435e-38
    case DType::f64:
      break;  // -2.2250738585072014e-308
  }
  return 24;
}

template <class T>
std::to_chars_result write(char* first, char* last, T value) {
  if constexpr (std::is_floating_point_v<T>) {
    if (std::isnan(value)) value = std::numeric_limits<T>::quiet_NaN();  // never "-nan"
    return std::to_chars(first, last, value, std::chars_format::general,
                         std::numeric_limits<T>::max_digits10);
  } else {
    return std::to_chars(first, last, value);
  }
}

template <class T>
void print_as(const std::byte* elements, std::size_t n, std::size_t width, char* target) {
  for (std::size_t i = 0; i < n; ++i) {
    T value;
    std::memcpy(&value, elements + i * sizeof value, sizeof value);
    char text[32];
    const auto length = static_cast<std::size_t>(write(text, std::end(text), value).ptr - text);
    std::memset(target, ' ', width - length);
    std::memcpy(target + width - length, text, length);
    target[width] = '\n';
    target += width + 1;
  }
}

class Txt final : public Format {
 public:
  FormatId id() const override { return FormatId::txt; }
  std::string_view extension() const override { return "txt"; }

  Result<Look> look(std::span<const std::byte>, bool, const ImageChoice&) const override {
    return Look{};
  }
  bool can_show(DType, std::size_t rank) const override { return rank >= 1 && rank <= max_rank; }
  FileFace face(const ViewFacts& facts) const override {
    FileFace face;
    face.elements = 1;
    for (const std::uint64_t extent : facts.shape) face.elements *= extent;
    face.bytes_per_element = width_of(facts.type) + 1;
    return face;
  }
  bool is_binary() const override { return false; }
  Coding coding(DType type) const override { return native(type); }
  void print(const std::byte* elements, std::size_t n, DType type, char* target) const override {
    const std::size_t width = width_of(type);
    switch (type) {
      case DType::u8:
        return print_as<std::uint8_t>(elements, n, width, target);
      case DType::i8:
        return print_as<std::int8_t>(elements, n, width, target);
      case DType::u16:
        return print_as<std::uint16_t>(elements, n, width, target);
      case DType::i16:
        return print_as<std::int16_t>(elements, n, width, target);
      case DType::u32:
        return print_as<std::uint32_t>(elements, n, width, target);
      case DType::i32:
        return print_as<std::int32_t>(elements, n, width, target);
      case DType::u64:
        return print_as<std::uint64_t>(elements, n, width, target);
      case DType::i64:
        return print_as<std::int64_t>(elements, n, width, target);
      case DType::f32:
        return print_as<float>(elements, n, width, target);
      case DType::f64:
        return print_as<double>(elements, n, width, target);
    }
  }
  Result<Element> parse(std::string_view text, DType type) const override {
    if (!text.ends_with('\n') || text.find('\n') + 1 != text.size())
      return fail(std::errc::invalid_argument, "a text view has one number a line");
    return parse_element(text, type);
  }
  bool can_extend() const override { return true; }
};

}  // namespace

const Format& txt_format() {
  static const Txt txt;
  return txt;
}

}  // namespace accrete
