// Whether a store outlives the loss of power on a real filesystem.
//
//   power-loss [--fs ext4|xfs] [--seed N] [--states N] [--operations N] [--per-round N]
//   power-loss --sequences LENGTH [--fs …] [--seed N] [--states N]
//   power-loss --shutdowns N [--fs …] [--seed N]
//
// The first runs operations on a store that lies on a disk which records all that is written to it,
// and then tries states in which a loss of power may leave that disk: each prefix of what was
// written, and such a prefix where of the writes since the last flush some, or some of their
// sectors, are missing. Each is mounted, so that the filesystem does its own recovery, and the
// store opened. It has to be writable; nothing may be missing of what was synced; and all it shows
// has to be what seen.h says. It then has to take a frame, and to show the same when it is opened
// again. One of these states is what the next round begins with, so that recoveries are cut short,
// too.
//
// --sequences does so for all sequences of so many operations from one state, with each prefix.
// --shutdowns has the filesystem itself stop, as if the power went, while operations run.
// --states ends all when so many were tried, --seconds after that time; then sequences come in any
// order.
//
// Works in /dev/shm, as root, in a mount namespace of its own, which takes all mounts and devices
// with it when the program ends, however it does. The environment names ONE_FILE_DISK. With
// KEEP_IMAGE, the disk of the first loss is left in a file of that name.
//
// Ends with 0 when nothing was lost, 1 when something was, 2 on wrong use or other trouble.
#include <fcntl.h>
#include <getopt.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <thread>

#include "tests/power_loss/disk.h"
#include "tests/power_loss/workload.h"

namespace accrete::power_loss {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string type = "ext4";
  std::uint64_t seed = 1;
  std::uint64_t states = 10000;
  std::uint64_t operations = 40;
  std::uint64_t per_round = 400;
  std::uint64_t sequences = 0;
  std::uint64_t shutdowns = 0;
  std::uint64_t seconds = ~std::uint64_t{0};

  bool is_sample() const { return seconds != ~std::uint64_t{0}; }
};

std::atomic<bool> interrupted = false;

// A directory that is gone at the end.
class Scratch {
 public:
  Scratch() {
    std::string path = "/dev/shm/power-loss-XXXXXX";
    if (::mkdtemp(path.data()) == nullptr) throw std::runtime_error(path);
    path_ = path;
  }
  ~Scratch() {
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(path_, ignored)) fs::remove(entry, ignored);
    fs::remove(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  std::string file(const std::string& name) const { return path_ + "/" + name; }
  std::string directory(const std::string& name) const {
    fs::create_directory(file(name));
    return file(name);
  }

 private:
  std::string path_;
};

Image make_filesystem(const std::string& type, const std::string& path) {
  const bool is_xfs = type == "xfs";
  Image(std::uint64_t{is_xfs ? 320U : 64U} << 20).save(path);
  if (is_xfs)
    run({"mkfs.xfs", "-q", path});
  else
    run({"mkfs.ext4", "-q", "-E", "lazy_itable_init=0", path});
  return Image::load(path);
}

// What was known when the power went.
struct Moment {
  std::optional<std::size_t> synced, acked, names;
  // Names that were told while it went.
  std::optional<std::size_t> last_names;

  void take(const std::string& mark) {
    const std::size_t space = mark.find(' ');
    const std::string what = mark.substr(0, space);
    if (what != "synced" && what != "acked" && what != "names") return;
    (what == "synced" ? synced : what == "acked" ? acked : names) = std::stoul(mark.substr(space));
  }
};

struct Recording {
  bool begins_empty;  // without the cube "c"
  std::vector<Entry> log;
  std::vector<State> states;
  std::vector<std::vector<std::string>> names;
};

std::string difference(const Seen& a, const Seen& b) {
  if (a.structure != b.structure) return "another structure:\n" + a.structure + "\n" + b.structure;
  for (const auto& [id, frame] : a.frames)
    if (*frame.elements != *b.frames.at(id).elements)
      return "other elements of frame " + std::to_string(id);
  return a.patches == b.patches ? "" : "other elements where no frame gave any";
}

struct OpenStore {
  std::unique_ptr<Store> store;
  std::shared_ptr<Cube> cube;  // "c", if it is there

