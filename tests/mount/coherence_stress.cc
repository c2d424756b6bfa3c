// Processes that poke and read one cube through many views while it grows: none may ever see an
// old, torn or foreign element.
//
//   coherence-stress [OPTIONS] CUBE         a cube in a mount, new and empty
//   coherence-stress [OPTIONS] --plain DIR  one ordinary file under several names instead
//
// What they demand is said in stress_model.h.
//
// Ends with 0 when all was coherent, 1 when not, 2 on wrong use, 3 when a process hung.
#include <getopt.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "stress_actors.h"

namespace stress {
namespace {

// Starts the processes and looks after them. It never touches the mount itself, so it cannot hang.
class Parent {
 public:
  explicit Parent(const Options& options) : options_(options), board_(options) {
    struct stat status {};
    if (stat(options.root.c_str(), &status) == 0) device_ = status.st_dev;
  }

  int run() {
    const unsigned last = most_processes;
    start(last, [&] {
      Grower grower(options_, board_, last);
      options_.plain ? grower.start_plain() : grower.start();
    });
    bool well = watch(std::nullopt);
    if (well && board_.faults() == 0) {
      for (unsigned i = 0; i < options_.processes; ++i)
        start(i, [&, i] { Worker(options_, board_, i).run(); });
      if (!options_.plain) start(last, [&] { Grower(options_, board_, last).run(); });
      well = watch(options_.seconds);
    }
    if (well) {
      start(last, [&] {
        Grower grower(options_, board_, last);
        grower.find_removed();
        grower.restore_all();
        Worker worker(options_, board_, last);
        worker.verify();
        if (!options_.save.empty()) worker.save();
      });
      well = watch(std::nullopt);
    }
    print();
    if (hung_) return 3;
    const bool opened = board_.total(opens, opens) >= 50 * board_.total(opens_failed, opens_failed);
    if (!opened) std::puts("too many opens failed");
    return well && opened && board_.faults() == 0 ? 0 : 1;
  }

 private:
  struct Child {
    unsigned number;
    pid_t pid;
    std::uint64_t steps;
    Clock::time_point moved;
  };

  template <class Body>
  void start(unsigned number, const Body& body) {
    std::fflush(nullptr);
    const pid_t parent = getpid();
    const pid_t pid = fork();
    if (pid < 0) {
      std::perror("fork");
      std::exit(2);
    }
    if (pid > 0) return children_.push_back({number, pid, 0, Clock::now()});
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    dies_doing = board_->processes[number].doing.data();
    for (const int signal : {SIGBUS, SIGSEGV}) {
      struct sigaction action {};
      action.sa_handler = die;
      sigaction(signal, &action, nullptr);
    }
    body();
    std::fflush(nullptr);
    _exit(0);
  }

  static void die(int signal) {
    constexpr std::string_view what = "a signal (SIGBUS, SIGSEGV) came in: ";
    (void)!write(STDERR_FILENO, what.data(), what.size());
    (void)!write(STDERR_FILENO, dies_doing, std::strlen(dies_doing));
    (void)!write(STDERR_FILENO, "\n", 1);
    _exit(128 + signal);
  }

  // Waits for all, and tells them to end after some time. False if one failed or hung.
  bool watch(std::optional<double> seconds) {
    const auto begin = Clock::now();
    bool well = true;
    while (!children_.empty()) {
      std::this_thread::sleep_for(20ms);
      const auto now = Clock::now();
      if (seconds && now - begin > *seconds * 1s) board_->stop = true;
      for (auto child = children_.begin(); child != children_.end();) {
        int status = 0;
        if (waitpid(child->pid, &status, WNOHANG) == 0) {
          const std::uint64_t steps = board_->processes[child->number].steps;
          if (std::exchange(child->steps, steps) != steps) child->moved = now;
          if (now - child->moved > options_.patience * 1s) return give_up(), false;
          ++child;
          continue;
        }
        if (status != 0) {
          std::fprintf(stderr, "process %u ended with status %#x in: %s\n", child->number,
                       static_cast<unsigned>(status),
                       board_->processes[child->number].doing.data());
          board_->stop = true;
          well = false;
        }
        child = children_.erase(child);
      }
    }
    return well;
  }

