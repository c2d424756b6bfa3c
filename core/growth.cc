#include "core/growth.h"

#include <algorithm>
#include <bit>

#include "core/bytes.h"

namespace accrete {

namespace {

constexpr std::uint64_t deepest_reserve = 64;  // layers; a box has at most 64 slots
// Above this no blocks are held beforehand: a frame of its own may be sparse, and frames that are
// to come may never do so, or a quota ends before the disk does.
constexpr std::uint64_t largest_held = std::uint64_t{256} << 20;
constexpr std::uint64_t most_boxes = 1 << 20;  // of one frame

// Slots below this one, and slots from that one on, are free.
std::uint64_t bottom_slot(std::uint64_t taken, std::uint64_t slots) {
  return std::min(slots, static_cast<std::uint64_t>(std::countr_zero(taken)));
}
std::uint64_t top_slot(std::uint64_t taken) {
  return 64 - static_cast<std::uint64_t>(std::countl_zero(taken));
}

// The first of `count` free slots in a row, the lowest or the highest such; nothing when there are
// none.
std::optional<std::uint64_t> free_slots(std::uint64_t taken, std::uint64_t slots,
                                        std::uint64_t count, bool highest) {
  if (count > slots) return std::nullopt;
  for (std::uint64_t i = 0; i <= slots - count; ++i) {
    const std::uint64_t first = highest ? slots - count - i : i;
    if ((taken & slot_bits(first, count)) == 0) return first;
  }
  return std::nullopt;
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
  if (run.length == 0) return;
  if (!runs.empty() && runs.back().end() == run.first)
    runs.back().length += run.length;
  else
    runs.push_back(run);
}

// The coordinates of the first `extent` indexes of an axis, made where there are too few.
struct Covered {
  std::vector<Run> runs;      // all of them
  std::vector<Run> revived;   // those that are dormant now
  std::uint64_t missing = 0;  // how many have to be fresh

