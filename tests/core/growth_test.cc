// Growth against a list of what is held: coordinates, boxes and bytes are given to one holder only.

#include "core/growth.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "tests/core/store_fixture.h"

namespace accrete {
namespace {

using testing::TemporaryDirectory;

constexpr std::size_t element_size = 2;
constexpr std::uint64_t host_map = 4096;  // the host's own map of a file may take a block

struct Range {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

bool meet(const Box& a, const Box& b) {
  for (std::size_t axis = 0; axis < a.rank(); ++axis)
    if (a.origin[axis] >= b.origin[axis] + static_cast<std::int64_t>(b.extent[axis]) ||
        b.origin[axis] >= a.origin[axis] + static_cast<std::int64_t>(a.extent[axis]))
      return false;
  return true;
}

class GrowthTest : public ::testing::Test {
 protected:
  struct Held {
    Slab slab;
    std::byte filling;
  };

  void SetUp() override {
    directory_ = *PosixFile::open(temporary_.path(), O_RDONLY | O_DIRECTORY);
    open(false);
  }

  void open(bool reclaim) {
    std::vector<BrickFile::Range> used;
    now_->boxes.for_all([&](const Box& box) {
      used.push_back({box.file_offset, box.byte_length()});
    });
    growth_.reset();
    bricks_.reset();
    auto bricks = BrickFile::open(directory_, used, true, reclaim);
    ASSERT_TRUE(bricks.ok()) << bricks.error().sentence;
    bricks_ = std::move(bricks).value();
    growth_ = std::make_unique<Growth>(*bricks_);
    growth_->restore(*now_, reclaim);
  }

  void define(std::size_t rank) {
    auto next = std::make_shared<Snapshot>(*now_);
    next->definition.defined = true;
    next->definition.rank = rank;
    next->definition.letters = std::string("xyztsuvw").substr(0, rank);
    next->definition.coding = native(DType::i16);
    next->axes = PerAxis<Axis>(rank);
    now_ = next;
  }

  // Another cube, in a file of its own.
  void begin_anew(std::size_t rank) {
    SetUp();
    now_ = std::make_shared<Snapshot>();
    committed_.clear();
    for (auto& axis : committed_coordinates_) axis.clear();
    define(rank);
    open(true);
  }

  // The byte ranges of the slots that a slab holds.
  static std::vector<Range> bytes_of(const Slab& slab) {
    std::vector<Range> ranges;
    slab.boxes.for_all([&](const Box& box) {
      for (std::uint64_t s = 0; s < box.slots(); ++s)
        if ((box.written >> s & 1) != 0)
          for_slot_ranges(box, s, 1, [&](std::uint64_t offset, std::uint64_t length) {
            ranges.push_back({offset, offset + length});
          });
    });
    return ranges;
  }

  std::vector<std::byte> read(const Range& range) const {
    const std::byte* begin = bricks_->mapping().get() + range.begin;
    return {begin, begin + (range.end - range.begin)};
  }

  std::optional<Held> reserve(std::size_t axis, const Shape& extent, Side side = Side::append) {
    auto slab = growth_->reserve(*now_, axis, side, extent, element_size);
    EXPECT_TRUE(slab.ok()) << slab.error().sentence;
    if (!slab.ok()) return std::nullopt;
    std::uint64_t layers = 0;
    for (const accrete::Run& run : slab->runs[axis]) layers += run.length;
    EXPECT_EQ(slab->runs[axis].size(), 1U);
    EXPECT_EQ(layers, extent[axis]);
    Held held{std::move(slab).value(), static_cast<std::byte>(1 + random_() % 255)};
    for (const Range& range : bytes_of(held.slab)) {
      for (const std::byte b : read(range))
        if (b != std::byte{0}) {
          ADD_FAILURE() << "a fresh slot does not read as zeros";
          break;
        }
      const std::vector<std::byte> filling(range.end - range.begin, held.filling);
      EXPECT_TRUE(bricks_->write(range.begin, filling).ok());
    }
    return held;
  }

