#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include "core/txt.h"

namespace accrete {
namespace {

std::uint64_t seed() {
  const char* const text = std::getenv("ACCRETE_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 20240115;
}

std::string printed(const std::vector<std::byte>& elements, DType type) {
  const std::size_t n = elements.size() / size_of(type);
  const FileFace face = txt_format().face({type, {n}, {}, "x"});
  std::string text(face.data_bytes(), '?');
  txt_format().print(elements.data(), n, type, text.data());
  return text;
}

template <class T>
std::string printed_values(const std::vector<T>& values, DType type) {
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return printed(bytes, type);
}

TEST(TextFormatTest, ValuesAreRightAlignedOneALine) {
  EXPECT_EQ(printed_values<std::uint8_t>({0, 7, 255}, DType::u8), "  0\n  7\n255\n");
  EXPECT_EQ(printed_values<std::int16_t>({-32768, 5}, DType::i16), "-32768\n     5\n");
  EXPECT_EQ(printed_values<float>({1.5f, -0.1f}, DType::f32), "            1.5\n   -0.100000001\n");
}

TEST(TextFormatTest, TheLongestValuesOfEachTypeFit) {
  const auto limits = [](auto value, DType type) {
    using T = decltype(value);
    using L = std::numeric_limits<T>;
    std::vector<T> values = {L::min(), L::max(), L::lowest(), L::denorm_min()};
    if constexpr (std::is_floating_point_v<T>) values.push_back(-L::min());
    const std::string text = printed_values(values, type);
    std::istringstream lines(text);
    std::string line;
    for (const T expected : values) {
      ASSERT_TRUE(std::getline(lines, line));
      const Result<Element> parsed = parse_element(line, type);
      ASSERT_TRUE(parsed.ok()) << line;
      T found;
      std::memcpy(&found, parsed->bytes.data(), sizeof found);
      EXPECT_EQ(found, expected) << line;
    }
  };
  limits(std::uint8_t{}, DType::u8);
  limits(std::int8_t{}, DType::i8);
  limits(std::uint16_t{}, DType::u16);
  limits(std::int16_t{}, DType::i16);
  limits(std::uint32_t{}, DType::u32);
  limits(std::int64_t{}, DType::i64);
  limits(std::uint64_t{}, DType::u64);
  limits(float{}, DType::f32);
  limits(double{}, DType::f64);
}

TEST(TextFormatTest, SpecialFloatsAreSpelledAsNumpyReadsThem) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(printed_values<float>({nan, -nan, inf, -inf}, DType::f32),
            "            nan\n            nan\n            inf\n           -inf\n");
}

TEST(TextFormatTest, AnyBitsHaveTheFixedWidthAndRoundTrip) {
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(seed()));
  std::mt19937_64 random(seed());
  for (const DType type : all_dtypes) {
    const std::size_t n = 3000, size = size_of(type);
    std::vector<std::byte> elements(n * size);
    for (std::byte& b : elements) b = static_cast<std::byte>(random());
    const std::string text = printed(elements, type);
    const std::size_t width = text.size() / n;
    for (std::size_t i = 0; i < n; ++i) {
      const std::string line = text.substr(i * width, width);
      ASSERT_EQ(line.find('\n'), width - 1) << line;
      const Result<Element> parsed = parse_element(line, type);
      ASSERT_TRUE(parsed.ok()) << parsed.error().sentence;
      Element expected;
      std::memcpy(expected.bytes.data(), elements.data() + i * size, size);
      if (format_element(expected, type) == "nan")
        EXPECT_EQ(format_element(*parsed, type), "nan");
      else
        ASSERT_EQ(*parsed, expected) << name_of(type) << ' ' << line;
    }
  }
}

}  // namespace
}  // namespace accrete
