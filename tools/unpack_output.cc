#include "tools/unpack_output.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace accrete {

Status UnpackOutput::ready(const std::string& lacks) {
  return send(UnpackTell::ready, 0, lacks);
}

Status UnpackOutput::write(std::uint64_t offset, std::string_view bytes) {
  if (offset != held_offset_ + held_.size()) ACCRETE_CHECK(flush());
  while (!bytes.empty()) {
    if (held_.empty()) held_offset_ = offset;
    const std::string_view part = bytes.substr(0, max_unpack_piece - held_.size());
    held_ += part;
    offset += part.size();
    bytes.remove_prefix(part.size());
    if (held_.size() == max_unpack_piece) ACCRETE_CHECK(flush());
  }
  return {};
}

Status UnpackOutput::reach(std::uint64_t offset) {
  constexpr std::uint64_t step = std::uint64_t{1} << 20;
  if (offset < told_ + step) return {};
  told_ = offset;
  return send(UnpackTell::piece, offset, {});
}

Status UnpackOutput::finish(const Result<std::uint64_t>& length) {
  Status status;
  if (length.ok()) {
    status = flush();
    if (status.ok()) status = send(UnpackTell::done, *length, {});
  } else {
    status = send(UnpackTell::refused, 0, length.error().sentence, length.error().number());
  }
  held_.clear();
  held_offset_ = told_ = 0;
  return status;
}

Status UnpackOutput::flush() {
  if (held_.empty()) return {};
  const Status status = send(UnpackTell::piece, held_offset_, held_);
  held_offset_ += held_.size();
  told_ = std::max(told_, held_offset_);
  held_.clear();
  return status;
}

Status UnpackOutput::send(UnpackTell tell, std::uint64_t number, std::string_view bytes,
                          int error) {
  UnpackMessage head{.tell = tell, .error = error, .number = number};
  iovec parts[] = {{&head, sizeof head}, {const_cast<char*>(bytes.data()), bytes.size()}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  while (::sendmsg(channel_, &message, MSG_NOSIGNAL) < 0)
    if (errno != EINTR) return fail_errno(errno, "tell what the file unpacks to");
  return {};
}

}  // namespace accrete
