#include "core/write_behind.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <map>
#include <random>
#include <thread>

namespace accrete {
namespace {

constexpr std::size_t step = 64;

// What was written, and how.
struct Target {
  std::vector<std::byte> bytes = std::vector<std::byte>(4096);
  std::atomic<int> writes = 0;
  std::atomic<int> failures_left = 0;
  std::atomic<bool> is_writing = false, overlapped = false;
  std::atomic<std::size_t> longest = 0;
  bool is_slow = false;

  Status write(std::uint64_t offset, std::span<const std::byte> from) {
    if (is_writing.exchange(true)) overlapped = true;
    ++writes;
    if (is_slow) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    Status status;
    if (failures_left > 0) {
      --failures_left;
      status = fail(std::errc::no_space_on_device, "full");
    } else {
      longest = std::max<std::size_t>(longest, from.size());
      std::copy(from.begin(), from.end(), bytes.begin() + static_cast<std::ptrdiff_t>(offset));
    }
    is_writing = false;
    return status;
  }
  WriteBehind::Write function() {
    return [this](std::uint64_t offset, std::span<const std::byte> from) {
      return write(offset, from);
    };
  }
};

std::vector<std::byte> noise(std::size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

TEST(WriteBehind, CollectsWhatComesInOrder) {
  Target target;
  const std::vector<std::byte> all = noise(1000, 1);
  WriteBehind behind(step, target.function());
  for (std::size_t at = 0; at < all.size(); at += 7)
    ASSERT_TRUE(
        behind.put(at, std::span(all).subspan(at, std::min<std::size_t>(7, all.size() - at))).ok());
  ASSERT_TRUE(behind.flush().ok());
  EXPECT_TRUE(std::equal(all.begin(), all.end(), target.bytes.begin()));
  EXPECT_EQ(target.writes, 16);
  EXPECT_EQ(target.longest, step);
}

TEST(WriteBehind, TakesPiecesLongerThanAStep) {
  Target target;
  const std::vector<std::byte> all = noise(1000, 2);
  WriteBehind behind(step, target.function());
  ASSERT_TRUE(behind.put(0, all).ok());
  ASSERT_TRUE(behind.flush().ok());
  EXPECT_TRUE(std::equal(all.begin(), all.end(), target.bytes.begin()));
  ASSERT_TRUE(behind.flush().ok());
  EXPECT_EQ(target.writes, 16) << "nothing is written twice";
}

TEST(WriteBehind, LaterBytesWinAndWritesNeverOverlap) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    Target target;
    target.is_slow = seed % 8 == 0;
    std::mt19937 random(seed);
    std::vector<std::byte> expected(4096);
    std::uint64_t next = 0;
    {
      WriteBehind behind(step, target.function());
      for (int i = 0; i < 60; ++i) {
        const std::vector<std::byte> bytes = noise(random() % 150, seed * 1000 + i);
        std::uint64_t offset = random() % 4 == 0 ? random() % (4096 - 150) : next;
        if (offset + bytes.size() > 4096) offset = 0;
        next = offset + bytes.size();
        ASSERT_TRUE(behind.put(offset, bytes).ok());
        std::copy(bytes.begin(), bytes.end(),
                  expected.begin() + static_cast<std::ptrdiff_t>(offset));
        if (random() % 16 == 0) {
          ASSERT_TRUE(behind.flush().ok());
          ASSERT_EQ(target.bytes, expected) << "seed " << seed;
        }
      }
      ASSERT_TRUE(behind.flush().ok());
    }
    EXPECT_EQ(target.bytes, expected) << "seed " << seed;
    EXPECT_FALSE(target.overlapped);
  }
}

// As a caller does that makes room on the disk and tries again.
TEST(WriteBehind, LosesNothingByErrors) {
  for (unsigned seed = 0; seed < 300; ++seed) {
    Target target;
    std::mt19937 random(seed);
    std::vector<std::byte> expected(4096);
    std::uint64_t next = 0;
    WriteBehind behind(step, target.function());
    const auto insist = [&](const auto& call) {
      for (int tries = 0; tries < 50; ++tries)
        if (call().ok()) return true;
      return false;
    };
    int failed = 0;
    for (int i = 0; i < 60; ++i) {
      if (random() % 5 == 0) target.failures_left = static_cast<int>(random() % 3);
      failed += target.failures_left;
      const std::vector<std::byte> bytes = noise(random() % 150, seed * 1000 + i);
      std::uint64_t offset = random() % 6 == 0 ? random() % (4096 - 150) : next;
      if (offset + bytes.size() > 4096) offset = 0;
      next = offset + bytes.size();
      ASSERT_TRUE(insist([&] { return behind.put(offset, bytes); }));
      std::copy(bytes.begin(), bytes.end(), expected.begin() + static_cast<std::ptrdiff_t>(offset));
    }
    ASSERT_TRUE(insist([&] { return behind.flush(); }));
    EXPECT_EQ(target.bytes, expected) << "seed " << seed;
    EXPECT_GT(failed, 0);
  }
}

TEST(WriteBehind, TellsAnErrorAtTheFlushAtTheLatest) {
  Target target;
  const std::vector<std::byte> all = noise(step + 1, 3);
  WriteBehind behind(step, target.function());
  target.failures_left = 1;
  ASSERT_TRUE(behind.put(0, all).ok());
  const Status status = behind.flush();
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, std::errc::no_space_on_device);
  ASSERT_TRUE(behind.flush().ok());
  EXPECT_TRUE(std::equal(all.begin(), all.end(), target.bytes.begin()));
}

TEST(WriteBehind, WritesNothingAfterItsEnd) {
  Target target;
  target.is_slow = true;
  {
    WriteBehind behind(step, target.function());
    ASSERT_TRUE(behind.put(0, noise(3 * step, 4)).ok());
  }
  const int writes = target.writes;
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(target.writes, writes);
  EXPECT_LE(writes, 2);
}

}  // namespace
}  // namespace accrete
