#include "fs/name_revoker.h"

#include <utility>

#include "fs/fuse.h"

namespace accrete {

namespace {

void move_all(std::vector<std::function<void()>>& from, std::vector<std::function<void()>>& to) {
  for (std::function<void()>& each : std::exchange(from, {})) to.push_back(std::move(each));
}

void go_on(const NameRevoker::Waiting& waiting) {
  for (const auto& then : waiting.with_lock) then();
  for (const auto& then : waiting.without) then();
}

}  // namespace

void NameRevoker::start(fuse_session* session) {
  session_ = session;
  {
    MutexLock lock(mutex_);
    running_ = true;
  }
  thread_ = std::thread([this] { run(); });
}

void NameRevoker::stop() {
  std::deque<Waiting> all;
  {
    MutexLock lock(mutex_);
    running_ = false;
    for (Batch& batch : batches_) all.push_back(std::exchange(batch.waiting, {}));
  }
  wake_.notify_all();
  for (const Waiting& each : all) go_on(each);
  if (thread_.joinable()) thread_.join();
}

void NameRevoker::revoke(std::vector<NodeTable::RevokedName> names, Waiting waiting) {
  bool is_running = false;
  {
    MutexLock lock(mutex_);
    is_running = running_;
    if (is_running) {
      if (batches_.empty()) last_sent_ = Clock::now();
      batches_.push_back({std::move(names), std::move(waiting), Clock::now()});
    }
  }
  if (is_running)
    wake_.notify_one();
  else
    go_on(waiting);
}

bool NameRevoker::is_idle() const {
  MutexLock lock(mutex_);
  return batches_.empty();
}

void NameRevoker::release_if_stuck() {
  const Clock::time_point now = Clock::now();
  Waiting released;
  {
    MutexLock lock(mutex_);
    if (now - last_sent_.load() <= patience) return;
    for (Batch& batch : batches_) {
      if (now - batch.since > patience) move_all(batch.waiting.with_lock, released.with_lock);
      if (now - batch.since > most_patience) move_all(batch.waiting.without, released.without);
    }
  }
  go_on(released);
}

void NameRevoker::run() {
  for (;;) {
    std::vector<NodeTable::RevokedName> names;
    {
      MutexLock lock(mutex_);
      while (running_ && batches_.empty()) wake_.wait(mutex_);
      if (!running_) return;
      names.swap(batches_.front().names);
    }
    for (const NodeTable::RevokedName& name : names) {
      send(name);
      last_sent_ = Clock::now();
    }
    Waiting waiting;
    {
      MutexLock lock(mutex_);
      waiting = std::move(batches_.front().waiting);
      batches_.pop_front();
    }
    go_on(waiting);
  }
}

void NameRevoker::send(const NodeTable::RevokedName& name) {
  fuse_lowlevel_notify_inval_entry(session_, name.parent, name.name.data(), name.name.size());
  // What the kernel had been told of a node that it did not have yet it has taken in by now.
  if (name.node != 0) fuse_lowlevel_notify_inval_inode(session_, name.node, -1, 0);
}

}  // namespace accrete
