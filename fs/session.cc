#include "fs/session.h"

#include <linux/fuse.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

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
  // Without session threads a notification could wait for ever; replies must go out before the end.
  tree_.publisher().stop();
  tree_.wait_until_answered();
  if (!is_attached_) fuse_session_unmount(session_);
  fuse_session_destroy(session_);
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
  // The thread may be cancelled here, so nothing on this stack needs a destructor.
  const ssize_t got = ::read(fd, buffer, size);
  if (got > 0) {
    static_cast<Session*>(userdata)->amendment_.see_request(
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
