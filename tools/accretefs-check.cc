// accretefs-check: verifies a store that nobody has mounted, and repairs what can be repaired.
#include <fcntl.h>
#include <getopt.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "core/check_cube.h"
#include "core/repair_cube.h"
#include "core/store.h"

namespace accrete {
namespace {

constexpr char usage[] =
    R"(usage: accretefs-check [OPTION]... STORE [CUBE]...
Verifies all that lies in a store, or in some of its cubes, while it is not
mounted. Prints a line for each thing that is damaged, and one for each cube.
Changes nothing unless --repair is given.

  -r, --repair    make damaged cubes usable again, and say what is lost
  -q, --quiet     print only what is damaged, and what a repair does
  -h, --help      print this and exit
      --version   print the version and exit
)";

constexpr int good = 0;
constexpr int damaged = 1;
constexpr int wrong_usage = 2;
constexpr int could_not_check = 3;

struct Options {
  bool repair = false;
  bool quiet = false;
};

std::string counted(std::uint64_t n, const std::string& what) {
  return std::to_string(n) + " " + what + (n == 1 ? "" : "s");
}

std::string size_text(std::uint64_t bytes) {
  constexpr const char* units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  std::size_t unit = 0;
  auto value = static_cast<double>(bytes);
  while (value >= 1024 && unit + 1 < std::size(units)) value /= 1024, ++unit;
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 || value >= 100 ? "%.0f %s" : "%.3g %s", value,
                units[unit]);
  return text;
}

class Check {
 public:
  explicit Check(const Options& options) : options_(options) {}

  // What of the cube's exit status is to be told: damaged, could_not_check or good.
  int cube(const std::string& store, const std::string& name) {
    cube_ = name;
    // A cube's directory is never a symbolic link.
    auto directory = PosixFile::open(store + "/" + name, O_RDONLY | O_DIRECTORY);
    if (!directory.ok()) return fail_to_check(directory.error());
    auto report = check_cube(*directory);
    if (!report.ok()) return fail_to_check(report.error());
    print(*report);
    if (!report->is_damaged()) return good;
    if (options_.repair) return repair(*directory, *report);
    return damaged;
  }

 private:
  int fail_to_check(const Error& error) {
    std::fprintf(stderr, "accretefs-check: cube %s: %s\n", cube_.c_str(), error.sentence.c_str());
    return could_not_check;
  }

  int repair(const PosixFile& directory, const CubeReport& found) {
    const auto repair = repair_cube(directory, found);
    if (!repair.ok()) {
      std::fprintf(stderr, "accretefs-check: cube %s cannot be repaired: %s\n", cube_.c_str(),
                   repair.error().sentence.c_str());
      return could_not_check;
    }
    for (const std::string& sentence : repair->done) line("repair: " + sentence);
    const auto report = check_cube(directory);
    if (!report.ok()) return fail_to_check(report.error());
    print(*report);
    return damaged;
  }

  void print(const CubeReport& report) {
    for (const Finding& finding : report.findings) {
      const bool is_damage = finding.kind == Finding::Kind::damage;
      if (is_damage || !options_.quiet)
        line((is_damage ? "damage: " : "waste: ") + text_of(finding));
    }
    if (!options_.quiet) line(summary(report));
  }

  static std::string text_of(const Finding& finding) {
    std::string text = finding.what.file;
    if (finding.what.offset) text += " at " + std::to_string(*finding.what.offset);
    if (!text.empty()) text += ": ";
    text += finding.what.sentence;
    if (!finding.frame.empty()) text += " (frame " + finding.frame + ")";
    return text;
  }

  static std::string summary(const CubeReport& report) {
    std::string text = counted(report.live, "frame");
    if (report.removed > 0) text += " and " + std::to_string(report.removed) + " removed";
    text += ", " + size_text(report.bytes);
    if (report.poked_chunks > 0)
      text += ", " + std::to_string(report.poked_chunks) + " of " +
              counted(report.chunks, "chunk") +
              " were changed in place since, so their checksums say nothing";
    if (report.unmarked > 0)
      text += ", " + counted(report.unmarked, "record") + " after the last mark, " +
              std::to_string(report.unmarked_whole) + " of them whole";
    return text + (report.is_damaged() ? ", damaged" : ", good");
  }

  void line(const std::string& text) const {
    std::printf("cube %s: %s\n", cube_.c_str(), text.c_str());
  }

  const Options& options_;
  std::string cube_;
};

int complain(const std::string& sentence, int exit_status) {
  std::fprintf(stderr, "accretefs-check: %s\n", sentence.c_str());
  return exit_status;
}

int check_store(const Options& options, const std::string& path, std::vector<std::string> cubes) {
  StoreOptions store_options;
  store_options.create = false;
  store_options.read_only = true;
  // Holds the store's lock while it lives.
  const auto store = Store::open(path, store_options);
  if (!store.ok()) return complain(store.error().sentence, could_not_check);
  const std::vector<std::string> all = (*store)->names();
  if (cubes.empty()) cubes = all;
  Check check(options);
  int worst = good;
  for (const std::string& cube : cubes) {
    const bool is_there = std::find(all.begin(), all.end(), cube) != all.end();
    worst = std::max(worst, is_there ? check.cube(path, cube)
                                     : complain("there is no cube " + cube, could_not_check));
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout))
    return complain("cannot write to standard output", could_not_check);
  return worst;
}

enum LongOnly { version = 256 };

constexpr option long_options[] = {{"repair", no_argument, nullptr, 'r'},
                                   {"quiet", no_argument, nullptr, 'q'},
                                   {"help", no_argument, nullptr, 'h'},
                                   {"version", no_argument, nullptr, version},
                                   {nullptr, 0, nullptr, 0}};

int run(int argc, char** argv) {
  Options options;
  for (;;) {
    const int which = getopt_long(argc, argv, "rqh", long_options, nullptr);
    if (which == -1) break;
    if (which == '?') return wrong_usage;  // getopt_long has said why
    if (which == 'h') return std::fputs(usage, stdout) < 0;
    if (which == version) return std::puts("accretefs-check " ACCRETE_VERSION) < 0;
    (which == 'r' ? options.repair : options.quiet) = true;
  }
  if (optind == argc) return complain("give a store; see --help", wrong_usage);
  return check_store(options, argv[optind], {argv + optind + 1, argv + argc});
}

}  // namespace
}  // namespace accrete

int main(int argc, char** argv) {
  return accrete::run(argc, argv);
}
