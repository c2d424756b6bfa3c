// Crashes against a list of what was acknowledged: the store's directory is copied while it is
// open, damaged as a loss of power may, and opened again.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <random>

#include "core/growth.h"
#include "core/linearize.h"
#include "tests/core/store_fixture.h"
#include "tests/support/sync_hook.h"

namespace accrete {
namespace {

namespace fs = std::filesystem;

using testing::frame_file;
using testing::put;
using testing::random_elements;
using testing::read_all;
using testing::TemporaryDirectory;

constexpr DType type = DType::i16;
constexpr std::size_t header_bytes = 2880;  // of a FITS file as frame_file() makes it

struct Plane {
  std::string name;
  std::uint64_t width = 0, height = 0;
  std::vector<std::byte> elements;
  std::int64_t mtime = 0;  // 0: whatever it is
  std::string suffix;
  bool removed = false;
};
struct State {
  std::vector<Plane> planes;  // by place along z, removed ones among the others
  bool sorted = false;        // by name

  std::size_t live() const {
    return static_cast<std::size_t>(
        std::count_if(planes.begin(), planes.end(), [](const Plane& p) { return !p.removed; }));
  }
  std::size_t find(const std::string& name) const {
    return static_cast<std::size_t>(
        std::find_if(planes.begin(), planes.end(), [&](const Plane& p) { return p.name == name; }) -
        planes.begin());
  }
  void insert(std::size_t at, Plane plane) {
    planes.insert(planes.begin() + static_cast<std::ptrdiff_t>(at), std::move(plane));
  }
  Plane take(std::size_t at) {
    Plane plane = std::move(planes[at]);
    planes.erase(planes.begin() + static_cast<std::ptrdiff_t>(at));
    return plane;
  }
  // Names here are letters and a number.
  static std::pair<std::string, int> key(const std::string& name) {
    const std::size_t digits = name.find_first_of("0123456789");
    return {name.substr(0, digits), std::stoi(name.substr(digits))};
  }
  void sort() {
    std::stable_sort(planes.begin(), planes.end(),
                     [](const Plane& a, const Plane& b) { return key(a.name) < key(b.name); });
  }
  void append(Plane plane) {
    planes.push_back(std::move(plane));
    if (sorted) sort();
  }
};

// Empty when the elements at `values` are the plane's, and pad around it; else where they differ.
std::string difference(const Plane& plane, const std::int16_t* values, std::uint64_t nx,
                       std::uint64_t ny) {
  const auto* want = reinterpret_cast<const std::int16_t*>(plane.elements.data());
  for (std::uint64_t y = 0; y < ny; ++y)
    for (std::uint64_t x = 0; x < nx; ++x) {
      const bool inside = x < plane.width && y < plane.height;
      if (*values++ != (inside ? want[y * plane.width + x] : 0))
        return plane.name + " differs at " + std::to_string(x) + " " + std::to_string(y);
    }
  return "";
}

// Empty when the cube is as the state says, else what differs.
std::string difference(const Cube& cube, const State& state) {
  const Pinned pinned = cube.pin();
  if (pinned->live_frames() != state.live())
    return std::to_string(pinned->live_frames()) + " frames, not " + std::to_string(state.live());
  if (pinned->removed_frames() != state.planes.size() - state.live())
    return std::to_string(pinned->removed_frames()) + " removed frames";
  if (pinned->definition.settings.order != (state.sorted ? "name" : "")) return "another order";
  if (state.planes.empty()) return "";
  const Shape shape = pinned->shape();
  if (shape.size() != 3 || shape[2] != state.live()) return "shape " + to_string(shape);
  std::vector<std::byte> all;
  if (state.live() > 0) all = read_all(cube, *View::whole(pinned->axes));
  const auto* values = reinterpret_cast<const std::int16_t*>(all.data());
  std::uint64_t z = 0;
  std::uint64_t position = 0;
  for (const Plane& plane : state.planes) {
    const auto id = plane.removed ? cube.find_removed(plane.name) : cube.find_frame(plane.name);
    if (!id) return "no frame " + plane.name;
    const FrameRow row = *pinned->frames.find(*id);
    if (pinned->axes[2].position_of(row.first[2]) != position++)
      return plane.name + " is not at its place";
    if (plane.mtime != 0 && row.mtime_ns != plane.mtime) return plane.name + " has another mtime";
    if (!plane.suffix.empty() && !testing::text_of(cube, row.suffix).ends_with(plane.suffix))
      return plane.name + " has another suffix";
    std::string why;
    if (plane.removed) {
      const auto shown = cube.show_removed(pinned, row);
      const auto view = cube.frame_view(row);
      if (!shown.ok() || !view.ok()) return plane.name + " cannot be shown";
      std::vector<std::byte> bytes(plane.elements.size());
      (void)cube.read(*shown, *view, {0, view->element_count()}, bytes.data(), native(type));
      why = difference(plane, reinterpret_cast<const std::int16_t*>(bytes.data()), plane.width,
                       plane.height);
    } else {
      if (pinned->axes[2].logical(row.first[2]) != z++) return plane.name + " has another index";
      why = difference(plane, values, shape[0], shape[1]);
      values += shape[0] * shape[1];
    }
    if (!why.empty()) return why;
  }
  return "";
}

std::string file_of(const Plane& plane) {
  return frame_file(FormatId::fits, type, {plane.width, plane.height}, plane.elements) +
         plane.suffix;
}

class RecoveryTest : public ::testing::Test {
 protected:
  void SetUp() override { open(); }

