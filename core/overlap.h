// Where a view shows elements that were changed through another one. Pure.
#pragma once

#include <vector>

#include "core/view.h"

namespace accrete {

// Ranges of `shown`'s stream that hold all elements which it has in common with the range of
// `changed`'s stream, in no particular order, and perhaps others: at most `most` for each of the
// cuboids that the range is made of (2 × rank - 1). Thread-safe.
std::vector<Interval> overlap(const View& shown, const View& changed, Interval range,
                              std::size_t most);

}  // namespace accrete
