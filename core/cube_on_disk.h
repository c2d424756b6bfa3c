// The one implementation of Cube: its files, its current snapshot, and the commit lock.
//
// Lock order: an ingest's lock, or poke_lock_ → sync_lock_; → commit_lock() → {publish lock, names
// lock}; below them only the leaf locks inside BrickFile, History, RecentValues. No lock is held
// while a SyncDone runs.
#pragma once

#include <deque>
#include <set>
#include <unordered_map>

#include "core/brick_file.h"
#include "core/checkpoint.h"
#include "core/coverage.h"
#include "core/cube.h"
#include "core/definition.h"
#include "core/draft.h"
#include "core/growth.h"
#include "core/heap_file.h"
#include "core/history.h"
#include "core/journal.h"
#include "core/mutex.h"
#include "core/unpacker.h"

namespace accrete {

// The generations of snapshots that somebody still holds.
class LiveGenerations {
 public:
  void add(std::uint64_t generation) EXCLUDES(mutex_);
  void remove(std::uint64_t generation) EXCLUDES(mutex_);
  std::uint64_t oldest() const EXCLUDES(mutex_);  // ~0 when there is none

 private:
  mutable Mutex mutex_;
  std::multiset<std::uint64_t> generations_ GUARDED_BY(mutex_);
};

// ENOSPC, EDQUOT, or EFBIG of a file that may not grow: another try may succeed when space has been
// made free.
bool says_full(const Error& error);

// What cubes have of their store.
class CubeHost {
 public:
  virtual ~CubeHost() = default;
  // A sync, on the store's thread.
  virtual void request_sync(std::shared_ptr<class CubeOnDisk> cube, SyncDone done) = 0;
  virtual Unpacker& unpacker() = 0;
  virtual std::uint64_t checkpoint_step() const = 0;  // bytes of journal that make one due
  // Frees what any cube holds of the disk for frames to come.
  virtual void release_held() = 0;
  // How often a cube has made room on the disk. Who finds that it has changed tries again.
  std::uint64_t room_made() const { return room_made_; }
  void note_room_made() { ++room_made_; }

 private:
  std::atomic<std::uint64_t> room_made_ = 0;
};

class CubeOnDisk final : public Cube, public std::enable_shared_from_this<CubeOnDisk> {
 public:
  // Makes the files of a new cube in an empty directory; durable on return.
  static Status make(const PosixFile& directory, std::uint64_t uid);
  // Opens and recovers. A cube that is damaged before its last mark opens read-only. Without
  // `may_write` nothing on the disk is changed, and the cube is read-only.
  static Result<std::shared_ptr<CubeOnDisk>> open(PosixFile directory, std::string name,
                                                  const Limits& limits, CubeHost& host,
                                                  bool may_write);
  ~CubeOnDisk() override;