  // False when it does not fit any more.
  bool commit(const Held& held) {
    if (!Growth::still_fits(*now_, held.slab)) {
      growth_->give_back(held.slab);
      return false;
    }
    const std::size_t axis = held.slab.axis;
    const std::uint64_t end = now_->axes[axis].positions();
    const std::uint64_t at = anywhere_                         ? random_() % (end + 1)
                             : held.slab.side == Side::prepend ? 0
                                                               : end;
    Draft draft(*now_);
    const Status described = growth_->describe(draft, held.slab, at);
    EXPECT_TRUE(described.ok()) << described.error().sentence;
    auto next = apply(*now_, std::move(draft).finish());
    EXPECT_TRUE(next.ok()) << next.error().sentence;
    if (!next.ok()) return false;
    // Never a coordinate that was committed before.
    const accrete::Run fresh = held.slab.run();
    for (std::int64_t c = fresh.first; c < fresh.end(); ++c)
      EXPECT_TRUE(committed_coordinates_[axis].insert(c).second) << c;
    now_ = *next;
    growth_->commit(held.slab);
    committed_.push_back(held);
    return true;
  }

  void check(const std::vector<Held>& held) const {
    // Bytes: those of all holders are disjoint and hold what was written.
    std::vector<Range> all;
    const auto add = [&](const Held& h) {
      for (const Range& range : bytes_of(h.slab)) {
        all.push_back(range);
        const auto bytes = read(range);
        EXPECT_TRUE(
            std::all_of(bytes.begin(), bytes.end(), [&](std::byte b) { return b == h.filling; }));
      }
    };
    for (const Held& h : committed_) add(h);
    for (const Held& h : held) add(h);
    std::sort(all.begin(), all.end(),
              [](const Range& a, const Range& b) { return a.begin < b.begin; });
    for (std::size_t i = 1; i < all.size(); ++i) ASSERT_LE(all[i - 1].end, all[i].begin);
    // Boxes: disjoint in space and in the file.
    std::vector<Box> boxes;
    now_->boxes.for_all([&](const Box& box) { boxes.push_back(box); });
    for (std::size_t i = 0; i < boxes.size(); ++i)
      for (std::size_t j = 0; j < i; ++j) {
        ASSERT_FALSE(meet(boxes[i], boxes[j])) << boxes[i].id << " and " << boxes[j].id;
        ASSERT_TRUE(boxes[i].file_offset >= boxes[j].file_offset + boxes[j].byte_length() ||
                    boxes[j].file_offset >= boxes[i].file_offset + boxes[i].byte_length());
      }
    // Each committed slab's slots are written, and no other ones.
    std::map<std::uint64_t, std::uint64_t> written;
    for (const Held& h : committed_)
      h.slab.boxes.for_all([&](const Box& box) { written[box.id] |= box.written; });
    for (const Box& box : boxes) EXPECT_EQ(box.written, written[box.id]) << box.id;
  }

