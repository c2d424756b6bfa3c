#include "core/view_form.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <vector>

#include "tests/core/random_view.h"
#include "tests/core/store_fixture.h"

namespace accrete {
namespace {

using testing::axis_of;
using testing::random_view;
using Random = std::mt19937_64;
using Piece = Run;  // in the body of a TEST, Run is a member of testing::Test

std::vector<std::int64_t> coordinates(const Axis& axis, Interval range) {
  std::vector<std::int64_t> all;
  for (std::uint64_t i = range.begin; i < range.end; ++i) all.push_back(axis.physical(i));
  return all;
}

// `now` shows what `before` did at the same indexes, and if it extends all that follows.
void expect_continues(const View& now, const View& before, bool extends) {
  ASSERT_EQ(now.rank(), before.rank());
  for (std::size_t d = 0; d < now.rank(); ++d) {
    const std::size_t axis = before.dimension(d).axis;
    ASSERT_EQ(now.dimension(d).axis, axis);
    const auto is = coordinates(now.axis(axis), now.dimension(d).range);
    const auto was = coordinates(before.axis(axis), before.dimension(d).range);
    ASSERT_GE(is.size(), was.size());
    EXPECT_TRUE(std::equal(was.begin(), was.end(), is.begin()));
    const bool reaches_end = extends && d + 1 == now.rank();
    EXPECT_EQ(is.size(),
              reaches_end ? now.axis(axis).extent() - now.dimension(d).range.begin : was.size());
  }
  for (std::size_t axis = 0; axis < now.cube_rank(); ++axis) {
    if (now.dimension_of(axis) != now.rank()) continue;
    EXPECT_EQ(now.fixed_coordinate(axis), before.fixed_coordinate(axis));
  }
}

TEST(ViewForm, GivesTheSameElementsOrIsStaleUnderRandomHistories) {
  Random random(testing::seed());
  SCOPED_TRACE("seed " + std::to_string(testing::seed()));
  std::size_t stale = 0;
  std::size_t alive = 0;
  for (int history = 0; history < 400; ++history) {
    PerAxis<Axis> axes;
    const std::size_t rank = 1 + random() % 4;
    for (std::size_t i = 0; i < rank; ++i) axes.push_back(axis_of(2 + random() % 4));
    const View before = random_view(random, axes);
    const ViewAxis& slowest = before.dimension(before.rank() - 1);
    const bool extends = slowest.range.end == axes[slowest.axis].extent() && random() % 4 != 0;
    const ViewForm form(before, extends);
    bool only_appends = true;
    std::int64_t fresh = 100;
    for (int step = 0; step < 12; ++step) {
      Axis& axis = axes[random() % rank];
      const std::uint64_t at = random() % axis.positions();
      const Piece some{axis.coordinate_at(at), 1};
      Result<Axis> edited = axis;
      switch (random() % 12) {
        case 0:
          edited = axis.insert(at, {fresh, 1});
          only_appends = false;
          break;
        case 1:
          if (axis.extent() > 1) edited = axis.hide(some);
          only_appends = false;
          break;
        case 2:
          edited = axis.show(some);
          only_appends = false;
          break;
        default:
          edited = axis.insert(axis.positions(), {fresh, 1 + random() % 2});
      }
      fresh += 10;
      if (edited.ok()) axis = *edited;

      const Result<View> now = form.view(axes);
      const Result<std::uint64_t> end = form.end(axes);
      ASSERT_EQ(now.ok(), end.ok());
      if (!now.ok()) {
        ++stale;
        EXPECT_FALSE(only_appends);
        EXPECT_EQ(now.error().number(), ESTALE);
        continue;
      }
      ++alive;
      EXPECT_EQ(*end, now->dimension(now->rank() - 1).range.end);
      EXPECT_EQ(form.shape(*end), now->shape());
      expect_continues(*now, before, extends);
      if (HasFatalFailure()) return;
    }
  }
  EXPECT_GT(stale, 500U);
  EXPECT_GT(alive, 1500U);
}

TEST(ViewForm, IsStaleInACubeOfAnotherRank) {
  const PerAxis<Axis> axes{axis_of(3), axis_of(2)};
  const ViewForm form(*View::whole(axes), false);
  EXPECT_TRUE(form.view(axes).ok());
  EXPECT_FALSE(form.view({axes[0], axes[1], axis_of(1)}).ok());
  EXPECT_FALSE(form.view({axes[0]}).ok());
}

TEST(ViewForm, IsExtendedAndFindsItsCoordinateAgain) {
  const PerAxis<Axis> axes{axis_of(3), axis_of(2)};
  const ViewForm form(*View::make(axes, {{0, {1, 3}}}, {0, 1}), true);
  EXPECT_EQ(form.rank(), 1U);
  EXPECT_EQ(form.slowest_axis(), 0U);
  const PerAxis<Axis> longer{*axes[0].insert(3, {3, 4}), *axes[1].insert(0, {9, 1})};
  const Result<View> view = form.view(longer);
  ASSERT_TRUE(view.ok()) << "an index before it moves its own, not what it means";
  EXPECT_EQ(view->shape(), Shape{6});
  EXPECT_EQ(view->fixed_coordinate(1), 1);
}

}  // namespace
}  // namespace accrete
