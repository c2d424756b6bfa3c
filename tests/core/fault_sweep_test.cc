// Every system call of a scenario fails once in each way, or is the last one of the process.
//
// The scenario is a list of operations on a store. A first run, undisturbed, notes what a user sees
// after each of them, and counts the calls. Then, for every call k and
//
// - the end of the process there (also in the middle of a write): the store is opened again, and
//   shows what was acknowledged, or that and the operation under way;
// - an error there (also a full disk from there on, until the operation ends): an operation that
//   says that it failed has changed nothing, one that says that it succeeded is done; what failed
//   succeeds when it is tried again, unless the cube is fenced: then it is read-only, and shows
//   what it showed, or the operation as well, or, if it could not all be read, what it showed
//   earlier; opened again it goes on. In the end all is as after the undisturbed run.
//
// ACCRETE_SWEEP_STEP=N looks at every N-th call only, which is what sanitizers do anyway.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <set>

#include "core/checksum.h"
#include "core/replacement.h"
#include "core/system_calls.h"
#include "tests/core/poke_fixture.h"

namespace accrete {
namespace {

namespace fs = std::filesystem;

using testing::Bytes;
using testing::frame_file;

constexpr DType type = DType::i16;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int usual_step = 11;
#else
constexpr int usual_step = 1;
#endif

// ---- The scenario ----

// A store, open, with what its operations need.
struct World {
  std::string path;
  std::unique_ptr<Store> store;