  void open() {
    testing::reopen(directory_.path(), store_, cube_);
  }

  Plane random_plane() {
    Plane plane;
    plane.name = "f" + std::to_string(names_++);
    plane.width = random_() % 5 == 0 ? 1 + random_() % 90 : 64;
    plane.height = random_() % 7 == 0 ? 1 + random_() % 60 : 48;
    plane.elements = random_elements(random_, type, plane.width * plane.height);
    if (random_() % 8 == 0) plane.suffix.assign(1 + random_() % 9000, static_cast<char>(random_()));
    return plane;
  }

  std::shared_ptr<Ingest> begin(const Plane& plane) {
    IngestRequest request;
    request.name = plane.name;
    return *cube_->begin_ingest(request);
  }

  void acknowledged() { history_.push_back(state_); }

  static constexpr std::size_t none = ~std::size_t{0};

  // The place of a random plane, removed or not; `none` when there is none.
  std::size_t some_plane(bool removed) {
    std::vector<std::size_t> found;
    for (std::size_t i = 0; i < state_.planes.size(); ++i)
      if (state_.planes[i].removed == removed) found.push_back(i);
    return found.empty() ? none : found[random_() % found.size()];
  }

  // A new name, or that of another frame, which goes then.
  void rename(std::size_t from) {
    Plane plane = state_.planes[from];
    const std::string old_name = plane.name;
    std::size_t onto = none;
    if (!plane.removed && frees_space_ && random_() % 2 == 0) onto = some_plane(random_() % 2 == 0);
    if (onto == from) onto = none;
    plane.name = onto != none                  ? state_.planes[onto].name
                 : plane.removed && names_ % 2 ? old_name
                                               : "n" + std::to_string(names_++);
    if (plane.name == old_name) return;
    const Status status = cube_->rename_frame(old_name, plane.name);
    ASSERT_TRUE(status.ok()) << status.error().sentence;
    if (onto == none) {
      state_.planes[from].name = plane.name;
    } else {
      state_.planes[onto] = plane;
      state_.take(from);
      replaced_ = true;
    }
    if (state_.sorted) state_.sort();
    acknowledged();
  }

