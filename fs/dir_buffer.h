// Directory entries as the kernel takes them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fs/node.h"
#include "fs/reply.h"

namespace accrete {

// An open directory. Offsets are positions in the listing (with "." and ".." before it) plus 1; so
// a reader may come back to any of them. Thread-safe.
class OpenDirectory : public OpenFile {
 public:
  OpenDirectory(std::unique_ptr<Listing> listing, std::uint64_t ino)
      : listing_(std::move(listing)), ino_(ino) {}

  // The entries from `offset` on that fit into `size` bytes; none at the end.
  std::vector<char> entries(fuse_req_t request, std::uint64_t offset, std::size_t size) const;
  // The same, each with what look_up(name) says of it, where the listing is of views. Where that is
  // nothing, and of all others, the kernel is told no more than by entries().
  using LookUp = std::function<std::optional<fuse_entry_param>(const std::string&)>;
  std::vector<char> entries_with_attributes(fuse_req_t request, std::uint64_t offset,
                                            std::size_t size, const LookUp& look_up) const;

 private:
  // Adds entries by add(room, bytes of it, position, entry), which says how many bytes one takes
  // and adds it where it has room.
  template <class Add>
  std::vector<char> fill(std::uint64_t offset, std::size_t size, const Add& add) const;
  DirectoryEntry entry(std::uint64_t position) const;

  const std::unique_ptr<Listing> listing_;
  const std::uint64_t ino_;
};

}  // namespace accrete