  Result<std::shared_ptr<Cube>> cube() const { return store->find("c"); }
  Status open() {
    StoreOptions options;
    options.checkpoint_step = 6 << 10;
    ACCRETE_TRY(store, Store::open(path, options));
    return {};
  }
  Status reopen() {
    store.reset();
    return open();
  }
};

struct Operation {
  std::string what;
  std::function<Status(World&)> run;
  std::errc refusal = {};  // it is to be refused so, and changes nothing
};

Bytes pattern(std::uint64_t count, unsigned salt) {
  std::mt19937_64 random(salt);
  return testing::random_elements(random, type, count);
}

std::string fits(const Shape& shape, unsigned salt) {
  return frame_file(FormatId::fits, type, shape,
                    pattern(*checked_product({shape.begin(), shape.size()}), salt));
}

Operation put(const std::string& what, const std::string& name, std::string file,
              IngestRequest request = {}, std::errc refusal = {}) {
  return {what,
          [=, file = std::move(file)](World& world) -> Status {
            ACCRETE_TRY(const auto cube, world.cube());
            const auto id = testing::put(*cube, name, file, request);
            return id.ok() ? Status() : Status(id.error());
          },
          refusal};
}

Operation on_cube(const std::string& what, std::function<Status(Cube&)> body) {
  return {what, [body = std::move(body)](World& world) -> Status {
            ACCRETE_TRY(const auto cube, world.cube());
            return body(*cube);
          }};
}

Operation poke(const std::string& what, Shape at, std::uint64_t count, unsigned salt) {
  return on_cube(what, [=](Cube& cube) -> Status {
    const Pinned pinned = cube.pin();
    ACCRETE_TRY(const View view, View::make(pinned->axes, {{0, {at[0], at[0] + count}}}, at));
    const auto poked = testing::poke(cube, pinned, view, {0, count}, pattern(count, salt));
    return poked.ok() ? Status() : Status(poked.error());
  });
}

Operation replace_plane(const std::string& what, std::uint64_t z, unsigned salt) {
  return on_cube(what, [=](Cube& cube) -> Status {
    const Pinned pinned = cube.pin();
    const Shape shape = pinned->shape();
    ACCRETE_TRY(const View view,
                View::make(pinned->axes, {{0, {0, shape[0]}}, {1, {0, shape[1]}}}, {0, 0, z}));
    ACCRETE_TRY(const auto replacement, Replacement::begin(cube));
    ACCRETE_CHECK(replacement->write(0, pattern(view.element_count(), salt)));
    RecentValues::Ticket former;
    return replacement->commit(pinned, view, format(FormatId::raw), former);
  });
}

Operation set(const std::string& name, const std::string& value) {
  return on_cube("set " + name, [=](Cube& cube) { return cube.set_property(name, value); });
}

Operation sync() {
  return {"sync", [](World& world) { return world.store->sync(); }};
}

Operation remount() {
  return {"remount", [](World& world) { return world.reopen(); }};
}

std::vector<Operation> scenario() {
  const std::string cards = "EXPTIME =                  1.5" + std::string(50, ' ');
  const std::string residue(2880 * 2, '!');
  IngestRequest first;
  first.side = Side::prepend;
  IngestRequest second;
  second.side = Side::insert;
  second.axis = 2;
  second.at = 1;
  IngestRequest side;
  side.axis = 0;
  std::vector<Operation> all{
      {"make the cube",
       [](World& world) -> Status {
         const auto cube = world.store->create("c");
         return cube.ok() ? Status() : Status(cube.error());
       }},
      set("pad", "7"),
      put("the first frame", "a.fits", fits({9, 5}, 1)),
      put("append", "b.fits", fits({9, 5}, 2)),
      put("insert a wider frame", "c.npy", frame_file(FormatId::npy, type, {12, 5}, pattern(60, 3)),
          second),
      sync(),
      poke("poke a frame", {2, 1, 0}, 5, 4),
      poke("poke pad", {9, 4, 0}, 3, 5),
      put("prepend a higher frame", "d.fits", fits({9, 7}, 6), first),
      replace_plane("replace a plane", 1, 7),
      put("refuse a frame", "bad.fits", fits({9, 5}, 8).substr(0, 2900), {},
          std::errc::invalid_argument),
      sync(),
      on_cube("remove", [](Cube& cube) { return cube.remove_frame("c.npy", "c.npy"); }),
      poke("poke beside it", {0, 0, 1}, 9, 9),
      on_cube("restore", [](Cube& cube) { return cube.restore_frame("c.npy", "c.npy"); }),
      put("append with something behind", "e.fits", fits({9, 5}, 10) + residue),
      put("a strip at the side", "side.fits", fits({2, 7}, 11), side),
      set("header", cards),
      on_cube("edit a frame's cards",
              [cards](Cube& cube) -> Status {
                const auto id = cube.find_frame("b.fits");
                if (!id) return fail(std::errc::no_such_file_or_directory, "no frame");
                return cube.set_frame_cards(*id, {cards});
              }),
      on_cube("remove another", [](Cube& cube) { return cube.remove_frame("e.fits", "e.fits"); }),
      sync(),
      on_cube("discard it", [](Cube& cube) { return cube.discard_frame("e.fits"); }),
      sync(),
      put("append into its space", "f.fits", fits({9, 5}, 12)),
      remount(),
      on_cube("give the place of another",
              [](Cube& cube) { return cube.rename_frame("f.fits", "a.fits"); }),
      set("order", "name"),
      put("append in order", "aa.fits", fits({9, 5}, 13)),
      poke("poke without a sync", {1, 1, 2}, 7, 14),
      {"rename the cube",
       [](World& world) -> Status {
         ACCRETE_CHECK(world.store->rename("c", "k"));
         return {};
       }},
      {"name it back", [](World& world) { return world.store->rename("k", "c"); }},
      {"make another",
       [](World& world) -> Status {
         const auto cube = world.store->create("other");
         return cube.ok() ? Status() : Status(cube.error());
       }},
      {"remove it", [](World& world) { return world.store->remove("other"); }},
      remount(),
      put("append at last", "z.fits", fits({9, 5}, 15)),
      remount(),
  };
  for (const char* name :
       {"a.fits", "aa.fits", "b.fits", "c.npy", "d.fits", "side.fits", "z.fits"}) {
    const std::string text = name;
    all.push_back(on_cube("empty: remove " + text,
                          [=](Cube& cube) { return cube.remove_frame(text, text); }));
    all.push_back(
        on_cube("empty: discard " + text, [=](Cube& cube) { return cube.discard_frame(text); }));
  }
  all.push_back(sync());
  all.push_back(put("another first frame", "n.fits", fits({3, 2}, 16)));
  all.push_back(remount());
  return all;
}

// ---- What a user sees ----

std::string sum(const Bytes& bytes) {
  return std::to_string(bytes.size()) + ":" + std::to_string(checksum(bytes));
}

std::string look(const Cube& cube) {
  const Pinned pinned = cube.pin();
  std::string seen = cube.name() + ": " + to_string(pinned->shape()) + "\n";
  for (const char* name : {"dtype", "pad", "order", "header"})
    if (const auto text = cube.property(name); text.ok()) seen += *text;
  for (const bool removed : {false, true})
    for (const FrameId id : pinned->frames_in_order(removed)) {
      const FrameRow row = *pinned->frames.find(id);
      const std::string file = testing::file_of(cube, row);
      seen += (removed ? "removed " : "live ") + cube.frame_name(row) + " " +
              std::to_string(checksum(as_bytes(file)));
      for (const std::string& card : cube.frame_cards(row)) seen += " " + card;
      seen += "\n";
    }
  if (!pinned->definition.defined) return seen;
  const auto view = View::whole(pinned->axes);
  if (!view.ok()) return seen;
  return seen + "elements " + sum(testing::read_all(cube, pinned, *view)) + " mask " +
         sum(testing::mask_of(cube, pinned, *view)) + "\n";
}

std::string look(const World& world) {
  std::string seen;
  for (const std::string& name : world.store->names()) {
    const auto cube = world.store->find(name);
    seen += cube.ok() ? look(**cube) : name + " cannot be opened: " + cube.error().sentence;
  }
  return seen;
}

bool is_fenced(const World& world) {
  for (const std::string& name : world.store->names())
    if (const auto cube = world.store->find(name); cube.ok() && (*cube)->read_only()) return true;
  return false;
}

// ---- The sweep ----

class FaultSweep : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const char* text = std::getenv("ACCRETE_SWEEP_STEP")) step_ = std::atoi(text);
    World world = new_world();
    std::atomic<int> calls = 0;
    {
      const SystemCallWatch watch([&](SystemCall, const std::string&) {
        ++calls;
        return Intervention{};
      });
      ASSERT_TRUE(world.open().ok());
      for (const Operation& operation : operations_) {
        begins_.push_back(calls);
        const Status status = operation.run(world);
        ASSERT_EQ(status.ok() ? std::errc{} : status.error().code, operation.refusal)
            << operation.what << ": " << (status.ok() ? "" : status.error().sentence);
        const int so_far = calls;
        states_.push_back(look(world));
        ASSERT_NE(states_.back().find("\n"), std::string::npos) << operation.what;
        calls = so_far;  // a look makes calls, too
      }
    }
    calls_ = calls;
    states_.insert(states_.begin(), "");
    world.store.reset();
  }

  // A store of its own, in memory where there is such a place.
  World new_world() {
    world_.reset();
    world_ = std::make_unique<testing::TemporaryDirectory>(
        ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : fs::temp_directory_path().string());
    return World{world_->path(), nullptr};
  }

  // How many operations are behind a store that shows this; nothing when it is none of
  // [first, last].
  std::optional<std::size_t> find(const std::string& seen, std::size_t first,
                                  std::size_t last) const {
    for (std::size_t i = first; i <= last && i < states_.size(); ++i)
      if (states_[i] == seen) return i;
    return std::nullopt;
  }

  const std::vector<Operation> operations_ = scenario();
  std::vector<std::string> states_;  // after none, one, … of the operations
  std::vector<int> begins_;          // the calls that were made before each
  int calls_ = 0;
  int step_ = usual_step;
  std::unique_ptr<testing::TemporaryDirectory> world_;
};

