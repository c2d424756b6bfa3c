#include "core/fits.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/fits_card.h"
#include "core/fits_checksum.h"

namespace accrete {
namespace {

using Kind = Format::Look::Kind;
using Lines = std::vector<std::string>;

// A header of these cards and END, padded.
std::string header(const Lines& lines) {
  std::string text;
  for (std::string line : lines) {
    line.resize(card_length, ' ');
    text += line;
  }
  std::string end = "END";
  end.resize(card_length, ' ');
  text += end;
  text.resize((text.size() + fits_block - 1) / fits_block * fits_block, ' ');
  return text;
}

Lines image(const std::string& bitpix, const std::vector<std::string>& extents,
            const Lines& more = {}, const std::string& first = "SIMPLE  =                    T") {
  Lines lines = {first, "BITPIX  = " + bitpix, "NAXIS   = " + std::to_string(extents.size())};
  for (std::size_t i = 0; i < extents.size(); ++i) {
    std::string card = "NAXIS" + std::to_string(i + 1);
    card.resize(8, ' ');
    lines.push_back(card + "= " + extents[i]);
  }
  lines.insert(lines.end(), more.begin(), more.end());
  return lines;
}

Lines extension(const std::string& name, const std::string& bitpix,
                const std::vector<std::string>& extents, const Lines& more = {}) {
  return image(bitpix, extents, more, "XTENSION= '" + name + "'");
}

Result<Format::Look> look(std::string_view text, bool at_end = true, ImageChoice choice = {}) {
  const auto* const first = reinterpret_cast<const std::byte*>(text.data());
  return fits_format().look({first, text.size()}, at_end, choice);
}

FrameLayout layout(std::string_view text, ImageChoice choice = {}) {
  const Result<Format::Look> answer = look(text, true, choice);
  if (!answer.ok()) {
    ADD_FAILURE() << answer.error().sentence;
    return {};
  }
  EXPECT_EQ(answer->kind, Kind::layout);
  return answer->layout;
}

void expect_refused(std::string_view text, const std::string& part,
                    std::errc code = std::errc::invalid_argument, ImageChoice choice = {}) {
  const Result<Format::Look> answer = look(text, true, choice);
  ASSERT_FALSE(answer.ok()) << "taken, though: " << part;
  EXPECT_EQ(answer.error().code, code) << answer.error().sentence;
  EXPECT_NE(answer.error().sentence.find(part), std::string::npos) << answer.error().sentence;
}

TEST(FitsTest, APrimaryImageIsTheFrame) {
  const FrameLayout found = layout(header(image("-32", {"512", "7"})));
  EXPECT_EQ(found.coding, fits_coding(DType::f32));
  EXPECT_EQ(found.shape, (Shape{512, 7}));
  EXPECT_EQ(found.data_offset, 2880u);
  EXPECT_EQ(found.data_bytes, 512u * 7 * 4);
  EXPECT_EQ(found.least_bytes, 2880u + 512 * 7 * 4);
  EXPECT_EQ(found.full_bytes, 2880u + 5 * 2880);
  EXPECT_FALSE(found.fortran_order);
}

TEST(FitsTest, FreeFormatValuesAndCommentsAreRead) {
  const Lines lines = {"SIMPLE  = T / free", "BITPIX  =     +16/tight", "NAXIS   =2 / not a value"};
  expect_refused(header(lines), "NAXIS");
  const Lines good = {"SIMPLE  =  T/", "BITPIX  = 16", "NAXIS   = 2 / two", "NAXIS1  = +3",
                      "NAXIS2  =   0004 / four"};
  EXPECT_EQ(layout(header(good)).shape, (Shape{3, 4}));
}

TEST(FitsTest, UnsignedConventionsAreTypesAndOtherScalingGivesPhysicalValues) {
  const auto coding = [](const std::string& bitpix, const Lines& more) {
    return layout(header(image(bitpix, {"4"}, more))).coding;
  };
  EXPECT_EQ(coding("8", {}), fits_coding(DType::u8));
  EXPECT_EQ(coding("16", {"BSCALE  = 1.0", "BZERO   = 0.0"}), fits_coding(DType::i16));
  EXPECT_EQ(coding("8", {"BZERO   = -128"}), fits_coding(DType::i8));
  EXPECT_EQ(coding("16", {"BZERO   = 3.2768E4", "BSCALE  = 1"}), fits_coding(DType::u16));
  EXPECT_EQ(coding("32", {"BZERO   = 2.147483648D+09"}), fits_coding(DType::u32));
  EXPECT_EQ(coding("64", {"BZERO   =  9223372036854775808"}), fits_coding(DType::u64));
  EXPECT_EQ(coding("-64", {"BSCALE  = 1.", "BZERO   = 0."}), fits_coding(DType::f64));
  const auto scaling = [](const std::string& bitpix, const Lines& more) {
    const FrameLayout found = layout(header(image(bitpix, {"4"}, more)));
    EXPECT_TRUE(found.scaling) << more[0];
    return found.scaling.value_or(Scaling{});
  };
  EXPECT_EQ(scaling("16", {"BSCALE  = 2"}), (Scaling{DType::f32, 2, 0, {}}));
  EXPECT_EQ(scaling("8", {"BSCALE  = -1", "BZERO   = 1.5D2"}), (Scaling{DType::f32, -1, 150, {}}));
  EXPECT_EQ(scaling("16", {"BZERO   = 32769"}), (Scaling{DType::f32, 1, 32769, {}}));
  EXPECT_EQ(scaling("32", {"BZERO   = 32768"}), (Scaling{DType::f64, 1, 32768, {}}));
  EXPECT_EQ(scaling("-32", {"BZERO   = 32768"}), (Scaling{DType::f32, 1, 32768, {}}));
  EXPECT_EQ(scaling("-64", {"BSCALE  = 0.5"}), (Scaling{DType::f64, 0.5, 0, {}}));
  EXPECT_EQ(scaling("64", {"BZERO   = 9223372036854775807"}),
            (Scaling{DType::f64, 1, 9223372036854775807., {}}));
  for (const Lines& more :
       {Lines{"BZERO   = 'zero'"}, Lines{"BZERO   = nan"}, Lines{"BSCALE  = inf"}})
    expect_refused(header(image("16", {"4"}, more)), "is not a finite number");
}

TEST(FitsTest, BlankIntegersStandForNoValueUnlessTheyAreUnsigned) {
  const auto scaling = [](const std::string& bitpix, const Lines& more) {
    return layout(header(image(bitpix, {"4"}, more))).scaling;
  };
  EXPECT_EQ(scaling("16", {"BLANK   = -32768"}), (Scaling{DType::f32, 1, 0, -32768}));
  EXPECT_EQ(scaling("32", {"BLANK   = 0"}), (Scaling{DType::f64, 1, 0, 0}));
  EXPECT_EQ(scaling("8", {"BLANK   = 255", "BSCALE  = 2"}), (Scaling{DType::f32, 2, 0, 255}));
  EXPECT_EQ(scaling("16", {"BLANK   = 1", "BZERO   = 32768"}), std::nullopt);
  EXPECT_EQ(scaling("16", {"BLANK   = 1.5"}), std::nullopt);
  EXPECT_EQ(scaling("-32", {"BLANK   = 7"}), std::nullopt);
}

TEST(FitsTest, AnHduIsChosenByNumberOrName) {
  const std::string file =
      header(image("8", {"2"})) + std::string(2880, '\0') +
      header(extension("IMAGE", "16", {"3"}, {"EXTNAME = 'sci'"})) + std::string(2880, '\0') +
      header(extension("IMAGE", "16", {"4"}, {"EXTNAME = 'SCI     '", "EXTVER  = 2"})) +
      std::string(2880, '\0');
  const auto choice = [](int hdu, std::string name, int version) {
    return ImageChoice{hdu, std::move(name), version};
  };
  EXPECT_EQ(layout(file).shape, (Shape{2}));
  EXPECT_EQ(layout(file).header_offset, 0u);
  const FrameLayout second = layout(file, choice(1, "", 0));
  EXPECT_EQ(second.shape, (Shape{3}));
  EXPECT_EQ(second.header_offset, 5760u);
  EXPECT_EQ(second.primary_bytes, 2880u);
  EXPECT_EQ(layout(file, choice(-1, "SCI", 0)).shape, (Shape{3}));
  EXPECT_EQ(layout(file, choice(-1, "SCI", 2)).shape, (Shape{4}));
  expect_refused(file, "no HDU 3", std::errc::invalid_argument, choice(3, "", 0));
  expect_refused(file, "no HDU named 'ERR'", std::errc::invalid_argument, choice(-1, "ERR", 0));
  expect_refused(file, "EXTVER = 3", std::errc::invalid_argument, choice(-1, "SCI", 3));
}

TEST(FitsTest, SumsAreThoseOfTheStandardsExample) {
  // FITS standard 4.0, appendix J: the sum of nothing is 0; a header that tells it sums up to -0.
  std::string text(2880, ' ');
  FitsSummer whole, parts;
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * 37 + i / 256);
  whole.add(as_bytes(text));
  for (std::size_t i = 0; i < text.size(); i += 7)
    parts.add(as_bytes(text).subspan(i, std::min<std::size_t>(7, text.size() - i)));
  std::uint64_t naive = 0;
  for (std::size_t i = 0; i < text.size(); i += 4) {
    std::uint32_t word = 0;
    for (std::size_t j = 0; j < 4; ++j) word = word << 8 | static_cast<unsigned char>(text[i + j]);
    naive += word;
    naive = (naive & 0xffffffff) + (naive >> 32);
  }
  EXPECT_EQ(whole.sum(), naive);
  EXPECT_EQ(parts.sum(), naive);
}

TEST(FitsTest, SurplusTrailingAxesOfExtentOneAreDropped) {
  std::vector<std::string> extents(12, "1");
  extents[0] = "5";
  extents[7] = "3";
  EXPECT_EQ(layout(header(image("8", extents))).shape, (Shape{5, 1, 1, 1, 1, 1, 1, 3}));
  extents[8] = "2";
  expect_refused(header(image("8", extents)), "NAXIS = 12, but at most 8");
}

TEST(FitsTest, HostileNaxisIsBounded) {
  expect_refused(header(image("8", std::vector<std::string>(200, "2"))), "does not fit 63 bits",
                 std::errc::file_too_large);
  expect_refused(header(image("8", std::vector<std::string>(200, "0"))), "at most 8 axes");
  std::vector<std::string> ones(999, "1");
  ones[0] = "7";
  EXPECT_EQ(layout(header(image("8", ones))).shape, (Shape{7, 1, 1, 1, 1, 1, 1, 1}));
  Lines lines = image("8", {"1"});
  for (const std::string naxis : {"1000", "18446744073709551617", "-1", "1.0", "T", "", "'2'"}) {
    lines[2] = "NAXIS   = " + naxis;
    const Result<Format::Look> answer = look(header(lines));
    EXPECT_FALSE(answer.ok()) << naxis;
  }
  lines[2] = "NAXIS   = 999";
  expect_refused(header(lines), "where NAXIS2 belongs");
}

TEST(FitsTest, HostileExtentsAreRefusedBeforeTheHeaderEnds) {
  const auto early = [](const std::vector<std::string>& extents) {
    std::string text = header(image("-64", extents));
    text.resize((3 + extents.size()) * card_length);
    const Result<Format::Look> answer = look(text, false);
    return answer.ok() ? std::errc{} : answer.error().code;
  };
  EXPECT_EQ(early({"-1", "3"}), std::errc::invalid_argument);
  EXPECT_EQ(early({"-9223372036854775809"}), std::errc::invalid_argument);
  EXPECT_EQ(early({"3x"}), std::errc::invalid_argument);
  EXPECT_EQ(early({"9223372036854775808"}), std::errc::file_too_large);
  EXPECT_EQ(early({"99999999999999999999999999"}), std::errc::file_too_large);
  EXPECT_EQ(early({"4294967296", "4294967296"}), std::errc::file_too_large);
  EXPECT_EQ(early({"4294967296", "1073741824"}), std::errc{});  // only the bytes overflow
  expect_refused(header(image("-64", {"4294967296", "1073741824"})), "63 bits",
                 std::errc::file_too_large);
  expect_refused(header(image("8", {"9223372036854775807"})), "63 bits", std::errc::file_too_large);
  expect_refused(header(image("8", {"0"})), "NAXIS1 = 0");
  expect_refused(header(image("8", {"5", "0"})), "NAXIS2 = 0");
}

TEST(FitsTest, StructuralCardsMustBeInTheirPlaces) {
  const Lines good = image("16", {"3", "4"});
  EXPECT_EQ(layout(header(good)).shape, (Shape{3, 4}));
  for (std::size_t i = 1; i < good.size(); ++i) {
    Lines swapped = good;
    swapped.insert(swapped.begin() + static_cast<std::ptrdiff_t>(i), "COMMENT");
    expect_refused(header(swapped), "has COMMENT where");
    Lines cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(i));
    expect_refused(header(cut), "has END where");
  }
  Lines binary = good;
  binary[3] = "NAXIS1  = 3 / \x01";
  expect_refused(header(binary), "NAXIS1");
  binary[3] = std::string("NAX\0\0\0\0\0= 3", 11);
  expect_refused(header(binary), "an unreadable card where NAXIS1");
  Lines bitpix = good;
  for (const std::string value :
       {"0", "12", "-16", "128", "16.0", "T", "+-32", "99999999999999999999"}) {
    bitpix[1] = "BITPIX  = " + value;
    expect_refused(header(bitpix), "BITPIX");
  }
  Lines simple = good;
  simple[0] = "SIMPLE  =                    F";
  expect_refused(header(simple), "SIMPLE = F");
  expect_refused(header(image("8", {"4"}, {"PCOUNT  = 4"})), "PCOUNT = 4");
}

