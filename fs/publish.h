// Tells the kernel what it must no longer believe, on a thread of its own.
//
// A notification with data takes page locks that the reader or writer which we are just answering
// may hold; so no session thread ever waits for one. A commit publishes its snapshot first, then
// queues what shall happen after the kernel's caches are right (mostly: the reply). The notifier's
// thread sends the notifications and then runs that. Meanwhile reads are answered as ever.
//
// Who may hold stale pages: files that are open. Closed ones lose theirs at the next open, which
// never asks to keep the cache. Where nobody has a file of the cube open nothing is queued.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "core/mutex.h"

struct fuse_session;

namespace accrete {

class CubeState;
class Tree;

// The kernel shall ask again for an inode's attributes and, from a byte on, for its pages.
struct CacheNotice {
  std::uint64_t node = 0;
  std::int64_t offset = -1;  // -1: attributes only
};

// An open file whose attributes or pages may change by a commit.
class Watched {
 public:
  virtual ~Watched() = default;
  // `contents_changed`: not only by growth. Thread-safe.
  virtual std::optional<CacheNotice> after_commit(bool contents_changed) = 0;
};

// Thread-safe.
class Publisher {
 public:
  explicit Publisher(Tree& tree);
  ~Publisher() { stop(); }

  // Starts the thread. Not before daemonizing.
  void start(fuse_session* session) EXCLUDES(mutex_);
  // What is still queued is run, without notifications.
  void stop() EXCLUDES(mutex_);

  // A commit of the cube was published. `then` (may be empty) runs as soon as the kernel's caches
  // are right: at once where none can be wrong, else on the notifier's thread.
  void announce(std::shared_ptr<CubeState> cube, bool contents_changed, std::function<void()> then)
      EXCLUDES(mutex_);

  // Asks the kernel to let go of names that nobody uses, when it holds too many.
  void trim_if_large() EXCLUDES(mutex_);

 private:
  struct Item {
    std::shared_ptr<CubeState> cube;
    bool contents_changed = false;
    std::function<void()> then;
  };

  void run() EXCLUDES(mutex_);
  void notify(const std::vector<Item>& items);
  void trim();

  Tree& tree_;
  fuse_session* session_ = nullptr;
  std::thread thread_;
  Mutex mutex_;
  CondVar wake_;
  std::vector<Item> queue_ GUARDED_BY(mutex_);
  bool trim_wanted_ GUARDED_BY(mutex_) = false;
  std::atomic<std::size_t> trim_above_;  // number of nodes
  bool running_ GUARDED_BY(mutex_) = false;
};

}  // namespace accrete
