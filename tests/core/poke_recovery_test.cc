// Changes in place against the death of the daemon and the loss of power: the store's directory is
// copied while it is open, damaged as a loss of power may, and opened again.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "core/journal.h"
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
using testing::random_range;
using testing::random_view;
using testing::SyncHook;
using testing::TemporaryDirectory;

constexpr DType type = DType::i16;

// A store and its cube, open.
struct Mounted {
  std::unique_ptr<Store> store;
  std::shared_ptr<Cube> cube;

  ~Mounted() { cube.reset(); }
};

std::unique_ptr<Mounted> mount(const std::string& path) {
  auto mounted = std::make_unique<Mounted>();
  testing::reopen(path, mounted->store, mounted->cube);
  if (mounted->cube == nullptr) return nullptr;
  return mounted;
}

// All that a user sees of the elements.
struct Seen {
  std::string shape;
  Bytes elements;
  Bytes mask;
  std::vector<std::pair<std::string, Bytes>> removed;  // frames, by name

  friend bool operator==(const Seen&, const Seen&) = default;
};

Seen look(const Cube& cube) {
  const Pinned pinned = cube.pin();
  Seen seen;
  seen.shape = to_string(pinned->shape());
  if (!pinned->definition.defined) return seen;
  for (const FrameId id : pinned->frames_in_order(true)) {
    const FrameRow row = *pinned->frames.find(id);
    const auto shown = cube.show_removed(pinned, row);
    seen.removed.emplace_back(cube.frame_name(row),
                              testing::read_all(cube, *shown, *cube.frame_view(row)));
  }
  const auto view = View::whole(pinned->axes);
  if (!view.ok()) return seen;
  seen.elements = testing::read_all(cube, pinned, *view);
  seen.mask = mask_of(cube, pinned, *view);
  return seen;
}

class PokeRecoveryTest : public ::testing::Test {
 protected:
  void SetUp() override { open(); }

  void open() {
    mounted_.reset();
    mounted_ = mount(directory_.path());
    ASSERT_NE(mounted_, nullptr);
  }
  Cube& cube() { return *mounted_->cube; }
  void sync() { ASSERT_TRUE(mounted_->store->sync().ok()); }

  std::string add(const Shape& extent, IngestRequest request = {}) {
    const std::string name = "f" + std::to_string(names_++);
    const auto id = testing::put(
        cube(), name,
        frame_file(
            FormatId::fits, type, extent,
            random_elements(random_, type, *checked_product({extent.begin(), extent.size()}))),
        request);
    EXPECT_TRUE(id.ok()) << id.error().sentence;
    return name;
  }
  View whole() { return *View::whole(cube().pin()->axes); }
  Bytes some(std::uint64_t count) { return random_elements(random_, type, count); }

  void poke(const View& view, Interval range) {
    const auto poked = testing::poke(cube(), cube().pin(), view, range, some(range.length()));
    ASSERT_TRUE(poked.ok()) << poked.error().sentence;
  }
  void replace(const Pinned& pinned, const View& view) {
    auto replacement = Replacement::begin(cube());
    ASSERT_TRUE(replacement.ok());
    ASSERT_TRUE((*replacement)->write(0, some(view.element_count())).ok());
    const auto poked = testing::commit(**replacement, pinned, view, FormatId::raw);
    ASSERT_TRUE(poked.ok()) << poked.error().sentence;
  }
  void replace() { replace(cube().pin(), whole()); }

  std::unique_ptr<TemporaryDirectory> image() const {
    auto copy = std::make_unique<TemporaryDirectory>();
    fs::copy(directory_.path(), copy->path(), fs::copy_options::recursive);
    return copy;
  }
  std::uintmax_t journal_size() const {
    return fs::file_size(directory_.path() + "/c/" + journal_);
  }
  static constexpr const char* journal_ = "journal.000001";