  explicit OpenStore(const std::string& path) {
    auto opened = Store::open(path, {});
    if (!opened.ok()) throw std::runtime_error("the store: " + opened.error().sentence);
    store = std::move(opened).value();
    for (const std::string& name : store->names()) {
      const auto found = store->find(name);
      if (!found.ok()) throw std::runtime_error("cube " + name + ": " + found.error().sentence);
      if ((*found)->read_only())
        throw std::runtime_error("cube " + name + " is read-only: " + (*found)->last_error());
      if (name == "c") cube = *found;
    }
  }
  ~OpenStore() { cube.reset(); }
};

// Throws what is wrong with a store after a loss of power.
void check_store(const std::string& path, const Recording& recording, const Moment& moment,
                 std::mt19937_64& random) {
  Seen after;
  {
    OpenStore open(path);
    const auto names = open.store->names();
    const auto& allowed = recording.names;
    if (moment.names) {
      const auto first = allowed.begin() + static_cast<std::ptrdiff_t>(*moment.names);
      const std::size_t next = moment.last_names.value_or(*moment.names) + 2;
      const auto end =
          allowed.begin() + static_cast<std::ptrdiff_t>(std::min(next, allowed.size()));
      if (std::find(first, end, names) == end)
        throw std::runtime_error("there are other cubes than there were");
    }
    if (open.cube == nullptr) {
      if (recording.begins_empty && !moment.synced) return;
      throw std::runtime_error("the cube is gone");
    }
    std::string why;
    const std::size_t begun =
        std::min(moment.acked ? *moment.acked + 1 : 0, recording.states.size() - 1);
    if (!match(recording.states, moment.synced.value_or(0), begun, look(*open.cube), why))
      throw std::runtime_error(why);
    const Status added = add_frame(*open.cube, "after-the-loss", random);
    if (!added.ok()) throw std::runtime_error("a frame is refused: " + added.error().sentence);
    after = look(*open.cube);
  }
  const OpenStore again(path);
  if (const std::string what = difference(after, look(*again.cube)); !what.empty())
    throw std::runtime_error("opened again it has " + what);
}

class Program {
 public:
  explicit Program(const Options& options)
      : options_(options),
        random_(options.seed),
        fresh_(make_filesystem(options.type, scratch_.file("fresh"))),
        mount_point_(scratch_.directory("mnt")) {
    fresh_.save(scratch_.file("work"));
    device_.emplace(scratch_.file("work"), false);
  }

  int random_rounds() {
    std::optional<Image> base;
    for (std::uint64_t round = 0; goes_on(); ++round) {
      // Now and then from the beginning, else from where the power went.
      if (round % 3 == 0 || !base) base = fresh_;
      what_ = "round " + std::to_string(round);
      const bool stirs = random_() % 4 != 0, is_noisy = random_() % 2 == 0;
      const Recording recording = record(*base, random_(), is_noisy, [&](Workload& w) {
        for (std::uint64_t n = 0; n < options_.operations; ++n) {
          w.apply_any();
          if (stirs && random_() % 2 == 0) w.stir();
        }
      });
      base = try_states(*base, recording, 0, true);
      report();
    }
    return end();
  }

