// accretefs-unpack: decompresses frames for accretefs, in a process that may die of them.
//
// core/unpack_protocol.h tells what it is asked and answers, unpack_sandbox.h what it can do beside
// that. It keeps nothing from one request to the next.
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "core/result.h"
#include "core/unpack_protocol.h"
#include "tools/unpack_gzip.h"
#include "tools/unpack_input.h"
#include "tools/unpack_output.h"
#include "tools/unpack_sandbox.h"
#include "tools/unpack_tiles.h"

namespace accrete {
namespace {

constexpr char usage[] =
    "accretefs-unpack " ACCRETE_VERSION
    ": accretefs starts this program itself; there is no use in running it by hand\n";

constexpr int channel = 0;

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

struct Received {
  UnpackRequest request;
  Descriptor file;
};

// Nothing when the socket is closed, or what came is no request.
std::optional<Received> receive() {
  UnpackRequest request;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  iovec body{&request, sizeof request};
  msghdr message{};
  message.msg_iov = &body;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t n = 0;
  do n = ::recvmsg(channel, &message, MSG_CMSG_CLOEXEC);
  while (n < 0 && errno == EINTR);
  const cmsghdr* const header = n > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
  if (n != sizeof request || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 ||
      header == nullptr || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS ||
      header->cmsg_len != CMSG_LEN(sizeof(int)))
    return std::nullopt;
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return Received{request, Descriptor(fd)};
}

Result<std::uint64_t> unpack(const Received& received, UnpackOutput& output) {
  const UnpackRequest& request = received.request;
  const UnpackInput input(received.file.get(), request.size);
  bound_memory(0);
  try {
    switch (request.kind) {
      case UnpackKind::inflate:
        return unpack_gzip(input, request, output);
      case UnpackKind::decompress:
        return unpack_tiles(input, request, output);
    }
    return bad("the request is of an unknown kind");
  } catch (const std::bad_alloc&) {
    return fail(std::errc::not_enough_memory, "not enough memory to unpack the file");
  }
}

int run(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "--help") return std::fputs(usage, stdout) < 0;
  int type = 0;
  socklen_t length = sizeof type;
  if (argc > 1 || ::getsockopt(channel, SOL_SOCKET, SO_TYPE, &type, &length) != 0 ||
      type != SOCK_SEQPACKET) {
    std::fputs(usage, stderr);
    return 1;
  }
  prepare_tiles();
  const Result<std::string> lacks = enter_sandbox();
  if (!lacks.ok()) {
    std::fprintf(stderr, "accretefs-unpack: %s\n", lacks.error().sentence.c_str());
    return 1;
  }
  UnpackOutput output(channel);
  bool heard = output.ready(*lacks).ok();
  while (heard) {
    std::optional<Received> received = receive();
    if (!received) break;
    const Result<std::uint64_t> result = unpack(*received, output);
    received.reset();  // the file is closed when the answer arrives
    heard = output.finish(result).ok();
  }
  leave_sandbox();
}

}  // namespace
}  // namespace accrete

int main(int argc, char** argv) {
  return accrete::run(argc, argv);
}
