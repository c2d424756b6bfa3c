// A cube's history: a file of JSON lines, one an event, and the newest error among them.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "core/cube.h"
#include "core/mutex.h"
#include "core/posix_file.h"

namespace accrete {

// Thread-safe.
class History {
 public:
  static Result<std::unique_ptr<History>> open(const PosixFile& directory, bool writable);

  // Adds a line with the present time. A history that cannot be written is no reason to fail what
  // it tells about: then the event is dropped.
  void record(const Event& event) EXCLUDES(mutex_);
  std::uint64_t size() const { return size_; }
  Result<std::size_t> read(std::uint64_t offset, std::span<std::byte> target) const {
    return file_.read(offset, target);
  }
  // The newest sentence with an errno and its newline, or nothing.
  std::string last_error() const EXCLUDES(mutex_);

 private:
  History(PosixFile file, std::uint64_t size) : file_(std::move(file)), size_(size) {}
  void find_last_error();

  const PosixFile file_;
  mutable Mutex mutex_;
  std::atomic<std::uint64_t> size_;
  std::string last_error_ GUARDED_BY(mutex_);
};

}  // namespace accrete
