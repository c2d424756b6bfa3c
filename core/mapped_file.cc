#include "core/mapped_file.h"

#include <algorithm>

namespace accrete {

namespace {
constexpr std::uint64_t first_reserve = std::uint64_t{16} << 30;
}

Result<std::unique_ptr<MappedFile>> MappedFile::open(PosixFile file, bool writable) {
  ACCRETE_TRY(const std::uint64_t size, file.size());
  auto mapped = std::unique_ptr<MappedFile>(new MappedFile(std::move(file), writable));
  ACCRETE_CHECK(mapped->ensure(size));
  return mapped;
}

Result<std::unique_ptr<MappedFile>> MappedFile::over(PosixFile file,
                                                     std::shared_ptr<std::byte> mapping,
                                                     std::uint64_t length) {
  auto mapped = std::unique_ptr<MappedFile>(new MappedFile(std::move(file), false));
  MutexLock lock(mapped->mutex_);
  mapped->mapping_ = std::move(mapping);
  mapped->reserved_ = length;
  return mapped;
}

std::shared_ptr<std::byte> MappedFile::mapping() const {
  MutexLock lock(mutex_);
  return mapping_;
}

Status MappedFile::ensure(std::uint64_t length) {
  MutexLock lock(mutex_);
  if (mapping_ && length <= reserved_) return {};
  std::uint64_t reserve = std::max(first_reserve, reserved_ * 2);
  while (reserve < length) reserve *= 2;
  if (writable_) {
    ACCRETE_TRY(mapping_, map_shared_writable(file_, reserve));
  } else {
    ACCRETE_TRY(const auto mapping, map_shared(file_, reserve));
    mapping_ = std::const_pointer_cast<std::byte>(mapping);
  }
  reserved_ = reserve;
  return {};
}

}  // namespace accrete
