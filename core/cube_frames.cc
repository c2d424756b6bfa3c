// The frames of a cube after they came in: found by name, renamed, taken out, brought back.
//
// Why removal and restoration are inverse. Every frame has coordinates on each axis for life, and
// each element of physical space was given by at most one frame (growth.h). An index lives as long
// as a live frame covers its coordinate; a coordinate stays on the axis, dormant if need be, as
// long as a live or removed frame covers it. Taking a frame out hides the coordinates that no live
// frame covers without it, and turns its slots from written to kept; bringing it back shows the
// coordinates that no live frame covers without it, and turns the slots back. Both depend only on
// which frames are live, not on the order in which they came to be; and dormant coordinates keep
// their place among all others (axis.cc). So the cube is a function of the set of live frames and
// of the order of coordinates, which removal and restoration leave alone.

#include <algorithm>

#include "core/bytes.h"
#include "core/checksum.h"
#include "core/cube_on_disk.h"
#include "core/frame_name.h"
#include "core/frame_order.h"

namespace accrete {

namespace {

constexpr std::size_t most_keys = 1 << 15;

Error no_such_frame(std::string_view name) {
  return fail(std::errc::no_such_file_or_directory,
              "there is no frame '" + std::string(name) + "' here");
}

Error name_in_use(std::string_view name) {
  return fail(std::errc::file_exists,
              "there is a frame '" + std::string(name) + "' already, live or removed");
}

Run grown_run(const FrameRow& row) {
  return {row.first[row.grow_axis], row.extent[row.grow_axis]};
}

}  // namespace

// ---- Names ----

void CubeOnDisk::index_names(const Snapshot& snapshot) {
  std::unordered_multimap<std::uint64_t, FrameId> names;
  names.reserve(snapshot.places.size());
  snapshot.places.for_range(0, snapshot.places.size(), [&](const Snapshot::Place& place) {
    if (const auto row = snapshot.frames.find(place.id)) names.emplace(row->name_hash, row->id);
  });
  MutexLock lock(names_lock_);
  names_.swap(names);
}

void CubeOnDisk::add_name(const FrameRow& row) {
  if (row.state == FrameState::gone) return;
  MutexLock lock(names_lock_);
  const auto [begin, end] = names_.equal_range(row.name_hash);
  const bool is_known =
      std::any_of(begin, end, [&](const auto& entry) { return entry.second == row.id; });
  if (!is_known) names_.emplace(row.name_hash, row.id);
}

void CubeOnDisk::drop_name(const FrameRow& old, const FrameRow& row) {
  if (row.state != FrameState::gone && row.name_hash == old.name_hash) return;
  MutexLock lock(names_lock_);
  auto [it, end] = names_.equal_range(old.name_hash);
  while (it != end && it->second != row.id) ++it;
  if (it != end) names_.erase(it);
}

std::optional<FrameRow> CubeOnDisk::frame_named(std::string_view name) const {
  for (;;) {
    const std::shared_ptr<const Snapshot> before = snapshot();
    std::vector<FrameId> candidates;
    {
      MutexLock lock(names_lock_);
      for (auto [it, end] = names_.equal_range(checksum(as_bytes(name))); it != end; ++it)
        candidates.push_back(it->second);
    }
    // A frame may have come, and taken the place of another, since the names were looked at.
    const std::shared_ptr<const Snapshot> now = snapshot();
    for (const FrameId id : candidates) {
      const auto row = now->frames.find(id);
      if (!row || row->state == FrameState::gone) continue;
      // One that cannot be read is known by its checksum.
      if (const auto text = heap_->read(row->name); !text.ok() || *text == name) return row;
    }
    if (now->generation == before->generation) return std::nullopt;
  }
}

std::optional<FrameId> CubeOnDisk::find_named(std::string_view name, FrameState state) const {
  const std::optional<FrameRow> row = frame_named(name);
  if (!row || row->state != state) return std::nullopt;
  return row->id;
}

std::optional<FrameId> CubeOnDisk::find_frame(std::string_view name) const {
  return find_named(name, FrameState::live);
}

std::optional<FrameId> CubeOnDisk::find_removed(std::string_view name) const {
  return find_named(name, FrameState::removed);
}

// ---- What is kept of them ----

std::string CubeOnDisk::frame_name(const FrameRow& row) const {
  auto name = heap_->read(row.name);
  return name.ok() ? std::move(name).value() : "frame-" + std::to_string(row.id);
}

Status CubeOnDisk::read_text(const HeapRef& text, std::uint64_t offset,
                             std::span<std::byte> target) const {
  return heap_->read_part(text, offset, target);
}

Result<FrameRuns> CubeOnDisk::frame_runs(const FrameRow& row) const {
  ACCRETE_TRY(const std::string text, heap_->read(row.runs));
  return accrete::frame_runs(row, as_bytes(text));
}

Result<View> CubeOnDisk::frame_view(const FrameRow& row) const {
  ACCRETE_TRY(const FrameRuns runs, frame_runs(row));
  return accrete::frame_view(row, runs);
}

Result<Pinned> CubeOnDisk::show_removed(const Pinned& pinned, const FrameRow& row) const {
  ACCRETE_TRY(const FrameRuns runs, frame_runs(row));
  auto shown = std::make_unique<Snapshot>(*pinned.snapshot);
  Status status;
  for_boxes_of(pinned->boxes, row, runs,
               [&](const Box& found, std::uint64_t first, std::uint64_t slots) {
                 Box box = found;
                 const std::uint64_t own = box.kept & slot_bits(first, slots);
                 box.kept &= ~own;
                 box.written |= own;
                 auto put = shown->boxes.put(box);
                 if (put.ok())
                   shown->boxes = *std::move(put);
                 else
                   status = put.error();
               });
  ACCRETE_CHECK(status);
  // It holds what it was made from, so that the space stays as it is.
  const Snapshot* const raw = shown.release();
  return Pinned{
      std::shared_ptr<const Snapshot>(raw, [pinned](const Snapshot* snapshot) { delete snapshot; }),
      pinned.mapping};
}

Status CubeOnDisk::set_frame_attributes(FrameId id, std::optional<std::int64_t> mtime_ns,
                                        std::optional<std::uint32_t> mode,
                                        std::optional<std::uint32_t> uid,
                                        std::optional<std::uint32_t> gid) {
  return step_making_room([&] { return try_set_frame_attributes(id, mtime_ns, mode, uid, gid); });
}

Status CubeOnDisk::try_set_frame_attributes(FrameId id, std::optional<std::int64_t> mtime_ns,
                                            std::optional<std::uint32_t> mode,
                                            std::optional<std::uint32_t> uid,
                                            std::optional<std::uint32_t> gid) {
  MutexLock lock(commit_lock_);
  auto row = snapshot()->frames.find(id);
  if (!row || row->state == FrameState::gone)
    return fail(std::errc::no_such_file_or_directory, "there is no such frame");
  row->mtime_ns = mtime_ns.value_or(row->mtime_ns);
  row->mode = mode.value_or(row->mode);
  row->uid = uid.value_or(row->uid);
  row->gid = gid.value_or(row->gid);
  return change([&](Draft& draft) -> Status {
    draft.put(*row);
    return {};
  });
}

// ---- Out of the cube and back ----

const CubeCoverage& CubeOnDisk::coverage() {
  if (!coverage_)
    coverage_ = CubeCoverage::of(*snapshot(), [this](const FrameRow& row) {
      auto runs = frame_runs(row);
      return runs.ok() ? std::move(runs).value() : FrameRuns(row.extent.size());
    });
  return *coverage_;
}

Status CubeOnDisk::take_out(Draft& draft, FrameRow row, FrameState to, const CubeCoverage& after) {
  ACCRETE_TRY(const FrameRuns runs, frame_runs(row));
  for (std::size_t a = 0; a < runs.size(); ++a)
    for (const Run& run : runs[a])
      for (const Run& unshown : after.live[a].uncovered(run)) {
        if (row.state == FrameState::live)
          ACCRETE_CHECK(draft.edit(a, AxisEdit::Kind::hide, unshown));
        for (const Run& unused : after.held[a].uncovered(unshown))
          ACCRETE_CHECK(draft.edit(a, AxisEdit::Kind::drop, unused));
      }
  for_boxes_of(
      draft.base().boxes, row, runs,
      [&](const Box& found, std::uint64_t first, std::uint64_t slots) REQUIRES(commit_lock_) {
        Box box = draft.box(found.id).value_or(found);
        const std::uint64_t own = slot_bits(first, slots);
        box.written &= ~own;
        box.kept &= ~own;
        (to == FrameState::removed ? box.kept : box.spent) |= own;
        draft.put(box);
        if (to == FrameState::removed) return;
        if ((box.written | box.kept) == 0 && !growth_->is_open(box.id)) {
          draft.remove_box(box.id);
          draft.freed.given_back.push_back({box.file_offset, box.byte_length()});
          return;
        }
        for_slot_ranges(box, first, slots, [&](std::uint64_t at, std::uint64_t length) {
          draft.freed.cleared.push_back({at, length});
        });
      });
  if (to == FrameState::gone) drop_patches(draft);
  if (to == FrameState::gone)
    for (const HeapRef& text : row.texts())
      if (text.length > 0) draft.freed.texts.push_back(text);
  row.state = to;
  draft.put(row);
  return {};
}

Status CubeOnDisk::bring_back(Draft& draft, FrameRow row) {
  ACCRETE_TRY(const FrameRuns runs, frame_runs(row));
  const CubeCoverage& before = coverage();
  for (std::size_t a = 0; a < runs.size(); ++a)
    for (const Run& run : runs[a])
      for (const Run& unshown : before.live[a].uncovered(run))
        ACCRETE_CHECK(draft.edit(a, AxisEdit::Kind::show, unshown));
  for_boxes_of(draft.base().boxes, row, runs,
               [&](const Box& found, std::uint64_t first, std::uint64_t slots) {
                 Box box = draft.box(found.id).value_or(found);
                 const std::uint64_t own = slot_bits(first, slots);
                 box.kept &= ~own;
                 box.written |= own;
                 draft.put(box);
               });
  row.state = FrameState::live;
  draft.put(row);
  return {};
}

void CubeOnDisk::undefine_if_empty() {
  const std::shared_ptr<const Snapshot> now = snapshot();
  if (!now->definition.defined || !now->places.empty() || growth_->holding() || read_only_) return;
  Draft draft(*now);
  Settings settings = now->definition.settings;
  settings.header_first = settings.header_last = {};
  settings.header_extent = {};
  draft.define(undefined_by(settings));
  now->boxes.for_all([&](const Box& box) {
    draft.remove_box(box.id);
    draft.freed.given_back.push_back({box.file_offset, box.byte_length()});
  });
  now->patches.for_all([&](const Box& patch) {
    draft.remove_patch(patch.id);
    draft.freed.given_back.push_back({patch.file_offset, patch.byte_length()});
  });
  // Where it cannot be journaled the cube stays defined until the next try.
  if (publish(std::move(draft)).ok()) growth_->forget_all();
}

Status CubeOnDisk::change(const std::function<Status(Draft&)>& body, bool durably) {
  ACCRETE_CHECK(writable());
  const std::shared_ptr<const Snapshot> before = snapshot();
  const std::uint64_t heap_end = heap_->end();
  const std::uint64_t sequence = journal_->sequence();
  // Not later: a key that the draft changes is nowhere else until it is published.
  if (keys_.size() >= most_keys) keys_.clear();
  Draft draft(*before);
  Status status = body(draft);
  if (status.ok()) status = publish(std::move(draft), durably);
  if (!status.ok()) {
    // What a record refers to may be asked for when the cube is opened again.
    if (journal_->sequence() == sequence) heap_->rewind(heap_end);
    keys_.clear();
  }
  return status;
}

Status CubeOnDisk::remove_frame(std::string_view name, std::string_view to) {
  return step_making_room([&] { return try_remove_frame(name, to); });
}

Status CubeOnDisk::try_remove_frame(std::string_view name, std::string_view to) {
  ACCRETE_CHECK(check_frame_name(to, snapshot()->definition.letters));
  MutexLock lock(commit_lock_);
  std::optional<FrameRow> row = frame_named(name);
  if (!row || row->state != FrameState::live) return no_such_frame(name);
  if (name != to && frame_named(to)) return name_in_use(to);
  const std::optional<std::uint64_t> place =
      snapshot()->axes[row->grow_axis].logical(row->first[row->grow_axis]);
  ACCRETE_TRY(const FrameRuns runs, frame_runs(*row));
  ACCRETE_CHECK(change([&](Draft& draft) REQUIRES(commit_lock_) -> Status {
    if (name != to) ACCRETE_CHECK(rename_in(draft, *row, to));
    return take_out(draft, *row, FrameState::removed,
                    coverage().moved(runs, FrameState::live, FrameState::removed));
  }));
  history_->record(
      {"remove", std::string(to), place, 0, name == to ? "" : "was " + std::string(name)});
  return {};
}

Status CubeOnDisk::restore_frame(std::string_view name, std::string_view to) {
  return step_making_room([&] { return try_restore_frame(name, to); });
}

Status CubeOnDisk::try_restore_frame(std::string_view name, std::string_view to) {
  ACCRETE_CHECK(check_frame_name(to, snapshot()->definition.letters));
  MutexLock lock(commit_lock_);
  std::optional<FrameRow> row = frame_named(name);
  if (!row || row->state != FrameState::removed) return no_such_frame(name);
  if (name != to && frame_named(to)) return name_in_use(to);
  ACCRETE_CHECK(change([&](Draft& draft) REQUIRES(commit_lock_) -> Status {
    if (name != to) ACCRETE_CHECK(rename_in(draft, *row, to));
    return bring_back(draft, *row);
  }));
  history_->record({"restore", std::string(to),
                    snapshot()->axes[row->grow_axis].logical(row->first[row->grow_axis]), 0,
                    name == to ? "" : "was " + std::string(name)});
  return {};
}

Status CubeOnDisk::discard_frame(std::string_view name) {
  return step_making_room([&] { return try_discard_frame(name); });
}

Status CubeOnDisk::try_discard_frame(std::string_view name) {
  MutexLock lock(commit_lock_);
  const std::optional<FrameRow> row = frame_named(name);
  if (!row || row->state != FrameState::removed) return no_such_frame(name);
  ACCRETE_TRY(const FrameRuns runs, frame_runs(*row));
  ACCRETE_CHECK(change([&](Draft& draft) REQUIRES(commit_lock_) {
    return take_out(draft, *row, FrameState::gone,
                    coverage().moved(runs, FrameState::removed, FrameState::gone));
  }));
  history_->record({"discard", std::string(name), std::nullopt, 0, ""});
  undefine_if_empty();
  return {};
}

Status CubeOnDisk::rename_frame(std::string_view from, std::string_view to) {
  return step_making_room([&] { return try_rename_frame(from, to); });
}

Status CubeOnDisk::try_rename_frame(std::string_view from, std::string_view to) {
  ACCRETE_CHECK(check_frame_name(to, snapshot()->definition.letters));
  MutexLock lock(commit_lock_);
  std::optional<FrameRow> row = frame_named(from);
  if (!row) return no_such_frame(from);
  if (from == to) return {};
  const std::optional<FrameRow> replaced = frame_named(to);
  if (replaced && row->state == FrameState::removed) return name_in_use(to);
  if (replaced && replaced->grow_axis != row->grow_axis)
    return fail(std::errc::operation_not_permitted,
                "the two frames grew different axes, so one cannot take the place of the other");
  ACCRETE_CHECK(change([&](Draft& draft) REQUIRES(commit_lock_) -> Status {
    const std::size_t axis = row->grow_axis;
    const bool is_sorted =
        !draft.base().definition.settings.order.empty() && axis == draft.base().grow_axis();
    if (replaced && !is_sorted) {
      ACCRETE_TRY(const Axis others, draft.axes()[axis].drop(grown_run(*row)));
      ACCRETE_CHECK(draft.edit(axis, AxisEdit::Kind::move, grown_run(*row),
                               others.position_of(replaced->first[axis]).value_or(0)));
    }
    ACCRETE_CHECK(rename_in(draft, *row, to));
    draft.put(*row);
    if (!replaced) return {};
    ACCRETE_TRY(const FrameRuns runs, frame_runs(*replaced));
    return take_out(draft, *replaced, FrameState::gone,
                    coverage().moved(runs, replaced->state, FrameState::gone));
  }));
  history_->record({replaced ? "replace" : "rename", std::string(to), std::nullopt, 0,
                    "was " + std::string(from)});
  return {};
}

// ---- Order ----

Result<std::string> CubeOnDisk::sort_key_of(const FrameRow& row, const std::string& order) const {
  ACCRETE_TRY(const std::string name, heap_->read(row.name));
  Headers headers;
  if (order != "name") {
    ACCRETE_TRY(headers, frame_headers(row));
  }
  return sort_key(order, name, headers, row.cards_format());
}

Result<std::string> CubeOnDisk::key_of(FrameId id) {
  if (const auto known = keys_.find(id); known != keys_.end()) return known->second;
  const std::shared_ptr<const Snapshot> now = snapshot();
  const auto row = now->frames.find(id);
  if (!row) return no_such_frame(std::to_string(id));
  ACCRETE_TRY(std::string key, sort_key_of(*row, now->definition.settings.order));
  return keys_.emplace(id, std::move(key)).first->second;
}

Result<std::uint64_t> CubeOnDisk::sorted_place(const Snapshot& snapshot, std::size_t axis,
                                               const Axis& state, const std::string& key) {
  Status unread;
  const auto key_at = [&](std::int64_t coordinate)
                          REQUIRES(commit_lock_) -> std::optional<std::string> {
    const auto place = snapshot.place_at(axis, coordinate);
    if (!place) return std::nullopt;
    auto other = key_of(place->id);
    if (other.ok()) return std::move(other).value();
    if (other.error().code != std::errc::invalid_argument) unread = other.error();
    return std::nullopt;
  };
  const std::uint64_t position = sorted_position(state, key, key_at);
  ACCRETE_CHECK(unread);
  return position;
}

Result<std::uint64_t> CubeOnDisk::position_for(const Draft& draft, std::size_t axis, Side side,
                                               std::uint64_t at, const std::string& key) {
  const Axis& state = draft.axes()[axis];
  if (!key.empty()) return sorted_place(draft.base(), axis, state, key);
  if (side == Side::append) return state.positions();
  if (side == Side::prepend) return std::uint64_t{0};
  if (at > state.extent())
    return fail(std::errc::invalid_argument, "the axis has only " + std::to_string(state.extent()) +
                                                 " indexes by now; nothing can be inserted at " +
                                                 std::to_string(at));
  return state.position_of_index(at);
}

Status CubeOnDisk::rename_in(Draft& draft, FrameRow& row, std::string_view name) {
  ACCRETE_TRY(row.name, heap_->append(as_bytes(name)));
  row.name_hash = checksum(as_bytes(name));
  const Definition& d = draft.base().definition;
  if (d.settings.order != "name") return {};
  ACCRETE_TRY(const std::string key,
              sort_key(d.settings.order, name, Headers{}, row.layout.format));
  return resort_in(draft, row, key);
}

Status CubeOnDisk::resort_in(Draft& draft, const FrameRow& row, const std::string& key) {
  const std::size_t axis = row.grow_axis;
  if (axis != draft.base().grow_axis()) return {};
  // Among equal keys the order of arrival stays.
  if (const auto old = key_of(row.id); old.ok() && *old == key) return {};
  keys_[row.id] = key;
  const Axis& state = draft.axes()[axis];
  ACCRETE_TRY(const Axis others, state.drop(grown_run(row)));
  ACCRETE_TRY(const std::uint64_t position, sorted_place(draft.base(), axis, others, key));
  if (state.position_of(row.first[axis]) == position) return {};
  return draft.edit(axis, AxisEdit::Kind::move, grown_run(row), position);
}

// Brings the frames along the axis that grows into the order that a new definition asks for.
Status CubeOnDisk::sort_all(Draft& draft, const Definition& definition) {
  keys_.clear();
  const Snapshot& now = draft.base();
  const std::string& order = definition.settings.order;
  if (!now.definition.defined || order.empty()) return {};
  Snapshot next = now;
  next.definition = definition;
  const std::size_t axis = next.grow_axis();
  struct Keyed {
    std::string key;
    FrameId id;
    Run run;
  };
  std::vector<Keyed> frames;
  Status status;
  now.places.for_range(0, now.places.size(), [&](const Snapshot::Place& place) {
    if (place.axis != axis || !status.ok()) return;
    const auto row = now.frames.find(place.id);
    if (!row) return;
    const auto key = sort_key_of(*row, order);
    if (key.ok())
      frames.push_back({*key, place.id, grown_run(*row)});
    else
      status = fail(key.error().code, frame_name(*row) + ": " + key.error().sentence);
  });
  ACCRETE_CHECK(status);
  std::sort(frames.begin(), frames.end(), [](const Keyed& a, const Keyed& b) {
    return a.key != b.key ? a.key < b.key : a.id < b.id;
  });
  std::vector<Run> runs;
  runs.reserve(frames.size());
  for (const Keyed& frame : frames) runs.push_back(frame.run);
  return draft.arrange(axis, arranged(draft.axes()[axis], runs));
}

}  // namespace accrete