TEST(FitsTest, AHeaderCutAnywhereAsksForMoreAndAtTheEndIsRefused) {
  Lines lines = image("16", {"3", "4"});
  for (int i = 0; i < 100; ++i) lines.push_back("KEY" + std::to_string(i) + "    = 1");
  const std::string whole = header(lines) + std::string(2880, '\0');
  const std::size_t header_bytes = whole.size() - 2880;
  for (std::size_t bytes = 1; bytes < header_bytes; bytes += bytes < 100 ? 1 : 16) {
    const std::string_view cut = std::string_view(whole).substr(0, bytes);
    const Result<Format::Look> answer = look(cut, false);
    ASSERT_TRUE(answer.ok()) << bytes << ": " << answer.error().sentence;
    ASSERT_EQ(answer->kind, Kind::need_more) << bytes;
    const Result<Format::Look> last = look(cut, true);
    if (bytes < 9)
      EXPECT_EQ(last->kind, Kind::not_mine) << bytes;
    else
      EXPECT_FALSE(last.ok()) << bytes;
  }
  EXPECT_EQ(layout(whole.substr(0, header_bytes)).data_offset, header_bytes);
  EXPECT_EQ(look("", true)->kind, Kind::not_mine);
  EXPECT_EQ(look("SIMPLEX", false)->kind, Kind::not_mine);
}

