// Writing in place into a file that shows elements of a cube.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "fs/content.h"
#include "fs/publish.h"
#include "fs/tree.h"

namespace accrete {

// What a write came to, also one that failed.
struct Written {
  std::vector<Poked> poked;  // elements that others may have been shown otherwise; to be announced
  TextChanges texts;         // what of the headers it would change; nothing of a page
};

// Changes the elements that these bytes of the file belong to: those which the file then shows as
// otherwise than before. Parts of elements may be written. Headers are left to the caller
// (fs/header_edits.h). EFBIG: beyond the end; EPERM: bytes would change that belong to no element
// and no header, or a card at the begin of a header that says how the file is built;
// EINVAL: no text of a number, or a value that the cube cannot have; Cube::poke()'s errors. On an
// error nothing has changed. REQUIRES: it does not show a mask.
Status write_range(Cube& cube, const Shown& shown, std::uint64_t offset,
                   std::span<const std::byte> bytes, PokeOrigin origin, Written& written);

// Answers a write of so many bytes, or with its error: at once where it was a page of a mapping,
// else when all pages that the kernel has of what was poked are gone.
void answer_write(const std::shared_ptr<CubeState>& state, Reply reply, const Status& status,
                  std::size_t bytes, std::vector<Poked> poked, PokeOrigin origin);

}  // namespace accrete
