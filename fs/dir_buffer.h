// Directory entries as the kernel takes them.
#pragma once

#include <cstdint>
#include <memory>
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

 private:
  DirectoryEntry entry(std::uint64_t position) const;

  const std::unique_ptr<Listing> listing_;
  const std::uint64_t ino_;
};

}  // namespace accrete
