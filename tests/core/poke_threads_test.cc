// Stale pages, and many who change elements in place at once.

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include "tests/core/poke_fixture.h"
#include "tests/support/sync_hook.h"

namespace accrete {
namespace {

using testing::Bytes;
using testing::frame_file;
using testing::Overlay;
using testing::random_elements;
using testing::read_range;
using testing::SyncHook;
using testing::TemporaryDirectory;

class PokeThreadsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    StoreOptions options;
    options.sync_interval = std::chrono::milliseconds(5);
    auto store = Store::open(directory_.path() + "/store", options);
    ASSERT_TRUE(store.ok()) << store.error().sentence;
    store_ = std::move(store).value();
    cube_ = *store_->create("c");
  }
  void add(DType type, const Shape& extent) {
    const auto id = testing::put(
        *cube_, "f" + std::to_string(names_++),
        frame_file(
            FormatId::npy, type, extent,
            random_elements(random_, type, *checked_product({extent.begin(), extent.size()}))));
    ASSERT_TRUE(id.ok()) << id.error().sentence;
  }
  View whole() const { return *View::whole(cube_->pin()->axes); }
  RecentValues::Ticket poke(Interval range, const Bytes& elements, PokeOrigin origin) {
    auto poked = testing::poke(*cube_, cube_->pin(), whole(), range, elements, origin);
    EXPECT_TRUE(poked.ok()) << poked.error().sentence;
    return poked.ok() ? *poked : nullptr;
  }

  TemporaryDirectory directory_;
  std::unique_ptr<Store> store_;
  std::shared_ptr<Cube> cube_;
  std::mt19937_64 random_{testing::seed()};
  int names_ = 0;
};

Bytes with(Bytes bytes, std::size_t at, int value) {
  bytes[at] = static_cast<std::byte>(value);
  return bytes;
}

TEST_F(PokeThreadsTest, APageWithStaleNeighboursChangesOnlyWhatItsProgramStored) {
  add(DType::u8, {16});
  const View view = whole();
  const Interval all{0, 16};
  const Bytes zero(16, std::byte{0});
  poke(all, zero, PokeOrigin{});
  {
    // A page was brought before element 3 was written, and comes back with a store of element 5.
    const auto ticket = poke({3, 4}, Bytes{std::byte{33}}, PokeOrigin{});
    ASSERT_NE(ticket, nullptr);
    poke(all, with(zero, 5, 55), PokeOrigin{1});
    EXPECT_EQ(read_range(*cube_, cube_->pin(), view, all), with(with(zero, 3, 33), 5, 55));
    // A page that has another value than the former one there stored it.
    poke(all, with(with(zero, 3, 44), 5, 55), PokeOrigin{1});
    EXPECT_EQ(read_range(*cube_, cube_->pin(), view, all), with(with(zero, 3, 44), 5, 55));
    // What is written is written, also when it is a former value.
    poke({3, 4}, Bytes{std::byte{0}}, PokeOrigin{});
    EXPECT_EQ(read_range(*cube_, cube_->pin(), view, all), with(zero, 5, 55));
    poke({3, 4}, Bytes{std::byte{44}}, PokeOrigin{});
  }
  // When nobody can have a former value any more a page that has one stored it.
  poke(all, with(with(zero, 3, 0), 5, 55), PokeOrigin{1});
  EXPECT_EQ(read_range(*cube_, cube_->pin(), view, all), with(zero, 5, 55));
}

TEST_F(PokeThreadsTest, AFormerValueIsKnownThroughOtherViewsAndInPad) {
  add(DType::u16, {4, 3});
  add(DType::u16, {1, 1});  // the rest is pad
  const Pinned pinned = cube_->pin();
  const View plane = *View::make(pinned->axes, {{1, {0, 3}}, {0, {0, 4}}}, Shape{0, 0, 1});
  const View row = *View::make(pinned->axes, {{0, {0, 4}}}, Shape{0, 2, 1});
  const Interval all{0, 12};
  const Bytes page = read_range(*cube_, pinned, plane, all);
  const auto ticket = testing::poke(*cube_, pinned, row, {1, 3}, Bytes(4, std::byte{7}));
  ASSERT_TRUE(ticket.ok());
  const Bytes expected = read_range(*cube_, pinned, plane, all);
  ASSERT_NE(expected, page);
  // The page as it was before, but for one element.
  ASSERT_TRUE(testing::poke(*cube_, pinned, plane, all, with(page, 0, 9), PokeOrigin{1}).ok());
  EXPECT_EQ(read_range(*cube_, pinned, plane, all), with(expected, 0, 9));
}

