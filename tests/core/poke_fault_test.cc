// Changes in place that cannot be: a disk that is full or cannot be read, syncs that fail, too many
// patches. Each is an error, changes nothing and leaves no space behind.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "core/replacement.h"
#include "tests/core/poke_fixture.h"
#include "tests/support/sync_hook.h"

namespace accrete {
namespace {

namespace fs = std::filesystem;

using testing::Bytes;
using testing::frame_file;
using testing::mask_of;
using testing::random_elements;
using testing::read_range;
using testing::SyncHook;
using testing::TemporaryDirectory;

class PokeFaultTest : public ::testing::Test {
 protected:
  void SetUp() override { open(directory_.path() + "/store"); }

  void open(const std::string& path) {
    path_ = path;
    testing::reopen(path, store_, cube_);
  }

  Bytes add(DType type, const Shape& extent) {
    const Bytes elements =
        random_elements(random_, type, *checked_product({extent.begin(), extent.size()}));
    const auto id = testing::put(*cube_, "f" + std::to_string(names_++),
                                 frame_file(FormatId::npy, type, extent, elements));
    EXPECT_TRUE(id.ok()) << id.error().sentence;
    return elements;
  }

  View whole() const { return *View::whole(cube_->pin()->axes); }
  Bytes elements() const { return testing::read_all(*cube_, cube_->pin(), whole()); }
  Bytes mask() const { return mask_of(*cube_, cube_->pin(), whole()); }
  std::uint64_t bytes() const {
    return std::strtoull(cube_->property("bytes")->c_str(), nullptr, 10);
  }
  std::string bricks() const { return path_ + "/c/bricks"; }

  Result<RecentValues::Ticket> poke_all(const Bytes& elements) {
    const View view = whole();
    return testing::poke(*cube_, cube_->pin(), view, {0, view.element_count()}, elements);
  }
  Result<RecentValues::Ticket> replace_all(const Bytes& elements) {
    auto replacement = Replacement::begin(*cube_);
    if (!replacement.ok()) return replacement.error();
    ACCRETE_CHECK((*replacement)->write(0, elements));
    return testing::commit(**replacement, cube_->pin(), whole(), FormatId::raw);
  }

  // To three pages, when the journal is synced for a first poke: when all was read, and nothing is
  // stored yet.
  SyncHook cut_bricks_short() const {
    return SyncHook([bricks = bricks()](const std::string& file) {
      if (file.starts_with("journal.")) fs::resize_file(bricks, 3 * 4096);
      return 0;
    });
  }

