#include "fs/dir_buffer.h"

namespace accrete {

namespace {
constexpr std::uint64_t dots = 2;

// All that a listing says.
struct stat bare(const DirectoryEntry& entry) {
  struct stat attributes {};
  attributes.st_ino = entry.ino;
  attributes.st_mode = entry.type;
  return attributes;
}

}  // namespace

DirectoryEntry OpenDirectory::entry(std::uint64_t position) const {
  if (position >= dots) return listing_->entry(position - dots);
  return {position == 0 ? "." : "..", ino_, S_IFDIR};
}

template <class Add>
std::vector<char> OpenDirectory::fill(std::uint64_t offset, std::size_t size,
                                      const Add& add) const {
  std::vector<char> buffer(size);
  std::size_t used = 0;
  for (std::uint64_t position = offset; position < listing_->size() + dots; ++position) {
    const std::size_t length = add(buffer.data() + used, size - used, position, entry(position));
    if (length > size - used) break;
    used += length;
  }
  buffer.resize(used);
  return buffer;
}

std::vector<char> OpenDirectory::entries(fuse_req_t request, std::uint64_t offset,
                                         std::size_t size) const {
  return fill(offset, size,
              [&](char* room, std::size_t bytes, std::uint64_t position, const DirectoryEntry& e) {
                const struct stat attributes = bare(e);
                return fuse_add_direntry(request, room, bytes, e.name.c_str(), &attributes,
                                         static_cast<off_t>(position + 1));
              });
}

std::vector<char> OpenDirectory::entries_with_attributes(fuse_req_t request, std::uint64_t offset,
                                                         std::size_t size,
                                                         const LookUp& look_up) const {
  const bool is_of_views = listing_->is_of_views();
  return fill(offset, size,
              [&](char* room, std::size_t bytes, std::uint64_t position, const DirectoryEntry& e) {
                const char* const name = e.name.c_str();
                fuse_entry_param entry{};  // a node of 0: no look-up
                entry.attr = bare(e);
                // What does not fit is not looked up.
                const std::size_t length =
                    fuse_add_direntry_plus(request, nullptr, 0, name, nullptr, 0);
                if (length > bytes) return length;
                if (is_of_views && position >= dots)
                  if (const auto found = look_up(e.name)) entry = *found;
                return fuse_add_direntry_plus(request, room, bytes, name, &entry,
                                              static_cast<off_t>(position + 1));
              });
}

}  // namespace accrete
