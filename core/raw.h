// Elements alone, in the byte order of this machine. Never recognised by content.
#pragma once

#include "core/format.h"

namespace accrete {

const Format& raw_format();

}  // namespace accrete