  void remove() {
    const std::size_t i = some_plane(false);
    if (i == none) return;
    ASSERT_TRUE(cube_->remove_frame(state_.planes[i].name, state_.planes[i].name).ok());
    state_.planes[i].removed = true;
    acknowledged();
  }
  void restore() {
    const std::size_t i = some_plane(true);
    if (i == none) return;
    const std::string name =
        random_() % 3 == 0 ? "r" + std::to_string(names_++) : state_.planes[i].name;
    ASSERT_TRUE(cube_->restore_frame(state_.planes[i].name, name).ok());
    state_.planes[i].removed = false;
    state_.planes[i].name = name;
    if (state_.sorted) state_.sort();
    acknowledged();
  }
  void discard() {
    const std::size_t i = frees_space_ ? some_plane(true) : none;
    if (i == none) return;
    ASSERT_TRUE(cube_->discard_frame(state_.planes[i].name).ok());
    state_.take(i);
    replaced_ = true;
    acknowledged();
  }
  void set_order() {
    const Status status = cube_->set_property("order", state_.sorted ? "arrival" : "name");
    ASSERT_TRUE(status.ok()) << status.error().sentence;
    state_.sorted = !state_.sorted;
    if (state_.sorted) state_.sort();
    acknowledged();
  }

  // One thing that a user may do; each that is acknowledged is a state of the history.
  void step() {
    switch (random_() % 20) {
      case 0:
        if (!state_.planes.empty()) rename(random_() % state_.planes.size());
        return;
      case 1: {  // attributes
        const std::size_t i = some_plane(false);
        if (i == none) return;
        Plane& plane = state_.planes[i];
        plane.mtime = 1 + static_cast<std::int64_t>(random_() % 1'000'000);
        ASSERT_TRUE(cube_
                        ->set_frame_attributes(*cube_->find_frame(plane.name), plane.mtime,
                                               std::nullopt, std::nullopt, std::nullopt)
                        .ok());
        return acknowledged();
      }
      case 2: {  // a stream that stays open
        const Plane plane = random_plane();
        const std::string file = file_of(plane);
        auto ingest = begin(plane);
        ASSERT_TRUE(
            ingest->write(0, as_bytes(std::string_view(file).substr(0, random_() % file.size())))
                .ok());
        open_.push_back({plane, ingest, false});
        return;
      }
      case 3: {  // which is finished, or given up
        if (open_.empty()) return;
        std::swap(open_[random_() % open_.size()], open_.back());
        const auto [plane, ingest, committed] = open_.back();
        open_.pop_back();
        if (committed || random_() % 2 == 0) return ingest->abandon("");
        ASSERT_TRUE(ingest->write(0, as_bytes(file_of(plane))).ok());
        const auto id = ingest->commit();
        ASSERT_TRUE(id.ok()) << id.error().sentence;
        state_.append(plane);
        return acknowledged();
      }
      case 4: {  // a frame that is rewritten after its commit
        Plane plane = random_plane();
        auto ingest = begin(plane);
        ASSERT_TRUE(ingest->write(0, as_bytes(file_of(plane))).ok());
        ASSERT_TRUE(ingest->commit().ok());
        state_.append(plane);
        acknowledged();
        if (frees_space_ && random_() % 2 == 0) {
          plane.elements = random_elements(random_, type, plane.width * plane.height);
        } else {
          plane.suffix.assign(100, static_cast<char>(random_()));
          ASSERT_TRUE(ingest->truncate(file_of(plane).size()).ok());
        }
        ASSERT_TRUE(ingest->write(0, as_bytes(file_of(plane))).ok());
        const auto id = ingest->commit();
        ASSERT_TRUE(id.ok()) << id.error().sentence;
        state_.planes[state_.find(plane.name)] = plane;
        replaced_ = true;
        open_.push_back({plane, ingest, true});
        return acknowledged();
      }
      case 5:
      case 6: {
        ASSERT_TRUE(store_->sync().ok());
        if (synced_ == history_.size() - 1) return;
        synced_ = history_.size() - 1;
        mark_is_durable_ = std::exchange(replaced_, false);  // before its space was reused
        return;
      }
      case 7:
      case 8:
        return remove();
      case 9:
        return restore();
      case 10:
        return discard();
      case 11:
        if (random_() % 3 == 0) set_order();
        return;
      default: {
        const Plane plane = random_plane();
        IngestRequest request;
        if (!state_.sorted) request.side = static_cast<Side>(random_() % 4 % 3);
        std::size_t at = request.side == Side::prepend ? 0 : state_.planes.size();
        if (request.side == Side::insert && state_.live() > 0) {
          at = some_plane(false);
          for (std::size_t i = 0; i < at; ++i) request.at += state_.planes[i].removed ? 0 : 1;
        }
        const auto id = put(*cube_, plane.name, file_of(plane), request);
        ASSERT_TRUE(id.ok()) << id.error().sentence;
        state_.insert(at, plane);
        if (state_.sorted) state_.sort();
        return acknowledged();
      }
    }
  }

