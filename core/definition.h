// What defines a cube: how a first frame and the settings make a definition, and whether a frame
// fits one. Pure.
#pragma once

#include "core/snapshot.h"

namespace accrete {

inline constexpr std::string_view default_letters = "xyztsuvw";

// The definition that a first frame gives, under what was set before. A frame of one or two axes
// makes a cube with one more; one of three or more is taken as it is; axes set before override.
// EINVAL: another type than was set, more axes than were set, a pad that the type cannot hold.
Result<Definition> define_by(const Definition& settings, const FrameLayout& layout);

// The frame's extents for each axis of the cube: missing slowest ones are 1, superfluous trailing
// extents of 1 are dropped. EINVAL: too many axes, another element type.
Result<Shape> fit(const Definition& definition, const FrameLayout& layout);

// Text of a property -> setting. EINVAL with a sentence for a bad value.
Result<std::string> parse_letters(std::string_view text);  // "x y f s" or "xyfs"
Result<std::string> parse_formats(std::string_view text);  // "fits npy"

}  // namespace accrete
