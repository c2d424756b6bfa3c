// Elements of a cube that are changed in place.
//
// Why nothing is lost, and nothing taken for damage.
// 1. Stores go to the mapping of the brick file under poke_lock_: two writers of one element come
//    one after the other, and the death of the daemon loses none of what was answered.
// 2. Recovery holds the elements of frames that no mark vouches for against the checksums of their
//    rows. So before the first store into a slot a mark vouches for all frames, and a record behind
//    it says, durably, that the slot is poked: whoever verifies checksums leaves it out.
// 3. What no frame gave becomes data by a patch: a box whose elements, also those that are poked,
//    are on disk before the record that adds it: it is there with them or not at all. A frame that
//    was removed hides the patches under it when it comes back, so coming back undoes exactly the
//    removal.
// 4. The elements of a whole view are replaced by a redo record, which refers to a copy of them;
//    then they are stored. Recovery stores them again unless a mark covers the record. No mark does
//    before all are stored (sync_lock_), and a poke after it syncs first: so nothing newer is
//    overwritten.

#include <algorithm>
#include <cstring>
#include <map>

#include "core/cube_on_disk.h"
#include "core/linearize.h"
#include "core/prefetch.h"

namespace accrete {

namespace {

// More patches in one step are refused: each takes a page and a row.
constexpr std::size_t most_patches = 1 << 14;
constexpr std::uint64_t step_bytes = 1 << 20;

std::shared_ptr<std::byte> bytes_of(std::uint64_t count) {
  return std::shared_ptr<std::byte>(new std::byte[count], std::default_delete<std::byte[]>());
}

void add(RecentValues::Ticket& to, RecentValues::Ticket more) {
  using Both = std::pair<RecentValues::Ticket, RecentValues::Ticket>;
  if (to != nullptr) more = std::make_shared<Both>(std::move(to), std::move(more));
  to = std::move(more);
}

// Slots of a box by what lies there in the file.
class SlotFinder {
 public:
  explicit SlotFinder(const Box& box)
      : box_(&box), deep_(box.brick_strides()[box.layer_axis]), brick_(box.brick_bytes()) {}

  const Box& box() const { return *box_; }
  std::uint64_t slot_at(std::uint64_t file_offset) const {
    const std::uint64_t at = file_offset - box_->file_offset;
    const std::uint64_t layer =
        at / deep_ * box_->brick[box_->layer_axis] + at % brick_ / box_->layer_pitch;
    return layer / box_->slot_layers;
  }
  // Where the layer ends that has this byte.
  std::uint64_t layer_end(std::uint64_t file_offset) const {
    const std::uint64_t in_brick = (file_offset - box_->file_offset) % brick_;
    return file_offset - in_brick % box_->layer_pitch + box_->layer_pitch;
  }

 private:
  const Box* box_;
  std::uint64_t deep_;  // bytes of one row of bricks
  std::uint64_t brick_;
};

// The patches that a view of an older snapshot shows. They never move, so these are the present
// ones, and of its own those that went with the last of their indexes since.
BoxIndex patches_of(const Snapshot& pinned, const Snapshot& newest) {
  if (pinned.patch_removals == newest.patch_removals) return newest.patches;
  BoxIndex all = newest.patches;
  pinned.patches.for_all([&](const Box& patch) {
    if (all.find(patch.id) != nullptr) return;
    if (auto more = all.put(patch); more.ok()) all = *std::move(more);
  });
  return all;
}

// Whether frames give the same elements of a view as in an older snapshot.
bool shows_the_same(const Snapshot& now, const Snapshot& pinned, const View& view) {
  if (now.generation == pinned.generation) return true;
  const std::uint64_t count = view.element_count();
  std::vector<std::byte> is(std::min(count, step_bytes));
  std::vector<std::byte> was(is.size());
  for (std::uint64_t done = 0; done < count; done += step_bytes) {
    const Interval range{done, std::min(count, done + step_bytes)};
    gather_mask(view, now.boxes, range, is.data());
    gather_mask(view, pinned.boxes, range, was.data());
    if (std::memcmp(is.data(), was.data(), range.length()) != 0) return false;
  }
  return true;
}

bool all_have_indexes(const std::vector<Box>& patches, const PerAxis<Axis>& axes) {
  return std::all_of(patches.begin(), patches.end(), [&](const Box& patch) {
    if (patch.rank() != axes.size()) return false;
    for (std::size_t axis = 0; axis < axes.size(); ++axis)
      if (!axes[axis].position_of(patch.origin[axis])) return false;
    return true;
  });
}

}  // namespace

// What a range is and becomes, and where what changes of it lies.
struct CubeOnDisk::PokePlan {
  std::shared_ptr<std::byte> old, now;  // in the coding at rest
  std::unique_ptr<std::byte[]> held;    // 1: in a slot of a box; none: not looked at
  std::uint64_t changes = 0;
  std::map<std::uint64_t, std::uint64_t> slots;  // box -> slots not known yet to be poked
  std::vector<ElementCuboid> pads;               // changed elements that nothing holds

