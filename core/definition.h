// What defines a cube: how a first frame and the settings make a definition, and whether a frame
// fits one. Pure.
#pragma once

#include "core/snapshot.h"

namespace accrete {

inline constexpr std::string_view default_letters = "xyztsuvw";

// The letters by which axes can be named: the cube's, or those that it would have.
std::string_view letters_of(const Definition& definition);

// What settings alone define, before the first frame and after the last one.
Definition undefined_by(const Settings& settings);

// The definition that a first frame gives, under what was set before. A frame of one or two axes
// makes a cube with one more; one of three or more is taken as it is; axes set before override.
// EINVAL: more axes than were set, a pad that the type cannot hold.
Result<Definition> define_by(const Settings& settings, const FrameLayout& layout);

// The frame's extents for each axis of the cube: missing slowest ones are 1, superfluous trailing
// extents of 1 are dropped. EINVAL: too many axes.
Result<Shape> fit(const Definition& definition, const FrameLayout& layout);

// EINVAL when meta/ragged does not allow the frame's extents across the axis that it grows.
Status check_ragged(const Definition& definition, const Shape& cube, const Shape& frame,
                    std::size_t axis);

// The image that meta/hdu chooses.
ImageChoice image_choice(const Settings& settings);

// Text of a property -> setting. EINVAL with a sentence for a bad value.
Result<std::string> parse_letters(std::string_view text);  // "x y f s" or "xyfs"
Result<std::string> parse_formats(std::string_view text);  // "fits npy"
// "arrival" gives nothing; "name"; or keywords, in upper case: "DATE-OBS EXPTIME".
Result<std::string> parse_order(std::string_view text);
// "first" gives nothing; a number; or a name in upper case, "SCI" or "SCI,2".
Result<std::string> parse_hdu(std::string_view text);
std::vector<std::string> words(std::string_view text);  // parted by white space

}  // namespace accrete