  // A copy of the store as it lies there now.
  std::unique_ptr<TemporaryDirectory> image() const {
    auto copy = std::make_unique<TemporaryDirectory>();
    fs::copy(directory_.path(), copy->path(), fs::copy_options::recursive);
    return copy;
  }

  static std::string newest(const std::string& store, const std::string& prefix) {
    std::string name;
    for (const auto& entry : fs::directory_iterator(store + "/c")) {
      const std::string file = entry.path().filename().string();
      if (file.starts_with(prefix + ".0")) name = std::max(name, file);
    }
    return store + "/c/" + name;
  }

  // The image must open as one of the states [first, last]; then it must go on working.
  void check_image(const std::string& path, std::size_t first, std::size_t last) {
    auto store = Store::open(path, {});
    ASSERT_TRUE(store.ok()) << store.error().sentence;
    auto cube = (*store)->find("c");
    ASSERT_TRUE(cube.ok()) << cube.error().sentence;
    ASSERT_FALSE((*cube)->read_only()) << (*cube)->last_error();
    std::size_t at = last + 1;
    std::string why;
    while (at > first && !(why = difference(**cube, history_[at - 1])).empty()) --at;
    ASSERT_GT(at, first) << "none of the states " << first << " to " << last << ": " << why
                         << " in the oldest";
    check_space(**cube);
    State state = history_[at - 1];
    for (int n = 0; n < 3; ++n) {
      Plane plane = random_plane();
      plane.name = "after" + std::to_string(n);
      const auto id = put(**cube, plane.name, file_of(plane));
      ASSERT_TRUE(id.ok()) << id.error().sentence;
      state.append(plane);
    }
    ASSERT_EQ(difference(**cube, state), "");
    cube->reset();
    store->reset();
    store = Store::open(path, {});
    cube = (*store)->find("c");
    ASSERT_TRUE(cube.ok()) << cube.error().sentence;
    ASSERT_EQ(difference(**cube, state), "");
  }

  // Blocks are those of slots that hold a frame, and no more.
  static void check_space(const Cube& cube) {
    std::uint64_t used = 8192;
    cube.pin()->boxes.for_all([&](const Box& box) {
      // A copy of a store has blocks where layers were cut off a brick.
      if (box.brick[box.layer_axis] > box.extent[box.layer_axis]) used += box.byte_length();
      for (std::uint64_t s = 0; s < box.slots(); ++s)
        if (((box.written | box.kept) >> s & 1) != 0)
          for_slot_ranges(box, s, 1, [&](std::uint64_t, std::uint64_t length) {
            used += (length + 4095) / 4096 * 4096 + 4096;
          });
    });
    EXPECT_LE(std::strtoull(cube.property("bytes")->c_str(), nullptr, 10), used);
  }

