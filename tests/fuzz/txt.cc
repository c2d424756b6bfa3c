// Numbers as text. A byte chooses the type; another one whether the rest is a text or elements.
// A text that is taken has the value that the C library gives it; every element is printed as a
// line that is read as the same one.
#include "core/txt.h"

#include <cmath>
#include <limits>
#include <vector>

#include "core/with_type.h"
#include "tests/fuzz/fuzz.h"

namespace accrete::fuzzing {
namespace {

template <class T>
T value_of(const Element& element) {
  T value;
  std::memcpy(&value, element.bytes.data(), sizeof value);
  return value;
}

// Any NaN is "nan".
template <class T>
bool same(T a, T b) {
  if constexpr (std::is_floating_point_v<T>)
    if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return std::memcmp(&a, &b, sizeof a) == 0;
}

// A long double of 64 bits of mantissa has every integer exactly.
static_assert(std::numeric_limits<long double>::digits >= 64);

template <class T>
T by_the_library(const std::string& text) {
  if constexpr (std::is_same_v<T, float>) return std::strtof(text.c_str(), nullptr);
  if constexpr (std::is_same_v<T, double>) return std::strtod(text.c_str(), nullptr);
  const long double value = std::strtold(text.c_str(), nullptr);
  ACCRETE_HOLDS(static_cast<long double>(std::numeric_limits<T>::min()) <= value &&
                value <= static_cast<long double>(std::numeric_limits<T>::max()));
  ACCRETE_HOLDS(std::is_floating_point_v<T> || value == std::floor(value));
  return static_cast<T>(value);
}

template <class T>
void check_text(std::string_view text, DType type) {
  const auto parsed = parse_element(text, type);
  const auto line = txt_format().parse(std::string(text) + "\n", type);
  const bool is_line = text.find('\n') == std::string_view::npos;
  ACCRETE_HOLDS(line.ok() == (parsed.ok() && is_line));
  if (!parsed.ok()) return;
  if (line.ok()) ACCRETE_HOLDS(*line == *parsed);
  const T value = value_of<T>(*parsed);
  ACCRETE_HOLDS(same(value, by_the_library<T>(std::string(text))));
  const auto again = parse_element(format_element(*parsed, type), type);
  ACCRETE_HOLDS(again.ok() && same(value_of<T>(*again), value));
}

template <class T>
void check_elements(std::string_view bytes, DType type) {
  const std::size_t n = bytes.size() / sizeof(T);
  if (n == 0) return;
  std::vector<T> elements(n);
  std::memcpy(elements.data(), bytes.data(), n * sizeof(T));
  const FileFace face = txt_format().face({type, {n}, {}, ""});
  ACCRETE_HOLDS(face.elements == n && face.header.empty() && face.trailer == 0);
  std::string text(face.total(), '\0');
  txt_format().print(reinterpret_cast<const std::byte*>(elements.data()), n, type, text.data());
  for (std::size_t i = 0; i < n; ++i) {
    const std::string_view line =
        std::string_view(text).substr(i * face.bytes_per_element, face.bytes_per_element);
    const auto parsed = txt_format().parse(line, type);
    ACCRETE_HOLDS(parsed.ok() && same(value_of<T>(*parsed), elements[i]));
    Element element;
    std::memcpy(element.bytes.data(), &elements[i], sizeof(T));
    const auto shortest = parse_element(format_element(element, type), type);
    ACCRETE_HOLDS(shortest.ok() && same(value_of<T>(*shortest), elements[i]));
  }
}

}  // namespace
}  // namespace accrete::fuzzing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace accrete;
  using namespace accrete::fuzzing;
  Input input(data, size);
  const DType type = all_dtypes[input.take<std::uint8_t>() % std::size(all_dtypes)];
  const bool is_text = input.take<std::uint8_t>() % 2 == 0;
  with_type(type, [&](auto value) {
    using T = decltype(value);
    if (is_text)
      check_text<T>(input.rest(), type);
    else
      check_elements<T>(input.rest(), type);
  });
  return 0;
}