  // ---- Cube ----
  std::string name() const override;
  std::uint64_t uid() const override { return facts_.cube; }
  Pinned pin() const override;
  Result<std::shared_ptr<Ingest>> begin_ingest(IngestRequest request) override;
  std::optional<FrameId> find_frame(std::string_view name) const override;
  std::optional<FrameId> find_removed(std::string_view name) const override;
  std::string frame_name(const FrameRow& row) const override;
  Result<Headers> frame_headers(const FrameRow& row) const override;
  Status read_text(const HeapRef& text, std::uint64_t offset,
                   std::span<std::byte> target) const override;
  Result<View> frame_view(const FrameRow& row) const override;
  Result<FrameRuns> frame_runs(const FrameRow& row) const override;
  Result<Pinned> show_removed(const Pinned& pinned, const FrameRow& row) const override;
  std::vector<std::string> frame_cards(const FrameRow& row) const override;
  Status set_frame_prefix(FrameId id, const HeapRef& base, const TextChanges& changes) override
      EXCLUDES(commit_lock_);
  Status set_frame_cards(FrameId id, const std::vector<std::string>& cards) override
      EXCLUDES(commit_lock_);
  std::shared_ptr<const CommonCards> common_cards() override EXCLUDES(commit_lock_);
  Status set_frame_attributes(FrameId id, std::optional<std::int64_t> mtime_ns,
                              std::optional<std::uint32_t> mode, std::optional<std::uint32_t> uid,
                              std::optional<std::uint32_t> gid) override;
  Status rename_frame(std::string_view from, std::string_view to) override;
  Status remove_frame(std::string_view name, std::string_view to) override;
  Status restore_frame(std::string_view name, std::string_view to) override;
  Status discard_frame(std::string_view name) override;
  Result<std::string> property(std::string_view name) const override;
  using Cube::set_property;
  Status set_property(std::string_view name, std::string_view text, bool append) override;
  Status read(const Pinned& pinned, const View& view, Interval range, std::byte* target,
              Coding coding) const override;
  void read_mask(const Pinned& pinned, const View& view, Interval range,
                 std::byte* target) const override;
  bool has_patches(const Pinned& pinned) const override {
    return pinned->patches.size() > 0 || snapshot()->patches.size() > 0;
  }
  Stillness::Hold hold_still() const override { return Stillness::try_hold(stillness_); }
  Status poke(const Pinned& pinned, const View& view, Interval range, ElementEdit& edit,
              PokeOrigin origin, RecentValues::Ticket& former) override
      EXCLUDES(poke_lock_, sync_lock_, commit_lock_);
  Status replace(const Pinned& pinned, const View& view, const PosixFile& elements,
                 RecentValues::Ticket& former) override
      EXCLUDES(poke_lock_, sync_lock_, commit_lock_);
  RecentValues::Ticket remember_values() override;
  Status step_making_room(const std::function<Status()>& step) override
      EXCLUDES(sync_lock_, commit_lock_);
  std::int64_t poked_ns() const override { return poked_ns_; }
  Result<PosixFile> temporary_file() const override { return PosixFile::unnamed_in(directory_); }
  void record(const Event& event) override { history_->record(event); }
  std::uint64_t history_size() const override { return history_->size(); }
  Result<std::size_t> read_history(std::uint64_t offset,
                                   std::span<std::byte> target) const override {
    return history_->read(offset, target);
  }
  std::string last_error() const override { return history_->last_error(); }
  void sync(SyncDone done) override;
  bool read_only() const override { return read_only_; }
  std::int64_t created_ns() const override { return facts_.created_ns; }
  std::int64_t changed_ns() const override { return changed_ns_; }

  // ---- For the store ----
  void rename(std::string name);
  bool has_ingests() const { return ingests_ > 0; }
  // The cube is about to be removed, or is not after all: while it is, nothing comes in or changes.
  // ENOTEMPTY: it holds frames, or takes some in.
  Status retire() EXCLUDES(commit_lock_);
  void reinstate() { retired_ = false; }
  bool is_dirty() const EXCLUDES(commit_lock_);
  // Data, journal, mark; then space that became free, and a checkpoint when one is due. Without
  // space for the mark all is on disk all the same: a failure only where one is needed.
  Status sync_now(bool needs_mark = false) EXCLUDES(commit_lock_);
  // The last sync; leaves the note that all is in order.
  void close() EXCLUDES(commit_lock_);

