#include "core/unpacker.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "core/fits_card.h"

namespace accrete {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds farewell = std::chrono::seconds(2);
constexpr std::size_t most_sentence = 240;

// A second for each MiB.
std::chrono::seconds time_for(std::uint64_t bytes) {
  constexpr std::uint64_t most_seconds = 1'000'000;
  return std::chrono::seconds(std::min(bytes >> 20, most_seconds));
}

Result<std::uint64_t> size_of_file(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return fail_errno(errno, "fstat of a file to unpack");
  return static_cast<std::uint64_t>(status.st_size);
}

Status truncate(int fd, std::uint64_t size) {
  if (::ftruncate(fd, static_cast<off_t>(size)) != 0)
    return fail_errno(errno, "truncate the unpacked file");
  return {};
}

Status write_at(int fd, std::uint64_t offset, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "write the unpacked file");
    bytes.remove_prefix(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
  return {};
}

// Of the daemon's environment, for the process: where libraries are, and how sanitizers report.
std::vector<char*> environment() {
  std::vector<char*> kept;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string_view text = *variable;
    const std::string_view name = text.substr(0, text.find('='));
    if (name == "LD_LIBRARY_PATH" || name.ends_with("SAN_OPTIONS")) kept.push_back(*variable);
  }
  kept.push_back(nullptr);
  return kept;
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
  std::thread thread;
  {
    MutexLock lock(mutex_);
    ending_ = true;
    std::swap(thread, thread_);
  }
  wake_.notify_one();
  if (thread.joinable()) thread.join();
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
  const int error = posix_spawn(&pid_, program_.c_str(), &spawn.actions, &spawn.attributes,
                                arguments, environment().data());
  ::close(pair[1]);
  const auto not_started = [&](const std::string& why) {
    return fail(std::errc::io_error,
                "the unpacking process " + program_ + " could not be started: " + why);
  };
  if (error != 0) {
    pid_ = -1;
    ::close(pair[0]);
    return not_started(::strerrordesc_np(error));
  }
  socket_ = pair[0];
  const Result<UnpackMessage> first = next_message(Clock::now() + patience_);
  if (!first.ok()) return not_started(first.error().sentence);
  if (first->tell != UnpackTell::ready || bytes_.size() > most_sentence) return strange_answer();
  if (bytes_ != lacks_ && is_printable(bytes_))
    ::syslog(LOG_WARNING, "accretefs-unpack runs with less protection: %s", bytes_.c_str());
  lacks_ = bytes_;
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

Error Unpacker::strange_answer() {
  stop(milliseconds(0));
  return fail(std::errc::io_error, "the unpacking process gave a strange answer");
}

Status Unpacker::send(int from, const UnpackRequest& request) {
  // What the process is given must not be good for writing.
  const std::string path = "/proc/self/fd/" + std::to_string(from);
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return fail_errno(errno, "open the file to unpack for reading");
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof file)] = {};
  iovec body{const_cast<UnpackRequest*>(&request), sizeof request};
  msghdr message{};
  message.msg_iov = &body;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof file);
  std::memcpy(CMSG_DATA(header), &file, sizeof file);
  const ssize_t sent = retry([&] { return ::sendmsg(socket_, &message, MSG_NOSIGNAL); });
  const int error = errno;
  ::close(file);
  return sent < 0 ? fail_errno(error, "sendmsg to the unpacking process") : Status();
}

