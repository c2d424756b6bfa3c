#include "core/private_mapping.h"

#include <sys/mman.h>

#include <cerrno>

namespace accrete {

Result<std::shared_ptr<std::byte>> map_private(const PosixFile& file, std::uint64_t length) {
  // Only pages that are stored to take memory, so none is set aside for the others.
  void* address =
      ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file.fd(), 0);
  if (address == MAP_FAILED) return fail_errno(errno, "map " + file.name());
  return std::shared_ptr<std::byte>(static_cast<std::byte*>(address),
                                    [length](std::byte* p) { ::munmap(p, length); });
}

}  // namespace accrete
