// Tile-compressed FITS images, by cfitsio.
#pragma once

#include <cstdint>

#include "core/result.h"
#include "core/unpack_protocol.h"
#include "tools/unpack_input.h"
#include "tools/unpack_output.h"

namespace accrete {

// Lets cfitsio do at once what it does in its first call.
void prepare_tiles();

// Makes of the image in HDU `request.hdu` a FITS file with that image as its primary array, as it
// is stored (BSCALE and BZERO not applied), and gives its length; padding at the end of the file is
// not written. The HDU's checksums are checked where it has them. EINVAL, EFBIG for more than
// `request.most`, ENOMEM, errors of the input and the output; std::bad_alloc.
Result<std::uint64_t> unpack_tiles(const UnpackInput& input, const UnpackRequest& request,
                                   UnpackOutput& output);

}  // namespace accrete
