#include "core/dtype.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <set>
#include <vector>

namespace accrete {
namespace {

std::uint64_t seed() {
  const char* const text = std::getenv("ACCRETE_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 20240115;
}

std::vector<std::byte> random_bytes(std::mt19937_64& random, std::size_t n) {
  std::vector<std::byte> bytes(n);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

std::vector<Coding> codings_of(DType type) {
  std::vector<Coding> codings;
  for (const bool big : {false, true})
    for (const bool flipped : {false, true})
      if ((!big || size_of(type) > 1) && (!flipped || !is_float(type)))
        codings.push_back({type, big, flipped});
  return codings;
}

// Byte by byte, by way of the little-endian, unflipped element.
std::vector<std::byte> naive_recode(std::vector<std::byte> bytes, Coding from, Coding to) {
  const std::size_t size = size_of(from.type);
  for (std::size_t at = 0; at < bytes.size(); at += size) {
    const auto first = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    const auto last = first + static_cast<std::ptrdiff_t>(size);
    if (from.big_endian) std::reverse(first, last);
    if (from.sign_flipped) last[-1] ^= std::byte{0x80};
    if (to.sign_flipped) last[-1] ^= std::byte{0x80};
    if (to.big_endian) std::reverse(first, last);
  }
  return bytes;
}

template <class T>
Element element_of(T value) {
  Element element;
  std::memcpy(element.bytes.data(), &value, sizeof value);
  return element;
}

TEST(DTypeTest, NamesAndNumbersAreThoseOfOneTypeOnly) {
  std::set<std::string_view> names;
  for (const DType type : all_dtypes) {
    names.insert(name_of(type));
    EXPECT_EQ(dtype_from_name(name_of(type)), type);
    EXPECT_EQ(dtype_from_number(static_cast<std::uint8_t>(type)), type);
  }
  EXPECT_EQ(names.size(), 10u);
  EXPECT_EQ(dtype_from_number(0), std::nullopt);
  EXPECT_EQ(dtype_from_number(11), std::nullopt);
  EXPECT_EQ(dtype_from_name(""), std::nullopt);
  EXPECT_EQ(dtype_from_name("float16"), std::nullopt);
  EXPECT_EQ(name_of(DType::u16), "uint16");
  EXPECT_EQ(size_of(DType::f64), 8u);
}

TEST(DTypeTest, FitsStoresUnsignedAndSignedBytesSignFlipped) {
  EXPECT_EQ(fits_coding(DType::u8), (Coding{DType::u8, false, false}));
  EXPECT_EQ(fits_coding(DType::i8), (Coding{DType::i8, false, true}));
  EXPECT_EQ(fits_coding(DType::u16), (Coding{DType::u16, true, true}));
  EXPECT_EQ(fits_coding(DType::i64), (Coding{DType::i64, true, false}));
  EXPECT_EQ(fits_coding(DType::f32), (Coding{DType::f32, true, false}));
  // 40000 is stored as 40000 - 32768 = 0x1c40.
  const std::uint16_t value = 40000;
  std::byte stored[2];
  recode(stored, reinterpret_cast<const std::byte*>(&value), 1, native(DType::u16),
         fits_coding(DType::u16));
  EXPECT_EQ(stored[0], std::byte{0x1c});
  EXPECT_EQ(stored[1], std::byte{0x40});
}

TEST(DTypeTest, RecodeEqualsTheNaiveOneAtAnyLengthAndAlignment) {
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(seed()));
  std::mt19937_64 random(seed());
  for (const DType type : all_dtypes) {
    for (const Coding from : codings_of(type)) {
      for (const Coding to : codings_of(type)) {
        for (std::size_t n = 0; n < 80; ++n) {
          const std::size_t bytes = n * size_of(type);
          const std::size_t source_at = random() % 9, target_at = random() % 9;
          const std::vector<std::byte> source = random_bytes(random, source_at + bytes);
          const std::vector<std::byte> before = random_bytes(random, target_at + bytes + 40);
          std::vector<std::byte> target = before;
          recode(target.data() + target_at, source.data() + source_at, n, from, to);
          const std::vector<std::byte> expected = naive_recode(
              {source.begin() + static_cast<std::ptrdiff_t>(source_at), source.end()}, from, to);
          std::vector<std::byte> whole = before;
          std::copy(expected.begin(), expected.end(),
                    whole.begin() + static_cast<std::ptrdiff_t>(target_at));
          ASSERT_EQ(target, whole) << name_of(type) << " n=" << n;

          std::vector<std::byte> in_place = source;
          recode(in_place.data() + source_at, in_place.data() + source_at, n, from, to);
          ASSERT_TRUE(std::equal(expected.begin(), expected.end(),
                                 in_place.begin() + static_cast<std::ptrdiff_t>(source_at)))
              << name_of(type) << " in place, n=" << n;
        }
      }
    }
  }
}

TEST(DTypeTest, AnyElementSurvivesItsText) {
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(seed()));
  std::mt19937_64 random(seed());
  for (const DType type : all_dtypes) {
    for (int i = 0; i < 2000; ++i) {
      Element element;
      const std::uint64_t bits = random() >> (random() % 64);
      std::memcpy(element.bytes.data(), &bits, size_of(type));
      const std::string text = format_element(element, type);
      if (text == "nan") continue;
      const Result<Element> parsed = parse_element(text, type);
      ASSERT_TRUE(parsed.ok()) << parsed.error().sentence;
      ASSERT_EQ(*parsed, element) << name_of(type) << ' ' << text;
    }
  }
}

TEST(DTypeTest, NumbersAreReadInTheSpellingsOfPeople) {
  const auto check = [](std::string_view text, DType type, const Element& element) {
    const Result<Element> parsed = parse_element(text, type);
    ASSERT_TRUE(parsed.ok()) << parsed.error().sentence;
    EXPECT_EQ(*parsed, element) << '"' << text << "\" as " << name_of(type);
  };
  check(" -3 \n", DType::i16, element_of(std::int16_t{-3}));
  check("+7", DType::u8, element_of(std::uint8_t{7}));
  check("1e5", DType::i32, element_of(std::int32_t{100000}));
  check("-1.28E+2", DType::i8, element_of(std::int8_t{-128}));
  check("250e-1", DType::u8, element_of(std::uint8_t{25}));
  check("7.", DType::u64, element_of(std::uint64_t{7}));
  check("-0.0", DType::u8, element_of(std::uint8_t{0}));
  check("18446744073709551615", DType::u64, element_of(std::uint64_t{0} - 1));
  check("18446744073709551615.0", DType::u64, element_of(std::uint64_t{0} - 1));
  check("0.1", DType::f32, element_of(0.1f));
  check("-inf", DType::f64, element_of(-std::numeric_limits<double>::infinity()));
  check("Infinity", DType::f32, element_of(std::numeric_limits<float>::infinity()));
  check("1e-45", DType::f32, element_of(std::numeric_limits<float>::denorm_min()));
  const Result<Element> nan = parse_element("NaN", DType::f32);
  ASSERT_TRUE(nan.ok());
  EXPECT_EQ(format_element(*nan, DType::f32), "nan");
}

TEST(DTypeTest, WhatATypeCannotHoldIsRefused) {
  const auto sentence = [](std::string_view text, DType type) {
    const Result<Element> parsed = parse_element(text, type);
    if (parsed.ok()) return "taken as " + format_element(*parsed, type);
    EXPECT_EQ(parsed.error().code, std::errc::invalid_argument);
    return parsed.error().sentence;
  };
  EXPECT_EQ(sentence("256", DType::u8), "uint8 cannot hold the value \"256\"");
  EXPECT_EQ(sentence("-1", DType::u32), "uint32 cannot hold the value \"-1\"");
  EXPECT_EQ(sentence("1.5", DType::i64), "int64 cannot hold the value \"1.5\"");
  EXPECT_EQ(sentence("nan", DType::i16), "int16 cannot hold the value \"nan\"");
  EXPECT_EQ(sentence("1e20", DType::u64), "uint64 cannot hold the value \"1e20\"");
  EXPECT_EQ(sentence("1e400", DType::f64), "float64 cannot hold the value \"1e400\"");
  EXPECT_EQ(sentence("1e39", DType::f32), "float32 cannot hold the value \"1e39\"");
  EXPECT_EQ(sentence("1e-1000000000", DType::i8), "int8 cannot hold the value \"1e-1000000000\"");
  for (const std::string_view text :
       {"", " ", "-", "+-3", "--3", "e5", "1e", "1e+-5", ".", "0x10", "1 2", "12a", "1,5", "nano"})
    for (const DType type : {DType::i16, DType::f64})
      EXPECT_TRUE(sentence(text, type).ends_with("is not a number")) << sentence(text, type);
}

TEST(DTypeTest, PadIsNanForFloatsAndZeroForIntegers) {
  for (const DType type : all_dtypes)
    EXPECT_EQ(format_element(default_pad(type), type), is_float(type) ? "nan" : "0");
}

TEST(DTypeTest, FillRepeatsTheElementAndNothingElse) {
  std::mt19937_64 random(seed());
  for (const DType type : all_dtypes) {
    for (const std::size_t n : {0u, 1u, 2u, 3u, 17u, 511u, 512u, 513u, 5000u}) {
      Element element;
      const std::vector<std::byte> bytes = random_bytes(random, size_of(type));
      std::copy(bytes.begin(), bytes.end(), element.bytes.begin());
      std::vector<std::byte> expected(n * size_of(type) + 9, std::byte{0xee});
      std::vector<std::byte> target = expected;
      for (std::size_t i = 0; i < n * size_of(type); ++i)
        expected[i + 1] = element.bytes[i % size_of(type)];
      fill(target.data() + 1, n, element, type);
      EXPECT_EQ(target, expected) << name_of(type) << ' ' << n;
    }
  }
}

}  // namespace
}  // namespace accrete
