// Tells the kernel that names mean something else, on a thread of its own. That takes the lock of
// the directory, and nobody who must not wait for one waits here (publish.h, rule 9).
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "core/mutex.h"
#include "fs/node_table.h"

struct fuse_session;

namespace accrete {

// Thread-safe.
class NameRevoker {
 public:
  // What goes on when names are revoked: of those who wait with something locked, and of others.
  struct Waiting {
    std::vector<std::function<void()>> with_lock;
    std::vector<std::function<void()>> without;

    bool empty() const { return with_lock.empty() && without.empty(); }
  };

  ~NameRevoker() { stop(); }

  // Starts the thread. Not before daemonizing.
  void start(fuse_session* session) EXCLUDES(mutex_);
  // All that waits goes on.
  void stop() EXCLUDES(mutex_);

  // Goes on with what waits as soon as these names, and all that came before, are revoked; on the
  // thread, or in release_if_stuck() or stop().
  void revoke(std::vector<NodeTable::RevokedName> names, Waiting waiting) EXCLUDES(mutex_);
  bool is_idle() const EXCLUDES(mutex_);
  // To be called every now and then while it is not idle, by another thread: where a directory has
  // been locked for as long as `patience`, those go on that have waited as long with something
  // locked, lest one of them is who keeps it locked; after far longer all do, lest who keeps it so
  // stops everybody. Names are revoked all the same, as soon as it is free.
  void release_if_stuck() EXCLUDES(mutex_);

  static constexpr std::chrono::milliseconds patience{2'000};
  static constexpr std::chrono::milliseconds most_patience{30'000};

 private:
  using Clock = std::chrono::steady_clock;
  struct Batch {
    std::vector<NodeTable::RevokedName> names;
    Waiting waiting;
    Clock::time_point since;
  };

  void run() EXCLUDES(mutex_);
  void send(const NodeTable::RevokedName& name);

  fuse_session* session_ = nullptr;
  std::thread thread_;
  mutable Mutex mutex_;
  CondVar wake_;
  std::deque<Batch> batches_ GUARDED_BY(mutex_);  // the first is being sent
  bool running_ GUARDED_BY(mutex_) = false;
  std::atomic<Clock::time_point> last_sent_{};
};

}  // namespace accrete
