// Boxes: dense pieces of physical space, and where their elements lie in the brick file.
//
// A box is an N-d array at [origin, origin + extent) of physical space. It is stored as a grid of
// equal bricks. Both the grid and the inside of a brick are in C order with the axes in natural
// order (0 fastest), except that the *layer axis* is made the slowest: one layer of a brick (one
// index along the layer axis) is contiguous, `layer_pitch` bytes from one to the next (a multiple
// of the page size where that costs at most a tenth). A frame that grows the cube by one plane
// fills one layer in each brick, so growth writes whole runs, while a column through 64 layers
// stays inside one brick of about half a megabyte.
//
// Bricks are equal, so a box holds up to a brick less one more along an axis than its elements
// need; lay_out() divides evenly to keep that small. What lies there is never read.
//
// Boxes are disjoint. What no box covers is pad and costs nothing.
//
// A box that reserves ahead has one *slot* a layer (at most 64); a box made for just one frame has
// one slot for all its layers. A slot belongs to one frame, and a slot that was ever committed is
// never given to another. Only `written` slots are read; all other elements are pad.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core/axis.h"
#include "core/shape.h"

namespace accrete {

// The bits of `count` slots from `first` on in a mask. REQUIRES: first < 64.
std::uint64_t slot_bits(std::uint64_t first, std::uint64_t count);

struct Box {
  std::uint64_t id = 0;  // a new box has a greater one than all there are
  Coords origin;         // physical
  Shape extent;          // as laid out in the file
  Shape brick;           // brick extents; the grid has ceil(extent / brick) bricks an axis
  std::size_t layer_axis = 0;
  std::uint64_t slot_layers = 1;  // layers a slot: 1, or extent[layer_axis]
  std::uint64_t written = 0;      // bit i: slot i is committed and shown
  std::uint64_t kept = 0;         // bit i: its frame is removed and may come back
  std::uint64_t spent = 0;        // bit i: its frame is gone; its bytes mean nothing
  std::uint64_t poked = 0;        // bit i: its elements may be others than those that came
  std::uint64_t file_offset = 0;  // of the first brick in the brick file, page-aligned
  std::uint64_t layer_pitch = 0;  // bytes from a layer to the next inside a brick

  std::size_t rank() const { return origin.size(); }
  std::uint64_t slots() const { return extent[layer_axis] / slot_layers; }
  std::uint64_t committed() const { return written | kept | spent; }  // ever
  std::uint64_t bricks_along(std::size_t axis) const;
  std::uint64_t brick_bytes() const { return layer_pitch * brick[layer_axis]; }
  std::uint64_t byte_length() const;  // of the whole box; page-aligned
  bool contains(const Coords& at) const;
  // Where the element at a physical coordinate lies in the brick file. REQUIRES: contains(at).
  std::uint64_t offset_of(const Coords& at, std::size_t element_size) const;
  // Byte strides of neighbouring elements along each axis *within one brick*.
  PerAxis<std::uint64_t> strides_in_brick(std::size_t element_size) const;
  // Byte strides of neighbouring bricks along each axis.
  PerAxis<std::uint64_t> brick_strides() const;

  friend bool operator==(const Box&, const Box&) = default;
};

// Fills brick, layer_pitch (and slot_layers, kept as given) for an extent and layer axis: bricks of
// about half a megabyte, up to 64 layers deep, long along axis 0. EFBIG when the bytes overflow.
// REQUIRES: rank, origin, extent, layer_axis and slot_layers are set; extents are positive.
Result<Box> lay_out(Box box, std::size_t element_size);

// EINVAL, with the reason, when a box read from elsewhere cannot be one of a cube with elements of
// this size: then no other function here may be called with it. lay_out()'s results, placed at a
// page, pass.
Status check_box(const Box& box, std::size_t element_size);

// All boxes of a snapshot, found by place. Immutable value with structural sharing: a copy is O(1),
// an edit O(log n). Thread-safe.
class BoxIndex {
 public:
  std::size_t size() const;
  // Adds a box or replaces the one with the same id. EINVAL when it overlaps another one or has
  // another rank, or when check_box() refuses it for elements of one byte.
  Result<BoxIndex> put(const Box& box) const;
  BoxIndex remove(std::uint64_t id) const;
  // Valid while this index or a copy of it lives.
  const Box* find(std::uint64_t id) const;
  // Calls visit for each box that meets the cuboid [first, first + extent) in any order.
  // O(log n + boxes that meet it) for boxes that came by growth along one axis.
  void for_overlapping(const Coords& first, const Shape& extent,
                       const std::function<void(const Box&)>& visit) const;
  // The same for any product of sets: meets(axis, low, high) tells whether the axis' set holds a
  // coordinate in [low, high). Whole ranges of boxes are skipped by asking for their hull.
  void for_meeting(
      const std::function<bool(std::size_t axis, std::int64_t low, std::int64_t high)>& meets,
      const std::function<void(const Box&)>& visit) const;
  void for_all(const std::function<void(const Box&)>& visit) const;

 private:
  struct Content;
  std::shared_ptr<const Content> content_;  // none when empty
};

}  // namespace accrete
