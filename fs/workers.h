// Threads for what takes long, so that no session thread is held up by it: commits that copy or
// unpack a whole file. They send no notifications.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "core/mutex.h"

namespace accrete {

// Thread-safe.
class Workers {
 public:
  Workers() = default;
  ~Workers();  // after all that was posted is done

  // Runs it soon, in no particular order. Not before daemonizing: a thread is started where none is
  // idle, up to a few.
  void post(std::function<void()> work) EXCLUDES(mutex_);

 private:
  void run() EXCLUDES(mutex_);

  Mutex mutex_;
  CondVar wake_;
  std::deque<std::function<void()>> queue_ GUARDED_BY(mutex_);
  std::vector<std::thread> threads_ GUARDED_BY(mutex_);
  std::size_t idle_ GUARDED_BY(mutex_) = 0;
  bool stopping_ GUARDED_BY(mutex_) = false;
};

}  // namespace accrete
