#include "tests/power_loss/seen.h"

#include <algorithm>
#include <stdexcept>

#include "core/bytes.h"
#include "core/checksum.h"

namespace accrete::power_loss {

namespace {

// Those that tell no times and no counts of what was done.
constexpr const char* properties[] = {"shape",   "dtype",  "axes",    "grow",      "pad",
                                      "ragged",  "order",  "convert", "samename",  "hdu",
                                      "residue", "header", "formats", "durability"};

template <class T>
T must(Result<T> result) {
  if (!result.ok()) throw std::runtime_error(result.error().sentence);
  return std::move(result).value();
}
void must(const Status& status) {
  if (!status.ok()) throw std::runtime_error(status.error().sentence);
}

std::string read_elements(const Cube& cube, const Pinned& pinned, const View& view) {
  const DType type = pinned->definition.coding.type;
  std::string bytes(view.element_count() * size_of(type), '\0');
  must(cube.read(pinned, view, {0, view.element_count()},
                 reinterpret_cast<std::byte*>(bytes.data()), native(type)));
  return bytes;
}

Seen::Place place_of(const Coords& coordinates) {
  return {coordinates.begin(), coordinates.end()};
}

std::string text_of(const Cube& cube, const HeapRef& text) {
  std::string bytes(text.length, '\0');
  must(cube.read_text(text, 0, std::as_writable_bytes(std::span(bytes))));
  return bytes;
}

void tell_frame(const Cube& cube, const FrameRow& row, std::string& text) {
  text += row.state == FrameState::live ? "\nlive " : "\nremoved ";
  text += std::to_string(row.id) + " " + cube.frame_name(row);
  for (const std::int64_t number : {row.mtime_ns, std::int64_t{row.mode}, std::int64_t{row.uid}})
    text += " " + std::to_string(number);
  for (const HeapRef& bytes : row.texts())
    text += " " + std::to_string(checksum(as_bytes(text_of(cube, bytes))));
  for (const std::string& card : cube.frame_cards(row)) text += "\n  " + card;
}

void look_at_frames(const Cube& cube, const Pinned& pinned, Seen& seen) {
  for (const bool removed : {false, true})
    for (const FrameId id : pinned->frames_in_order(removed)) {
      const FrameRow row = *pinned->frames.find(id);
      tell_frame(cube, row, seen.structure);
      const View view = must(cube.frame_view(row));
      const Pinned shown = removed ? must(cube.show_removed(pinned, row)) : pinned;
      seen.frames.emplace(
          id, Seen::Frame{!removed, view,
                          std::make_shared<const std::string>(read_elements(cube, shown, view))});
    }
}

// The whole cube is what frames, patches and pad make of it.
void look_at_whole(const Cube& cube, const Pinned& pinned, Seen& seen) {
  const auto whole = View::whole(pinned->axes);
  if (!whole.ok()) return;
  const std::size_t size = seen.element_size;
  const std::uint64_t count = whole->element_count();
  std::uint64_t step = 1;
  for (std::size_t axis = 0; axis < pinned->axes.size(); ++axis) {
    seen.structure += "\naxis";
    const std::uint64_t extent = whole->shape()[axis];
    for (std::uint64_t i = 0; i < extent; ++i)
      seen.structure += " " + std::to_string(whole->coordinates_of(i * step)[axis]);
    step *= extent;
  }
  std::string mask(count, '\0');
  cube.read_mask(pinned, *whole, {0, count}, reinterpret_cast<std::byte*>(mask.data()));
  seen.structure += "\nmask " + std::to_string(checksum(as_bytes(mask)));

  const std::string elements = read_elements(cube, pinned, *whole);
  std::vector<bool> is_told(count);
  for (const auto& [id, frame] : seen.frames) {
    if (!frame.live) continue;
    for (std::uint64_t i = 0; i < frame.view.element_count(); ++i) {
      const auto at = whole->index_of(frame.view.coordinates_of(i));
      if (!at || mask[*at] != 1 || is_told[*at] ||
          elements.compare(*at * size, size, *frame.elements, i * size, size) != 0)
        throw std::runtime_error("the cube does not show element " + std::to_string(i) +
                                 " of frame " + std::to_string(id));
      is_told[*at] = true;
    }
  }
  for (std::uint64_t i = 0; i < count; ++i) {
    if (is_told[i]) continue;
    const std::string element = elements.substr(i * size, size);
    if (mask[i] == 1)
      seen.patches[place_of(whole->coordinates_of(i))] = element;
    else if (element != seen.pad)
      throw std::runtime_error("element " + std::to_string(i) + " is neither data nor pad");
  }
}

// One place where an element is kept: in a frame, or in none.
struct Cell {
  FrameId frame;  // 0: none
  std::uint64_t index;
  Coords at;
};

std::optional<std::string> value_in(const Seen& seen, const Cell& cell) {
  if (cell.frame == 0) {
    const auto found = seen.patches.find(place_of(cell.at));
    if (found == seen.patches.end()) return std::nullopt;
    return found->second;
  }
  const auto found = seen.frames.find(cell.frame);
  if (found == seen.frames.end()) return std::nullopt;
  return found->second.elements->substr(cell.index * seen.element_size, seen.element_size);
}

bool is_replaced(const State& state, const Cell& cell) {
  if (!state.replaced || state.replaced->cube_rank() != cell.at.size()) return false;
  if (!state.replaced->index_of(cell.at)) return false;
  if (cell.frame == 0) return state.seen.patches.contains(place_of(cell.at));
  const auto found = state.seen.frames.find(cell.frame);
  return found != state.seen.frames.end() && found->second.live;
}

// `i`: the state with this structure.
bool may_have(const std::vector<State>& states, std::size_t synced, std::size_t begun,
              std::size_t i, const Cell& cell, const std::string& value) {
  std::size_t first = synced, last = begun;
  for (std::size_t s = synced + 1; s <= begun; ++s) {
    if (!is_replaced(states[s], cell)) continue;
    if (s <= i) {
      first = s;
    } else {
      last = s - 1;
      break;
    }
  }
  for (std::size_t s = first; s <= last; ++s) {
    const auto then = value_in(states[s].seen, cell);
    if (then ? *then == value : cell.frame == 0 && s < i && value == states[i].seen.pad)
      return true;
  }
  // A patch may be there without what was written into it.
  return cell.frame == 0 && first < i && value == states[i].seen.pad &&
         !value_in(states[first].seen, cell);
}

bool elements_match(const std::vector<State>& states, std::size_t synced, std::size_t begun,
                    std::size_t i, const Seen& seen, std::string& why) {
  const Seen& expected = states[i].seen;
  const std::size_t size = expected.element_size;
  const auto judge = [&](const Cell& cell, const std::string& value) {
    if (may_have(states, synced, begun, i, cell, value)) return true;
    why += "; state " + std::to_string(i) + " but for element " + std::to_string(cell.index) +
           (cell.frame == 0 ? " of no frame" : " of frame " + std::to_string(cell.frame));
    return false;
  };
  for (const auto& [id, frame] : seen.frames) {
    const std::string& then = *expected.frames.at(id).elements;
    if (*frame.elements == then) continue;
    for (std::uint64_t k = 0; k < frame.view.element_count(); ++k) {
      const std::string value = frame.elements->substr(k * size, size);
      if (then.compare(k * size, size, value) == 0) continue;
      if (!judge({id, k, frame.view.coordinates_of(k)}, value)) return false;
    }
  }
  for (const auto& [place, value] : seen.patches) {
    if (expected.patches.at(place) == value) continue;
    Coords at;
    for (const std::int64_t c : place) at.push_back(c);
    if (!judge({0, 0, at}, value)) return false;
  }
  return true;
}

}  // namespace

Seen look(const Cube& cube) {
  Seen seen;
  for (const char* name : properties)
    seen.structure += std::string(name) + " " + must(cube.property(name));
  const Pinned pinned = cube.pin();
  const Definition& d = pinned->definition;
  if (!d.defined) return seen;
  seen.element_size = size_of(d.coding.type);
  seen.pad.assign(reinterpret_cast<const char*>(d.pad.bytes.data()), seen.element_size);
  look_at_frames(cube, pinned, seen);
  look_at_whole(cube, pinned, seen);
  return seen;
}

void share_elements(Seen& seen, const Seen& before) {
  for (auto& [id, frame] : seen.frames) {
    const auto old = before.frames.find(id);
    if (old != before.frames.end() && *old->second.elements == *frame.elements)
      frame.elements = old->second.elements;
  }
}

std::optional<std::size_t> match(const std::vector<State>& states, std::size_t synced,
                                 std::size_t begun, const Seen& seen, std::string& why) {
  bool has_structure = false;
  why.clear();
  for (std::size_t i = synced; i <= begun; ++i) {
    if (states[i].seen.structure != seen.structure) continue;
    has_structure = true;
    if (elements_match(states, synced, begun, i, seen, why)) return i;
  }
  if (has_structure) {
    why = "elements are of no state: " + why;
    return std::nullopt;
  }
  why = "the structure is of none of the states " + std::to_string(synced) + " to " +
        std::to_string(begun);
  for (std::size_t i = 0; i < states.size(); ++i)
    if (states[i].seen.structure == seen.structure) why += ", but of " + std::to_string(i);
  why += ":\n" + seen.structure;
  return std::nullopt;
}

}  // namespace accrete::power_loss
