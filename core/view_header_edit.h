// Cards that a program changes in the header of a view's FITS file.
#pragma once

#include <string_view>

#include "core/cube.h"

namespace accrete {

// The view's header was `before` and shall be `after`, both of the same length. A view that shows a
// frame's cards changes those of the frame, any other one meta/header. EPERM: what would change
// says how the file is built, is made for each view (LTVi, ACRFRAME, world coordinates that are not
// the frame's own), or belongs to several frames; EINVAL: no header any more; and the errors of
// Cube::set_frame_cards() and set_property(). On an error nothing changes. Thread-safe.
Status edit_view_header(Cube& cube, const View& view, std::string_view before,
                        std::string_view after);

}  // namespace accrete
