// A view: a sub-array of a cube in any axis order, as a pure index transform. No I/O.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/axis.h"
#include "core/shape.h"

namespace accrete {

// One spanned axis of a view.
struct ViewAxis {
  std::size_t axis = 0;  // number of the cube's axis, 0 the fastest
  Interval range;        // logical indexes of the pinned axis
};

// Which elements, in which order: dimension 0 of the view is its fastest.
//
// A view pins the versions of the axes that it was made with: what it means never changes, whatever
// grows later. Axes that are not spanned are fixed at one coordinate.
//
// \invariant every cube axis is either spanned once or fixed; ranges are non-empty and inside
// Immutable value, cheap to copy; thread-safe.
class View {
 public:
  // `axes`: all axes of the cube; `spanned`: fastest first, each axis at most once, at least one;
  // `fixed`: for each cube axis its index where it is not spanned (ignored where it is).
  // ENOENT for a range or index beyond the extent, empty or reversed; EINVAL for a repeated axis.
  static Result<View> make(const PerAxis<Axis>& axes, const PerAxis<ViewAxis>& spanned,
                           const Shape& fixed);
  // All axes, natural order, whole extents. ENOENT when an extent is 0.
  static Result<View> whole(const PerAxis<Axis>& axes);

  std::size_t cube_rank() const { return axes_.size(); }
  std::size_t rank() const { return spanned_.size(); }
  const ViewAxis& dimension(std::size_t d) const { return spanned_[d]; }
  const Axis& axis(std::size_t cube_axis) const { return axes_[cube_axis]; }
  // Extents in view order, fastest first (numpy's shape reversed).
  Shape shape() const;
  std::uint64_t element_count() const;
  // Dimension that spans a cube axis, or rank() when the axis is fixed.
  std::size_t dimension_of(std::size_t cube_axis) const;
  // The fixed physical coordinate. REQUIRES: the axis is not spanned.
  std::int64_t fixed_coordinate(std::size_t cube_axis) const { return fixed_[cube_axis]; }

  // The coordinates of an element of the stream. REQUIRES: index < element_count().
  Coords coordinates_of(std::uint64_t index) const;
  // Where the stream has the element at these coordinates; nothing when it has not.
  std::optional<std::uint64_t> index_of(const Coords& coordinates) const;

  // A view of this view: `ranges` per dimension of this one (relative, inside), `order` a
  // permutation: dimension d of the result is dimension order[d] of this one. EINVAL/ENOENT as make.
  Result<View> cut(const PerAxis<Interval>& ranges, const PerAxis<std::size_t>& order) const;

  // True when `other` (same dimensions and fixed coordinates) shows the same elements at every
  // index of this one and is at most longer in the slowest dimension.
  bool is_prefix_of(const View& other) const;

 private:
  PerAxis<Axis> axes_;
  PerAxis<ViewAxis> spanned_;
  Coords fixed_;
};

}  // namespace accrete