TEST_F(PokeThreadsTest, APageFromBeforeAFrameWentBringsNoneOfItBack) {
  add(DType::i32, {6, 2});
  add(DType::i32, {6, 2});
  IngestRequest request;
  request.axis = 0;
  const auto side = testing::put(
      *cube_, "side",
      frame_file(FormatId::npy, DType::i32, {3, 2}, random_elements(random_, DType::i32, 6)),
      request);
  ASSERT_TRUE(side.ok()) << side.error().sentence;
  add(DType::i32, {9, 2});  // so that the indexes stay
  const View view = whole();
  const Interval all{0, view.element_count()};
  const Bytes page = read_range(*cube_, cube_->pin(), view, all);
  const auto ticket = cube_->remember_values();
  ASSERT_TRUE(cube_->remove_frame("side", "side").ok());
  const Pinned pinned = cube_->pin();
  const Bytes without = read_range(*cube_, pinned, view, all);
  ASSERT_NE(without, page);
  ASSERT_TRUE(testing::poke(*cube_, pinned, view, all, with(page, 1, 99), PokeOrigin{1}).ok());
  EXPECT_EQ(read_range(*cube_, pinned, view, all), with(without, 1, 99));
  EXPECT_FALSE(cube_->has_patches(pinned));
}

// Programs that have mapped the same page: each stores into elements of its own, and its pages have
// the others' as they were at some time. As in fs/publish.h, the page is brought anew after what
// was poked is forgotten.
TEST_F(PokeThreadsTest, NobodyLosesWhatAnotherStores) {
  constexpr std::size_t threads = 4;
  constexpr int rounds = 300;
  add(DType::u32, {32, 2});
  add(DType::u32, {8, 2});  // and pad
  const View view = whole();
  const Interval all{0, view.element_count()};
  const std::uint64_t count = view.element_count();
  poke(all, Bytes(count * 4, std::byte{0}), PokeOrigin{});
  // A page is brought and comes back within one lease; a poke is forgotten when no lease is left
  // from before it.
  std::mutex mutex;
  std::uint64_t next_lease = 1;
  std::map<std::uint64_t, int> leases;
  std::vector<std::pair<std::uint64_t, RecentValues::Ticket>> tickets;
  const auto begin_lease = [&] {
    const std::lock_guard lock(mutex);
    leases[next_lease] = 1;
    return next_lease++;
  };
  const auto end_lease = [&](std::uint64_t lease, RecentValues::Ticket ticket) {
    std::vector<RecentValues::Ticket> forgotten;
    const std::lock_guard lock(mutex);
    leases.erase(lease);
    if (ticket != nullptr) tickets.emplace_back(next_lease, std::move(ticket));
    const std::uint64_t oldest = leases.empty() ? next_lease : leases.begin()->first;
    for (auto& [lease_after, held] : tickets)
      if (lease_after <= oldest) forgotten.push_back(std::move(held));
    std::erase_if(tickets, [](const auto& entry) { return entry.second == nullptr; });
  };
  std::atomic<bool> is_over = false;
  std::atomic<bool> torn = false;
  std::thread reader([&] {
    while (!is_over) {
      const Bytes seen = read_range(*cube_, cube_->pin(), view, all);
      for (std::size_t at = 0; at < seen.size(); at += 4)
        if (seen[at] != seen[at + 3]) torn = true;
    }
  });
  std::vector<std::thread> writers;
  for (std::size_t t = 0; t < threads; ++t)
    writers.emplace_back([&, t] {
      std::mt19937_64 random(testing::seed() + t);
      for (int round = 1; round <= rounds; ++round) {
        const auto value = static_cast<std::byte>(round % 255 + 1);
        const std::uint64_t lease = begin_lease();
        RecentValues::Ticket ticket;
        if (random() % 2 == 0) {
          Bytes page = read_range(*cube_, cube_->pin(), view, all);
          if (random() % 2 == 0) std::this_thread::yield();
          for (std::uint64_t i = t; i < count; i += threads)
            std::fill_n(page.begin() + static_cast<std::ptrdiff_t>(4 * i), 4, value);
          ticket = poke(all, page, PokeOrigin{t + 1});
        } else {
          std::vector<RecentValues::Ticket> all_of_them;
          for (std::uint64_t i = t; i < count; i += threads)
            all_of_them.push_back(poke({i, i + 1}, Bytes(4, value), PokeOrigin{}));
          ticket = std::make_shared<std::vector<RecentValues::Ticket>>(std::move(all_of_them));
        }
        const Bytes now = read_range(*cube_, cube_->pin(), view, all);
        for (std::uint64_t i = t; i < count; i += threads)
          EXPECT_EQ(now[4 * i], value) << "thread " << t << " lost element " << i;
        end_lease(lease, std::move(ticket));
      }
    });
  for (std::thread& writer : writers) writer.join();
  is_over = true;
  reader.join();
  EXPECT_FALSE(torn);
  const Bytes last = read_range(*cube_, cube_->pin(), view, all);
  for (std::uint64_t i = 0; i < count; ++i)
    EXPECT_EQ(last[4 * i], static_cast<std::byte>(rounds % 255 + 1));
}

