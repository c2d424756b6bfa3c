#include "core/unpacker.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/fits_card.h"

namespace accrete {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds farewell = std::chrono::seconds(2);
// No codec unpacks a byte to more than about this many.
constexpr std::uint64_t most_expansion = 1024;
constexpr std::uint64_t most_seconds = 1'000'000;

Error strange_answer() {
  return fail(std::errc::io_error, "the unpacking process gave a strange answer");
}

Result<std::uint64_t> size_of_file(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return fail_errno(errno, "fstat of a file to unpack");
  return static_cast<std::uint64_t>(status.st_size);
}

template <class Call>
auto retry(Call call) {
  for (;;) {
    const auto result = call();
    if (result >= 0 || errno != EINTR) return result;
  }
}

// Waits until `fd` can be read or the time is over; false in the second case.
bool wait_readable(int fd, std::chrono::steady_clock::time_point deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd wanted{fd, POLLIN, 0};
    const int n =
        ::poll(&wanted, 1, static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, INT_MAX)));
    if (n > 0 || (n < 0 && errno != EINTR)) return true;
    if (n == 0 && left.count() <= INT_MAX) return false;
  }
}

// What the attributes and actions of posix_spawn need to be released.
struct Spawn {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;

  Spawn() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
  }
  Spawn(const Spawn&) = delete;
  Spawn& operator=(const Spawn&) = delete;
  ~Spawn() {
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
  }
};

}  // namespace

Unpacker::Unpacker(std::string program, milliseconds patience)
    : program_(std::move(program)), patience_(patience) {}

Unpacker::~Unpacker() {
  MutexLock lock(mutex_);
  stop(farewell);
}

std::string Unpacker::default_program() {
  if (const char* const named = std::getenv("ACCRETE_UNPACK")) return named;
  char path[PATH_MAX];
  const ssize_t n = ::readlink("/proc/self/exe", path, sizeof path);
  const std::string self(path, static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
  return self.substr(0, self.rfind('/') + 1) + "accretefs-unpack";
}

Status Unpacker::start() {
  if (pid_ > 0) return {};
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
    return fail_errno(errno, "socketpair for the unpacking process");
  Spawn spawn;
  posix_spawn_file_actions_adddup2(&spawn.actions, pair[1], 0);
  posix_spawn_file_actions_addopen(&spawn.actions, 1, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_addclosefrom_np(&spawn.actions, 3);
  // A group of its own: an interrupt from the terminal is for the daemon, which ends it in time.
  posix_spawnattr_setflags(&spawn.attributes,
                           POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  posix_spawnattr_setpgroup(&spawn.attributes, 0);
  sigset_t signals;
  sigemptyset(&signals);
  posix_spawnattr_setsigmask(&spawn.attributes, &signals);
  sigfillset(&signals);
  posix_spawnattr_setsigdefault(&spawn.attributes, &signals);
  char* const arguments[] = {const_cast<char*>(program_.c_str()), nullptr};
  const int error =
      posix_spawn(&pid_, program_.c_str(), &spawn.actions, &spawn.attributes, arguments, environ);
  ::close(pair[1]);
  if (error != 0) {
    pid_ = -1;
    ::close(pair[0]);
    return fail(std::errc::io_error, "the unpacking process " + program_ +
                                         " could not be started: " + ::strerrordesc_np(error));
  }
  socket_ = pair[0];
  return {};
}

std::string Unpacker::stop(milliseconds grace) {
  if (pid_ <= 0) return {};
  ::close(std::exchange(socket_, -1));
  const pid_t pid = std::exchange(pid_, -1);
  const auto handle = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
  const bool ended = handle >= 0 && wait_readable(handle, Clock::now() + grace);
  if (handle >= 0) ::close(handle);
  if (!ended) ::kill(pid, SIGKILL);
  int status = 0;
  if (retry([&] { return ::waitpid(pid, &status, 0); }) < 0) return "unseen";
  if (WIFSIGNALED(status)) return "signal " + std::to_string(WTERMSIG(status));
  return "exit status " + std::to_string(WEXITSTATUS(status));
}

Status Unpacker::send(int from, int to, const UnpackRequest& request) {
  const int descriptors[] = {from, to};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof descriptors)] = {};
  iovec body{const_cast<UnpackRequest*>(&request), sizeof request};
  msghdr message{};
  message.msg_iov = &body;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof descriptors);
  std::memcpy(CMSG_DATA(header), descriptors, sizeof descriptors);
  const int socket = socket_;
  if (retry([&] { return ::sendmsg(socket, &message, MSG_NOSIGNAL); }) < 0)
    return fail_errno(errno, "sendmsg to the unpacking process");
  return {};
}

