#include "core/view.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>

#include "tests/core/random_view.h"

namespace accrete {
namespace {

std::uint64_t seed() {
  const char* text = std::getenv("ACCRETE_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 20240605;
}

using testing::axis_of;
using testing::random_view;
using Random = std::mt19937_64;
using Piece = Run;  // in the body of a TEST, Run is a member of testing::Test

PerAxis<Axis> random_axes(Random& random, std::size_t rank) {
  PerAxis<Axis> axes;
  for (std::size_t i = 0; i < rank; ++i) {
    Axis axis = axis_of(1 + random() % 5);
    for (std::int64_t j = 0; j < 3; ++j)
      axis = *axis.insert(random() % (axis.extent() + 1), {100 + 10 * j, 1 + random() % 3});
    axes.push_back(axis);
  }
  return axes;
}

// The physical place of an index of a view.
Coords place_of(const View& view, const Shape& index) {
  Coords at(view.cube_rank());
  for (std::size_t axis = 0; axis < view.cube_rank(); ++axis) {
    const std::size_t d = view.dimension_of(axis);
    at[axis] = d == view.rank()
                   ? view.fixed_coordinate(axis)
                   : view.axis(axis).physical(view.dimension(d).range.begin + index[d]);
  }
  return at;
}

Shape random_index(Random& random, const Shape& shape) {
  Shape index;
  for (const std::uint64_t extent : shape) index.push_back(random() % extent);
  return index;
}

TEST(View, whole_has_the_shape_of_the_cube) {
  const View view = *View::whole({axis_of(4), axis_of(3), axis_of(2)});
  EXPECT_EQ(view.shape(), (Shape{4, 3, 2}));
  EXPECT_EQ(view.element_count(), 24u);
  EXPECT_EQ(View::whole({axis_of(4), Axis()}).error().code, std::errc::no_such_file_or_directory);
  EXPECT_FALSE(View::whole({}).ok());
}

TEST(View, spans_axes_in_any_order_and_fixes_the_others) {
  const PerAxis<Axis> axes{axis_of(4), axis_of(3), *axis_of(2).insert(1, {50, 1})};
  const View view = *View::make(axes, {{2, {0, 3}}, {0, {1, 3}}}, {0, 2, 0});
  EXPECT_EQ(view.shape(), (Shape{3, 2}));
  EXPECT_EQ(view.dimension_of(0), 1u);
  EXPECT_EQ(view.dimension_of(1), view.rank());
  EXPECT_EQ(view.dimension_of(2), 0u);
  EXPECT_EQ(place_of(view, {1, 1}), (Coords{2, 2, 50}));
}

TEST(View, what_does_not_resolve_is_refused_with_its_errno) {
  const PerAxis<Axis> axes{axis_of(4), axis_of(3)};
  const auto code = [&](const PerAxis<ViewAxis>& spanned, const Shape& fixed) {
    const Result<View> view = View::make(axes, spanned, fixed);
    return view.ok() ? std::errc{} : view.error().code;
  };
  EXPECT_EQ(code({{0, {0, 4}}}, {9, 2}), std::errc{});
  EXPECT_EQ(code({{0, {0, 5}}}, {0, 0}), std::errc::no_such_file_or_directory);
  EXPECT_EQ(code({{0, {2, 2}}}, {0, 0}), std::errc::no_such_file_or_directory);
  EXPECT_EQ(code({{0, {3, 2}}}, {0, 0}), std::errc::no_such_file_or_directory);
  EXPECT_EQ(code({{0, {0, 4}}}, {0, 3}), std::errc::no_such_file_or_directory);
  EXPECT_EQ(code({{0, {0, 4}}, {0, {0, 4}}}, {0, 0}), std::errc::invalid_argument);
  EXPECT_EQ(code({{2, {0, 1}}}, {0, 0}), std::errc::invalid_argument);
  EXPECT_EQ(code({}, {0, 0}), std::errc::invalid_argument);
  EXPECT_EQ(code({{0, {0, 4}}}, {0}), std::errc::invalid_argument);
}

TEST(View, more_elements_than_can_be_counted_are_refused) {
  const std::uint64_t huge = std::uint64_t{1} << 40;
  EXPECT_EQ(View::whole({axis_of(huge), axis_of(huge)}).error().code, std::errc::file_too_large);
  EXPECT_TRUE(View::make({axis_of(huge), axis_of(huge)}, {{1, {0, huge}}}, {5, 0}).ok());
}

TEST(View, a_cut_of_a_view_shows_the_elements_of_the_view) {
  SCOPED_TRACE(seed());
  Random random(seed());
  for (int round = 0; round < 400; ++round) {
    const View view = random_view(random, random_axes(random, 1 + random() % max_rank));
    const Shape shape = view.shape();
    std::vector<std::size_t> order;
    PerAxis<Interval> ranges;
    for (std::size_t d = 0; d < view.rank(); ++d) {
      order.push_back(d);
      const std::uint64_t begin = random() % shape[d];
      ranges.push_back({begin, begin + 1 + random() % (shape[d] - begin)});
    }
    std::shuffle(order.begin(), order.end(), random);
    PerAxis<std::size_t> permutation;
    for (const std::size_t d : order) permutation.push_back(d);
    const Result<View> cut = view.cut(ranges, permutation);
    ASSERT_TRUE(cut.ok());
    for (int i = 0; i < 10; ++i) {
      const Shape index = random_index(random, cut->shape());
      Shape original(view.rank());
      for (std::size_t d = 0; d < view.rank(); ++d)
        original[order[d]] = ranges[order[d]].begin + index[d];
      ASSERT_EQ(place_of(*cut, index), place_of(view, original));
    }
  }
}

TEST(View, a_cut_outside_or_of_another_rank_is_refused) {
  const View view = *View::whole({axis_of(4), axis_of(3)});
  EXPECT_EQ(view.cut({{0, 5}, {0, 3}}, {0, 1}).error().code, std::errc::no_such_file_or_directory);
  EXPECT_EQ(view.cut({{1, 1}, {0, 3}}, {0, 1}).error().code, std::errc::no_such_file_or_directory);
  EXPECT_EQ(view.cut({{0, 4}, {0, 3}}, {0, 0}).error().code, std::errc::invalid_argument);
  EXPECT_EQ(view.cut({{0, 4}, {0, 3}}, {0, 2}).error().code, std::errc::invalid_argument);
  EXPECT_EQ(view.cut({{0, 4}}, {0}).error().code, std::errc::invalid_argument);
}

TEST(View, means_the_same_after_the_cube_has_grown) {
  PerAxis<Axis> axes{axis_of(4), axis_of(3)};
  const View view = *View::make(axes, {{1, {0, 3}}}, {2, 0});
  const View same = view;
  axes[0] = *axes[0].insert(0, {-5, 2});
  axes[1] = *axes[1].insert(1, {70, 1});
  EXPECT_EQ(place_of(view, {2}), (Coords{2, 2}));
  EXPECT_TRUE(view.is_prefix_of(same));
}

TEST(View, is_a_prefix_of_itself_after_an_append_to_its_slowest_axis_only) {
  const PerAxis<Axis> axes{*Axis().insert(0, {0, 4}), *Axis().insert(0, {0, 3})};
  PerAxis<Axis> taller = axes, wider = axes, shifted = axes;
  taller[1] = *axes[1].insert(3, {3, 1});
  wider[0] = *axes[0].insert(4, {4, 1});
  shifted[1] = *axes[1].insert(0, {-1, 1});
  const View whole = *View::whole(axes);
  EXPECT_TRUE(whole.is_prefix_of(*View::whole(taller)));
  EXPECT_FALSE(View::whole(taller)->is_prefix_of(whole));
  EXPECT_FALSE(whole.is_prefix_of(*View::whole(wider)));
  EXPECT_FALSE(whole.is_prefix_of(*View::whole(shifted)));
  // Transposed, the slowest dimension is the other axis.
  const auto transposed = [](const PerAxis<Axis>& a) {
    return *View::make(a, {{1, {0, a[1].extent()}}, {0, {0, a[0].extent()}}}, {0, 0});
  };
  EXPECT_TRUE(transposed(axes).is_prefix_of(transposed(wider)));
  EXPECT_FALSE(transposed(axes).is_prefix_of(transposed(taller)));
  EXPECT_FALSE(whole.is_prefix_of(transposed(axes)));
  // The same ranges of an older and a newer version, whichever is asked.
  const View row = *View::make(axes, {{0, {0, 4}}}, {0, 1});
  const View later_row = *View::make(wider, {{0, {0, 4}}}, {0, 1});
  EXPECT_TRUE(row.is_prefix_of(later_row));
  EXPECT_TRUE(later_row.is_prefix_of(row));
  // A plane that moved on is another plane under its old index, the same under its new one.
  EXPECT_FALSE(row.is_prefix_of(*View::make(shifted, {{0, {0, 4}}}, {0, 1})));
  EXPECT_TRUE(row.is_prefix_of(*View::make(shifted, {{0, {0, 4}}}, {0, 2})));
}

TEST(View, prefixes_are_prefixes) {
  SCOPED_TRACE(seed());
  Random random(seed());
  int prefixes = 0;
  for (int round = 0; round < 60; ++round) {
    PerAxis<Axis> axes = random_axes(random, 1 + random() % 3);
    std::vector<View> views;
    std::int64_t fresh = 1000;
    for (int step = 0; step < 12; ++step) {
      views.push_back(random() % 2 == 0 ? *View::whole(axes) : random_view(random, axes));
      Axis& axis = axes[random() % axes.size()];
      const std::uint64_t at = random() % 3 != 0 ? axis.extent() : random() % (axis.extent() + 1);
      axis = *axis.insert(at, {fresh++, 1});
    }
    for (const View& a : views) {
      for (const View& b : views) {
        if (!a.is_prefix_of(b)) continue;
        ++prefixes;
        ASSERT_LE(a.element_count(), b.element_count());
        for (int i = 0; i < 5; ++i) {
          const Shape index = random_index(random, a.shape());
          ASSERT_EQ(place_of(a, index), place_of(b, index));
        }
      }
    }
  }
  EXPECT_GT(prefixes, 60 * 12 + 100);
}

}  // namespace
}  // namespace accrete
