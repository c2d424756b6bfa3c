// Elements to be written in place, and views to write them through.
#pragma once

#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "core/cube.h"
#include "core/replacement.h"
#include "tests/core/random_view.h"
#include "tests/core/store_fixture.h"

namespace accrete::testing {

using Bytes = std::vector<std::byte>;

// Elements (native coding) laid over a range, all of them.
class Overlay final : public ElementEdit {
 public:
  Overlay(Coding at_rest, Bytes elements) : at_rest_(at_rest), elements_(std::move(elements)) {}

  Status apply(const std::byte*, std::byte* now) override {
    recode(now, elements_.data(), elements_.size() / size(), native(at_rest_.type), at_rest_);
    return {};
  }
  bool leaves(std::uint64_t i, const std::byte* element) const override {
    Element shown;
    recode(shown.bytes.data(), element, 1, at_rest_, native(at_rest_.type));
    return std::memcmp(shown.bytes.data(), elements_.data() + i * size(), size()) == 0;
  }

 private:
  std::size_t size() const { return size_of(at_rest_.type); }

  const Coding at_rest_;
  const Bytes elements_;
};

// One that cannot be applied.
class Refusal final : public ElementEdit {
 public:
  Status apply(const std::byte*, std::byte*) override {
    return fail(std::errc::invalid_argument, "no");
  }
  bool leaves(std::uint64_t, const std::byte*) const override { return false; }
};

inline Result<RecentValues::Ticket> poke(Cube& cube, const Pinned& pinned, const View& view,
                                         Interval range, const Bytes& elements,
                                         PokeOrigin origin = PokeOrigin{}) {
  Overlay edit(pinned->definition.coding, elements);
  RecentValues::Ticket former;
  ACCRETE_CHECK(cube.poke(pinned, view, range, edit, origin, former));
  return former;
}

inline Result<RecentValues::Ticket> commit(Replacement& replacement, const Pinned& pinned,
                                           const View& view, FormatId like) {
  RecentValues::Ticket former;
  ACCRETE_CHECK(replacement.commit(pinned, view, format(like), former));
  return former;
}

// Elements of a range as a view of that snapshot shows them, native coding.
inline Bytes read_range(const Cube& cube, const Pinned& pinned, const View& view, Interval range) {
  const DType type = pinned->definition.coding.type;
  Bytes bytes(range.length() * size_of(type));
  EXPECT_TRUE(cube.read(pinned, view, range, bytes.data(), native(type)).ok());
  return bytes;
}

inline Bytes read_all(const Cube& cube, const Pinned& pinned, const View& view) {
  return read_range(cube, pinned, view, {0, view.element_count()});
}

inline Bytes mask_of(const Cube& cube, const Pinned& pinned, const View& view) {
  Bytes mask(view.element_count(), std::byte{0xee});
  cube.read_mask(pinned, view, {0, mask.size()}, mask.data());
  return mask;
}

inline Interval random_range(std::mt19937_64& random, std::uint64_t count) {
  const std::uint64_t begin = random() % count;
  return {begin, begin + 1 + random() % (count - begin)};
}

}  // namespace accrete::testing