  // Opened, it must be as seen; and as well when it is opened once more.
  static void expect(const std::string& path, const Seen& seen) {
    for (int n = 0; n < 2; ++n) {
      const auto copy = mount(path);
      ASSERT_NE(copy, nullptr);
      EXPECT_FALSE(copy->cube->read_only()) << copy->cube->last_error();
      const Seen now = look(*copy->cube);
      ASSERT_EQ(now.shape, seen.shape);
      ASSERT_TRUE(now.elements == seen.elements) << "other elements";
      ASSERT_TRUE(now.mask == seen.mask) << "another mask";
      ASSERT_TRUE(now.removed == seen.removed) << "other elements of removed frames";
    }
  }

  TemporaryDirectory directory_;
  std::unique_ptr<Mounted> mounted_;
  std::mt19937_64 random_{testing::seed()};
  int names_ = 0;
};

TEST_F(PokeRecoveryTest, ADeathOfTheDaemonLosesNothingThatWasAnswered) {
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(testing::seed()));
  std::vector<std::string> live, removed;
  std::optional<Pinned> older;
  for (int n = 0; n < 250 && !HasFailure(); ++n) {
    SCOPED_TRACE("step " + std::to_string(n));
    const bool is_empty = live.empty();
    const std::uint64_t dice = is_empty ? 0 : random_() % 20;
    if (dice < 4) {
      if (is_empty && !removed.empty()) {
        ASSERT_TRUE(cube().restore_frame(removed.back(), removed.back()).ok());
        live.push_back(removed.back());
        removed.pop_back();
      } else {
        IngestRequest request;
        request.side = static_cast<Side>(random_() % 2);
        live.push_back(add({random_() % 4 == 0 ? 1 + random_() % 60 : 40,
                            random_() % 4 == 0 ? 1 + random_() % 40 : 30},
                           request));
      }
    } else if (dice < 5 && live.size() > 1) {
      removed.push_back(live[random_() % live.size()]);
      std::erase(live, removed.back());
      ASSERT_TRUE(cube().remove_frame(removed.back(), removed.back()).ok());
    } else if (dice < 6 && !removed.empty()) {
      ASSERT_TRUE(cube().restore_frame(removed.front(), removed.front()).ok());
      live.push_back(removed.front());
      removed.erase(removed.begin());
    } else if (dice < 7 && !removed.empty()) {
      ASSERT_TRUE(cube().discard_frame(removed.front()).ok());
      removed.erase(removed.begin());
    } else if (dice < 8) {
      sync();
    } else if (dice < 9) {
      older = cube().pin();
    } else if (dice < 11) {
      replace(cube().pin(), random_view(random_, cube().pin()->axes));
    } else if (dice < 12 && random_() % 4 == 0) {
      older.reset();
      open();
    } else {
      const View view = random_view(random_, cube().pin()->axes);
      poke(view, random_range(random_, view.element_count()));
    }
    if (HasFatalFailure()) return;
    if (random_() % 3 == 0) expect(image()->path(), look(cube()));
  }
}

TEST_F(PokeRecoveryTest, AFirstPokeSyncsWhatCameBeforeAndLaterOnesDoNot) {
  add({40, 30});
  int syncs = 0;
  const SyncHook hook([&](const std::string&) {
    ++syncs;
    return 0;
  });
  poke(whole(), {0, 10});
  EXPECT_GT(syncs, 0);
  syncs = 0;
  poke(whole(), {5, 900});
  EXPECT_EQ(syncs, 0);
  add({40, 30});
  poke(whole(), {0, 900});  // the frame that was poked before
  EXPECT_EQ(syncs, 0) << "that a slot is poked was forgotten";
  poke(whole(), {1200, 1201});
  EXPECT_GT(syncs, 0);
}

TEST_F(PokeRecoveryTest, APokedSlotStaysKnownAsSuch) {
  add({40, 30});
  poke(whole(), {0, 10});
  const auto poked = [&] {
    std::uint64_t slots = 0;
    cube().pin()->boxes.for_all([&](const Box& box) {
      for (std::uint64_t s = 0; s < 64; ++s) slots += box.poked >> s & 1;
    });
    return slots;
  };
  EXPECT_EQ(poked(), 1U);
  for (int n = 0; n < 6; ++n) {
    add({40, 30});
    poke(whole(), {whole().element_count() - 3, whole().element_count()});
    EXPECT_EQ(poked(), static_cast<std::uint64_t>(n) + 2);
  }
  open();
  EXPECT_EQ(poked(), 7U);
  add({40, 30});
  EXPECT_EQ(poked(), 7U);
}