// Runs the scenario until call `last`, before which the process ends; `torn`: of a write half is
// done. Returns how many operations were acknowledged, and whether it came so far.
struct Death {
  std::size_t acknowledged = 0;
  bool happened = false;
};

Death die_at(World& world, const std::vector<Operation>& operations, int last, bool torn) {
  auto* const acknowledged = static_cast<std::atomic<std::size_t>*>(
      ::mmap(nullptr, sizeof(std::atomic<std::size_t>), PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  *acknowledged = 0;
  const pid_t child = ::fork();
  if (child == 0) {
    int calls = 0;
    const SystemCallWatch watch([&](SystemCall call, const std::string&) {
      const int now = calls++;
      const bool splits = torn && call == SystemCall::write && now == last;
      if (now == last + 1 || (now == last && !splits)) ::kill(::getpid(), SIGKILL);
      return splits ? Intervention{0, 1} : Intervention{};
    });
    if (!world.open().ok()) ::_exit(1);
    for (const Operation& operation : operations) {
      (void)operation.run(world);
      ++*acknowledged;
    }
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  const Death death{*acknowledged, WIFSIGNALED(status) != 0};
  ::munmap(acknowledged, sizeof(std::atomic<std::size_t>));
  return death;
}

TEST_F(FaultSweep, EndsOfTheProcess) {
  int points = 0;
  int under_way = 0;
  for (const bool torn : {false, true})
    for (int k = 0; k < calls_; k += step_) {
      World world = new_world();
      const Death death = die_at(world, operations_, k, torn);
      if (!death.happened) break;
      ++points;
      ASSERT_TRUE(world.open().ok()) << "call " << k;
      const auto state = find(look(world), death.acknowledged, death.acknowledged + 1);
      ASSERT_TRUE(state) << "ended at call " << k << (torn ? ", torn" : "") << ", in "
                         << operations_[death.acknowledged].what << ", shows\n"
                         << look(world) << "and not\n"
                         << states_[death.acknowledged] << "or\n"
                         << states_[std::min(death.acknowledged + 1, states_.size() - 1)];
      ASSERT_FALSE(is_fenced(world)) << "call " << k;
      if (*state > death.acknowledged) ++under_way;
      // It goes on from there.
      for (std::size_t i = *state; i < operations_.size(); ++i) {
        const Status status = operations_[i].run(world);
        ASSERT_EQ(status.ok() ? std::errc{} : status.error().code, operations_[i].refusal)
            << "ended at call " << k << ": " << operations_[i].what << ": "
            << (status.ok() ? "" : status.error().sentence);
      }
      ASSERT_EQ(look(world), states_.back()) << "ended at call " << k;
    }
  std::printf(
      "%d ends of the process, %d states verified, %d of them with the operation under way,"
      " 0 losses\n",
      points, 2 * points, under_way);
}

// The process ends in the middle, and the next one meets an error while it recovers.
TEST_F(FaultSweep, ErrorsOfRecovery) {
  int points = 0;
  int refused = 0;
  for (const int error : {EIO, ENOSPC})
    for (int end = calls_ / 24; end < calls_; end += calls_ / 12 * step_)
      for (int k = 0;; ++k) {
        World world = new_world();
        const Death death = die_at(world, operations_, end, false);
        if (!death.happened) break;
        int calls = 0;
        bool struck = false;
        std::string in = "ended at call " + std::to_string(end) + ", then error " +
                         std::to_string(error) + " at call " + std::to_string(k);
        {
          const SystemCallWatch watch([&](SystemCall, const std::string& name) {
            if (calls++ != k) return Intervention{};
            struck = true;
            in += " (of '" + name + "')";
            return Intervention{error};
          });
          bool whole = world.open().ok();
          if (whole)
            for (const std::string& name : world.store->names())
              whole = world.store->find(name).ok() && whole;
          if (!whole) ++refused;
        }
        // What opened shows what counts; what did not is as it was.
        for (const bool again : {false, true}) {
          if (again) {
            ASSERT_TRUE(world.reopen().ok()) << in;
            ASSERT_FALSE(is_fenced(world)) << in;
          }
          if (world.store == nullptr) continue;
          ASSERT_TRUE(find(look(world), death.acknowledged, death.acknowledged + 1))
              << in << (again ? ", opened again" : "") << ", shows\n"
              << look(world) << "and not\n"
              << states_[death.acknowledged];
        }
        if (!struck) break;
        ++points;
      }
  std::printf("%d errors while a cube is recovered, %d of them in the way, 0 losses\n", points,
              refused);
}

// What happens to call k, and to those behind it until the operation ends.
struct Fault {
  const char* what;
  int error;
  std::size_t at_most = SIZE_MAX;
  bool stays = false;
};

constexpr Fault faults[] = {
    {"EIO", EIO},     {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT},
    {"EINTR", EINTR}, {"Short", 0, 1},    {"FullDisk", ENOSPC, SIZE_MAX, true},
};

void PrintTo(const Fault& fault, std::ostream* out) {
  *out << fault.what;
}

class Errors : public FaultSweep, public ::testing::WithParamInterface<Fault> {};

TEST_P(Errors, LeaveEverythingWhole) {
  const Fault fault = GetParam();
  int points = 0;
  int refused = 0;
  int fenced = 0;
  for (int k = 0; k < calls_; k += step_) {
    World world = new_world();
    int calls = 0;
    bool armed = true;
    bool struck = false;
    std::string where = std::string(fault.what) + " at call " + std::to_string(k);
    const SystemCallWatch watch([&](SystemCall call, const std::string& name) {
      if (!armed) return Intervention{};
      const int now = calls++;
      const bool strikes = now == k || (fault.stays && now > k);
      if (!strikes) return Intervention{};
      if (!struck) where += " (" + std::to_string(static_cast<int>(call)) + " of '" + name + "')";
      struck = true;
      // A disk that is full can be read, and everything on it be removed.
      if (fault.stays && call != SystemCall::write && call != SystemCall::allocate &&
          call != SystemCall::make_directory)
        return Intervention{};
      return Intervention{fault.error, fault.at_most};
    });
    if (!world.open().ok()) {
      armed = false;
      ASSERT_TRUE(world.open().ok()) << where;
    }
    for (std::size_t i = 0; i < operations_.size(); ++i) {
      const Status status = operations_[i].run(world);
      const std::string in = where + ", in " + operations_[i].what;
      if (struck) armed = false;
      if (world.store == nullptr) {
        armed = false;
        ASSERT_TRUE(world.open().ok()) << in;
      }
      if (status.ok() || status.error().code == operations_[i].refusal) {
        if (!struck) continue;
        ASSERT_EQ(look(world), states_[i + 1]) << in;
        if (is_fenced(world)) {
          ++fenced;
          ASSERT_TRUE(world.reopen().ok()) << in;
          ASSERT_FALSE(is_fenced(world)) << in;
          ASSERT_EQ(look(world), states_[i + 1]) << in;
        }
        continue;
      }
      ASSERT_TRUE(struck) << in << ": " << status.error().sentence;
      ++refused;
      // A cube whose journal cannot be read shows an older state, read-only.
      const bool stands_still = is_fenced(world);
      ASSERT_TRUE(status.error().number() == fault.error || stands_still ||
                  status.error().code == std::errc::io_error)  // it could not be read
          << in << ": " << status.error().sentence;
      ASSERT_TRUE(find(look(world), stands_still ? 0 : i, stands_still ? i + 1 : i))
          << in << ": " << status.error().sentence << "; shows\n"
          << look(world) << "and not\n"
          << states_[i];
      if (stands_still) {
        ++fenced;
        ASSERT_TRUE(world.reopen().ok()) << in;
        ASSERT_FALSE(is_fenced(world)) << in;
        const auto state = find(look(world), i, i + 1);
        ASSERT_TRUE(state) << in << ", opened again, shows\n"
                           << look(world) << "and not\n"
                           << states_[i];
        if (*state > i) continue;
      }
      const Status again = operations_[i].run(world);
      ASSERT_EQ(again.ok() ? std::errc{} : again.error().code, operations_[i].refusal)
          << in << ", again: " << (again.ok() ? "" : again.error().sentence);
      ASSERT_EQ(look(world), states_[i + 1]) << in << ", again";
    }
    ASSERT_EQ(look(world), states_.back()) << where;
    if (!struck) break;
    ++points;
  }
  std::printf("%s: %d points, %d operations refused, %d fenced, 0 losses\n", fault.what, points,
              refused, fenced);
}

INSTANTIATE_TEST_SUITE_P(FaultSweep, Errors, ::testing::ValuesIn(faults),
                         [](const ::testing::TestParamInfo<Fault>& info) {
                           return std::string(info.param.what);
                         });

}  // namespace
}  // namespace accrete
