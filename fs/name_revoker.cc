#include "fs/name_revoker.h"

#include <utility>

#include "fs/fuse.h"

namespace accrete {

void NameRevoker::start(fuse_session* session) {
  session_ = session;
  {
    MutexLock lock(mutex_);
    running_ = true;
  }
  thread_ = std::thread([this] { run(); });
}

void NameRevoker::stop() {
  {
    MutexLock lock(mutex_);
    running_ = false;
  }
  wake_.notify_all();
  release();
  if (thread_.joinable()) thread_.join();
}

void NameRevoker::revoke(std::vector<NodeTable::RevokedName> names, Done done) {
  bool is_running = false;
  {
    MutexLock lock(mutex_);
    is_running = running_;
    if (is_running) {
      if (batches_.empty()) last_sent_ = Clock::now();
      batches_.push_back({std::move(names), std::move(done)});
    }
  }
  if (is_running)
    wake_.notify_one();
  else
    done();
}

bool NameRevoker::is_idle() const {
  MutexLock lock(mutex_);
  return batches_.empty();
}

void NameRevoker::release_if_stuck() {
  if (!is_idle() && Clock::now() - last_sent_.load() > patience) release();
}

void NameRevoker::release() {
  std::vector<Done> all;
  {
    MutexLock lock(mutex_);
    for (Batch& batch : batches_)
      if (Done done = std::exchange(batch.done, nullptr)) all.push_back(std::move(done));
  }
  for (const Done& done : all) done();
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
    Done done;
    {
      MutexLock lock(mutex_);
      done = std::move(batches_.front().done);
      batches_.pop_front();
    }
    if (done) done();
  }
}

void NameRevoker::send(const NodeTable::RevokedName& name) {
  fuse_lowlevel_notify_inval_entry(session_, name.parent, name.name.data(), name.name.size());
  // What the kernel had been told of a node that it did not have yet it has taken in by now.
  if (name.node != 0) fuse_lowlevel_notify_inval_inode(session_, name.node, -1, 0);
}

}  // namespace accrete