  // Zeros some of the bytes of frames that came after the last sync.
  void lose_elements(const std::string& store) {
    const Pinned pinned = cube_->pin();
    const int bricks = ::open((store + "/c/bricks").c_str(), O_RDWR);
    ASSERT_GE(bricks, 0);
    const std::vector<Plane>& synced = history_[synced_].planes;
    for (const Plane& plane : state_.planes) {
      const bool was_synced = std::any_of(synced.begin(), synced.end(), [&](const Plane& p) {
        return p.elements == plane.elements;
      });
      if (was_synced || random_() % 3 != 0) continue;
      const FrameRow row = *pinned->frames.find(plane.removed ? *cube_->find_removed(plane.name)
                                                              : *cube_->find_frame(plane.name));
      const Pinned shown = plane.removed ? *cube_->show_removed(pinned, row) : pinned;
      std::vector<StreamRun> runs;
      collect_runs(*cube_->frame_view(row), shown->boxes, size_of(type), Slots::written,
                   {0, plane.width * plane.height}, 1'000'000, runs);
      const StreamRun run = runs[random_() % runs.size()];
      const std::string zeros(run.length * size_of(type), '\0');
      ASSERT_EQ(::pwrite(bricks, zeros.data(), zeros.size(), static_cast<off_t>(run.file_offset)),
                static_cast<ssize_t>(zeros.size()));
    }
    ::close(bricks);
  }

  // Enough records that the next sync begins another journal.
  void fill_journal() {
    while (state_.live() == 0) step();
    Plane& plane = state_.planes[some_plane(false)];
    const FrameId id = *cube_->find_frame(plane.name);
    for (int n = 0; n < 9000; ++n) {
      plane.mtime = 1 + n;
      ASSERT_TRUE(
          cube_->set_frame_attributes(id, plane.mtime, std::nullopt, std::nullopt, std::nullopt)
              .ok());
    }
    acknowledged();
  }

  struct Open {
    Plane plane;
    std::shared_ptr<Ingest> ingest;
    bool committed;
  };

  TemporaryDirectory directory_;
  std::unique_ptr<Store> store_;
  std::shared_ptr<Cube> cube_;
  std::mt19937_64 random_{testing::seed()};
  std::vector<Open> open_;
  State state_;
  std::vector<State> history_{State{}};
  std::size_t synced_ = 0;
  bool frees_space_ = true;
  bool replaced_ = false;  // a frame, since the last sync
  bool mark_is_durable_ = false;
  int names_ = 0;
};

TEST_F(RecoveryTest, ADeathOfTheDaemonLosesNothingThatWasAcknowledged) {
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(testing::seed()));
  for (int n = 0; n < 120; ++n) {
    step();
    if (HasFatalFailure()) return;
    if (random_() % 5 != 0) continue;
    SCOPED_TRACE("step " + std::to_string(n));
    check_image(image()->path(), history_.size() - 1, history_.size() - 1);
    if (HasFatalFailure()) return;
  }
  open_.clear();
  open();
  ASSERT_EQ(difference(*cube_, state_), "");
  check_space(*cube_);
}

TEST_F(RecoveryTest, ALossOfPowerLosesNothingThatWasSynced) {
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(testing::seed()));
  std::uintmax_t synced_journal = 0;
  for (int n = 0; n < 120; ++n) {
    const std::size_t before = synced_;
    step();
    if (HasFatalFailure()) return;
    if (synced_ != before || n == 0)
      synced_journal = fs::file_size(newest(directory_.path(), "journal"));
    if (random_() % 4 != 0) continue;
    SCOPED_TRACE("step " + std::to_string(n));
    const auto copy = image();
    const std::string journal = newest(copy->path(), "journal");
    const std::uintmax_t length = fs::file_size(journal);
    if (random_() % 2 == 0) {
      lose_elements(copy->path());
    } else if (random_() % 2 == 0) {
      // The mark itself, which is 72 bytes, may be lost too.
      const std::uintmax_t least = synced_journal - (synced_ > 0 && !mark_is_durable_ ? 72 : 0);
      fs::resize_file(journal, least + random_() % (length - least + 1));
    } else if (length > synced_journal) {
      std::fstream file(journal, std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(
          static_cast<std::streamoff>(synced_journal + random_() % (length - synced_journal)));
      file.put(static_cast<char>(random_()));
    }
    check_image(copy->path(), synced_, history_.size() - 1);
    if (HasFatalFailure()) return;
  }
}

TEST_F(RecoveryTest, DamageBeforeAMarkMakesTheCubeReadOnlyAndShowsWhatIsWhole) {
  frees_space_ = false;  // what records that are damaged made free is gone
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(testing::seed()));
  for (int n = 0; n < 25; ++n) step();
  ASSERT_TRUE(store_->sync().ok());
  const std::uintmax_t marked = fs::file_size(newest(directory_.path(), "journal")) - 72;
  for (int n = 0; n < 3; ++n) step();
  for (int turn = 0; turn < 30; ++turn) {
    const auto copy = image();
    const std::string journal = newest(copy->path(), "journal");
    std::fstream file(journal, std::ios::in | std::ios::out | std::ios::binary);
    const auto at = static_cast<std::streamoff>(random_() % marked);
    file.seekg(at);
    const auto old = static_cast<char>(file.get());
    file.seekp(at);
    file.put(static_cast<char>(old ^ 0x10));
    file.close();
    auto store = Store::open(copy->path(), {});
    auto cube = (*store)->find("c");
    ASSERT_TRUE(cube.ok()) << cube.error().sentence;
    std::size_t i = history_.size();
    while (i > 0 && !difference(**cube, history_[i - 1]).empty()) --i;
    ASSERT_GT(i, 0U) << "no state of the past";
    if (!(*cube)->read_only()) {
      EXPECT_EQ(i, history_.size()) << "only a byte of padding may go unnoticed";
      continue;
    }
    EXPECT_NE((*cube)->last_error(), "");
    EXPECT_EQ(put(**cube, "no", file_of(random_plane())).error().code,
              std::errc::read_only_file_system);
    if (HasFatalFailure()) return;
  }
}

