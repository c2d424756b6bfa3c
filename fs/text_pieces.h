// Elements of a text view of which a program has written a part only. A part alone may be no
// number, or another one: it is taken when the rest has come, or the file is closed or synced.
// Bytes that are as they were change nothing, whatever others make of them meanwhile.
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
  // As write_range(), of a text without anything around its elements. What was changed is added to
  // `poked`, also before an error.
  Status write(Cube& cube, const Shown& shown, std::uint64_t offset,
               std::span<const std::byte> bytes, PokeOrigin origin, std::vector<Poked>& poked)
      EXCLUDES(mutex_);
  // Takes all parts as they are. What is no number is forgotten, with the error.
  Status settle(Cube& cube, const Shown& shown, std::vector<Poked>& poked) EXCLUDES(mutex_);

 private:
  struct Piece {
    std::array<std::byte, 64> text;  // as long as an element
    std::uint64_t written = 0;       // which bytes of it,
    std::uint64_t changed = 0;       // and which were others then: the rest is as others make it
  };

  Status put(Cube& cube, const Shown& shown, std::uint64_t offset, std::span<const std::byte> bytes,
             PokeOrigin origin, std::vector<Poked>& poked) REQUIRES(mutex_);
  static Status take(Cube& cube, const Shown& shown, std::uint64_t element, const Piece& piece,
                     PokeOrigin origin, std::vector<Poked>& poked);

  Mutex mutex_;
  std::map<std::uint64_t, Piece> pieces_ GUARDED_BY(mutex_);  // by element
};

}  // namespace accrete
