#include "core/npy.h"

#include <gtest/gtest.h>

#include <string>

namespace accrete {
namespace {

using Kind = Format::Look::Kind;

std::string npy(const std::string& dictionary, int major = 1) {
  std::string file = "\x93NUMPY";
  file += static_cast<char>(major);
  file += '\0';
  for (int i = 0; i < (major == 1 ? 2 : 4); ++i)
    file += static_cast<char>(dictionary.size() >> (8 * i));
  return file + dictionary;
}

std::string dictionary(const std::string& descr, const std::string& shape,
                       const std::string& fortran_order = "False") {
  return "{'descr': '" + descr + "', 'fortran_order': " + fortran_order + ", 'shape': " + shape +
         ", }          \n";
}

Result<Format::Look> look(std::string_view text, bool at_end = true) {
  const auto* const first = reinterpret_cast<const std::byte*>(text.data());
  return npy_format().look({first, text.size()}, at_end, {});
}

FrameLayout layout(const std::string& text) {
  const Result<Format::Look> answer = look(text);
  if (!answer.ok()) {
    ADD_FAILURE() << answer.error().sentence;
    return {};
  }
  EXPECT_EQ(answer->kind, Kind::layout);
  return answer->layout;
}

void expect_refused(const std::string& text, const std::string& part,
                    std::errc code = std::errc::invalid_argument) {
  const Result<Format::Look> answer = look(text);
  ASSERT_FALSE(answer.ok()) << "taken, though: " << part;
  EXPECT_EQ(answer.error().code, code) << answer.error().sentence;
  EXPECT_NE(answer.error().sentence.find(part), std::string::npos) << answer.error().sentence;
}

TEST(NpyTest, AllVersionsAreRead) {
  for (const int major : {1, 2, 3}) {
    const std::string file = npy(dictionary("<f4", "(2, 3, 5)"), major);
    const FrameLayout found = layout(file);
    EXPECT_EQ(found.coding, little_endian(DType::f32));
    EXPECT_EQ(found.shape, (Shape{5, 3, 2}));
    EXPECT_FALSE(found.fortran_order);
    EXPECT_EQ(found.data_offset, file.size());
    EXPECT_EQ(found.data_bytes, 120u);
    EXPECT_EQ(found.least_bytes, file.size() + 120);
    EXPECT_EQ(found.full_bytes, file.size() + 120);
  }
  expect_refused(npy(dictionary("<f4", "(2,)"), 4), "NPY version 4.0");
  expect_refused(std::string("\x93NUMPY\x01\x01", 8), "NPY version 1.1");
}

TEST(NpyTest, ByteOrdersAndTypesAreThoseOfTheDescr) {
  const auto coding = [](const std::string& descr) {
    return layout(npy(dictionary(descr, "(2,)"))).coding;
  };
  EXPECT_EQ(coding(">i2"), (Coding{DType::i16, true, false}));
  EXPECT_EQ(coding("<u8"), (Coding{DType::u64, false, false}));
  EXPECT_EQ(coding("|u1"), (Coding{DType::u8, false, false}));
  EXPECT_EQ(coding(">i1"), (Coding{DType::i8, false, false}));
  EXPECT_EQ(coding("=f8"), native(DType::f64));
  EXPECT_EQ(coding("f8"), native(DType::f64));
}

TEST(NpyTest, FortranOrderKeepsTheOrderOfTheFile) {
  const FrameLayout found = layout(npy(dictionary("<f4", "(2, 3, 5)", "True")));
  EXPECT_TRUE(found.fortran_order);
  EXPECT_EQ(found.shape, (Shape{2, 3, 5}));
  EXPECT_FALSE(layout(npy(dictionary("<f4", "(7,)", "True"))).fortran_order);
}

TEST(NpyTest, TheDictionaryIsReadInAnyOrderAndSpacing) {
  EXPECT_EQ(layout(npy("{ \"shape\" :(  3,4 ) ,'fortran_order':False,\n'descr':\"<i4\"}")).shape,
            (Shape{4, 3}));
  EXPECT_EQ(layout(npy(dictionary("<i4", "(3L, 4L)"))).shape, (Shape{4, 3}));
  EXPECT_EQ(layout(npy(dictionary("<i4", "(3,)"))).shape, (Shape{3}));
}

TEST(NpyTest, SurplusLeadingAxesOfExtentOneAreDropped) {
  EXPECT_EQ(layout(npy(dictionary("<i4", "(1, 1, 2, 1, 1, 1, 1, 1, 1, 3)"))).shape,
            (Shape{3, 1, 1, 1, 1, 1, 1, 2}));
  EXPECT_EQ(layout(npy(dictionary("<i4", "(1, 2, 1, 1, 1, 1, 1, 1, 3)", "True"))).shape,
            (Shape{2, 1, 1, 1, 1, 1, 1, 3}));
  expect_refused(npy(dictionary("<i4", "(2, 1, 1, 1, 1, 1, 1, 1, 3)")), "has 9 axes");
}

TEST(NpyTest, OtherElementsAreRefusedByName) {
  expect_refused(npy(dictionary("|O", "(2,)")), "Python objects");
  expect_refused(npy(dictionary("<c8", "(2,)")), "complex numbers");
  expect_refused(npy(dictionary("|b1", "(2,)")), "booleans");
  expect_refused(npy(dictionary("<f2", "(2,)")), "floats that are neither");
  expect_refused(npy(dictionary("<f16", "(2,)")), "floats that are neither");
  expect_refused(npy(dictionary("<M8[ns]", "(2,)")), "dates or times");
  expect_refused(npy(dictionary("<U3", "(2,)")), "strings");
  expect_refused(npy(dictionary("|V8", "(2,)")), "structured elements");
  expect_refused(npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}"),
                 "structured elements");
  for (const std::string descr : {"", "<", "<i3", "<u", "|i2", "<f44", "q"})
    expect_refused(npy(dictionary(descr, "(2,)")), "not supported");
}

TEST(NpyTest, LyingShapesAreRefused) {
  expect_refused(npy(dictionary("<f4", "()")), "a single value");
  expect_refused(npy(dictionary("<f4", "(0,)")), "extent 0");
  expect_refused(npy(dictionary("<f4", "(3, 0)")), "extent 0");
  expect_refused(npy(dictionary("<f4", "(-3, 4)")), "negative extent");
  const auto too_large = std::errc::file_too_large;
  expect_refused(npy(dictionary("<f8", "(4294967296, 4294967296)")), "63 bits", too_large);
  expect_refused(npy(dictionary("<f8", "(1152921504606846976,)")), "63 bits", too_large);
  expect_refused(npy(dictionary("|u1", "(9223372036854775807,)")), "63 bits", too_large);
  expect_refused(npy(dictionary("|u1", "(99999999999999999999999,)")), "64 bits", too_large);
  for (const std::string shape : {"3", "(3)", "(,)", "(3 4)", "(3,,4)", "[3, 4]", "(3.0,)", "(3,",
                                  "(True,)", "(0x3,)", "(+3,)", "None"})
    expect_refused(npy(dictionary("<f4", shape)), "NPY header has a");
  std::string many = "(";
  for (int i = 0; i < 1000; ++i) many += "1,";
  expect_refused(npy(dictionary("<f4", many + ")")), "tuple");
}

TEST(NpyTest, BrokenDictionariesAreRefused) {
  const std::string good = dictionary("<f4", "(2,)");
  for (const std::string text :
       {"", "{", "}", "{}", "[]", "{'descr'}", "{'descr': }", "{'descr': '<f4}",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'more': 1}",
        "{'descr': '<f4' 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '\\x3cf4', 'fortran_order': False, 'shape': (2,)}"})
    expect_refused(npy(text), "the NPY header");
  expect_refused(npy(good + "x"), "goes on after");
  expect_refused(npy(good + std::string(1, '\0')), "goes on after");
}