TEST_F(RecoveryTest, BetweenTwoJournalsTheOlderCheckpointLeadsThroughBoth) {
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(testing::seed()));
  for (int round = 0; round < 2; ++round) {
    for (int n = 0; n < 20; ++n) step();
    if (HasFatalFailure()) return;
    fill_journal();
    const std::string before = newest(directory_.path(), "checkpoint");
    ASSERT_TRUE(store_->sync().ok());
    const std::size_t rotated = synced_ = history_.size() - 1;
    ASSERT_NE(newest(directory_.path(), "checkpoint"), before) << "no other journal was begun";
    ASSERT_EQ(difference(*cube_, state_), "");
    for (int n = 0; n < 20; ++n) {
      step();
      if (HasFatalFailure()) return;
      if (n % 5 != 0) continue;
      SCOPED_TRACE("round " + std::to_string(round) + " step " + std::to_string(n));
      check_image(image()->path(), history_.size() - 1, history_.size() - 1);
      auto copy = image();
      fs::remove(newest(copy->path(), "checkpoint"));  // a crash before it had its name
      check_image(copy->path(), history_.size() - 1, history_.size() - 1);
      if (synced_ == rotated) {  // later the journal is known to be on disk
        copy = image();
        fs::remove(newest(copy->path(), "checkpoint"));
        fs::remove(newest(copy->path(), "journal"));
        check_image(copy->path(), rotated, history_.size() - 1);
      }
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(RecoveryTest, ADamagedCheckpointIsReportedAndHidesNothing) {
  for (int n = 0; n < 20; ++n) step();
  fill_journal();
  ASSERT_TRUE(store_->sync().ok());
  for (int n = 0; n < 5; ++n) step();
  for (const std::uintmax_t at : {9U, 100U, 200U, 1000U}) {
    const auto copy = image();
    std::fstream file(newest(copy->path(), "checkpoint"),
                      std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(at));
    const auto old = static_cast<char>(file.get());
    file.seekp(static_cast<std::streamoff>(at));
    file.put(static_cast<char>(old ^ 0x5a));
    file.close();
    auto store = Store::open(copy->path(), {});
    auto cube = (*store)->find("c");
    ASSERT_TRUE(cube.ok()) << cube.error().sentence;
    EXPECT_TRUE((*cube)->read_only());
    EXPECT_NE((*cube)->last_error(), "");
    EXPECT_EQ(difference(**cube, state_), "");
  }
}

TEST_F(RecoveryTest, AJournalThatLostRecordsBeforeTheNextOneIsDamage) {
  for (int n = 0; n < 20; ++n) step();
  fill_journal();
  ASSERT_TRUE(store_->sync().ok());
  for (int n = 0; n < 5; ++n) step();
  const auto copy = image();
  fs::remove(newest(copy->path(), "checkpoint"));
  fs::resize_file(copy->path() + "/c/journal.000001", 4000);
  auto store = Store::open(copy->path(), {});
  auto cube = (*store)->find("c");
  ASSERT_TRUE(cube.ok()) << cube.error().sentence;
  EXPECT_TRUE((*cube)->read_only());
}

TEST_F(RecoveryTest, ShortenedFilesAreAnErrorAndNoDeath) {
  frees_space_ = false;  // at the end of the brick file nobody would miss it
  for (int n = 0; n < 25; ++n) step();
  ASSERT_TRUE(store_->sync().ok());
  ASSERT_TRUE(cube_->rename_frame(state_.planes[0].name, "renamed").ok());
  for (const char* name : {"bricks", "heap", "journal.000001", "checkpoint.000001", "history"}) {
    for (const unsigned part : {0U, 1U, 2U, 3U}) {
      const auto copy = image();
      const std::string path = copy->path() + "/c/" + name;
      fs::resize_file(path, fs::file_size(path) * part / 4);
      auto store = Store::open(copy->path(), {});
      ASSERT_TRUE(store.ok());
      const auto cube = (*store)->find("c");
      if (!cube.ok()) {
        EXPECT_EQ(cube.error().code, std::errc::io_error);
        continue;
      }
      // A journal without its end, the mark included, is one whose end never came to be.
      const std::string_view file(name);
      if (file != "history" && (file != "journal.000001" || part == 0)) {
        EXPECT_TRUE((*cube)->read_only()) << name;
      }
      if ((*cube)->pin()->live_frames() > 0)
        (void)read_all(**cube, *View::whole((*cube)->pin()->axes));
    }
  }
}

TEST_F(RecoveryTest, SpaceThatAFrameLeftBehindComesBackOnceNobodyLooks) {
  Plane plane = random_plane();
  plane.width = plane.height = 256;
  plane.elements = random_elements(random_, type, 256 * 256);
  auto ingest = begin(plane);
  ASSERT_TRUE(ingest->write(0, as_bytes(file_of(plane))).ok());
  ASSERT_TRUE(ingest->commit().ok());
  ASSERT_TRUE(store_->sync().ok());
  const auto bytes = [&] { return std::strtoull(cube_->property("bytes")->c_str(), nullptr, 10); };
  const auto one = bytes();
  const auto old_elements = plane.elements;
  for (const bool looked_at : {false, true}) {
    std::optional<Pinned> pinned = cube_->pin();
    const View view = *View::whole((*pinned)->axes);
    plane.elements = random_elements(random_, type, 256 * 256);
    ASSERT_TRUE(ingest->write(header_bytes, as_bytes(file_of(plane)).subspan(header_bytes)).ok());
    ASSERT_TRUE(ingest->commit().ok());
    if (!looked_at) pinned.reset();
    ASSERT_TRUE(store_->sync().ok());
    if (looked_at) {
      EXPECT_GT(bytes(), one);
      std::vector<std::byte> seen(256 * 256 * 2);
      ASSERT_TRUE(cube_->read(*pinned, view, {0, 256 * 256}, seen.data(), native(type)).ok());
      EXPECT_NE(seen, plane.elements);
      pinned.reset();
      ASSERT_TRUE(store_->sync().ok());  // nothing is dirty
    }
    EXPECT_LE(bytes(), 2 * one + 4096);  // with a layer that is reserved ahead
  }
  state_.planes = {plane};
  EXPECT_EQ(difference(*cube_, state_), "");
}

TEST_F(RecoveryTest, ALossOfPowerAfterARestartLosesNothingThatWasSynced) {
  std::atomic<int> syncs_of_journals = 0;
  const testing::SyncHook hook([&](const std::string& file) {
    if (file.starts_with("journal.")) ++syncs_of_journals;
    return 0;
  });
  // A mark need not be on disk when a sync returns. Before a restart clears what frames left that
  // are gone by then, it has to be.
  for (int n = 0; n < 3; ++n) {
    const Plane plane = random_plane();
    ASSERT_TRUE(put(*cube_, plane.name, file_of(plane)).ok());
    state_.append(plane);
  }
  const std::optional<Pinned> pinned = cube_->pin();  // so that nothing is cleared yet
  const Plane gone = state_.take(1);
  ASSERT_TRUE(cube_->remove_frame(gone.name, gone.name).ok());
  ASSERT_TRUE(cube_->discard_frame(gone.name).ok());
  ASSERT_TRUE(store_->sync().ok());
  const auto killed = image();
  const int before = syncs_of_journals.exchange(0);
  auto store = Store::open(killed->path(), {});
  ASSERT_TRUE(store.ok());
  const auto cube = (*store)->find("c");
  ASSERT_TRUE(cube.ok());
  EXPECT_EQ(difference(**cube, state_), "");
  check_space(**cube);
  EXPECT_GT(before, 0);
  EXPECT_GT(syncs_of_journals, 0);
}

TEST_F(RecoveryTest, AnEndBeforeTheLastFrameTookTheDefinitionAlongLeavesACubeWithoutOne) {
  const Plane plane = random_plane();
  ASSERT_TRUE(put(*cube_, plane.name, file_of(plane)).ok());
  ASSERT_TRUE(cube_->remove_frame(plane.name, plane.name).ok());
  const std::uintmax_t before = fs::file_size(newest(directory_.path(), "journal"));
  ASSERT_TRUE(cube_->discard_frame(plane.name).ok());
  ASSERT_FALSE(cube_->pin()->definition.defined);
  const std::uintmax_t length = fs::file_size(newest(directory_.path(), "journal"));
  const auto copy = image();
  fs::resize_file(newest(copy->path(), "journal"), length - 1);  // the last record is torn
  ASSERT_GT(length, before);
  auto store = Store::open(copy->path(), {});
  ASSERT_TRUE(store.ok());
  auto cube = (*store)->find("c");
  ASSERT_TRUE(cube.ok());
  EXPECT_EQ((*cube)->pin()->places.size(), 0U);
  EXPECT_FALSE((*cube)->pin()->definition.defined);
  EXPECT_EQ((*cube)->pin()->boxes.size(), 0U);
  EXPECT_TRUE(
      put(**cube, "other",
          frame_file(FormatId::fits, DType::f32, {5}, random_elements(random_, DType::f32, 5)))
          .ok());
}

TEST_F(RecoveryTest, AnEndWithAViewOrAStreamStillOpenLeavesNoBytesBehind) {
  // What a pinned view shows is not cleared at the end of the run; the next run must do it.
  Plane plane = random_plane();
  plane.width = plane.height = 200;
  plane.elements = random_elements(random_, type, 200 * 200);
  auto ingest = begin(plane);
  ASSERT_TRUE(ingest->write(0, as_bytes(file_of(plane))).ok());
  ASSERT_TRUE(ingest->commit().ok());
  for (int n = 0; n < 6; ++n) {
    Plane next = random_plane();
    ASSERT_TRUE(put(*cube_, next.name, file_of(next)).ok());
    state_.append(next);
  }
  std::optional<Pinned> pinned = cube_->pin();
  plane.elements = random_elements(random_, type, plane.width * plane.height);
  ASSERT_TRUE(ingest->write(0, as_bytes(file_of(plane))).ok());
  ASSERT_TRUE(ingest->commit().ok());
  ingest.reset();
  Plane unfinished = plane;
  unfinished.name = "unfinished";
  auto stream = begin(unfinished);
  ASSERT_TRUE(stream->write(0, as_bytes(file_of(unfinished)).first(60'000)).ok());
  state_.insert(0, plane);
  store_.reset();
  const auto copy = image();
  pinned.reset();
  stream.reset();
  history_ = {state_};
  check_image(copy->path(), 0, 0);
}

}  // namespace
}  // namespace accrete
