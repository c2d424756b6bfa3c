#include "fs/dir_buffer.h"

namespace accrete {

namespace {
constexpr std::uint64_t dots = 2;
}  // namespace

DirectoryEntry OpenDirectory::entry(std::uint64_t position) const {
  if (position >= dots) return listing_->entry(position - dots);
  return {position == 0 ? "." : "..", ino_, S_IFDIR};
}

std::vector<char> OpenDirectory::entries(fuse_req_t request, std::uint64_t offset,
                                         std::size_t size) const {
  std::vector<char> buffer(size);
  std::size_t used = 0;
  for (std::uint64_t position = offset; position < listing_->size() + dots; ++position) {
    const DirectoryEntry entry = this->entry(position);
    struct stat attributes {};
    attributes.st_ino = entry.ino;
    attributes.st_mode = entry.type;
    const std::size_t length =
        fuse_add_direntry(request, buffer.data() + used, size - used, entry.name.c_str(),
                          &attributes, static_cast<off_t>(position + 1));
    if (length > size - used) break;
    used += length;
  }
  buffer.resize(used);
  return buffer;
}

}  // namespace accrete