  bool changes_structure() const { return !slots.empty() || !pads.empty(); }
};

Status CubeOnDisk::gather_all(const Pinned& pinned, const View& view, Interval range,
                              std::byte* target, Coding coding) const {
  const Definition& d = pinned->definition;
  Element pad;
  recode(pad.bytes.data(), d.pad.bytes.data(), 1, native(coding.type), coding);
  const Pinned newest = pin();
  const BoxIndex patches = patches_of(*pinned.snapshot, *newest.snapshot);
  const std::byte* const from = newest.mapping.get();
  prefetch_scattered(from, view, pinned->boxes, size_of(d.coding.type), range);
  const bool good =
      patches.size() == 0
          ? gather(view, pinned->boxes, from, d.coding, range, target, coding, pad)
          : gather(view, patches, from, d.coding, range, target, coding, pad) &&
                gather_over(view, pinned->boxes, from, d.coding, range, target, coding);
  if (good) return {};
  return fail(std::errc::io_error, "the elements cannot be read where they lie on disk");
}

Status CubeOnDisk::read(const Pinned& pinned, const View& view, Interval range, std::byte* target,
                        Coding coding) const {
  return gather_all(pinned, view, range, target, coding);
}

void CubeOnDisk::read_mask(const Pinned& pinned, const View& view, Interval range,
                           std::byte* target) const {
  gather_mask(view, pinned->boxes, range, target);
  gather_mask_over(view, patches_of(*pinned.snapshot, *snapshot()), range, target);
}

// ---- Plan ----

// Fills in what has to be done for the changes in `plan`, which are from plan.old to plan.now.
Status CubeOnDisk::plan_changes(const Pinned& pinned, const Pinned& newest, const View& view,
                                Interval range, PokePlan& plan) const {
  const std::size_t size = size_of(pinned->definition.coding.type);
  const std::uint64_t count = range.length();
  const auto differs = [&](std::uint64_t i) {
    return std::memcmp(plan.old.get() + i * size, plan.now.get() + i * size, size) != 0;
  };
  const auto changes_in = [&](std::uint64_t first, std::uint64_t length) {
    return count_changes(plan.old.get() + first * size, plan.now.get() + first * size, length,
                         size);
  };
  std::uint64_t held = 0;      // by boxes,
  std::uint64_t in_boxes = 0;  // and what of them changes
  std::uint64_t last_id = 0;
  std::optional<SlotFinder> finder;  // of the last box; nothing where it is all noted
  for_runs_in_boxes(
      view, pinned->boxes, size, Slots::written, range,
      [&](std::uint64_t stream, std::uint64_t length, std::uint64_t file, const Box& found) {
        const std::uint64_t changes = changes_in(stream, length);
        held += length;
        in_boxes += changes;
        if (changes == 0) return;
        if (found.id != last_id) {
          last_id = found.id;
          // A box that is no more has no row to be noted in.
          const Box* const box = newest->boxes.find(found.id);
          finder.reset();
          if (box != nullptr && (box->committed() & ~box->poked) != 0) finder.emplace(*box);
        }
        if (!finder) return;
        for (std::uint64_t i = 0; i < length;) {
          const std::uint64_t at = file + i * size;
          const std::uint64_t piece = std::min(length - i, (finder->layer_end(at) - at) / size);
          const std::uint64_t bit = std::uint64_t{1} << finder->slot_at(at);
          if ((finder->box().poked & bit) == 0 && changes_in(stream + i, piece) > 0)
            plan.slots[last_id] |= bit;
          i += piece;
        }
      });
  plan.changes = held == count ? in_boxes : changes_in(0, count);
  if (in_boxes == plan.changes) return {};
  plan.held = std::make_unique<std::byte[]>(count);
  gather_mask(view, pinned->boxes, range, plan.held.get());
  const auto patched = std::make_unique<std::byte[]>(count);
  gather_mask(view, patches_of(*pinned.snapshot, *newest.snapshot), range, patched.get());
  const auto is_pad = [&](std::uint64_t i) {
    return plan.held[i] == std::byte{0} && patched[i] == std::byte{0} && differs(i);
  };
  plan.pads = cuboids_of(view, range, is_pad, most_patches);
  for (const ElementCuboid& pad : plan.pads)
    for (std::size_t axis = 0; axis < pad.origin.size(); ++axis)
      if (!newest->axes[axis].position_of(pad.origin[axis]))
        return fail(std::errc::no_such_file_or_directory,
                    "elements that no frame gave cannot be written at an index that is no more");
  return {};
}

// ---- Structure ----

// Slots that the first store is about to change: all frames that came before are to be on disk, and
// known to be. Also after a replacement, which recovery would repeat.
Status CubeOnDisk::sync_before_poke(bool changes_structure) {
  const auto is_due = [&] {
    MutexLock lock(commit_lock_);
    return changes_structure ? last_data_ > durable_ : last_redo_ > durable_;
  };
  if (!is_due()) return {};
  return sync_now(true);
}

// Boxes for elements that nothing holds, with pad in them; nobody sees them yet.
Status CubeOnDisk::make_patches(const Snapshot& pinned, const std::vector<ElementCuboid>& cuboids,
                                std::vector<Box>& made) {
  const DType type = pinned.definition.coding.type;
  const std::size_t size = size_of(type);
  if (cuboids.size() > most_patches)
    return fail(std::errc::no_space_on_device,
                "too many scattered elements that no frame gave, in one step");
  for (const ElementCuboid& cuboid : cuboids) {
    Box box;
    box.origin = cuboid.origin;
    box.extent = cuboid.extent;
    box.layer_axis = cuboid.extent.size() - 1;
    box.slot_layers = box.extent[box.layer_axis];
    ACCRETE_TRY(box, lay_out(box, size));
    box.id = ++last_patch_;
    box.written = 1;
    ACCRETE_TRY(box.file_offset, bricks_->take(box.byte_length()));
    made.push_back(box);
    ACCRETE_CHECK(bricks_->hold_blocks(box.file_offset, box.byte_length()));
    std::vector<std::byte> pads(std::min<std::uint64_t>(box.byte_length(), step_bytes));
    fill(pads.data(), pads.size() / size, pinned.pad_at_rest(), type);
    for (std::uint64_t done = 0; done < box.byte_length(); done += pads.size())
      ACCRETE_CHECK(bricks_->write(
          box.file_offset + done,
          std::span(pads).first(std::min<std::uint64_t>(pads.size(), box.byte_length() - done))));
  }
  return {};
}

// Puts the elements that a plan changes into patches that are new.
Status CubeOnDisk::fill_patches(const std::vector<Box>& patches, std::size_t size, const View& view,
                                Interval range, const PokePlan& plan) const {
  BoxIndex all;
  for (const Box& patch : patches) {
    ACCRETE_TRY(all, all.put(patch));
  }
  if (store_elements(view, all, bricks_->writable_mapping().get(), size, range, plan.old.get(),
                     plan.now.get(), nullptr))
    return {};
  return fail(std::errc::io_error, "elements that no frame gave could not be stored");
}

void CubeOnDisk::drop_patches(Draft& draft) {
  draft.base().patches.for_all([&](const Box& patch) {
    for (std::size_t axis = 0; axis < patch.rank(); ++axis) {
      bool is_used = false;
      for (std::uint64_t i = 0; i < patch.extent[axis] && !is_used; ++i)
        is_used = draft.axes()[axis]
                      .position_of(patch.origin[axis] + static_cast<std::int64_t>(i))
                      .has_value();
      if (is_used) continue;
      draft.remove_patch(patch.id);
      draft.freed.given_back.push_back({patch.file_offset, patch.byte_length()});
      return;
    }
  });
}

// Makes pad again of patches whose elements could not all be stored, and are pad.
void CubeOnDisk::take_back(const std::vector<Box>& patches) {
  if (patches.empty()) return;
  MutexLock lock(commit_lock_);
  (void)change([&](Draft& draft) -> Status {
    for (const Box& patch : patches) {
      if (draft.base().patches.find(patch.id) == nullptr) continue;
      draft.remove_patch(patch.id);
      draft.freed.given_back.push_back({patch.file_offset, patch.byte_length()});
    }
    return {};
  });
}

// Journals what a plan needs, and the redo record of a replacement: durable on return. Without such
// a record where the view is of frames that went, or came back, since: recovery would not find
// their elements.
Status CubeOnDisk::record_poke(const Pinned& pinned, const View& view, Interval range,
                               const PokePlan& plan, const PosixFile* elements,
                               std::vector<Box>& patches) {
  bool is_recorded = false;
  Status synced;
  const Definition& pinned_as = pinned->definition;
  Status status = make_patches(*pinned.snapshot, plan.pads, patches);
  if (status.ok() && plan.old != nullptr)
    status = fill_patches(patches, size_of(pinned_as.coding.type), view, range, plan);
  if (status.ok() && !patches.empty()) synced = bricks_->sync();
  if (status.ok() && synced.ok()) {
    MutexLock lock(commit_lock_);
    bool has_redo = false;
    const std::uint64_t sequence = journal_->sequence();
    const auto describe = [&](Draft& draft) REQUIRES(commit_lock_) -> Status {
      Definition definition = draft.base().definition;
      if (!patches.empty() &&
          (definition.coding != pinned_as.coding || !all_have_indexes(patches, draft.base().axes)))
        return fail(std::errc::no_such_file_or_directory, "the cube has other indexes by now");
      definition.poked_ns = now_ns();
      draft.define(definition);
      for (const auto& [id, slots] : plan.slots) {
        std::optional<Box> box = draft.box(id);
        if (!box) continue;
        // Each note costs a sync of the journal: who comes to a box again will go on.
        box->poked |= box->poked == 0 ? slots & box->committed() : box->committed();
        draft.put(*box);
      }
      for (const Box& patch : patches) draft.put_patch(patch);
      has_redo = elements != nullptr && shows_the_same(draft.base(), *pinned.snapshot, view);
      if (!has_redo) return {};
      Redo redo = Redo::of(view);
      ACCRETE_TRY(const std::uint64_t length, elements->size());
      ACCRETE_TRY(redo.elements, heap_->append(*elements, 0, length));
      // A record that is on disk without its elements would be cut off, after some were stored.
      synced = heap_->sync();
      ACCRETE_CHECK(synced);
      draft.freed.texts.push_back(redo.elements);
      draft.set_redo(std::move(redo));
      return {};
    };
    status = change(describe, true);
    is_recorded = journal_->sequence() != sequence;
    if (is_recorded) synced = status;
    if (is_recorded && has_redo) last_redo_ = journal_->sequence();
  }
  if (!is_recorded)
    for (const Box& patch : std::exchange(patches, {}))
      bricks_->give_back(patch.file_offset, patch.byte_length());
  if (synced.ok()) return status;
  fence(synced.error());
  return synced;
}

// ---- Stores ----

// The elements of a plan. Where they cannot all be stored none is: then `former` remembers also
// what was shown for a moment.
Status CubeOnDisk::store(const Pinned& pinned, const View& view, Interval range,
                         const PokePlan& plan, RecentValues::Ticket& former) {
  const std::size_t size = size_of(pinned->definition.coding.type);
  const Pinned newest = pin();
  const std::shared_ptr<std::byte> mapping = bricks_->writable_mapping();
  const auto put = [&](const std::byte* from, const std::byte* to) {
    const Stillness::Change change(*stillness_);
    bool good = store_elements(view, pinned->boxes, mapping.get(), size, range, from, to, nullptr);
    if (plan.held != nullptr)
      good = store_elements(view, patches_of(*pinned.snapshot, *newest.snapshot), mapping.get(),
                            size, range, from, to, plan.held.get()) &&
             good;
    return good;
  };
  const bool good = put(plan.old.get(), plan.now.get());
  if (!good) {
    add(former, recent_.remember(view, range, {plan.now, plan.old, size, PokeOrigin{}}));
    put(plan.now.get(), plan.old.get());
  }
  // Not before: a sync that begins meanwhile would take it for done.
  poked_ns_ = now_ns();
  poked_ = true;
  if (good) return {};
  return fail(std::errc::no_space_on_device,
              "the disk is full, or could not be read, where the elements lie");
}

// Takes back what a page has of values that were others a moment ago.
void CubeOnDisk::drop_stale(const View& view, Interval range, const ElementEdit& edit,
                            PokeOrigin origin, std::size_t size, const PokePlan& plan) const {
  for (std::uint64_t i = 0; i < range.length(); ++i) {
    const std::byte* const old = plan.old.get() + i * size;
    std::byte* const now = plan.now.get() + i * size;
    if (std::memcmp(old, now, size) == 0) continue;
    const bool is_stale =
        recent_.had(view.coordinates_of(range.begin + i), origin,
                    [&](const std::byte* element) { return edit.leaves(i, element); });
    if (is_stale) std::memcpy(now, old, size);
  }
}

Status CubeOnDisk::poke(const Pinned& pinned, const View& view, Interval range, ElementEdit& edit,
                        PokeOrigin origin, RecentValues::Ticket& former) {
  return step_making_room([&] { return try_poke(pinned, view, range, edit, origin, former); });
}

Status CubeOnDisk::try_poke(const Pinned& pinned, const View& view, Interval range,
                            ElementEdit& edit, PokeOrigin origin, RecentValues::Ticket& former) {
  const Coding coding = pinned->definition.coding;
  const std::size_t size = size_of(coding.type);
  const std::uint64_t bytes = range.length() * size;
  PokePlan plan;
  plan.old = bytes_of(bytes);
  plan.now = bytes_of(bytes);
  MutexLock poking(poke_lock_);
  ACCRETE_CHECK(writable());
  ACCRETE_CHECK(gather_all(pinned, view, range, plan.old.get(), coding));
  ACCRETE_CHECK(edit.apply(plan.old.get(), plan.now.get()));
  // Where something is being told, these elements may not be known everywhere as they are.
  const bool is_told = recent_.empty();
  if (origin.is_page() && !is_told) drop_stale(view, range, edit, origin, size, plan);
  ACCRETE_CHECK(plan_changes(pinned, pin(), view, range, plan));
  if (plan.changes == 0 && is_told) return {};
  if (plan.changes != 0) ACCRETE_CHECK(sync_before_poke(plan.changes_structure()));
  // Not later: patches show what they have as soon as they are recorded.
  add(former, recent_.remember(view, range, {plan.old, plan.now, size, origin}));
  if (plan.changes == 0) return {};
  std::vector<Box> patches;
  if (plan.changes_structure()) {
    // An error of the disk is told once: to whoever syncs, who must not be beside another.
    MutexLock syncing(sync_lock_);
    ACCRETE_CHECK(writable());
    ACCRETE_CHECK(record_poke(pinned, view, range, plan, nullptr, patches));
  }
  const Status stored = store(pinned, view, range, plan, former);
  if (!stored.ok()) take_back(patches);
  return stored;
}

RecentValues::Ticket CubeOnDisk::remember_values() {
  return recent_.remember(pin());
}

// ---- Replacement ----

// Calls body(range, plan) for pieces of the whole view, with what they are and shall be.
Status CubeOnDisk::for_pieces(const Pinned& pinned, const View& view, const PosixFile& elements,
                              const std::function<Status(Interval, PokePlan&)>& body) const {
  const Coding coding = pinned->definition.coding;
  const std::size_t size = size_of(coding.type);
  const std::uint64_t step = step_bytes / size;
  const std::uint64_t count = view.element_count();
  for (std::uint64_t done = 0; done < count; done += step) {
    const Interval range{done, std::min(count, done + step)};
    const std::uint64_t bytes = range.length() * size;
    PokePlan plan;
    plan.old = bytes_of(bytes);
    plan.now = bytes_of(bytes);
    ACCRETE_CHECK(gather_all(pinned, view, range, plan.old.get(), coding));
    ACCRETE_TRY(const std::size_t n, elements.read(done * size, {plan.now.get(), bytes}));
    if (n < bytes) return fail(std::errc::io_error, "the new elements are cut off");
    ACCRETE_CHECK(body(range, plan));
  }
  return {};
}

Status CubeOnDisk::replace(const Pinned& pinned, const View& view, const PosixFile& elements,
                           RecentValues::Ticket& former) {
  return step_making_room([&] { return try_replace(pinned, view, elements, former); });
}

Status CubeOnDisk::try_replace(const Pinned& pinned, const View& view, const PosixFile& elements,
                               RecentValues::Ticket& former) {
  const std::size_t size = size_of(pinned->definition.coding.type);
  const std::uint64_t bytes = view.element_count() * size;
  const Interval whole{0, view.element_count()};
  MutexLock poking(poke_lock_);
  ACCRETE_CHECK(writable());
  // What can be known to fail comes before the record. The former values lie in a file, since they
  // may be more than fits into memory.
  ACCRETE_TRY(const PosixFile kept, PosixFile::unnamed_in(directory_));
  ACCRETE_CHECK(kept.allocate(0, bytes, true));
  PokePlan all;
  ACCRETE_CHECK(for_pieces(pinned, view, elements, [&](Interval range, PokePlan& plan) -> Status {
    ACCRETE_CHECK(kept.write(range.begin * size, {plan.old.get(), range.length() * size}));
    ACCRETE_CHECK(plan_changes(pinned, pin(), view, range, plan));
    all.changes += plan.changes;
    for (const auto& [id, slots] : plan.slots) all.slots[id] |= slots;
    all.pads.insert(all.pads.end(), plan.pads.begin(), plan.pads.end());
    return {};
  }));
  if (all.changes == 0 && recent_.empty()) return {};
  ACCRETE_TRY(const auto kept_values, map_shared(kept, bytes));
  ACCRETE_TRY(const auto new_values, map_shared(elements, bytes));
  if (all.changes != 0) ACCRETE_CHECK(sync_before_poke(true));
  const auto told = all.changes == 0 ? kept_values : nullptr;
  add(former, recent_.remember(view, whole, {kept_values, told, size, PokeOrigin{}}));
  if (all.changes == 0) return {};
  const auto store_all = [&](const PosixFile& from) REQUIRES(poke_lock_) {
    return for_pieces(pinned, view, from,
                      [&](Interval range, PokePlan& plan) REQUIRES(poke_lock_) -> Status {
                        ACCRETE_CHECK(plan_changes(pinned, pin(), view, range, plan));
                        if (plan.changes == 0) return {};
                        return store(pinned, view, range, plan, former);
                      });
  };
  Status stored;
  std::vector<Box> patches;
  {
    MutexLock syncing(sync_lock_);  // no mark may cover the record before all is stored
    ACCRETE_CHECK(record_poke(pinned, view, {}, all, &elements, patches));
    stored = store_all(elements);
    if (!stored.ok()) {
      add(former, recent_.remember(view, whole, {new_values, kept_values, size, PokeOrigin{}}));
      (void)store_all(kept);  // up to the piece that failed, which is as it was
    }
  }
  if (stored.ok()) return {};
  take_back(patches);
  (void)sync_now(true);  // a mark, or recovery would store them after all
  return stored;
}

}  // namespace accrete
