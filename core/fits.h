// FITS images (FITS standard 4.0): the primary array or an IMAGE extension.
// Headers are checked here, strictly where structure is concerned, before anything else reads them.
#pragma once

#include "core/format.h"

namespace accrete {

const Format& fits_format();

}  // namespace accrete