  // ---- For an ingest ----
  Mutex& commit_lock() const ACCRETE_TS(lock_returned(commit_lock_)) { return commit_lock_; }
  const Limits& limits() const { return limits_; }
  Unpacker& unpacker() { return host_.unpacker(); }
  BrickFile& bricks() { return *bricks_; }
  const PosixFile& directory() const { return directory_; }
  std::shared_ptr<const Snapshot> snapshot() const;
  Growth& growth() REQUIRES(commit_lock_) { return *growth_; }
  HeapFile& heap() REQUIRES(commit_lock_) { return *heap_; }
  // Journals what `body` describes and makes it the present. On failure nothing has changed, in the
  // heap neither. `durably`: it is on disk before it is shown; when only that fails, which
  // journal_->sequence() tells, the cube has to be fenced: opened again, it may show it.
  Status change(const std::function<Status(Draft&)>& body, bool durably = false)
      REQUIRES(commit_lock_);
  // A live or removed frame.
  std::optional<FrameRow> frame_named(std::string_view name) const;
  // Which frames cover what; made on first use.
  const CubeCoverage& coverage() REQUIRES(commit_lock_);
  // Takes a frame's elements and indexes out of the cube, or brings those of a removed one back.
  // `after`: the coverage that the draft leads to. The row goes into the draft.
  Status take_out(Draft& draft, FrameRow row, FrameState to, const CubeCoverage& after)
      REQUIRES(commit_lock_);
  Status bring_back(Draft& draft, FrameRow row) REQUIRES(commit_lock_);
  // The position on an axis for a frame that comes in; `key`: its sort key, empty where the axis is
  // not sorted. EINVAL for an index that the axis does not have (any more).
  Result<std::uint64_t> position_for(const Draft& draft, std::size_t axis, Side side,
                                     std::uint64_t at, const std::string& key)
      REQUIRES(commit_lock_);
  // Gives a frame another name in the draft, and the place that goes with it where names sort.
  Status rename_in(Draft& draft, FrameRow& row, std::string_view name) REQUIRES(commit_lock_);
  // The place of a frame that has another sort key now.
  Status resort_in(Draft& draft, const FrameRow& row, const std::string& key)
      REQUIRES(commit_lock_);
  // Without frames and without files that hold layers the cube is undefined again.
  void undefine_if_empty() REQUIRES(commit_lock_);
  // Frees what can be freed on the disk: what cubes hold for frames to come, and space of frames
  // that are gone. True: a step that began when room_made() was `since`, and failed as it was
  // `full`, may succeed now.
  bool make_room(const Error& full, std::uint64_t since) EXCLUDES(commit_lock_);
  std::uint64_t room_made() const { return host_.room_made(); }
  void release_held() EXCLUDES(commit_lock_);
  Status writable() const;  // EROFS when fenced, ENOENT when removed
  void ingest_begins() { ++ingests_; }
  void ingest_ends() { --ingests_; }

 private:
  CubeOnDisk(PosixFile directory, std::string name, const Limits& limits, CubeHost& host);
  Status recover(bool may_write) EXCLUDES(poke_lock_, sync_lock_, commit_lock_);

