// What a repair does, and why.
//
// No element is thrown away or changed, and nothing is made up where it could be taken for data.
// - The structure becomes the newest that can be read: the newest whole checkpoint and the records
//   behind it up to the first that is damaged. Where no checkpoint is whole, the first journal
//   alone will do: it begins with the empty cube. What later records said is lost; they build on
//   the damaged one. As far as they can be read, their frames are named, so that these can be
//   copied in again.
// - A frame whose elements do not match their checksums, or cannot be read, stays where it is: most
//   of them may be good, and its place in the cube is worth keeping. Every check names it, until it
//   is replaced or removed. Its digest is forgotten, so that the same file is another one now, and
//   may take its place.
// - Elements beyond the end of a brick file that was cut off read as zeros; they fail their
//   checksums, so the above holds of their frames.
// - A text of a frame that is damaged goes. A name: the frame gets another. Its headers, or the
// file
//   as it came: its file is made of its elements, with those cards that are left. Its end: padding.
//   Cards that were changed: those that it came with hold again. Checksums: they are made again
//   where what is left of them proves that the elements are those that came; else, and if it is the
//   runs (where its elements lie), the frame stays as it is, and is named.
//
// What contradicts itself where all checksums are right is left as it is, and told.
//
// Why it may be killed at any time. Until the new checkpoint is renamed nothing that the old
// structure refers to is changed, but for what each start does (replacements that no mark vouches
// for are stored): texts are appended to the heap, where the next start cuts them
// off; the new journal has a generation that the old ones do not lead to; `clean` goes, which only
// makes the next start do more. The new checkpoint is of the highest generation, so from its rename
// on it and its journal are the structure, whatever the older files are. These get other names then
// (on a full disk there is no room for copies), and last the brick file gets its length: without it
// the cube does not open, neither before nor after.
// An older generation must never lead to the new journal, since what it leads to was repaired. So
// this goes on from a record that no journal has.
#include "core/repair_cube.h"

#include <fcntl.h>

#include <algorithm>
#include <set>

#include "core/bytes.h"
#include "core/checksum.h"
#include "core/cube_on_disk.h"
#include "core/format.h"
#include "core/frame_sums.h"
#include "core/history.h"
#include "core/own_cards.h"
#include "core/row_codec.h"

namespace accrete {

namespace {

bool is_structure(const std::string& file) {
  return (file.starts_with("checkpoint.") || file.starts_with("journal.")) &&
         file != "checkpoint.new" && !file.ends_with(".damaged");
}

class Repairing {
 public:
  Repairing(const PosixFile& directory, const CubeReport& report)
      : directory_(directory), report_(report) {}

  Result<Repair> run() {
    ACCRETE_TRY(names_, list_directory(directory_));
    ACCRETE_TRY(found_, read_cube(directory_, Stores::redo, Start::nothing));
    snapshot_ = *found_.snapshot;
    bool is_due = false;
    for (const Finding& finding : report_.findings)
      if (finding.kind == Finding::Kind::damage && is_structure(finding.what.file)) is_due = true;
    if (is_due) ACCRETE_CHECK(tell_what_is_lost());
    ACCRETE_CHECK(mend_rows());
    if (is_due || has_mended_) ACCRETE_CHECK(write_structure());
    ACCRETE_CHECK(lengthen_bricks());
    ACCRETE_CHECK(note_in_history());
    return std::move(repair_);
  }

 private:
  void tell(std::string sentence) { repair_.done.push_back(std::move(sentence)); }

  // ---- What is lost ----

  Status tell_what_is_lost() {
    if (found_.generation == 0)
      tell("there is no whole checkpoint; all is taken from the first journal");
    const std::uint64_t end = end_of_kept();
    for (std::uint64_t g : generations_of("journal", names_)) {
      if (g < std::max(found_.generation, found_.journal_generation)) continue;
      const bool is_last = g == found_.journal_generation;
      const auto bytes = read_file(directory_, journal_name(g));
      if (bytes.ok()) tell_records_from(*bytes, is_last ? end : 0, g);
    }
    return {};
  }

  std::uint64_t end_of_kept() const {
    return found_.kept == 0 ? found_.journal.start_end
                            : found_.journal.records[found_.kept - 1].end;
  }