  friend bool operator==(const Covered&, const Covered&) = default;
};

Covered cover(const Axis& axis, std::uint64_t extent) {
  Covered covered;
  const std::uint64_t shown = std::min(extent, axis.extent());
  covered.runs = axis.runs({0, shown});
  covered.missing = extent - shown;
  if (covered.missing == 0) return covered;
  const std::uint64_t begin = axis.end_position();
  const std::uint64_t end = std::min(axis.positions(), begin + covered.missing);
  for (const Axis::Piece& piece : axis.pieces({begin, end})) {
    append_run(covered.revived, piece.run);
    append_run(covered.runs, piece.run);
  }
  covered.missing -= end - begin;
  return covered;
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
  for (std::size_t a = 0; a < surplus.size(); ++a)
    if (surplus[a].length > 0 || !revived[a].empty()) return true;
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
  for (std::size_t a = 0; a < snapshot.axes.size(); ++a) {
    low_[a] = std::min<std::int64_t>(0, snapshot.axes[a].used().first);
    high_[a] = std::max<std::int64_t>(0, snapshot.axes[a].used().end());
  }
  snapshot.boxes.for_all([&](const Box& box) {
    next_box_ = std::max(next_box_, box.id + 1);
    for (std::size_t a = 0; a < box.rank(); ++a) {
      low_[a] = std::min(low_[a], box.origin[a]);
      high_[a] = std::max(high_[a], end_along(box, a));
    }
  });
  // A series goes on where one box stands alone at its end of the axis; in that box, if it has
  // slots left there.
  std::array<std::array<std::vector<std::uint64_t>, 2>, max_rank> at_end;
  snapshot.boxes.for_all([&](const Box& box) {
    const std::size_t axis = box.layer_axis;
    if (box.committed() == 0) return;
    if (end_along(box, axis) == high_[axis]) at_end[axis][0].push_back(box.id);
    if (box.origin[axis] == low_[axis]) at_end[axis][1].push_back(box.id);
  });
  snapshot.boxes.for_all([&](const Box& box) {
    const std::size_t axis = box.layer_axis;
    const std::uint64_t bottom = bottom_slot(box.committed(), box.slots());
    const std::uint64_t top = top_slot(box.committed());
    bool resumes_low = false;
    bool resumes_high = false;
    for (const bool low : {false, true}) {
      const auto& boxes = at_end[axis][low ? 1 : 0];
      if (boxes.size() != 1 || boxes.front() != box.id) continue;
      Cuboid cuboid{box.origin, box.extent};
      cuboid.origin[axis] = 0;
      cuboid.extent[axis] = 0;
      Series& series = this->series(axis, low);
      series = {std::nullopt, box.extent[axis], {cuboid}, size_of(snapshot.definition.coding.type)};
      if (low ? bottom == 0 || resumes_high : top == box.slots()) continue;
      (low ? resumes_low : resumes_high) = true;
      series.group = box.id;
      Group group;
      group.boxes = {box};
      group.taken = box.committed();
      group.axis = axis;
      group.low = low;
      group.published = true;
      groups_.emplace(box.id, std::move(group));
    }
    if ((box.written | box.kept) == 0 && !resumes_low && !resumes_high) {
      Group empty;
      empty.boxes = {box};
      empty.taken = box.committed();
      empty.axis = axis;
      empty.published = empty.closed = empty.settled = empty.has_news = true;
      groups_.emplace(box.id, std::move(empty));
    }
    // Slots that hold no frame may have bytes of streams that were cut off or of frames that are
    // gone, or blocks that were reserved for a series that does not go on. Those in a row at once:
    // a slot alone may have no whole page.
    std::uint64_t begin = 0;
    for (std::uint64_t s = 0; s <= box.slots(); ++s) {
      const bool holds = s == box.slots() || ((box.written | box.kept) & slot_bits(s, 1)) != 0;
      const bool unused = (s < bottom && !resumes_low) || (s >= top && !resumes_high);
      if (!holds && (reclaim || unused)) continue;
      if (begin < s) (void)clear_slots(box, begin, s - begin);
      begin = s + 1;
    }
  });
}

Result<Growth::Cross> Growth::cross_section(const Slab& slab) {
  const std::size_t rank = slab.runs.size();
  Cross cross{{Coords(rank), Shape(rank)}};
  for (std::size_t a = 0; a < rank; ++a) {
    if (a == slab.axis) continue;
    std::vector<Run> sorted = slab.runs[a];
    std::sort(sorted.begin(), sorted.end(),
              [](const Run& x, const Run& y) { return x.first < y.first; });
    std::vector<Run> intervals;
    for (const Run& run : sorted) append_run(intervals, run);
    if (cross.size() > most_boxes / intervals.size())
      return fail(
          std::errc::file_too_large,
          "the frame would be torn into too many pieces by the gaps that removed frames left");
    Cross finer;
    for (const Cuboid& cuboid : cross)
      for (const Run& interval : intervals) {
        finer.push_back(cuboid);
        finer.back().origin[a] = interval.first;
        finer.back().extent[a] = interval.length;
      }
    cross = std::move(finer);
  }
  return cross;
}

bool Growth::is_open(std::uint64_t box) const {
  // The boxes of a group have consecutive ids.
  const auto next = groups_.upper_bound(box);
  if (next == groups_.begin()) return false;
  const auto& [id, group] = *std::prev(next);
  return box - id < group.boxes.size();
}

Result<Slab> Growth::reserve(const Snapshot& snapshot, std::size_t axis, Side side,
                             const Shape& extent, std::size_t element_size) {
  Slab slab;
  slab.axis = axis;
  slab.side = side;
  for (std::size_t a = 0; a < extent.size(); ++a) {
    Covered covered;
    Run surplus;
    if (a != axis) {
      covered = cover(snapshot.axes[a], extent[a]);
      surplus = {high_[a], covered.missing};
      if (surplus.length > static_cast<std::uint64_t>(coordinate_limit - high_[a]))
        return fail(std::errc::file_too_large, "the axis has no coordinates left");
      append_run(covered.runs, surplus);
    }
    slab.runs.push_back(std::move(covered.runs));
    slab.revived.push_back(std::move(covered.revived));
    slab.surplus.push_back(surplus);
  }
  ACCRETE_TRY(const Cross cross, cross_section(slab));
  for (std::size_t a = 0; a < extent.size(); ++a)
    if (slab.surplus[a].length > 0) high_[a] = slab.surplus[a].end();
  ++holding_;
  if (slab.widens()) ++widening_;
  if (Status taken = take_layers(slab, cross, extent[axis], element_size); !taken.ok()) {
    give_back(slab);
    return std::move(taken).error();
  }
  return slab;
}

Status Growth::take_layers(Slab& slab, const Cross& cross, std::uint64_t layers,
                           std::size_t element_size) {
  const std::size_t axis = slab.axis;
  const bool low = slab.side == Side::prepend;
  Series& series = this->series(axis, low);
  if (series.cross != cross || series.element_size != element_size) {
    close_series(series);
    series = {std::nullopt, 0, cross, element_size};
  }
  std::uint64_t rest = layers;
  if (series.group) {
    const std::uint64_t id = *series.group;
    Group& group = groups_.at(id);
    const std::uint64_t slots = group.slots();
    if (const auto first = free_slots(group.taken, slots, layers, low))
      return take_slots(slab, id, *first, layers);
    // What is left in this group is continued by the next one.
    if (low ? group.front().origin[axis] == low_[axis]
            : end_along(group.front(), axis) == high_[axis]) {
      const std::uint64_t first = low ? 0 : top_slot(group.taken);
      const std::uint64_t count = low ? bottom_slot(group.taken, slots) : slots - first;
      if (count > 0) ACCRETE_CHECK(take_slots(slab, id, first, count));
      rest -= count;
    }
    close_series(series);
  }
  const bool ahead = rest < deepest_reserve && rest < series.layers;
  const std::uint64_t depth = ahead ? std::min(series.layers, deepest_reserve) : rest;
  ACCRETE_TRY(const std::uint64_t id, open_group(cross, axis, low, depth, ahead, element_size));
  Group& group = groups_.at(id);
  Status taken =
      ahead ? take_slots(slab, id, low ? depth - rest : 0, rest) : take_slots(slab, id, 0, 1);
  if (taken.ok() && ahead && depth > rest)
    series.group = id;
  else
    group.closed = true;
  if (!taken.ok()) settle(id);
  return taken;
}

Status Growth::take_slots(Slab& slab, std::uint64_t id, std::uint64_t first, std::uint64_t count) {
  Group& group = groups_.at(id);
  group.taken |= slot_bits(first, count);
  ++group.holders;
  slab.parts.push_back({id, first, count});
  for (const Box& box : group.boxes) {
    Box held = box;
    held.written = slot_bits(first, count);
    held.kept = held.spent = 0;
    ACCRETE_TRY(slab.boxes, slab.boxes.put(held));
  }
  const Box& box = group.front();
  const bool is_whole = box.slots() == 1;
  const Run run{box.origin[slab.axis] + static_cast<std::int64_t>(is_whole ? 0 : first),
                is_whole ? box.extent[slab.axis] : count};
  std::vector<Run>& runs = slab.runs[slab.axis];
  if (group.low && !runs.empty())
    runs.front() = {run.first, run.length + runs.front().length};
  else
    append_run(runs, run);
  series(slab.axis, group.low).layers += run.length;
  return {};
}

Result<std::uint64_t> Growth::open_group(const Cross& cross, std::size_t axis, bool low,
                                         std::uint64_t layers, bool ahead,
                                         std::size_t element_size) {
  const auto room = static_cast<std::uint64_t>(low ? coordinate_limit - 1 + low_[axis]
                                                   : coordinate_limit - high_[axis]);
  if (layers > room) return fail(std::errc::file_too_large, "the axis has no coordinates left");
  const std::int64_t first = low ? low_[axis] - static_cast<std::int64_t>(layers) : high_[axis];
  Group group;
  group.axis = axis;
  group.low = low;
  std::uint64_t bytes = 0;
  Status status;
  for (const Cuboid& cuboid : cross) {
    Box box;
    box.id = next_box_ + group.boxes.size();
    box.origin = cuboid.origin;
    box.extent = cuboid.extent;
    box.origin[axis] = first;
    box.extent[axis] = layers;
    box.layer_axis = ahead ? axis : slowest_axis(box.extent);
    box.slot_layers = ahead ? 1 : box.extent[box.layer_axis];
    auto laid_out = lay_out(box, element_size);
    status = laid_out.ok() ? Status() : Status(laid_out.error());
    if (!status.ok()) break;
    box = *laid_out;
    const auto offset = bricks_.take(box.byte_length());
    status = offset.ok() ? Status() : Status(offset.error());
    if (!status.ok()) break;
    box.file_offset = *offset;
    group.boxes.push_back(box);
    bytes += box.byte_length();
    if (!ahead && box.byte_length() <= largest_held)
      status = bricks_.hold_blocks(box.file_offset, box.byte_length());
    if (!status.ok()) break;
  }
  // Where this is not, or fails, blocks are found when they are written.
  group.is_held = status.ok() && ahead && bytes <= largest_held && bricks_.has_plenty(bytes);
  if (group.is_held)
    for (const Box& box : group.boxes)
      (void)bricks_.hold_blocks(box.file_offset, box.byte_length());
  if (!status.ok()) {
    for (const Box& box : group.boxes) bricks_.give_back(box.file_offset, box.byte_length());
    return std::move(status).error();
  }
  const std::uint64_t id = next_box_;
  next_box_ += group.boxes.size();
  if (low)
    low_[axis] = first;
  else
    high_[axis] = first + static_cast<std::int64_t>(layers);
  groups_.emplace(id, std::move(group));
  return id;
}

void Growth::close_series(Series& series) {
  if (!series.group) return;
  groups_.at(*series.group).closed = true;
  settle(*std::exchange(series.group, std::nullopt));
}

void Growth::settle(std::uint64_t id) {
  const auto it = groups_.find(id);
  if (it == groups_.end() || it->second.holders > 0) return;
  Group& group = it->second;
  if (group.taken == 0 && !group.published) {
    drop(group);
    if (Series& series = this->series(group.axis, group.low); series.group == id)
      series.group.reset();
    groups_.erase(it);
    return;
  }
  if (!group.closed) return;
  if (group.slots() > 1 && group.taken != 0 && !std::exchange(group.settled, true)) {
    group.has_news = group.published;
    group.is_held = false;
    if (group.low) {
      for (const Box& box : group.boxes)
        (void)clear_slots(box, 0, bottom_slot(group.taken, group.slots()));
    } else if (top_slot(group.taken) < group.slots()) {
      trim(group, top_slot(group.taken));
    }
  }
  if (!group.has_news) groups_.erase(it);
}

bool Growth::release_held() {
  bool any = false;
  for (auto& [id, group] : groups_) {
    if (!std::exchange(group.is_held, false)) continue;
    const std::uint64_t first = group.low ? 0 : top_slot(group.taken);
    const std::uint64_t count =
        (group.low ? bottom_slot(group.taken, group.slots()) : group.slots()) - first;
    any |= count > 0;
    for (const Box& box : group.boxes) (void)clear_slots(box, first, count);
  }
  return any;
}

void Growth::drop(const Group& group) {
  const Box& box = group.front();
  if (group.low && low_[group.axis] == box.origin[group.axis])
    low_[group.axis] = end_along(box, group.axis);
  if (!group.low && high_[group.axis] == end_along(box, group.axis))
    high_[group.axis] = box.origin[group.axis];
  for (const Box& each : group.boxes) bricks_.give_back(each.file_offset, each.byte_length());
}

// Cuts unused layers off. Only at the upper end: a box's bytes begin with its lowest layer. Their
// blocks go at once, their place in the file when the journal no longer says that the box has it.
// Only boxes that reserved ahead have more than one slot; their layer axis is the one that grows.
void Growth::trim(Group& group, std::uint64_t slots) {
  std::int64_t& high = high_[group.axis];
  const bool at_end = high == end_along(group.front(), group.axis);
  for (Box& box : group.boxes) {
    const std::uint64_t old_length = box.byte_length();
    (void)clear_slots(box, slots, box.slots() - slots);
    box.extent[box.layer_axis] = slots;
    group.cut_off.push_back({box.file_offset + box.byte_length(), old_length - box.byte_length()});
  }
  if (at_end) high = end_along(group.front(), group.axis);
  if (group.published) return;
  for (const BrickFile::Range& range : group.cut_off) bricks_.give_back(range.offset, range.length);
}

bool Growth::still_fits(const Snapshot& snapshot, const Slab& slab) {
  if (snapshot.axes.size() != slab.runs.size()) return false;
  for (std::size_t a = 0; a < slab.runs.size(); ++a) {
    if (a == slab.axis) continue;
    std::uint64_t extent = 0;
    for (const Run& run : slab.runs[a]) extent += run.length;
    Covered now = cover(snapshot.axes[a], extent);
    append_run(now.runs, slab.surplus[a]);
    if (now != Covered{slab.runs[a], slab.revived[a], slab.surplus[a].length}) return false;
  }
  return true;
}

Status Growth::describe(Draft& draft, const Slab& slab, std::uint64_t position) const {
  const auto put = [&](Box box, std::uint64_t more) {
    const Box now = draft.box(box.id).value_or(Box{});
    box.written = now.written | more;
    box.kept = now.kept;
    box.spent = now.spent;
    box.poked = now.poked;
    draft.put(box);
  };
  for (const auto& [id, group] : groups_)
    if (group.has_news) {
      for (const Box& box : group.boxes) {
        const std::optional<Box> now = draft.box(box.id);
        if (now && (now->written | now->kept) == 0) {
          draft.remove_box(box.id);
          draft.freed.given_back.push_back({box.file_offset, box.byte_length()});
        } else if (now && now->extent != box.extent) {
          put(box, 0);
        }
      }
      draft.freed.given_back.insert(draft.freed.given_back.end(), group.cut_off.begin(),
                                    group.cut_off.end());
    }
  for (const Slab::Part& part : slab.parts)
    for (const Box& box : groups_.at(part.group).boxes)
      put(box, slot_bits(part.first_slot, part.slots));
  for (std::size_t a = 0; a < slab.surplus.size(); ++a) {
    for (const Run& run : slab.revived[a]) ACCRETE_CHECK(draft.edit(a, AxisEdit::Kind::show, run));
    if (slab.surplus[a].length > 0)
      ACCRETE_CHECK(
          draft.edit(a, AxisEdit::Kind::insert, slab.surplus[a], draft.axes()[a].positions()));
  }
  return draft.edit(slab.axis, AxisEdit::Kind::insert, slab.run(), position);
}

void Growth::commit(const Slab& slab) {
  --holding_;
  if (slab.widens()) --widening_;
  for (auto it = groups_.begin(); it != groups_.end();) {
    const std::uint64_t id = it->first;
    it->second.has_news = false;
    ++it;
    settle(id);
  }
  for (const Slab::Part& part : slab.parts) {
    Group& group = groups_.at(part.group);
    group.published = true;
    --group.holders;
    settle(part.group);
  }
}

void Growth::give_back(const Slab& slab) {
  --holding_;
  if (slab.widens()) --widening_;
  for (const Slab::Part& part : slab.parts) {
    Group& group = groups_.at(part.group);
    --group.holders;
    std::uint64_t& layers = series(slab.axis, group.low).layers;
    layers -= std::min(layers, group.slots() > 1 ? part.slots : group.front().extent[slab.axis]);
    // Slots that cannot be cleared are not given again: they would not read as zeros.
    const bool is_own = group.slots() == 1 && !group.published;  // goes back as a whole
    bool cleared = true;
    for (const Box& box : group.boxes)
      cleared = (is_own || clear_slots(box, part.first_slot, part.slots)) && cleared;
    if (cleared) group.taken &= ~slot_bits(part.first_slot, part.slots);
    settle(part.group);
  }
  for (std::size_t a = 0; a < slab.surplus.size(); ++a)
    if (slab.surplus[a].length > 0 && high_[a] == slab.surplus[a].end())
      high_[a] = slab.surplus[a].first;
}

void Growth::forget_all() {
  groups_.clear();
  for (auto& both : series_)
    for (Series& series : both) series = {};
}

}  // namespace accrete
