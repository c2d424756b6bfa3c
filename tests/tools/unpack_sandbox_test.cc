#include "tools/unpack_sandbox.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <new>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "core/unpacker.h"
#include "tests/core/gzip.h"

namespace accrete {
namespace {

// Does `work` in a process of its own, in the sandbox and with a socket as descriptor 0; gives what
// waitpid() tells of its end. The exit status is 0 where work() is true.
int end_of(const std::function<bool()>& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) != 0) ::_exit(3);
    ::dup2(pair[0], 0);
    if (!enter_sandbox().ok()) ::_exit(4);
    ::_exit(work() ? 0 : 5);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

template <class Call>
void expect_killed(const char* what, Call call) {
  const int status = end_of([&] { return call(), true; });
  EXPECT_TRUE(WIFSIGNALED(status)) << what << " is not fatal";
  EXPECT_EQ(WTERMSIG(status), SIGSYS) << what;
}

template <class Work>
void expect_done(const char* what, Work work) {
  EXPECT_EQ(end_of(work), 0) << what;
}

#define EXPECT_KILLED(call) expect_killed(#call, [&] { return call; })
#define EXPECT_DONE(condition) expect_done(#condition, [&]() -> bool { return condition; })

long raw(long call, auto... arguments) {
  return ::syscall(call, arguments...);
}

void* anonymous(int protection) {
  return ::mmap(nullptr, 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

TEST(UnpackSandbox, NoFileIsOpenedLookedUpOrChanged) {
  struct stat status {};
  EXPECT_KILLED(::open("/etc/passwd", O_RDONLY));
  EXPECT_KILLED(::open("/proc/self/mem", O_RDWR));
  EXPECT_KILLED(::open("/tmp/accrete-sandbox", O_CREAT | O_WRONLY, 0600));
  EXPECT_KILLED(raw(SYS_openat2, AT_FDCWD, "/etc/passwd", nullptr, 0));
  EXPECT_KILLED(raw(SYS_open_by_handle_at, AT_FDCWD, nullptr, 0));
  EXPECT_KILLED(::stat("/etc/passwd", &status));
  EXPECT_KILLED(::fstat(0, &status));
  EXPECT_KILLED(raw(SYS_statx, AT_FDCWD, "/", 0, 0, &status));
  EXPECT_KILLED(::access("/etc/passwd", R_OK));
  EXPECT_KILLED(::unlink("/nonexistent"));
  EXPECT_KILLED(::rename("/nonexistent", "/nowhere"));
  EXPECT_KILLED(::mkdir("/tmp", 0700));
  EXPECT_KILLED(::chmod("/nonexistent", 0700));
  EXPECT_KILLED(::chdir("/tmp"));
  EXPECT_KILLED(::memfd_create("x", 0));
}

TEST(UnpackSandbox, NothingIsWrittenToAFile) {
  EXPECT_KILLED(::write(1, "x", 1));
  EXPECT_KILLED(::pwrite(1, "x", 1, 0));
  EXPECT_KILLED(::ftruncate(1, 0));
  EXPECT_KILLED(::fallocate(1, 0, 0, 1));
  EXPECT_KILLED(raw(SYS_copy_file_range, 1, nullptr, 1, nullptr, 1, 0));
  EXPECT_KILLED(raw(SYS_sendfile, 1, 1, nullptr, 1));
  EXPECT_KILLED(::fcntl(0, F_SETFL, 0));
  EXPECT_KILLED(::dup(0));
  EXPECT_KILLED(raw(SYS_ioctl, 0, 0, 0));
}

TEST(UnpackSandbox, NobodyElseIsTalkedTo) {
  msghdr message{};
  int pair[2];
  EXPECT_KILLED(::socket(AF_INET, SOCK_STREAM, 0));
  EXPECT_KILLED(::socket(AF_UNIX, SOCK_STREAM, 0));
  EXPECT_KILLED(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  EXPECT_KILLED(::pipe(pair));
  EXPECT_KILLED(::connect(0, nullptr, 0));
  EXPECT_KILLED(::sendmsg(1, &message, 0));
  EXPECT_KILLED(::recvmsg(1, &message, 0));
  EXPECT_KILLED(::send(0, "x", 1, 0));
}

TEST(UnpackSandbox, NoProgramThreadOrProcessIsStarted) {
  char* const arguments[] = {nullptr};
  EXPECT_KILLED(::fork());
  EXPECT_KILLED(raw(SYS_vfork));
  EXPECT_KILLED(raw(SYS_clone3, nullptr, 0));
  EXPECT_KILLED(std::thread([] {}).join());
  EXPECT_KILLED(::execve("/bin/true", arguments, arguments));
  EXPECT_KILLED(::unshare(CLONE_NEWUSER));
}

TEST(UnpackSandbox, NoOtherProcessIsTouched) {
  iovec part{nullptr, 0};
  EXPECT_KILLED(::kill(::getpid(), SIGKILL));
  EXPECT_KILLED(::kill(1, 0));
  EXPECT_KILLED(raw(SYS_tgkill, ::getpid(), ::getpid(), SIGKILL));
  EXPECT_KILLED(raw(SYS_tgkill, 1, 1, SIGABRT));
  EXPECT_KILLED(raw(SYS_pidfd_open, 1, 0));
  EXPECT_KILLED(::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr));
  EXPECT_KILLED(::process_vm_readv(::getpid(), &part, 1, &part, 1, 0));
  EXPECT_KILLED(raw(SYS_prlimit64, 1, RLIMIT_DATA, nullptr, nullptr));
}

TEST(UnpackSandbox, NoMemoryBecomesExecutable) {
  EXPECT_KILLED(anonymous(PROT_READ | PROT_EXEC));
  EXPECT_KILLED(anonymous(PROT_READ | PROT_WRITE | PROT_EXEC));
  EXPECT_KILLED(::mprotect(anonymous(PROT_READ), 4096, PROT_READ | PROT_EXEC));
  EXPECT_KILLED(::pkey_mprotect(anonymous(PROT_READ), 4096, PROT_EXEC, -1));
  EXPECT_KILLED(::personality(READ_IMPLIES_EXEC));
}

TEST(UnpackSandbox, TheSandboxIsNotLeft) {
  EXPECT_KILLED(::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
  EXPECT_KILLED(::prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0));
  EXPECT_KILLED(::setuid(0));
  EXPECT_KILLED(raw(SYS_setrlimit, RLIMIT_NOFILE, nullptr));
  EXPECT_KILLED(raw(SYS_prlimit64, 0, RLIMIT_NOFILE, nullptr, nullptr));
  EXPECT_KILLED(raw(SYS_seccomp, 0, 0, nullptr));
  EXPECT_KILLED(raw(SYS_io_uring_setup, 1, nullptr));
  EXPECT_KILLED(raw(SYS_bpf, 0, nullptr, 0));
  EXPECT_KILLED(raw(12345));
}

#if defined(__x86_64__)
// The same numbers mean other calls by the other ways into the kernel.
TEST(UnpackSandbox, OtherCallingConventionsAreNoWayOut) {
  constexpr long x32 = 0x40000000;
  EXPECT_KILLED(raw(x32 + SYS_exit_group, 0));
  // A kernel that has no 32-bit calls kills by another signal.
  const int status = end_of([] {
    long result = 0;
    asm volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory");  // getpid() for 32 bits
    return true;
  });
  EXPECT_TRUE(WIFSIGNALED(status));
}
#endif

TEST(UnpackSandbox, WhatUnpackingNeedsIsThere) {
  EXPECT_DONE(anonymous(PROT_READ | PROT_WRITE) != MAP_FAILED);
  EXPECT_DONE(::mprotect(anonymous(PROT_READ), 4096, PROT_READ | PROT_WRITE) == 0);
  EXPECT_DONE(std::vector<char>(100 << 20).size() == 100 << 20);
  EXPECT_DONE(::pread(1, nullptr, 0, 0) <= 0);
  EXPECT_DONE(([] {
    try {
      throw std::bad_alloc();
    } catch (const std::bad_alloc&) {
      return true;
    }
  }()));
  const int aborted = end_of([]() -> bool { std::abort(); });
  EXPECT_TRUE(WIFSIGNALED(aborted) && WTERMSIG(aborted) == SIGABRT);
}

bool can_have(std::size_t bytes) {
  void* const block = std::malloc(bytes);
  std::free(block);
  return block != nullptr;
}

TEST(UnpackSandbox, MemoryIsBounded) {
  constexpr std::size_t large = std::size_t{300} << 20;
  EXPECT_DONE((bound_memory(0), !can_have(large)));
  EXPECT_DONE((bound_memory(large), can_have(large)));
  EXPECT_DONE((bound_memory(large), bound_memory(0), !can_have(large)));
  EXPECT_DONE((bound_memory(std::uint64_t{1} << 50), !can_have(std::size_t{1} << 45)));
  // By new, too, as an exception.
  EXPECT_DONE(([] {
    bound_memory(0);
    try {
      return std::vector<char>(large).empty();
    } catch (const std::bad_alloc&) {
      return true;
    }
  }()));
}

TEST(UnpackSandbox, TheEnvironmentIsEmpty) {
  ::setenv("ACCRETE_SECRET", "secret", 1);
  EXPECT_DONE(std::getenv("ACCRETE_SECRET") == nullptr);
  ::unsetenv("ACCRETE_SECRET");
}

// As "Key: value" or columns, by the first word or words before the columns.
std::string entry(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(key)) return line.substr(key.size());
  return {};
}

TEST(UnpackSandbox, TheKernelSaysSo) {
  int pair[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(pair[1], 0);
    if (!enter_sandbox().ok()) ::_exit(1);
    char byte = 0;
    iovec part{&byte, 1};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    ::sendmsg(0, &message, 0);
    ::recvmsg(0, &message, 0);  // until the socket is closed
    leave_sandbox();
  }
  ::close(pair[1]);
  char byte = 0;
  ASSERT_EQ(::recv(pair[0], &byte, 1, 0), 1);
  const std::string process = "/proc/" + std::to_string(child);
  EXPECT_EQ(entry(process + "/status", "NoNewPrivs:"), "\t1");
  EXPECT_EQ(entry(process + "/status", "Seccomp:"), "\t2");
  EXPECT_EQ(entry(process + "/status", "Threads:"), "\t1");
  if (::geteuid() == 0) {
    for (const char* const key : {"Uid:", "Gid:"})
      EXPECT_EQ(entry(process + "/status", key), "\t65534\t65534\t65534\t65534");
    for (const char* const key : {"CapPrm:", "CapEff:", "CapAmb:"})
      EXPECT_EQ(entry(process + "/status", key), "\t0000000000000000");
    EXPECT_EQ(entry(process + "/oom_score_adj", ""), "1000");
  }
  const auto limits = [&](const std::string& name) {
    std::istringstream columns(entry(process + "/limits", name));
    std::string soft, hard;
    columns >> soft >> hard;
    return soft + " " + hard;
  };
  EXPECT_EQ(limits("Max core file size"), "0 0");
  EXPECT_EQ(limits("Max file size"), "0 0");
  EXPECT_EQ(limits("Max open files"), "4 4");
  EXPECT_EQ(limits("Max processes"), "0 0");
  EXPECT_EQ(limits("Max data size").find("unlimited"), std::string::npos);
  struct stat owner {};
  ASSERT_EQ(::stat((process + "/mem").c_str(), &owner), 0);
  EXPECT_EQ(owner.st_uid, 0U);  // as of processes that are not dumpable
  ::close(pair[0]);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(UnpackSandbox, EndsWithTheThreadThatStartedIt) {
  pid_t child = -1;
  std::thread([&] {
    child = ::fork();
    if (child == 0) {
      if (!enter_sandbox().ok()) ::_exit(1);
      for (volatile bool spin = true; spin;) {
      }
    }
    while (entry("/proc/" + std::to_string(child) + "/status", "Seccomp:") != "\t2")
      std::this_thread::yield();
  }).join();
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

// Makes the kernel behave, for this process and those that it starts, as one without seccomp.
void forbid_filters() {
  const scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
  seccomp_rule_add(filter, SCMP_ACT_ERRNO(EINVAL), SCMP_SYS(seccomp), 0);
  seccomp_rule_add(filter, SCMP_ACT_ERRNO(EINVAL), SCMP_SYS(prctl), 1,
                   SCMP_A0_32(SCMP_CMP_EQ, PR_SET_SECCOMP));
  seccomp_load(filter);
  seccomp_release(filter);
}

TEST(UnpackSandbox, GoesOnWithoutFiltersAndSaysSo) {
  const pid_t child = ::fork();
  if (child == 0) {
    forbid_filters();
    const Result<std::string> lacks = enter_sandbox();
    ::_exit(lacks.ok() && lacks->find("system calls are not filtered") == 4 ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(UnpackSandbox, FilesAreUnpackedWithoutFiltersToo) {
  const std::string packed = testing::gzip("some content");
  FILE* const from = std::tmpfile();
  FILE* const to = std::tmpfile();
  ASSERT_EQ(::pwrite(::fileno(from), packed.data(), packed.size(), 0),
            static_cast<ssize_t>(packed.size()));
  const pid_t child = ::fork();
  if (child == 0) {
    forbid_filters();
    Unpacker unpacker(ACCRETE_UNPACK_PROGRAM);
    const auto length = unpacker.inflate(::fileno(from), ::fileno(to), 100, 100);
    ::_exit(length.ok() && *length == 12 ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  std::fclose(from);
  std::fclose(to);
}

}  // namespace
}  // namespace accrete