  // Changes that stand there, though they cannot be followed: found at any place where a delta can
  // be read whose number is behind the last that counts.
  void tell_records_from(const std::string& bytes, std::uint64_t from, std::uint64_t generation) {
    constexpr std::uint64_t head = 24;
    constexpr std::uint64_t most_behind = std::uint64_t{1} << 32;
    std::uint64_t changes = 0;
    std::set<std::string> frames;
    std::uint64_t at = from;
    while (at + head < bytes.size()) {
      ByteReader in(as_bytes(bytes).subspan(at));
      const auto length = in.get<std::uint32_t>();
      const auto kind = in.get<std::uint32_t>();
      const auto number = in.get<std::uint64_t>();
      in.get<std::uint64_t>();
      const bool is_there = kind == 1 && number > found_.sequence &&
                            number - found_.sequence < most_behind && length <= in.remaining();
      const auto delta = is_there ? decode_delta(in.rest().first(length))
                                  : Result<Delta>(fail(std::errc::io_error, ""));
      if (!delta.ok()) {
        at += 8;
        continue;
      }
      ++changes;
      for (const FrameRow& row : delta->frames)
        if (const auto name = found_.heap->read(row.name); name.ok() && !name->empty())
          frames.insert(*name);
      at += (head + length + 7) / 8 * 8;
    }
    if (changes == 0) return;
    std::string list;
    for (const std::string& name : frames) list += (list.empty() ? "" : ", ") + name;
    tell(journal_name(generation) + ": at least " + std::to_string(changes) +
         " changes behind record " + std::to_string(found_.sequence) + " are lost" +
         (list.empty() ? "" : ", of these frames: " + list));
  }

  // ---- Rows ----

  Status mend_rows() {
    std::set<FrameId> damaged;
    for (const Finding& finding : report_.findings)
      if (finding.kind == Finding::Kind::damage && finding.frame_id != 0)
        damaged.insert(finding.frame_id);
    for (FrameId id = 1; id <= snapshot_.frames.count(); ++id)
      if (const auto row = snapshot_.frames.find(id); row && leaves_heap(*row)) damaged.insert(id);
    for (const FrameId id : damaged) {
      const auto row = snapshot_.frames.find(id);
      if (!row) continue;
      FrameRow mended = *row;
      ACCRETE_CHECK(mend(mended));
      if (mended.state != FrameState::gone) mended.digest = {};
      if (as_stored(mended) == as_stored(*row)) continue;
      snapshot_.frames = snapshot_.frames.put(mended);
      has_mended_ = true;
    }
    return {};
  }

  bool leaves_heap(const FrameRow& row) const {
    const auto texts = row.texts();
    return std::any_of(texts.begin(), texts.end(), [&](const HeapRef& text) {
      return text.length > found_.heap_bytes || text.offset > found_.heap_bytes - text.length;
    });
  }

  static std::string as_stored(const FrameRow& row) {
    ByteWriter out;
    encode(out, row);
    return out.take();
  }

  bool is_good(const HeapRef& text) const { return found_.heap->verify(text).ok(); }

  Status mend(FrameRow& row) {
    if (row.state == FrameState::gone) {
      row.prefix = row.suffix = row.original = row.runs = row.sums = row.cards = {};
      if (is_good(row.name)) return {};
      row.name = {};
      row.name_hash = checksum({});
      return {};
    }
    const auto name = found_.heap->read(row.name);
    const bool has_name = name.ok() && checksum(as_bytes(*name)) == row.name_hash;
    const std::string called = has_name ? *name : "frame-" + std::to_string(row.id);
    if (!has_name) {
      ACCRETE_TRY(row.name, append(called));
      row.name_hash = checksum(as_bytes(called));
      tell("the name of frame " + std::to_string(row.id) + " is lost; it is called " + called);
    }
    if (!is_good(row.cards)) {
      row.cards = {};
      tell("frame " + called + ": the changes of its cards are lost");
    }
    if (!is_good(row.prefix) || !is_good(row.original)) {
      tell("frame " + called + ": " +
           (is_good(row.prefix) ? "its file as it came is lost, but not its headers"
                                : "its headers are lost") +
           "; its file is made of its elements");
      ACCRETE_CHECK(drop_original(row));
    } else if (!is_good(row.suffix)) {
      const std::uint64_t padding = row.layout.full_bytes - row.layout.least_bytes;
      ACCRETE_TRY(row.suffix, append(std::string(padding, '\0')));
      tell("frame " + called + ": what its file had behind the image is lost");
    }
    if (!is_good(row.sums)) ACCRETE_CHECK(mend_sums(row, called));
    return {};
  }

  // The file that a view of the frame's elements would be, with the cards that are left.
  Status drop_original(FrameRow& row) {
    FrameLayout& layout = row.layout;
    std::vector<std::string> cards;
    if (const auto headers = found_.heap->read(row.prefix); headers.ok())
      cards = format(layout.format).cards(std::string_view(*headers).substr(layout.header_offset));
    else if (const auto kept = found_.heap->read(row.cards); kept.ok())
      cards = split_cards(*kept);
    const FileFace face =
        make_canonical(layout, snapshot_.definition.coding.type, std::move(cards));
    row.original = row.cards = {};
    row.packed = false;
    ACCRETE_TRY(row.prefix, append(face.header));
    ACCRETE_TRY(row.suffix, append(std::string(face.trailer, face.trailer_fill)));
    return {};
  }

