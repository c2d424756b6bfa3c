#include "fs/workers.h"

#include <new>
#include <utility>

namespace accrete {

namespace {
constexpr std::size_t most_threads = 4;
}

Workers::~Workers() {
  std::vector<std::thread> threads;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    threads.swap(threads_);
  }
  wake_.notify_all();
  for (std::thread& thread : threads) thread.join();
}

void Workers::post(std::function<void()> work) {
  MutexLock lock(mutex_);
  queue_.push_back(std::move(work));
  if (queue_.size() > idle_ && threads_.size() < most_threads)
    threads_.emplace_back([this] { run(); });
  wake_.notify_one();
}

void Workers::run() {
  for (;;) {
    std::function<void()> work;
    {
      MutexLock lock(mutex_);
      ++idle_;
      while (queue_.empty() && !stopping_) wake_.wait(mutex_);
      --idle_;
      if (queue_.empty()) return;
      work = std::move(queue_.front());
      queue_.pop_front();
    }
    try {
      work();
    } catch (const std::bad_alloc&) {
      // What it held of a reply says EIO.
    }
  }
}

}  // namespace accrete