TEST(NpyTest, AHeaderCutAnywhereAsksForMoreAndAtTheEndIsRefused) {
  const std::string file = npy(dictionary("<f4", "(2, 3)"), 2);
  for (std::size_t bytes = 1; bytes < file.size(); ++bytes) {
    const std::string cut = file.substr(0, bytes);
    const Result<Format::Look> answer = look(cut, false);
    ASSERT_TRUE(answer.ok()) << bytes;
    EXPECT_EQ(answer->kind, Kind::need_more) << bytes;
    expect_refused(cut, "ends in its header");
  }
  EXPECT_EQ(look("")->kind, Kind::not_mine);
  EXPECT_EQ(look("\x93NUMPX")->kind, Kind::not_mine);
  EXPECT_EQ(look("SIMPLE  =")->kind, Kind::not_mine);
}

TEST(NpyTest, AHeaderLengthThatLiesIsBounded) {
  const std::string huge("\x93NUMPY\x02\x00\xff\xff\xff\xff{", 13);
  ASSERT_FALSE(look(huge, false).ok());
  expect_refused(huge, "longer than 16 MiB");
  const std::string more("\x93NUMPY\x01\x00\xff\xff{'descr': ", 20);
  EXPECT_EQ(look(more, false)->kind, Kind::need_more);
}

TEST(NpyTest, AWrittenHeaderIsThatOfNumpy) {
  const FileFace face = npy_format().face({DType::u16, {5, 3, 2}, {}, "xyz"});
  EXPECT_EQ(face.header.size() % 64, 0u);
  EXPECT_EQ(face.header.substr(0, 8), std::string("\x93NUMPY\x01\x00", 8));
  const std::string text = "{'descr': '<u2', 'fortran_order': False, 'shape': (2, 3, 5), }";
  EXPECT_EQ(face.header.substr(10, text.size()), text);
  EXPECT_EQ(face.header.back(), '\n');
  EXPECT_NE(npy_format().face({DType::i8, {5}, {}, "x"}).header.find("'|i1'"), std::string::npos);
  EXPECT_NE(npy_format().face({DType::i8, {5}, {}, "x"}).header.find("(5,)"), std::string::npos);
  const std::uint64_t large = 123456789012;
  EXPECT_EQ(npy_format().face({DType::f64, {large, large, large}, {}, "xyz"}).header.size(),
            face.header.size());
}

}  // namespace
}  // namespace accrete
