// The heap: an append-only file of byte strings that rows refer to (names, headers, residues).
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "core/posix_file.h"
#include "core/snapshot.h"

namespace accrete {

// Reading is thread-safe; append and rewind are guarded by the cube's commit lock.
class HeapFile {
 public:
  // Opens or creates. `end`: what lies beyond is cut off, since nothing refers to it. EIO when the
  // file is shorter than that.
  static Result<std::unique_ptr<HeapFile>> open(const PosixFile& directory, std::uint64_t end,
                                                bool writable);
  // In the place of a file that cannot be opened: has no bytes.
  static std::unique_ptr<HeapFile> none();

  Result<HeapRef> append(std::span<const std::byte> bytes);  // an empty span gives an empty ref
  // Appends a part of a file.
  Result<HeapRef> append(const PosixFile& file, std::uint64_t offset, std::uint64_t length);
  std::uint64_t end() const { return end_; }
  // Gives back everything from `end` on: of a commit that failed.
  void rewind(std::uint64_t end);

  // EIO when the bytes are not those that were stored.
  Result<std::string> read(const HeapRef& ref) const;
  // Some bytes of a text, which are not checked by themselves. EIO.
  Status read_part(const HeapRef& ref, std::uint64_t offset, std::span<std::byte> target) const;
  // Whether a text is there and has its checksum, in little memory. EIO: it cannot be read.
  Result<bool> is_whole(const HeapRef& ref) const;
  Status verify(const HeapRef& ref) const;  // EIO in both cases
  // Frees the blocks of what nobody refers to any more. Thread-safe.
  Status discard(const HeapRef& ref) const { return file_.punch(ref.offset, ref.length); }
  Status sync() const { return file_.sync_data(); }

 private:
  Status check(const HeapRef& ref) const;
  HeapFile(PosixFile file, std::uint64_t end) : file_(std::move(file)), end_(end) {}

  PosixFile file_;
  std::atomic<std::uint64_t> end_;
};

}  // namespace accrete
