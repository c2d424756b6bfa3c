#include "core/axis.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <limits>
#include <optional>
#include <random>

namespace accrete {
namespace {

std::uint64_t seed() {
  const char* text = std::getenv("ACCRETE_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 20240602;
}

using Piece = Run;  // in the body of a TEST, Run is a member of testing::Test

struct Coordinate {
  std::int64_t at = 0;
  bool dormant = false;

  friend bool operator==(const Coordinate&, const Coordinate&) = default;
};
using Model = std::vector<Coordinate>;  // by position

std::vector<Axis::Piece> pieces_of(const Model& model, Interval positions) {
  std::vector<Axis::Piece> pieces;
  for (std::uint64_t i = positions.begin; i < positions.end; ++i) {
    const auto& [at, dormant] = model[i];
    if (!pieces.empty() && pieces.back().run.end() == at && pieces.back().dormant == dormant)
      ++pieces.back().run.length;
    else
      pieces.push_back({{at, 1}, dormant});
  }
  return pieces;
}

std::vector<std::int64_t> indexes_of(const Model& model) {
  std::vector<std::int64_t> indexes;
  for (const auto& [at, dormant] : model)
    if (!dormant) indexes.push_back(at);
  return indexes;
}

std::vector<Piece> runs_of(const std::vector<std::int64_t>& indexes, Interval range) {
  std::vector<Piece> runs;
  for (std::uint64_t i = range.begin; i < range.end; ++i) {
    if (!runs.empty() && runs.back().end() == indexes[i])
      ++runs.back().length;
    else
      runs.push_back({indexes[i], 1});
  }
  return runs;
}

Interval some_range(std::mt19937_64& random, std::uint64_t size) {
  const std::uint64_t begin = random() % (size + 1);
  return {begin, begin + random() % (size + 1 - begin)};
}

void expect_same(const Axis& axis, const Model& model, std::mt19937_64& random) {
  const std::vector<std::int64_t> indexes = indexes_of(model);
  ASSERT_EQ(axis.positions(), model.size());
  ASSERT_EQ(axis.extent(), indexes.size());
  ASSERT_EQ(axis.pieces(), pieces_of(model, {0, model.size()}));
  ASSERT_EQ(axis.run_count(), axis.pieces().size());
  ASSERT_EQ(axis.runs({0, indexes.size()}), runs_of(indexes, {0, indexes.size()}));
  std::uint64_t end = model.size();
  while (end > 0 && model[end - 1].dormant) --end;
  ASSERT_EQ(axis.end_position(), end);
  ASSERT_EQ(axis.position_of_index(indexes.size()), model.size());
  for (int i = 0; i < 4 && !indexes.empty(); ++i) {
    const std::uint64_t logical = random() % indexes.size();
    ASSERT_EQ(axis.physical(logical), indexes[logical]);
    ASSERT_EQ(axis.logical(indexes[logical]), logical);
    ASSERT_EQ(model[axis.position_of_index(logical)].at, indexes[logical]);
  }
  for (int i = 0; i < 4 && !model.empty(); ++i) {
    const std::uint64_t position = random() % model.size();
    ASSERT_EQ(axis.coordinate_at(position), model[position].at);
    ASSERT_EQ(axis.indexes_before(position),
              static_cast<std::uint64_t>(std::count_if(
                  model.begin(), model.begin() + static_cast<std::ptrdiff_t>(position),
                  [](const Coordinate& c) { return !c.dormant; })));
    ASSERT_EQ(axis.position_of(model[position].at), position);
    ASSERT_EQ(axis.logical(model[position].at).has_value(), !model[position].dormant);
    ASSERT_GE(model[position].at, axis.used().first);
    ASSERT_LT(model[position].at, axis.used().end());
  }
  for (int i = 0; i < 4; ++i) {
    const std::int64_t coordinate =
        axis.used().first - 2 + static_cast<std::int64_t>(random() % (axis.used().length + 5));
    const auto found = std::find_if(model.begin(), model.end(),
                                    [&](const Coordinate& c) { return c.at == coordinate; });
    if (found == model.end())
      ASSERT_EQ(axis.position_of(coordinate), std::nullopt);
    else
      ASSERT_EQ(axis.position_of(coordinate), static_cast<std::uint64_t>(found - model.begin()));
  }
  const Interval range = some_range(random, indexes.size());
  ASSERT_EQ(axis.runs(range), runs_of(indexes, range));
  std::uint64_t next = range.begin;
  axis.for_runs(range, [&](std::uint64_t logical, Piece run) {
    ASSERT_EQ(logical, next);
    next += run.length;
  });
  ASSERT_EQ(next, range.end);
  const Interval positions = some_range(random, model.size());
  ASSERT_EQ(axis.pieces(positions), pieces_of(model, positions));
}

// Edits an axis at random beside a model.
struct Pair {
  Axis axis;
  Model model;
  std::int64_t low = 0, high = 0;  // fresh coordinates lie outside

  std::vector<std::int64_t> indexes() const { return indexes_of(model); }

  void take(const Result<Axis>& edited) {
    ASSERT_TRUE(edited.ok()) << edited.error().sentence;
    axis = *edited;
  }
  void insert(std::uint64_t position, Piece run) {
    take(axis.insert(position, run));
    Model fresh;
    for (std::int64_t c = run.first; c < run.end(); ++c) fresh.push_back({c, false});
    model.insert(model.begin() + static_cast<std::ptrdiff_t>(position), fresh.begin(), fresh.end());
    low = std::min(low, run.first);
    high = std::max(high, run.end());
  }
  // The coordinates of the model that lie in `run`, taken out of it.
  Model cut(Piece run) {
    Model out;
    const auto inside = [&](const Coordinate& c) { return run.first <= c.at && c.at < run.end(); };
    std::copy_if(model.begin(), model.end(), std::back_inserter(out), inside);
    std::erase_if(model, inside);
    return out;
  }
  void drop(Piece run) {
    take(axis.drop(run));
    cut(run);
  }
  void move(Piece run, std::uint64_t position) {
    const Model out = cut(run);
    position %= model.size() + 1;
    take(axis.move(run, position));
    model.insert(model.begin() + static_cast<std::ptrdiff_t>(position), out.begin(), out.end());
  }
  void set_dormant(Piece run, bool dormant) {
    take(dormant ? axis.hide(run) : axis.show(run));
    for (Coordinate& c : model)
      if (run.first <= c.at && c.at < run.end()) c.dormant = dormant;
  }
  // Consecutive coordinates that the axis has, all in one state when `alike`.
  std::optional<Piece> some_coordinates(std::mt19937_64& random, bool alike) const {
    if (model.empty()) return std::nullopt;
    const Coordinate start = model[random() % model.size()];
    Piece run{start.at, 1};
    const auto goes_on = [&] {
      return std::any_of(model.begin(), model.end(), [&](const Coordinate& c) {
        return c.at == run.end() && (!alike || c.dormant == start.dormant);
      });
    };
    for (std::uint64_t most = 1 + random() % 12; run.length < most && goes_on();) ++run.length;
    return run;
  }
  void step(std::mt19937_64& random) {
    const std::uint64_t length = 1 + random() % 4;
    const std::uint64_t gap = random() % 3 == 0 ? random() % 3 : 0;
    const std::int64_t above = high + static_cast<std::int64_t>(gap);
    const std::int64_t below = low - static_cast<std::int64_t>(gap + length);
    const std::uint64_t at = random() % (model.size() + 1);
    switch (random() % 12) {
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
        const std::int64_t before = model[at].at - 1;
        if (!axis.position_of(before)) insert(at, {before, 1});
        return;
      }
      case 6:
      case 7:
      case 8: {
        const auto run = some_coordinates(random, true);
        if (run) set_dormant(*run, axis.logical(run->first).has_value());
        return;
      }
      case 9: {
        const auto run = some_coordinates(random, false);
        if (run) move(*run, random());
        return;
      }
      default: {
        if (const auto run = some_coordinates(random, false)) drop(*run);
        return;
      }
    }
  }
};

TEST(Axis, random_edits_equal_those_of_a_vector) {
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
  EXPECT_EQ(axis.used(), (Piece{-1000, 2000}));
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
    const Piece fresh{pair.high + 7, 3};
    const Axis grown = *pair.axis.insert(random() % (pair.axis.positions() + 1), fresh);
    ASSERT_EQ(grown.drop(fresh)->pieces(), pair.axis.pieces()) << "step " << step;
  }
}

TEST(Axis, what_was_hidden_comes_back_to_its_place_among_what_came_meanwhile) {
  const Piece runs[] = {{0, 10}};
  const Axis axis = *Axis::from_runs(runs);
  const Axis without = *axis.hide({4, 2});
  EXPECT_EQ(without.extent(), 8u);
  EXPECT_EQ(without.physical(4), 6);
  EXPECT_EQ(without.logical(5), std::nullopt);
  EXPECT_EQ(without.position_of_index(4), 6u);
  EXPECT_EQ(without.show({4, 2})->pieces(), axis.pieces());
  const Axis more = *without.insert(without.position_of_index(4), {20, 1});
  EXPECT_EQ(more.show({4, 2})->runs({0, 11}), (std::vector<Piece>{{0, 6}, {20, 1}, {6, 4}}));
}

TEST(Axis, a_move_takes_states_along) {
  const Piece runs[] = {{0, 6}};
  const Axis axis = *Axis::from_runs(runs)->hide({2, 1});
  const Axis moved = *axis.move({1, 3}, 0);
  EXPECT_EQ(
      moved.pieces(),
      (std::vector<Axis::Piece>{
          {{1, 1}, false}, {{2, 1}, true}, {{3, 1}, false}, {{0, 1}, false}, {{4, 2}, false}}));
}

// One drop that makes a piece merge with what follows and then cuts that piece as well.
TEST(Axis, a_drop_cuts_pieces_that_it_merged) {
  const Piece runs[] = {{10, 5}, {0, 2}, {15, 5}, {2, 8}};
  const Axis axis = *Axis::from_runs(runs);
  EXPECT_EQ(axis.drop({0, 12})->runs({0, 8}), (std::vector<Piece>{{12, 8}}));
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
  for (const Piece bad : {Piece{0, 6}, Piece{3, 0}, Piece{-1, 2}, Piece{most, huge}}) {
    EXPECT_FALSE(axis.hide(bad).ok());
    EXPECT_FALSE(axis.drop(bad).ok());
    EXPECT_FALSE(axis.move(bad, 0).ok());
  }
  EXPECT_FALSE(axis.show({0, 1}).ok());
  EXPECT_FALSE(axis.hide({0, 1})->hide({0, 2}).ok());
  EXPECT_FALSE(axis.move({0, 2}, 4).ok());
  const Piece widest[] = {{-coordinate_limit + 1, (std::uint64_t{1} << 63) - 1}};
  EXPECT_EQ(Axis::from_runs(widest)->used(), widest[0]);
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
  for (const Axis& other :
       {*with_gap.insert(0, {-1, 1}), *with_gap.insert(3, {20, 1}), *with_gap.drop({11, 1}),
        *with_gap.hide({0, 1}), *with_gap.move({0, 1}, 3)}) {
    EXPECT_NE(other.epoch(), with_gap.epoch());
    EXPECT_FALSE(with_gap.is_prefix_of(other));
    EXPECT_FALSE(other.is_prefix_of(with_gap));
  }
  // What has no index has no part in it; what comes back at the end is an append.
  const Axis shorter = *with_gap.hide({10, 2});
  EXPECT_EQ(shorter.drop({10, 1})->epoch(), shorter.epoch());
  EXPECT_EQ(shorter.show({10, 2})->epoch(), shorter.epoch());
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
      next.insert(next.axis.end_position(), {next.high, 1 + random() % 2});
    else
      next.step(random);
    versions.push_back(next);
  }
  int prefixes = 0;
  for (const Pair& a : versions) {
    for (const Pair& b : versions) {
      const auto mine = a.indexes();
      const auto theirs = b.indexes();
      if (a.axis.epoch() == b.axis.epoch() && mine.size() == theirs.size()) {
        ASSERT_EQ(mine, theirs);
      }
      if (!a.axis.is_prefix_of(b.axis)) continue;
      ++prefixes;
      ASSERT_LE(mine.size(), theirs.size());
      ASSERT_TRUE(std::equal(mine.begin(), mine.end(), theirs.begin()));
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