  int all_sequences() {
    const std::vector<std::string> alphabet = {"append", "insert",    "poke",    "replace",
                                               "remove", "restore",   "discard", "property",
                                               "sync",   "checkpoint"};
    const Recording start = record(fresh_, options_.seed, false, [](Workload& w) {
      for (const char* o : {"append", "append", "ragged", "append", "poke", "remove", "sync"})
        if (!w.apply(o)) throw std::runtime_error(std::string(o) + " in the start");
    });
    const Image base = Image::load(scratch_.file("disk"));
    std::uint64_t count = 1;
    for (std::uint64_t i = 0; i < options_.sequences; ++i) count *= alphabet.size();
    std::vector<std::uint64_t> numbers(count);
    std::iota(numbers.begin(), numbers.end(), std::uint64_t{0});
    if (options_.is_sample()) std::shuffle(numbers.begin(), numbers.end(), random_);
    std::vector<std::string> before;
    for (const std::uint64_t number : numbers) {
      if (!goes_on()) break;
      std::vector<std::string> sequence;
      for (std::uint64_t n = count / alphabet.size(); n > 0; n /= alphabet.size())
        sequence.push_back(alphabet[number / n % alphabet.size()]);
      what_ = "sequence";
      for (const std::string& operation : sequence) what_ += " " + operation;
      // What it has in common with the one before was tried with that.
      const auto common = static_cast<std::size_t>(
          std::mismatch(sequence.begin(), sequence.end(), before.begin(), before.end()).first -
          sequence.begin());
      std::size_t from = 0;
      bool is_possible = true;
      const Recording recording = record(base, options_.seed, false, [&](Workload& w) {
        for (std::size_t i = 0; i < sequence.size() && is_possible; ++i) {
          if (i == common) w.mark("new from here");
          is_possible = w.apply(sequence[i]);
          w.stir();
        }
        if (is_possible) w.apply("sync");
      });
      if (!is_possible) continue;
      for (std::size_t i = 0; i < recording.log.size() && common > 0; ++i)
        if (recording.log[i].kind == Entry::Kind::mark && recording.log[i].bytes == "new from here")
          from = i;
      before = sequence;
      ++sequences_;
      (void)try_states(base, recording, from, false);
      if (sequences_ % 20 == 0) report();
    }
    std::cout << sequences_ << " of " << count << " sequences were possible and tried\n";
    return end();
  }

  int shutdowns() {
    for (std::uint64_t n = 0; n < options_.shutdowns && goes_on(); ++n) {
      what_ = "shutdown " + std::to_string(n);
      const std::uint64_t seed = random_();
      Recording recording{true, {}, {}, {}};
      const auto began = std::chrono::steady_clock::now();
      (void)run_until_shutdown(seed, nullptr, &recording);
      const auto time = std::chrono::steady_clock::now() - began;
      const Duration wait = time * static_cast<int>(random_() % 1000) / 1000;
      const Moment moment = run_until_shutdown(seed, &wait, nullptr);
      (void)judge(recording, moment, false);
    }
    report();
    return end();
  }

 private:
  using Duration = std::chrono::steady_clock::duration;

  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count();
  }
  bool goes_on() const {
    return losses_ == 0 && !interrupted && tried_ < options_.states &&
           seconds() < static_cast<double>(options_.seconds);
  }

  Recording record(const Image& base, std::uint64_t seed, bool is_noisy,
                   const std::function<void(Workload&)>& body) {
    base.save(scratch_.file("disk"));
    Recording recording{true, {}, {}, {}};
    {
      const RecordingDisk disk(scratch_.file("disk"), scratch_.file("log"),
                               scratch_.directory("one"));
      std::optional<LoopDevice> device(std::in_place, disk.file(), true);
      Mount mount(device->path(), mount_point_, options_.type);
      device.reset();  // it lives as long as the mount
      // Also where the power went before anything was made durable.
      recording.begins_empty = !std::filesystem::exists(mount_point_ + "/store/c");
      {
        Workload workload(mount_point_ + "/store", seed,
                          [&](const std::string& text) { disk.mark(text); });
        std::atomic<bool> ends = false;
        std::thread noise([&] {
          std::mt19937_64 random(seed);
          while (is_noisy && !ends) {
            write_out_some(mount_point_ + "/store/c", random);
            std::this_thread::sleep_for(std::chrono::microseconds(random() % 3000));
          }
        });
        try {
          body(workload);
        } catch (...) {
          ends = true;
          noise.join();
          throw;
        }
        ends = true;
        noise.join();
        workload.close();
        recording.states = workload.states();
        recording.names = workload.names();
      }
      mount.unmount();
    }
    recording.log = read_log(scratch_.file("log"));
    return recording;
  }

