// Tells the kernel that names mean something else, on a thread of its own. That takes the lock of
// the directory, and nobody who must not wait for one waits here (publish.h, rule 9).
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
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
  using Done = std::function<void()>;

  ~NameRevoker() { stop(); }

  // Starts the thread. Not before daemonizing.
  void start(fuse_session* session) EXCLUDES(mutex_);
  // Runs all that waits. Afterwards nothing is revoked.
  void stop() EXCLUDES(mutex_);

  // Runs `done` as soon as these names, and all that came before, are revoked: on the thread, or by
  // release_if_stuck(), or by stop().
  void revoke(std::vector<NodeTable::RevokedName> names, Done done) EXCLUDES(mutex_);
  bool is_idle() const EXCLUDES(mutex_);
  // To be called every now and then while it is not idle, by another thread: runs what waits where
  // a directory has been locked for as long as `patience`, lest its lock waits for that. Its names
  // are revoked all the same, as soon as it is free.
  void release_if_stuck() EXCLUDES(mutex_);

  static constexpr std::chrono::milliseconds patience{2000};

 private:
  using Clock = std::chrono::steady_clock;
  struct Batch {
    std::vector<NodeTable::RevokedName> names;
    Done done;  // empty when it has been run
  };

  void run() EXCLUDES(mutex_);
  void send(const NodeTable::RevokedName& name);
  void release() EXCLUDES(mutex_);

  fuse_session* session_ = nullptr;
  std::thread thread_;
  mutable Mutex mutex_;
  CondVar wake_;
  std::deque<Batch> batches_ GUARDED_BY(mutex_);  // the first is being sent
  bool running_ GUARDED_BY(mutex_) = false;
  std::atomic<Clock::time_point> last_sent_{};
};

}  // namespace accrete
