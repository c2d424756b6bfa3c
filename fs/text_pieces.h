// Elements of a text view of which a program has written a part only. A part alone may be no
// number, or another one: it is taken when the rest has come, or the file is closed or synced.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "core/mutex.h"
#include "fs/content_edit.h"

namespace accrete {

// Of one open file. Thread-safe.
class TextPieces {
 public:
  // As write_range(), of a text without anything around its elements; what was changed, if
  // anything.
  Result<std::vector<Poked>> write(Cube& cube, const Shown& shown, std::uint64_t offset,
                                   std::span<const std::byte> bytes, PokeOrigin origin)
      EXCLUDES(mutex_);
  // Takes all parts as they are. What is no number is forgotten, with the error.
  Result<std::vector<Poked>> settle(Cube& cube, const Shown& shown) EXCLUDES(mutex_);

 private:
  struct Piece {
    std::array<std::byte, 64> text;  // as long as an element
    std::uint64_t written = 0;       // which bytes of it
  };

  Status put(Cube& cube, const Shown& shown, std::uint64_t offset, std::span<const std::byte> bytes,
             PokeOrigin origin, std::vector<Poked>& poked) REQUIRES(mutex_);

  Mutex mutex_;
  std::map<std::uint64_t, Piece> pieces_ GUARDED_BY(mutex_);  // by element
};

}  // namespace accrete
