// Every system call with which core touches the store. Tests can stand before each
// (core/system_calls.h).
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/result.h"

namespace accrete {

// An open file or directory, closed with the object. Reads and writes are whole or an error and
// retry EINTR. Thread-safe but for moving. `what` in errors is the name it was opened by.
class PosixFile {
 public:
  PosixFile() = default;
  PosixFile(PosixFile&& other) noexcept;
  PosixFile& operator=(PosixFile&& other) noexcept;
  ~PosixFile();

  // Symbolic links are never followed (O_NOFOLLOW), O_CLOEXEC always; a FIFO does not block.
  static Result<PosixFile> open(const std::string& path, int flags, unsigned mode = 0);
  static Result<PosixFile> open_at(const PosixFile& directory, const std::string& name, int flags,
                                   unsigned mode = 0);
  // A file without a name, gone when closed.
  static Result<PosixFile> unnamed_in(const PosixFile& directory);

  bool is_open() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  const std::string& name() const { return name_; }

  Result<std::uint64_t> size() const;
  Result<struct stat> status() const;
  // Short only at the end of the file.
  Result<std::size_t> read(std::uint64_t offset, std::span<std::byte> target) const;
  Status write(std::uint64_t offset, std::span<const std::byte> bytes) const;
  // The pieces one behind the other.
  Status write(std::uint64_t offset, std::span<const std::span<const std::byte>> pieces) const;
  Status truncate(std::uint64_t size) const;
  // Blocks for a range, extending the size when `extend`; a failure leaves no new blocks behind
  // beyond the old size.
  Status allocate(std::uint64_t offset, std::uint64_t length, bool extend) const;
  // Frees the blocks of a range; it reads as zeros afterwards.
  Status punch(std::uint64_t offset, std::uint64_t length) const;
  // Bytes that the disk it lies on has for us.
  Result<std::uint64_t> free_space() const;
  Status sync_data() const;  // fdatasync
  Status sync_all() const;   // fsync, for directories too
  // What the kernel's memory has of it and is not to be written is read from the disk again.
  void forget() const;
  // EBUSY when another open file holds the lock. Released with the last descriptor.
  Status lock_exclusive() const;

 private:
  PosixFile(int fd, std::string name) : fd_(fd), name_(std::move(name)) {}
  Error error(const char* call) const;

  int fd_ = -1;
  std::string name_;
};

Status make_directory_at(const PosixFile& directory, const std::string& name, unsigned mode);
Status rename_at(const PosixFile& directory, const std::string& from, const std::string& to,
                 bool replace);
Status unlink_at(const PosixFile& directory, const std::string& name, bool is_directory);
// Names without "." and "..", unsorted.
Result<std::vector<std::string>> list_directory(const PosixFile& directory);

// A file mapped; a length beyond its end is allowed (touching it there is SIGBUS,
// core/fault_guard.h).
Result<std::shared_ptr<const std::byte>> map_shared(const PosixFile& file, std::uint64_t length);
// The same, and its pages stay in memory as far as the limits of the process allow
// (RLIMIT_MEMLOCK): a disk that fails later is no fault then.
Result<std::shared_ptr<const std::byte>> map_resident(const PosixFile& file, std::uint64_t length);
Result<std::shared_ptr<std::byte>> map_shared_writable(const PosixFile& file, std::uint64_t length);
// What is stored through the mapping stays in memory; the file is open for reading.
Result<std::shared_ptr<std::byte>> map_private(const PosixFile& file, std::uint64_t length);

}  // namespace accrete
