// What a user sees of a cube, and which of its states a loss of power may leave.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/cube.h"

namespace accrete::power_loss {

// Elements are in the machine's own coding.
struct Seen {
  struct Frame {
    bool live;
    View view;  // of its file
    std::shared_ptr<const std::string> elements;
  };
  using Place = std::vector<std::int64_t>;  // coordinates of an element

  // All but elements, as text: properties, coordinates of the axes in order, mask, frames with
  // their attributes and headers.
  std::string structure;
  std::size_t element_size = 1;
  std::string pad;
  std::map<FrameId, Frame> frames;       // live and removed ones
  std::map<Place, std::string> patches;  // elements that were written where no frame gave any
};

// Throws when views and frames do not agree, or cannot be read.
Seen look(const Cube& cube);
// Keeps one copy of what two states have in common.
void share_elements(Seen& seen, const Seen& before);

// A state of the cube when an operation had returned.
struct State {
  std::string operation;
  Seen seen;
  std::optional<View> replaced;  // the operation replaced the elements of this view
};

// Whether a loss of power may leave what is seen, when all up to state `synced` was on disk and
// state `begun` is the newest that could have come about: the structure is that of some state from
// `synced` on, and every element has the value that it had in one of them; but where one of that
// structure's operations replaced it, not from before, and where a later one did, not from after.
// Returns the state, or says in `why` what is wrong.
std::optional<std::size_t> match(const std::vector<State>& states, std::size_t synced,
                                 std::size_t begun, const Seen& seen, std::string& why);

}  // namespace accrete::power_loss