// What lies there at each sync within a call is what a death at that moment leaves.
TEST_F(PokeRecoveryTest, AReplacementIsWholeOrNotAtAllWheneverTheDaemonDies) {
  add({40, 30});
  add({20, 30});
  poke(whole(), {0, 2400});
  for (const bool is_synced : {false, true}) {
    if (is_synced) sync();
    const Seen before = look(cube());
    std::vector<std::unique_ptr<TemporaryDirectory>> images;
    {
      const SyncHook hook([&](const std::string&) {
        images.push_back(image());
        return 0;
      });
      replace();
      images.push_back(image());
    }
    const Seen after = look(cube());
    ASSERT_FALSE(after == before);
    for (std::size_t i = 0; i < images.size(); ++i) {
      SCOPED_TRACE("image " + std::to_string(i) + " of " + std::to_string(images.size()));
      const auto copy = mount(images[i]->path());
      ASSERT_NE(copy, nullptr);
      EXPECT_FALSE(copy->cube->read_only());
      const Seen seen = look(*copy->cube);
      // From the record on it is whole; the mask may have come before the elements.
      EXPECT_TRUE(seen == after || seen.elements == before.elements);
      if (i + 1 == images.size()) {
        EXPECT_TRUE(seen == after);
      }
    }
  }
}

// The elements as they were lie in the brick file again, as if the daemon had died before it stored
// any, or half of them.
TEST_F(PokeRecoveryTest, AReplacementThatNoMarkCoversIsStoredAgain) {
  add({40, 30});
  add({20, 10});
  sync();
  const auto before = image();
  replace();
  const Seen after = look(cube());
  for (const double part : {0.0, 0.3, 1.0}) {
    const auto copy = image();
    std::fstream bricks(copy->path() + "/c/bricks",
                        std::ios::in | std::ios::out | std::ios::binary);
    std::ifstream old(before->path() + "/c/bricks", std::ios::binary);
    std::string bytes((std::istreambuf_iterator<char>(old)), std::istreambuf_iterator<char>());
    bytes.resize(static_cast<std::size_t>(part * static_cast<double>(bytes.size())));
    bricks.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    bricks.close();
    expect(copy->path(), after);
  }
}

TEST_F(PokeRecoveryTest, AReplacementIsNotStoredAgainOverNewerPokes) {
  add({40, 30});
  add({20, 10});
  replace();
  poke(whole(), {3, 777});  // syncs first
  poke(whole(), {5, 9});
  expect(image()->path(), look(cube()));
  replace();
  sync();
  poke(whole(), {700, 2399});
  expect(image()->path(), look(cube()));
  replace();
  replace();
  expect(image()->path(), look(cube()));
}

// A recovery may be cut short, too.
TEST_F(PokeRecoveryTest, ADeathDuringRecoveryLosesNothing) {
  add({40, 30});
  add({20, 10});
  sync();
  replace();
  ASSERT_TRUE(cube().remove_frame("f1", "f1").ok());  // leaves nothing in the heap but its name
  const Seen after = look(cube());
  const auto copy = image();
  std::vector<std::unique_ptr<TemporaryDirectory>> images;
  {
    const SyncHook hook([&](const std::string&) {
      images.push_back(std::make_unique<TemporaryDirectory>());
      fs::copy(copy->path(), images.back()->path(), fs::copy_options::recursive);
      return 0;
    });
    ASSERT_NE(mount(copy->path()), nullptr);
  }
  ASSERT_FALSE(images.empty());
  for (std::size_t i = 0; i < images.size(); ++i) {
    SCOPED_TRACE("image " + std::to_string(i) + " of " + std::to_string(images.size()));
    expect(images[i]->path(), after);
  }
}

