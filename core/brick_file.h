// The brick file: the elements of all boxes, and which of its bytes are in use.
//
// Space that no box has reads as zeros and holds no blocks: what is given back is punched. So a
// fresh box is all zeros, and a hole in an incoming file needs no write.
#pragma once

#include <atomic>
#include <map>
#include <memory>

#include "core/mapped_file.h"

namespace accrete {

// Thread-safe.
class BrickFile {
 public:
  struct Range {
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
  };

  // `used`: the boxes' ranges, disjoint. What lies between and behind them is punched when
  // `reclaim` (the last run ended without having done it). `shown`: what the file is to be taken
  // for, if it is not writable; nothing: itself.
  static Result<std::unique_ptr<BrickFile>> open(const PosixFile& directory,
                                                 std::vector<Range> used, bool writable,
                                                 bool reclaim,
                                                 std::shared_ptr<std::byte> shown = nullptr);

  // Address space for a box, a multiple of the page size, without blocks. EFBIG, ENOSPC.
  Result<std::uint64_t> take(std::uint64_t length) EXCLUDES(mutex_);
  // Blocks for a range. ENOSPC, EDQUOT: none of them stays.
  Status hold_blocks(std::uint64_t offset, std::uint64_t length) {
    return file_->file().allocate(offset, length, false);
  }
  // Whether the disk has several times as many bytes to give.
  bool has_plenty(std::uint64_t bytes) const;
  // Frees a range that was taken; its blocks go at once. REQUIRES: nobody reads it.
  void give_back(std::uint64_t offset, std::uint64_t length) EXCLUDES(mutex_);
  // Frees the blocks but keeps the range; it reads as zeros.
  Status clear(std::uint64_t offset, std::uint64_t length) {
    Status punched = file_->file().punch(offset, length);
    if (!punched.ok()) has_leftovers_ = true;
    return punched;
  }
  // Something could not be cleared: the next run has to do it.
  bool has_leftovers() const { return has_leftovers_; }

  Status write(std::uint64_t offset, std::span<const std::byte> bytes) {
    return file_->file().write(offset, bytes);
  }
  Status write(std::uint64_t offset, std::span<const std::span<const std::byte>> pieces) {
    return file_->file().write(offset, pieces);
  }
  std::shared_ptr<const std::byte> mapping() const { return file_->mapping(); }
  // For stores in place. REQUIRES: opened writable.
  std::shared_ptr<std::byte> writable_mapping() { return file_->mapping(); }
  Status sync() const { return file_->file().sync_data(); }
  Result<std::uint64_t> blocks_in_use() const;  // bytes on disk

 private:
  explicit BrickFile(std::unique_ptr<MappedFile> file) : file_(std::move(file)) {}

  const std::unique_ptr<MappedFile> file_;
  std::atomic<bool> has_leftovers_ = false;
  Mutex mutex_;
  std::map<std::uint64_t, std::uint64_t> free_ GUARDED_BY(mutex_);  // offset -> length, merged
  std::uint64_t end_ GUARDED_BY(mutex_) = 0;
};

}  // namespace accrete
