// Where a test can stand between core and the store: every system call that touches the store is
// made by core/posix_file.cc, which asks here before each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace accrete {

enum class SystemCall {
  open,
  stat,
  read,
  write,
  truncate,
  allocate,
  punch,
  sync,
  lock,
  make_directory,
  rename,
  remove,
  list,
  map
};
inline constexpr int system_calls = 14;

// What becomes of a call.
struct Intervention {
  int error = 0;                   // the errno that it fails with, unmade; 0: it is made
  std::size_t at_most = SIZE_MAX;  // of a read or write: the bytes it is cut to, at least 1
};

// Stands there while it lives; one at a time. Calls that began before go on.
class SystemCallWatch {
 public:
  // Before each call, on its thread, also again where EINTR repeats it. `name`: of the file, as it
  // was opened, or of the entry that is changed. May end the process. Thread-safe.
  using Body = std::function<Intervention(SystemCall call, const std::string& name)>;

  explicit SystemCallWatch(Body body);
  ~SystemCallWatch();
  SystemCallWatch(const SystemCallWatch&) = delete;
  SystemCallWatch& operator=(const SystemCallWatch&) = delete;
};

// For core/posix_file.cc. Costs a load where nobody watches.
Intervention ask_watch(SystemCall call, const std::string& name);

}  // namespace accrete