  Status publish(Draft draft, bool durably = false) REQUIRES(commit_lock_);
  Status try_set_frame_prefix(FrameId id, const HeapRef& base, const TextChanges& changes)
      EXCLUDES(commit_lock_);
  Status try_set_frame_cards(FrameId id, const std::vector<std::string>& cards)
      EXCLUDES(commit_lock_);
  Status try_set_frame_attributes(FrameId id, std::optional<std::int64_t> mtime_ns,
                                  std::optional<std::uint32_t> mode,
                                  std::optional<std::uint32_t> uid,
                                  std::optional<std::uint32_t> gid) EXCLUDES(commit_lock_);
  Status try_rename_frame(std::string_view from, std::string_view to) EXCLUDES(commit_lock_);
  Status try_set_property(std::string_view name, std::string_view text, bool append)
      EXCLUDES(commit_lock_);
  Status try_remove_frame(std::string_view name, std::string_view to) EXCLUDES(commit_lock_);
  Status try_restore_frame(std::string_view name, std::string_view to) EXCLUDES(commit_lock_);
  Status try_discard_frame(std::string_view name) EXCLUDES(commit_lock_);
  // Keeps the time of the last poke, which views tell as theirs, beyond the end of the daemon.
  void note_time_of_pokes() REQUIRES(commit_lock_);
  // ENOENT: it is not live.
  Result<FrameRow> row_to_change(FrameId id) const;
  Status put_headers(Draft& draft, const FrameRow& row, const Headers& headers)
      REQUIRES(commit_lock_);
  // Keeps up what the frames have in common.
  void count_facts(const Snapshot& before, const FrameRow& row) REQUIRES(commit_lock_);
  void set_snapshot(std::shared_ptr<const Snapshot> snapshot);
  void index_names(const Snapshot& snapshot) EXCLUDES(names_lock_);
  void add_name(const FrameRow& row) EXCLUDES(names_lock_);
  // The entry that a row had before, unless it still has it.
  void drop_name(const FrameRow& old, const FrameRow& row) EXCLUDES(names_lock_);
  void fence(const Error& error) EXCLUDES(commit_lock_);
  // Data, heap, journal. Without the lock: only a holder of sync_lock_ replaces the journal.
  Status sync_files() const NO_THREAD_SAFETY_ANALYSIS;
  Status sync_journal() const NO_THREAD_SAFETY_ANALYSIS;
  // Everything up to that record, which ends at `end`, has been synced.
  Status mark(std::uint64_t sequence, std::uint64_t end, std::uint64_t frames)
      REQUIRES(commit_lock_);
  void reuse_freed() REQUIRES(sync_lock_) EXCLUDES(commit_lock_);
  void rotate_if_due(std::uint64_t step) REQUIRES(sync_lock_) EXCLUDES(commit_lock_);
  // Ends the journal, with all of it on disk, and begins the next. False: no space for that now.
  Result<bool> begin_next_journal() REQUIRES(sync_lock_, commit_lock_);
  std::string frames_table(const Snapshot& snapshot) const;
  Status sort_all(Draft& draft, const Definition& definition) REQUIRES(commit_lock_);
  Result<std::string> sort_key_of(const FrameRow& row, const std::string& order) const;
  Result<std::string> key_of(FrameId id) REQUIRES(commit_lock_);
  Result<std::uint64_t> sorted_place(const Snapshot& snapshot, std::size_t axis, const Axis& state,
                                     const std::string& key) REQUIRES(commit_lock_);
  std::optional<FrameId> find_named(std::string_view name, FrameState state) const;

  // ---- In place (cube_pokes.cc) ----
  struct PokePlan;
  Status gather_all(const Pinned& pinned, const View& view, Interval range, std::byte* target,
                    Coding coding) const;
  Status plan_changes(const Pinned& pinned, const Pinned& newest, const View& view, Interval range,
                      PokePlan& plan) const;
  void drop_stale(const View& view, Interval range, const ElementEdit& edit, PokeOrigin origin,
                  std::size_t size, const PokePlan& plan) const;
  Status sync_before_poke(bool changes_structure) REQUIRES(poke_lock_)
      EXCLUDES(sync_lock_, commit_lock_);
  Status make_patches(const Snapshot& pinned, const std::vector<ElementCuboid>& cuboids,
                      std::vector<Box>& made) REQUIRES(poke_lock_);
  Status fill_patches(const std::vector<Box>& patches, std::size_t size, const View& view,
                      Interval range, const PokePlan& plan) const REQUIRES(poke_lock_);
  Status record_poke(const Pinned& pinned, const View& view, Interval range, const PokePlan& plan,
                     const PosixFile* elements, std::vector<Box>& patches) REQUIRES(poke_lock_)
      EXCLUDES(commit_lock_);
  void take_back(const std::vector<Box>& patches) REQUIRES(poke_lock_) EXCLUDES(commit_lock_);
  Status try_poke(const Pinned& pinned, const View& view, Interval range, ElementEdit& edit,
                  PokeOrigin origin, RecentValues::Ticket& former)
      EXCLUDES(poke_lock_, sync_lock_, commit_lock_);
  Status try_replace(const Pinned& pinned, const View& view, const PosixFile& elements,
                     RecentValues::Ticket& former) EXCLUDES(poke_lock_, sync_lock_, commit_lock_);
  Status store(const Pinned& pinned, const View& view, Interval range, const PokePlan& plan,
               RecentValues::Ticket& former) REQUIRES(poke_lock_);
  Status for_pieces(const Pinned& pinned, const View& view, const PosixFile& elements,
                    const std::function<Status(Interval, PokePlan&)>& body) const;
  // Patches of which no index is left on an axis go.
  static void drop_patches(Draft& draft);

