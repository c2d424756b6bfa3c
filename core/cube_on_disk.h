// The one implementation of Cube: its files, its current snapshot, and the commit lock.
//
// Lock order: an ingest's lock or sync_lock_ → commit_lock() → {publish lock, names lock}; below
// them only the leaf locks inside BrickFile, History. No lock is held while a listener or SyncDone
// runs.
#pragma once

#include <deque>
#include <set>
#include <unordered_map>

#include "core/brick_file.h"
#include "core/checkpoint.h"
#include "core/cube.h"
#include "core/growth.h"
#include "core/heap_file.h"
#include "core/history.h"
#include "core/journal.h"
#include "core/mutex.h"

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

// Who performs syncs for cubes (the store's thread).
class SyncQueue {
 public:
  virtual ~SyncQueue() = default;
  virtual void request(std::shared_ptr<class CubeOnDisk> cube, SyncDone done) = 0;
};

// Space of retired frames, to be reused once that is durable and no snapshot shows them.
struct FreedSpace {
  std::uint64_t generation = 0;              // first snapshot that does not show it
  std::uint64_t sequence = 0;                // journal record that must be durable
  std::vector<BrickFile::Range> cleared;     // of boxes that stay
  std::vector<BrickFile::Range> given_back;  // whole boxes
};

class CubeOnDisk final : public Cube, public std::enable_shared_from_this<CubeOnDisk> {
 public:
  // Makes the files of a new cube in an empty directory; durable on return.
  static Status make(const PosixFile& directory, std::uint64_t uid);
  // Opens and recovers. A cube that is damaged before its last mark opens read-only.
  static Result<std::shared_ptr<CubeOnDisk>> open(PosixFile directory, std::string name,
                                                  const Limits& limits, SyncQueue& syncs);
  ~CubeOnDisk() override;

  // ---- Cube ----
  std::string name() const override;
  std::uint64_t uid() const override { return facts_.cube; }
  Pinned pin() const override;
  void set_listener(std::function<void()> listener) override;
  Result<std::shared_ptr<Ingest>> begin_ingest(IngestRequest request) override;
  std::optional<FrameId> find_frame(std::string_view name) const override;
  std::string frame_name(const FrameRow& row) const override;
  Result<std::string> frame_prefix(const FrameRow& row) const override;
  Result<std::string> frame_suffix(const FrameRow& row) const override;
  Result<View> frame_view(const FrameRow& row) const override;
  std::vector<std::string> frame_cards(const FrameRow& row) const override;
  Status set_frame_attributes(FrameId id, std::optional<std::int64_t> mtime_ns,
                              std::optional<std::uint32_t> mode, std::optional<std::uint32_t> uid,
                              std::optional<std::uint32_t> gid) override;
  Status rename_frame(std::string_view from, std::string_view to) override;
  Result<std::string> property(std::string_view name) const override;
  Status set_property(std::string_view name, std::string_view text) override;
  Status read(const Pinned& pinned, const View& view, Interval range, std::byte* target,
              Coding coding) const override;
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
  bool is_dirty() const EXCLUDES(commit_lock_);
  // Data, journal, mark; then space that became free, and a checkpoint when one is due.
  Status sync_now() EXCLUDES(commit_lock_);
  // The last sync; leaves the note that all is in order.
  void close() EXCLUDES(commit_lock_);

  // ---- For an ingest ----
  Mutex& commit_lock() const ACCRETE_TS(lock_returned(commit_lock_)) { return commit_lock_; }
  const Limits& limits() const { return limits_; }
  BrickFile& bricks() { return *bricks_; }
  const PosixFile& directory() const { return directory_; }
  std::shared_ptr<const Snapshot> snapshot() const;
  Growth& growth() REQUIRES(commit_lock_) { return *growth_; }
  HeapFile& heap() REQUIRES(commit_lock_) { return *heap_; }
  // Journals a delta and makes it the present; `freed` is what it takes out. On failure nothing has
  // changed.
  Status publish(const Delta& delta, FreedSpace freed = {}) REQUIRES(commit_lock_);
  // Adds to a delta that a live frame is gone: its indexes close up, its slots are not written.
  static void retire(const Snapshot& snapshot, FrameRow row, Delta& delta, FreedSpace& freed);
  void announce() EXCLUDES(commit_lock_);  // tells the listener
  Status writable() const;                 // EROFS when fenced
  void ingest_begins() { ++ingests_; }
  void ingest_ends() { --ingests_; }

 private:
  CubeOnDisk(PosixFile directory, std::string name, const Limits& limits, SyncQueue& syncs);
  Status recover() EXCLUDES(commit_lock_, sync_lock_);

  void set_snapshot(std::shared_ptr<const Snapshot> snapshot);
  void index_names(const Snapshot& snapshot);
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

  const PosixFile directory_;
  const Limits limits_;
  SyncQueue& syncs_;
  CheckpointFacts facts_;
  std::unique_ptr<BrickFile> bricks_;
  std::unique_ptr<HeapFile> heap_;
  std::unique_ptr<History> history_;
  std::atomic<bool> read_only_ = false;
  std::atomic<std::int64_t> changed_ns_ = 0;
  std::atomic<unsigned> ingests_ = 0;

  mutable Mutex commit_lock_;
  std::optional<Growth> growth_ GUARDED_BY(commit_lock_);
  std::optional<Journal> journal_ GUARDED_BY(commit_lock_);
  std::uint64_t last_delta_ GUARDED_BY(commit_lock_) = 0;  // sequence of the newest one
  std::uint64_t durable_ GUARDED_BY(commit_lock_) = 0;     // sequence up to which all is on disk
  std::uint64_t durable_frames_ GUARDED_BY(commit_lock_) = 0;  // frames then
  std::deque<FreedSpace> freed_ GUARDED_BY(commit_lock_);
  std::shared_ptr<const Snapshot> rotated_ GUARDED_BY(commit_lock_);  // where the journal begins,
                                                                      // until it has a checkpoint
  Mutex sync_lock_;                                                   // one sync at a time
  std::uint64_t checkpoint_generation_ GUARDED_BY(sync_lock_) = 0;
  std::uint64_t checkpoint_bytes_ GUARDED_BY(sync_lock_) = 0;

  mutable Mutex publish_lock_;
  std::shared_ptr<const Snapshot> snapshot_ GUARDED_BY(publish_lock_);
  std::function<void()> listener_ GUARDED_BY(publish_lock_);
  std::string name_ GUARDED_BY(publish_lock_);

  mutable Mutex names_lock_;
  std::unordered_multimap<std::uint64_t, FrameId> names_ GUARDED_BY(names_lock_);  // live, by hash

  const std::shared_ptr<LiveGenerations> live_ = std::make_shared<LiveGenerations>();
};

std::int64_t now_ns();

// Name of the file that says that the last run ended in order.
inline constexpr const char* clean_note = "clean";

}  // namespace accrete
