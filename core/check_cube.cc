// The structure is read as the daemon reads it (cube_at_rest.h), so what holds of it by
// construction is not looked at again: that checksums and chains of the records in use are right,
// and that boxes, patches and the coordinates of an axis are disjoint. All else is derived from the
// frames' rows and compared: each element of a frame lies in a slot of the frame's own, each slot
// in use is some frame's, each coordinate of an axis is some frame's. A chunk of elements holds as
// long as none of its slots was poked.
#include "core/check_cube.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>

#include "core/bytes.h"
#include "core/checksum.h"
#include "core/cube_on_disk.h"
#include "core/fault_guard.h"
#include "core/frame_sums.h"
#include "core/growth.h"
#include "core/linearize.h"

namespace accrete {

namespace {

using Kind = Finding::Kind;

std::string counted(std::uint64_t n, const std::string& what) {
  return std::to_string(n) + " " + what + (n == 1 ? "" : "s");
}

// Sorted, those that meet or touch joined.
std::vector<Run> joined(std::vector<Run> runs) {
  std::sort(runs.begin(), runs.end(), [](const Run& a, const Run& b) { return a.first < b.first; });
  std::vector<Run> all;
  for (const Run& run : runs) {
    if (all.empty() || all.back().end() < run.first)
      all.push_back(run);
    else if (run.end() > all.back().end())
      all.back().length = static_cast<std::uint64_t>(run.end() - all.back().first);
  }
  return all;
}

// The first coordinate that one has and the other has not; nothing when they are equal. Both are
// joined.
std::optional<std::int64_t> first_difference(const std::vector<Run>& a, const std::vector<Run>& b) {
  for (std::size_t i = 0; i < std::max(a.size(), b.size()); ++i) {
    if (i == a.size() || i == b.size()) return i == a.size() ? b[i].first : a[i].first;
    if (a[i].first != b[i].first) return std::min(a[i].first, b[i].first);
    if (a[i].end() != b[i].end()) return std::min(a[i].end(), b[i].end());
  }
  return std::nullopt;
}

// The frame that is looked at.
struct Named {
  FrameId id = 0;
  std::string name;
};

class Checking {
 public:
  explicit Checking(const PosixFile& directory) : directory_(directory) {}

  Result<CubeReport> run() {
    ACCRETE_TRY(names_, list_directory(directory_));
    auto found = read_cube(directory_, Stores::none, Start::nothing);
    if (!found.ok()) {
      add(Kind::damage, "", std::nullopt, found.error().sentence);
      return std::move(report_);
    }
    at_rest_ = std::move(found).value();
    for (const Damage& damage : at_rest_.damage)
      report_.findings.push_back({Kind::damage, damage, 0, {}});
    check_older_generations();
    count_unmarked();
    map_bricks();
    check_places();
    prepare_slots();
    check_frames();
    check_slots();
    check_axes();
    check_patches();
    check_free_space();
    return std::move(report_);
  }

 private:
  const Snapshot& snapshot() const { return *at_rest_.snapshot; }
  std::size_t element_size() const { return size_of(snapshot().definition.coding.type); }

  void add(Kind kind, std::string file, std::optional<std::uint64_t> offset, std::string sentence,
           const Named& frame = {}) {
    report_.findings.push_back(
        {kind, {std::move(file), offset, std::move(sentence)}, frame.id, frame.name});
  }
  void damage(std::string file, std::optional<std::uint64_t> offset, std::string sentence,
              const Named& frame = {}) {
    add(Kind::damage, std::move(file), offset, std::move(sentence), frame);
  }

  // ---- Structure ----

  // Those before the one in use, to which a reader goes back where that is damaged.
  void check_older_generations() {
    for (const std::uint64_t g : generations_of("checkpoint", names_)) {
      if (g >= at_rest_.generation) continue;
      const auto older = load_checkpoint(directory_, g);
      if (!older.ok())
        damage(checkpoint_name(g), std::nullopt, older.error().sentence);
      else if (older->facts.cube != at_rest_.facts.cube)
        damage(checkpoint_name(g), std::nullopt, "it belongs to another cube");
    }
    for (const std::uint64_t g : generations_of("journal", names_))
      if (g < at_rest_.generation) check_older_journal(g);
  }

