// Gzip files (RFC 1952), by zlib.
#pragma once

#include <cstdint>

#include "core/result.h"
#include "core/unpack_protocol.h"
#include "tools/unpack_input.h"
#include "tools/unpack_output.h"

namespace accrete {

// Unpacks all members, one after the other, and gives their whole length; the first `request.keep`
// bytes go to `output`. zlib checks CRCs and lengths; zeros may follow. EINVAL, EFBIG for more than
// `request.most`, errors of the input and the output; std::bad_alloc.
Result<std::uint64_t> unpack_gzip(const UnpackInput& input, const UnpackRequest& request,
                                  UnpackOutput& output);

constexpr int gzip_only = 16;  // added to zlib's window bits

}  // namespace accrete