  TemporaryDirectory temporary_;
  PosixFile directory_;
  std::unique_ptr<BrickFile> bricks_;
  std::unique_ptr<Growth> growth_;
  std::shared_ptr<const Snapshot> now_ = std::make_shared<Snapshot>();
  std::mt19937_64 random_{testing::seed()};
  bool anywhere_ = false;  // commits go to any index of the axis, not to its end
  std::vector<Held> committed_;
  std::array<std::set<std::int64_t>, max_rank> committed_coordinates_;
};

TEST_F(GrowthTest, RandomReservationsShareNoCoordinateNoBoxAndNoByte) {
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(testing::seed()));
  for (std::size_t rank = 1; rank <= 4; ++rank) {
    SCOPED_TRACE(rank);
    now_ = std::make_shared<Snapshot>();
    committed_.clear();
    anywhere_ = rank % 2 == 0;
    for (auto& axis : committed_coordinates_) axis.clear();
    define(rank);
    open(true);
    Shape usual;
    for (std::size_t a = 0; a < rank; ++a) usual.push_back(1 + random_() % 9);
    std::vector<Held> held;
    int commits = 0, late = 0;
    for (int step = 0; step < 260; ++step) {
      const auto dice = random_() % 16;
      if (dice < 7) {
        std::size_t axis = rank - 1;
        Shape extent = usual;
        extent[axis] = random_() % 4 == 0 ? 1 + random_() % 5 : 1;
        if (random_() % 5 == 0) axis = random_() % rank;
        if (axis != rank - 1) {  // a strip at a side
          for (std::size_t a = 0; a < rank; ++a)
            extent[a] = std::max<std::uint64_t>(1, now_->axes[a].extent());
          extent[axis] = 1 + random_() % 3;
        }
        if (random_() % 8 == 0) extent[random_() % rank] = 1 + random_() % 12;
        const Side side = random_() % 3 == 0 ? Side::prepend : Side::append;
        if (auto h = reserve(axis, extent, side)) held.push_back(std::move(*h));
      } else if (dice < 13 && !held.empty()) {
        std::swap(held[random_() % held.size()], held.back());
        const Held h = held.back();
        held.pop_back();
        commit(h) ? ++commits : ++late;
      } else if (dice < 15 && !held.empty()) {
        std::swap(held[random_() % held.size()], held.back());
        growth_->give_back(held.back().slab);
        held.pop_back();
      } else if (random_() % 4 == 0) {
        // A run that ends: in order, or with streams that are cut off.
        const bool in_order = random_() % 2 == 0;
        if (in_order)
          for (const Held& h : held) growth_->give_back(h.slab);
        held.clear();
        open(!in_order);
      }
      if (step % 10 == 0) check(held);
      if (HasFailure()) return;
    }
    for (const Held& h : held) growth_->give_back(h.slab);
    held.clear();
    check(held);
    EXPECT_FALSE(growth_->widening());
    EXPECT_GT(commits, 20);
  }
}

TEST_F(GrowthTest, ASeriesReservesAtMostAsManyLayersAndBlocksAsItHasStored) {
  for (const Side side : {Side::append, Side::prepend}) {
    begin_anew(3);
    const std::uint64_t layer = 64 * 64 * element_size;
    for (std::uint64_t n = 1; n <= 1000; ++n) {
      ASSERT_TRUE(commit(*reserve(2, {64, 64, 1}, side)));
      std::uint64_t layers = 0;
      now_->boxes.for_all([&](const Box& box) { layers += box.extent[2]; });
      EXPECT_LE(layers, n + std::min<std::uint64_t>(n, 63)) << n;
      EXPECT_LE(*bricks_->blocks_in_use(), layers * layer + host_map) << n;
      if (n % 137 == 0) open(false);
    }
    EXPECT_EQ(now_->axes[2].run_count(), 1U);
    EXPECT_LE(now_->boxes.size(), 25U);
    check({});
  }
}

TEST_F(GrowthTest, BlocksHeldForLayersToComeAreFreedWhenTheyAreWanted) {
  for (const Side side : {Side::append, Side::prepend}) {
    begin_anew(3);
    const std::uint64_t layer = 64 * 64 * element_size;
    for (int n = 0; n < 20; ++n) ASSERT_TRUE(commit(*reserve(2, {64, 64, 1}, side)));
    EXPECT_GT(*bricks_->blocks_in_use(), 25 * layer);
    EXPECT_TRUE(growth_->release_held());
    EXPECT_LE(*bricks_->blocks_in_use(), 20 * layer + host_map);
    EXPECT_FALSE(growth_->release_held());
    check({});
    const std::size_t boxes = now_->boxes.size();
    for (int n = 0; n < 5; ++n) ASSERT_TRUE(commit(*reserve(2, {64, 64, 1}, side)));
    EXPECT_EQ(now_->boxes.size(), boxes) << "the series goes on";
    check({});
  }
}

TEST_F(GrowthTest, ASeriesHoldsElementsOfOneSize) {
  // Frames that would each define the cube, and differ in their element type.
  define(1);
  auto first = growth_->reserve(*now_, 0, Side::append, {8}, 4);
  auto small = growth_->reserve(*now_, 0, Side::append, {1}, 2);
  auto large = growth_->reserve(*now_, 0, Side::append, {1}, 4);
  ASSERT_TRUE(first.ok() && small.ok() && large.ok());
  large->boxes.for_all([](const Box& box) { EXPECT_TRUE(check_box(box, 4).ok()); });
  growth_->give_back(*first);
  growth_->give_back(*small);
  growth_->give_back(*large);
}

TEST_F(GrowthTest, AFrameThatMeetsAGapHasABoxOnEachSideOfIt) {
  define(2);
  open(true);
  for (int n = 0; n < 3; ++n) ASSERT_TRUE(commit(*reserve(0, {5, 8})));
  auto next = std::make_shared<Snapshot>(*now_);
  next->axes[0] = *next->axes[0].drop({5, 5});
  now_ = next;
  const auto held = reserve(1, {10, 1});
  EXPECT_EQ(held->slab.boxes.size(), 2U);
  std::uint64_t elements = 0;
  held->slab.boxes.for_all([&](const Box& box) { elements += box.extent[0] * box.extent[1]; });
  EXPECT_EQ(elements, 10U);
}

TEST_F(GrowthTest, AnotherCrossSectionEndsTheSeriesAndItsUnusedLayersGoBack) {
  define(3);
  open(true);
  const std::uint64_t layer = 64 * 64 * element_size;
  for (int n = 0; n < 20; ++n) ASSERT_TRUE(commit(*reserve(2, {64, 64, 1})));
  const auto layers = [&] {
    std::uint64_t sum = 0;
    now_->boxes.for_all([&](const Box& box) { sum += box.extent[0] == 64 ? box.extent[2] : 0; });
    return sum;
  };
  EXPECT_GT(layers(), 20U);
  ASSERT_TRUE(commit(*reserve(2, {32, 64, 1})));
  EXPECT_EQ(layers(), 20U);
  EXPECT_LE(*bricks_->blocks_in_use(), 20 * layer + layer / 2 + host_map);
  EXPECT_EQ(now_->axes[2].run_count(), 1U);
  check({});
}

TEST_F(GrowthTest, WhatIsGivenBackLeavesNoBlocks) {
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(testing::seed()));
  define(3);
  open(true);
  ASSERT_TRUE(commit(*reserve(2, {30, 20, 1})));
  const std::uint64_t before = *bricks_->blocks_in_use();
  std::vector<Held> held;
  for (int n = 0; n < 100; ++n)
    held.push_back(
        *reserve(random_() % 3, {1 + random_() % 60, 1 + random_() % 60, 1 + random_() % 3}));
  std::shuffle(held.begin(), held.end(), random_);
  for (const Held& h : held) growth_->give_back(h.slab);
  EXPECT_LE(*bricks_->blocks_in_use(), before + host_map);
  EXPECT_FALSE(growth_->widening());
}

TEST_F(GrowthTest, SlotsOfStreamsThatWereCutOffAreClearedInEveryBox) {
  define(3);
  open(true);
  std::vector<Held> series;
  for (int n = 0; n < 12; ++n) ASSERT_TRUE(commit(*reserve(2, {64, 64, 1})));
  const auto lost = *reserve(2, {64, 64, 1});  // a slot in the middle of a box
  ASSERT_TRUE(commit(*reserve(2, {64, 64, 1})));
  for (int n = 0; n < 6; ++n) ASSERT_TRUE(commit(*reserve(2, {32, 64, 1})));  // the box is closed
  const auto ranges = bytes_of(lost.slab);
  open(true);
  for (const Range& range : ranges)
    for (const std::byte b : read(range)) ASSERT_EQ(b, std::byte{0});
}

TEST_F(GrowthTest, CoordinatesAndBytesThatDoNotFitAreRefusedAndHoldNothing) {
  define(2);
  open(true);
  ASSERT_TRUE(commit(*reserve(1, {8, 1})));
  const std::uint64_t before = *bricks_->blocks_in_use();
  const std::uint64_t huge = std::uint64_t{1} << 62;
  for (const Shape& extent :
       {Shape{huge, 1}, Shape{1, huge}, Shape{huge, huge}, Shape{huge / 2, 2}})
    for (const Side side : {Side::append, Side::prepend})
      EXPECT_FALSE(growth_->reserve(*now_, 1, side, extent, element_size).ok());
  EXPECT_EQ(*bricks_->blocks_in_use(), before);
  EXPECT_FALSE(growth_->widening());
  ASSERT_TRUE(commit(*reserve(1, {8, 1})));
  EXPECT_EQ(now_->axes[1].run_count() + now_->axes[0].run_count(), 2U);
}

}  // namespace
}  // namespace accrete
