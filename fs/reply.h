// The answer to one request: given exactly once, from any thread, possibly after the handler.
#pragma once

#include <sys/uio.h>

#include <cerrno>
#include <span>
#include <string_view>
#include <utility>

#include "core/result.h"
#include "fs/fuse.h"

namespace accrete {

// What close() may give back. ENOSYS would switch an operation off for the whole mount, and a
// number of 512 or more leaves the caller hung.
inline int safe_errno(int number) {
  return number > 0 && number < 512 && number != ENOSYS ? number : EIO;
}

// Owns a request. Answering consumes it; one that is destroyed unanswered says EIO. A member that
// hands out something the kernel must give back later (a look-up count, an open file) returns false
// when nobody took the answer.
class Reply {
 public:
  explicit Reply(fuse_req_t request) : request_(request) {}
  Reply(Reply&& other) noexcept : request_(std::exchange(other.request_, nullptr)) {}
  Reply& operator=(Reply&&) = delete;
  ~Reply() {
    if (request_ != nullptr) error(EIO);
  }

  void ok() { fuse_reply_err(take(), 0); }
  void error(int number) { fuse_reply_err(take(), safe_errno(number)); }
  void error(const Error& error) { this->error(error.number()); }
  void status(const Status& status) {
    if (status.ok())
      ok();
    else
      error(status.error());
  }
  void none() { fuse_reply_none(take()); }

  bool entry(const fuse_entry_param& entry) { return fuse_reply_entry(take(), &entry) == 0; }
  bool created(const fuse_entry_param& entry, const fuse_file_info& file) {
    return fuse_reply_create(take(), &entry, &file) == 0;
  }
  bool opened(const fuse_file_info& file) { return fuse_reply_open(take(), &file) == 0; }
  void attributes(const struct stat& attributes, double timeout) {
    fuse_reply_attr(take(), &attributes, timeout);
  }
  void link(const std::string& target) { fuse_reply_readlink(take(), target.c_str()); }
  void written(std::size_t bytes) { fuse_reply_write(take(), bytes); }
  void bytes(std::span<const std::byte> data) {
    fuse_reply_buf(take(), reinterpret_cast<const char*>(data.data()), data.size());
  }
  void bytes(std::string_view text) { fuse_reply_buf(take(), text.data(), text.size()); }
  // What READDIRPLUS tells of, each a look-up.
  bool entries(std::span<const char> data) {
    return fuse_reply_buf(take(), data.data(), data.size()) == 0;
  }
  void pieces(std::span<const iovec> pieces) {
    fuse_reply_iov(take(), pieces.data(), static_cast<int>(pieces.size()));
  }
  void space(const struct statvfs& space) { fuse_reply_statfs(take(), &space); }
  // getxattr and listxattr: `size` is the room the caller has, 0 asks for the length.
  void attribute_text(std::string_view text, std::size_t size) {
    if (size == 0)
      fuse_reply_xattr(take(), text.size());
    else if (text.size() > size)
      error(ERANGE);
    else
      bytes(text);
  }

 private:
  fuse_req_t take() { return std::exchange(request_, nullptr); }

  fuse_req_t request_;
};

}  // namespace accrete
