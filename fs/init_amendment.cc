#include "fs/init_amendment.h"

#include <linux/fuse.h>

#include <cstring>

namespace accrete {

namespace {

// From the kernel's fuse.h of Linux 6.6; Debian 12's lacks them.
constexpr std::uint32_t init_ext = 1u << 30;             // FUSE_INIT_EXT, in flags
constexpr std::uint32_t direct_io_allow_mmap = 1u << 4;  // bit 36 of all flags, in flags2

}  // namespace

void InitAmendment::see_request(std::span<const std::byte> message) {
  if (seen_) return;
  fuse_in_header header;
  if (message.size() < sizeof header) return;
  std::memcpy(&header, message.data(), sizeof header);
  if (header.opcode != FUSE_INIT) return;
  unique_ = header.unique;
  fuse_init_in init{};
  if (message.size() >= sizeof header + sizeof init) {
    std::memcpy(&init, message.data() + sizeof header, sizeof init);
    offered_ = wanted_ && init.major == 7 && (init.flags & init_ext) != 0 &&
               (init.flags2 & direct_io_allow_mmap) != 0;
  }
  seen_ = true;
}

void InitAmendment::amend_reply(std::span<iovec> parts) {
  if (answered_ || !seen_ || parts.size() < 2) return;
  fuse_out_header header;
  std::memcpy(&header, parts[0].iov_base, sizeof header);
  if (header.unique != unique_) return;
  answered_ = true;
  fuse_init_out init;
  if (!offered_ || header.error != 0 || parts[1].iov_len != sizeof init) return;
  std::memcpy(&init, parts[1].iov_base, sizeof init);
  init.flags |= init_ext;
  init.flags2 |= direct_io_allow_mmap;
  std::memcpy(parts[1].iov_base, &init, sizeof init);
}

}  // namespace accrete