  // Tries states of the disk at places from the log's entry `from` on, and gives one of them.
  Image try_states(const Image& base, const Recording& recording, std::size_t from,
                   bool with_some_missing) {
    const auto& log = recording.log;
    const auto writes =
        static_cast<std::uint64_t>(std::count_if(log.begin(), log.end(), [](const Entry& entry) {
          return entry.kind == Entry::Kind::write;
        }));
    const std::uint64_t at_most = with_some_missing ? options_.per_round / 2 : ~std::uint64_t{0};
    std::uint64_t chosen = random_() % std::max<std::uint64_t>(1, writes);
    Image stable = base;
    Image next = base;
    std::size_t flushed = 0;
    Moment moment;
    std::uint64_t write = 0;
    for (std::size_t at = 0; at < log.size() && goes_on(); ++at) {
      const Entry& entry = log[at];
      const std::span<const Entry> pending(log.data() + flushed, at + 1 - flushed);
      if (entry.kind == Entry::Kind::mark) moment.take(entry.bytes);
      if (entry.kind == Entry::Kind::flush) {
        stable.put(pending);
        flushed = at + 1;
      }
      if (entry.kind != Entry::Kind::write) continue;
      const bool is_next = write++ == chosen;
      if (at < from || (!is_next && random_() % writes >= at_most)) continue;
      place_ = " entry " + std::to_string(at);
      (void)try_state(stable, pending, recording, moment, false);
      if (!with_some_missing) continue;
      place_ += " with some missing";
      const std::vector<Entry> some = some_of(pending, random_);
      if (!try_state(stable, some, recording, moment, true) || !is_next) continue;
      next = stable;
      next.put(some);
    }
    return next;
  }

  // False: there was no filesystem on it.
  bool try_state(const Image& stable, std::span<const Entry> pending, const Recording& recording,
                 const Moment& moment, bool may_be_torn) {
    device_->flush();
    const int file = ::open(scratch_.file("work").c_str(), O_RDWR | O_CLOEXEC);
    if (file < 0) throw std::runtime_error("work");
    stable.store_in(file);
    for (const Entry& write : pending)
      if (write.kind == Entry::Kind::write &&
          ::pwrite(file, write.bytes.data(), write.bytes.size(),
                   static_cast<off_t>(write.offset)) != static_cast<ssize_t>(write.bytes.size()))
        throw std::runtime_error("work");
    ::close(file);
    if (const char* keep = std::getenv("KEEP_IMAGE")) {
      candidate_ = stable;
      candidate_->put(pending);
      keep_ = keep;
    }
    return judge(recording, moment, may_be_torn);
  }

  // Of the disk as it is.
  bool judge(const Recording& recording, const Moment& moment, bool may_be_torn) {
    std::optional<Mount> mount;
    try {
      mount.emplace(device_->path(), mount_point_, options_.type);
    } catch (const std::exception&) {
      // Nor can the filesystem stand that half of its superblock is missing.
      if (!may_be_torn) throw;
      ++not_mounted_;
      return false;
    }
    ++tried_;
    std::string trouble;
    try {
      check_store(mount_point_ + "/store", recording, moment, random_);
    } catch (const std::exception& error) {
      trouble = error.what();
    }
    mount->unmount();
    device_->flush();
    if (trouble.empty()) return true;
    ++losses_;
    if (candidate_) candidate_->save(keep_);
    std::cout << "LOSS: seed " << options_.seed << ", " << what_ << place_ << ": " << trouble
              << "\nof operations:";
    for (std::size_t i = 0; i < recording.states.size(); ++i) {
      std::cout << "\n  " << i << " " << recording.states[i].operation;
      if (moment.synced == i) std::cout << " (synced)";
      if (moment.acked == i) std::cout << " (acknowledged last)";
    }
    std::cout << std::endl;
    return true;
  }