TEST(FitsTest, ManyCardsAreTakenAndEndlessOnesAreNot) {
  const Lines many(100'000, "HISTORY again");
  const FrameLayout found = layout(header(image("8", {"4"}, many)));
  EXPECT_EQ(found.data_offset, (100'005u * 80 + 2879) / 2880 * 2880);
  std::string endless = header(image("8", {"4"}));
  endless.resize(max_header + 1, ' ');
  const std::size_t end = endless.find("END ");
  endless.replace(end, 3, "   ");
  ASSERT_FALSE(look(endless, false).ok());
  expect_refused(endless, "within 16 MiB");
  EXPECT_EQ(look(std::string_view(endless).substr(0, max_header - 1), false)->kind,
            Kind::need_more);
}

TEST(FitsTest, TheFirstImageIsFoundBehindOtherHdus) {
  const std::string empty = header(image("8", {}));
  const std::string table =
      header(extension("BINTABLE", "8", {"10", "300"}, {"PCOUNT  = 500", "GCOUNT  = 1"}));
  const std::string table_data(2 * 2880, '\0');  // 3,500 bytes
  const std::string frame =
      header(extension("IMAGE   ", "16", {"3", "4"}, {"PCOUNT  = 0", "GCOUNT  = 1"}));
  const std::string file = empty + table + table_data + frame;
  const FrameLayout found = layout(file);
  EXPECT_EQ(found.shape, (Shape{3, 4}));
  EXPECT_EQ(found.data_offset, file.size());
  for (std::size_t bytes = 9; bytes < file.size(); bytes += 80)
    EXPECT_EQ(look(std::string_view(file).substr(0, bytes), false)->kind, Kind::need_more) << bytes;
  EXPECT_EQ(layout(file, ImageChoice{2, "", 0}).data_offset, file.size());
  const auto code = std::errc::invalid_argument;
  expect_refused(file, "the primary HDU has no data", code, ImageChoice{0, "", 0});
  expect_refused(file, "HDU 1 is no image (XTENSION = 'BINTABLE')", code, ImageChoice{1, "", 0});
  expect_refused(file, "ends in the data of HDU 2", code, ImageChoice{3, "", 0});
  expect_refused(file + std::string(2880, '\0'), "has no HDU 3", code, ImageChoice{3, "", 0});
  expect_refused(file + std::string(2880, '\0') + "junk", "has no HDU 3", code,
                 ImageChoice{3, "", 0});
  expect_refused(empty + table + table_data, "has no image");
  expect_refused(empty, "has no image");
  expect_refused(empty + table + table_data.substr(1), "ends in the data of HDU 1");
}

TEST(FitsTest, RandomGroupsAndCompressedImagesAreNoImages) {
  const std::string groups =
      header(image("-32", {"0", "2", "3"}, {"GROUPS  = T", "PCOUNT  = 4", "GCOUNT  = 100"}));
  const std::string groups_data((4 * 100 * (4 + 6) + 2879) / 2880 * 2880, '\0');
  const std::string frame = header(extension("IMAGE", "8", {"5"}));
  EXPECT_EQ(layout(groups + groups_data + frame).shape, (Shape{5}));
  expect_refused(groups + groups_data, "has no image");
  expect_refused(groups, "holds random groups", std::errc::invalid_argument, {0, "", 0});
  const std::string compressed =
      header(image("8", {})) + header(extension("BINTABLE", "8", {"8", "1"}, {"ZIMAGE  = T"}));
  const auto packed = look(compressed, false);
  ASSERT_TRUE(packed.ok());
  EXPECT_EQ(packed->kind, Kind::packed);
  EXPECT_EQ(packed->packing, Packing::tiles);
  EXPECT_EQ(packed->hdu, 1);
}

TEST(FitsTest, AnImageMayLieBehindMuchOtherData) {
  const std::string far =
      header(image("8", {})) + header(extension("BINTABLE", "8", {"1048576", "1048576"}));
  ASSERT_TRUE(look(far, false).ok());
  EXPECT_EQ(look(far, false)->kind, Kind::need_more);
  expect_refused(far, "ends in the data of HDU 1");
  expect_refused(
      header(image("8", {})) + header(extension("TABLE", "8", {"4294967296"},
                                                {"PCOUNT  = 9223372036854775807", "GCOUNT  = 3"})),
      "63 bits", std::errc::file_too_large);
}

TEST(FitsTest, CardsOfTheImageAreCarriedVerbatimWithoutStructure) {
  const Lines own = {"OBJECT  = 'M 42    '           / the nebula",
                     "EXTEND  =                    T",
                     "BSCALE  = 1",
                     "BZERO   = 32768",
                     "",
                     "NAXISX  = 5",
                     "CHECKSUM= 'abc'",
                     "DATASUM = '0'",
                     "COMMENT  as it is",
                     "HIERARCH ESO DET = 'x'",
                     "",
                     ""};
  const std::string primary = header(image("8", {}, {"TELESCOP= 'primary'"}));
  const std::string frame = header(extension("IMAGE", "16", {"3", "4"}, own));
  const std::string file = primary + frame;
  const FrameLayout found = layout(file);
  const std::vector<std::string> cards = fits_format().cards(
      std::string_view(file).substr(found.header_offset, found.data_offset - found.header_offset));
  ASSERT_EQ(cards.size(), 5u);
  for (const std::size_t i : {0u, 1u, 2u, 3u, 4u}) EXPECT_EQ(cards[i].size(), card_length);
  EXPECT_EQ(cards[0].substr(0, own[0].size()), own[0]);
  EXPECT_EQ(cards[1], std::string(80, ' '));
  EXPECT_EQ(keyword_of(cards[2]), "NAXISX");
  EXPECT_EQ(cards[3].substr(0, own[8].size()), own[8]);
  EXPECT_EQ(keyword_of(cards[4]), "HIERARCH");
}

TEST(FitsTest, AWrittenHeaderHasRoomAndALengthThatDependsOnTheCardsAlone) {
  ViewFacts facts{DType::u16, {3, 4}, Lines(20, std::string(80, ' ')), "xy"};
  facts.cards[0] = make_card("OBJECT", "'M 42    '", "the nebula");
  const FileFace face = fits_format().face(facts);
  ASSERT_EQ(face.header.size() % fits_block, 0u);
  EXPECT_EQ(face.header.substr(face.header.size() - 80, 4), "END ");
  const std::size_t used = (5 + 2 + 20) * card_length;
  EXPECT_GE(face.header.size() - used, 37 * card_length);
  EXPECT_EQ(face.header.find_first_not_of(' ', used), face.header.size() - 80);
  EXPECT_EQ(face.trailer, 2880u - 24);
  facts.shape = {1'000'000'000'000, 4};
  EXPECT_EQ(fits_format().face(facts).header.size(), face.header.size());
  EXPECT_EQ(fits_format().face({DType::u8, {2880}, {}, "x"}).trailer, 0u);
}

TEST(FitsTest, ALongStringIsOneCardWithItsContinuations) {
  const std::string text =
      header(image("8", {"3"},
                   {"LONG    = 'one &'", "CONTINUE  'two &' / c", "CONTINUE  'three'",
                    "CHECKSUM= 'x&'", "CONTINUE  'y'", "NEXT    = 1"}));
  const std::vector<std::string> cards = fits_format().cards(text);
  ASSERT_EQ(cards.size(), 2u);
  EXPECT_EQ(cards[0].size(), 3 * card_length);
  EXPECT_EQ(string_of(cards[0]), "one two three");
  EXPECT_EQ(keyword_of(cards[1]), "NEXT");
  EXPECT_EQ(fits_format().find_card({text, ""}, "LONG"), cards[0]);
}

TEST(FitsCardTest, ValuesEndAtTheirCommentAndStringsAtTheirQuote) {
  const auto card = [](std::string text) {
    text.resize(card_length, ' ');
    return text;
  };
  EXPECT_EQ(value_of(card("A       =   12 / c")), "12");
  EXPECT_EQ(value_of(card("A       = ")), "");
  EXPECT_EQ(value_of(card("A       =12")), std::nullopt);
  EXPECT_EQ(value_of(card("COMMENT = 12")), "12");
  EXPECT_EQ(value_of(card("A       = 'never closed")), std::nullopt);
  EXPECT_EQ(string_of(card("A       = 'it''s / so  '  / c")), "it's / so");
  EXPECT_EQ(string_of(card("A       = ''")), "");
  EXPECT_EQ(string_of(card("A       = ''''")), "'");
  EXPECT_EQ(string_of(card("A       = 5")), std::nullopt);
  EXPECT_EQ(logical_of(card("A       = T/")), true);
  EXPECT_EQ(logical_of(card("A       = TRUE")), std::nullopt);
  EXPECT_TRUE(is_indexed_keyword(card("NAXIS12 = 1"), "NAXIS"));
  EXPECT_FALSE(is_indexed_keyword(card("NAXIS   = 1"), "NAXIS"));
  EXPECT_FALSE(is_indexed_keyword(card("NAXIS0  = 1"), "NAXIS"));
  EXPECT_EQ(make_integer_card("NAXIS1", 512, "wide"),
            card("NAXIS1  =                  512 / wide"));
  EXPECT_EQ(make_logical_card("SIMPLE", true, ""), card("SIMPLE  =                    T"));
}

}  // namespace
}  // namespace accrete