  // The checksum of the list is in the row: a list that has it is the one that is lost.
  Status mend_sums(FrameRow& row, const std::string& called) {
    const auto text = found_.heap->read(row.runs);
    const auto runs =
        text.ok() ? frame_runs(row, as_bytes(*text)) : Result<FrameRuns>(text.error());
    const auto view = runs.ok() ? frame_view(row, *runs) : Result<View>(runs.error());
    if (!view.ok() || row.state != FrameState::live || !found_.boxes_fit) return {};
    const auto sums = sum_frame(*view, snapshot_.boxes, found_.bricks.get(),
                                snapshot_.definition.coding, snapshot_.pad_at_rest());
    if (sums.empty() || first_sum(sums) != row.first_sum) return {};
    ACCRETE_TRY(row.sums, append(sums_text(sums)));
    tell("frame " + called + ": its checksums were damaged, and are made again");
    return {};
  }

  Result<HeapRef> append(const std::string& text) {
    if (!heap_) {
      ACCRETE_TRY(heap_, HeapFile::open(directory_, found_.heap_bytes, true));
    }
    return heap_->append(as_bytes(text));
  }

  // ---- Writing ----

  Status write_structure() {
    if (found_.brick_file.is_open()) ACCRETE_CHECK(found_.brick_file.sync_data());
    if (!heap_) {
      ACCRETE_TRY(heap_, HeapFile::open(directory_, found_.heap_bytes, true));
    }
    ACCRETE_CHECK(heap_->sync());
    if (std::find(names_.begin(), names_.end(), clean_note) != names_.end())
      ACCRETE_CHECK(unlink_at(directory_, clean_note, false));
    const std::uint64_t generation = fresh_generation();
    CheckpointFacts facts = found_.facts;
    facts.sequence = found_.sequence + 1;
    facts.chain = checksum(as_bytes("repaired"), found_.chain ^ generation);
    if (facts.created_ns == 0) facts.created_ns = now_ns();
    ++snapshot_.generation;
    const auto write = [&]() -> Status {
      ACCRETE_TRY(const Journal journal,
                  Journal::create(directory_, facts.cube, generation, facts.sequence, facts.chain));
      ACCRETE_TRY(const CheckpointRows rows,
                  write_checkpoint(directory_, generation, facts, snapshot_));
      return {};
    };
    if (Status written = write(); !written.ok()) {
      (void)unlink_at(directory_, journal_name(generation), false);
      return written;
    }
    tell("the cube is that of record " + std::to_string(found_.sequence) + "; " +
         checkpoint_name(generation) + " was written, older files are kept as NAME.damaged");
    for (const std::string& name : names_)
      if (is_structure(name)) ACCRETE_CHECK(rename_at(directory_, name, name + ".damaged", false));
    return directory_.sync_all();
  }

  // One that no file has or had, nor the next of any: no older journal leads to it.
  std::uint64_t fresh_generation() const {
    std::uint64_t newest = 0;
    for (std::string name : names_) {
      if (name.ends_with(".damaged")) name.resize(name.size() - std::string(".damaged").size());
      for (const char* prefix : {"checkpoint", "journal"})
        for (const std::uint64_t g : generations_of(prefix, {name})) newest = std::max(newest, g);
    }
    return newest + 2;
  }

  Status lengthen_bricks() {
    std::uint64_t end = 0;
    for (const BoxIndex* boxes : {&snapshot_.boxes, &snapshot_.patches})
      boxes->for_all(
          [&](const Box& box) { end = std::max(end, box.file_offset + box.byte_length()); });
    if (found_.brick_file.is_open() && end <= found_.brick_bytes) return {};
    ACCRETE_TRY(const PosixFile bricks,
                PosixFile::open_at(directory_, "bricks", O_RDWR | O_CREAT, 0600));
    if (end > found_.brick_bytes) ACCRETE_CHECK(bricks.truncate(end));
    ACCRETE_CHECK(bricks.sync_all());
    ACCRETE_CHECK(directory_.sync_all());
    tell("the brick file had lost its end; its bytes from " + std::to_string(found_.brick_bytes) +
         " to " + std::to_string(end) + " are zeros now");
    return {};
  }

  // For those who look there.
  Status note_in_history() {
    if (repair_.done.empty()) return {};
    ACCRETE_TRY(const auto history, History::open(directory_, true));
    for (const std::string& sentence : repair_.done)
      history->record({"repair", "", std::nullopt, 0, sentence});
    return {};
  }

  const PosixFile& directory_;
  const CubeReport& report_;
  Repair repair_;
  std::vector<std::string> names_;
  CubeAtRest found_;
  Snapshot snapshot_;
  std::unique_ptr<HeapFile> heap_;  // to append to
  bool has_mended_ = false;
};

}  // namespace

Result<Repair> repair_cube(const PosixFile& directory, const CubeReport& report) {
  return Repairing(directory, report).run();
}

}  // namespace accrete
