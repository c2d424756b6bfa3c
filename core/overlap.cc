#include "core/overlap.h"

#include <algorithm>
#include <optional>

#include "core/cuboids.h"

namespace accrete {

namespace {

// More steps than that to find out exactly are not worth it.
constexpr std::size_t most_steps = 1 << 16;

// The hull of the indexes of `axis` within `range` that have these coordinates; nothing: none has.
std::optional<Interval> indexes_of(const Axis& axis, Interval range,
                                   const std::vector<Run>& coordinates) {
  if (coordinates.size() * axis.run_count() > most_steps) return range;
  std::optional<Interval> hull;
  axis.for_runs(range, [&](std::uint64_t logical, const Run& run) {
    for (const Run& other : coordinates) {
      const std::int64_t from = std::max(run.first, other.first);
      const std::int64_t to = std::min(run.end(), other.end());
      if (from >= to) continue;
      const std::uint64_t begin = logical + static_cast<std::uint64_t>(from - run.first);
      const std::uint64_t end = logical + static_cast<std::uint64_t>(to - run.first);
      hull = hull ? Interval{std::min(hull->begin, begin), std::max(hull->end, end)}
                  : Interval{begin, end};
    }
  });
  return hull;
}

// The same of all axes: the cuboid of `shown`'s indexes, relative to its ranges.
std::optional<Cuboid> meet(const View& shown, const View& changed, const Cuboid& cuboid) {
  Cuboid common(shown.rank());
  for (std::size_t axis = 0; axis < shown.cube_rank(); ++axis) {
    const std::size_t d = changed.dimension_of(axis);
    const std::size_t e = shown.dimension_of(axis);
    Interval indexes;  // of the axis as `changed` has it
    if (d != changed.rank()) {
      const std::uint64_t start = changed.dimension(d).range.begin;
      indexes = {start + cuboid[d].begin, start + cuboid[d].end};
    }
    if (e == shown.rank()) {
      const std::int64_t at = shown.fixed_coordinate(axis);
      if (d == changed.rank()) {
        if (changed.fixed_coordinate(axis) != at) return std::nullopt;
        continue;
      }
      const std::optional<std::uint64_t> index = changed.axis(axis).logical(at);
      if (!index || *index < indexes.begin || *index >= indexes.end) return std::nullopt;
      continue;
    }
    const Interval range = shown.dimension(e).range;
    std::optional<Interval> hull;
    if (d == changed.rank()) {
      const auto index = shown.axis(axis).logical(changed.fixed_coordinate(axis));
      if (index) hull = Interval{*index, *index + 1};
    } else if (shown.axis(axis).epoch() == changed.axis(axis).epoch()) {
      hull = indexes;  // the same coordinates, as far as both reach
    } else {
      hull = indexes_of(shown.axis(axis), range, changed.axis(axis).runs(indexes));
    }
    if (!hull) return std::nullopt;
    const Interval both{std::max(hull->begin, range.begin), std::min(hull->end, range.end)};
    if (both.empty()) return std::nullopt;
    common[e] = {both.begin - range.begin, both.end - range.begin};
  }
  return common;
}

// The ranges of the stream that a cuboid is made of, or their hull.
void add_ranges(const Shape& shape, const Cuboid& cuboid, std::size_t most,
                std::vector<Interval>& ranges) {
  const PerAxis<std::uint64_t> stride = stream_strides(shape);
  std::size_t whole = 0;  // dimensions below that one are contiguous
  while (whole + 1 < shape.size() && cuboid[whole].length() == shape[whole]) ++whole;
  std::uint64_t pieces = 1;
  for (std::size_t d = whole + 1; d < shape.size() && pieces <= most; ++d)
    pieces *= cuboid[d].length();
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  for (std::size_t d = 0; d < shape.size(); ++d) {
    first += cuboid[d].begin * stride[d];
    last += (cuboid[d].end - 1) * stride[d];
  }
  if (pieces > most) {
    ranges.push_back({first, last + 1});
    return;
  }
  const std::uint64_t length = cuboid[whole].length() * stride[whole];
  PerAxis<std::uint64_t> at(shape.size(), 0);
  for (std::uint64_t n = 0; n < pieces; ++n) {
    std::uint64_t start = first;
    for (std::size_t d = whole + 1; d < shape.size(); ++d) start += at[d] * stride[d];
    ranges.push_back({start, start + length});
    for (std::size_t d = whole + 1; d < shape.size(); ++d) {
      if (++at[d] < cuboid[d].length()) break;
      at[d] = 0;
    }
  }
}

}  // namespace

std::vector<Interval> overlap(const View& shown, const View& changed, Interval range,
                              std::size_t most) {
  std::vector<Interval> ranges;
  if (shown.cube_rank() != changed.cube_rank() || range.empty()) return ranges;
  const Shape shape = changed.shape();
  Cuboid cuboid(changed.rank());
  for_cuboids(shape, stream_strides(shape), changed.rank() - 1, range.begin, range.end, cuboid,
              [&] {
                if (const std::optional<Cuboid> common = meet(shown, changed, cuboid))
                  add_ranges(shown.shape(), *common, most, ranges);
              });
  return ranges;
}

}  // namespace accrete