  void check_older_journal(std::uint64_t g) {
    const std::string name = journal_name(g);
    const auto bytes = read_file(directory_, name);
    if (!bytes.ok()) return damage(name, std::nullopt, bytes.error().sentence);
    const JournalScan scan = scan_journal(as_bytes(*bytes), at_rest_.facts.cube, g);
    if (!scan.header_good)
      return damage(name, 0, "its header is damaged, or it belongs to another cube or generation");
    const std::uint64_t end = scan.records.empty() ? scan.start_end : scan.records.back().end;
    const std::uint64_t last =
        scan.records.empty() ? scan.start_sequence : scan.records.back().sequence;
    const std::uint64_t chain = scan.records.empty() ? scan.start_chain : scan.records.back().chain;
    // The newest older journal ends where the checkpoint in use begins.
    if (scan.corrupt || (g + 1 == at_rest_.generation &&
                         (last != at_rest_.facts.sequence || chain != at_rest_.facts.chain)))
      damage(name, end, "the journal is damaged at record " + std::to_string(last + 1));
  }

  void count_unmarked() {
    const JournalScan& scan = at_rest_.journal;
    for (std::size_t i = scan.marked; i < scan.records.size(); ++i) {
      if (scan.records[i].kind != RecordKind::delta) continue;
      ++report_.unmarked;
      if (i < at_rest_.kept) ++report_.unmarked_whole;
    }
    const std::uint64_t end = scan.records.empty() ? scan.start_end : scan.records.back().end;
    if (!scan.corrupt && end < at_rest_.journal_bytes.size()) ++report_.unmarked;  // that is torn
  }

  // ---- Where things lie ----

  // Reaches to the end of all boxes, also where the file does not.
  void map_bricks() {
    bricks_ = at_rest_.bricks;
    if (at_rest_.boxes_fit || !at_rest_.brick_file.is_open()) return;
    std::uint64_t end = at_rest_.brick_bytes;
    for_all_boxes(
        [&](const Box& box, bool) { end = std::max(end, box.file_offset + box.byte_length()); });
    const auto mapping = map_shared(at_rest_.brick_file, end);
    bricks_ = mapping.ok() ? *mapping : nullptr;
  }

  void for_all_boxes(const std::function<void(const Box&, bool is_patch)>& visit) const {
    snapshot().boxes.for_all([&](const Box& box) { visit(box, false); });
    snapshot().patches.for_all([&](const Box& box) { visit(box, true); });
  }

  void check_places() {
    struct Place {
      std::uint64_t begin, end;
      std::string name;
    };
    std::vector<Place> places;
    for_all_boxes([&](const Box& box, bool is_patch) {
      const std::string name = (is_patch ? "patch " : "box ") + std::to_string(box.id);
      if (!lies_within(box, at_rest_.brick_bytes))
        damage("bricks", box.file_offset, name + " reaches beyond the end of the file");
      places.push_back({box.file_offset, box.file_offset + box.byte_length(), name});
    });
    std::sort(places.begin(), places.end(),
              [](const Place& a, const Place& b) { return a.begin < b.begin; });
    for (std::size_t i = 1; i < places.size(); ++i)
      if (places[i].begin < places[i - 1].end)
        damage("bricks", places[i].begin,
               places[i].name + " has bytes that " + places[i - 1].name + " has, too");
    for (std::size_t i = 0; i <= places.size(); ++i) {
      const std::uint64_t begin = i == 0 ? 0 : places[i - 1].end;
      const std::uint64_t end = i < places.size() ? places[i].begin : at_rest_.brick_bytes;
      if (begin < end) gaps_.push_back({begin, end});
    }
  }

  // ---- Frames ----

  struct Slots {
    std::uint64_t live = 0;
    std::uint64_t removed = 0;
  };

  void prepare_slots() {
    snapshot().boxes.for_all([&](const Box& box) {
      Box held = box;
      held.written |= held.kept;
      held.kept = 0;
      put(held_, held);
      if (box.poked == 0) return;
      held.written = box.poked;
      held.spent = 0;
      put(poked_, held);
    });
  }
  static void put(BoxIndex& index, const Box& box) {
    if (auto next = index.put(box); next.ok()) index = std::move(next).value();
  }