  TemporaryDirectory directory_;
  std::string path_;
  std::unique_ptr<Store> store_;
  std::shared_ptr<Cube> cube_;
  std::mt19937_64 random_{testing::seed()};
  int names_ = 0;
};

TEST_F(PokeFaultTest, ElementsThatCannotBeReadAreAnError) {
  const Bytes before = add(DType::u8, {64, 64, 16});
  ASSERT_TRUE(store_->sync().ok());
  const Pinned pinned = cube_->pin();
  const View view = whole();
  const auto size = fs::file_size(bricks());
  fs::resize_file(bricks(), 4096);
  const Interval range{0, view.element_count()};
  Bytes target(range.length());
  const Status read = cube_->read(pinned, view, range, target.data(), native(DType::u8));
  ASSERT_FALSE(read.ok());
  EXPECT_EQ(read.error().code, std::errc::io_error);
  const Bytes now(range.length(), std::byte{7});
  for (const auto& poked : {poke_all(now), replace_all(now)}) {
    ASSERT_FALSE(poked.ok());
    EXPECT_EQ(poked.error().code, std::errc::io_error);
  }
  // What is still there is as it was, and can be written.
  EXPECT_EQ(read_range(*cube_, pinned, view, {0, 4096}),
            Bytes(before.begin(), before.begin() + 4096));
  const auto poked = testing::poke(*cube_, pinned, view, {5, 8}, Bytes(3, std::byte{9}));
  EXPECT_TRUE(poked.ok());
  fs::resize_file(bricks(), size);
  EXPECT_EQ(read_range(*cube_, pinned, view, {5, 8}), Bytes(3, std::byte{9}));
}

TEST_F(PokeFaultTest, ElementsThatCannotBeStoredAreAnErrorAndNoneIsChanged) {
  const Bytes before = add(DType::u16, {64, 64, 16});
  ASSERT_TRUE(store_->sync().ok());
  const Pinned pinned = cube_->pin();
  const View view = whole();
  const auto size = fs::file_size(bricks());
  for (const bool replaces : {false, true}) {
    {
      const SyncHook hook = cut_bricks_short();
      const Bytes now = random_elements(random_, DType::u16, view.element_count());
      ASSERT_FALSE((replaces ? replace_all(now) : poke_all(now)).ok());
    }
    EXPECT_EQ(read_range(*cube_, pinned, view, {0, 3 * 2048}),
              Bytes(before.begin(), before.begin() + 3 * 4096))
        << (replaces ? "replace" : "poke");
    fs::resize_file(bricks(), size);
  }
  // Nothing of it comes later, either.
  TemporaryDirectory copy;
  fs::copy(path_, copy.path(), fs::copy_options::recursive);
  open(copy.path());
  EXPECT_EQ(read_range(*cube_, cube_->pin(), whole(), {0, 3 * 2048}),
            Bytes(before.begin(), before.begin() + 3 * 4096));
}

// A program that has the elements mapped may have seen them while they were stored.
TEST_F(PokeFaultTest, APageFromWhileElementsWereStoredIsStaleWhenTheyAreTakenBack) {
  const Bytes before = add(DType::u8, {64, 64, 16});
  ASSERT_TRUE(store_->sync().ok());
  const Pinned pinned = cube_->pin();
  const View view = whole();
  const auto size = fs::file_size(bricks());
  const Interval page{0, 4096};
  Bytes shown(view.element_count());
  for (std::size_t i = 0; i < shown.size(); ++i) shown[i] = ~before[i];
  for (const bool replaces : {false, true}) {
    RecentValues::Ticket former;
    {
      const SyncHook hook = cut_bricks_short();
      if (replaces) {
        const auto replacement = Replacement::begin(*cube_);
        ASSERT_TRUE((*replacement)->write(0, shown).ok());
        ASSERT_FALSE((*replacement)->commit(pinned, view, format(FormatId::raw), former).ok());
      } else {
        testing::Overlay edit(pinned->definition.coding, shown);
        ASSERT_FALSE(cube_->poke(pinned, view, {0, shown.size()}, edit, PokeOrigin{}, former).ok());
      }
    }
    fs::resize_file(bricks(), size);
    ASSERT_NE(former, nullptr);
    Bytes brought(shown.begin(), shown.begin() + 4096);
    Bytes expected(before.begin(), before.begin() + 4096);
    brought[7] = expected[7] = before[7] ^ std::byte{1};
    ASSERT_TRUE(testing::poke(*cube_, pinned, view, page, brought, PokeOrigin{1}).ok());
    EXPECT_EQ(read_range(*cube_, pinned, view, page), expected) << (replaces ? "replace" : "poke");
    former.reset();
    ASSERT_TRUE(testing::poke(*cube_, pinned, view, {7, 8}, {before[7]}).ok());
    ASSERT_TRUE(store_->sync().ok());
  }
}

// Two frames of other extents leave pad.
class PokeIntoPadTest : public PokeFaultTest {
 protected:
  void SetUp() override {
    PokeFaultTest::SetUp();
    add(DType::u8, {1024, 1024});
    add(DType::u8, {1, 1});
    ASSERT_TRUE(store_->sync().ok());
  }
  PerAxis<ViewAxis> plane(std::size_t fastest) const {
    return {{fastest, {0, 1024}}, {1 - fastest, {0, 1024}}};
  }
};

TEST_F(PokeIntoPadTest, TooManyScatteredElementsAreRefusedAndTakeNoSpace) {
  const View view = *View::make(cube_->pin()->axes, plane(0), Shape{0, 0, 1});
  const std::uint64_t before = bytes();
  const auto size = fs::file_size(bricks());
  Bytes scattered(view.element_count(), std::byte{0});
  for (std::uint64_t i = 0; i < scattered.size(); ++i)
    if ((i + i / 1024) % 2 == 0) scattered[i] = std::byte{1};
  scattered[0] = std::byte{77};  // in the frame
  const Bytes old = elements();
  const auto poked =
      testing::poke(*cube_, cube_->pin(), view, {0, view.element_count()}, scattered);
  ASSERT_FALSE(poked.ok());
  EXPECT_EQ(poked.error().code, std::errc::no_space_on_device);
  EXPECT_EQ(elements(), old);
  EXPECT_EQ(bytes(), before);
  EXPECT_EQ(fs::file_size(bricks()), size);
  EXPECT_FALSE(cube_->has_patches(cube_->pin()));
}

TEST_F(PokeIntoPadTest, ABlockOfManyShortRowsIsTakenWhole) {
  add(DType::u8, {1, 1});
  const PerAxis<Axis> axes = cube_->pin()->axes;
  const View views[] = {*View::make(axes, {{2, {1, 3}}, {0, {0, 300}}, {1, {0, 1000}}}, Shape(3)),
                        *View::make(axes, plane(1), Shape{0, 0, 1}),
                        *View::make(axes, plane(0), Shape{0, 0, 2})};
  for (const View& view : views) {
    const Interval range{3, view.element_count() - 1};
    const Bytes now = random_elements(random_, DType::u8, range.length());
    const auto poked = testing::poke(*cube_, cube_->pin(), view, range, now);
    ASSERT_TRUE(poked.ok()) << poked.error().sentence;
    ASSERT_TRUE(read_range(*cube_, cube_->pin(), view, range) == now) << to_string(view.shape());
  }
}

TEST_F(PokeIntoPadTest, AFailedSyncOfAPatchFencesTheCube) {
  const View view = *View::make(cube_->pin()->axes, plane(0), Shape{0, 0, 1});
  const Bytes old = elements();
  const std::uint64_t before = bytes();
  {
    const SyncHook hook([](const std::string& file) { return file == "bricks" ? EIO : 0; });
    const auto poked = testing::poke(*cube_, cube_->pin(), view, {10, 20}, Bytes(10, std::byte{1}));
    ASSERT_FALSE(poked.ok());
    EXPECT_EQ(poked.error().code, std::errc::io_error);
  }
  EXPECT_TRUE(cube_->read_only()) << "what fsync reports once may be lost for ever";
  EXPECT_EQ(elements(), old);
  EXPECT_EQ(bytes(), before);
  const auto again = testing::poke(*cube_, cube_->pin(), view, {0, 1}, Bytes(1, std::byte{1}));
  ASSERT_FALSE(again.ok());
  EXPECT_EQ(again.error().code, std::errc::read_only_file_system);
}

TEST_F(PokeFaultTest, AFailedSyncOfAFirstPokeFencesTheCubeAndChangesNothing) {
  for (const char* failing : {"journal.", "bricks", "heap"}) {
    SCOPED_TRACE(failing);
    open(directory_.path() + "/" + failing);
    const Bytes before = add(DType::i16, {100, 10});
    {
      const SyncHook hook(
          [failing](const std::string& file) { return file.starts_with(failing) ? EIO : 0; });
      EXPECT_FALSE(poke_all(random_elements(random_, DType::i16, 1000)).ok());
    }
    EXPECT_TRUE(cube_->read_only());
    EXPECT_EQ(elements(), before);
    // The kernel has what was written all the same.
    open(path_);
    EXPECT_FALSE(cube_->read_only());
    EXPECT_EQ(elements(), before);
  }
}

// The elements have to be on disk before the record that counts on them, and both before any is
// stored.
TEST_F(PokeFaultTest, AReplacementIsOnDiskBeforeAnElementIsStored) {
  const Bytes before = add(DType::u8, {100, 100, 2});
  ASSERT_TRUE(store_->sync().ok());
  std::string order;
  {
    const SyncHook hook([&](const std::string& file) {
      EXPECT_EQ(elements(), before) << "stored before the sync of " << file;
      order += file.substr(0, file.find('.')) + " ";
      return 0;
    });
    ASSERT_TRUE(replace_all(random_elements(random_, DType::u8, before.size())).ok());
  }
  EXPECT_NE(order.find("heap"), std::string::npos) << order;
  EXPECT_NE(order.find("journal"), std::string::npos) << order;
}

TEST_F(PokeFaultTest, AReplacementLeavesNoSpaceBehind) {
  const Bytes first = add(DType::u8, {256, 256, 4});
  ASSERT_TRUE(store_->sync().ok());
  const auto blocks = [&] {
    std::uint64_t total = 0;
    for (const auto& entry : fs::directory_iterator(path_ + "/c")) {
      struct stat status {};
      EXPECT_EQ(::stat(entry.path().c_str(), &status), 0);
      total += static_cast<std::uint64_t>(status.st_blocks) * 512;
    }
    return total;
  };
  const std::uint64_t before = blocks();
  for (int n = 0; n < 20; ++n) {
    ASSERT_TRUE(replace_all(random_elements(random_, DType::u8, first.size())).ok());
    ASSERT_TRUE(store_->sync().ok());
  }
  EXPECT_LT(blocks(), before + first.size());
}

TEST_F(PokeFaultTest, AReplacementThatIsRefusedChangesNothing) {
  const Bytes before = add(DType::i16, {30, 20, 3});
  const auto npy = [&](DType type, const Shape& shape) {
    return frame_file(
        FormatId::npy, type, shape,
        random_elements(random_, type, *checked_product({shape.begin(), shape.size()})));
  };
  const std::string whole_file = npy(DType::i16, {30, 20, 3});
  const std::string files[] = {"",
                               "x",
                               npy(DType::i16, {20, 30, 3}),
                               npy(DType::i16, {30, 20, 2}),
                               npy(DType::i16, {1800}),
                               npy(DType::f64, {30, 20, 3}),
                               npy(DType::i32, {30, 20, 3}),
                               whole_file.substr(0, whole_file.size() - 1),
                               whole_file.substr(0, 40),
                               "SIMPLE  =                    T",
                               std::string(30 * 20 * 3 * 2 - 1, 'r'),
                               std::string(30 * 20 * 3 * 2 + 1, 'r')};
  for (const std::string& file : files) {
    const auto refused = replace_all(Bytes(as_bytes(file).begin(), as_bytes(file).end()));
    ASSERT_FALSE(refused.ok()) << file.size();
    EXPECT_EQ(refused.error().code, std::errc::invalid_argument) << refused.error().sentence;
    EXPECT_FALSE(refused.error().sentence.empty());
    EXPECT_EQ(elements(), before);
  }
  EXPECT_EQ(cube_->poked_ns(), 0);
}

TEST_F(PokeFaultTest, AReplacementOfAnotherTypeIsConverted) {
  const Bytes before = add(DType::i16, {4, 1});
  const auto file = [](std::vector<double> values) {
    return frame_file(FormatId::npy, DType::f64, {4, 1},
                      Bytes(reinterpret_cast<const std::byte*>(values.data()),
                            reinterpret_cast<const std::byte*>(values.data() + values.size())));
  };
  const auto values = [&] {
    const Bytes now = elements();
    std::vector<std::int16_t> found(4);
    std::memcpy(found.data(), now.data(), now.size());
    return found;
  };
  const auto replace = [&](const std::string& text) {
    return replace_all(Bytes(as_bytes(text).begin(), as_bytes(text).end()));
  };
  ASSERT_TRUE(replace(file({1, -2, 32767, 0})).ok());
  EXPECT_EQ(values(), (std::vector<std::int16_t>{1, -2, 32767, 0}));
  EXPECT_EQ(replace(file({5, 5.5, 5, 5})).error().code, std::errc::invalid_argument);
  EXPECT_EQ(replace(file({5, 5, 40000, 5})).error().code, std::errc::invalid_argument);
  EXPECT_EQ(values(), (std::vector<std::int16_t>{1, -2, 32767, 0}));
  ASSERT_TRUE(cube_->set_property("convert", "nearest").ok());
  ASSERT_TRUE(replace(file({5, 5.75, 40000, -1e9})).ok());
  EXPECT_EQ(values(), (std::vector<std::int16_t>{5, 6, 32767, -32768}));
}

// A tmpfs of some pages.
class FullDiskTest : public PokeFaultTest {
 protected:
  void SetUp() override {
    disk_ = directory_.path() + "/disk";
    fs::create_directory(disk_);
    if (::mount("tmpfs", disk_.c_str(), "tmpfs", 0, "size=8m") != 0)
      GTEST_SKIP() << "mounting a small tmpfs needs root";
    is_mounted_ = true;
    open(disk_ + "/store");
  }
  void TearDown() override {
    cube_.reset();
    store_.reset();
    if (is_mounted_) {
      EXPECT_EQ(::umount2(disk_.c_str(), MNT_DETACH), 0);
    }
  }
  void fill_up() {
    const int file = ::open((disk_ + "/full").c_str(), O_WRONLY | O_CREAT, 0600);
    ASSERT_GE(file, 0);
    const std::string page(4096, 'x');
    while (::write(file, page.data(), page.size()) > 0) {
    }
    ::close(file);
  }

