// Each sync of a file of the store goes by here, so that a test can see what is on disk when, and
// make it fail.
#pragma once

#include <functional>
#include <string>

#include "core/system_calls.h"

namespace accrete::testing {

// One at a time.
class SyncHook {
 public:
  // body(file): its name without directories; 0, or the errno to fail with instead. Called by the
  // thread that syncs, before it does.
  explicit SyncHook(const std::function<int(const std::string&)>& body)
      : watch_([body](SystemCall call, const std::string& name) {
          return Intervention{call == SystemCall::sync ? body(name) : 0};
        }) {}

 private:
  SystemCallWatch watch_;
};

}  // namespace accrete::testing
