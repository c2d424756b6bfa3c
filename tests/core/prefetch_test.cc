#include "core/prefetch.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <thread>

#include "core/posix_file.h"
#include "tests/core/store_fixture.h"

namespace accrete {
namespace {

constexpr std::size_t page = 4096;

// 64 layers of 64 × 64 elements of four bytes: a layer has four pages.
class PrefetchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Box box;
    box.origin = {0, 0, 0};
    box.extent = {64, 64, 64};
    box.layer_axis = 2;
    box.slot_layers = 64;
    box.id = 1;
    box.written = 1;
    box = *lay_out(box, 4);
    for (int axis = 0; axis < 3; ++axis) axes_.push_back(*Axis().insert(0, {0, 64}));
    boxes_ = *boxes_.put(box);
    bytes_ = box.byte_length();
    ASSERT_EQ(box.layer_pitch, 4 * page);

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
  const std::array<StreamRun, 3> runs = {
      StreamRun{0, 4096, 20 * page, false}, {4096, 4096, 0, true}, {8192, 100, 50 * page, false}};
  prefetch(mapping_.get(), runs, 4);
  expect_read({20, 21, 22, 23});
}

TEST_F(PrefetchTest, ThePagesOfALineAcrossLayersAreReadAndFewOthers) {
  const View line = *View::make(axes_, {{2, {0, 64}}}, {5, 20, 0});
  prefetch_scattered(mapping_.get(), line, boxes_, 4, {0, 64});
  std::vector<std::size_t> expected;
  for (std::size_t z = 0; z < 64; ++z) expected.push_back(4 * z + 1);  // rows 16 to 31
  expect_read(expected);
}

TEST_F(PrefetchTest, WhatIsTakenForInMemoryIsLeftAlone) {
  const View line = *View::make(axes_, {{2, {0, 64}}}, {5, 20, 0});
  prefetch_scattered(mapping_.get(), line, boxes_, 4, {0, 8});  // few elements
  const View block = *View::whole(axes_);
  prefetch_scattered(mapping_.get(), block, boxes_, 4, {0, 64 * 64 * 64});  // much of it
  EXPECT_EQ(resident().size(), 0U);
}

}  // namespace
}  // namespace accrete
