#include "core/brick_file.h"

#include <fcntl.h>

#include <algorithm>

namespace accrete {

namespace {
constexpr std::uint64_t largest_file = std::uint64_t{1} << 62;
}

Result<std::unique_ptr<BrickFile>> BrickFile::open(const PosixFile& directory,
                                                   std::vector<Range> used, bool writable,
                                                   bool reclaim, std::shared_ptr<std::byte> shown) {
  ACCRETE_TRY(PosixFile file, PosixFile::open_at(directory, "bricks",
                                                 writable ? O_RDWR | O_CREAT : O_RDONLY, 0600));
  ACCRETE_TRY(const std::uint64_t size, file.size());
  std::sort(used.begin(), used.end(),
            [](const Range& a, const Range& b) { return a.offset < b.offset; });
  std::map<std::uint64_t, std::uint64_t> gaps;
  std::uint64_t end = 0;
  for (const Range& range : used) {
    if (range.offset < end)
      return fail(std::errc::io_error, "two boxes share bytes of the brick file");
    if (range.offset > end) gaps[end] = range.offset - end;
    end = range.offset + range.length;
  }
  if (size < end) return fail(std::errc::io_error, "the brick file is shorter than its boxes say");
  if (writable) {
    if (size > end) ACCRETE_CHECK(file.truncate(end));
    if (reclaim)
      for (const auto& [offset, length] : gaps) ACCRETE_CHECK(file.punch(offset, length));
  }
  ACCRETE_TRY(auto mapped, shown ? MappedFile::over(std::move(file), std::move(shown), size)
                                 : MappedFile::open(std::move(file), writable));
  auto bricks = std::unique_ptr<BrickFile>(new BrickFile(std::move(mapped)));
  MutexLock lock(bricks->mutex_);
  bricks->free_ = std::move(gaps);
  bricks->end_ = end;
  return bricks;
}

Result<std::uint64_t> BrickFile::take(std::uint64_t length) {
  MutexLock lock(mutex_);
  for (auto it = free_.begin(); it != free_.end(); ++it) {
    if (it->second < length) continue;
    const std::uint64_t offset = it->first;
    const std::uint64_t rest = it->second - length;
    free_.erase(it);
    if (rest > 0) free_[offset + length] = rest;
    return offset;
  }
  if (length > largest_file || end_ > largest_file - length)
    return fail(std::errc::file_too_large, "the brick file would become too large");
  const Status mapped = file_->ensure(end_ + length);
  if (!mapped.ok() && mapped.error().code == std::errc::not_enough_memory)
    return fail(std::errc::file_too_large, "the brick file would become too large to be mapped");
  ACCRETE_CHECK(mapped);
  ACCRETE_CHECK(file_->file().truncate(end_ + length));
  const std::uint64_t offset = end_;
  end_ += length;
  return offset;
}

bool BrickFile::has_plenty(std::uint64_t bytes) const {
  constexpr std::uint64_t plenty = 8;
  const auto free = file_->file().free_space();
  return free.ok() && *free / plenty >= bytes;
}

void BrickFile::give_back(std::uint64_t offset, std::uint64_t length) {
  if (length == 0) return;
  MutexLock lock(mutex_);
  if (!clear(offset, length).ok()) return;  // not known to be zeros: better lost than wrong
  auto next = free_.lower_bound(offset);
  if (next != free_.end() && next->first == offset + length) {
    length += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin()) {
    const auto previous = std::prev(next);
    if (previous->first + previous->second == offset) {
      offset = previous->first;
      length += previous->second;
      free_.erase(previous);
    }
  }
  if (offset + length == end_ && file_->file().truncate(offset).ok())
    end_ = offset;
  else
    free_[offset] = length;
}

Result<std::uint64_t> BrickFile::blocks_in_use() const {
  ACCRETE_TRY(const struct stat status, file_->file().status());
  return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

}  // namespace accrete
