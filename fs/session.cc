#include "fs/session.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "fs/ops.h"

namespace accrete {

Result<std::unique_ptr<Session>> Session::make(Tree& tree, const std::vector<std::string>& options,
                                               bool debug, bool amend) {
  std::unique_ptr<Session> session(new Session(tree, amend));
  fuse_args args = FUSE_ARGS_INIT(0, nullptr);
  fuse_opt_add_arg(&args, "accretefs");
  if (debug) fuse_opt_add_arg(&args, "-d");
  for (const std::string& option : options) {
    fuse_opt_add_arg(&args, "-o");
    fuse_opt_add_arg(&args, option.c_str());
  }
  session->session_ =
      fuse_session_new(&args, &operations(), sizeof(fuse_lowlevel_ops), session.get());
  fuse_opt_free_args(&args);
  if (session->session_ == nullptr)
    return fail(std::errc::invalid_argument, "the mount options are not understood");
  return session;
}

Session::~Session() {
  if (session_ == nullptr) return;
  // A notification may wait for the lock of a directory that the kernel holds until a request is
  // answered, and no session thread answers any more.
  std::atomic<bool> enough = false;
  std::thread refusing;
  try {
    if (!is_attached_) refusing = std::thread([this, &enough] { refuse_requests(enough); });
  } catch (const std::system_error&) {
    // No thread to be had: then who asks now waits until the mount is gone.
  }
  tree_.publisher().stop();
  // Replies must go out before the end.
  tree_.wait_until_answered();
  enough = true;
  if (refusing.joinable()) refusing.join();
  if (!is_attached_) fuse_session_unmount(session_);
  fuse_session_destroy(session_);
}

void Session::refuse_requests(const std::atomic<bool>& enough) {
  constexpr std::size_t most_bytes = (1 << 20) + (64 << 10);  // as libfuse's own
  constexpr int patience_ms = 10;
  std::vector<std::byte> request(most_bytes);
  const int fd = fuse_session_fd(session_);
  const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(2);
  bool is_cut_off = false;
  while (!enough) {
    if (!is_cut_off && std::chrono::steady_clock::now() > patience) {
      cut_off_devices();
      is_cut_off = true;
    }
    pollfd device{fd, POLLIN, 0};
    if (::poll(&device, 1, patience_ms) <= 0) continue;
    const ssize_t got = ::read(fd, request.data(), request.size());
    if (got < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT)) continue;
    fuse_in_header header;
    if (got < static_cast<ssize_t>(sizeof header)) return;  // unmounted
    std::memcpy(&header, request.data(), sizeof header);
    if (header.opcode == FUSE_FORGET || header.opcode == FUSE_BATCH_FORGET ||
        header.opcode == FUSE_INTERRUPT)
      continue;  // no answer is expected
    const fuse_out_header answer{sizeof answer, -ENOTCONN, header.unique};
    (void)!::write(fd, &answer, sizeof answer);
  }
}

void Session::note_device(int fd) {
  MutexLock lock(mutex_);
  if (std::find(devices_.begin(), devices_.end(), fd) == devices_.end()) devices_.push_back(fd);
}

// libfuse cancels its threads, also one that has just read a request: nobody will answer that, and
// its device stays open while there is a reply to come on it, which may wait for the notifier, who
// waits for that request.
void Session::cut_off_devices() {
  const int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  struct stat own {};
  if (nothing < 0 || ::fstat(fuse_session_fd(session_), &own) != 0) return;
  MutexLock lock(mutex_);
  for (const int fd : devices_) {
    struct stat status {};
    if (::fstat(fd, &status) == 0 && S_ISCHR(status.st_mode) && status.st_rdev == own.st_rdev)
      ::dup3(nothing, fd, O_CLOEXEC);
  }
  ::close(nothing);
}

Status Session::mount(const std::string& mount_point) {
  if (fuse_session_mount(session_, mount_point.c_str()) != 0)
    return fail(std::errc::io_error, "cannot mount on '" + mount_point + "'");
  return use_own_io(fuse_session_fd(session_));
}

Status Session::attach(int fd) {
  is_attached_ = true;
  return use_own_io(fd);
}

Status Session::use_own_io(int fd) {
  fuse_custom_io io{};
  io.writev = write_message;
  io.read = read_message;
  if (const int error = fuse_session_custom_io(session_, &io, fd); error != 0)
    return fail_errno(-error, "own input and output of the session");
  return {};
}

ssize_t Session::write_message(int fd, iovec* parts, int count, void* userdata) {
  auto* session = static_cast<Session*>(userdata);
  session->amendment_.amend_reply(std::span(parts, static_cast<std::size_t>(count)));
  const ssize_t written = ::writev(fd, parts, count);
  if (written >= 0 || errno != EFAULT) return written;
  // Bytes straight from the mapping could not be read: a disk error under it. Linux ends such a
  // request with EIO by itself; then it is not found any more.
  fuse_out_header header;
  std::memcpy(&header, parts[0].iov_base, sizeof header);
  header.len = sizeof header;
  header.error = -EIO;
  const ssize_t told = ::write(fd, &header, sizeof header);
  return told < 0 && errno == ENOENT ? static_cast<ssize_t>(sizeof header) : told;
}

ssize_t Session::read_message(int fd, void* buffer, std::size_t size, void* userdata) {
  auto* const self = static_cast<Session*>(userdata);
  thread_local std::pair<const Session*, int> noted{nullptr, -1};
  if (const std::pair<const Session*, int> device{self, fd}; noted != device) {
    self->note_device(fd);
    noted = device;
  }
  // The thread may be cancelled here, so nothing on this stack needs a destructor.
  const ssize_t got = ::read(fd, buffer, size);
  if (got > 0) {
    self->amendment_.see_request(
        std::span(static_cast<const std::byte*>(buffer), static_cast<std::size_t>(got)));
  } else if (got == 0 || errno == ECONNABORTED) {
    // The other end of a socket is gone, or the connection went while a request was being handed
    // over (Linux, fs/fuse/dev.c): as if unmounted.
    errno = ENODEV;
    return -1;
  }
  return got;
}

void Session::on_init() {
  tree_.set_direct_mmap(amendment_.is_offered());
}

Status Session::loop(unsigned threads, bool signals) {
  if (signals && fuse_set_signal_handlers(session_) != 0)
    return fail(std::errc::io_error, "cannot handle signals");
  tree_.publisher().start(session_);
  fuse_loop_config* config = fuse_loop_cfg_create();
  fuse_loop_cfg_set_max_threads(config, threads);
  fuse_loop_cfg_set_clone_fd(config, is_attached_ ? 0 : 1);
  const int result = fuse_session_loop_mt(session_, config);
  fuse_loop_cfg_destroy(config);
  if (signals) fuse_remove_signal_handlers(session_);
  // A positive result is the signal that ended it.
  if (result < 0) return fail_errno(-result, "reading requests");
  return {};
}

}  // namespace accrete
