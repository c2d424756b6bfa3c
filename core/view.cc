#include "core/view.h"

#include <string>

namespace accrete {

namespace {

Status check_range(Interval range, std::uint64_t extent, std::size_t axis) {
  if (range.begin < range.end && range.end <= extent) return {};
  return fail(std::errc::no_such_file_or_directory,
              "the range " + std::to_string(range.begin) + ".." + std::to_string(range.end) +
                  " does not lie within the extent " + std::to_string(extent) + " of axis " +
                  std::to_string(axis));
}

}  // namespace

Result<View> View::make(const PerAxis<Axis>& axes, const PerAxis<ViewAxis>& spanned,
                        const Shape& fixed) {
  if (spanned.empty()) return fail(std::errc::invalid_argument, "a view spans no axis");
  if (fixed.size() != axes.size())
    return fail(std::errc::invalid_argument, "a view of " + std::to_string(axes.size()) +
                                                 " axes is given " + std::to_string(fixed.size()) +
                                                 " indexes");
  PerAxis<bool> seen(axes.size(), false);
  for (const ViewAxis& dimension : spanned) {
    if (dimension.axis >= axes.size())
      return fail(std::errc::invalid_argument,
                  "a view spans axis " + std::to_string(dimension.axis) + " of a cube with " +
                      std::to_string(axes.size()) + " axes");
    if (seen[dimension.axis])
      return fail(std::errc::invalid_argument,
                  "a view spans axis " + std::to_string(dimension.axis) + " twice");
    seen[dimension.axis] = true;
    ACCRETE_CHECK(check_range(dimension.range, axes[dimension.axis].extent(), dimension.axis));
  }

  View view;
  view.axes_ = axes;
  view.spanned_ = spanned;
  view.fixed_ = Coords(axes.size(), 0);
  for (std::size_t axis = 0; axis < axes.size(); ++axis) {
    if (seen[axis]) continue;
    if (fixed[axis] >= axes[axis].extent())
      return fail(std::errc::no_such_file_or_directory,
                  "the index " + std::to_string(fixed[axis]) + " lies beyond the extent " +
                      std::to_string(axes[axis].extent()) + " of axis " + std::to_string(axis));
    view.fixed_[axis] = axes[axis].physical(fixed[axis]);
  }
  const Shape shape = view.shape();
  ACCRETE_CHECK(checked_product({shape.begin(), shape.size()}));
  return view;
}

Result<View> View::whole(const PerAxis<Axis>& axes) {
  PerAxis<ViewAxis> spanned;
  for (std::size_t axis = 0; axis < axes.size(); ++axis)
    spanned.push_back({axis, {0, axes[axis].extent()}});
  return make(axes, spanned, Shape(axes.size(), 0));
}

Shape View::shape() const {
  Shape shape;
  for (const ViewAxis& dimension : spanned_) shape.push_back(dimension.range.length());
  return shape;
}

std::uint64_t View::element_count() const {
  std::uint64_t count = 1;
  for (const ViewAxis& dimension : spanned_) count *= dimension.range.length();
  return count;
}

std::size_t View::dimension_of(std::size_t cube_axis) const {
  for (std::size_t d = 0; d < rank(); ++d)
    if (spanned_[d].axis == cube_axis) return d;
  return rank();
}

Coords View::coordinates_of(std::uint64_t index) const {
  Coords coordinates = fixed_;
  for (const ViewAxis& dimension : spanned_) {
    const std::uint64_t extent = dimension.range.length();
    coordinates[dimension.axis] =
        axes_[dimension.axis].physical(dimension.range.begin + index % extent);
    index /= extent;
  }
  return coordinates;
}

std::optional<std::uint64_t> View::index_of(const Coords& coordinates) const {
  if (coordinates.size() != axes_.size()) return std::nullopt;
  PerAxis<bool> spans(axes_.size(), false);
  std::uint64_t index = 0;
  std::uint64_t stride = 1;
  for (const ViewAxis& dimension : spanned_) {
    spans[dimension.axis] = true;
    const std::optional<std::uint64_t> logical =
        axes_[dimension.axis].logical(coordinates[dimension.axis]);
    if (!logical || *logical < dimension.range.begin || *logical >= dimension.range.end)
      return std::nullopt;
    index += (*logical - dimension.range.begin) * stride;
    stride *= dimension.range.length();
  }
  for (std::size_t axis = 0; axis < axes_.size(); ++axis)
    if (!spans[axis] && fixed_[axis] != coordinates[axis]) return std::nullopt;
  return index;
}

Result<View> View::cut(const PerAxis<Interval>& ranges, const PerAxis<std::size_t>& order) const {
  if (ranges.size() != rank() || order.size() != rank())
    return fail(std::errc::invalid_argument,
                "a cut of a view of rank " + std::to_string(rank()) + " needs as many ranges");
  PerAxis<bool> seen(rank(), false);
  View result = *this;
  for (std::size_t d = 0; d < rank(); ++d) {
    const std::size_t from = order[d];
    if (from >= rank() || seen[from])
      return fail(std::errc::invalid_argument, "the order of a cut is no permutation");
    seen[from] = true;
    const ViewAxis& whole = spanned_[from];
    ACCRETE_CHECK(check_range(ranges[from], whole.range.length(), whole.axis));
    const std::uint64_t start = whole.range.begin;
    result.spanned_[d] = {whole.axis, {start + ranges[from].begin, start + ranges[from].end}};
  }
  return result;
}

bool View::is_prefix_of(const View& other) const {
  if (rank() != other.rank() || cube_rank() != other.cube_rank()) return false;
  for (std::size_t axis = 0; axis < cube_rank(); ++axis) {
    const std::size_t d = dimension_of(axis);
    if (d != other.dimension_of(axis)) return false;
    if (d == rank()) {
      if (fixed_[axis] != other.fixed_[axis]) return false;
      continue;
    }
    const Interval mine = spanned_[d].range;
    const Interval theirs = other.spanned_[d].range;
    if (mine.begin != theirs.begin || mine.end > theirs.end) return false;
    if (mine.end < theirs.end && d + 1 != rank()) return false;
    // Both ranges lie within their axes; so it does not matter which of the two is the older.
    if (!axes_[axis].is_prefix_of(other.axes_[axis]) &&
        !other.axes_[axis].is_prefix_of(axes_[axis]))
      return false;
  }
  return true;
}

}  // namespace accrete
