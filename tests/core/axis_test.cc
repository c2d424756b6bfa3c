#include "core/axis.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <limits>
#include <random>

namespace accrete {
namespace {

std::uint64_t seed() {
  const char* text = std::getenv("ACCRETE_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 20240602;
}

using Piece = Run;                        // in the body of a TEST, Run is a member of testing::Test
using Model = std::vector<std::int64_t>;  // the coordinate of each index

std::vector<Piece> runs_of(const Model& model, Interval range) {
  std::vector<Piece> runs;
  for (std::uint64_t i = range.begin; i < range.end; ++i) {
    if (!runs.empty() && runs.back().end() == model[i])
      ++runs.back().length;
    else
      runs.push_back({model[i], 1});
  }
  return runs;
}

void expect_same(const Axis& axis, const Model& model, std::mt19937_64& random) {
  ASSERT_EQ(axis.extent(), model.size());
  const std::vector<Piece> runs = runs_of(model, {0, model.size()});
  ASSERT_EQ(axis.run_count(), runs.size());
  ASSERT_EQ(axis.runs({0, model.size()}), runs);
  if (model.empty()) {
    ASSERT_EQ(axis.hull(), Piece{});
    return;
  }
  const auto [low, high] = std::minmax_element(model.begin(), model.end());
  ASSERT_EQ(axis.hull(), (Piece{*low, static_cast<std::uint64_t>(*high - *low + 1)}));
  for (int i = 0; i < 4; ++i) {
    const std::uint64_t logical = random() % model.size();
    ASSERT_EQ(axis.physical(logical), model[logical]);
    ASSERT_EQ(axis.logical(model[logical]), logical);
  }
  for (int i = 0; i < 4; ++i) {
    const std::int64_t coordinate =
        *low - 2 +
        static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(*high - *low + 5));
    const auto found = std::find(model.begin(), model.end(), coordinate);
    if (found == model.end())
      ASSERT_EQ(axis.logical(coordinate), std::nullopt);
    else
      ASSERT_EQ(axis.logical(coordinate), static_cast<std::uint64_t>(found - model.begin()));
  }
  const std::uint64_t begin = random() % (model.size() + 1);
  const std::uint64_t end = begin + random() % (model.size() + 1 - begin);
  ASSERT_EQ(axis.runs({begin, end}), runs_of(model, {begin, end}));
  std::uint64_t next = begin;
  axis.for_runs({begin, end}, [&](std::uint64_t logical, Piece run) {
    ASSERT_EQ(logical, next);
    next += run.length;
  });
  ASSERT_EQ(next, end);
}

// Grows and shrinks an axis at random beside a model.
struct Pair {
  Axis axis;
  Model model;
  std::int64_t low = 0, high = 0;  // fresh coordinates lie outside

