// A file mapped so that what is stored through the mapping stays in memory.
#pragma once

#include <memory>

#include "core/posix_file.h"

namespace accrete {

// Bytes [0, length); touching what lies beyond the file's end is SIGBUS (core/fault_guard.h). The
// file is open for reading and never changes by this.
Result<std::shared_ptr<std::byte>> map_private(const PosixFile& file, std::uint64_t length);

}  // namespace accrete
