// A file that grows beneath its mapping.
//
// Address space is reserved ahead of the file's end, so the mapping stays where it is while the
// file grows; when the reserve is used up, a mapping of twice the size is made and the older one
// lives on for those who hold it. Both show the same bytes.
#pragma once

#include <memory>

#include "core/mutex.h"
#include "core/posix_file.h"

namespace accrete {

// Thread-safe.
class MappedFile {
 public:
  // `writable`: bytes can be changed through the mapping; the file must be open for that.
  static Result<std::unique_ptr<MappedFile>> open(PosixFile file, bool writable);
  // What is seen is `mapping`, of that length, in the place of the file. Does not fail.
  static Result<std::unique_ptr<MappedFile>> over(PosixFile file,
                                                  std::shared_ptr<std::byte> mapping,
                                                  std::uint64_t length);

  const PosixFile& file() const { return file_; }
  // Address of byte 0, valid while held; reaches at least to the ensured length.
  std::shared_ptr<std::byte> mapping() const EXCLUDES(mutex_);
  // Makes sure that bytes [0, length) are within the mapping (not that the file is so long).
  Status ensure(std::uint64_t length) EXCLUDES(mutex_);

 private:
  MappedFile(PosixFile file, bool writable) : file_(std::move(file)), writable_(writable) {}

  const PosixFile file_;
  const bool writable_;
  mutable Mutex mutex_;
  std::shared_ptr<std::byte> mapping_ GUARDED_BY(mutex_);
  std::uint64_t reserved_ GUARDED_BY(mutex_) = 0;
};

}  // namespace accrete
