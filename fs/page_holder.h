// Which pages of a node the kernel may hold: those that it was given since somebody has had the
// node open (a mapping keeps its file open), and those from before that which the first open let it
// keep. Pages are all who have it open's, through whichever file they came.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "core/mutex.h"
#include "fs/change_count.h"
#include "fs/content.h"
#include "fs/publish.h"

namespace accrete {

// Thread-safe. `node` is always the same one, which has it; it is watched while there are pages.
class PageHolder {
 public:
  // `shows_growth`: growth, too, changes what pages show. `state` outlives this.
  PageHolder(CubeState& state, bool shows_growth);

  // Somebody opens the node. True: the kernel may keep the pages that it has; else it is to drop
  // them all, as without `may_keep`.
  bool add_opener(const std::shared_ptr<Watched>& node, bool may_keep) EXCLUDES(mutex_);
  void drop_opener(const Watched& node) EXCLUDES(mutex_);
  // The kernel is about to be given bytes of this content, which it keeps. To be called before they
  // are looked at. `lasts`: whoever opens the node later would be shown the same, but for changes
  // that are published.
  void note(const Content& content, bool lasts, const std::shared_ptr<Watched>& node)
      EXCLUDES(mutex_);
  // The same for bytes of which it is not known yet what elements they will be: anything that is
  // poked may be shown by them.
  void note_incoming(const std::shared_ptr<Watched>& node) EXCLUDES(mutex_);
  bool any() const { return any_; }
  // The pages that may show what was poked.
  std::vector<CacheNotice> overlapping(std::uint64_t node, const Poked& poked) const
      EXCLUDES(mutex_);

 private:
  struct Noted {
    bool lasts = true;
    bool has_incoming = false;
    // None: there are no elements in it. On the heap, since few nodes ever have one.
    std::unique_ptr<const View> view;
    std::uint64_t elements_offset = 0;
    std::uint64_t bytes_per_element = 0;
  };

  void watch(const std::shared_ptr<Watched>& node) REQUIRES(mutex_);
  void unwatch(const Watched& node) REQUIRES(mutex_);

  CubeState& state_;
  const ChangeCount& changes_;
  std::atomic<bool> any_ = false;
  mutable Mutex mutex_;
  std::size_t openers_ GUARDED_BY(mutex_) = 0;
  Noted noted_ GUARDED_BY(mutex_);
  // After the last close, where the pages may be kept: how many changes they have seen.
  std::optional<std::uint64_t> kept_at_ GUARDED_BY(mutex_);
};

}  // namespace accrete
