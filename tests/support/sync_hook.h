// Each fdatasync() of the program goes by here, so that a test can see what is on disk when, and
// make it fail.
#pragma once

#include <functional>
#include <memory>
#include <string>

namespace accrete::testing {

// One at a time.
class SyncHook {
 public:
  // body(file): its name without directories; 0, or the errno to fail with instead. Called by the
  // thread that syncs, before it does.
  explicit SyncHook(std::function<int(const std::string&)> body);
  ~SyncHook();
  SyncHook(const SyncHook&) = delete;
  SyncHook& operator=(const SyncHook&) = delete;
};

}  // namespace accrete::testing