  const PosixFile directory_;
  const Limits limits_;
  CubeHost& host_;
  CheckpointFacts facts_;
  std::unique_ptr<BrickFile> bricks_;
  std::unique_ptr<HeapFile> heap_;
  std::unique_ptr<History> history_;
  std::atomic<bool> read_only_ = false;
  std::atomic<bool> retired_ = false;
  std::atomic<std::int64_t> changed_ns_ = 0;
  std::atomic<unsigned> ingests_ = 0;
  std::atomic<std::int64_t> poked_ns_ = 0;
  std::atomic<bool> poked_ = false;  // since the last sync
  RecentValues recent_;
  Mutex poke_lock_;  // held while elements are changed in place
  const std::shared_ptr<Stillness> stillness_ = std::make_shared<Stillness>();
  // The greatest id of a patch; none is used again while a snapshot may have it.
  std::uint64_t last_patch_ GUARDED_BY(poke_lock_) = 0;

  mutable Mutex commit_lock_;
  std::optional<Growth> growth_ GUARDED_BY(commit_lock_);
  std::optional<Journal> journal_ GUARDED_BY(commit_lock_);
  std::uint64_t last_delta_ GUARDED_BY(commit_lock_) = 0;  // sequence of the newest one, and of the
  std::uint64_t last_data_ GUARDED_BY(commit_lock_) = 0;  // newest whose elements recovery looks at
  std::uint64_t durable_ GUARDED_BY(commit_lock_) = 0;    // sequence up to which all is on disk
  std::uint64_t last_redo_ GUARDED_BY(commit_lock_) = 0;  // sequence of the newest one
  std::uint64_t durable_frames_ GUARDED_BY(commit_lock_) = 0;  // frames then
  std::deque<FreedSpace> freed_ GUARDED_BY(commit_lock_);
  std::optional<CubeCoverage> coverage_ GUARDED_BY(commit_lock_);  // of the present, once asked for
  std::unordered_map<FrameId, std::string> keys_ GUARDED_BY(commit_lock_);  // some sort keys
  std::shared_ptr<const Snapshot> rotated_ GUARDED_BY(commit_lock_);  // where the journal begins,
                                                                      // until it has a checkpoint
  Mutex sync_lock_;                                                   // one sync at a time
  std::uint64_t checkpoint_generation_ GUARDED_BY(sync_lock_) = 0;
  std::uint64_t checkpoint_bytes_ GUARDED_BY(sync_lock_) = 0;

  std::optional<FactCounts> fact_counts_
      GUARDED_BY(commit_lock_);  // of live frames, once asked for

  mutable Mutex publish_lock_;
  std::shared_ptr<const CommonCards> common_ GUARDED_BY(publish_lock_);  // nothing: not known now
  std::shared_ptr<const Snapshot> snapshot_ GUARDED_BY(publish_lock_);
  std::string name_ GUARDED_BY(publish_lock_);

  mutable Mutex names_lock_;
  std::unordered_multimap<std::uint64_t, FrameId> names_ GUARDED_BY(names_lock_);  // held, by hash

  const std::shared_ptr<LiveGenerations> live_ = std::make_shared<LiveGenerations>();
};

std::int64_t now_ns();

// Name of the file that says that the last run ended in order.
inline constexpr const char* clean_note = "clean";

}  // namespace accrete