TEST_F(PokeRecoveryTest, ARecordWhoseElementsAreNotWholeEndsTheHistory) {
  add({40, 30});
  add({20, 10});
  sync();
  const Seen before = look(cube());
  const auto heap = [](const TemporaryDirectory& store) { return store.path() + "/c/heap"; };
  const std::uintmax_t heap_before = fs::file_size(directory_.path() + "/c/heap");
  std::unique_ptr<TemporaryDirectory> recorded;  // before any element was stored
  {
    const SyncHook hook([&](const std::string& file) {
      if (file.starts_with("journal.")) recorded = image();
      return 0;
    });
    replace();
  }
  ASSERT_NE(recorded, nullptr);
  const std::uintmax_t heap_after = fs::file_size(heap(*recorded));
  ASSERT_GE(heap_after, heap_before + 4800);
  for (int turn = 0; turn < 8; ++turn) {
    const TemporaryDirectory copy;
    fs::copy(recorded->path(), copy.path(), fs::copy_options::recursive);
    if (turn < 4) {
      fs::resize_file(heap(copy), heap_after - 1 - random_() % 4800);
    } else {
      std::fstream file(heap(copy), std::ios::in | std::ios::out | std::ios::binary);
      const auto at = static_cast<std::streamoff>(heap_after - 1 - random_() % 4800);
      file.seekg(at);
      const auto old = static_cast<char>(file.get());
      file.seekp(at);
      file.put(static_cast<char>(old ^ 0x10));
    }
    expect(copy.path(), before);
  }
}

TEST_F(PokeRecoveryTest, BricksThatEndEarlyAreAnErrorAndNoDeath) {
  add({40, 30});
  add({20, 10});
  poke(whole(), {0, 2400});
  sync();
  replace();
  for (const unsigned quarter : {0U, 1U, 2U, 3U}) {
    const auto copy = image();
    const std::string bricks = copy->path() + "/c/bricks";
    fs::resize_file(bricks, fs::file_size(bricks) * quarter / 4);
    const auto store = Store::open(copy->path(), {});
    ASSERT_TRUE(store.ok());
    const auto cube = (*store)->find("c");
    if (cube.ok()) {
      EXPECT_TRUE((*cube)->read_only());
    } else {
      EXPECT_EQ(cube.error().code, std::errc::io_error);
    }
  }
}

// Every cut of the journal behind the last mark leads to a state in between, with the elements as
// they were when the daemon died where frames gave them.
TEST_F(PokeRecoveryTest, ATornRecordOfAPokeIsNoDamage) {
  add({40, 30});
  add({20, 10});
  sync();
  const std::uintmax_t synced = journal_size();
  poke(whole(), {0, 10});       // a slot
  poke(whole(), {1200, 2000});  // pad
  const std::uintmax_t end = journal_size();
  ASSERT_GT(end, synced);
  for (std::uintmax_t size = synced; size <= end; size += 1 + random_() % 40) {
    const auto copy = image();
    fs::resize_file(copy->path() + "/c/" + journal_, size);
    const auto mounted = mount(copy->path());
    ASSERT_NE(mounted, nullptr);
    EXPECT_FALSE(mounted->cube->read_only()) << mounted->cube->last_error();
    EXPECT_EQ(mounted->cube->pin()->live_frames(), 2U);
    EXPECT_EQ(mounted->cube->last_error(), "");
  }
}

TEST_F(PokeRecoveryTest, PatchesOutliveCheckpoints) {
  add({40, 30});
  add({20, 10});
  poke(whole(), {1300, 2200});
  const Seen seen = look(cube());
  mounted_.reset();
  {
    // Enough records that the next sync begins another journal.
    mounted_ = mount(directory_.path());
    const FrameId id = *cube().find_frame("f0");
    for (int n = 0; n < 9000; ++n)
      ASSERT_TRUE(
          cube().set_frame_attributes(id, 1 + n, std::nullopt, std::nullopt, std::nullopt).ok());
    sync();
  }
  EXPECT_FALSE(fs::exists(directory_.path() + "/c/checkpoint.000003"));
  EXPECT_TRUE(fs::exists(directory_.path() + "/c/checkpoint.000002"));
  expect(image()->path(), seen);
  open();
  EXPECT_TRUE(look(cube()) == seen);
}