  void insert(std::uint64_t at, Piece run) {
    const Result<Axis> grown = axis.insert(at, run);
    ASSERT_TRUE(grown.ok()) << grown.error().sentence;
    axis = *grown;
    Model fresh;
    for (std::int64_t c = run.first; c < run.end(); ++c) fresh.push_back(c);
    model.insert(model.begin() + static_cast<std::ptrdiff_t>(at), fresh.begin(), fresh.end());
    low = std::min(low, run.first);
    high = std::max(high, run.end());
  }
  void erase(Interval range) {
    const Result<Axis> shrunk = axis.erase(range);
    ASSERT_TRUE(shrunk.ok()) << shrunk.error().sentence;
    axis = *shrunk;
    model.erase(model.begin() + static_cast<std::ptrdiff_t>(range.begin),
                model.begin() + static_cast<std::ptrdiff_t>(range.end));
  }
  void step(std::mt19937_64& random) {
    const std::uint64_t length = 1 + random() % 4;
    const std::uint64_t gap = random() % 3 == 0 ? random() % 3 : 0;
    const std::int64_t above = high + static_cast<std::int64_t>(gap);
    const std::int64_t below = low - static_cast<std::int64_t>(gap + length);
    const std::uint64_t at = random() % (model.size() + 1);
    switch (random() % 8) {
      case 0:
      case 1:
        return insert(model.size(), {above, length});
      case 2:
        return insert(0, {below, length});
      case 3:
      case 4:
        return insert(at, {random() % 2 == 0 ? above : below, length});
      case 5: {  // a free coordinate below an existing one, so that merges on both sides occur
        if (at == model.size()) return;
        const std::int64_t before = model[at] - 1;
        if (!axis.logical(before)) insert(at, {before, 1});
        return;
      }
      default: {
        const std::uint64_t most = random() % 30 == 0 ? model.size() - at : 4;
        const std::uint64_t end = std::min<std::uint64_t>(at + random() % (most + 1), model.size());
        return erase({at, end});
      }
    }
  }
};

TEST(Axis, random_growth_and_removal_equal_those_of_a_vector) {
  SCOPED_TRACE(seed());
  std::mt19937_64 random(seed());
  for (int round = 0; round < 20; ++round) {
    Pair pair;
    for (int step = 0; step < 250; ++step) {
      ASSERT_NO_FATAL_FAILURE(pair.step(random)) << "round " << round << ", step " << step;
      ASSERT_NO_FATAL_FAILURE(expect_same(pair.axis, pair.model, random))
          << "round " << round << ", step " << step;
    }
  }
}

TEST(Axis, serial_appends_and_prepends_are_one_run) {
  Axis axis;
  for (std::int64_t i = 0; i < 1000; ++i) {
    axis = *axis.insert(axis.extent(), {i, 1});
    axis = *axis.insert(0, {-1 - i, 1});
  }
  EXPECT_EQ(axis.run_count(), 1u);
  EXPECT_EQ(axis.hull(), (Piece{-1000, 2000}));
}

TEST(Axis, an_inserted_run_may_join_both_neighbours) {
  const Piece runs[] = {{0, 3}, {5, 2}};
  const Axis axis = *Axis::from_runs(runs);
  EXPECT_EQ(axis.run_count(), 2u);
  const Axis joined = *axis.insert(3, {3, 2});
  EXPECT_EQ(joined.runs({0, 7}), (std::vector<Piece>{{0, 7}}));
}

TEST(Axis, removing_what_was_inserted_restores_the_runs) {
  SCOPED_TRACE(seed());
  std::mt19937_64 random(seed());
  Pair pair;
  for (int step = 0; step < 300; ++step) {
    ASSERT_NO_FATAL_FAILURE(pair.step(random));
    const std::uint64_t extent = pair.axis.extent();
    const std::uint64_t at = random() % (extent + 1);
    const Axis grown = *pair.axis.insert(at, {pair.high + 7, 3});
    const Axis restored = *grown.erase({at, at + 3});
    ASSERT_EQ(restored.runs({0, extent}), pair.axis.runs({0, extent})) << "step " << step;
  }
}

TEST(Axis, what_was_removed_can_be_put_back) {
  const Piece runs[] = {{0, 10}};
  const Axis axis = *Axis::from_runs(runs);
  const Axis without = *axis.erase({4, 6});
  EXPECT_EQ(without.run_count(), 2u);
  EXPECT_EQ(without.physical(4), 6);
  const Axis again = *without.insert(4, {4, 2});
  EXPECT_EQ(again.runs({0, 10}), (std::vector<Piece>{{0, 10}}));
}

TEST(Axis, coordinates_in_use_are_refused) {
  const Piece runs[] = {{10, 5}, {0, 5}, {100, 1}};
  const Axis axis = *Axis::from_runs(runs);
  for (const Piece taken :
       {Piece{4, 1}, Piece{14, 10}, Piece{-5, 6}, Piece{-50, 500}, Piece{100, 1}, Piece{9, 2}})
    EXPECT_FALSE(axis.insert(3, taken).ok()) << taken.first;
  for (const Piece free : {Piece{5, 5}, Piece{15, 85}, Piece{-5, 5}, Piece{101, 1000}})
    EXPECT_TRUE(axis.insert(3, free).ok()) << free.first;
}

TEST(Axis, hostile_runs_and_places_are_refused) {
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  constexpr std::int64_t least = std::numeric_limits<std::int64_t>::min();
  constexpr std::uint64_t huge = std::numeric_limits<std::uint64_t>::max();
  const Piece runs[] = {{0, 5}};
  const Axis axis = *Axis::from_runs(runs);
  for (const Piece bad : {Piece{5, 0}, Piece{most, 1}, Piece{least, 1}, Piece{5, huge},
                          Piece{most - 3, huge}, Piece{least, huge}, Piece{coordinate_limit - 1, 2},
                          Piece{-coordinate_limit, 1}, Piece{coordinate_limit, 1}}) {
    EXPECT_FALSE(axis.insert(5, bad).ok()) << bad.first;
    EXPECT_FALSE(Axis::from_runs({&bad, 1}).ok()) << bad.first;
  }
  EXPECT_FALSE(axis.insert(6, {5, 1}).ok());
  EXPECT_FALSE(axis.insert(huge, {5, 1}).ok());
  EXPECT_FALSE(axis.erase({0, 6}).ok());
  EXPECT_FALSE(axis.erase({3, 2}).ok());
  EXPECT_FALSE(axis.erase({huge, huge}).ok());
  const Piece widest[] = {{-coordinate_limit + 1, (std::uint64_t{1} << 63) - 1}};
  EXPECT_EQ(Axis::from_runs(widest)->hull(), widest[0]);
}

TEST(Axis, from_runs_merges_and_refuses_overlaps) {
  const Piece adjacent[] = {{0, 3}, {3, 4}, {-2, 2}};
  EXPECT_EQ(Axis::from_runs(adjacent)->runs({0, 9}), (std::vector<Piece>{{0, 7}, {-2, 2}}));
  const Piece overlapping[] = {{0, 3}, {10, 2}, {2, 1}};
  EXPECT_FALSE(Axis::from_runs(overlapping).ok());
  EXPECT_EQ(Axis::from_runs({})->extent(), 0u);
}

TEST(Axis, appends_keep_the_epoch_and_all_other_changes_make_one) {
  const Axis first = *Axis().insert(0, {0, 4});
  const Axis appended = *first.insert(4, {4, 2});
  const Axis with_gap = *appended.insert(6, {10, 2});
  EXPECT_EQ(first.epoch(), with_gap.epoch());
  EXPECT_TRUE(first.is_prefix_of(first));
  EXPECT_TRUE(first.is_prefix_of(with_gap));
  EXPECT_FALSE(with_gap.is_prefix_of(first));
  EXPECT_TRUE(Axis().is_prefix_of(first));
  EXPECT_FALSE(first.is_prefix_of(Axis()));
  for (const Axis& other : {*with_gap.insert(0, {-1, 1}), *with_gap.insert(3, {20, 1}),
                            *with_gap.erase({7, 8}), *with_gap.erase({0, 1})}) {
    EXPECT_NE(other.epoch(), with_gap.epoch());
    EXPECT_FALSE(with_gap.is_prefix_of(other));
    EXPECT_FALSE(other.is_prefix_of(with_gap));
  }
  EXPECT_EQ(with_gap.erase({2, 2})->epoch(), with_gap.epoch());
}

TEST(Axis, of_two_appends_to_one_version_neither_is_a_prefix_of_the_other) {
  const Axis base = *Axis().insert(0, {0, 4});
  const Axis left = *base.insert(4, {4, 1});
  const Axis right = *base.insert(4, {100, 5});
  EXPECT_TRUE(base.is_prefix_of(left));
  EXPECT_FALSE(left.is_prefix_of(right));
  EXPECT_FALSE(right.is_prefix_of(left));
  EXPECT_NE(left.epoch(), right.epoch());
  EXPECT_TRUE(left.is_prefix_of(*left.insert(5, {5, 1})));
  EXPECT_TRUE(right.is_prefix_of(*right.insert(9, {5, 1})));
}

// Whatever is_prefix_of claims of any two versions in a random history is so.
TEST(Axis, prefixes_are_prefixes) {
  SCOPED_TRACE(seed());
  std::mt19937_64 random(seed());
  std::vector<Pair> versions(1);
  for (int step = 0; step < 150; ++step) {
    Pair next = versions[random() % 4 == 0 ? random() % versions.size() : versions.size() - 1];
    if (random() % 3 != 0)
      next.insert(next.model.size(), {next.high, 1 + random() % 2});
    else
      next.step(random);
    versions.push_back(next);
  }
  int prefixes = 0;
  for (const Pair& a : versions) {
    for (const Pair& b : versions) {
      if (a.axis.epoch() == b.axis.epoch() && a.model.size() == b.model.size()) {
        ASSERT_EQ(a.model, b.model);
      }
      if (!a.axis.is_prefix_of(b.axis)) continue;
      ++prefixes;
      ASSERT_LE(a.model.size(), b.model.size());
      ASSERT_TRUE(std::equal(a.model.begin(), a.model.end(), b.model.begin()));
    }
  }
  EXPECT_GT(prefixes, 200);
}

TEST(Axis, many_runs_are_searched_quickly) {
  std::vector<Piece> runs;
  for (std::int64_t i = 0; i < 100000; ++i) runs.push_back({3 * i, 2});
  const Axis axis = *Axis::from_runs(runs);
  for (std::uint64_t i = 0; i < 200000; i += 7) ASSERT_EQ(axis.logical(axis.physical(i)), i);
}

}  // namespace
}  // namespace accrete
