// Who else has a file open.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>

namespace accrete {

// True when the process of thread `pid` or one of its ancestors has a descriptor of a file with one
// of these inode numbers. What cannot be read counts as none. Reads /proc only (fdinfo tells inode
// numbers without a call to the filesystem that owns them: we are that one).
bool is_held(pid_t pid, std::span<const std::uint64_t> inos);

}  // namespace accrete
