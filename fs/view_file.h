// An open view (view_node.h), from open to release.
#pragma once

#include <memory>
#include <utility>

#include "core/replacement.h"
#include "fs/view_node.h"

namespace accrete {

// What is written to an open view since O_TRUNC. Thread-safe.
class StagedView {
 public:
  StagedView(const OpenFile* file, const Caller& opener) : file_(file), opener_(opener) {}

  // Whether the change is by its writer, who opened it with O_TRUNC.
  bool is_of(const AttributeChange& change) const {
    return file_ == change.file || (change.file == nullptr && opener_.pid == change.caller.pid);
  }
  // Nothing before O_TRUNC.
  std::shared_ptr<Replacement> replacement() const EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return replacement_;
  }
  void begin(std::shared_ptr<Replacement> replacement) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    replacement_ = std::move(replacement);
  }

 private:
  const OpenFile* const file_;  // only to be compared
  const Caller opener_;
  mutable Mutex mutex_;
  std::shared_ptr<Replacement> replacement_ GUARDED_BY(mutex_);
};

// Counts as open from now on. `shown`: begin() of the node gave what it shows.
std::unique_ptr<OpenFile> open_view(std::shared_ptr<ViewNode> node, Shown shown, bool writes,
                                    const Caller& opener);

}  // namespace accrete