TEST_F(PokeRecoveryTest, SpaceOfReplacementsComesBackAfterADeath) {
  add({400, 300});
  std::vector<std::string> names;
  for (int n = 0; n < 5; ++n) {
    replace();
    names.push_back(add({1, 1}));  // its texts lie behind
  }
  const auto copy = image();
  const auto blocks = [](const std::string& file) {
    struct stat status {};
    EXPECT_EQ(::stat(file.c_str(), &status), 0);
    return static_cast<std::uint64_t>(status.st_blocks) * 512;
  };
  ASSERT_NE(mount(copy->path()), nullptr);
  EXPECT_LT(blocks(copy->path() + "/c/heap"), 200'000U) << "of " << 5 * 240'000;
  expect(copy->path(), look(cube()));
}

// A patch goes with its last index, but not from views that were opened before: also where another
// one came since, in a run that found the first in the store.
TEST_F(PokeRecoveryTest, AnOlderViewKeepsPatchesThatWent) {
  add({40, 30});
  add({20, 10});
  const std::string last = add({20, 10});
  const auto poke_plane = [&](std::uint64_t z) {
    poke(*View::make(cube().pin()->axes, {{0, {0, 40}}}, Shape{0, 20, z}), {0, 40});
  };
  poke_plane(2);
  open();
  const Pinned pinned = cube().pin();
  const View view = whole();
  const Bytes elements = testing::read_all(cube(), pinned, view);
  ASSERT_TRUE(cube().remove_frame(last, last).ok());
  ASSERT_TRUE(cube().discard_frame(last).ok());
  sync();
  EXPECT_EQ(cube().pin()->patches.size(), 0U);
  EXPECT_TRUE(cube().has_patches(pinned));
  EXPECT_TRUE(testing::read_all(cube(), pinned, view) == elements);
  poke_plane(1);
  const View row = *View::make(pinned->axes, {{0, {0, 40}}}, Shape{0, 20, 2});
  EXPECT_TRUE(testing::read_all(cube(), pinned, row) ==
              Bytes(elements.begin() + 2 * (2 * 1200 + 20 * 40),
                    elements.begin() + 2 * (2 * 1200 + 21 * 40)));
  // It can be written, too, as a file that was unlinked.
  const Bytes now = some(40);
  ASSERT_TRUE(testing::poke(cube(), pinned, row, {0, 40}, now).ok());
  EXPECT_TRUE(testing::read_all(cube(), pinned, row) == now);
}

// A view that was opened before its frame went, or came back, means other places than the cube by
// now; recovery has to know which.
TEST_F(PokeRecoveryTest, AReplacementThroughAnOlderViewIsStoredAgainWhereItWas) {
  add({40, 30});
  IngestRequest at_the_side;
  at_the_side.axis = 0;
  const std::string side = add({10, 30}, at_the_side);
  add({50, 30});
  // Elements that were written where that frame had been.
  ASSERT_TRUE(cube().remove_frame(side, side).ok());
  const Pinned without = cube().pin();
  ASSERT_EQ(to_string(without->shape()), "50 30 2");
  poke(*View::whole(without->axes), {40, 50});
  ASSERT_TRUE(cube().restore_frame(side, side).ok());
  const Pinned with = cube().pin();

  // The frame is there, and what is below it is replaced.
  sync();
  replace(without, *View::whole(without->axes));
  expect(image()->path(), look(cube()));
  // The frame was removed, and is replaced all the same.
  ASSERT_TRUE(cube().remove_frame(side, side).ok());
  sync();
  replace(with, *View::whole(with->axes));
  expect(image()->path(), look(cube()));
}

}  // namespace
}  // namespace accrete
