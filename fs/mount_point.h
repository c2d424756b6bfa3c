// Where to mount: checks before anything is done.
#pragma once

#include <string>

#include "core/result.h"

namespace accrete {

// The absolute path of a file that need not exist (its directory must), without links in the way to
// it. Does not touch the file itself, which may be a dead mount.
Result<std::string> absolute_path(const std::string& path);

// True for /dev/fd/N: mounted by whoever started us.
bool is_passed_descriptor(const std::string& mount_point);

// True when some accretefs has the store (an absolute path) mounted somewhere.
bool is_mounted(const std::string& store);

// Makes sure that `store` can be mounted on `mount_point` (both absolute). A mount of ours that
// lost its daemon is taken away first.
// EBUSY: mounted already; ENOTDIR, ENOENT; EINVAL: one inside the other.
Status prepare_mount_point(const std::string& store, const std::string& mount_point);

}  // namespace accrete