Result<UnpackMessage> Unpacker::next_message(Clock::time_point deadline) {
  if (!wait_readable(socket_, deadline)) {
    stop(milliseconds(0));
    return fail(std::errc::timed_out, "it took too long");
  }
  UnpackMessage head;
  bytes_.resize(max_unpack_piece);
  iovec parts[] = {{&head, sizeof head}, {bytes_.data(), bytes_.size()}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  const ssize_t n = retry([&] { return ::recvmsg(socket_, &message, 0); });
  if (n <= 0)
    return fail(std::errc::invalid_argument, "the unpacking process died (" + stop(farewell) + ")");
  const auto length = static_cast<std::size_t>(n);
  if (length < sizeof head || (message.msg_flags & MSG_TRUNC) != 0) return strange_answer();
  bytes_.resize(length - sizeof head);
  return head;
}

Result<std::uint64_t> Unpacker::receive(int to, const UnpackRequest& request) {
  const bool inflates = request.kind == UnpackKind::inflate;
  const std::uint64_t bound = inflates ? std::min(request.keep, request.most) : request.most;
  const auto step = patience_ + time_for(request.size);
  const Clock::time_point start = Clock::now();
  Clock::time_point last = start;  // when it came as far as `reached`
  std::uint64_t reached = 0;
  for (;;) {
    const Result<UnpackMessage> message =
        next_message(std::min(start + step + time_for(reached), last + step));
    if (!message.ok()) {
      if (message.error().code == std::errc::io_error) return message.error();
      return fail(std::errc::invalid_argument,
                  "the file could not be unpacked: " + message.error().sentence);
    }
    const std::uint64_t number = message->number;
    switch (message->tell) {
      case UnpackTell::piece: {
        const std::uint64_t most = bytes_.empty() ? request.most : bound;
        if (number > most || bytes_.size() > most - number) return strange_answer();
        const Status written = write_at(to, number, bytes_);
        if (!written.ok()) {
          stop(milliseconds(0));  // it goes on telling
          return written.error();
        }
        if (number + bytes_.size() > reached) {
          reached = number + bytes_.size();
          last = Clock::now();
        }
        break;
      }
      case UnpackTell::done:
        if (number > request.most || !bytes_.empty()) return strange_answer();
        ACCRETE_CHECK(truncate(to, inflates ? std::min(request.keep, number) : number));
        return number;
      case UnpackTell::refused:
        if (message->error <= 0 || message->error >= 4096 || bytes_.empty() ||
            bytes_.size() > most_sentence || !is_printable(bytes_))
          return strange_answer();
        return fail(static_cast<std::errc>(message->error), bytes_);
      default:
        return strange_answer();
    }
  }
}

Result<std::uint64_t> Unpacker::unpack(int from, int to, const UnpackRequest& request) {
  ACCRETE_CHECK(truncate(to, 0));
  ACCRETE_CHECK(start());
  Status sent = send(from, request);
  if (!sent.ok() && (sent.error().code == std::errc::broken_pipe ||
                     sent.error().code == std::errc::connection_reset)) {
    // It died while it had nothing to do, which is no fault of this file.
    stop(farewell);
    ACCRETE_CHECK(start());
    sent = send(from, request);
  }
  if (!sent.ok()) {
    stop(farewell);
    return fail(std::errc::io_error,
                "the unpacking process cannot be asked: " + sent.error().sentence);
  }
  return receive(to, request);
}

void Unpacker::serve() {
  for (;;) {
    Request request;
    {
      MutexLock lock(mutex_);
      while (requests_.empty() && !ending_) wake_.wait(mutex_);
      if (requests_.empty()) break;
      request = std::move(requests_.front());
      requests_.pop_front();
    }
    request();
  }
  stop(farewell);
}

Result<std::uint64_t> Unpacker::ask(int from, int to, UnpackRequest request) {
  ACCRETE_TRY(request.size, size_of_file(from));
  Request work([&] { return unpack(from, to, request); });
  std::future<Result<std::uint64_t>> answer = work.get_future();
  try {
    MutexLock lock(mutex_);
    if (!thread_.joinable()) thread_ = std::thread([this] { serve(); });
    requests_.push_back(std::move(work));
  } catch (const std::system_error& error) {
    return fail(std::errc::resource_unavailable_try_again,
                std::string("no thread for the unpacking process: ") + error.what());
  }
  wake_.notify_one();
  return answer.get();
}

Result<std::uint64_t> Unpacker::inflate(int from, int to, std::uint64_t keep, std::uint64_t most) {
  return ask(from, to, {.kind = UnpackKind::inflate, .keep = keep, .most = most});
}

Result<std::uint64_t> Unpacker::decompress(int from, int to, int hdu, std::uint64_t most) {
  return ask(from, to, {.kind = UnpackKind::decompress, .hdu = hdu, .most = most});
}

}  // namespace accrete