  void give_up() {
    hung_ = true;
    std::fprintf(stderr, "no progress for %g s:\n", options_.patience);
    for (const Child& child : children_) {
      std::string where;
      std::ifstream("/proc/" + std::to_string(child.pid) + "/wchan") >> where;
      const std::chrono::duration<double> since = Clock::now() - child.moved;
      std::fprintf(stderr, "process %u (pid %d), for %.1f s in %s: %s\n", child.number, child.pid,
                   since.count(), where.c_str(), board_->processes[child.number].doing.data());
    }
    if (!options_.plain)
      std::ofstream(text("/sys/fs/fuse/connections/%u/abort", minor(device_))) << 1;
    for (const Child& child : children_) kill(child.pid, SIGKILL);
  }

  void print() {
    for (unsigned i = 0; i < counts; ++i)
      std::printf("%-40s %10llu\n", count_names[i],
                  static_cast<unsigned long long>(board_.total(i, i)));
    std::fflush(stdout);
  }

  static inline const char* dies_doing = "";

  const Options& options_;
  const Board board_;
  dev_t device_ = 0;
  std::vector<Child> children_;
  bool hung_ = false;
};

[[noreturn]] void usage() {
  std::fputs(
      "usage: coherence-stress [OPTIONS] CUBE | --plain DIR\n"
      "  --processes N       that poke and read; one more lets frames come and go\n"
      "  --seconds S         how long\n"
      "  --patience S        how long a process may take for one operation\n"
      "  --seed N            of all choices\n"
      "  --type T            of elements: uint64, int64, uint32\n"
      "  --frames npy|fits   what is copied in\n"
      "  --most-frames N     how many, at the end\n"
      "  --cached            of -o io=cached: writable shared mappings may be refused\n"
      "  --save FILE         write the cube's elements there at the end\n"
      "  --plain DIR         names of one ordinary file instead of a cube\n"
      "  --inject FAULT      stale, torn, lost or hang: do it, to see whether it is found\n",
      stderr);
  std::exit(2);
}

Options parse(int argc, char** argv) {
  Options options;
  enum { processes, seconds, patience, seed, type, frames, most, cached, save, plain, inject };
  const std::array<option, 12> known{{{"processes", required_argument, nullptr, processes},
                                      {"seconds", required_argument, nullptr, seconds},
                                      {"patience", required_argument, nullptr, patience},
                                      {"seed", required_argument, nullptr, seed},
                                      {"type", required_argument, nullptr, type},
                                      {"frames", required_argument, nullptr, frames},
                                      {"most-frames", required_argument, nullptr, most},
                                      {"cached", no_argument, nullptr, cached},
                                      {"save", required_argument, nullptr, save},
                                      {"plain", no_argument, nullptr, plain},
                                      {"inject", required_argument, nullptr, inject},
                                      {nullptr, 0, nullptr, 0}}};
  const auto choose = [](const std::string& name, std::initializer_list<const char*> names) {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) usage();
    return static_cast<unsigned>(found - names.begin());
  };
  for (int which = 0; (which = getopt_long(argc, argv, "", known.data(), nullptr)) != -1;) {
    switch (which) {
      case processes:
        options.processes = static_cast<unsigned>(std::atoi(optarg));
        break;
      case seconds:
        options.seconds = std::atof(optarg);
        break;
      case patience:
        options.patience = std::atof(optarg);
        break;
      case seed:
        options.seed = std::strtoull(optarg, nullptr, 10);
        break;
      case type: {
        const unsigned chosen = choose(optarg, {"uint64", "int64", "uint32"});
        options.element_bytes = chosen == 2 ? 4 : 8;
        options.is_signed = chosen == 1;
        break;
      }
      case frames:
        options.fits_frames = choose(optarg, {"npy", "fits"}) == 1;
        break;
      case most:
        options.most_frames = static_cast<unsigned>(std::atoi(optarg));
        break;
      case cached:
        options.cached = true;
        break;
      case save:
        options.save = optarg;
        break;
      case plain:
        options.plain = true;
        break;
      case inject:
        options.inject = Fault{choose(optarg, {"none", "stale", "torn", "lost", "hang"})};
        break;
      default:
        usage();
    }
  }
  if (optind + 1 != argc || options.processes < 1 || options.processes > most_processes ||
      options.most_frames < options.first_frames || options.most_frames > most_frames)
    usage();
  options.root = argv[optind];
  const Coding coding(options.element_bytes, options.is_signed);
  if ((options.most_frames + 1) * options.width * options.height > coding.element_limit()) usage();
  return options;
}

}  // namespace
}  // namespace stress

int main(int argc, char** argv) {
  const stress::Options options = stress::parse(argc, argv);
  return stress::Parent(options).run();
}
