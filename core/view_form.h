// A view in a few words, without the axes that it pins: what is kept of one that nobody has open.
// (A view of a cube with three axes takes 700 bytes, its form 100.)
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>

#include "core/view.h"

namespace accrete {

// Immutable; thread-safe.
class ViewForm {
 public:
  // `extends`: the slowest axis is to be spanned to its end, wherever that will be.
  ViewForm(const View& view, bool extends);

  std::size_t rank() const { return rank_; }
  // The cube's axis that a dimension spans.
  std::size_t axis(std::size_t d) const { return order_[d]; }
  std::size_t slowest_axis() const { return axis(rank_ - 1u); }

  // The view in axes of the same cube, with the same elements at the same indexes, and, if it
  // extends, those that came to its end. ESTALE: an index of these axes means something else, or
  // what it shows is gone.
  Result<View> view(const PerAxis<Axis>& axes) const;
  // Where the slowest axis of that view ends.
  Result<std::uint64_t> end(const PerAxis<Axis>& axes) const;
  // The shape of a view that ends there, fastest axis first.
  Shape shape(std::uint64_t end) const;

 private:
  // Of a spanned axis.
  struct Span {
    std::uint64_t epoch = 0;
    Interval range;
  };
  Result<PerAxis<ViewAxis>> spanned(const PerAxis<Axis>& axes) const;
  // The index of each axis that is fixed.
  Result<Shape> fixed(const PerAxis<Axis>& axes) const;

  std::uint8_t cube_rank_;
  std::uint8_t rank_;
  bool extends_;
  std::array<std::uint8_t, max_rank> order_{};  // the axis of each dimension, then the others
  std::unique_ptr<const Span[]> spans_;         // of each dimension
  std::unique_ptr<const std::int64_t[]> coordinates_;  // of each other axis, in that order
};

}  // namespace accrete
