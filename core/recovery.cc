// Opening a cube: the newest whole checkpoint, and of the journals behind it what holds.
//
// Why the result is right. The checkpoint is whole (its checksum says so) and durable before the
// journal before it may go. Records are applied in order by the same apply() that published them.
// Records that a mark vouches for, and their data, were on disk: if they are not whole now, that is
// damage, and the cube opens read-only. For the others (the tail after the last mark) write order
// is unknown: a record counts only if it is whole, what it refers to in the heap is whole, and the
// elements of its frames have the checksums that it names; the first that fails ends the history,
// since later records build on it. What was cut off leaves no trace: its heap bytes and its layers
// lie where no row points, and are freed here.

#include <fcntl.h>

#include "core/cube_on_disk.h"
#include "core/frame_sums.h"
#include "core/linearize.h"
#include "core/row_codec.h"

namespace accrete {

namespace {

struct ReadJournal {
  std::string bytes;
  JournalScan scan;
};

Result<ReadJournal> read_journal(const PosixFile& directory, std::uint64_t cube,
                                 std::uint64_t generation) {
  ACCRETE_TRY(const PosixFile file,
              PosixFile::open_at(directory, journal_name(generation), O_RDONLY));
  ACCRETE_TRY(const std::uint64_t size, file.size());
  ReadJournal journal;
  journal.bytes.resize(size);
  ACCRETE_TRY(const std::size_t n, file.read(0, std::as_writable_bytes(std::span(journal.bytes))));
  journal.bytes.resize(n);
  journal.scan = scan_journal(as_bytes(journal.bytes), cube, generation);
  return journal;
}

std::vector<std::uint64_t> checkpoints(const std::vector<std::string>& names) {
  constexpr std::string_view prefix = "checkpoint.";
  std::vector<std::uint64_t> generations;
  for (const std::string& name : names)
    if (name.starts_with(prefix) && name != "checkpoint.new")
      generations.push_back(std::strtoull(name.c_str() + prefix.size(), nullptr, 10));
  std::sort(generations.rbegin(), generations.rend());
  return generations;
}

// The whole content of the store that rows may refer to, while it is being checked.
struct Content {
  const HeapFile& heap;
  std::shared_ptr<const std::byte> bricks;
  std::shared_ptr<std::byte> writable_bricks;  // none: they are not to be changed
  std::uint64_t brick_bytes;
};

bool is_whole(const Snapshot& snapshot, const FrameRow& row, bool has_new_elements,
              const Content& content) {
  if (!content.heap.verify(row.name).ok()) return false;
  for (const HeapRef& text : row.texts())
    if (!content.heap.verify(text).ok()) return false;
  if (!has_new_elements) return true;
  const auto text = content.heap.read(row.runs);
  const auto sums = content.heap.read(row.sums);
  const auto runs = frame_runs(row, as_bytes(*text));
  if (!runs.ok()) return false;
  const auto view = frame_view(row, *runs);
  if (!view.ok()) return false;
  const auto now = sum_frame(*view, snapshot.boxes, content.bricks.get(),
                             snapshot.definition.coding, snapshot.pad_at_rest());
  return sums_match(row, *sums, now);
}

// Nothing may be read through the mapping before this is known. It need not hold of boxes that a
// mark vouches for: later records may have removed them, and their space may be gone.
bool lies_within(const Box& box, const Content& content) {
  return box.file_offset <= content.brick_bytes &&
         box.byte_length() <= content.brick_bytes - box.file_offset;
}

bool all_lie_within(const BoxIndex& boxes, const Content& content) {
  bool all = true;
  boxes.for_all([&](const Box& box) { all = all && lies_within(box, content); });
  return all;
}

Error too_short() {
  return fail(std::errc::io_error, "the brick file is shorter than its boxes say");
}

// Does the data of the delta's frames match? Elements of those that were there before (a new name,
// other attributes) were looked at, or vouched for, when they came.
bool is_whole(const Snapshot& before, const Snapshot& after, const Delta& delta,
              const Content& content) {
  for (const FrameRow& row : delta.frames) {
    if (row.state == FrameState::gone) continue;
    const auto old = before.frames.find(row.id);
    // What was there before, live or removed, was looked at when it came; it may be poked since.
    const bool same = old && old->state != FrameState::gone && old->first_sum == row.first_sum &&
                      old->sums == row.sums && old->runs == row.runs && old->first == row.first &&
                      old->extent == row.extent;
    const bool is_news = row.state == FrameState::live && !same;
    if (!is_whole(after, row, is_news, content)) return false;
  }
  return true;
}

// Replacing the elements of a view may have been cut short.
Status store_again(const Snapshot& after, const Redo& redo, const Content& content) {
  ACCRETE_CHECK(content.heap.verify(redo.elements));
  ACCRETE_TRY(const View view, redo.view());
  const std::size_t size = size_of(after.definition.coding.type);
  if (view.cube_rank() != after.axes.size() || redo.elements.length % size != 0 ||
      view.element_count() != redo.elements.length / size)
    return fail(std::errc::io_error, "the elements of a replacement are not those of its view");
  // No mark covers the record, so no space of what it shows was reused since.
  for (const BoxIndex* boxes : {&after.boxes, &after.patches})
    if (!all_lie_within(*boxes, content)) return too_short();
  if (content.writable_bricks == nullptr) return {};
  const std::uint64_t step = (1 << 20) / size;
  std::vector<std::byte> now(step * size), old(step * size);
  std::vector<std::byte> held(step);
  for (std::uint64_t done = 0; done < view.element_count(); done += step) {
    const Interval range{done, std::min(view.element_count(), done + step)};
    const std::uint64_t bytes = range.length() * size;
    ACCRETE_CHECK(content.heap.read_part(redo.elements, done * size, {now.data(), bytes}));
    const Coding coding = after.definition.coding;
    const Element pad = after.pad_at_rest();
    const std::byte* const from = content.bricks.get();
    if (!gather(view, after.patches, from, coding, range, old.data(), coding, pad) ||
        !gather_over(view, after.boxes, from, coding, range, old.data(), coding))
      return fail(std::errc::io_error, "the elements of a replacement could not be read");
    gather_mask(view, after.boxes, range, held.data());
    std::byte* const bricks = content.writable_bricks.get();
    if (!store_elements(view, after.boxes, bricks, size, range, old.data(), now.data(), nullptr) ||
        !store_elements(view, after.patches, bricks, size, range, old.data(), now.data(),
                        held.data()))
      return fail(std::errc::io_error, "the elements of a replacement could not be stored");
  }
  return {};
}

// The snapshot behind one record; `vouched_for`: its data had been on disk.
Result<std::shared_ptr<const Snapshot>> replay(const Snapshot& before, const RecordView& record,
                                               bool vouched_for, const Content& content) {
  ACCRETE_TRY(const Delta delta, decode_delta(record.body));
  for (const std::vector<Box>* boxes : {&delta.boxes, &delta.patches})
    for (const Box& box : *boxes) {
      ACCRETE_CHECK(check_box(box, 1));
      if (!vouched_for && !lies_within(box, content)) return too_short();
    }
  ACCRETE_TRY(auto after, apply(before, delta));
  if (vouched_for) return after;
  if (!is_whole(before, *after, delta, content))
    return fail(std::errc::io_error, "the data of the last frames were not on disk yet");
  if (delta.redo) ACCRETE_CHECK(store_again(*after, *delta.redo, content));
  return after;
}

std::uint64_t heap_end(const Snapshot& snapshot) {
  std::uint64_t end = 0;
  for (FrameId id = 1; id <= snapshot.frames.count(); ++id)
    if (const auto row = snapshot.frames.find(id)) {
      end = std::max(end, row->name.offset + row->name.length);
      for (const HeapRef& text : row->texts()) end = std::max(end, text.offset + text.length);
    }
  return end;
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

Status CubeOnDisk::recover() {
  MutexLock poking(poke_lock_);
  MutexLock syncing(sync_lock_);
  MutexLock lock(commit_lock_);
  ACCRETE_TRY(const std::vector<std::string> names, list_directory(directory_));
  std::string trouble;  // why the cube is damaged

  Checkpoint checkpoint;
  std::uint64_t generation = 0;
  for (const std::uint64_t candidate : checkpoints(names)) {
    auto loaded = load_checkpoint(directory_, candidate);
    if (loaded.ok()) {
      checkpoint = std::move(loaded).value();
      generation = candidate;
      break;
    }
    trouble = loaded.error().sentence;
  }
  if (generation == 0)
    return fail(std::errc::io_error, trouble.empty() ? "the cube has no checkpoint" : trouble);
  facts_ = checkpoint.facts;
  checkpoint_generation_ = generation;
  checkpoint_bytes_ = checkpoint.bytes;

  // Everything in the heap and the brick file, before it is known which of it counts.
  std::uint64_t heap_size = 0;
  std::uint64_t brick_bytes = 0;
  std::shared_ptr<std::byte> bricks;
  {
    ACCRETE_TRY(const PosixFile file, PosixFile::open_at(directory_, "heap", O_RDONLY));
    ACCRETE_TRY(heap_size, file.size());
  }
  ACCRETE_TRY(const PosixFile brick_file, PosixFile::open_at(directory_, "bricks", O_RDWR));
  ACCRETE_TRY(brick_bytes, brick_file.size());
  if (brick_bytes > 0) {
    ACCRETE_TRY(bricks, map_shared_writable(brick_file, brick_bytes));
  }
  ACCRETE_TRY(const auto heap, HeapFile::open(directory_, heap_size, false));
  const Content content{*heap, bricks, bricks, brick_bytes};

  std::shared_ptr<const Snapshot> now = checkpoint.snapshot;
  std::shared_ptr<const Snapshot> journal_start;
  ReadJournal journal;
  std::size_t kept = 0;
  std::uint64_t sequence = facts_.sequence;
  std::uint64_t chain = facts_.chain;
  std::uint64_t journal_generation = 0;
  std::uint64_t lost = 0;
  bool cut = false;
  durable_ = sequence;
  for (std::uint64_t g = generation;; ++g) {
    auto read = read_journal(directory_, facts_.cube, g);
    const bool is_there = read.ok() && read->scan.header_good;
    // The journal before it was on disk, whole, when this one was begun.
    if (g > generation && is_there && read->scan.start_sequence > sequence)
      trouble = "the journal has lost records that had been on disk";
    if (!read.ok() && read.error().code != std::errc::no_such_file_or_directory)
      trouble = read.error().sentence;
    if (!is_there || cut || read->scan.start_sequence != sequence ||
        read->scan.start_chain != chain) {
      if (g == generation) trouble = "the journal of the newest checkpoint is missing or damaged";
      break;
    }
    journal = std::move(read).value();
    journal.scan = scan_journal(as_bytes(journal.bytes), facts_.cube, g);
    journal_generation = g;
    journal_start = now;
    kept = 0;
    for (const RecordView& record : journal.scan.records) {
      const bool marked = kept < journal.scan.marked;
      if (record.kind == RecordKind::delta) {
        auto next = replay(*now, record, marked, content);
        if (!next.ok()) {
          if (marked) trouble = next.error().sentence;
          lost = journal.scan.records.size() - kept;
          break;
        }
        now = std::move(next).value();
        last_delta_ = record.sequence;
      }
      sequence = record.sequence;
      chain = record.chain;
      if (marked) durable_ = sequence;
      ++kept;
    }
    if (journal.scan.corrupt) trouble = "the journal is damaged before its last mark";
    cut = kept < journal.scan.records.size() || journal.scan.corrupt;
  }
  const std::uint64_t kept_end =
      kept == 0 ? journal.scan.start_end : journal.scan.records[kept - 1].end;
  const std::uint64_t torn = journal.bytes.size() - std::min(journal.bytes.size(), kept_end);
  for (const BoxIndex* boxes : {&now->boxes, &now->patches})
    if (!all_lie_within(*boxes, content)) return too_short();
  const std::uint64_t heap_used = heap_end(*now);
  if (heap_used > heap_size) trouble = "the heap file is shorter than its rows say";
  if (!trouble.empty()) read_only_ = true;

  ACCRETE_TRY(history_, History::open(directory_, true));
  const bool clean = std::find(names.begin(), names.end(), clean_note) != names.end();
  if (!read_only_) {
    if (clean) {
      ACCRETE_CHECK(unlink_at(directory_, clean_note, false));
      ACCRETE_CHECK(directory_.sync_all());  // the note must not outlive what is done from now on
    }
    ACCRETE_TRY(
        journal_,
        journal_generation == 0
            ? Journal::create(directory_, facts_.cube, generation, sequence, chain)
            : Journal::resume(directory_, facts_.cube, journal_generation, journal.scan, kept));
    if (journal_generation > generation) rotated_ = journal_start;
  }
  durable_frames_ = now->frames.count();
  if (!read_only_ && (last_delta_ > durable_ || !clean)) {
    // What the records took out is about to be reclaimed: they and a mark have to be on disk
    // before, see reuse_freed(). A mark that was read may have been in the host's memory only.
    const auto make_durable = [&]() REQUIRES(commit_lock_) -> Status {
      if (last_delta_ > durable_) {
        ACCRETE_CHECK(brick_file.sync_data());
        ACCRETE_CHECK(heap->sync());
        ACCRETE_CHECK(journal_->sync());
        ACCRETE_CHECK(mark(journal_->sequence(), journal_->end(), now->frames.count()));
      }
      return journal_->sync();
    };
    if (const Status durable = make_durable(); !durable.ok()) {
      trouble = durable.error().sentence;
      read_only_ = true;
    }
  }
  // Not before: records that no mark covers yet may need what lies behind the texts of frames.
  ACCRETE_TRY(heap_, HeapFile::open(directory_, read_only_ ? heap_size : heap_used, !read_only_));
  std::vector<BrickFile::Range> used;
  for (const BoxIndex* boxes : {&now->boxes, &now->patches})
    boxes->for_all([&](const Box& box) { used.push_back({box.file_offset, box.byte_length()}); });
  ACCRETE_TRY(bricks_, BrickFile::open(directory_, std::move(used), !read_only_, !clean));
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
  else if (lost > 0)
    history_->record({"recover", "", std::nullopt, 0,
                      std::to_string(lost) + " records after the last sync were not whole"});
  else if (torn > 0)
    history_->record({"recover", "", std::nullopt, 0,
                      "the last " + std::to_string(torn) +
                          " bytes of the journal, after the last sync, were not whole"});
  return {};
}

Result<std::shared_ptr<CubeOnDisk>> CubeOnDisk::open(PosixFile directory, std::string name,
                                                     const Limits& limits, CubeHost& host) {
  std::shared_ptr<CubeOnDisk> cube(
      new CubeOnDisk(std::move(directory), std::move(name), limits, host));
  ACCRETE_CHECK(cube->recover());
  return cube;
}

}  // namespace accrete
