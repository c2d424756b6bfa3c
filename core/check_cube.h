// Everything that can be verified of a cube at rest, without changing a byte of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/cube_at_rest.h"

namespace accrete {

struct Finding {
  enum class Kind {
    damage,  // something is not what was written
    waste    // space is taken that belongs to nobody, or is not as the next frame needs it
  };
  Kind kind = Kind::damage;
  Damage what;           // and where
  FrameId frame_id = 0;  // whose; 0: of no frame alone
  std::string frame;     // its name
};

struct CubeReport {
  std::vector<Finding> findings;
  std::uint64_t live = 0;     // frames,
  std::uint64_t removed = 0;  // and those that may come back
  std::uint64_t bytes = 0;    // of their elements, in the cube's type
  // Chunks of their elements (frame_sums.h): looked at, and of these not comparable, since some
  // element in them was changed in place.
  std::uint64_t chunks = 0;
  std::uint64_t poked_chunks = 0;
  // Changes after the last mark: found, and those that the next start keeps.
  std::uint64_t unmarked = 0;
  std::uint64_t unmarked_whole = 0;

  bool is_damaged() const;
};

// Verifies all that FORMAT.md says of a cube: its checkpoints and journals, that boxes, patches,
// slots, axes and frames fit each other, every checksum of texts and elements, and, where `clean`
// says so, that what belongs to nobody is free. A file that cannot be read is damage. Takes no
// lock: nobody writes meanwhile. Errors: the directory cannot be read.
Result<CubeReport> check_cube(const PosixFile& directory);

}  // namespace accrete
