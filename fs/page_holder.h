// Which pages of a node the kernel may hold: those that it was given since somebody has had the
// node open. (A mapping keeps its file open; when nobody has, the next open drops them.) Pages are
// all who have it open's, through whichever file they came.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "core/mutex.h"
#include "fs/content.h"
#include "fs/publish.h"

namespace accrete {

// Thread-safe.
class PageHolder {
 public:
  void add_opener() EXCLUDES(mutex_);
  // True when nobody has it open any more and the node was watched for its pages.
  bool drop_opener() EXCLUDES(mutex_);
  // The kernel is about to be given bytes of this content, which it keeps. To be called before they
  // are looked at. Where the node is not watched for its pages yet, `watch` is called before this
  // or any other call returns.
  void note(const Content& content, const std::function<void()>& watch) EXCLUDES(mutex_);
  // The same for bytes of which it is not known yet what elements they will be: anything that is
  // poked may be shown by them.
  void note_incoming(const std::function<void()>& watch) EXCLUDES(mutex_);
  bool any() const { return any_; }
  // The pages that may show what was poked.
  std::vector<CacheNotice> overlapping(std::uint64_t node, const Poked& poked) const
      EXCLUDES(mutex_);

 private:
  std::atomic<bool> any_ = false;
  mutable Mutex mutex_;
  std::size_t openers_ GUARDED_BY(mutex_) = 0;
  bool has_incoming_ GUARDED_BY(mutex_) = false;
  // None: there are no elements in it. On the heap, since few nodes ever have one.
  std::unique_ptr<const View> view_ GUARDED_BY(mutex_);
  std::uint64_t elements_offset_ GUARDED_BY(mutex_) = 0;
  std::uint64_t bytes_per_element_ GUARDED_BY(mutex_) = 0;
};

}  // namespace accrete
