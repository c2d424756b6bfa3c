// accretefs STORE MNT: opens the store, mounts it, and serves it until it is unmounted.

#include <malloc.h>
#include <sys/stat.h>
#include <syslog.h>

#include <algorithm>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <exception>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/store.h"
#include "fs/fuse.h"
#include "fs/mount_point.h"
#include "fs/options.h"
#include "fs/session.h"
#include "fs/tree.h"

namespace accrete {

namespace {

// A daemon's standard error leads nowhere.
void log_to_syslog(fuse_log_level level, const char* format, va_list arguments) {
  vsyslog(std::min(static_cast<int>(level), LOG_DEBUG), format, arguments);
}

unsigned default_threads() {
  return std::clamp(std::thread::hardware_concurrency() * 2, 4u, 8u);
}

// Left alone, malloc() takes the largest block that was freed as the measure of what it keeps, in
// each thread's arena: a few headers of 16 MiB, and that memory is the daemon's for ever.
void return_large_blocks() {
  ::mallopt(M_MMAP_THRESHOLD, 2 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 4 << 20);
}

// A comma or backslash in a path would end the option.
std::string escaped(const std::string& path) {
  std::string text;
  for (const char c : path) {
    if (c == ',' || c == '\\') text += '\\';
    text += c;
  }
  return text;
}

std::vector<std::string> mount_options(const Options& options, const std::string& store) {
  std::vector<std::string> all{"default_permissions", "nosuid", "nodev", "subtype=accretefs",
                               "fsname=" + escaped(store)};
  all.insert(all.end(), options.mount_options.begin(), options.mount_options.end());
  return all;
}

// A daemon that was unmounted a moment ago still writes its last sync; that one is waited for.
Result<std::unique_ptr<Store>> open_store(const std::string& path, const StoreOptions& options) {
  using namespace std::chrono_literals;
  const auto patience = std::chrono::steady_clock::now() + 30s;
  for (;;) {
    Result<std::unique_ptr<Store>> store = Store::open(path, options);
    if (store.ok() || store.error().code != std::errc::device_or_resource_busy ||
        is_mounted(path) || std::chrono::steady_clock::now() > patience)
      return store;
    std::this_thread::sleep_for(20ms);
  }
}

Status serve(const Options& options) {
  return_large_blocks();
  // Absolute, as a daemon works in "/".
  ACCRETE_TRY(const std::string store_path, absolute_path(options.store));
  std::string mount_point = options.mount_point;
  if (!is_passed_descriptor(mount_point)) {
    ACCRETE_TRY(mount_point, absolute_path(mount_point));
    ACCRETE_CHECK(prepare_mount_point(store_path, mount_point));
  }
  StoreOptions store_options;
  store_options.limits = options.limits;
  ACCRETE_TRY(const std::unique_ptr<Store> store, open_store(store_path, store_options));
  ACCRETE_TRY(const struct stat directory, store->attributes());
  Tree tree(*store, directory, options.caching);
  ACCRETE_TRY(const std::unique_ptr<Session> session,
              Session::make(tree, mount_options(options, store_path), options.debug,
                            options.caching != Caching::cached));
  ACCRETE_CHECK(session->mount(mount_point));
  if (!options.foreground) {
    openlog("accretefs", LOG_PID, LOG_DAEMON);
    fuse_set_log_func(log_to_syslog);
  }
  // The process that the user started ends here; the mount answers from now on.
  if (fuse_daemonize(options.foreground ? 1 : 0) != 0)
    return fail(std::errc::resource_unavailable_try_again, "cannot become a daemon");
  store->start();
  return session->loop(options.threads != 0 ? options.threads : default_threads(), true);
}

int run(const std::vector<std::string>& arguments) {
  const Result<Options> options = parse_options(arguments);
  Status status;
  if (!options.ok()) {
    status = options.error();
  } else if (options->help) {
    std::cout << help_text();
  } else if (options->version) {
    std::cout << "accretefs " << ACCRETE_VERSION << " (libfuse " << fuse_pkgversion() << ")\n";
  } else {
    status = serve(*options);
  }
  if (status.ok()) return 0;
  std::cerr << "accretefs: " << status.error().sentence << "\n";
  return 1;
}

}  // namespace

}  // namespace accrete

// The one boundary of errors: nothing leaves as an exception.
int main(int argc, char** argv) {
  try {
    return accrete::run(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const std::exception& problem) {
    std::cerr << "accretefs: " << problem.what() << "\n";
    return 1;
  }
}
