// NPY files of numpy, versions 1 to 3 (numpy/lib/format.py describes them).
#pragma once

#include "core/format.h"

namespace accrete {

const Format& npy_format();

}  // namespace accrete
