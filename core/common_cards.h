// What the frames of a cube have in common: cards, and where they begin. Kept up by counts, so that
// a frame that comes or goes costs what it has itself, however many others there are.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/snapshot.h"

namespace accrete {

// What a frame is counted by. A card that occurs twice is two facts. The cards of an alternate WCS
// are one fact besides, all together; so are, for each axis, the indexes from its first one on.
using Fact = std::uint64_t;
std::vector<Fact> facts_of(const std::vector<std::string>& cards, const FrameRow& row);

// Not thread-safe.
class FactCounts {
 public:
  void add(const std::vector<Fact>& facts);
  // REQUIRES: they were added.
  void remove(const std::vector<Fact>& facts);
  std::uint64_t frames() const { return frames_; }
  // Facts of a frame that was added -> whether all frames have them, one by one.
  bool all_have(Fact fact) const;

 private:
  std::unordered_map<Fact, std::uint32_t> counts_;
  std::uint64_t frames_ = 0;
};

// What all live frames have in common.
struct CommonCards {
  std::vector<std::string> cards;  // as one frame has them, in its order; an alternate WCS whole
  FrameRow frame;                  // that one
  PerAxis<bool> same_start;        // for each axis of the cube: their indexes are the same
  std::uint64_t version = 0;       // another where any of this is
};

// `frame`: one that was added, with its cards.
CommonCards common_cards(const FactCounts& counts, const std::vector<std::string>& cards,
                         const FrameRow& frame);

}  // namespace accrete
