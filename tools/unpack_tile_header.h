// The headers of tile-compressed images, read and checked before cfitsio sees them.
#pragma once

#include <fitsio.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "core/result.h"
#include "core/shape.h"
#include "tools/unpack_tile_codes.h"

namespace accrete {

constexpr std::size_t most_rank = MAX_COMPRESS_DIM;
static_assert(most_rank <= max_rank);

// Fastest axis first.
using Box = PerAxis<std::uint64_t>;

// What the cards say of the image that is compressed.
struct TiledImage {
  int bitpix = 0;
  Box shape;
  Box tile;                // its extents, at most those of the image
  std::string codec;       // ZCMPTYPE
  RiceCoding rice;         // where that is RICE_1
  bool quantised = false;  // floats, as far as the cards say
  std::string header;      // of the uncompressed image, padded

  std::uint64_t element_size() const { return static_cast<std::uint64_t>(std::abs(bitpix)) / 8; }
};

// The image in HDU `hdu` (0: the primary) of a FITS file. All headers up to it have then been
// checked, for cfitsio trusts the structure of a file more than it should. EINVAL.
Result<TiledImage> read_tiled_image(std::string_view file, int hdu);

}  // namespace accrete
