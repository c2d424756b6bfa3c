// One value a line, right-aligned in a width that depends on the type alone, so that line n begins
// at a known byte. Integers are exact, floats have the digits that round-trip; "nan", "inf",
// "-inf".
#pragma once

#include "core/format.h"

namespace accrete {

const Format& txt_format();

}  // namespace accrete
