// Rules for the names of frames and cubes.
#pragma once

#include <string>
#include <string_view>

#include "core/result.h"

namespace accrete {

// EINVAL: empty, '.', '..', a '/', a control character; ENAMETOOLONG: over 255 bytes.
Status check_file_name(std::string_view name);
// As above, and a frame is not named by one of the cube's axis letters alone.
Status check_frame_name(std::string_view name, std::string_view letters);
// "NAME.~3~".
std::string numbered_name(std::string_view name, unsigned number);

}  // namespace accrete
