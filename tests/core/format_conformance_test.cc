// What every format must keep to, whatever it looks like inside.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "core/format.h"

namespace accrete {
namespace {

using Kind = Format::Look::Kind;

std::uint64_t seed() {
  const char* const text = std::getenv("ACCRETE_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 20240115;
}

std::span<const std::byte> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string card(const std::string& text) {
  std::string card = text;
  card.resize(80, ' ');
  return card;
}

class FormatConformanceTest : public testing::TestWithParam<const Format*> {
 protected:
  const Format& format_ = *GetParam();
  std::mt19937_64 random_{seed()};

  Shape random_shape(std::size_t rank) {
    Shape shape;
    for (std::size_t i = 0; i < rank; ++i) shape.push_back(1 + random_() % 4);
    return shape;
  }

  // The whole file of a view with these elements (native coding).
  std::string file(const ViewFacts& facts, const std::vector<std::byte>& elements) {
    const FileFace face = format_.face(facts);
    std::string data(face.data_bytes(), '?');
    format_.print(elements.data(), face.elements, facts.type, data.data());
    return face.header + data + std::string(face.trailer, face.trailer_fill);
  }

  std::vector<std::byte> random_elements(DType type, const Shape& shape) {
    std::vector<std::byte> elements(*checked_product(shape) * size_of(type));
    for (std::byte& b : elements) b = static_cast<std::byte>(random_());
    return elements;
  }

  template <class F>
  void for_all_types_and_ranks(F f) {
    SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(seed()));
    for (const DType type : all_dtypes) {
      for (std::size_t rank = 1; rank <= max_rank; ++rank) {
        SCOPED_TRACE(std::string(name_of(type)) + ", rank " + std::to_string(rank));
        ASSERT_TRUE(format_.can_show(type, rank));
        f(ViewFacts{type, random_shape(rank), {card("OBJECT  = 'M 42'")}, "xyztsuvw"});
      }
    }
  }
};

TEST_P(FormatConformanceTest, IsFoundByItsNumberAndItsExtension) {
  EXPECT_EQ(&format(format_.id()), &format_);
  EXPECT_EQ(format_by_extension(format_.extension()), &format_);
  EXPECT_EQ(format_by_extension("jpeg"), nullptr);
  EXPECT_FALSE(format_.can_show(DType::u8, 0));
  EXPECT_FALSE(format_.can_show(DType::u8, 9));
}

TEST_P(FormatConformanceTest, SizeOfTheFileIsKnownBeforeAnythingIsRead) {
  for_all_types_and_ranks([this](const ViewFacts& facts) {
    const FileFace face = format_.face(facts);
    EXPECT_EQ(face.elements, *checked_product(facts.shape));
    EXPECT_EQ(face.total(), file(facts, random_elements(facts.type, facts.shape)).size());
    if (format_.is_binary()) {
      EXPECT_EQ(face.bytes_per_element, size_of(facts.type));
      EXPECT_EQ(format_.coding(facts.type).type, facts.type);
    }
  });
}

TEST_P(FormatConformanceTest, ALookAtTheOwnFileFindsWhatWasWritten) {
  for_all_types_and_ranks([this](const ViewFacts& facts) {
    const std::vector<std::byte> elements = random_elements(facts.type, facts.shape);
    const std::string whole = file(facts, elements);
    const Result<Format::Look> answer = format_.look(bytes_of(whole), true, {});
    ASSERT_TRUE(answer.ok()) << answer.error().sentence;
    if (format_.id() == FormatId::raw || format_.id() == FormatId::txt) {
      EXPECT_EQ(answer->kind, Kind::not_mine);
      return;
    }
    ASSERT_EQ(answer->kind, Kind::layout);
    const FrameLayout& layout = answer->layout;
    EXPECT_EQ(layout.format, format_.id());
    EXPECT_EQ(layout.shape, facts.shape);
    EXPECT_FALSE(layout.fortran_order);
    EXPECT_EQ(layout.coding, format_.coding(facts.type));
    EXPECT_EQ(layout.full_bytes, whole.size());
    EXPECT_EQ(layout.data_bytes, elements.size());
    std::vector<std::byte> found(elements.size());
    recode(found.data(), bytes_of(whole).data() + layout.data_offset,
           elements.size() / size_of(facts.type), layout.coding, native(facts.type));
    EXPECT_EQ(found, elements);
    const std::string_view header = std::string_view(whole).substr(0, layout.data_offset);
    if (format_.id() == FormatId::fits)
      EXPECT_EQ(format_.cards(header), facts.cards);
    else
      EXPECT_TRUE(format_.cards(header).empty());
  });
}

TEST_P(FormatConformanceTest, ALayoutIsFinalAndNeedsItsHeaderOnly) {
  for_all_types_and_ranks([this](const ViewFacts& facts) {
    const std::string whole = file(facts, random_elements(facts.type, facts.shape));
    const std::size_t header = format_.face(facts).header.size();
    for (std::size_t n = 1; n < whole.size(); n += 1 + random_() % 500) {
      const Result<Format::Look> answer = format_.look(bytes_of(whole).first(n), false, {});
      ASSERT_TRUE(answer.ok()) << answer.error().sentence;
      if (header == 0)
        EXPECT_EQ(answer->kind, Kind::not_mine);
      else
        EXPECT_EQ(answer->kind, n < header ? Kind::need_more : Kind::layout) << n;
    }
  });
}

TEST_P(FormatConformanceTest, HeaderLengthDoesNotDependOnExtents) {
  for_all_types_and_ranks([this](ViewFacts facts) {
    const std::size_t length = format_.face(facts).header.size();
    facts.shape[0] = std::uint64_t{1} << 33;
    EXPECT_EQ(format_.face(facts).header.size(), length);
  });
}

TEST_P(FormatConformanceTest, AnExtensibleFileIsAPrefixOfTheLongerOne) {
  if (!format_.can_extend()) return;
  for_all_types_and_ranks([this](const ViewFacts& facts) {
    ViewFacts longer = facts;
    longer.shape.back() += 3;
    const std::vector<std::byte> elements = random_elements(longer.type, longer.shape);
    EXPECT_TRUE(file(longer, elements).starts_with(file(facts, elements)));
  });
}

TEST_P(FormatConformanceTest, NoiseIsNeverALayout) {
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(seed()));
  const ViewFacts facts{DType::u16, {3, 4, 2}, {card("OBJECT  = 'M 42'")}, "xyz"};
  const std::string good = format_.face(facts).header;
  for (int round = 0; round < 2000; ++round) {
    std::string text = good;
    if (round % 2 == 0) {  // all noise
      text.resize(random_() % 6000);
      for (char& c : text) c = static_cast<char>(random_());
    } else {  // a good header with a few bytes changed
      for (int i = 0; i < 4 && !text.empty(); ++i)
        text[random_() % std::min<std::size_t>(text.size(), 500)] = static_cast<char>(random_());
    }
    const Result<Format::Look> answer = format_.look(bytes_of(text), true, {});
    if (!answer.ok()) {
      EXPECT_FALSE(answer.error().sentence.empty());
      continue;
    }
    EXPECT_NE(answer->kind, Kind::need_more);
    if (round % 2 == 0) {
      EXPECT_EQ(answer->kind, Kind::not_mine);
    } else if (answer->kind == Kind::layout) {
      const FrameLayout& layout = answer->layout;
      EXPECT_EQ(*checked_product(layout.shape) * size_of(layout.coding.type), layout.data_bytes);
      EXPECT_LE(layout.data_offset, text.size());
      EXPECT_LE(layout.data_offset + layout.data_bytes, layout.least_bytes);
      EXPECT_LE(layout.least_bytes, layout.full_bytes);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, FormatConformanceTest,
                         testing::ValuesIn(all_formats().begin(), all_formats().end()),
                         [](const auto& info) { return std::string(info.param->extension()); });

TEST(LookAtTest, UnknownContentIsNamedAsFarAsPossible) {
  const auto sentence = [](std::string_view text) {
    const Result<Format::Look> answer = look_at(bytes_of(text), true, {});
    return answer.ok() ? "taken" : answer.error().sentence;
  };
  EXPECT_EQ(sentence(""), "the file is empty");
  EXPECT_EQ(sentence("hello"), "not a FITS or NPY file");
  EXPECT_EQ(sentence("SIMPLE"), "not a FITS or NPY file");
  EXPECT_EQ(look_at(bytes_of("\x1f\x8b\x08rest"), true, {})->kind, Kind::packed);
  EXPECT_EQ(look_at(bytes_of("\x1f\x8b"), false, {})->kind, Kind::need_more);
  EXPECT_EQ(sentence("\x1f\x8b"), "not a FITS or NPY file");
  EXPECT_EQ(try_formats(bytes_of("hello"), true, {})->kind, Kind::not_mine);
  EXPECT_EQ(look_at(bytes_of(""), false, {})->kind, Kind::need_more);
  EXPECT_EQ(look_at(bytes_of("SIM"), false, {})->kind, Kind::need_more);
  EXPECT_EQ(look_at(bytes_of("\x93NU"), false, {})->kind, Kind::need_more);
}

}  // namespace
}  // namespace accrete
