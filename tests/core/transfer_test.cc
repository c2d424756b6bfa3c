// Against a model that goes element by element.
#include "core/transfer.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <random>

#include "tests/core/store_fixture.h"

namespace accrete {
namespace {

template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

// Elements of a FITS file.
template <class T>
std::vector<std::byte> in_fits(const std::vector<T>& values, DType type) {
  std::vector<std::byte> bytes = bytes_of(values);
  recode(bytes.data(), bytes.data(), values.size(), native(type), fits_coding(type));
  return bytes;
}

FrameLayout fits_layout(DType type, std::optional<Scaling> scaling) {
  FrameLayout layout;
  layout.format = FormatId::fits;
  layout.coding = fits_coding(type);
  layout.scaling = scaling;
  return layout;
}

template <class T>
std::vector<T> to_cube(const Transfer& transfer, const std::vector<std::byte>& elements,
                       Converted* done = nullptr) {
  std::vector<T> values(elements.size() / transfer.file_size());
  const Converted result =
      transfer.to_cube(reinterpret_cast<std::byte*>(values.data()), elements.data(), values.size());
  if (done != nullptr) *done = result;
  return values;
}

TEST(TransferTest, ScaledIntegersAreWhatAstropyMakesOfThem) {
  std::mt19937_64 random(testing::seed());
  const Scaling scaling{DType::f32, 0.1, 32.7, -7};
  std::vector<std::int16_t> elements(5000);
  for (auto& e : elements) e = static_cast<std::int16_t>(random());
  elements[0] = elements[777] = -7;
  const Transfer transfer(fits_layout(DType::i16, scaling), native(DType::f32), Rounding::exact,
                          default_pad(DType::f32));
  Converted done;
  const auto values = to_cube<float>(transfer, in_fits(elements, DType::i16), &done);
  EXPECT_EQ(done.count, elements.size());
  for (std::size_t i = 0; i < elements.size(); ++i) {
    if (elements[i] == -7) {
      EXPECT_TRUE(std::isnan(values[i]));
      continue;
    }
    volatile float product = static_cast<float>(elements[i]) * 0.1f;
    const float sum = product + 32.7f;
    ASSERT_EQ(values[i], sum) << elements[i];
  }
}

TEST(TransferTest, AnInvertibleScaleGivesTheBytesBack) {
  std::vector<std::int16_t> elements;
  for (int i = -32768; i < 32768; ++i) elements.push_back(static_cast<std::int16_t>(i));
  const auto bytes = in_fits(elements, DType::i16);
  for (const Scaling& scaling :
       {Scaling{DType::f32, 0.25, 1000, -32768}, Scaling{DType::f32, 2, -3, {}},
        Scaling{DType::f32, 0.1, 0, 0}, Scaling{DType::f32, 1, 0, 99}}) {
    for (const DType type : {DType::f32, DType::f64}) {
      const Transfer transfer(fits_layout(DType::i16, scaling), fits_coding(type), Rounding::exact,
                              default_pad(type));
      std::vector<std::byte> at_rest(elements.size() * size_of(type)), back(bytes.size());
      const Converted done = transfer.to_cube(at_rest.data(), bytes.data(), elements.size());
      ASSERT_EQ(done.count, elements.size());
      EXPECT_TRUE(done.invertible) << scaling.scale;
      transfer.to_file(back.data(), at_rest.data(), elements.size());
      EXPECT_EQ(back == bytes, done.invertible);
    }
  }
}

TEST(TransferTest, AScaleThatMakesTwoElementsOneValueIsNotInvertible) {
  const Scaling scaling{DType::f32, 1e-3, 1e6, {}};
  const Transfer transfer(fits_layout(DType::i16, scaling), native(DType::f32), Rounding::exact,
                          default_pad(DType::f32));
  Converted done;
  (void)to_cube<float>(transfer, in_fits<std::int16_t>({1, 2, 3}, DType::i16), &done);
  EXPECT_EQ(done.count, 3U);
  EXPECT_FALSE(done.invertible);
}

TEST(TransferTest, BlankIsPadInACubeOfIntegersAndThenNotInvertibleWherePadIsAValueToo) {
  const Scaling scaling{DType::f32, 1, 0, -1};
  const Transfer transfer(fits_layout(DType::i16, scaling), native(DType::i32), Rounding::exact,
                          *parse_element("77", DType::i32));
  Converted done;
  EXPECT_EQ(to_cube<std::int32_t>(transfer, in_fits<std::int16_t>({5, -1, 6}, DType::i16), &done),
            (std::vector<std::int32_t>{5, 77, 6}));
  EXPECT_EQ(done.count, 3U);
  EXPECT_FALSE(done.invertible);
}

TEST(TransferTest, ExactStopsAtTheFirstValueThatDoesNotFitAndNamesIt) {
  const Scaling scaling{DType::f64, 0.5, 0, {}};
  const Transfer transfer(fits_layout(DType::i32, scaling), native(DType::i16), Rounding::exact,
                          Element{});
  const auto elements = in_fits<std::int32_t>({4, 6, 7, 8}, DType::i32);
  Converted done;
  (void)to_cube<std::int16_t>(transfer, elements, &done);
  EXPECT_EQ(done.count, 2U);
  EXPECT_EQ(transfer.value_text(elements.data() + 2 * 4), "3.5");
  const Transfer plain(fits_layout(DType::f64, std::nullopt), native(DType::f32), Rounding::exact,
                       Element{});
  const auto doubles = in_fits<double>({1.5, 0.1}, DType::f64);
  (void)to_cube<float>(plain, doubles, &done);
  EXPECT_EQ(done.count, 1U);
  EXPECT_EQ(plain.value_text(doubles.data() + 8), "0.1");
}

TEST(TransferTest, NearestCountsWhatItChanged) {
  const Transfer transfer(fits_layout(DType::f64, std::nullopt), native(DType::u8),
                          Rounding::nearest, *parse_element("9", DType::u8));
  Converted done;
  EXPECT_EQ(to_cube<std::uint8_t>(transfer,
                                  in_fits<double>({1, 2.5, 300, -4, NAN, 255}, DType::f64), &done),
            (std::vector<std::uint8_t>{1, 2, 255, 0, 9, 255}));
  EXPECT_EQ(done.changed, 4U);
  EXPECT_FALSE(done.invertible);
}

TEST(TransferTest, WithoutConversionOnlyTheCodingChanges) {
  const Transfer transfer(fits_layout(DType::u16, std::nullopt), native(DType::u16),
                          Rounding::exact, Element{});
  EXPECT_FALSE(transfer.converts());
  Converted done;
  EXPECT_EQ(to_cube<std::uint16_t>(transfer, in_fits<std::uint16_t>({1, 65535}, DType::u16), &done),
            (std::vector<std::uint16_t>{1, 65535}));
  EXPECT_TRUE(done.invertible);
}

}  // namespace
}  // namespace accrete
