// The table of requests: each handler decodes, makes one call on a node or an open file, replies.
#pragma once

#include "fs/fuse.h"

namespace accrete {

// `userdata` of the session is a Session.
const fuse_lowlevel_ops& operations();

}  // namespace accrete
