#include "tools/select.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <vector>

namespace accrete {
namespace {

template <class T>
void expect_selected(std::vector<T> values, std::size_t k) {
  std::vector<T> sorted = values;
  std::sort(sorted.begin(), sorted.end());
  select(std::span(values), k);
  ASSERT_EQ(values[k], sorted[k]);
  for (std::size_t i = 0; i < values.size(); ++i)
    ASSERT_TRUE(i < k ? !(values[k] < values[i]) : !(values[i] < values[k])) << i;
  std::sort(values.begin(), values.end());
  ASSERT_EQ(values, sorted);
}

TEST(Select, RandomValuesWithAndWithoutEqualOnes) {
  std::mt19937_64 random(1);
  for (const int distinct : {1, 2, 3, 10, 1000, 1 << 30})
    for (std::size_t n = 1; n < 700; n = n * 5 / 4 + 1) {
      std::vector<double> values(n);
      for (double& value : values)
        value = static_cast<double>(random() % static_cast<unsigned>(distinct)) - 3.5;
      for (const std::size_t k : {std::size_t{0}, n / 3, n / 2, n - 1}) expect_selected(values, k);
    }
}

TEST(Select, ValuesInOrder) {
  for (const std::size_t n : {25U, 64U, 1000U, 4097U}) {
    std::vector<std::int16_t> up(n), down(n), both(n);
    for (std::size_t i = 0; i < n; ++i) {
      up[i] = static_cast<std::int16_t>(i);
      down[i] = static_cast<std::int16_t>(n - i);
      both[i] = static_cast<std::int16_t>(std::min(i, n - i));
    }
    for (const auto& values : {up, down, both})
      for (const std::size_t k : {std::size_t{0}, n / 2, n - 1}) expect_selected(values, k);
  }
}

}  // namespace
}  // namespace accrete
