#include "core/cube_on_disk.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

#include "core/checksum.h"
#include "core/linearize.h"
#include "core/row_codec.h"

namespace accrete {

namespace {

constexpr std::uint64_t closing_checkpoint_step = 256 << 10;  // bytes of journal

// What a record has to leave of the journal's reserve.
std::uint64_t kept_by(const Snapshot& before, const Snapshot& after, const Delta& delta,
                      const FreedSpace& freed) {
  if (after.frames.count() > before.frames.count() || delta.redo) return kept_from_growth;
  if (!freed.cleared.empty() || !freed.given_back.empty()) return kept_from_discard;
  const bool moves =
      std::any_of(delta.frames.begin(), delta.frames.end(), [&](const FrameRow& row) {
        const auto old = before.frames.find(row.id);
        return old && old->state != row.state;
      });
  return moves ? kept_from_removal : kept_from_growth;
}

}  // namespace

bool says_full(const Error& error) {
  return error.number() == ENOSPC || error.number() == EDQUOT || error.number() == EFBIG;
}

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

CubeOnDisk::CubeOnDisk(PosixFile directory, std::string name, const Limits& limits, CubeHost& host)
    : directory_(std::move(directory)), limits_(limits), host_(host), name_(std::move(name)) {}

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

Status CubeOnDisk::retire() {
  MutexLock lock(commit_lock_);
  if (has_ingests() || !snapshot()->places.empty())
    return fail(std::errc::directory_not_empty, "the cube holds frames, live or removed");
  retired_ = true;
  return {};
}

Status CubeOnDisk::writable() const {
  if (retired_) return fail(std::errc::no_such_file_or_directory, "the cube was removed");
  if (!read_only_) return {};
  return fail(std::errc::read_only_file_system,
              "the cube is read-only after an error of the disk (see history)");
}

Status CubeOnDisk::publish(Draft draft, bool durably) {
  ACCRETE_CHECK(writable());
  const std::shared_ptr<const Snapshot> before = snapshot();
  const Delta delta = std::move(draft).finish();
  ACCRETE_TRY(const std::shared_ptr<const Snapshot> next, apply(*before, delta, &draft.axes()));
  ByteWriter body;
  encode(body, delta);
  ACCRETE_CHECK(journal_->append(RecordKind::delta, body.bytes(),
                                 kept_by(*before, *next, delta, draft.freed)));
  if (durably) {
    const Status synced = journal_->sync();
    if (!synced.ok()) read_only_ = true;  // at once: nobody may build on what leaves it out
    ACCRETE_CHECK(synced);
  }
  // A look-up between the two finds a frame by the old name or by the new one, not by neither.
  for (const FrameRow& row : delta.frames) add_name(row);
  for (const FrameRow& row : delta.frames) {
    const auto old = before->frames.find(row.id);
    const FrameState from = old ? old->state : FrameState::gone;
    if (!coverage_ || from == row.state) continue;
    if (const auto runs = frame_runs(row); runs.ok())
      coverage_ = coverage_->moved(*runs, from, row.state);
    else
      coverage_.reset();
  }
  last_delta_ = journal_->sequence();
  if (!delta.frames.empty() || delta.redo) last_data_ = last_delta_;
  if (!draft.freed.empty()) {
    draft.freed.generation = next->generation;
    draft.freed.sequence = journal_->sequence();
    freed_.push_back(std::move(draft.freed));
  }
  // Views are as old as what they show: the newest frame's arrival, so that a remount agrees.
  if (next->frames.count() > before->frames.count())
    changed_ns_ = next->frames.find(next->frames.count())->arrival_ns;
  else if (delta.definition || !delta.edits.empty() || !delta.boxes.empty() ||
           !delta.arrangements.empty())
    changed_ns_ = now_ns();
  // Before the snapshot: who finds this one after it has asked what is common finds no older.
  for (const FrameRow& row : delta.frames) count_facts(*before, row);
  set_snapshot(next);
  for (const FrameRow& row : delta.frames)
    if (const auto old = before->frames.find(row.id)) drop_name(*old, row);
  return {};
}

// ---- Durability ----

void CubeOnDisk::sync(SyncDone done) {
  host_.request_sync(shared_from_this(), std::move(done));
}

bool CubeOnDisk::is_dirty() const {
  MutexLock lock(commit_lock_);
  return !read_only_ && (last_delta_ > durable_ || poked_ || !freed_.empty());
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

void CubeOnDisk::note_time_of_pokes() {
  const std::shared_ptr<const Snapshot> now = snapshot();
  if (now->definition.poked_ns >= poked_ns_) return;
  Draft draft(*now);
  Definition definition = now->definition;
  definition.poked_ns = poked_ns_;
  draft.define(definition);
  (void)publish(std::move(draft));  // else after the next poke
}

Status CubeOnDisk::sync_now(bool needs_mark) {
  MutexLock syncing(sync_lock_);
  ACCRETE_CHECK(writable());
  std::uint64_t sequence = 0;
  std::uint64_t end = 0;
  std::uint64_t frames = 0;
  const bool poked = poked_.exchange(false);
  {
    MutexLock lock(commit_lock_);
    if (poked) note_time_of_pokes();
    if (last_delta_ > durable_) {
      sequence = journal_->sequence();
      end = journal_->end();
      frames = snapshot()->frames.count();
    }
  }
  if (end == 0 && !poked) {
    reuse_freed();
    return {};
  }
  // Commits go on meanwhile; only a holder of sync_lock_ replaces the journal.
  Status status = sync_files();
  if (status.ok() && end > 0) {
    MutexLock lock(commit_lock_);
    status = mark(sequence, end, frames);
    // All is on disk: without the mark recovery only has to look at the data. It is tried again.
    if (!status.ok() && says_full(status.error())) return needs_mark ? status : Status();
  }
  if (!status.ok()) {
    fence(status.error());
    return status;
  }
  reuse_freed();
  rotate_if_due(std::max(host_.checkpoint_step(), checkpoint_bytes_));
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

bool CubeOnDisk::make_room(const Error& full, std::uint64_t since) {
  // A file that may not grow is no matter of the disk.
  if (full.number() != EFBIG) host_.release_held();
  bool has_freed = false;
  {
    MutexLock lock(commit_lock_);
    has_freed = !freed_.empty();
  }
  if (has_freed) (void)sync_now();
  return host_.room_made() != since;
}

void CubeOnDisk::release_held() {
  MutexLock lock(commit_lock_);
  if (growth_->release_held()) host_.note_room_made();
}

Status CubeOnDisk::step_making_room(const std::function<Status()>& step) {
  const std::uint64_t since = room_made();
  Status status = step();
  if (status.ok() || !says_full(status.error()) || !make_room(status.error(), since)) return status;
  return step();
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
    for (const HeapRef& text : freed.texts) (void)heap_->discard(text);
  }
  host_.note_room_made();
}

// A journal that another one follows ends with everything in it durable, its last mark included:
// the next one's header names that record, and recovery goes on only where the two agree.
Result<bool> CubeOnDisk::begin_next_journal() {
  ACCRETE_CHECK(sync_files());
  if (last_delta_ > durable_) {
    const Status marked = mark(journal_->sequence(), journal_->end(), snapshot()->frames.count());
    if (!marked.ok() && says_full(marked.error())) return false;
    ACCRETE_CHECK(marked);
    ACCRETE_CHECK(journal_->sync());
  }
  auto next = Journal::create(directory_, facts_.cube, journal_->generation() + 1,
                              journal_->sequence(), journal_->chain());
  if (!next.ok()) return false;
  journal_ = std::move(next).value();
  // Not the snapshot itself, which would hold back all space that is set free from now on.
  rotated_ = std::make_shared<const Snapshot>(*snapshot());
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
    rotate_if_due(std::min(host_.checkpoint_step(), closing_checkpoint_step));
  }
  {
    // Bytes of a stream that still comes in, or of frames that somebody still looks at, are in the
    // way of the next run: it has to clear them.
    MutexLock lock(commit_lock_);
    if (read_only_ || has_ingests() || last_delta_ > durable_ || !freed_.empty()) return;
  }
  if (bricks_->has_leftovers()) return;
  if (PosixFile::open_at(directory_, clean_note, O_WRONLY | O_CREAT, 0600).ok())
    (void)directory_.sync_all();
}

}  // namespace accrete