  std::string disk_;
  bool is_mounted_ = false;
};

TEST_F(FullDiskTest, StoresIntoHolesAreAnErrorAndChangeNothing) {
  Bytes before = add(DType::u8, {64, 64, 16});
  // As a frame that is mostly a hole lies there.
  const int file = ::open(bricks().c_str(), O_RDWR);
  ASSERT_EQ(::fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8 * 4096, 8 * 4096), 0);
  ::close(file);
  std::fill(before.begin() + 8 * 4096, before.end(), std::byte{0});
  ASSERT_TRUE(store_->sync().ok());
  fill_up();
  const View view = whole();
  for (const bool replaces : {false, true}) {
    const Bytes now(view.element_count(), std::byte{7});
    ASSERT_FALSE((replaces ? replace_all(now) : poke_all(now)).ok());
    EXPECT_EQ(read_range(*cube_, cube_->pin(), view, {0, 8 * 4096}),
              Bytes(before.begin(), before.begin() + 8 * 4096));
  }
  fs::remove(disk_ + "/full");
  EXPECT_EQ(elements(), before);
  EXPECT_TRUE(poke_all(Bytes(view.element_count(), std::byte{7})).ok());
  EXPECT_EQ(elements(), Bytes(view.element_count(), std::byte{7}));
}

TEST_F(FullDiskTest, PatchesThatDoNotFitGiveTheirSpaceBack) {
  add(DType::u8, {1024, 1024});
  add(DType::u8, {1, 1});
  ASSERT_TRUE(store_->sync().ok());
  const View view =
      *View::make(cube_->pin()->axes, {{0, {0, 1024}}, {1, {0, 1024}}}, Shape{0, 0, 1});
  Bytes scattered(view.element_count(), std::byte{0});
  for (std::uint64_t i = 0; i < scattered.size(); i += 100) scattered[i] = std::byte{1};
  scattered[0] = std::byte{77};
  const Bytes old = elements();
  const Bytes old_mask = mask();
  const std::uint64_t before = bytes();
  const auto size = fs::file_size(bricks());
  const auto poked =
      testing::poke(*cube_, cube_->pin(), view, {0, view.element_count()}, scattered);
  ASSERT_FALSE(poked.ok());
  EXPECT_EQ(poked.error().code, std::errc::no_space_on_device);
  EXPECT_EQ(elements(), old);
  EXPECT_EQ(mask(), old_mask);
  EXPECT_EQ(bytes(), before);
  EXPECT_EQ(fs::file_size(bricks()), size);
  EXPECT_TRUE(testing::poke(*cube_, cube_->pin(), view, {1, 3}, Bytes(2, std::byte{5})).ok());
}

}  // namespace
}  // namespace accrete
