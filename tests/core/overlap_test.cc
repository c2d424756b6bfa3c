// Where views meet, and ranges of views as cuboids: against what goes element by element.
#include "core/overlap.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "core/poke.h"
#include "tests/core/poke_fixture.h"

namespace accrete {
namespace {

using testing::random_range;
using testing::random_view;

// An axis that grew at its ends and inside, and lost some.
Axis random_axis(std::mt19937_64& random, std::uint64_t least) {
  Axis axis;
  std::int64_t fresh = static_cast<std::int64_t>(random() % 5);
  while (axis.extent() < least) {
    const std::uint64_t length = 1 + random() % 4;
    axis = *axis.insert(random() % 2 == 0 ? axis.positions() : random() % (axis.positions() + 1),
                        {fresh, length});
    fresh += static_cast<std::int64_t>(length + random() % 2);
  }
  return axis;
}

Axis changed(std::mt19937_64& random, Axis axis) {
  for (int n = 0; n < 2; ++n) {
    const std::uint64_t at = random() % axis.extent();
    switch (random() % 4) {
      case 0:
        axis = *axis.insert(random() % (axis.positions() + 1),
                            {axis.used().end() + 1, 1 + random() % 3});
        break;
      case 1:
        axis = *axis.insert(axis.positions(), {axis.used().end(), 1 + random() % 3});
        break;
      case 2:
        if (axis.extent() > 1) axis = *axis.hide({axis.physical(at), 1});
        break;
      default:
        if (axis.extent() > 1) axis = *axis.drop({axis.physical(at), 1});
    }
  }
  return axis;
}

TEST(OverlapTest, NoCommonElementIsMissedAndTheRangesAreFew) {
  std::mt19937_64 random(testing::seed());
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(testing::seed()));
  std::uint64_t met = 0;
  for (int turn = 0; turn < 3000; ++turn) {
    const std::size_t rank = 1 + random() % 4;
    PerAxis<Axis> older, newer;
    for (std::size_t a = 0; a < rank; ++a) {
      older.push_back(random_axis(random, 1 + random() % 7));
      newer.push_back(random() % 2 == 0 ? older.back() : changed(random, older.back()));
    }
    View shown = random_view(random, older);
    View poked = random_view(random, newer);
    if (random() % 2 == 0) std::swap(shown, poked);
    const Interval range = random_range(random, poked.element_count());
    const std::size_t most = 1 + random() % 20;
    const std::vector<Interval> ranges = overlap(shown, poked, range, most);
    ASSERT_LE(ranges.size(), most * (2 * poked.rank() - 1));
    std::vector<bool> found(shown.element_count(), false);
    for (const Interval& r : ranges) {
      ASSERT_LT(r.begin, r.end);
      ASSERT_LE(r.end, shown.element_count());
      for (std::uint64_t i = r.begin; i < r.end; ++i) found[i] = true;
    }
    bool is_any = false;
    for (std::uint64_t i = range.begin; i < range.end; ++i)
      if (const auto at = shown.index_of(poked.coordinates_of(i))) {
        ASSERT_TRUE(found[*at]) << "turn " << turn << ": element " << i << " is missed";
        is_any = true;
      }
    if (is_any) ++met;
  }
  EXPECT_GT(met, 500U);
}

TEST(OverlapTest, AxesWithoutGapsGiveExactlyTheCommonElements) {
  std::mt19937_64 random(testing::seed());
  for (int turn = 0; turn < 1000; ++turn) {
    const std::size_t rank = 1 + random() % 4;
    PerAxis<Axis> axes;
    for (std::size_t a = 0; a < rank; ++a)
      axes.push_back(
          *Axis().insert(0, {static_cast<std::int64_t>(random() % 9) - 4, 1 + random() % 6}));
    const View shown = random_view(random, axes);
    const View poked = random_view(random, axes);
    const Interval range = random_range(random, poked.element_count());
    std::vector<int> found(shown.element_count(), 0);
    for (const Interval& r : overlap(shown, poked, range, 1 << 20))
      for (std::uint64_t i = r.begin; i < r.end; ++i) ++found[i];
    std::vector<int> expected(shown.element_count(), 0);
    for (std::uint64_t i = range.begin; i < range.end; ++i)
      if (const auto at = shown.index_of(poked.coordinates_of(i))) ++expected[*at];
    ASSERT_EQ(found, expected) << "turn " << turn;
  }
}

TEST(CuboidsTest, TheyHoldExactlyTheseElementsOnce) {
  std::mt19937_64 random(testing::seed());
  for (int turn = 0; turn < 1500; ++turn) {
    const std::size_t rank = 1 + random() % 4;
    PerAxis<Axis> axes;
    for (std::size_t a = 0; a < rank; ++a) axes.push_back(random_axis(random, 1 + random() % 7));
    const View view = random_view(random, axes);
    const Interval range = random_range(random, view.element_count());
    // Scattered ones, all, or a corner of the view as the pad around a small frame is.
    const std::uint64_t kind = random() % 3;
    std::vector<bool> is_one(range.length());
    for (std::uint64_t i = 0; i < range.length(); ++i) {
      const Coords at = view.coordinates_of(range.begin + i);
      const std::size_t axis = view.dimension(0).axis;
      is_one[i] = kind == 0 ? random() % 3 != 0 : kind == 1 || at[axis] > 2;
    }
    const auto ones = static_cast<std::size_t>(std::count(is_one.begin(), is_one.end(), true));
    const auto cuboids = cuboids_of(
        view, range, [&](std::uint64_t i) { return is_one[i]; }, ones);
    std::vector<bool> covered(range.length(), false);
    for (const ElementCuboid& cuboid : cuboids) {
      Coords at = cuboid.origin;
      std::uint64_t count = 1;
      for (const std::uint64_t extent : cuboid.extent) count *= extent;
      for (std::uint64_t n = 0; n < count; ++n) {
        const auto i = view.index_of(at);
        ASSERT_TRUE(i && *i >= range.begin && *i < range.end) << "an element beside the range";
        ASSERT_FALSE(covered[*i - range.begin]) << "twice";
        covered[*i - range.begin] = true;
        for (std::size_t a = 0; a < rank; ++a) {
          if (++at[a] < cuboid.origin[a] + static_cast<std::int64_t>(cuboid.extent[a])) break;
          at[a] = cuboid.origin[a];
        }
      }
    }
    ASSERT_EQ(covered, is_one) << "turn " << turn;
  }
}

TEST(CuboidsTest, ABlockIsOneHoweverManyRowsItHas) {
  // The limit is one of cuboids; the rows that they are joined from may be more.
  PerAxis<Axis> axes;
  for (const std::uint64_t extent : {3U, 500U, 40U}) axes.push_back(*Axis().insert(0, {7, extent}));
  const View view = *View::whole(axes);
  const auto all = [](std::uint64_t) { return true; };
  const auto whole = cuboids_of(view, {0, view.element_count()}, all, 100);
  ASSERT_EQ(whole.size(), 1U);
  EXPECT_EQ(whole.front().extent, (Shape{3, 500, 40}));
  EXPECT_EQ(whole.front().origin, (Coords{7, 7, 7}));
  // The range of a write begins and ends anywhere.
  const auto part = cuboids_of(view, {1, view.element_count() - 1}, all, 100);
  std::uint64_t elements = 0;
  for (const ElementCuboid& cuboid : part) {
    std::uint64_t count = 1;
    for (const std::uint64_t extent : cuboid.extent) count *= extent;
    elements += count;
  }
  EXPECT_EQ(elements, view.element_count() - 2);
  EXPECT_LE(part.size(), 5U);
}

TEST(CuboidsTest, TooManyAreTold) {
  PerAxis<Axis> axes;
  for (const std::uint64_t extent : {64U, 64U}) axes.push_back(*Axis().insert(0, {0, extent}));
  const View view = *View::whole(axes);
  const auto scattered = [](std::uint64_t i) { return (i + i / 64) % 2 == 0; };
  EXPECT_GT(cuboids_of(view, {0, view.element_count()}, scattered, 100).size(), 100U);
  EXPECT_EQ(cuboids_of(view, {0, view.element_count()}, scattered, 2048).size(), 2048U);
}

}  // namespace
}  // namespace accrete
