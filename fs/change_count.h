// Counts changes while the kernel's caches follow them, so that one can tell later whether pages
// that nobody watched over are still right (rule 6 in fs/publish.h).
#pragma once

#include <atomic>
#include <cstdint>

namespace accrete {

// Thread-safe.
class ChangeCount {
 public:
  // A change was made. To be called before anybody looks for pages that it makes stale.
  void begin() { ++begun_; }
  // Those pages are gone.
  void end() { ++done_; }

  // As many have begun as once were done: none was on its way then, and none has begun since.
  std::uint64_t begun() const { return begun_; }
  std::uint64_t done() const { return done_; }

 private:
  std::atomic<std::uint64_t> begun_ = 0;
  std::atomic<std::uint64_t> done_ = 0;
};

}  // namespace accrete