  void check_frames() {
    runs_known_ = true;
    live_.resize(snapshot().axes.size());
    held_runs_.resize(snapshot().axes.size());
    std::map<std::string, FrameId> names;
    for (FrameId id = 1; id <= snapshot().frames.count(); ++id) {
      const auto row = snapshot().frames.find(id);
      if (!row) {
        damage("", std::nullopt, "the row of frame " + std::to_string(id) + " is damaged");
        continue;
      }
      const Named name = check_name(*row);
      if (row->state == FrameState::gone) continue;
      ++(row->state == FrameState::live ? report_.live : report_.removed);
      if (const auto [it, is_new] = names.emplace(name.name, id); !is_new)
        damage("", std::nullopt, "there are two frames of this name", name);
      check_frame(*row, name);
    }
  }

  Named check_name(const FrameRow& row) {
    const auto text = at_rest_.heap->read(row.name);
    Named name{row.id, text.ok() ? *text : "frame-" + std::to_string(row.id)};
    if (!text.ok())
      damage("heap", row.name.offset, "the frame's name is damaged: " + text.error().sentence,
             name);
    else if (checksum(as_bytes(*text)) != row.name_hash)
      damage("heap", row.name.offset, "the frame's name is not that of its row", name);
    return name;
  }

  void check_frame(const FrameRow& row, const Named& name) {
    constexpr std::array what = {"headers", "end of the file", "file as it came",
                                 "runs",    "checksums",       "changed cards"};
    const auto texts = row.texts();
    for (std::size_t i = 0; i < texts.size(); ++i)
      if (const Status status = at_rest_.heap->verify(texts[i]); !status.ok())
        damage("heap", texts[i].offset,
               std::string("the frame's ") + what[i] + ": " + status.error().sentence, name);
    check_lengths(row, name);
    const auto text = at_rest_.heap->read(row.runs);
    const auto runs =
        text.ok() ? frame_runs(row, as_bytes(*text)) : Result<FrameRuns>(text.error());
    const auto view = runs.ok() ? frame_view(row, *runs) : Result<View>(runs.error());
    if (!view.ok()) {
      runs_known_ = false;
      if (text.ok()) damage("heap", row.runs.offset, view.error().sentence, name);
      return;
    }
    for (std::size_t a = 0; a < runs->size(); ++a)
      for (const Run& run : (*runs)[a]) {
        held_runs_[a].push_back(run);
        if (row.state == FrameState::live) live_[a].push_back(run);
      }
    claim_slots(row, *runs, *view, name);
    check_elements(row, *view, name);
  }

  void check_lengths(const FrameRow& row, const Named& name) {
    const FrameLayout& layout = row.layout;
    const auto elements = checked_product({row.extent.begin(), row.extent.size()});
    const auto in_file = checked_product({layout.shape.begin(), layout.shape.size()});
    const bool fits = elements.ok() && in_file.ok() && *elements == *in_file &&
                      layout.data_bytes / size_of(layout.coding.type) == *elements &&
                      layout.data_offset == row.prefix.length &&
                      (row.original.length == 0 ||
                       (layout.header_offset == layout.primary_bytes && row.suffix.length == 0));
    if (!fits)
      damage("", std::nullopt, "the lengths in the frame's row contradict each other", name);
  }

  // Slots that hold elements of the frame are its alone, in its state, and have no others.
  void claim_slots(const FrameRow& row, const FrameRuns& runs, const View& view,
                   const Named& name) {
    const bool is_live = row.state == FrameState::live;
    std::uint64_t elements = 0;
    for_boxes_of(snapshot().boxes, row, runs,
                 [&](const Box& box, std::uint64_t first, std::uint64_t slots) {
                   const std::uint64_t bits = slot_bits(first, slots);
                   Slots& claimed = slots_[box.id];
                   if (((claimed.live | claimed.removed) & bits) != 0)
                     damage("bricks", box.file_offset,
                            "box " + std::to_string(box.id) + " has a slot of two frames", name);
                   (is_live ? claimed.live : claimed.removed) |= bits;
                   std::uint64_t cross = slots * box.slot_layers;
                   for (std::size_t a = 0; a < box.rank(); ++a)
                     if (a != box.layer_axis) cross *= box.extent[a];
                   elements += cross;
                 });
    if (elements != view.element_count())
      damage("", std::nullopt,
             "the frame has " + counted(view.element_count(), "element") + ", its slots " +
                 std::to_string(elements),
             name);
  }

