#include "tools/unpack_input.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

namespace accrete {

Result<std::size_t> UnpackInput::read(std::uint64_t offset, std::span<unsigned char> target) const {
  std::size_t done = 0;
  while (done < target.size()) {
    const ssize_t n =
        ::pread(fd_, target.data() + done, target.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "read the file to unpack");
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  return done;
}

Result<UnpackMapping> UnpackMapping::of(const UnpackInput& input) {
  if (input.size_ == 0) return bad("the FITS file is empty");
  void* const address = ::mmap(nullptr, input.size_, PROT_READ, MAP_SHARED, input.fd_, 0);
  if (address == MAP_FAILED) return fail_errno(errno, "map the file to unpack");
  return UnpackMapping(static_cast<const char*>(address), input.size_);
}

UnpackMapping::~UnpackMapping() {
  if (address_ != nullptr) ::munmap(const_cast<char*>(address_), size_);
}

}  // namespace accrete
