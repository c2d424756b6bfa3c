// A file that comes in to take the place of all elements of a view, whole or not at all.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "core/cube.h"

namespace accrete {

// Thread-safe but for commit() beside itself.
class Replacement {
 public:
  // The cube outlives it.
  static Result<std::unique_ptr<Replacement>> begin(Cube& cube);

  // As in a file: any order, holes are zeros. ENOSPC; after an error there is no more to take until
  // all is written anew, from a truncation to nothing on.
  Status write(std::uint64_t offset, std::span<const std::byte> bytes) EXCLUDES(mutex_);
  Status append(std::span<const std::byte> bytes) EXCLUDES(mutex_);
  Result<std::size_t> read(std::uint64_t offset, std::span<std::byte> target) EXCLUDES(mutex_);
  Status truncate(std::uint64_t size) EXCLUDES(mutex_);
  // Written or truncated since the last commit().
  bool dirty() const EXCLUDES(mutex_);

  // Any file of a known format whose shape and type fit, or the elements alone in this machine's
  // byte order, or, for a view of a text format `like`, as text. Conversion is by meta/convert.
  // `former` as with Cube::replace(). EINVAL: it is none, cut off, packed, of another shape, or has
  // a value that the cube cannot have; that of a write() that failed; and Cube::replace()'s errors.
  // Whatever comes, it is not dirty afterwards.
  Status commit(const Pinned& pinned, const View& view, const Format& like,
                RecentValues::Ticket& former) EXCLUDES(mutex_);

 private:
  Replacement(Cube& cube, PosixFile file) : cube_(cube), file_(std::move(file)) {}

  Status write_locked(std::uint64_t offset, std::span<const std::byte> bytes) REQUIRES(mutex_);

  Cube& cube_;
  const PosixFile file_;
  mutable Mutex mutex_;
  std::uint64_t size_ GUARDED_BY(mutex_) = 0;
  bool dirty_ GUARDED_BY(mutex_) = true;
  std::optional<Error> failure_ GUARDED_BY(mutex_);
};

}  // namespace accrete
