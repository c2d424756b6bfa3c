#include "core/stillness.h"

#include <gtest/gtest.h>

#include <array>
#include <thread>
#include <vector>

namespace accrete {
namespace {

TEST(Stillness, GivesNoHoldWhileElementsChange) {
  const auto stillness = std::make_shared<Stillness>();
  {
    const Stillness::Change change(*stillness);
    EXPECT_FALSE(Stillness::try_hold(stillness));
  }
  const auto one = Stillness::try_hold(stillness);
  const auto another = Stillness::try_hold(stillness);
  EXPECT_TRUE(one && another);
}

TEST(Stillness, AChangeWaitsForHoldsAndLetsNoMoreBegin) {
  const auto stillness = std::make_shared<Stillness>();
  Stillness::Hold first = Stillness::try_hold(stillness);
  Stillness::Hold last = Stillness::try_hold(stillness);
  ASSERT_TRUE(first && last);
  std::atomic<bool> has_begun = false;
  std::thread changer([&] {
    const Stillness::Change change(*stillness);
    has_begun = true;
  });
  while (Stillness::try_hold(stillness)) std::this_thread::yield();
  first.reset();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(has_begun);
  last.reset();
  changer.join();
  EXPECT_TRUE(has_begun);
  EXPECT_TRUE(Stillness::try_hold(stillness));
}

// Bytes that are not atomic, so that the thread sanitizer watches them as well.
TEST(Stillness, WhoHoldsSeesNoChangeByHalves) {
  const auto stillness = std::make_shared<Stillness>();
  std::array<unsigned, 64> elements{};
  std::atomic<unsigned> copies = 0;
  std::atomic<bool> stop = false;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([&] {
      while (!stop) {
        const auto hold = Stillness::try_hold(stillness);
        if (!hold) continue;
        const std::array<unsigned, 64> copy = elements;
        for (const unsigned each : copy) EXPECT_EQ(each, copy[0]);
        ++copies;
      }
    });
  for (unsigned value = 1; value < 20000 || copies < 100; ++value) {
    const Stillness::Change change(*stillness);
    elements.fill(value);
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace accrete