  // Operations on an empty filesystem on the device. `wait`: until the filesystem stops. Else all
  // states go into `recording`.
  Moment run_until_shutdown(std::uint64_t seed, const Duration* wait, Recording* recording) {
    device_->flush();
    fresh_.save(scratch_.file("work"));
    Mount mount(device_->path(), mount_point_, options_.type);
    Moment moment;
    Moment last;
    // From now on nothing that is acknowledged counts: xfs lets fsync() of a directory succeed when
    // the change that it was to wait for has been given up meanwhile. (When the power goes nobody
    // hears of that.)
    std::atomic<bool> stops = false;
    const int directory = ::open(mount_point_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    std::thread stopper([&, how = static_cast<std::uint32_t>(1 + seed % 2)] {
      if (wait == nullptr) return;
      std::this_thread::sleep_for(*wait);
      stops = true;
      constexpr auto shutdown = _IOR('X', 125, std::uint32_t);  // of xfs and of ext4
      if (::ioctl(directory, shutdown, &how) != 0) interrupted = true;
    });
    try {
      Workload workload(mount_point_ + "/store", seed, [&](const std::string& mark) {
        last.take(mark);
        if (!stops) moment.take(mark);
      });
      for (std::uint64_t n = 0; n < options_.operations; ++n) workload.apply_any();
      workload.close();
      if (recording != nullptr) {
        recording->states = workload.states();
        recording->names = workload.names();
      }
    } catch (const std::exception&) {
      if (wait == nullptr) throw;
    }
    stopper.join();
    ::close(directory);
    mount.unmount();
    device_->flush();
    moment.acked = last.acked;  // how far it can have come
    moment.last_names = last.names;
    return moment;
  }

  void report() {
    std::cout << options_.type << ", " << what_ << ": " << tried_ << " states tried, "
              << tried_ - losses_ << " verified, " << losses_ << " losses, " << not_mounted_
              << " not mounted, " << static_cast<double>(tried_) / seconds() << " a second"
              << std::endl;
  }
  int end() {
    report();
    if (losses_ > 0) return 1;
    return interrupted || tried_ == 0 ? 2 : 0;
  }

  const Options options_;
  std::mt19937_64 random_;
  const Scratch scratch_;
  const Image fresh_;
  const std::string mount_point_;
  std::optional<LoopDevice> device_;  // over the state that is tried
  std::uint64_t tried_ = 0, losses_ = 0, not_mounted_ = 0, sequences_ = 0;
  std::string what_, place_;
  std::optional<Image> candidate_;
  std::string keep_;
  const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
};

int main(int argc, char** argv) {
  Options options;
  const option names[] = {{"fs", required_argument, nullptr, 'f'},
                          {"seed", required_argument, nullptr, 's'},
                          {"states", required_argument, nullptr, 'n'},
                          {"operations", required_argument, nullptr, 'o'},
                          {"per-round", required_argument, nullptr, 'p'},
                          {"sequences", required_argument, nullptr, 'q'},
                          {"shutdowns", required_argument, nullptr, 'd'},
                          {"seconds", required_argument, nullptr, 't'},
                          {}};
  for (int option = 0; (option = ::getopt_long(argc, argv, "", names, nullptr)) >= 0;) {
    const auto number = [] { return std::strtoull(optarg, nullptr, 10); };
    switch (option) {
      case 'f':
        options.type = optarg;
        break;
      case 's':
        options.seed = number();
        break;
      case 'n':
        options.states = number();
        break;
      case 'o':
        options.operations = number();
        break;
      case 'p':
        options.per_round = number();
        break;
      case 'q':
        options.sequences = number();
        break;
      case 't':
        options.seconds = number();
        break;
      case 'd':
        options.shutdowns = number();
        break;
      default:
        return 2;
    }
  }
  if (optind != argc || (options.type != "ext4" && options.type != "xfs")) {
    std::cerr << "usage: power-loss [--fs ext4|xfs] [--seed N] [--states N] …\n";
    return 2;
  }
  for (const int signal : {SIGINT, SIGTERM}) ::signal(signal, [](int) { interrupted = true; });
  try {
    leave_mount_namespace();
    Program program(options);
    if (options.sequences > 0) return program.all_sequences();
    if (options.shutdowns > 0) return program.shutdowns();
    return program.random_rounds();
  } catch (const std::exception& error) {
    std::cerr << "power-loss: " << error.what() << "\n";
    return 2;
  }
}

}  // namespace
}  // namespace accrete::power_loss

int main(int argc, char** argv) {
  return accrete::power_loss::main(argc, argv);
}
