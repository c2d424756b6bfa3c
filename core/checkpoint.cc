#include "core/checkpoint.h"

#include <fcntl.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "core/checksum.h"
#include "core/fault_guard.h"
#include "core/row_codec.h"

namespace accrete {

namespace {

constexpr std::string_view file_magic = "ACRCKPT1";
constexpr std::size_t header_bytes = 128;
constexpr std::size_t run_row_bytes = 24;
constexpr std::size_t flush_step = 1 << 20;
constexpr const char* temporary_name = "checkpoint.new";

// Writes through a buffer and sums what it writes.
class Sink {
 public:
  explicit Sink(const PosixFile& file) : file_(file) {}

  ByteWriter& out() { return out_; }
  Status flush(std::size_t at_least) {
    if (out_.size() < at_least) return {};
    sum_.add(as_bytes(out_.bytes()));
    ACCRETE_CHECK(file_.write(offset_, as_bytes(out_.bytes())));
    offset_ += out_.size();
    out_ = ByteWriter();
    return {};
  }
  Status finish() {
    ACCRETE_CHECK(flush(0));
    out_.put(sum_.sum64());
    return file_.write(offset_, as_bytes(out_.bytes()));
  }

 private:
  const PosixFile& file_;
  ByteWriter out_;
  Checksummer sum_;
  std::uint64_t offset_ = 0;
};

struct RunRow {
  std::uint32_t axis;
  std::uint32_t flags;
  Run run;
};

constexpr std::uint32_t dormant_flag = 1;
constexpr std::uint32_t used_flag = 2;  // no piece of the axis, but what it ever had

Error damaged(const std::string& name, const char* what) {
  return fail(std::errc::io_error, name + " is damaged: " + what);
}

}  // namespace

std::string checkpoint_name(std::uint64_t generation) {
  char name[32];
  std::snprintf(name, sizeof name, "checkpoint.%06llu",
                static_cast<unsigned long long>(generation));
  return name;
}

namespace {

Result<CheckpointRows> write_tables(const PosixFile& directory, std::uint64_t generation,
                                    const CheckpointFacts& facts, const Snapshot& snapshot) {
  std::vector<RunRow> runs;
  for (std::uint32_t a = 0; a < snapshot.axes.size(); ++a) {
    const Axis& axis = snapshot.axes[a];
    if (axis.used().length > 0) runs.push_back({a, used_flag, axis.used()});
    for (const Axis::Piece& piece : axis.pieces())
      runs.push_back({a, piece.dormant ? dormant_flag : 0, piece.run});
  }
  ByteWriter definition;
  encode(definition, snapshot.definition);
  definition.pad_to(8);

  ACCRETE_TRY(const PosixFile file,
              PosixFile::open_at(directory, temporary_name, O_RDWR | O_CREAT | O_TRUNC, 0600));
  Sink sink(file);
  ByteWriter& out = sink.out();
  out.put_raw(file_magic);
  out.put(facts.cube);
  out.put(generation);
  out.put(facts.created_ns);
  out.put(snapshot.generation);
  out.put(facts.sequence);
  out.put(facts.chain);
  out.put(static_cast<std::uint64_t>(definition.size()));
  out.put(static_cast<std::uint64_t>(runs.size()));
  out.put(static_cast<std::uint64_t>(snapshot.boxes.size()));
  out.put(snapshot.frames.count());
  out.put(static_cast<std::uint64_t>(snapshot.patches.size()));
  out.pad_to(header_bytes);
  out.put_raw(definition.bytes());
  for (const RunRow& row : runs) {
    out.put(row.axis);
    out.put(row.flags);
    out.put(row.run.first);
    out.put(row.run.length);
  }
  Status status;
  for (const BoxIndex* boxes : {&snapshot.boxes, &snapshot.patches})
    boxes->for_all([&](const Box& box) {
      encode(sink.out(), box);
      if (status.ok()) status = sink.flush(flush_step);
    });
  ACCRETE_CHECK(status);
  for (FrameId id = 1; id <= snapshot.frames.count(); ++id) {
    const auto row = snapshot.frames.find(id);
    if (!row) return fail(std::errc::io_error, "a frame's row is damaged");
    encode(sink.out(), *row);
    ACCRETE_CHECK(sink.flush(flush_step));
  }
  ACCRETE_CHECK(sink.finish());
  ACCRETE_CHECK(file.sync_all());
  ACCRETE_CHECK(rename_at(directory, temporary_name, checkpoint_name(generation), true));
  ACCRETE_CHECK(directory.sync_all());
  ACCRETE_TRY(const std::uint64_t size, file.size());
  ACCRETE_TRY(const auto mapping, map_resident(file, size));
  const std::uint64_t rows_at = size - 8 - snapshot.frames.count() * frame_row_bytes;
  return CheckpointRows{std::shared_ptr<const std::byte>(mapping, mapping.get() + rows_at), size};
}

}  // namespace

Result<CheckpointRows> write_checkpoint(const PosixFile& directory, std::uint64_t generation,
                                        const CheckpointFacts& facts, const Snapshot& snapshot) {
  auto rows = write_tables(directory, generation, facts, snapshot);
  // A full disk needs its space for other things.
  if (!rows.ok()) (void)unlink_at(directory, temporary_name, false);
  return rows;
}

Result<Checkpoint> load_checkpoint(const PosixFile& directory, std::uint64_t generation) {
  const std::string name = checkpoint_name(generation);
  ACCRETE_TRY(const PosixFile file, PosixFile::open_at(directory, name, O_RDONLY));
  ACCRETE_TRY(const std::uint64_t size, file.size());
  if (size < header_bytes + 8) return damaged(name, "too short");
  ACCRETE_TRY(const auto mapping, map_resident(file, size));
  const std::span<const std::byte> bytes(mapping.get(), size);
  std::string first(file_magic.size(), '\0');  // by a read, since the disk may have an error
  ACCRETE_CHECK(file.read(0, std::as_writable_bytes(std::span(first))));
  const std::string_view magic = first;
  if (magic.substr(0, 7) == file_magic.substr(0, 7) && magic != file_magic)
    return fail(std::errc::io_error, name + " was written by a newer version");
  if (magic != file_magic) return damaged(name, "not a checkpoint");
  bool is_whole = false;
  auto compare = [&] {
    ByteReader trailer(bytes.last(8));
    is_whole = trailer.get<std::uint64_t>() == checksum(bytes.first(size - 8));
  };
  if (!run_guarded(compare)) return damaged(name, "it cannot be read");
  if (!is_whole) return damaged(name, "its checksum does not match");

  Checkpoint checkpoint;
  auto snapshot = std::make_shared<Snapshot>();
  ByteReader in(bytes.subspan(file_magic.size(), size - 8 - file_magic.size()));
  checkpoint.facts.cube = in.get<std::uint64_t>();
  if (in.get<std::uint64_t>() != generation) return damaged(name, "of another generation");
  checkpoint.facts.created_ns = in.get<std::int64_t>();
  snapshot->generation = in.get<std::uint64_t>();
  checkpoint.facts.sequence = in.get<std::uint64_t>();
  checkpoint.facts.chain = in.get<std::uint64_t>();
  const auto definition_bytes = in.get<std::uint64_t>();
  const auto run_count = in.get<std::uint64_t>();
  const auto box_count = in.get<std::uint64_t>();
  const auto frame_count = in.get<std::uint64_t>();
  const auto patch_count = in.get<std::uint64_t>();
  in.get_raw(header_bytes - 12 * 8);

  ByteReader definition(in.get_raw(definition_bytes));
  ACCRETE_TRY(snapshot->definition, decode_definition(definition));
  const std::size_t rank = snapshot->definition.defined ? snapshot->definition.rank : 0;
  if (in.remaining() / run_row_bytes < run_count) return damaged(name, "too few runs");
  std::vector<std::vector<Axis::Piece>> pieces(rank);
  std::vector<Run> used(rank);
  for (std::uint64_t i = 0; i < run_count; ++i) {
    const auto axis = in.get<std::uint32_t>();
    const auto flags = in.get<std::uint32_t>();
    const auto first = in.get<std::int64_t>();
    const Run run{first, in.get<std::uint64_t>()};
    if (axis >= rank || flags > used_flag) return damaged(name, "a run of an unknown axis or kind");
    if (flags == used_flag)
      used[axis] = run;
    else
      pieces[axis].push_back({run, flags == dormant_flag});
  }
  for (std::size_t a = 0; a < rank; ++a) {
    ACCRETE_TRY(Axis axis, Axis::from_pieces(pieces[a], used[a]));
    snapshot->axes.push_back(std::move(axis));
  }
  const auto read_boxes = [&](std::uint64_t count, BoxIndex& boxes) -> Status {
    for (std::uint64_t i = 0; i < count && in.good(); ++i) {
      ACCRETE_TRY(const Box box, decode_box(in.get_raw(box_row_bytes)));
      ACCRETE_CHECK(check_box(box, size_of(snapshot->definition.coding.type)));
      ACCRETE_TRY(boxes, boxes.put(box));
    }
    return {};
  };
  ACCRETE_CHECK(read_boxes(box_count, snapshot->boxes));
  ACCRETE_CHECK(read_boxes(patch_count, snapshot->patches));
  if (!in.good() || in.remaining() % frame_row_bytes != 0 ||
      in.remaining() / frame_row_bytes != frame_count)
    return damaged(name, "its tables do not fill it");
  snapshot->frames =
      FrameTable(std::shared_ptr<const std::byte>(mapping, in.rest().data()), frame_count);

  std::vector<Snapshot::Place> places;
  for (FrameId id = 1; id <= frame_count; ++id) {
    const auto row = snapshot->frames.find(id);
    if (!row || row->id != id) return damaged(name, "a frame's row");
    if (row->state == FrameState::gone) continue;
    if (row->extent.size() != rank) return damaged(name, "a frame's row");
    const bool removed = row->state == FrameState::removed;
    places.push_back({row->grow_axis, removed, row->first[row->grow_axis], id});
    if (!removed) snapshot->newest = id;
  }
  std::sort(places.begin(), places.end(), [](const auto& a, const auto& b) {
    return a.axis != b.axis ? a.axis < b.axis : a.first < b.first;
  });
  snapshot->places = decltype(snapshot->places)::from_vector(std::move(places));
  checkpoint.snapshot = std::move(snapshot);
  checkpoint.bytes = size;
  return checkpoint;
}

}  // namespace accrete
