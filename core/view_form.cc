#include "core/view_form.h"

#include <cerrno>

namespace accrete {

namespace {

Error stale() {
  return fail_errno(ESTALE, "what a view shows");
}

}  // namespace

ViewForm::ViewForm(const View& view, bool extends)
    : cube_rank_(static_cast<std::uint8_t>(view.cube_rank())),
      rank_(static_cast<std::uint8_t>(view.rank())),
      extends_(extends) {
  auto spans = std::make_unique<Span[]>(rank_);
  for (std::size_t d = 0; d < rank_; ++d) {
    const ViewAxis& dimension = view.dimension(d);
    order_[d] = static_cast<std::uint8_t>(dimension.axis);
    spans[d] = {view.axis(dimension.axis).epoch(), dimension.range};
  }
  spans_ = std::move(spans);
  auto coordinates = std::make_unique<std::int64_t[]>(cube_rank_ - rank_);
  std::size_t others = 0;
  for (std::size_t axis = 0; axis < cube_rank_; ++axis) {
    if (view.dimension_of(axis) != rank_) continue;
    order_[rank_ + others] = static_cast<std::uint8_t>(axis);
    coordinates[others++] = view.fixed_coordinate(axis);
  }
  coordinates_ = std::move(coordinates);
}

Result<PerAxis<ViewAxis>> ViewForm::spanned(const PerAxis<Axis>& axes) const {
  if (axes.size() != cube_rank_) return stale();
  PerAxis<ViewAxis> all;
  for (std::size_t d = 0; d < rank_; ++d) {
    const Axis& axis = axes[order_[d]];
    ViewAxis dimension{order_[d], spans_[d].range};
    if (extends_ && d + 1 == rank_) dimension.range.end = axis.extent();
    if (axis.epoch() != spans_[d].epoch || dimension.range.end < spans_[d].range.end ||
        dimension.range.end > axis.extent())
      return stale();
    all.push_back(dimension);
  }
  return all;
}

Result<Shape> ViewForm::fixed(const PerAxis<Axis>& axes) const {
  Shape indexes(axes.size());
  for (std::size_t i = rank_; i < cube_rank_; ++i) {
    const std::optional<std::uint64_t> index = axes[order_[i]].logical(coordinates_[i - rank_]);
    if (!index) return stale();
    indexes[order_[i]] = *index;
  }
  return indexes;
}

Result<View> ViewForm::view(const PerAxis<Axis>& axes) const {
  ACCRETE_TRY(const PerAxis<ViewAxis> all, spanned(axes));
  ACCRETE_TRY(const Shape indexes, fixed(axes));
  return View::make(axes, all, indexes);
}

Result<std::uint64_t> ViewForm::end(const PerAxis<Axis>& axes) const {
  ACCRETE_TRY(const PerAxis<ViewAxis> all, spanned(axes));
  ACCRETE_CHECK(fixed(axes));
  return all.back().range.end;
}

Shape ViewForm::shape(std::uint64_t end) const {
  Shape shape;
  for (std::size_t d = 0; d < rank_; ++d) shape.push_back(spans_[d].range.length());
  shape.back() = end - spans_[rank_ - 1].range.begin;
  return shape;
}

}  // namespace accrete
