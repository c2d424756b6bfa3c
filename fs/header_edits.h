// What a program has written over the headers of a file that it has open. It is taken into the cube
// when it closes or syncs the file: a header is written in blocks and may be none in between. This
// program reads what it has written; others, and mappings, find it when they open the file anew.
#pragma once

#include <functional>
#include <memory>

#include "core/mutex.h"
#include "fs/content.h"

namespace accrete {

// Thread-safe.
class HeaderEdits {
 public:
  void put(const TextChanges& changes) EXCLUDES(mutex_);
  // The same content with them.
  std::shared_ptr<const Shown> over(std::shared_ptr<const Shown> shown) const EXCLUDES(mutex_);
  // If there is anything new calls take(what was taken before, all by now), once. What it refuses
  // is forgotten.
  Status settle(const std::function<Status(const TextChanges&, const TextChanges&)>& take)
      EXCLUDES(mutex_);
  // Whether anything has been taken.
  bool has_taken() const EXCLUDES(mutex_);

 private:
  mutable Mutex mutex_;
  TextChanges taken_ GUARDED_BY(mutex_);
  TextChanges now_ GUARDED_BY(mutex_);
};

}  // namespace accrete
