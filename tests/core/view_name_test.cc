#include "core/view_name.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>

namespace accrete {
namespace {

std::uint64_t seed() {
  const char* text = std::getenv("ACCRETE_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 20240606;
}

using Piece = Run;  // in the body of a TEST, Run is a member of testing::Test
using Terms = std::vector<AxisTerm>;

constexpr std::uint64_t most = (std::uint64_t{1} << 63) - 1;

AxisTerm index_of(std::size_t axis, std::uint64_t index) {
  AxisTerm term;
  term.axis = axis;
  term.index = index;
  return term;
}

AxisTerm range_of(std::size_t axis, std::uint64_t begin, std::optional<std::uint64_t> end) {
  AxisTerm term;
  term.axis = axis;
  term.is_range = true;
  term.begin = begin;
  term.end = end;
  return term;
}

PerAxis<Axis> cube(std::initializer_list<std::uint64_t> extents) {
  PerAxis<Axis> axes;
  for (const std::uint64_t extent : extents) {
    const Piece run{0, extent};
    axes.push_back(*Axis::from_runs({&run, extent > 0 ? 1u : 0u}));
  }
  return axes;
}

TEST(ViewName, directories_name_axes_in_order) {
  EXPECT_EQ(parse_axes("xy", "xyz"), (PerAxis<std::size_t>{0, 1}));
  EXPECT_EQ(parse_axes("zx", "xyz"), (PerAxis<std::size_t>{2, 0}));
  EXPECT_EQ(parse_axes("f", "xyfs"), (PerAxis<std::size_t>{2}));
  EXPECT_EQ(parse_axes("wvustzyx", "xyztsuvw")->size(), 8u);
  for (const char* bad : {"", "xx", "xa", "X", "x y", "xyzx", "xyzxyzxyzxyz", "x/", "\xff"})
    EXPECT_EQ(parse_axes(bad, "xyz"), std::nullopt) << bad;
}

TEST(ViewName, terms_are_indexes_and_half_open_ranges) {
  EXPECT_EQ(parse_terms("z000017", "xyz"), Terms{index_of(2, 17)});
  EXPECT_EQ(parse_terms("z17", "xyz"), Terms{index_of(2, 17)});
  EXPECT_EQ(parse_terms("z0000000000000000000000000000017", "xyz"), Terms{index_of(2, 17)});
  EXPECT_EQ(parse_terms("z0", "xyz"), Terms{index_of(2, 0)});
  EXPECT_EQ(parse_terms("z9223372036854775807", "xyz"), Terms{index_of(2, most)});
  EXPECT_EQ(parse_terms("x100..200_y50..80_z000017", "xyz"),
            (Terms{range_of(0, 100, 200), range_of(1, 50, 80), index_of(2, 17)}));
  EXPECT_EQ(parse_terms("x100..", "xyz"), Terms{range_of(0, 100, std::nullopt)});
  EXPECT_EQ(parse_terms("x..200", "xyz"), Terms{range_of(0, 0, 200)});
}

TEST(ViewName, what_is_not_of_the_grammar_is_nothing) {
  for (const char* bad : {"",
                          "_",
                          "z",
                          "17",
                          "z17_",
                          "_z17",
                          "z17__x3",
                          "z17_z18",
                          "z17_z1..2",
                          "a17",
                          "Z17",
                          "z-1",
                          "z+1",
                          "z 1",
                          "z1 ",
                          "z1.",
                          "z1.2",
                          "z1...2",
                          "z..",
                          "z...",
                          "z1..2..3",
                          "z5..5",
                          "z5..4",
                          "z..0",
                          "z0x10",
                          "z1e3",
                          "z9223372036854775808",
                          "z18446744073709551617",
                          "z99999999999999999999999999",
                          "z1..9223372036854775808",
                          "z1..-2",
                          "z1-2",
                          "z[1]",
                          "zz1",
                          "z1x2",
                          "z1,x2",
                          "z\xd9\xa1",
                          "z1/x2"})
    EXPECT_EQ(parse_terms(bad, "xyz"), std::nullopt) << bad;
  EXPECT_EQ(parse_terms(std::string_view("z1\0", 3), "xyz"), std::nullopt);
  EXPECT_EQ(parse_terms(std::string(100000, 'x'), "xyz"), std::nullopt);
  EXPECT_EQ(parse_terms("x1", ""), std::nullopt);
}

TEST(ViewName, listings_pad_to_six_digits) {
  EXPECT_EQ(format_index('z', 0), "z000000");
  EXPECT_EQ(format_index('z', 17), "z000017");
  EXPECT_EQ(format_index('f', 999999), "f999999");
  EXPECT_EQ(format_index('f', 1234567), "f1234567");
}

TEST(ViewName, formatted_terms_parse_back) {
  SCOPED_TRACE(seed());
  std::mt19937_64 random(seed());
  const std::string letters = "xyztsuvw";
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::size_t> axes{0, 1, 2, 3, 4, 5, 6, 7};
    std::shuffle(axes.begin(), axes.end(), random);
    axes.resize(1 + random() % 8);
    const auto number = [&] { return random() >> (1 + random() % 63); };
    Terms terms;
    for (const std::size_t axis : axes) {
      if (random() % 2 == 0) {
        terms.push_back(index_of(axis, number()));
      } else {
        const std::uint64_t a = number(), b = number();
        terms.push_back(
            range_of(axis, std::min(a, b), a == b ? std::nullopt : std::optional(std::max(a, b))));
      }
    }
    const std::string text = format_terms(terms, letters);
    ASSERT_EQ(parse_terms(text, letters), terms) << text;
    for (const char c : text) ASSERT_TRUE(std::isalnum(c) != 0 || c == '.' || c == '_') << text;
  }
}

// Whatever parses says what it was parsed from, up to leading zeros and the open start.
TEST(ViewName, random_text_never_parses_to_something_else) {
  SCOPED_TRACE(seed());
  std::mt19937_64 random(seed());
  const std::string alphabet = "xyz0129.._-";
  int parsed = 0;
  for (int round = 0; round < 50000; ++round) {
    std::string text;
    for (std::size_t i = 0; i < 1 + random() % 9; ++i) text += alphabet[random() % alphabet.size()];
    const auto terms = parse_terms(text, "xyz");
    if (!terms) continue;
    ++parsed;
    ASSERT_EQ(parse_terms(format_terms(*terms, "xyz"), "xyz"), terms) << text;
    for (const AxisTerm& term : *terms) {
      const auto letter = static_cast<std::ptrdiff_t>(text.find("xyz"[term.axis]));
      ASSERT_EQ(std::count(text.begin(), text.end(), "xyz"[term.axis]), 1) << text;
      std::string tail = text.substr(static_cast<std::size_t>(letter) + 1);
      tail = tail.substr(0, tail.find('_'));
      ASSERT_EQ(term.is_range, tail.find("..") != std::string::npos) << text;
      if (!term.is_range) {
        ASSERT_EQ(std::stoull(tail), term.index) << text;
      }
    }
  }
  EXPECT_GT(parsed, 500);
}

TEST(ViewName, complete_terms_make_the_view) {
  const PerAxis<Axis> axes = cube({10, 20, 30});
  const Result<View> plane =
      resolve_view(axes, {2, 0}, {range_of(0, 3, std::nullopt), index_of(1, 5)});
  ASSERT_TRUE(plane.ok());
  EXPECT_EQ(plane->shape(), (Shape{30, 7}));
  EXPECT_EQ(plane->fixed_coordinate(1), 5);
  EXPECT_EQ(plane->dimension(1).range, (Interval{3, 10}));
  EXPECT_EQ(resolve_view(axes, {0, 1, 2}, {range_of(2, 10, 20)})->shape(), (Shape{10, 20, 10}));
}

TEST(ViewName, terms_that_do_not_resolve_are_refused) {
  const PerAxis<Axis> axes = cube({10, 20, 30});
  const auto code = [&](const PerAxis<std::size_t>& spanned, const Terms& terms) {
    const Result<View> view = resolve_view(axes, spanned, terms);
    return view.ok() ? std::errc{} : view.error().code;
  };
  constexpr auto none = std::errc::no_such_file_or_directory;
  EXPECT_EQ(code({0, 1}, {index_of(2, 29)}), std::errc{});
  EXPECT_EQ(code({0, 1}, {index_of(2, 30)}), none);
  EXPECT_EQ(code({0, 1}, {index_of(2, most)}), none);
  EXPECT_EQ(code({0, 1}, {}), none);                                // z is open
  EXPECT_EQ(code({0, 1}, {range_of(2, 0, 5)}), none);               // z needs one index
  EXPECT_EQ(code({0, 1}, {index_of(2, 1), index_of(0, 1)}), none);  // x is spanned
  EXPECT_EQ(code({0, 1}, {index_of(2, 1), range_of(0, 5, 11)}), none);
  EXPECT_EQ(code({0, 1}, {index_of(2, 1), range_of(0, 10, std::nullopt)}), none);
  EXPECT_EQ(code({0, 1}, {index_of(2, 1), range_of(0, 11, std::nullopt)}), none);
  EXPECT_EQ(code({0, 1}, {index_of(3, 1), index_of(2, 1)}), none);
  EXPECT_EQ(code({0, 7}, {index_of(1, 1), index_of(2, 1)}), none);
  EXPECT_EQ(code({0, 1}, {index_of(2, 1), index_of(2, 1)}), std::errc::invalid_argument);
  EXPECT_EQ(resolve_view(cube({10, 0}), {0, 1}, {}).error().code, none);
}

TEST(ViewName, a_name_is_complete_when_it_fixes_what_is_not_spanned) {
  EXPECT_TRUE(is_complete(3, {0, 1}, {index_of(2, 1)}));
  EXPECT_TRUE(is_complete(3, {0, 1, 2}, {}));
  EXPECT_TRUE(is_complete(3, {2}, {index_of(0, 1), index_of(1, 1)}));
  EXPECT_FALSE(is_complete(3, {2}, {index_of(0, 1)}));
  EXPECT_FALSE(is_complete(3, {2}, {index_of(0, 1), range_of(1, 2, 3)}));
  EXPECT_FALSE(is_complete(3, {0, 1}, {}));
}

}  // namespace
}  // namespace accrete