  void check_elements(const FrameRow& row, const View& view, const Named& name) {
    const std::size_t size = element_size();
    const std::uint64_t count = view.element_count();
    const std::uint64_t step = sum_chunk_bytes / size;
    report_.bytes += count * size;
    const std::uint64_t chunks = (count + step - 1) / step;
    std::vector<std::uint64_t> sums = sums_of(row, chunks);
    if (sums.empty() && at_rest_.heap->verify(row.sums).ok())
      damage("heap", row.sums.offset, "the frame's checksums are not those of its row", name);
    std::vector<std::byte> chunk(std::min(count, step) * size);
    for (std::uint64_t i = 0; i < chunks; ++i) {
      const Interval range{i * step, std::min(count, (i + 1) * step)};
      const std::span<std::byte> bytes(chunk.data(), range.length() * size);
      const Coding coding = snapshot().definition.coding;
      ++report_.chunks;
      std::string trouble;
      if (!bricks_ || !gather(view, held_, bricks_.get(), coding, range, bytes.data(), coding, {}))
        trouble = "cannot be read";
      else if (visited(view, held_, range) != range.length())
        trouble = "lie in no slot";
      else if (visited(view, poked_, range) > 0)
        ++report_.poked_chunks;
      else if (!sums.empty() && checksum(bytes) != sums[i])
        trouble = "do not match their checksum";
      note_elements(std::move(trouble), view, range, name);
    }
    note_elements("", view, {count, count}, name);
  }

  std::vector<std::uint64_t> sums_of(const FrameRow& row, std::uint64_t chunks) const {
    if (row.sums.length == 0) return std::vector<std::uint64_t>(chunks == 1 ? 1 : 0, row.first_sum);
    const auto text = at_rest_.heap->read(row.sums);
    if (!text.ok() || text->size() != chunks * sizeof(std::uint64_t) ||
        checksum(as_bytes(*text)) != row.first_sum)
      return {};
    std::vector<std::uint64_t> sums;
    for (ByteReader in(as_bytes(*text)); in.remaining() > 0;)
      sums.push_back(in.get<std::uint64_t>());
    return sums;
  }

  std::uint64_t visited(const View& view, const BoxIndex& boxes, Interval range) const {
    return for_blocks(view, boxes, element_size(), accrete::Slots::written, range,
                      [](const Block&) {});
  }

  // Neighbouring chunks with the same trouble are one finding; empty: none.
  void note_elements(std::string trouble, const View& view, Interval range, const Named& name) {
    if (!trouble_.empty() && trouble_ != trouble) {
      std::optional<std::uint64_t> offset;
      for_blocks(view, held_, element_size(), accrete::Slots::written,
                 {troubled_.begin, std::min(troubled_.begin + 1, troubled_.end)},
                 [&](const Block& block) { offset = block.file_offset; });
      damage("bricks", offset,
             "elements " + std::to_string(troubled_.begin) + ".." + std::to_string(troubled_.end) +
                 " of the frame " + trouble_,
             name);
      trouble_.clear();
    }
    if (trouble.empty()) return;
    if (trouble_.empty()) troubled_.begin = range.begin;
    troubled_.end = range.end;
    trouble_ = std::move(trouble);
  }

  // ---- What the frames add up to ----

  void check_slots() {
    if (!runs_known_) return;
    snapshot().boxes.for_all([&](const Box& box) {
      const Slots& claimed = slots_[box.id];
      const std::string name = "box " + std::to_string(box.id);
      if (box.written != claimed.live)
        damage("", std::nullopt, name + " shows slots that are not those of its live frames");
      if (box.kept != claimed.removed)
        damage("", std::nullopt, name + " keeps slots that are not those of removed frames");
      if ((box.poked & ~box.committed()) != 0)
        damage("", std::nullopt, name + " has slots that were changed but belong to no frame");
    });
  }

  void check_axes() {
    if (!runs_known_) return;
    for (std::size_t a = 0; a < snapshot().axes.size(); ++a) {
      std::vector<Run> shown, all;
      for (const Axis::Piece& piece : snapshot().axes[a].pieces()) {
        all.push_back(piece.run);
        if (!piece.dormant) shown.push_back(piece.run);
      }
      const std::string axis = std::string("axis ") + snapshot().definition.letters[a];
      if (const auto at = first_difference(joined(shown), joined(live_[a])))
        damage("", std::nullopt,
               axis + " and the live frames differ at coordinate " + std::to_string(*at));
      if (const auto at = first_difference(joined(all), joined(held_runs_[a])))
        damage("", std::nullopt,
               axis + " and the frames differ at coordinate " + std::to_string(*at));
    }
  }

