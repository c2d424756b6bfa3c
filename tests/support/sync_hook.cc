#include "tests/support/sync_hook.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <mutex>

namespace accrete::testing {

namespace {

using Body = std::function<int(const std::string&)>;

std::mutex mutex;
std::shared_ptr<const Body> hook;

}  // namespace

SyncHook::SyncHook(Body body) {
  const std::lock_guard lock(mutex);
  hook = std::make_shared<const Body>(std::move(body));
}

SyncHook::~SyncHook() {
  const std::lock_guard lock(mutex);
  hook.reset();
}

}  // namespace accrete::testing

// In place of the C library's.
extern "C" int fdatasync(int fd) {
  using namespace accrete::testing;
  std::shared_ptr<const Body> body;
  {
    const std::lock_guard lock(mutex);
    body = hook;
  }
  if (body != nullptr) {
    std::error_code ignored;
    const auto path = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd), ignored);
    if (const int error = (*body)(path.filename().string()); error != 0) {
      errno = error;
      return -1;
    }
  }
  return static_cast<int>(::syscall(SYS_fdatasync, fd));
}
