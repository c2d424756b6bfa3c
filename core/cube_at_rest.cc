// Why the result is right. The checkpoint is whole (its checksum says so) and durable before the
// journal before it may go. Records are applied in order by the same apply() that published them.
// Records that a mark vouches for, and their data, were on disk: if they are not whole now, that is
// damage. For the others (the tail after the last mark) write order is unknown: a record counts
// only if it is whole, what it refers to in the heap is whole, and the elements of its frames have
// the checksums that it names; the first that fails ends the history, since later records build on
// it. That a disk does not give something just now says nothing of the kind: then the cube is as if
// it ended there, but nothing may be cut.
#include "core/cube_at_rest.h"

#include <fcntl.h>

#include <algorithm>
#include <charconv>

#include "core/bytes.h"
#include "core/frame_sums.h"
#include "core/linearize.h"
#include "core/poke.h"
#include "core/row_codec.h"

namespace accrete {

namespace {

struct ReadJournal {
  std::string bytes;
  JournalScan scan;
};

Result<ReadJournal> read_journal(const PosixFile& directory, std::uint64_t cube,
                                 std::uint64_t generation) {
  ReadJournal journal;
  ACCRETE_TRY(journal.bytes, read_file(directory, journal_name(generation)));
  journal.scan = scan_journal(as_bytes(journal.bytes), cube, generation);
  return journal;
}

// Where the first `records` records end.
std::uint64_t end_of(const JournalScan& scan, std::size_t records) {
  return records == 0 ? scan.start_end : scan.records[records - 1].end;
}

// The whole content of the store that rows may refer to, while it is being checked.
struct Content {
  const HeapFile& heap;
  const std::uint64_t brick_bytes;
  const std::shared_ptr<std::byte> bricks;  // none if the file is empty
};

// What was written without a mark did not reach the disk. All other errors here are the disk's.
constexpr std::errc not_written = std::errc::bad_message;

Error incomplete(std::string sentence) {
  return fail(not_written, std::move(sentence));
}

Result<bool> is_whole(const Snapshot& snapshot, const FrameRow& row, bool has_new_elements,
                      const Content& content) {
  std::vector<HeapRef> texts{row.name};
  for (const HeapRef& text : row.texts()) texts.push_back(text);
  for (const HeapRef& text : texts) {
    ACCRETE_TRY(const bool good, content.heap.is_whole(text));
    if (!good) return false;
  }
  if (!has_new_elements) return true;
  ACCRETE_TRY(const std::string text, content.heap.read(row.runs));
  ACCRETE_TRY(const std::string sums, content.heap.read(row.sums));
  const auto runs = frame_runs(row, as_bytes(text));
  if (!runs.ok()) return false;
  const auto view = frame_view(row, *runs);
  if (!view.ok()) return false;
  const auto now = sum_frame(*view, snapshot.boxes, content.bricks.get(),
                             snapshot.definition.coding, snapshot.pad_at_rest());
  if (now.empty()) return fail(std::errc::io_error, "elements of the last frames cannot be read");
  return sums_match(row, sums, now);
}

// Nothing may be read through the mapping before this is known. It need not hold of boxes that a
// mark vouches for: later records may have removed them, and their space may be gone.
bool all_lie_within(const BoxIndex& boxes, std::uint64_t brick_bytes) {
  bool all = true;
  boxes.for_all([&](const Box& box) { all = all && lies_within(box, brick_bytes); });
  return all;
}

Error too_short() {
  return incomplete("the brick file is shorter than its boxes say");
}

// Does the data of the delta's frames match? Elements of those that were there before (a new name,
// other attributes) were looked at, or vouched for, when they came.
Result<bool> is_whole(const Snapshot& before, const Snapshot& after, const Delta& delta,
                      const Content& content) {
  for (const FrameRow& row : delta.frames) {
    if (row.state == FrameState::gone) continue;
    const auto old = before.frames.find(row.id);
    // What was there before, live or removed, was looked at when it came; it may be poked since.
    const bool same = old && old->state != FrameState::gone && old->first_sum == row.first_sum &&
                      old->sums == row.sums && old->runs == row.runs && old->first == row.first &&
                      old->extent == row.extent;
    const bool is_news = row.state == FrameState::live && !same;
    ACCRETE_TRY(const bool good, is_whole(after, row, is_news, content));
    if (!good) return false;
  }
  return true;
}

// Replacing the elements of a view may have been cut short.
Status store_again(const Snapshot& after, const Redo& redo, const Content& content) {
  ACCRETE_TRY(const bool are_there, content.heap.is_whole(redo.elements));
  if (!are_there) return incomplete("the elements of a replacement were not on disk yet");
  const auto shown = redo.view();
  const std::size_t size = size_of(after.definition.coding.type);
  if (!shown.ok() || shown->cube_rank() != after.axes.size() || redo.elements.length % size != 0 ||
      shown->element_count() != redo.elements.length / size)
    return incomplete("the elements of a replacement are not those of its view");
  const View& view = *shown;
  // No mark covers the record, so no space of what it shows was reused since.
  for (const BoxIndex* boxes : {&after.boxes, &after.patches})
    if (!all_lie_within(*boxes, content.brick_bytes)) return too_short();
  const std::uint64_t step = (1 << 20) / size;
  std::vector<std::byte> now(step * size), old(step * size);
  std::vector<std::byte> held(step);
  std::byte* const bricks = content.bricks.get();
  for (std::uint64_t done = 0; done < view.element_count(); done += step) {
    const Interval range{done, std::min(view.element_count(), done + step)};
    const std::uint64_t bytes = range.length() * size;
    ACCRETE_CHECK(content.heap.read_part(redo.elements, done * size, {now.data(), bytes}));
    const Coding coding = after.definition.coding;
    const Element pad = after.pad_at_rest();
    if (!gather(view, after.patches, bricks, coding, range, old.data(), coding, pad) ||
        !gather_over(view, after.boxes, bricks, coding, range, old.data(), coding))
      return fail(std::errc::io_error, "the elements of a replacement could not be read");
    gather_mask(view, after.boxes, range, held.data());
    if (!store_elements(view, after.boxes, bricks, size, range, old.data(), now.data(), nullptr) ||
        !store_elements(view, after.patches, bricks, size, range, old.data(), now.data(),
                        held.data()))
      return fail(std::errc::io_error, "the elements of a replacement could not be stored");
  }
  return {};
}

// The snapshot behind one record; `vouched_for`: its data had been on disk.
Result<std::shared_ptr<const Snapshot>> replay(const Snapshot& before, const Delta& delta,
                                               bool vouched_for, const Content& content) {
  for (const std::vector<Box>* boxes : {&delta.boxes, &delta.patches})
    for (const Box& box : *boxes) {
      if (const Status good = check_box(box, 1); !good.ok())
        return incomplete(good.error().sentence);
      if (!vouched_for && !lies_within(box, content.brick_bytes)) return too_short();
    }
  auto applied = apply(before, delta);
  if (!applied.ok()) return incomplete(applied.error().sentence);
  auto after = std::move(applied).value();
  if (vouched_for) return after;
  ACCRETE_TRY(const bool good, is_whole(before, *after, delta, content));
  if (!good) return incomplete("the data of the last frames were not on disk yet");
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

// Frames of which the heap has the name: none where it is that of another cube.
std::uint64_t readable_frames(const CubeAtRest& cube) {
  std::uint64_t n = 0;
  for (FrameId id = 1; id <= cube.snapshot->frames.count(); ++id)
    if (const auto row = cube.snapshot->frames.find(id); row && cube.heap->verify(row->name).ok())
      ++n;
  return n;
}

class Reading {
 public:
  Reading(const PosixFile& directory, Stores stores) : directory_(directory), stores_(stores) {}

  Result<CubeAtRest> run(bool from_nothing) {
    ACCRETE_CHECK(from_nothing ? begin_with_nothing() : load());
    cube_.sequence = cube_.durable = cube_.facts.sequence;
    cube_.chain = cube_.facts.chain;
    open_files();
    ACCRETE_CHECK(map_bricks());
    ACCRETE_CHECK(take_journals());
    finish();
    return std::move(cube_);
  }

 private:
  void damage(std::string file, std::optional<std::uint64_t> offset, std::string sentence) {
    cube_.damage.push_back({std::move(file), offset, std::move(sentence)});
  }
  void cannot_read(std::string file, std::optional<std::uint64_t> offset, const Error& error) {
    cube_.unread = error.sentence;
    damage(std::move(file), offset, error.sentence);
  }

  Status load() {
    ACCRETE_TRY(const std::vector<std::string> names, list_directory(directory_));
    for (const std::uint64_t generation : generations_of("checkpoint", names)) {
      auto loaded = load_checkpoint(directory_, generation);
      if (!loaded.ok()) {
        damage(checkpoint_name(generation), std::nullopt, loaded.error().sentence);
        continue;
      }
      cube_.facts = loaded->facts;
      cube_.snapshot = loaded->snapshot;
      cube_.generation = generation;
      cube_.checkpoint_bytes = loaded->bytes;
      return {};
    }
    return fail(std::errc::io_error,
                cube_.damage.empty() ? "the cube has no checkpoint" : cube_.damage.back().sentence);
  }

  // A cube's first journal begins with the empty cube.
  Status begin_with_nothing() {
    constexpr std::size_t cube_at = 8;
    ACCRETE_TRY(const std::string bytes, read_file(directory_, journal_name(1)));
    const auto cube =
        ByteReader(as_bytes(bytes).subspan(std::min(cube_at, bytes.size()))).get<std::uint64_t>();
    const JournalScan scan = scan_journal(as_bytes(bytes), cube, 1);
    if (!scan.header_good || scan.start_sequence != 0 || scan.start_chain != 0)
      return fail(std::errc::io_error, journal_name(1) + " does not begin with the empty cube");
    cube_.facts.cube = cube;
    cube_.snapshot = std::make_shared<const Snapshot>();
    damage(checkpoint_name(1), std::nullopt,
           "no whole checkpoint leads to the journals, but the first journal does");
    return {};
  }

  // Everything in the heap and the brick file, before it is known which of it counts.
  void open_files() {
    const auto open = [&]() -> Status {
      ACCRETE_TRY(const PosixFile file, PosixFile::open_at(directory_, "heap", O_RDONLY));
      ACCRETE_TRY(cube_.heap_bytes, file.size());
      ACCRETE_TRY(cube_.heap, HeapFile::open(directory_, cube_.heap_bytes, false));
      return {};
    };
    if (const Status status = open(); !status.ok()) {
      cannot_read("heap", std::nullopt, status.error());
      cube_.heap_bytes = 0;
      cube_.heap = HeapFile::none();
    }
    auto bricks =
        PosixFile::open_at(directory_, "bricks", stores_ == Stores::redo ? O_RDWR : O_RDONLY);
    if (!bricks.ok()) return cannot_read("bricks", std::nullopt, bricks.error());
    cube_.brick_file = std::move(bricks).value();
  }

  Status map_bricks() {
    if (!cube_.brick_file.is_open()) return {};
    ACCRETE_TRY(cube_.brick_bytes, cube_.brick_file.size());
    if (cube_.brick_bytes == 0) return {};
    ACCRETE_TRY(cube_.bricks, stores_ == Stores::redo
                                  ? map_shared_writable(cube_.brick_file, cube_.brick_bytes)
                                  : map_private(cube_.brick_file, cube_.brick_bytes));
    return {};
  }

  Status take_journals() {
    bool ended = false;  // no later record counts
    for (std::uint64_t g = std::max<std::uint64_t>(cube_.generation, 1);; ++g) {
      const bool is_first = cube_.journal_generation == 0;
      auto read = read_journal(directory_, cube_.facts.cube, g);
      const bool is_there = read.ok() && read->scan.header_good;
      // The journal before it was on disk, whole, when this one was begun.
      if (!is_first && is_there && read->scan.start_sequence > cube_.sequence)
        damage(journal_name(g), 0, "the journal has lost records that had been on disk");
      if (!is_first && read.ok() && !is_there && read->scan.corrupt)
        damage(journal_name(g), 0, "the header of a journal is damaged that had been on disk");
      if (!read.ok() && read.error().code != std::errc::no_such_file_or_directory)
        cannot_read(journal_name(g), std::nullopt, read.error());
      if (!is_there || ended || read->scan.start_sequence != cube_.sequence ||
          read->scan.start_chain != cube_.chain) {
        if (is_first)
          damage(journal_name(g), std::nullopt,
                 "the journal of the newest checkpoint is missing or damaged: " + why_unfit(read));
        return {};
      }
      cube_.journal_bytes = std::move(read->bytes);
      cube_.journal = scan_journal(as_bytes(cube_.journal_bytes), cube_.facts.cube, g);
      cube_.journal_generation = g;
      cube_.journal_start = cube_.snapshot;
      take_records();
      ended = cube_.kept < cube_.journal.records.size() || cube_.journal.corrupt;
    }
  }

  // Why the first journal does not go on from the checkpoint.
  static std::string why_unfit(const Result<ReadJournal>& read) {
    if (!read.ok()) return read.error().sentence;
    if (read->scan.header_good) return "it follows another record than the checkpoint's last";
    return "its header is damaged, or it belongs to another cube or generation";
  }

  void take_records() {
    const JournalScan& scan = cube_.journal;
    const std::string name = journal_name(cube_.journal_generation);
    const Content content{*cube_.heap, cube_.brick_bytes, cube_.bricks};
    cube_.kept = 0;
    for (const RecordView& record : scan.records) {
      const bool marked = cube_.kept < scan.marked;
      if (record.kind == RecordKind::delta) {
        auto delta = decode_delta(record.body);
        auto next = delta.ok() ? replay(*cube_.snapshot, *delta, marked, content)
                               : incomplete(delta.error().sentence);
        if (!next.ok()) {
          if (next.error().code != not_written)
            cannot_read(name, end_of(scan, cube_.kept), next.error());
          else if (marked)
            damage(name, end_of(scan, cube_.kept), next.error().sentence);
          cube_.lost = scan.records.size() - cube_.kept;
          break;
        }
        cube_.snapshot = std::move(next).value();
        cube_.last_delta = record.sequence;
        cube_.is_overlaid =
            cube_.is_overlaid || (stores_ == Stores::none && !marked && delta->redo);
      }
      cube_.sequence = record.sequence;
      cube_.chain = record.chain;
      if (marked) cube_.durable = cube_.sequence;
      ++cube_.kept;
    }
    if (scan.corrupt)
      damage(name, end_of(scan, scan.records.size()),
             "the journal is damaged before its last mark, at record " +
                 std::to_string(scan.start_sequence + scan.records.size() + 1));
  }

  void finish() {
    if (cube_.journal_generation > 0)
      cube_.torn = cube_.journal_bytes.size() - end_of(cube_.journal, cube_.kept);
    for (const BoxIndex* boxes : {&cube_.snapshot->boxes, &cube_.snapshot->patches})
      cube_.boxes_fit = cube_.boxes_fit && all_lie_within(*boxes, cube_.brick_bytes);
    if (!cube_.boxes_fit)
      damage("bricks", cube_.brick_bytes, "the brick file is shorter than its boxes say");
    cube_.heap_used = heap_end(*cube_.snapshot);
    if (cube_.heap_used > cube_.heap_bytes)
      damage("heap", cube_.heap_bytes, "the heap file is shorter than its rows say");
  }

  const PosixFile& directory_;
  const Stores stores_;
  CubeAtRest cube_;
};

}  // namespace

Result<std::string> read_file(const PosixFile& directory, const std::string& name) {
  ACCRETE_TRY(const PosixFile file, PosixFile::open_at(directory, name, O_RDONLY));
  ACCRETE_TRY(const std::uint64_t size, file.size());
  std::string bytes(size, '\0');
  ACCRETE_TRY(const std::size_t n, file.read(0, std::as_writable_bytes(std::span(bytes))));
  bytes.resize(n);
  return bytes;
}

bool lies_within(const Box& box, std::uint64_t brick_bytes) {
  return box.file_offset <= brick_bytes && box.byte_length() <= brick_bytes - box.file_offset;
}

std::vector<std::uint64_t> generations_of(std::string_view prefix,
                                          const std::vector<std::string>& names) {
  std::vector<std::uint64_t> generations;
  for (const std::string& name : names) {
    if (!name.starts_with(prefix) || name.size() < prefix.size() + 2 || name[prefix.size()] != '.')
      continue;
    std::uint64_t generation = 0;
    const char* const end = name.data() + name.size();
    const auto [stop, error] = std::from_chars(name.data() + prefix.size() + 1, end, generation);
    if (error == std::errc{} && stop == end && generation > 0) generations.push_back(generation);
  }
  std::sort(generations.rbegin(), generations.rend());
  return generations;
}

Result<CubeAtRest> read_cube(const PosixFile& directory, Stores stores, Start start) {
  auto usual = Reading(directory, stores).run(false);
  if (start == Start::checkpoint || (usual.ok() && usual->journal_generation != 0)) return usual;
  auto other = Reading(directory, Stores::none).run(true);
  const bool is_better =
      other.ok() && (!usual.ok() || readable_frames(*other) > readable_frames(*usual));
  if (!is_better) return usual;
  return Reading(directory, stores).run(true);
}

}  // namespace accrete
