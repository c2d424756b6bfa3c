// accretefs-export: a cube, or a view of it, as a file, from a store that nobody has mounted.
#include <fcntl.h>
#include <getopt.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <functional>
#include <string>

#include "core/store.h"
#include "core/view_file.h"

namespace accrete {
namespace {

constexpr char usage[] =
    R"(usage: accretefs-export [OPTION]... STORE CUBE OUT
Writes a cube of a store that is not mounted to the file OUT: the bytes of
MNT/CUBE/cube.fits, cube.npy, cube.raw or cube.txt, by the extension of OUT.
The store is not changed.

  -v, --view NAME   write a view instead, by its name below slices/ or in the
                    cube, as xy/z000017.fits or mask/xyz/z10..20.npy
  -f, --force       replace OUT if it is there
  -h, --help        print this and exit
      --version     print the version and exit
)";

constexpr int failed = 1;
constexpr int wrong_usage = 2;

struct Options {
  std::string view;  // empty: the whole cube
  bool force = false;
};

// What is being written, for the signals that end the program: it goes then, too.
char unfinished[4096];

void remove_unfinished(int signal) {
  ::unlink(unfinished);
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

Error cannot(const std::string& what, const Error& error) {
  return fail(error.code, "cannot write " + what + ": " + error.sentence);
}

// Writes the file under another name beside it, which goes when something fails.
Status write_whole(const std::string& path, bool force,
                   const std::function<Status(const PosixFile&)>& write) {
  if (!force && ::access(path.c_str(), F_OK) == 0)
    return fail(std::errc::file_exists, path + " is there already; --force replaces it");
  const std::string temporary = path + "." + std::to_string(::getpid()) + ".part";
  if (temporary.size() >= sizeof unfinished)
    return fail(std::errc::filename_too_long, path + " is too long");
  auto file = PosixFile::open(temporary, O_RDWR | O_CREAT | O_EXCL, 0666);
  if (!file.ok()) return cannot(path, file.error());
  temporary.copy(unfinished, temporary.size());
  for (const int signal : {SIGHUP, SIGINT, SIGTERM}) ::signal(signal, remove_unfinished);
  Status status = write(*file);
  if (status.ok()) status = file->sync_all();
  if (status.ok() && ::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, path.c_str(),
                                 force ? 0 : RENAME_NOREPLACE) != 0)
    status = fail_errno(errno, "rename");
  if (status.ok()) return {};
  ::unlink(temporary.c_str());
  return cannot(path, status.error());
}

Status export_view(const Options& options, const std::string& path, const std::string& name,
                   const std::string& out) {
  StoreOptions store_options;
  store_options.create = false;
  store_options.read_only = true;
  ACCRETE_TRY(const auto store, Store::open(path, store_options));
  ACCRETE_TRY(const auto cube, store->find(name));
  const Pinned pinned = cube->pin();
  std::string view = options.view;
  if (view.empty()) {
    const std::size_t dot = out.rfind('.');
    view = "cube" + (dot == std::string::npos ? "" : out.substr(dot));
    if (dot == std::string::npos || format_by_extension(view.substr(5)) == nullptr)
      return fail(std::errc::invalid_argument,
                  "the name of " + out + " does not end in .fits, .npy, .raw or .txt");
  }
  ACCRETE_TRY(const ViewFile file, find_view_file(*cube, pinned, view));
  return write_whole(out, options.force, [&](const PosixFile& target) {
    return write_view_file(*cube, pinned, file, target);
  });
}

int complain(const std::string& sentence, int exit_status) {
  std::fprintf(stderr, "accretefs-export: %s\n", sentence.c_str());
  return exit_status;
}

enum LongOnly { version = 256 };

constexpr option long_options[] = {{"view", required_argument, nullptr, 'v'},
                                   {"force", no_argument, nullptr, 'f'},
                                   {"help", no_argument, nullptr, 'h'},
                                   {"version", no_argument, nullptr, version},
                                   {nullptr, 0, nullptr, 0}};

int run(int argc, char** argv) {
  Options options;
  for (;;) {
    const int which = getopt_long(argc, argv, "v:fh", long_options, nullptr);
    if (which == -1) break;
    if (which == '?') return wrong_usage;  // getopt_long has said why
    if (which == 'h') return std::fputs(usage, stdout) < 0;
    if (which == version) return std::puts("accretefs-export " ACCRETE_VERSION) < 0;
    if (which == 'v') options.view = optarg;
    if (which == 'f') options.force = true;
  }
  if (argc - optind != 3)
    return complain("give a store, a cube and a file; see --help", wrong_usage);
  const Status status = export_view(options, argv[optind], argv[optind + 1], argv[optind + 2]);
  return status.ok() ? 0 : complain(status.error().sentence, failed);
}

}  // namespace
}  // namespace accrete

int main(int argc, char** argv) {
  return accrete::run(argc, argv);
}
