#include "core/prefetch.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <numeric>
#include <thread>

#include "core/posix_file.h"
#include "tests/core/store_fixture.h"

namespace accrete {
namespace {

constexpr std::size_t page = 4096;

class PrefetchTest : public ::testing::Test {
 protected:
  // One brick, 64 layers of 64 × `rows` elements of four bytes: a page has 16 rows.
  void make_brick(std::uint64_t rows) {
    Box box;
    box.origin = {0, 0, 0};
    box.extent = box.brick = {64, rows, 64};
    box.layer_axis = 2;
    box.layer_pitch = 64 * rows * 4;
    box.slot_layers = 64;
    box.id = 1;
    box.written = 1;
    for (const std::uint64_t extent : box.extent) axes_.push_back(*Axis().insert(0, {0, extent}));
    boxes_ = *boxes_.put(box);
    bytes_ = box.byte_length();

    const auto directory = PosixFile::open(directory_.path(), O_RDONLY | O_DIRECTORY);
    const auto file = PosixFile::open_at(*directory, "bricks", O_RDWR | O_CREAT);
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(file->write(0, std::vector<std::byte>(bytes_, std::byte{7})).ok());
    ASSERT_TRUE(file->sync_data().ok());
    file->forget();
    mapping_ = *map_shared(*file, bytes_);
    if (!resident().empty()) GTEST_SKIP() << "files stay in memory here";
  }

  std::vector<std::size_t> resident() const {
    std::vector<unsigned char> pages(bytes_ / page);
    ::mincore(const_cast<std::byte*>(mapping_.get()), bytes_, pages.data());
    std::vector<std::size_t> found;
    for (std::size_t i = 0; i < pages.size(); ++i)
      if ((pages[i] & 1) != 0) found.push_back(i);
    return found;
  }
  // Reading goes on behind the call. The kernel may read in larger units than pages.
  void expect_read(const std::vector<std::size_t>& pages) const {
    const auto are_there = [&] {
      const std::vector<std::size_t> found = resident();
      return std::includes(found.begin(), found.end(), pages.begin(), pages.end());
    };
    for (int i = 0; i < 500 && !are_there(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_TRUE(are_there());
    EXPECT_LE(resident().size(), 2 * pages.size() + 16);
  }

  testing::TemporaryDirectory directory_;
  PerAxis<Axis> axes_;
  BoxIndex boxes_;
  std::uint64_t bytes_ = 0;
  std::shared_ptr<const std::byte> mapping_;
};

TEST_F(PrefetchTest, ALongRunIsReadAndLittleElse) {
  make_brick(128);
  const std::array<StreamRun, 3> runs = {
      StreamRun{0, 4096, 20 * page, false}, {4096, 4096, 0, true}, {8192, 100, 50 * page, false}};
  prefetch(mapping_.get(), runs, 4);
  expect_read({20, 21, 22, 23});
}

TEST_F(PrefetchTest, WhoGoesOnFindsWhatFollowsRead) {
  make_brick(128);
  const std::array<StreamRun, 1> first = {StreamRun{0, 2048, 20 * page, false}};
  prefetch(mapping_.get(), first, 4);
  expect_read({20, 21});
  const std::array<StreamRun, 1> second = {StreamRun{0, 2048, 22 * page, false}};
  prefetch(mapping_.get(), second, 4);
  std::vector<std::size_t> expected(2 + 2 * 32);
  std::iota(expected.begin(), expected.end(), 20);
  expect_read(expected);
}

TEST_F(PrefetchTest, ManyRunsAreAllReadUnlessThoseThatAreLookedAtAreThere) {
  make_brick(128);
  std::vector<StreamRun> runs;
  std::vector<std::size_t> expected;
  for (std::size_t i = 0; i < 100; ++i) {
    runs.push_back({i * 1024, 1024, (400 - 4 * i) * page, false});
    expected.push_back(400 - 4 * i);
  }
  std::reverse(expected.begin(), expected.end());
  prefetch(mapping_.get(), std::span(runs).first(3), 4);
  expect_read({392, 396, 400});
  prefetch(mapping_.get(), runs, 4);
  expect_read(expected);
}

TEST_F(PrefetchTest, ThePagesOfALineAcrossLayersAreReadAndFewOthers) {
  make_brick(128);
  const View line = *View::make(axes_, {{2, {0, 64}}}, {5, 20, 0});
  prefetch_scattered(mapping_.get(), line, boxes_, 4, {0, 64});
  std::vector<std::size_t> expected;
  for (std::size_t z = 0; z < 64; ++z) expected.push_back(8 * z + 1);  // rows 16 to 31
  expect_read(expected);
}

TEST_F(PrefetchTest, OfThinLayersAllIsReadInOnePiece) {
  make_brick(32);
  const View line = *View::make(axes_, {{2, {0, 64}}}, {5, 20, 0});
  prefetch_scattered(mapping_.get(), line, boxes_, 4, {0, 64});
  std::vector<std::size_t> expected(127);  // from the second page of the first layer
  std::iota(expected.begin(), expected.end(), 1);
  expect_read(expected);
}

TEST_F(PrefetchTest, WhatIsTakenForInMemoryIsLeftAlone) {
  make_brick(64);
  const View line = *View::make(axes_, {{2, {0, 64}}}, {5, 20, 0});
  prefetch_scattered(mapping_.get(), line, boxes_, 4, {0, 8});  // few elements
  const View block = *View::whole(axes_);
  prefetch_scattered(mapping_.get(), block, boxes_, 4, {0, 64 * 64 * 64});  // much of it
  EXPECT_EQ(resident().size(), 0U);
}

}  // namespace
}  // namespace accrete