Result<UnpackReply> Unpacker::receive(Clock::time_point deadline) {
  if (!wait_readable(socket_, deadline)) {
    stop(milliseconds(0));
    return fail(std::errc::timed_out, "the file could not be unpacked: it took too long");
  }
  UnpackReply reply;
  const int socket = socket_;
  const ssize_t n = retry([&] { return ::recv(socket, &reply, sizeof reply, MSG_TRUNC); });
  if (n <= 0)
    return fail(
        std::errc::invalid_argument,
        "the file could not be unpacked: the unpacking process died (" + stop(farewell) + ")");
  if (n != sizeof reply || reply.error < 0 || reply.error >= 4096) {
    stop(milliseconds(0));
    return strange_answer();
  }
  return reply;
}

Result<UnpackReply> Unpacker::ask(int from, int to, const UnpackRequest& request) {
  ACCRETE_TRY(const std::uint64_t input, size_of_file(from));
  const std::uint64_t output = std::min(
      request.most, input > UINT64_MAX / most_expansion ? UINT64_MAX : input * most_expansion);
  const std::chrono::seconds work(std::min((input >> 20) + (output >> 20), most_seconds));
  UnpackReply reply;
  {
    MutexLock lock(mutex_);
    ACCRETE_CHECK(start());
    Status sent = send(from, to, request);
    if (!sent.ok() && (sent.error().code == std::errc::broken_pipe ||
                       sent.error().code == std::errc::connection_reset)) {
      // It died while it had nothing to do, which is no fault of this file.
      stop(farewell);
      ACCRETE_CHECK(start());
      sent = send(from, to, request);
    }
    if (!sent.ok()) {
      stop(farewell);
      return fail(std::errc::io_error,
                  "the unpacking process cannot be asked: " + sent.error().sentence);
    }
    ACCRETE_TRY(reply, receive(Clock::now() + patience_ + work));
  }
  if (reply.error == 0) return reply;
  std::string sentence(reply.sentence, ::strnlen(reply.sentence, sizeof reply.sentence));
  if (sentence.empty() || !is_printable(sentence)) return strange_answer();
  return fail(static_cast<std::errc>(reply.error), std::move(sentence));
}

Result<std::uint64_t> Unpacker::inflate(int from, int to, std::uint64_t keep, std::uint64_t most) {
  ACCRETE_TRY(const UnpackReply reply,
              ask(from, to, {.kind = UnpackKind::inflate, .keep = keep, .most = most}));
  ACCRETE_TRY(const std::uint64_t made, size_of_file(to));
  if (reply.number > most || made != std::min(keep, reply.number)) return strange_answer();
  return reply.number;
}

Result<std::uint64_t> Unpacker::decompress(int from, int to, int hdu, std::uint64_t most) {
  ACCRETE_TRY(const UnpackReply reply,
              ask(from, to, {.kind = UnpackKind::decompress, .hdu = hdu, .most = most}));
  ACCRETE_TRY(const std::uint64_t made, size_of_file(to));
  if (reply.number > most || made != reply.number) return strange_answer();
  return reply.number;
}

}  // namespace accrete
