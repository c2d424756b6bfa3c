#include "tools/unpack_sandbox.h"

#include <fcntl.h>
#include <grp.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>

namespace accrete {

namespace {

#if defined(__has_feature)  // clang
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define ACCRETE_SANITIZED
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ACCRETE_SANITIZED
#endif
#ifdef ACCRETE_SANITIZED
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif

constexpr int channel = 0;
constexpr unsigned nobody = 65534;
// 0 to 2 and the file under way.
constexpr rlim_t most_descriptors = 4;
// Memory for all that does not depend on the file, and for what malloc() keeps of earlier ones.
constexpr std::uint64_t base_memory = std::uint64_t{192} << 20;

Status check(int result, const char* what) {
  return result < 0 ? fail_errno(errno, what) : Status();
}

Status limit(__rlimit_resource resource, rlim_t most) {
  const rlimit both{most, most};
  return check(::setrlimit(resource, &both), "setrlimit");
}

rlim_t half_of_memory() {
  const long pages = ::sysconf(_SC_PHYS_PAGES), size = ::sysconf(_SC_PAGESIZE);
  if (pages <= 0 || size <= 0) return RLIM_INFINITY;
  return static_cast<rlim_t>(pages) * static_cast<rlim_t>(size) / 2;
}

Status close_all_else() {
  ::closefrom(3);
  const int nowhere = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  ACCRETE_CHECK(check(nowhere, "open /dev/null"));
  ACCRETE_CHECK(check(::dup2(nowhere, 1), "dup2"));
  if (!sanitized) ACCRETE_CHECK(check(::dup2(nowhere, 2), "dup2"));
  ::close(nowhere);
  return {};
}

// The kernel's first choice when memory runs out. Not every kernel has the file.
void be_the_first_to_go() {
  const int fd = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  [[maybe_unused]] const ssize_t n = ::write(fd, "1000", 4);
  ::close(fd);
}

Status set_limits() {
  ACCRETE_CHECK(limit(RLIMIT_CORE, 0));
  if (sanitized) return {};
  ACCRETE_CHECK(limit(RLIMIT_FSIZE, 0));
  ACCRETE_CHECK(limit(RLIMIT_NPROC, 0));
  ACCRETE_CHECK(limit(RLIMIT_NOFILE, most_descriptors));
  rlimit memory{};
  ACCRETE_CHECK(check(::getrlimit(RLIMIT_DATA, &memory), "getrlimit"));
  return limit(RLIMIT_DATA, std::min(memory.rlim_max, half_of_memory()));
}

// False when the process is root and cannot help it, as where a container knows no other user.
bool drop_root() {
  if (::geteuid() != 0 || sanitized) return true;
  return ::setgroups(0, nullptr) == 0 && ::setresgid(nobody, nobody, nobody) == 0 &&
         ::setresuid(nobody, nobody, nobody) == 0;
}

// Rules are added to the filter until one fails.
class Filter {
 public:
  Filter()
      : context_(seccomp_init(sanitized ? SCMP_ACT_ERRNO(EPERM) : SCMP_ACT_KILL_PROCESS),
                 seccomp_release) {
    if (!context_) error_ = ENOMEM;
    set(SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    set(SCMP_FLTATR_CTL_TSYNC, 1);  // a sanitizer has a thread of its own
    set(SCMP_FLTATR_API_SYSRAWRC, 1);
  }

  template <class... Conditions>
  void allow(int call, Conditions... conditions) {
    if (error_ == 0)
      error_ = -seccomp_rule_add(context_.get(), SCMP_ACT_ALLOW, call, sizeof...(conditions),
                                 conditions...);
  }

  // 0 or an errno.
  int load() { return error_ != 0 ? error_ : -seccomp_load(context_.get()); }

 private:
  void set(scmp_filter_attr attribute, std::uint32_t value) {
    if (error_ == 0) error_ = -seccomp_attr_set(context_.get(), attribute, value);
  }

  std::unique_ptr<void, void (*)(void*)> context_;
  int error_ = 0;
};

scmp_arg_cmp argument_is(unsigned number, std::uint64_t value) {
  return {number, SCMP_CMP_EQ, value, 0};
}

void allow_unpacking(Filter& filter) {
  const auto on_channel = argument_is(0, channel);
  const scmp_arg_cmp not_executable{2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0};
  filter.allow(SCMP_SYS(recvmsg), on_channel);
  filter.allow(SCMP_SYS(sendmsg), on_channel);
  filter.allow(SCMP_SYS(pread64));
  filter.allow(SCMP_SYS(close));
  filter.allow(SCMP_SYS(exit_group));

  filter.allow(SCMP_SYS(brk));
  filter.allow(SCMP_SYS(mmap), not_executable);
  filter.allow(SCMP_SYS(mprotect), not_executable);
  filter.allow(SCMP_SYS(mremap));
  filter.allow(SCMP_SYS(munmap));
  filter.allow(SCMP_SYS(madvise));
  filter.allow(SCMP_SYS(prlimit64), argument_is(0, 0), argument_is(1, RLIMIT_DATA));
  // malloc() counts processors when memory runs out.
  filter.allow(SCMP_SYS(sched_getaffinity));

  filter.allow(SCMP_SYS(futex));
  filter.allow(SCMP_SYS(restart_syscall));
  // abort(), so that a death by it is told from one by the filter.
  filter.allow(SCMP_SYS(writev), argument_is(0, STDERR_FILENO));
  filter.allow(SCMP_SYS(rt_sigprocmask));
  filter.allow(SCMP_SYS(getpid));
  filter.allow(SCMP_SYS(gettid));
  filter.allow(SCMP_SYS(tgkill), argument_is(0, static_cast<unsigned>(::getpid())),
               argument_is(2, SIGABRT));
}

// What sanitizers need to report, symbolise, look for leaks and run their own thread.
void allow_sanitizer(Filter& filter) {
  static constexpr int calls[] = {SCMP_SYS(open),
                                  SCMP_SYS(openat),
                                  SCMP_SYS(read),
                                  SCMP_SYS(write),
                                  SCMP_SYS(lseek),
                                  SCMP_SYS(fstat),
                                  SCMP_SYS(newfstatat),
                                  SCMP_SYS(readlink),
                                  SCMP_SYS(getdents),
                                  SCMP_SYS(getdents64),
                                  SCMP_SYS(clone),
                                  SCMP_SYS(ptrace),
                                  SCMP_SYS(wait4),
                                  SCMP_SYS(prctl),
                                  SCMP_SYS(getppid),
                                  SCMP_SYS(sigaltstack),
                                  SCMP_SYS(rt_sigaction),
                                  SCMP_SYS(rt_sigreturn),
                                  SCMP_SYS(exit),
                                  SCMP_SYS(sched_yield),
                                  SCMP_SYS(nanosleep),
                                  SCMP_SYS(clock_nanosleep),
                                  SCMP_SYS(clock_gettime),
                                  SCMP_SYS(prlimit64),
                                  SCMP_SYS(set_robust_list),
                                  SCMP_SYS(tgkill),
                                  SCMP_SYS(process_vm_readv)};
  for (const int call : calls) filter.allow(call);
}

// 0 or an errno.
int filter_calls() {
  Filter filter;
  allow_unpacking(filter);
  if (sanitized) allow_sanitizer(filter);
  return filter.load();
}

}  // namespace

Result<std::string> enter_sandbox() {
  std::string lacks;
  ACCRETE_CHECK(check(::chdir("/"), "chdir /"));
  ::clearenv();
  ACCRETE_CHECK(close_all_else());
  be_the_first_to_go();
  ACCRETE_CHECK(set_limits());
  if (!drop_root()) lacks += "it keeps the rights of root. ";
  // After the change of user, which undoes the last two.
  ACCRETE_CHECK(check(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl no_new_privs"));
  if (!sanitized) ACCRETE_CHECK(check(::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl dumpable"));
  // A daemon that has ended before this has closed the socket.
  ACCRETE_CHECK(check(::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "prctl pdeathsig"));
  if (const int error = filter_calls(); error != 0)
    lacks += std::string("its system calls are not filtered: ") + ::strerrordesc_np(error) + ". ";
  if (!lacks.empty()) lacks.pop_back();
  return lacks;
}

void bound_memory(std::uint64_t bytes) {
  if (sanitized) return;
  rlimit memory{};
  if (::getrlimit(RLIMIT_DATA, &memory) != 0) return;
  memory.rlim_cur = std::min<rlim_t>(memory.rlim_max, base_memory + bytes);
  ::setrlimit(RLIMIT_DATA, &memory);
}

void leave_sandbox() {
  if (sanitized) std::exit(0);  // looks for leaks
  ::_exit(0);
}

}  // namespace accrete
