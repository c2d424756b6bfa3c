// Opening a cube: what its files say (cube_at_rest.h) becomes its present, and what lies beyond
// that is cut off.
//
// Why that is right. Records that a mark vouches for, and their data, were on disk: if they are not
// whole now, that is damage, and the cube opens read-only; then nothing is cut. Else what is cut
// off leaves no trace: its heap bytes and its layers lie where no row points, and are freed here.
//
// All this is asked of the disk, not of the kernel's memory: pages that could not be written stay
// there as if they had been, and once a failed fsync has told, no later one does. So unless the
// last run ended in order, the kernel is made to forget them before anything is read. (It keeps
// pages that are mapped: by a program that looks into the store itself, for the daemon that had
// them mapped is dead, or its lock would still be held.)

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

#include "core/cube_at_rest.h"
#include "core/cube_on_disk.h"

namespace accrete {

namespace {

// Writes what waits to be written, and has the rest read from the disk again.
Status forget_memory(const PosixFile& directory) {
  ACCRETE_TRY(const std::vector<std::string> names, list_directory(directory));
  for (const std::string& name : names) {
    if (name != "bricks" && name != "heap" && !name.starts_with("journal.")) continue;
    ACCRETE_TRY(const PosixFile file, PosixFile::open_at(directory, name, O_RDONLY));
    ACCRETE_CHECK(file.sync_data());
    file.forget();
  }
  return {};
}

// What frames that are gone, texts that were rewritten and replacements left in the heap, where it
// is worth the search.
void discard_texts(const HeapFile& heap, const Snapshot& snapshot) {
  constexpr std::uint64_t worth_it = 64 << 10;
  std::vector<HeapRef> used;
  for (FrameId id = 1; id <= snapshot.frames.count(); ++id) {
    const auto row = snapshot.frames.find(id);
    if (!row) continue;
    used.push_back(row->name);
    if (row->state == FrameState::gone) continue;
    for (const HeapRef& text : row->texts())
      if (text.length > 0) used.push_back(text);
  }
  std::sort(used.begin(), used.end(),
            [](const HeapRef& a, const HeapRef& b) { return a.offset < b.offset; });
  std::uint64_t end = 0;
  for (const HeapRef& text : used) {
    if (text.offset >= end + worth_it) (void)heap.discard({end, text.offset - end, 0});
    end = std::max(end, text.offset + text.length);
  }
  if (heap.end() >= end + worth_it) (void)heap.discard({end, heap.end() - end, 0});
}

}  // namespace

Status CubeOnDisk::recover(bool may_write) {
  MutexLock poking(poke_lock_);
  MutexLock syncing(sync_lock_);
  MutexLock lock(commit_lock_);
  const bool clean = PosixFile::open_at(directory_, clean_note, O_RDONLY).ok();
  Status written;
  if (may_write && !clean) written = forget_memory(directory_);
  const bool may_store = may_write && written.ok();
  ACCRETE_TRY(CubeAtRest found, read_cube(directory_, may_store ? Stores::redo : Stores::none));
  // What is shown without the end may lie where newer frames do by now.
  if (found.unread) return fail(std::errc::io_error, *found.unread);
  if (!found.boxes_fit)
    return fail(std::errc::io_error, "the brick file is shorter than its boxes say");
  facts_ = found.facts;
  checkpoint_generation_ = found.generation;
  checkpoint_bytes_ = found.checkpoint_bytes;
  last_delta_ = found.last_delta;
  durable_ = found.durable;
  const std::shared_ptr<const Snapshot> now = found.snapshot;
  std::string trouble = found.damage.empty() ? "" : found.damage.back().sentence;
  if (!written.ok()) trouble = written.error().sentence;
  read_only_ = !may_write || !trouble.empty();

  ACCRETE_TRY(history_, History::open(directory_, may_write));
  if (!read_only_) {
    if (clean) {
      ACCRETE_CHECK(unlink_at(directory_, clean_note, false));
      ACCRETE_CHECK(directory_.sync_all());  // the note must not outlive what is done from now on
    }
    ACCRETE_TRY(journal_, Journal::resume(directory_, facts_.cube, found.journal_generation,
                                          found.journal, found.kept));
    if (found.journal_generation > found.generation) rotated_ = found.journal_start;
  }
  durable_frames_ = now->frames.count();
  if (!read_only_ && (last_delta_ > durable_ || !clean)) {
    // What the records took out is about to be reclaimed: they and a mark have to be on disk
    // before, see reuse_freed(). A mark that was read may have been in the host's memory only.
    const auto make_durable = [&]() REQUIRES(commit_lock_) -> Status {
      if (last_delta_ > durable_) {
        ACCRETE_CHECK(found.brick_file.sync_data());
        ACCRETE_CHECK(found.heap->sync());
        ACCRETE_CHECK(journal_->sync());
        ACCRETE_CHECK(mark(journal_->sequence(), journal_->end(), now->frames.count()));
      }
      return journal_->sync();
    };
    Status durable = make_durable();
    if (!durable.ok() && says_full(durable.error())) {
      host_.release_held();
      durable = make_durable();
    }
    if (!durable.ok()) {
      trouble = durable.error().sentence;
      read_only_ = true;
    }
  }
  // Not before: records that no mark covers yet may need what lies behind the texts of frames.
  ACCRETE_TRY(heap_, HeapFile::open(directory_, read_only_ ? found.heap_bytes : found.heap_used,
                                    !read_only_));
  std::vector<BrickFile::Range> used;
  for (const BoxIndex* boxes : {&now->boxes, &now->patches})
    boxes->for_all([&](const Box& box) { used.push_back({box.file_offset, box.byte_length()}); });
  ACCRETE_TRY(bricks_, BrickFile::open(directory_, std::move(used), !read_only_, !clean,
                                       found.is_overlaid ? found.bricks : nullptr));
  growth_.emplace(*bricks_);
  if (!read_only_) growth_->restore(*now, !clean);
  if (!read_only_ && !clean) discard_texts(*heap_, *now);
  const auto newest = now->frames.find(now->frames.count());
  now->patches.for_all([&](const Box& patch)
                           REQUIRES(poke_lock_) { last_patch_ = std::max(last_patch_, patch.id); });
  poked_ns_ = now->definition.poked_ns;
  changed_ns_ = newest ? newest->arrival_ns : facts_.created_ns;
  set_snapshot(now);
  index_names(*now);
  undefine_if_empty();  // the last run may have ended just before it did
  if (!trouble.empty())
    history_->record({"damage", "", std::nullopt, EIO, "the cube is read-only: " + trouble});
  else if (found.lost > 0)
    history_->record({"recover", "", std::nullopt, 0,
                      std::to_string(found.lost) + " records after the last sync were not whole"});
  else if (found.torn > 0)
    history_->record({"recover", "", std::nullopt, 0,
                      "the last " + std::to_string(found.torn) +
                          " bytes of the journal, after the last sync, were not whole"});
  return {};
}

Result<std::shared_ptr<CubeOnDisk>> CubeOnDisk::open(PosixFile directory, std::string name,
                                                     const Limits& limits, CubeHost& host,
                                                     bool may_write) {
  std::shared_ptr<CubeOnDisk> cube(
      new CubeOnDisk(std::move(directory), std::move(name), limits, host));
  ACCRETE_CHECK(cube->recover(may_write));
  return cube;
}

}  // namespace accrete