  // They have no checksums, but have to be readable.
  void check_patches() {
    snapshot().patches.for_all([&](const Box& patch) {
      if (!lies_within(patch, at_rest_.brick_bytes)) return;
      unsigned seen = 0;
      auto look = [&] {
        const auto* bytes = reinterpret_cast<const volatile char*>(bricks_.get());
        for (std::uint64_t at = 0; at < patch.byte_length(); at += page)
          seen += static_cast<unsigned char>(bytes[patch.file_offset + at]);
      };
      if (!run_guarded(look))
        damage("bricks", patch.file_offset,
               "patch " + std::to_string(patch.id) + " cannot be read");
    });
  }

  // ---- What belongs to nobody ----

  void check_free_space() {
    if (std::find(names_.begin(), names_.end(), clean_note) == names_.end()) return;
    if (!at_rest_.damage.empty()) return;
    for (const Interval& gap : gaps_)
      if (!is_zero(at_rest_.brick_file, gap))
        add(Kind::waste, "bricks", gap.begin, "there are bytes that belong to no box");
    snapshot().boxes.for_all([&](const Box& box) {
      bool is_told = false;  // once a box
      for (std::uint64_t slot = 0; slot < box.slots(); ++slot) {
        if ((box.committed() >> slot & 1) != 0) continue;
        for_slot_ranges(box, slot, 1, [&](std::uint64_t offset, std::uint64_t length) {
          if (is_told || is_zero(at_rest_.brick_file, {offset, offset + length})) return;
          is_told = true;
          add(Kind::waste, "bricks", offset,
              "a free slot of box " + std::to_string(box.id) + " is not zero");
        });
      }
    });
    const auto heap = PosixFile::open_at(directory_, "heap", O_RDONLY);
    if (heap.ok() && !is_zero(*heap, {at_rest_.heap_used, at_rest_.heap_bytes}))
      add(Kind::waste, "heap", at_rest_.heap_used, "there are bytes that no frame refers to");
  }

  // Looks at what is no hole. A range that cannot be read is not known to be.
  static bool is_zero(const PosixFile& file, Interval range) {
    std::vector<std::byte> bytes(std::min<std::uint64_t>(range.length(), 1 << 20));
    for (;;) {
      const off_t data = ::lseek(file.fd(), static_cast<off_t>(range.begin), SEEK_DATA);
      if (data < 0 && errno != ENXIO) return false;
      if (data < 0 || static_cast<std::uint64_t>(data) >= range.end) return true;
      range.begin = static_cast<std::uint64_t>(data);
      const std::span<std::byte> piece(bytes.data(),
                                       std::min<std::uint64_t>(range.length(), bytes.size()));
      if (!file.read(range.begin, piece).ok()) return false;
      if (std::any_of(piece.begin(), piece.end(), [](std::byte b) { return b != std::byte{0}; }))
        return false;
      range.begin += piece.size();
    }
  }

  static constexpr std::uint64_t page = 4096;

  const PosixFile& directory_;
  CubeReport report_;
  std::vector<std::string> names_;
  CubeAtRest at_rest_;
  std::shared_ptr<const std::byte> bricks_;  // none: they cannot be read
  std::vector<Interval> gaps_;               // between and behind boxes in the brick file
  BoxIndex held_;                            // slots of live and removed frames as written
  BoxIndex poked_;                           // poked slots as written
  std::map<std::uint64_t, Slots> slots_;     // by box: those that frames have
  bool runs_known_ = false;                  // those of all frames
  std::vector<std::vector<Run>> live_;       // by axis: coordinates of live frames,
  std::vector<std::vector<Run>> held_runs_;  // and of all
  std::string trouble_;                      // with elements that are being looked at
  Interval troubled_;
};

}  // namespace

bool CubeReport::is_damaged() const {
  return std::any_of(findings.begin(), findings.end(),
                     [](const Finding& finding) { return finding.kind == Finding::Kind::damage; });
}

Result<CubeReport> check_cube(const PosixFile& directory) {
  return Checking(directory).run();
}

}  // namespace accrete
