// The FITS cards that views carry beside those of their structure.
//
// A view at one index of the axis that a frame grew shows that frame's cards and its name, whatever
// else it spans. Every other view shows what all frames have in common, and the cube's own cards
// (meta/header). World coordinates follow the elements (wcs.h): an image's axis i is the cube's
// axis i, and where its pixels are now is known from the coordinates that its frame has for life.
// What holds of whole images only (sections such as TRIMSEC) is dropped elsewhere. LTVi and LTMi_i
// say which index of the cube a pixel is, from 0.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/cube.h"
#include "core/snapshot.h"
#include "core/view.h"
#include "core/wcs.h"

namespace accrete {

// The frame that gave the fixed index of the axis which that frame grew; of several the one that
// has all fixed indexes, and of those the newest.
std::optional<FrameRow> frame_of(const Cube& cube, const Snapshot& snapshot, const View& view);

// Cards for a FITS file of the view, each with its CONTINUE cards; no structural ones. Reads what
// it needs of the heap; a frame whose header cannot be read has no cards. Thread-safe.
std::vector<std::string> view_cards(Cube& cube, const Snapshot& snapshot, const View& view);
// Those of a view that shows a frame's cards, if these were the frame's.
std::vector<std::string> view_cards_of(Cube& cube, const Snapshot& snapshot, const View& view,
                                       const FrameRow& row,
                                       const std::vector<std::string>& frame_cards);
// A number that differs where the cards of a view with the same axes, ranges and fixed coordinates
// do, whatever has come to the ends of the axes; found without making them.
std::uint64_t view_cards_version(Cube& cube, const Snapshot& snapshot, const View& view);

// The settings with this meta/header, which speaks of the indexes as they are.
Settings with_header(Settings settings, const PerAxis<Axis>& axes, std::string header);
// meta/header as it reads now: its world coordinates follow the indexes.
std::string header_as_of(const Snapshot& snapshot);

}  // namespace accrete
