#include "core/persistent_sequence.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <random>
#include <thread>

namespace accrete {
namespace {

struct Sum {
  std::uint64_t sum = 0;
  static Sum of(const int& value) { return {static_cast<std::uint64_t>(value)}; }
  friend Sum operator+(Sum a, Sum b) { return {a.sum + b.sum}; }
};
using Sequence = PersistentSequence<int, Sum>;

std::uint64_t seed() {
  const char* text = std::getenv("ACCRETE_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 20240601;
}

std::vector<int> contents(const Sequence& sequence) {
  std::vector<int> values;
  sequence.for_range(0, sequence.size(), [&](const int& value) { values.push_back(value); });
  return values;
}

double depth_bound(std::size_t size) {
  return 2.41 * std::log2(static_cast<double>(size) + 1) + 1;
}

std::uint64_t sum_of(const std::vector<int>& values, std::size_t count) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < count; ++i) sum += static_cast<std::uint64_t>(values[i]);
  return sum;
}

void expect_same(const Sequence& sequence, const std::vector<int>& model, std::mt19937_64& random) {
  ASSERT_EQ(sequence.size(), model.size());
  ASSERT_EQ(sequence.empty(), model.empty());
  ASSERT_EQ(contents(sequence), model);
  ASSERT_LE(static_cast<double>(sequence.depth()), depth_bound(model.size()));
  ASSERT_EQ(sequence.total().sum, sum_of(model, model.size()));
  const std::size_t begin = random() % (model.size() + 1);
  const std::size_t end = begin + random() % (model.size() + 1 - begin);
  ASSERT_EQ(sequence.prefix(begin).sum, sum_of(model, begin));
  std::vector<int> part;
  sequence.for_range(begin, end, [&](const int& value) { part.push_back(value); });
  ASSERT_EQ(part, std::vector<int>(model.begin() + static_cast<std::ptrdiff_t>(begin),
                                   model.begin() + static_cast<std::ptrdiff_t>(end)));
  const std::uint64_t target = sum_of(model, begin) + random() % 3;
  std::size_t expected = 0;
  while (expected < model.size() && sum_of(model, expected + 1) <= target) ++expected;
  ASSERT_EQ(sequence.find([&](Sum s) { return s.sum > target; }), expected);
  if (!model.empty()) {
    const std::size_t index = random() % model.size();
    ASSERT_EQ(sequence.at(index), model[index]);
    ASSERT_EQ(sequence.front(), model.front());
    ASSERT_EQ(sequence.back(), model.back());
  }
}

TEST(PersistentSequence, random_edits_equal_those_of_a_vector) {
  std::mt19937_64 random(seed());
  SCOPED_TRACE(seed());
  Sequence sequence;
  std::vector<int> model;
  const auto at = [&](std::size_t index) {
    return model.begin() + static_cast<std::ptrdiff_t>(index);
  };
  for (int step = 0; step < 6000; ++step) {
    const int value = static_cast<int>(random() % 5);
    const std::size_t index = random() % (model.size() + 1);
    switch (random() % 8) {
      case 0:
      case 1:
      case 2:
        sequence = sequence.insert(index, value);
        model.insert(at(index), value);
        break;
      case 3:
        sequence = sequence.push_back(value);
        model.push_back(value);
        break;
      case 4:
      case 5:
        if (index == model.size()) break;
        sequence = sequence.replace(index, value);
        model[index] = value;
        break;
      case 6:
        if (index == model.size()) break;
        sequence = sequence.erase(index);
        model.erase(at(index));
        break;
      case 7: {
        std::size_t end = index + random() % (model.size() + 1 - index);
        if (random() % 40 != 0) end = std::min<std::size_t>(end, index + 3);
        sequence = sequence.erase(index, end);
        model.erase(at(index), at(end));
        break;
      }
    }
    if (step % 16 == 0 || model.size() < 8) {
      ASSERT_NO_FATAL_FAILURE(expect_same(sequence, model, random)) << "step " << step;
    }
  }
}

TEST(PersistentSequence, older_versions_stay_as_they_were) {
  std::mt19937_64 random(seed());
  SCOPED_TRACE(seed());
  std::vector<Sequence> versions{Sequence()};
  std::vector<std::vector<int>> models{{}};
  for (int step = 0; step < 400; ++step) {
    const std::size_t from = random() % versions.size();
    std::vector<int> model = models[from];
    const std::size_t index = random() % (model.size() + 1);
    if (random() % 4 != 0 || index == model.size()) {
      model.insert(model.begin() + static_cast<std::ptrdiff_t>(index), step);
      versions.push_back(versions[from].insert(index, step));
    } else {
      model.erase(model.begin() + static_cast<std::ptrdiff_t>(index));
      versions.push_back(versions[from].erase(index));
    }
    models.push_back(model);
  }
  for (std::size_t i = 0; i < versions.size(); ++i) ASSERT_EQ(contents(versions[i]), models[i]);
}

TEST(PersistentSequence, stays_shallow_however_it_grows) {
  Sequence at_end, at_start, at_middle;
  for (int i = 0; i < 20000; ++i) {
    at_end = at_end.push_back(i);
    at_start = at_start.insert(0, i);
    at_middle = at_middle.insert(at_middle.size() / 2, i);
  }
  for (const Sequence* sequence : {&at_end, &at_start, &at_middle}) {
    EXPECT_EQ(sequence->size(), 20000u);
    EXPECT_LE(static_cast<double>(sequence->depth()), depth_bound(20000));
  }
  const Sequence lopsided = at_end.erase(10, 19000).erase(500, 990);
  EXPECT_LE(static_cast<double>(lopsided.depth()), depth_bound(lopsided.size()));
}

TEST(PersistentSequence, from_vector_holds_the_vector) {
  for (const std::size_t size : {0u, 1u, 2u, 3u, 7u, 1000u}) {
    std::vector<int> values;
    for (std::size_t i = 0; i < size; ++i) values.push_back(static_cast<int>(i));
    const Sequence sequence = Sequence::from_vector(values);
    EXPECT_EQ(contents(sequence), values);
    EXPECT_LE(static_cast<double>(sequence.depth()), std::log2(static_cast<double>(size) + 1) + 1);
  }
}

TEST(PersistentSequence, partition_point_equals_that_of_a_sorted_vector) {
  std::mt19937_64 random(seed());
  SCOPED_TRACE(seed());
  std::vector<int> values(300);
  for (int& value : values) value = static_cast<int>(random() % 100);
  std::sort(values.begin(), values.end());
  const Sequence sequence = Sequence::from_vector(values);
  for (int bound = -1; bound <= 101; ++bound)
    EXPECT_EQ(sequence.partition_point([&](int value) { return value < bound; }),
              static_cast<std::size_t>(std::lower_bound(values.begin(), values.end(), bound) -
                                       values.begin()));
}

struct Highest {
  int highest = -1;
  static Highest of(const int& value) { return {value}; }
  friend Highest operator+(Highest a, Highest b) { return {std::max(a.highest, b.highest)}; }
};

TEST(PersistentSequence, a_pruned_search_visits_all_that_may_hold_and_little_else) {
  std::vector<int> values(4096, 0);
  values[17] = values[18] = values[4000] = 9;
  const auto sequence = PersistentSequence<int, Highest>::from_vector(values);
  std::vector<std::size_t> found;
  int asked = 0;
  sequence.for_where([&](Highest h) { return ++asked, h.highest >= 9; },
                     [&](std::size_t index, const int& value) {
                       EXPECT_EQ(value, 9);
                       found.push_back(index);
                     });
  EXPECT_EQ(found, (std::vector<std::size_t>{17, 18, 4000}));
  EXPECT_LE(asked, 150);
}

TEST(PersistentSequence, copies_share_a_root_and_edits_do_not) {
  const Sequence sequence = Sequence::from_vector({1, 2, 3});
  const Sequence copy = sequence;
  EXPECT_TRUE(sequence.same_root(copy));
  EXPECT_FALSE(sequence.same_root(sequence.push_back(4)));
  EXPECT_TRUE(sequence.same_root(sequence.erase(1, 1)));
}

TEST(PersistentSequence, elements_die_with_the_last_version_that_holds_them) {
  const auto value = std::make_shared<int>(1);
  PersistentSequence<std::shared_ptr<int>> kept;
  {
    PersistentSequence<std::shared_ptr<int>> sequence;
    for (int i = 0; i < 100; ++i) sequence = sequence.push_back(value);
    kept = sequence.erase(1, 100);
    EXPECT_GT(value.use_count(), 100);
  }
  EXPECT_EQ(value.use_count(), 2);
  kept = {};
  EXPECT_EQ(value.use_count(), 1);
}

TEST(PersistentSequence, versions_are_shared_between_threads) {
  const auto value = std::make_shared<int>(1);
  {
    std::vector<std::shared_ptr<int>> values(1000, value);
    const auto shared = PersistentSequence<std::shared_ptr<int>>::from_vector(values);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([copy = shared]() mutable {
        for (int i = 0; i < 500; ++i) copy = copy.erase(copy.size() / 2).push_back(copy.front());
        EXPECT_EQ(copy.size(), 1000u);
      });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(shared.size(), 1000u);
  }
  EXPECT_EQ(value.use_count(), 1);
}

}  // namespace
}  // namespace accrete
