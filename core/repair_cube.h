// Makes a damaged cube usable again. The policy is at the top of repair_cube.cc.
#pragma once

#include <string>
#include <vector>

#include "core/check_cube.h"

namespace accrete {

struct Repair {
  std::vector<std::string> done;  // what was changed, and what is lost: a sentence each
};

// `report`: what check_cube() has just said of it. Takes no lock: nobody uses the cube meanwhile.
// When it ends early, by an error or by the death of the program, the cube is as it was or as it is
// to be, and this may be called again. Errors: there is nothing from which to start; ENOSPC, EIO,
// EROFS, ….
Result<Repair> repair_cube(const PosixFile& directory, const CubeReport& report);

}  // namespace accrete