// What was written before a sync was asked for is on disk when it is done, also when other syncs
// run all the while.
TEST_F(PokeThreadsTest, ASyncFindsWhatWasPokedBeforeIt) {
  add(DType::u8, {1 << 20});
  const View view = whole();
  const Interval all{0, view.element_count()};
  poke(all, Bytes(view.element_count(), std::byte{1}), PokeOrigin{});
  ASSERT_TRUE(store_->sync().ok());
  const Pinned pinned = cube_->pin();
  std::atomic<int> synced = 0;  // value of the last element at the last sync
  const SyncHook hook([&](const std::string& file) {
    if (file != "bricks") return 0;
    const Bytes last =
        read_range(*cube_, pinned, view, {view.element_count() - 1, view.element_count()});
    synced = static_cast<int>(last.front());
    return 0;
  });
  std::atomic<bool> is_over = false;
  std::thread others([&] {
    while (!is_over) EXPECT_TRUE(store_->sync().ok());
  });
  for (int value = 2; value < 30; ++value) {
    poke(all, Bytes(view.element_count(), static_cast<std::byte>(value)), PokeOrigin{});
    EXPECT_TRUE(store_->sync().ok());
    EXPECT_EQ(synced, value);
  }
  is_over = true;
  others.join();
}

// Changes of structure and in place at once.
TEST_F(PokeThreadsTest, FramesComeAndGoWhileElementsChange) {
  add(DType::u16, {16, 4});
  store_->start();
  std::atomic<bool> is_over = false;
  std::thread frames([&] {
    std::mt19937_64 random(testing::seed());
    for (int n = 0; n < 150; ++n) {
      const std::string name = "g" + std::to_string(n);
      const auto id =
          testing::put(*cube_, name,
                       frame_file(FormatId::npy, DType::u16, {1 + random() % 16, 1 + random() % 4},
                                  Bytes(2 * 64, std::byte{0})));
      EXPECT_TRUE(cube_->find_frame(name)) << id.ok();
      if (random() % 2 == 0) continue;
      EXPECT_TRUE(cube_->remove_frame(name, name).ok());
      if (random() % 2 == 0) {
        EXPECT_TRUE(cube_->restore_frame(name, name).ok());
      } else {
        EXPECT_TRUE(cube_->discard_frame(name).ok());
      }
    }
    is_over = true;
  });
  std::vector<std::thread> writers;
  for (unsigned t = 0; t < 3; ++t)
    writers.emplace_back([&, t] {
      std::mt19937_64 random(testing::seed() + t + 1);
      while (!is_over) {
        const Pinned pinned = cube_->pin();
        const View view = testing::random_view(random, pinned->axes);
        const Interval range = testing::random_range(random, view.element_count());
        const Bytes elements = random_elements(random, DType::u16, range.length());
        const auto origin = random() % 2 == 0 ? PokeOrigin{} : PokeOrigin{t + 1};
        const auto poked = testing::poke(*cube_, pinned, view, range, elements, origin);
        if (!poked.ok()) {
          EXPECT_EQ(poked.error().code, std::errc::no_such_file_or_directory)
              << poked.error().sentence;
        }
        if (t == 0) (void)cube_->remember_values();
      }
    });
  for (std::thread& writer : writers) writer.join();
  frames.join();
  const Pinned before = cube_->pin();
  const View view = whole();
  const Bytes elements = testing::read_all(*cube_, before, view);
  const Bytes mask = testing::mask_of(*cube_, before, view);
  cube_.reset();
  store_.reset();
  auto store = Store::open(directory_.path() + "/store", {});
  ASSERT_TRUE(store.ok());
  store_ = std::move(store).value();
  cube_ = *store_->find("c");
  EXPECT_FALSE(cube_->read_only());
  EXPECT_TRUE(testing::read_all(*cube_, cube_->pin(), whole()) == elements);
  EXPECT_TRUE(testing::mask_of(*cube_, cube_->pin(), whole()) == mask);
}

}  // namespace
}  // namespace accrete
