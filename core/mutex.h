// A mutex that clang's thread-safety analysis understands (other compilers see std::mutex).
#pragma once

#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define ACCRETE_TS(x) __attribute__((x))
#else
#define ACCRETE_TS(x)
#endif

#define GUARDED_BY(m) ACCRETE_TS(guarded_by(m))
#define REQUIRES(...) ACCRETE_TS(requires_capability(__VA_ARGS__))
#define EXCLUDES(...) ACCRETE_TS(locks_excluded(__VA_ARGS__))
#define NO_THREAD_SAFETY_ANALYSIS ACCRETE_TS(no_thread_safety_analysis)

namespace accrete {

class ACCRETE_TS(capability("mutex")) Mutex {
 public:
  void lock() ACCRETE_TS(acquire_capability()) { mutex_.lock(); }
  void unlock() ACCRETE_TS(release_capability()) { mutex_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

class ACCRETE_TS(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) ACCRETE_TS(acquire_capability(mutex)) : mutex_(mutex) {
    mutex_.lock();
  }
  ~MutexLock() ACCRETE_TS(release_capability()) { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// Waits on a Mutex that the caller holds.
class CondVar {
 public:
  void wait(Mutex& mutex) REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }
  // False when the time ran out.
  template <class Rep, class Period>
  bool wait_for(Mutex& mutex, std::chrono::duration<Rep, Period> time) REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    const bool woken = condition_.wait_for(lock, time) == std::cv_status::no_timeout;
    lock.release();
    return woken;
  }
  void notify_one() { condition_.notify_one(); }
  void notify_all() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace accrete
