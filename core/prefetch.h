// Reading ahead in the mapped brick file, by what a view is about to show.
//
// A fault reads what lies around it: much that nobody asked for, and the next run, which lies
// elsewhere, only when its turn has come.
#pragma once

#include <cstddef>
#include <span>

#include "core/linearize.h"

namespace accrete {

// Has the kernel begin to read all of the long runs that are not in memory, at once; and what
// follows them along the axis of growth where what is before them is there, as a reader's who goes
// through planes. Where there are many and some of them, spread out, are in memory, all are taken for
// being there. `mapping`: address of byte 0 of the brick file. What cannot be read is found when it
// is touched. Thread-safe.
void prefetch(const std::byte* mapping, std::span<const StreamRun> runs, std::size_t element_size);

// The same for elements that lie scattered, as those of a line across layers: their pages, and no
// others but what lies between two that are near each other. Does nothing where it takes them for
// being in memory, by some of them, and for ranges that are not a small part of what lies around
// them.
void prefetch_scattered(const std::byte* mapping, const View& view, const BoxIndex& boxes,
                        std::size_t element_size, Interval range);

}  // namespace accrete
