#include "core/growth.h"

#include <algorithm>
#include <bit>

#include "core/bytes.h"

namespace accrete {

namespace {

constexpr std::uint64_t deepest_reserve = 64;  // layers; a box has at most 64 slots
// A box of one frame's own is not filled up with blocks beforehand above this: it may be sparse.
constexpr std::uint64_t largest_held = std::uint64_t{256} << 20;
constexpr std::int64_t highest_coordinate = std::int64_t{1} << 62;

std::uint64_t bits(std::uint64_t first, std::uint64_t count) {
  const std::uint64_t low = count >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1;
  return low << first;
}

std::uint64_t top_slot(std::uint64_t taken) {
  return 64 - static_cast<std::uint64_t>(std::countl_zero(taken));
}

std::int64_t end_along(const Box& box, std::size_t axis) {
  return box.origin[axis] + static_cast<std::int64_t>(box.extent[axis]);
}

// The axis that is slowest in the elements of a frame: its layers come one after the other.
std::size_t slowest_axis(const Shape& extent) {
  std::size_t axis = extent.size() - 1;
  while (axis > 0 && extent[axis] == 1) --axis;
  return axis;
}

void append_run(std::vector<Run>& runs, Run run) {
  if (!runs.empty() && runs.back().end() == run.first)
    runs.back().length += run.length;
  else
    runs.push_back(run);
}

}  // namespace

void for_slot_ranges(const Box& box, std::uint64_t first_slot, std::uint64_t slots,
                     const std::function<void(std::uint64_t, std::uint64_t)>& visit) {
  const std::size_t axis = box.layer_axis;
  const std::uint64_t depth = box.brick[axis];
  std::uint64_t row_bytes =
      box.brick_bytes();  // bricks that share their layers, one row of the grid
  for (std::size_t a = 0; a < box.rank(); ++a)
    if (a != axis) row_bytes *= box.bricks_along(a);
  std::uint64_t layer = first_slot * box.slot_layers;
  const std::uint64_t end = layer + slots * box.slot_layers;
  while (layer < end) {
    const std::uint64_t row = layer / depth;
    const std::uint64_t in_brick = layer % depth;
    const std::uint64_t count = std::min(end - layer, depth - in_brick);
    const std::uint64_t start = box.file_offset + row * row_bytes;
    if (count == depth) {
      visit(start, row_bytes);
    } else {
      for (std::uint64_t at = 0; at < row_bytes; at += box.brick_bytes())
        visit(start + at + in_brick * box.layer_pitch, count * box.layer_pitch);
    }
    layer += count;
  }
}

bool Slab::widens() const {
  for (const Run& run : surplus)
    if (run.length > 0) return true;
  return false;
}

bool Slab::has_single_runs() const {
  for (const auto& pieces : runs)
    if (pieces.size() != 1) return false;
  return true;
}

std::string Slab::runs_text() const {
  ByteWriter out;
  for (const auto& pieces : runs) {
    out.put(static_cast<std::uint32_t>(pieces.size()));
    for (const Run& run : pieces) {
      out.put(run.first);
      out.put(run.length);
    }
  }
  return out.take();
}

bool Growth::clear_slots(const Box& box, std::uint64_t first, std::uint64_t count) {
  bool cleared = true;
  for_slot_ranges(box, first, count, [&](std::uint64_t offset, std::uint64_t length) {
    cleared = bricks_.clear(offset, length).ok() && cleared;
  });
  return cleared;
}

void Growth::restore(const Snapshot& snapshot, bool reclaim) {
  for (std::size_t a = 0; a < snapshot.axes.size(); ++a)
    high_[a] = std::max<std::int64_t>(0, snapshot.axes[a].hull().end());
  snapshot.boxes.for_all([&](const Box& box) {
    next_box_ = std::max(next_box_, box.id + 1);
    for (std::size_t a = 0; a < box.rank(); ++a) high_[a] = std::max(high_[a], end_along(box, a));
  });
  snapshot.boxes.for_all([&](const Box& box) {
    const std::size_t axis = box.layer_axis;
    const std::uint64_t top = top_slot(box.written);
    Series& series = series_[axis];
    const bool at_end = end_along(box, axis) == high_[axis];
    const bool goes_on = at_end && top < box.slots();
    // Slots that are not committed hold bytes of streams that were cut off, or blocks that were
    // reserved for a series that does not go on.
    for (std::uint64_t s = reclaim ? 0 : goes_on ? box.slots() : top; s < box.slots(); ++s)
      if ((box.written & bits(s, 1)) == 0) (void)clear_slots(box, s, 1);
    if (!at_end || series.box) return;
    series.origin = box.origin;
    series.extent = box.extent;
    series.layers = box.extent[axis];
    if (!goes_on) return;
    series.box = box.id;
    OpenBox open;
    open.box = box;
    open.taken = box.written;
    open.axis = axis;
    open.published = true;
    boxes_.emplace(box.id, std::move(open));
  });
}

Growth::Cross Growth::cross_section(const Slab& slab) {
  Cross cross;
  for (std::size_t a = 0; a < slab.runs.size(); ++a) {
    if (a == slab.axis) {
      cross.origin.push_back(0);
      cross.extent.push_back(0);
      continue;
    }
    std::int64_t low = slab.runs[a].front().first;
    std::int64_t high = slab.runs[a].front().end();
    std::uint64_t covered = 0;
    for (const Run& run : slab.runs[a]) {
      low = std::min(low, run.first);
      high = std::max(high, run.end());
      covered += run.length;
    }
    cross.origin.push_back(low);
    cross.extent.push_back(static_cast<std::uint64_t>(high - low));
    cross.has_gaps |= covered != cross.extent.back();
  }
  return cross;
}

Result<Slab> Growth::reserve(const Snapshot& snapshot, std::size_t axis, const Shape& extent,
                             std::size_t element_size) {
  Slab slab;
  slab.axis = axis;
  slab.base = snapshot.shape();
  for (std::size_t a = 0; a < extent.size(); ++a) {
    std::vector<Run> runs;
    Run surplus;
    if (a != axis) {
      const std::uint64_t covered = std::min(extent[a], snapshot.axes[a].extent());
      runs = snapshot.axes[a].runs({0, covered});
      surplus = {high_[a], extent[a] - covered};
      if (surplus.length > 0) append_run(runs, surplus);
    }
    slab.runs.push_back(std::move(runs));
    slab.surplus.push_back(surplus);
  }
  for (std::size_t a = 0; a < extent.size(); ++a) {
    if (slab.surplus[a].length > static_cast<std::uint64_t>(highest_coordinate - high_[a]))
      return fail(std::errc::file_too_large, "the axis has no coordinates left");
  }
  for (std::size_t a = 0; a < extent.size(); ++a)
    if (slab.surplus[a].length > 0) high_[a] = slab.surplus[a].end();
  if (slab.widens()) ++widening_;
  const Cross cross = cross_section(slab);
  slab.has_gaps = cross.has_gaps;
  if (Status taken = take_layers(slab, cross, extent[axis], element_size); !taken.ok()) {
    give_back(slab);
    return std::move(taken).error();
  }
  return slab;
}

Status Growth::take_layers(Slab& slab, const Cross& cross, std::uint64_t layers,
                           std::size_t element_size) {
  const std::size_t axis = slab.axis;
  Series& series = series_[axis];
  bool same = series.extent.size() == cross.extent.size();
  for (std::size_t a = 0; same && a < cross.extent.size(); ++a)
    same =
        a == axis || (series.origin[a] == cross.origin[a] && series.extent[a] == cross.extent[a]);
  if (!same) {
    close_series(axis);
    series = {std::nullopt, 0, cross.origin, cross.extent};
  }
  std::uint64_t rest = layers;
  if (series.box) {
    OpenBox& open = boxes_.at(*series.box);
    const std::uint64_t slots = open.box.slots();
    for (std::uint64_t s = 0; layers <= slots && s <= slots - layers; ++s)
      if ((open.taken & bits(s, layers)) == 0) return take_slots(slab, open, s, layers);
    const std::uint64_t top = top_slot(open.taken);
    if (top < slots && end_along(open.box, axis) == high_[axis]) {
      ACCRETE_CHECK(take_slots(slab, open, top, slots - top));
      rest -= slots - top;
    }
    open.closed = true;
    settle(*std::exchange(series.box, std::nullopt));
  }
  const bool ahead = rest < deepest_reserve && rest < series.layers;
  const std::uint64_t depth = ahead ? std::min(series.layers, deepest_reserve) : rest;
  ACCRETE_TRY(OpenBox* const open, open_box(cross, axis, depth, ahead, element_size));
  const std::uint64_t id = open->box.id;
  Status taken = take_slots(slab, *open, 0, ahead ? rest : 1);
  if (taken.ok() && ahead && depth > rest)
    series.box = id;
  else
    open->closed = true;
  if (!taken.ok()) settle(id);
  return taken;
}

Status Growth::take_slots(Slab& slab, OpenBox& open, std::uint64_t first, std::uint64_t count) {
  if (!open.has_blocks) {
    Status held;
    for_slot_ranges(open.box, first, count, [&](std::uint64_t offset, std::uint64_t length) {
      if (held.ok()) held = bricks_.hold_blocks(offset, length);
    });
    if (!held.ok()) {
      (void)clear_slots(open.box, first, count);
      return held;
    }
  }
  open.taken |= bits(first, count);
  ++open.holders;
  slab.parts.push_back({open.box.id, first, count});
  Box held = open.box;
  held.written = bits(first, count);
  ACCRETE_TRY(slab.boxes, slab.boxes.put(held));
  const std::int64_t start =
      open.box.origin[slab.axis] + static_cast<std::int64_t>(open.box.slots() == 1 ? 0 : first);
  const std::uint64_t layers = open.box.slots() == 1 ? open.box.extent[slab.axis] : count;
  append_run(slab.runs[slab.axis], {start, layers});
  series_[slab.axis].layers += layers;
  return {};
}

Result<Growth::OpenBox*> Growth::open_box(const Cross& cross, std::size_t axis,
                                          std::uint64_t layers, bool ahead,
                                          std::size_t element_size) {
  if (layers > static_cast<std::uint64_t>(highest_coordinate - high_[axis]))
    return fail(std::errc::file_too_large, "the axis has no coordinates left");
  OpenBox open;
  Box& box = open.box;
  box.id = next_box_;
  box.origin = cross.origin;
  box.extent = cross.extent;
  box.origin[axis] = high_[axis];
  box.extent[axis] = layers;
  box.layer_axis = ahead ? axis : slowest_axis(box.extent);
  box.slot_layers = ahead ? 1 : box.extent[box.layer_axis];
  open.axis = axis;
  ACCRETE_TRY(box, lay_out(box, element_size));
  const std::uint64_t length = box.byte_length();
  ACCRETE_TRY(box.file_offset, bricks_.take(length));
  if (ahead || length <= largest_held) {
    // No room for the whole reserve: each layer finds its own blocks.
    const Status held = bricks_.hold_blocks(box.file_offset, length);
    open.has_blocks = held.ok();
    if (!held.ok() && !ahead) {
      bricks_.give_back(box.file_offset, length);
      return held.error();
    }
  } else {
    open.has_blocks = true;
  }
  ++next_box_;
  high_[axis] = end_along(box, axis);
  return &boxes_.emplace(box.id, std::move(open)).first->second;
}

void Growth::close_series(std::size_t axis) {
  Series& series = series_[axis];
  if (!series.box) return;
  boxes_.at(*series.box).closed = true;
  settle(*std::exchange(series.box, std::nullopt));
}

void Growth::settle(std::uint64_t id) {
  const auto it = boxes_.find(id);
  if (it == boxes_.end() || it->second.holders > 0) return;
  OpenBox& open = it->second;
  if (open.taken == 0 && !open.published) {
    drop(open);
    if (series_[open.axis].box == id) series_[open.axis].box.reset();
    boxes_.erase(it);
    return;
  }
  if (!open.closed) return;
  if (open.box.slots() > 1 && top_slot(open.taken) < open.box.slots() && open.taken != 0)
    trim(open, top_slot(open.taken));
  if (!open.has_news) boxes_.erase(it);
}

void Growth::drop(OpenBox& open) {
  std::int64_t& high = high_[open.axis];
  if (high == end_along(open.box, open.axis)) high = open.box.origin[open.axis];
  bricks_.give_back(open.box.file_offset, open.box.byte_length());
}

// Only boxes that reserved ahead have more than one slot; their layer axis is the one that grows.
void Growth::trim(OpenBox& open, std::uint64_t slots) {
  Box& box = open.box;
  const std::uint64_t old_length = box.byte_length();
  (void)clear_slots(box, slots, box.slots() - slots);
  std::int64_t& high = high_[open.axis];
  const bool at_end = high == end_along(box, open.axis);
  box.extent[box.layer_axis] = slots;
  if (at_end) high = end_along(box, open.axis);
  bricks_.give_back(box.file_offset + box.byte_length(), old_length - box.byte_length());
  open.has_news = open.published;
}

bool Growth::still_fits(const Snapshot& snapshot, const Slab& slab) {
  if (snapshot.axes.size() != slab.runs.size()) return false;
  for (std::size_t a = 0; a < slab.runs.size(); ++a) {
    if (a == slab.axis) continue;
    const Axis& axis = snapshot.axes[a];
    std::vector<Run> now;
    if (slab.surplus[a].length > 0) {
      if (axis.extent() != slab.base[a]) return false;
      now = axis.runs({0, axis.extent()});
      append_run(now, slab.surplus[a]);
    } else {
      std::uint64_t extent = 0;
      for (const Run& run : slab.runs[a]) extent += run.length;
      if (extent > axis.extent()) return false;
      now = axis.runs({0, extent});
    }
    if (now != slab.runs[a]) return false;
  }
  return true;
}

void Growth::describe(const Snapshot& snapshot, const Slab& slab, std::uint64_t at,
                      Delta& delta) const {
  const auto written = [&](std::uint64_t id) -> std::uint64_t {
    for (auto box = delta.boxes.rbegin(); box != delta.boxes.rend(); ++box)
      if (box->id == id) return box->written;
    const Box* box = snapshot.boxes.find(id);
    return box == nullptr ? 0 : box->written;
  };
  const auto put = [&](Box box, std::uint64_t more) {
    box.written = written(box.id) | more;
    delta.boxes.push_back(std::move(box));
  };
  for (const auto& [id, open] : boxes_)
    if (open.has_news) put(open.box, 0);
  for (const Slab::Part& part : slab.parts)
    put(boxes_.at(part.box).box, bits(part.first_slot, part.slots));
  for (std::size_t a = 0; a < slab.surplus.size(); ++a)
    if (slab.surplus[a].length > 0)
      delta.edits.push_back({static_cast<std::uint8_t>(a), false, slab.base[a], slab.surplus[a]});
  delta.edits.push_back({static_cast<std::uint8_t>(slab.axis), false, at, slab.run()});
}

void Growth::commit(const Slab& slab) {
  if (slab.widens()) --widening_;
  for (auto it = boxes_.begin(); it != boxes_.end();) {
    const std::uint64_t id = it->first;
    it->second.has_news = false;
    ++it;
    settle(id);
  }
  for (const Slab::Part& part : slab.parts) {
    OpenBox& open = boxes_.at(part.box);
    open.published = true;
    --open.holders;
    settle(part.box);
  }
}

void Growth::give_back(const Slab& slab) {
  if (slab.widens()) --widening_;
  for (const Slab::Part& part : slab.parts) {
    OpenBox& open = boxes_.at(part.box);
    --open.holders;
    series_[slab.axis].layers -= std::min(
        series_[slab.axis].layers, open.box.slots() > 1 ? part.slots : open.box.extent[slab.axis]);
    // Slots that cannot be cleared are not given again: they would not read as zeros.
    const bool is_own = open.box.slots() == 1 && !open.published;  // goes back as a whole
    if (is_own || clear_slots(open.box, part.first_slot, part.slots))
      open.taken &= ~bits(part.first_slot, part.slots);
    open.has_blocks = open.has_blocks && is_own;
    settle(part.box);
  }
  for (std::size_t a = 0; a < slab.surplus.size(); ++a)
    if (slab.surplus[a].length > 0 && high_[a] == slab.surplus[a].end())
      high_[a] = slab.surplus[a].first;
}

}  // namespace accrete
