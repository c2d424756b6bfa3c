#include "core/cube_on_disk.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

#include "core/checksum.h"
#include "core/linearize.h"
#include "core/row_codec.h"

namespace accrete {

namespace {

constexpr std::uint64_t least_checkpoint_step = 4 << 20;  // bytes of journal
constexpr std::uint64_t closing_checkpoint_step = 256 << 10;

bool is_full(const Error& error) {
  return error.number() == ENOSPC || error.number() == EDQUOT || error.number() == EFBIG;
}

}  // namespace

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

void LiveGenerations::add(std::uint64_t generation) {
  MutexLock lock(mutex_);
  generations_.insert(generation);
}

void LiveGenerations::remove(std::uint64_t generation) {
  MutexLock lock(mutex_);
  generations_.erase(generations_.find(generation));
}

std::uint64_t LiveGenerations::oldest() const {
  MutexLock lock(mutex_);
  return generations_.empty() ? ~std::uint64_t{0} : *generations_.begin();
}

CubeOnDisk::CubeOnDisk(PosixFile directory, std::string name, const Limits& limits,
                       SyncQueue& syncs)
    : directory_(std::move(directory)), limits_(limits), syncs_(syncs), name_(std::move(name)) {}

CubeOnDisk::~CubeOnDisk() = default;

Status CubeOnDisk::make(const PosixFile& directory, std::uint64_t uid) {
  const CheckpointFacts facts{uid, now_ns(), 0, 0};
  ACCRETE_TRY(const Journal journal, Journal::create(directory, uid, 1, 0, 0));
  for (const char* name : {"bricks", "heap", "history"}) {
    ACCRETE_TRY(const PosixFile file, PosixFile::open_at(directory, name, O_RDWR | O_CREAT, 0600));
  }
  auto rows = write_checkpoint(directory, 1, facts, Snapshot{});
  return rows.ok() ? Status() : Status(rows.error());
}

std::string CubeOnDisk::name() const {
  MutexLock lock(publish_lock_);
  return name_;
}

void CubeOnDisk::rename(std::string name) {
  MutexLock lock(publish_lock_);
  name_ = std::move(name);
}

// ---- Snapshots ----

std::shared_ptr<const Snapshot> CubeOnDisk::snapshot() const {
  MutexLock lock(publish_lock_);
  return snapshot_;
}

Pinned CubeOnDisk::pin() const {
  // The mapping is taken after the snapshot, so it reaches to all of its boxes.
  Pinned pinned;
  pinned.snapshot = snapshot();
  pinned.mapping = bricks_->mapping();
  return pinned;
}

// The pointer that is handed out counts the generation as live until its last holder lets go.
void CubeOnDisk::set_snapshot(std::shared_ptr<const Snapshot> snapshot) {
  live_->add(snapshot->generation);
  const Snapshot* const raw = snapshot.get();
  std::shared_ptr<const Snapshot> counted(
      raw, [snapshot = std::move(snapshot), live = live_](const Snapshot* held) mutable {
        const std::uint64_t generation = held->generation;
        snapshot.reset();
        live->remove(generation);
      });
  MutexLock lock(publish_lock_);
  snapshot_.swap(counted);
}

void CubeOnDisk::set_listener(std::function<void()> listener) {
  MutexLock lock(publish_lock_);
  listener_ = std::move(listener);
}

void CubeOnDisk::announce() {
  std::function<void()> listener;
  {
    MutexLock lock(publish_lock_);
    listener = listener_;
  }
  if (listener) listener();
}

Status CubeOnDisk::writable() const {
  if (!read_only_) return {};
  return fail(std::errc::read_only_file_system,
              "the cube is read-only after an error of the disk (see history)");
}

Status CubeOnDisk::publish(const Delta& delta, FreedSpace freed) {
  ACCRETE_CHECK(writable());
  const std::shared_ptr<const Snapshot> before = snapshot();
  ACCRETE_TRY(const std::shared_ptr<const Snapshot> next, apply(*before, delta));
  ByteWriter body;
  encode(body, delta);
  ACCRETE_CHECK(journal_->append(RecordKind::delta, body.bytes()));
  {
    MutexLock lock(names_lock_);
    for (const FrameRow& row : delta.frames) {
      const auto old = before->frames.find(row.id);
      const std::uint64_t hash = old ? old->name_hash : row.name_hash;
      for (auto [it, end] = names_.equal_range(hash); it != end; ++it)
        if (it->second == row.id) {
          names_.erase(it);
          break;
        }
      if (row.state == FrameState::live) names_.emplace(row.name_hash, row.id);
    }
  }
  last_delta_ = journal_->sequence();
  if (!freed.cleared.empty() || !freed.given_back.empty()) {
    freed.generation = next->generation;
    freed.sequence = journal_->sequence();
    freed_.push_back(std::move(freed));
  }
  // Views are as old as what they show: the newest frame's arrival, so that a remount agrees.
  if (next->frames.count() > before->frames.count())
    changed_ns_ = next->frames.find(next->frames.count())->arrival_ns;
  else if (delta.definition || !delta.edits.empty() || !delta.boxes.empty())
    changed_ns_ = now_ns();
  set_snapshot(next);
  return {};
}

void CubeOnDisk::retire(const Snapshot& snapshot, FrameRow row, Delta& delta, FreedSpace& freed) {
  const std::size_t g = row.grow_axis;
  row.state = FrameState::gone;
  delta.frames.push_back(row);
  Axis axis = snapshot.axes[g];
  for (std::uint64_t done = 0; done < row.extent[g];) {
    const std::int64_t coordinate = row.first[g] + static_cast<std::int64_t>(done);
    const auto at = axis.logical(coordinate);
    if (!at) {
      ++done;
      continue;
    }
    const std::uint64_t rest = std::min(row.extent[g] - done, axis.extent() - *at);
    const std::uint64_t length = axis.runs({*at, *at + rest}).front().length;
    delta.edits.push_back({static_cast<std::uint8_t>(g), true, *at, {coordinate, length}});
    axis = axis.erase({*at, *at + length}).value();
    done += length;
  }
  // Its boxes, and no others, hold the line along the grown axis through its first element.
  Shape line(row.extent.size(), 1);
  line[g] = row.extent[g];
  snapshot.boxes.for_overlapping(row.first, line, [&](const Box& found) {
    Box box = found;
    std::uint64_t slot = 0;
    std::uint64_t slots = 1;
    if (box.slots() > 1) {
      const std::int64_t begin = std::max(row.first[g], box.origin[g]);
      const std::int64_t end = std::min(row.first[g] + static_cast<std::int64_t>(row.extent[g]),
                                        box.origin[g] + static_cast<std::int64_t>(box.extent[g]));
      slot = static_cast<std::uint64_t>(begin - box.origin[g]);
      slots = static_cast<std::uint64_t>(end - begin);
    }
    for (std::uint64_t s = slot; s < slot + slots; ++s) box.written &= ~(std::uint64_t{1} << s);
    if (box.slots() == 1) {
      delta.removed_boxes.push_back(box.id);
      freed.given_back.push_back({box.file_offset, box.byte_length()});
    } else {
      delta.boxes.push_back(box);
      for_slot_ranges(box, slot, slots, [&](std::uint64_t offset, std::uint64_t length) {
        freed.cleared.push_back({offset, length});
      });
    }
  });
}

// ---- Frames ----

void CubeOnDisk::index_names(const Snapshot& snapshot) {
  std::unordered_multimap<std::uint64_t, FrameId> names;
  names.reserve(snapshot.places.size());
  snapshot.places.for_range(0, snapshot.places.size(), [&](const Snapshot::Place& place) {
    if (const auto row = snapshot.frames.find(place.id)) names.emplace(row->name_hash, row->id);
  });
  MutexLock lock(names_lock_);
  names_.swap(names);
}

std::optional<FrameId> CubeOnDisk::find_frame(std::string_view name) const {
  const std::shared_ptr<const Snapshot> now = snapshot();
  std::vector<FrameId> candidates;
  {
    MutexLock lock(names_lock_);
    for (auto [it, end] = names_.equal_range(checksum(as_bytes(name))); it != end; ++it)
      candidates.push_back(it->second);
  }
  for (const FrameId id : candidates)
    if (const auto row = now->frames.find(id);
        row && row->state == FrameState::live && frame_name(*row) == name)
      return id;
  return std::nullopt;
}

std::string CubeOnDisk::frame_name(const FrameRow& row) const {
  auto name = heap_->read(row.name);
  return name.ok() ? std::move(name).value() : "frame-" + std::to_string(row.id);
}

Result<std::string> CubeOnDisk::frame_prefix(const FrameRow& row) const {
  return heap_->read(row.prefix);
}

Result<std::string> CubeOnDisk::frame_suffix(const FrameRow& row) const {
  return heap_->read(row.suffix);
}

Result<View> CubeOnDisk::frame_view(const FrameRow& row) const {
  ACCRETE_TRY(const std::string runs, heap_->read(row.runs));
  return accrete::frame_view(row, as_bytes(runs));
}

std::vector<std::string> CubeOnDisk::frame_cards(const FrameRow& row) const {
  const auto prefix = heap_->read(row.prefix);
  if (!prefix.ok()) return {};
  return format(row.layout.format).cards(as_bytes(*prefix), row.layout);
}

Status CubeOnDisk::set_frame_attributes(FrameId id, std::optional<std::int64_t> mtime_ns,
                                        std::optional<std::uint32_t> mode,
                                        std::optional<std::uint32_t> uid,
                                        std::optional<std::uint32_t> gid) {
  MutexLock lock(commit_lock_);
  const std::shared_ptr<const Snapshot> before = snapshot();
  auto row = before->frames.find(id);
  if (!row) return fail(std::errc::no_such_file_or_directory, "there is no such frame");
  row->mtime_ns = mtime_ns.value_or(row->mtime_ns);
  row->mode = mode.value_or(row->mode);
  row->uid = uid.value_or(row->uid);
  row->gid = gid.value_or(row->gid);
  Delta delta;
  delta.frames.push_back(*row);
  return publish(delta);
}

// ---- Reading ----

Status CubeOnDisk::read(const Pinned& pinned, const View& view, Interval range, std::byte* target,
                        Coding coding) const {
  const Definition& d = pinned->definition;
  Element pad;
  recode(pad.bytes.data(), d.pad.bytes.data(), 1, native(coding.type), coding);
  gather(view, pinned->boxes, pinned.mapping.get(), d.coding, range, target, coding, pad);
  return {};
}

// ---- Durability ----

void CubeOnDisk::sync(SyncDone done) {
  syncs_.request(shared_from_this(), std::move(done));
}

bool CubeOnDisk::is_dirty() const {
  MutexLock lock(commit_lock_);
  return !read_only_ && (last_delta_ > durable_ || !freed_.empty());
}

Status CubeOnDisk::sync_files() const {
  ACCRETE_CHECK(bricks_->sync());
  ACCRETE_CHECK(heap_->sync());
  return journal_->sync();
}

Status CubeOnDisk::sync_journal() const {
  return journal_->sync();
}

Status CubeOnDisk::mark(std::uint64_t sequence, std::uint64_t end, std::uint64_t frames) {
  // The mark itself need not be durable: without it recovery checks what it vouches for. Unless
  // space of that is reused: then there is nothing left to check, see reuse_freed().
  ACCRETE_CHECK(journal_->append_mark(end));
  durable_ = sequence;
  durable_frames_ = frames;
  return {};
}

Status CubeOnDisk::sync_now() {
  MutexLock syncing(sync_lock_);
  ACCRETE_CHECK(writable());
  std::uint64_t sequence = 0;
  std::uint64_t end = 0;
  std::uint64_t frames = 0;
  {
    MutexLock lock(commit_lock_);
    if (last_delta_ > durable_) {
      sequence = journal_->sequence();
      end = journal_->end();
      frames = snapshot()->frames.count();
    }
  }
  if (end == 0) {
    reuse_freed();
    return {};
  }
  // Commits go on meanwhile; only a holder of sync_lock_ replaces the journal.
  Status status = sync_files();
  if (status.ok()) {
    MutexLock lock(commit_lock_);
    status = mark(sequence, end, frames);
    // All is on disk: without the mark recovery only has to look at the data. It is tried again.
    if (!status.ok() && is_full(status.error())) return {};
  }
  if (!status.ok()) {
    fence(status.error());
    return status;
  }
  reuse_freed();
  rotate_if_due(std::max(least_checkpoint_step, checkpoint_bytes_));
  return {};
}

// What fsync reported once may be lost for ever though later calls succeed; so nothing more is
// written, and what was not known to be on disk is named.
void CubeOnDisk::fence(const Error& error) {
  read_only_ = true;
  history_->record({"fence", "", std::nullopt, error.number(),
                    "the cube is read-only until it is mounted again: " + error.sentence});
  std::uint64_t durable = 0;
  {
    MutexLock lock(commit_lock_);
    durable = durable_frames_;
  }
  const std::shared_ptr<const Snapshot> now = snapshot();
  for (FrameId id = durable + 1; id <= now->frames.count(); ++id)
    if (const auto row = now->frames.find(id); row && row->state == FrameState::live)
      history_->record({"unsynced", frame_name(*row), std::nullopt, error.number(),
                        "may be lost: it came after the last sync"});
}

void CubeOnDisk::reuse_freed() {
  std::deque<FreedSpace> ready;
  const std::uint64_t oldest = live_->oldest();
  {
    MutexLock lock(commit_lock_);
    while (!freed_.empty() && freed_.front().sequence <= durable_ &&
           freed_.front().generation <= oldest) {
      ready.push_back(std::move(freed_.front()));
      freed_.pop_front();
    }
  }
  // Without a mark recovery would look for the data of the frames that are gone, in vain, and cut
  // the journal there.
  if (ready.empty()) return;
  if (const Status synced = sync_journal(); !synced.ok()) return fence(synced.error());
  for (const FreedSpace& freed : ready) {
    for (const BrickFile::Range& range : freed.cleared)
      (void)bricks_->clear(range.offset, range.length);
    for (const BrickFile::Range& range : freed.given_back)
      bricks_->give_back(range.offset, range.length);
  }
}

// A journal that another one follows ends with everything in it durable, its last mark included:
// the next one's header names that record, and recovery goes on only where the two agree.
Result<bool> CubeOnDisk::begin_next_journal() {
  ACCRETE_CHECK(sync_files());
  if (last_delta_ > durable_) {
    const Status marked = mark(journal_->sequence(), journal_->end(), snapshot()->frames.count());
    if (!marked.ok() && is_full(marked.error())) return false;
    ACCRETE_CHECK(marked);
    ACCRETE_CHECK(journal_->sync());
  }
  auto next = Journal::create(directory_, facts_.cube, journal_->generation() + 1,
                              journal_->sequence(), journal_->chain());
  if (!next.ok()) return false;
  journal_ = std::move(next).value();
  rotated_ = snapshot();
  return true;
}

// Replaces a long journal by a checkpoint and a new journal. Commits go on while the checkpoint is
// written; a crash meanwhile finds the older checkpoint and both journals. A failure leaves
// everything as it is: it is tried again after the next sync.
void CubeOnDisk::rotate_if_due(std::uint64_t step) {
  std::uint64_t generation = 0;
  CheckpointFacts facts = facts_;
  std::shared_ptr<const Snapshot> base;
  Result<bool> begun = true;
  {
    MutexLock lock(commit_lock_);
    if (journal_->generation() == checkpoint_generation_) {
      if (journal_->end() < step) return;
      begun = begin_next_journal();
    }
    generation = journal_->generation();
    facts.sequence = journal_->start_sequence();
    facts.chain = journal_->start_chain();
    base = rotated_;
  }
  if (!begun.ok()) fence(begun.error());
  if (!begun.ok() || !*begun) return;
  const auto rows = write_checkpoint(directory_, generation, facts, *base);
  if (!rows.ok()) return;
  {
    MutexLock lock(commit_lock_);
    auto next = std::make_shared<Snapshot>(*snapshot());
    next->frames = next->frames.rebased(rows->rows, base->frames);
    set_snapshot(std::move(next));
    rotated_.reset();
  }
  const std::uint64_t previous = std::exchange(checkpoint_generation_, generation);
  checkpoint_bytes_ = rows->bytes;
  for (std::uint64_t old = previous; --old > 0;) {
    const bool journal = unlink_at(directory_, journal_name(old), false).ok();
    const bool checkpoint = unlink_at(directory_, checkpoint_name(old), false).ok();
    if (!journal && !checkpoint) break;
  }
}

void CubeOnDisk::close() {
  if (read_only_ || !sync_now().ok()) return;
  {
    MutexLock syncing(sync_lock_);
    rotate_if_due(closing_checkpoint_step);
  }
  {
    // Bytes of a stream that still comes in, or of frames that somebody still looks at, are in the
    // way of the next run: it has to clear them.
    MutexLock lock(commit_lock_);
    if (read_only_ || has_ingests() || last_delta_ > durable_ || !freed_.empty()) return;
  }
  if (PosixFile::open_at(directory_, clean_note, O_WRONLY | O_CREAT, 0600).ok())
    (void)directory_.sync_all();
}

}  // namespace accrete
