#include "core/convert.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "tests/core/store_fixture.h"

namespace accrete {
namespace {

template <class To, class From>
std::pair<std::vector<To>, Converted> converted(DType to, DType from,
                                                const std::vector<From>& values, Rounding rounding,
                                                To nan = To{}) {
  std::vector<To> result(values.size());
  Element element;
  std::memcpy(element.bytes.data(), &nan, sizeof nan);
  const Converted done = convert(reinterpret_cast<std::byte*>(result.data()), to,
                                 reinterpret_cast<const std::byte*>(values.data()), from,
                                 values.size(), rounding, element);
  return {result, done};
}

constexpr double infinite = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

TEST(Convert, the_first_value_that_does_not_fit_is_told) {
  const std::vector<double> values(2000, 7.0);
  EXPECT_EQ(converted<float>(DType::f32, DType::f64, values, Rounding::exact).second.count, 2000u);
  for (const std::size_t at : {0u, 1u, 511u, 512u, 1999u}) {
    std::vector<double> bad = values;
    bad[at] = 0.1;
    const auto [floats, done] = converted<float>(DType::f32, DType::f64, bad, Rounding::exact);
    EXPECT_EQ(done.count, at);
    EXPECT_EQ(converted<std::uint8_t>(DType::u8, DType::f64, bad, Rounding::exact).second.count,
              at);
  }
}

TEST(Convert, limits_of_integers) {
  const double two63 = std::ldexp(1.0, 63);
  const std::vector<double> values{two63, -two63, two63 - 1024, 2 * two63, -2 * two63,  0.5, 1.5,
                                   2.5,   -0.5,   infinite,     -infinite, not_a_number};
  const auto [result, done] =
      converted<std::int64_t>(DType::i64, DType::f64, values, Rounding::nearest, std::int64_t{-1});
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  constexpr std::int64_t least = std::numeric_limits<std::int64_t>::min();
  EXPECT_EQ(result, (std::vector<std::int64_t>{most, least, most - 1023, most, least, 0, 2, 2, 0,
                                               most, least, -1}));
  EXPECT_EQ(done.count, values.size());
  EXPECT_EQ(done.changed, 10u);  // all but -2^63 and 2^63 - 1024
  EXPECT_EQ(
      converted<std::int64_t>(DType::i64, DType::f64, std::vector<double>{two63}, Rounding::exact)
          .second.count,
      0u);
  EXPECT_EQ(converted<double>(DType::f64, DType::i64, std::vector<std::int64_t>{least, most},
                              Rounding::exact)
                .second.count,
            1u);
  EXPECT_EQ(converted<float>(DType::f32, DType::u64,
                             std::vector<std::uint64_t>{0xffffff0000000000u, ~std::uint64_t{0}},
                             Rounding::exact)
                .second.count,
            1u);
  EXPECT_EQ(converted<std::int8_t>(DType::i8, DType::u16,
                                   std::vector<std::uint16_t>{127, 128, 65535}, Rounding::nearest)
                .first,
            (std::vector<std::int8_t>{127, 127, 127}));
  EXPECT_EQ(converted<std::uint8_t>(DType::u8, DType::i32, std::vector<std::int32_t>{-5, 300, 255},
                                    Rounding::nearest)
                .second.changed,
            2u);
}

TEST(Convert, floats_to_floats) {
  const std::vector<double> values{1e300, -1e300, infinite, not_a_number, 1e-300, 3.5, 0.1};
  const auto [result, done] = converted<float>(DType::f32, DType::f64, values, Rounding::nearest);
  EXPECT_EQ(result[0], std::numeric_limits<float>::max());
  EXPECT_EQ(result[1], -std::numeric_limits<float>::max());
  EXPECT_TRUE(std::isinf(result[2]));
  EXPECT_TRUE(std::isnan(result[3]));
  EXPECT_EQ(result[4], 0.0f);
  EXPECT_EQ(done.changed, 4u);
  const std::vector<double> exact{infinite, not_a_number, 3.5, -0.0};
  const auto [floats, all] = converted<float>(DType::f32, DType::f64, exact, Rounding::exact);
  EXPECT_EQ(all.count, exact.size());
  EXPECT_TRUE(all.invertible);
}

TEST(Convert, what_loses_bits_but_no_value_is_exact_and_not_invertible) {
  std::uint64_t bits = ~std::uint64_t{0};  // a NaN as FITS writers like it
  double nan = 0;
  std::memcpy(&nan, &bits, sizeof nan);
  const auto floats =
      converted<float>(DType::f32, DType::f64, std::vector<double>{nan}, Rounding::exact);
  EXPECT_EQ(floats.second.count, 1u);
  EXPECT_FALSE(floats.second.invertible);
  const auto ints = converted<std::int16_t>(DType::i16, DType::f32, std::vector<float>{-0.0f, 3.0f},
                                            Rounding::exact);
  EXPECT_EQ(ints.second.count, 2u);
  EXPECT_FALSE(ints.second.invertible);
}

// Whatever is said to fit comes back the same, and what is invertible by its bits.
TEST(Convert, random_values_of_all_types_come_back) {
  SCOPED_TRACE(testing::seed());
  std::mt19937_64 random(testing::seed());
  for (const DType from : all_dtypes) {
    for (const DType to : all_dtypes) {
      for (int round = 0; round < 30; ++round) {
        const std::size_t n = 1 + random() % 700;
        std::vector<std::byte> values = testing::random_elements(random, from, n);
        if (round % 2 == 0) {  // small whole numbers, which fit all types
          std::vector<std::byte> small(n);
          for (std::byte& b : small) b = static_cast<std::byte>(random() % 100);
          const Converted wide =
              convert(values.data(), from, small.data(), DType::u8, n, Rounding::exact, Element{});
          ASSERT_EQ(wide.count, n);
        }
        std::vector<std::byte> there(n * size_of(to));
        std::vector<std::byte> back(n * size_of(from));
        const Converted done =
            convert(there.data(), to, values.data(), from, n, Rounding::exact, Element{});
        ASSERT_TRUE(round % 2 != 0 || done.count == n);
        const Converted again =
            convert(back.data(), from, there.data(), to, done.count, Rounding::exact, Element{});
        ASSERT_EQ(again.count, done.count) << name_of(from) << " to " << name_of(to);
        if (done.invertible) {
          ASSERT_TRUE(std::equal(
              back.begin(), back.begin() + static_cast<std::ptrdiff_t>(done.count * size_of(from)),
              values.begin()));
        }
      }
    }
  }
}

}  // namespace
}  // namespace accrete
