#include "core/fault_guard.h"

#include <csetjmp>
#include <csignal>
#include <mutex>

namespace accrete {

namespace {

// Where this thread goes on after a fault; nothing outside of run_guarded().
thread_local sigjmp_buf* volatile way_out = nullptr;

void on_fault(int signal) {
  if (way_out != nullptr) siglongjmp(*way_out, 1);
  // Not ours: what it would have done without us, when the access is tried again.
  struct sigaction plain {};
  plain.sa_handler = SIG_DFL;
  ::sigaction(signal, &plain, nullptr);
}

void install() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_handler = on_fault;
    action.sa_flags = SA_NODEFER;  // the mask is not restored by the jump
    sigemptyset(&action.sa_mask);
    ::sigaction(SIGBUS, &action, nullptr);
  });
}

}  // namespace

bool run_guarded(void (*work)(void*), void* argument) {
  install();
  sigjmp_buf here;
  if (sigsetjmp(here, 0) != 0) {
    way_out = nullptr;
    sigset_t faults;  // blocked still where somebody (a sanitizer) called the handler in our place
    sigemptyset(&faults);
    sigaddset(&faults, SIGBUS);
    ::pthread_sigmask(SIG_UNBLOCK, &faults, nullptr);
    return false;
  }
  way_out = &here;
  work(argument);
  way_out = nullptr;
  return true;
}

}  // namespace accrete
