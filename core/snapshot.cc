#include "core/snapshot.h"

#include <algorithm>

#include "core/row_codec.h"

namespace accrete {

namespace {

Error contradiction(const std::string& what) {
  return fail(std::errc::invalid_argument, "the journal contradicts itself: " + what);
}

using Places = decltype(Snapshot::places);

// Index of the first place that is not before (axis, first).
std::size_t place_index(const Places& places, std::size_t axis, std::int64_t first) {
  return places.partition_point(
      [&](const Snapshot::Place& p) { return p.axis != axis ? p.axis < axis : p.first < first; });
}

Places without(const Places& places, const FrameRow& row) {
  const std::size_t i = place_index(places, row.grow_axis, row.first[row.grow_axis]);
  if (i == places.size() || places.at(i).id != row.id) return places;
  return places.erase(i);
}

Places with(const Places& places, const FrameRow& row) {
  const std::int64_t first = row.first[row.grow_axis];
  const std::size_t i = place_index(places, row.grow_axis, first);
  return places.insert(i, {row.grow_axis, row.state == FrameState::removed, first, row.id});
}

Status edit_axes(Snapshot& next, const Delta& delta) {
  for (const AxisEdit& edit : delta.edits) {
    if (edit.axis >= next.axes.size()) return contradiction("an edit of an unknown axis");
    ACCRETE_TRY(next.axes[edit.axis], apply(next.axes[edit.axis], edit));
  }
  for (const Delta::Arrangement& arrangement : delta.arrangements) {
    if (arrangement.axis >= next.axes.size()) return contradiction("an unknown axis");
    Axis& axis = next.axes[arrangement.axis];
    ACCRETE_TRY(axis, axis.arrange(arrangement.pieces));
  }
  return {};
}

Status put_frame(Snapshot& next, const FrameRow& row) {
  if (row.id == 0 || row.id > next.frames.count() + 1) return contradiction("a frame out of order");
  if (row.state != FrameState::gone && row.extent.size() != next.axes.size())
    return contradiction("a frame of another rank");
  for (std::size_t a = 0; a < row.extent.size(); ++a)
    if (row.first[a] <= -coordinate_limit || row.first[a] >= coordinate_limit ||
        row.extent[a] > static_cast<std::uint64_t>(coordinate_limit - row.first[a]))
      return contradiction("a frame beyond the range of coordinates");
  if (const auto old = next.frames.find(row.id)) next.places = without(next.places, *old);
  next.frames = next.frames.put(row);
  if (row.state != FrameState::gone) next.places = with(next.places, row);
  return {};
}

// Whether indexes that were there mean something else.
bool renumbers(const PerAxis<Axis>& before, const PerAxis<Axis>& next) {
  if (before.size() != next.size()) return true;
  for (std::size_t a = 0; a < next.size(); ++a)
    if (before[a].epoch() != next[a].epoch()) return true;
  return false;
}

// Whether views show other elements or cards by it, whatever becomes of the frames.
bool redefines_views(const Definition& before, const Definition& next) {
  const auto header = [](const Settings& settings) {
    return std::tie(settings.header, settings.header_first, settings.header_last,
                    settings.header_extent);
  };
  return before.defined != next.defined || before.coding != next.coding ||
         before.letters != next.letters || header(before.settings) != header(next.settings);
}

// Whether a frame that was there is another to views: all but its times, owner and mode.
bool changes_frames(const Snapshot& before, const Delta& delta) {
  const auto shown = [](const FrameRow& row) {
    return std::tie(row.state, row.name, row.prefix, row.cards, row.runs, row.grow_axis, row.first,
                    row.extent);
  };
  return std::any_of(delta.frames.begin(), delta.frames.end(), [&](const FrameRow& row) {
    const auto old = before.frames.find(row.id);
    return old && shown(*old) != shown(row);
  });
}

}  // namespace

std::optional<FrameRow> FrameTable::find(FrameId id) const {
  if (id == 0 || id > count_) return std::nullopt;
  const std::size_t i = changed_.partition_point([id](const auto& row) { return row->id < id; });
  if (i < changed_.size() && changed_.at(i)->id == id) return *changed_.at(i);
  if (id > base_count_) return std::nullopt;
  auto row = decode_frame({base_.get() + (id - 1) * frame_row_bytes, frame_row_bytes});
  if (!row.ok()) return std::nullopt;
  return std::move(row).value();
}

FrameTable FrameTable::put(const FrameRow& row) const {
  FrameTable next = *this;
  auto shared = std::make_shared<const FrameRow>(row);
  const std::size_t i =
      changed_.partition_point([&](const auto& other) { return other->id < row.id; });
  const bool there = i < changed_.size() && changed_.at(i)->id == row.id;
  next.changed_ =
      there ? changed_.replace(i, std::move(shared)) : changed_.insert(i, std::move(shared));
  next.count_ = std::max(count_, row.id);
  return next;
}

FrameTable FrameTable::rebased(std::shared_ptr<const std::byte> rows,
                               const FrameTable& written) const {
  FrameTable next(std::move(rows), written.count());
  next.count_ = count_;
  std::vector<std::shared_ptr<const FrameRow>> since;
  std::size_t i = 0;
  changed_.for_range(0, changed_.size(), [&](const std::shared_ptr<const FrameRow>& row) {
    while (i < written.changed_.size() && written.changed_.at(i)->id < row->id) ++i;
    if (i == written.changed_.size() || written.changed_.at(i) != row) since.push_back(row);
  });
  next.changed_ = decltype(changed_)::from_vector(std::move(since));
  return next;
}

Shape Snapshot::shape() const {
  Shape shape;
  for (const Axis& axis : axes) shape.push_back(axis.extent());
  return shape;
}

namespace {

struct Placed {
  Snapshot::Place place;
  FrameRow row;
};

// Who has this coordinate of that axis, live or removed.
std::optional<Placed> placed_at(const Snapshot& snapshot, std::size_t axis, std::int64_t physical) {
  const auto& places = snapshot.places;
  // The last place that begins at or before the coordinate.
  std::size_t i = place_index(places, axis, physical);
  if (i == places.size() || places.at(i).axis != axis || places.at(i).first != physical) {
    if (i == 0) return std::nullopt;
    --i;
  }
  const Snapshot::Place& place = places.at(i);
  if (place.axis != axis || place.first > physical) return std::nullopt;
  std::optional<FrameRow> row = snapshot.frames.find(place.id);
  if (!row || physical - row->first[axis] >= static_cast<std::int64_t>(row->extent[axis]))
    return std::nullopt;
  return Placed{place, *std::move(row)};
}

}  // namespace

std::optional<Snapshot::Place> Snapshot::place_at(std::size_t axis, std::int64_t physical) const {
  const std::optional<Placed> found = placed_at(*this, axis, physical);
  return found ? std::optional(found->place) : std::nullopt;
}

std::optional<FrameRow> Snapshot::frame_at(std::size_t axis, std::int64_t physical) const {
  std::optional<Placed> found = placed_at(*this, axis, physical);
  if (!found || found->place.removed) return std::nullopt;
  return std::move(found->row);
}

std::vector<FrameId> Snapshot::frames_in_order(bool removed) const {
  std::vector<FrameId> ordered;
  if (!definition.defined) return ordered;
  const auto add = [&](std::size_t axis) {
    for (const Axis::Piece& piece : axes[axis].pieces()) {
      const std::size_t begin = place_index(places, axis, piece.run.first);
      const std::size_t end = place_index(places, axis, piece.run.end());
      places.for_range(begin, end, [&](const Place& place) {
        if (place.removed == removed) ordered.push_back(place.id);
      });
    }
  };
  add(grow_axis());
  for (std::size_t axis = 0; axis < axes.size(); ++axis)
    if (axis != grow_axis()) add(axis);
  return ordered;
}

std::size_t Snapshot::grow_axis() const {
  const std::size_t named = definition.settings.grow.empty()
                                ? std::string::npos
                                : definition.letters.find(definition.settings.grow);
  return named == std::string::npos ? definition.rank - 1 : named;
}

Element Snapshot::pad_at_rest() const {
  Element pad;
  const DType type = definition.coding.type;
  recode(pad.bytes.data(), definition.pad.bytes.data(), 1, native(type), definition.coding);
  return pad;
}

Result<Axis> apply(const Axis& axis, const AxisEdit& edit) {
  switch (edit.kind) {
    case AxisEdit::Kind::insert:
      return axis.insert(edit.at, edit.run);
    case AxisEdit::Kind::hide:
      return axis.hide(edit.run);
    case AxisEdit::Kind::show:
      return axis.show(edit.run);
    case AxisEdit::Kind::drop:
      return axis.drop(edit.run);
    case AxisEdit::Kind::move:
      return axis.move(edit.run, edit.at);
  }
  return contradiction("an unknown edit of an axis");
}

Result<std::shared_ptr<const Snapshot>> apply(const Snapshot& before, const Delta& delta,
                                              const PerAxis<Axis>* axes) {
  auto next = std::make_shared<Snapshot>(before);
  ++next->generation;
  bool redefines = false;
  if (delta.definition) {
    next->definition = *delta.definition;
    const std::size_t rank = next->definition.defined ? next->definition.rank : 0;
    redefines =
        rank != next->axes.size() || next->definition.coding.type != before.definition.coding.type;
    if (rank != next->axes.size()) next->axes = PerAxis<Axis>(rank);
  }
  if (axes != nullptr)
    next->axes = *axes;
  else
    ACCRETE_CHECK(edit_axes(*next, delta));
  // First, since others may have coordinates now that were cut off one of these meanwhile.
  for (const std::uint64_t id : delta.removed_boxes) next->boxes = next->boxes.remove(id);
  for (const Box& box : delta.boxes) {
    if (box.rank() != next->axes.size()) return contradiction("a box of another rank");
    ACCRETE_CHECK(check_box(box, size_of(next->definition.coding.type)));
    ACCRETE_TRY(next->boxes, next->boxes.put(box));
  }
  if (!delta.removed_patches.empty()) ++next->patch_removals;
  for (const std::uint64_t id : delta.removed_patches) next->patches = next->patches.remove(id);
  for (const Box& patch : delta.patches) {
    if (patch.rank() != next->axes.size()) return contradiction("a patch of another rank");
    ACCRETE_CHECK(check_box(patch, size_of(next->definition.coding.type)));
    ACCRETE_TRY(next->patches, next->patches.put(patch));
  }
  for (const FrameRow& row : delta.frames) ACCRETE_CHECK(put_frame(*next, row));
  next->newest = next->places.total().newest;
  if (renumbers(before.axes, next->axes) || redefines_views(before.definition, next->definition) ||
      changes_frames(before, delta))
    ++next->revision;
  if (std::any_of(delta.frames.begin(), delta.frames.end(),
                  [&](const FrameRow& row) { return row.id <= before.frames.count(); }))
    ++next->row_changes;
  if (redefines &&
      (next->boxes.size() > delta.boxes.size() || next->patches.size() > delta.patches.size() ||
       next->places.size() > delta.frames.size()))
    return contradiction("a cube that holds frames is defined anew");
  return std::shared_ptr<const Snapshot>(std::move(next));
}

Result<FrameRuns> frame_runs(const FrameRow& row, std::span<const std::byte> text) {
  FrameRuns runs;
  ByteReader in(text);
  for (std::size_t a = 0; a < row.extent.size(); ++a) {
    std::vector<Run> pieces;
    if (text.empty()) {
      pieces.push_back({row.first[a], row.extent[a]});
    } else {
      for (auto n = in.get<std::uint32_t>(); n > 0 && in.good(); --n) {
        const auto first = in.get<std::int64_t>();
        pieces.push_back({first, in.get<std::uint64_t>()});
      }
    }
    ACCRETE_TRY(const Axis axis, Axis::from_runs(pieces));
    if (axis.extent() != row.extent[a] || pieces.front().first != row.first[a] ||
        (a == row.grow_axis && pieces.size() > 1))
      return fail(std::errc::io_error, "a frame's runs contradict its extents");
    runs.push_back(std::move(pieces));
  }
  if (!in.good()) return fail(std::errc::io_error, "a frame's runs are damaged");
  return runs;
}

Result<View> frame_view(const FrameRow& row, const FrameRuns& runs) {
  const std::size_t rank = row.extent.size();
  PerAxis<Axis> axes;
  PerAxis<ViewAxis> spanned;
  for (const std::vector<Run>& pieces : runs) {
    ACCRETE_TRY(Axis axis, Axis::from_runs(pieces));
    axes.push_back(std::move(axis));
  }
  for (std::size_t d = 0; d < rank; ++d) {
    const std::size_t a = row.layout.fortran_order ? rank - 1 - d : d;
    spanned.push_back({a, {0, row.extent[a]}});
  }
  return View::make(axes, spanned, Shape(rank));
}

Redo Redo::of(const View& view) {
  Redo redo;
  for (std::size_t d = 0; d < view.rank(); ++d)
    redo.order.push_back(static_cast<std::uint8_t>(view.dimension(d).axis));
  for (std::size_t axis = 0; axis < view.cube_rank(); ++axis) {
    const std::size_t d = view.dimension_of(axis);
    redo.runs.push_back(d == view.rank()
                            ? std::vector<Run>{{view.fixed_coordinate(axis), 1}}
                            : view.axis(axis).runs(view.dimension(d).range));
  }
  return redo;
}

Result<View> Redo::view() const {
  PerAxis<Axis> axes;
  for (const std::vector<Run>& pieces : runs) {
    ACCRETE_TRY(Axis axis, Axis::from_runs(pieces));
    axes.push_back(std::move(axis));
  }
  PerAxis<ViewAxis> spanned;
  for (const std::uint8_t axis : order) {
    if (axis >= axes.size()) return fail(std::errc::io_error, "a view of axes that there are not");
    spanned.push_back({axis, {0, axes[axis].extent()}});
  }
  return View::make(axes, spanned, Shape(axes.size(), 0));
}

// Why these are the frame's boxes and no others: a box that meets the product of the frame's
// coordinates holds, in the slots that meet it, elements of that product, and those are the
// frame's alone (core/growth.h).
void for_boxes_of(const BoxIndex& boxes, const FrameRow& row, const FrameRuns& runs,
                  const std::function<void(const Box&, std::uint64_t, std::uint64_t)>& visit) {
  FrameRuns sorted = runs;
  for (std::vector<Run>& pieces : sorted)
    std::sort(pieces.begin(), pieces.end(),
              [](const Run& a, const Run& b) { return a.first < b.first; });
  const std::size_t g = row.grow_axis;
  boxes.for_meeting(
      [&](std::size_t axis, std::int64_t low, std::int64_t high) {
        const auto run =
            std::partition_point(sorted[axis].begin(), sorted[axis].end(),
                                 [low](const Run& piece) { return piece.end() <= low; });
        return run != sorted[axis].end() && run->first < high;
      },
      [&](const Box& box) {
        if (box.layer_axis != g || box.slots() == 1) return visit(box, 0, box.slots());
        const std::int64_t origin = box.origin[g];
        const std::int64_t first = std::max(row.first[g], origin);
        const std::int64_t end = std::min(row.first[g] + static_cast<std::int64_t>(row.extent[g]),
                                          origin + static_cast<std::int64_t>(box.extent[g]));
        visit(box, static_cast<std::uint64_t>(first - origin),
              static_cast<std::uint64_t>(end - first));
      });
}

}  // namespace accrete
