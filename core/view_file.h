// A view of a cube written out as a file: the bytes that a mount shows under the view's name.
#pragma once

#include <string_view>

#include "core/cube.h"
#include "core/format.h"
#include "core/posix_file.h"
#include "core/view.h"

namespace accrete {

struct ViewFile {
  View view;
  bool is_mask = false;  // shows 1 where there is data, else 0
  const Format* format = nullptr;
  FileFace face;
};

// By a path as below a cube of a mount: "cube.fits", "slices/xy/z000017.npy", "mask/…"; "slices/"
// may be left out. ENOENT: it is none, the cube does not have it, or is not defined yet.
Result<ViewFile> find_view_file(Cube& cube, const Pinned& pinned, std::string_view path);

// Writes it from offset 0 on, with room for all of it taken first. ENOSPC, EIO, ….
Status write_view_file(const Cube& cube, const Pinned& pinned, const ViewFile& file,
                       const PosixFile& target);

}  // namespace accrete
