// Stores as they may be found on a disk. An input is changes of a store that has seen everything
// (frames at all sides, removals, pokes, a replaced view): its first byte says after how many
// records the checkpoint was made, then come changes of the checkpoint and of the records of the
// journal behind it. The checksums are made anew, so that what the changed rows say is what is
// read; only changes that come last are made to the finished files.
//
// A store that opens can be read whole; a frame can be appended, or is refused and changes nothing;
// closed and opened again it has the same values, names and properties.
#include <fcntl.h>
#include <sys/resource.h>

#include <csignal>
#include <optional>
#include <vector>

#include "core/checkpoint.h"
#include "core/checksum.h"
#include "core/journal.h"
#include "core/row_codec.h"
#include "core/view_header.h"
#include "tests/fuzz/store_files.h"

namespace accrete::fuzzing {
namespace {

constexpr std::uint64_t cube_uid = 0x1234;
constexpr std::size_t checkpoint_head = 128;
constexpr std::uint64_t most_elements = 1 << 14;  // of a view that is read whole
constexpr rlim_t most_file = rlim_t{64} << 20;    // bytes of a file

struct Record {
  RecordKind kind = RecordKind::delta;
  std::string body;  // of a delta
};

// ---- The store that is changed ----

class Fill final : public ElementEdit {
 public:
  Fill(std::size_t bytes, std::byte value) : bytes_(bytes), value_(value) {}
  Status apply(const std::byte*, std::byte* now) override {
    std::fill(now, now + bytes_, value_);
    return {};
  }
  bool leaves(std::uint64_t, const std::byte*) const override { return false; }

 private:
  const std::size_t bytes_;
  const std::byte value_;
};

std::vector<std::byte> counting(std::size_t bytes, unsigned from) {
  std::vector<std::byte> values(bytes);
  for (std::size_t i = 0; i < bytes; ++i) values[i] = static_cast<std::byte>(from + i);
  return values;
}

std::string card(std::string text) {
  text.resize(80, ' ');
  return text;
}

void must(const Status& status) {
  ACCRETE_HOLDS(status.ok());
}

template <class T>
T must(Result<T> result) {
  ACCRETE_HOLDS(result.ok());
  return std::move(result).value();
}

void sync(Store& store) {
  must(store.sync());
}

// Of 16-bit integers, 3 × 2 and more, with frames along all axes.
void fill_store(Store& store, Cube& cube) {
  const auto fits = [](const Shape& shape, unsigned from) {
    const std::uint64_t count = *checked_product({shape.begin(), shape.size()});
    return file_of(FormatId::fits, DType::i16, shape, counting(2 * count, from),
                   {card("CTYPE1  = 'RA---TAN'"), card("CRPIX1  = 1.5"), card("OBJECT  = 'M42'")});
  };
  const auto npy = [](const Shape& shape, unsigned from) {
    const std::uint64_t count = *checked_product({shape.begin(), shape.size()});
    return file_of(FormatId::npy, DType::i16, shape, counting(2 * count, from));
  };
  must(put(cube, "a.fits", fits({3, 2}, 1)));
  must(put(cube, "b.fits", fits({3, 2}, 21)));
  must(cube.set_property("header", "OBSERVER= 'me'\nCRVAL3  = 5\n"));
  sync(store);
  must(put(cube, "c.npy", npy({2, 2}, 41), through(Side::prepend)));
  must(put(cube, "d.npy", npy({1, 2, 2}, 61), through(Side::append, 0)));
  must(put(cube, "e.fits", fits({3, 3}, 81), through(Side::insert, {}, 1)));
  const auto poke = [&](std::uint64_t from, std::uint64_t to) {
    const Pinned pinned = cube.pin();
    const View view = must(View::whole(pinned->axes));
    Fill edit(2 * (to - from), std::byte{7});
    RecentValues::Ticket former;
    must(cube.poke(pinned, view, {from, to}, edit, {}, former));
  };
  poke(0, 3);
  const std::uint64_t count = must(View::whole(cube.pin()->axes)).element_count();
  poke(count - 6, count);
  sync(store);
  must(cube.remove_frame("b.fits", "b.fits"));
  must(cube.remove_frame("c.npy", "gone.npy"));
  sync(store);
  must(cube.discard_frame("gone.npy"));
  must(cube.restore_frame("b.fits", "b.fits"));
  must(cube.set_property("order", "name"));
  sync(store);
  must(cube.remove_frame("a.fits", "a.fits"));
  must(cube.set_frame_cards(*cube.find_frame("e.fits"), {card("OBJECT  = 'M43'")}));
  const Pinned pinned = cube.pin();
  PerAxis<ViewAxis> plane = {{1, {0, pinned->axes[1].extent()}}, {0, {0, 3}}};
  const View view = must(View::make(pinned->axes, plane, {0, 0, 1}));
  const PosixFile elements = must(cube.temporary_file());
  must(elements.write(0, counting(2 * view.element_count(), 101)));
  RecentValues::Ticket former;
  must(cube.replace(pinned, view, elements, former));
}

// Without what is another in each run.
std::string without_times(std::string_view body) {
  Delta delta = must(decode_delta(as_bytes(body)));
  for (FrameRow& row : delta.frames) {
    row.mtime_ns = row.arrival_ns = 0;
    row.uid = row.gid = 0;
  }
  if (delta.definition) delta.definition->poked_ns = 0;
  ByteWriter out;
  encode(out, delta);
  return out.take();
}

struct Original {
  Scratch scratch;
  std::filesystem::path path = scratch.path() / "store";
  std::vector<Record> records;
  std::vector<std::string> checkpoints;  // before each record, and behind the last one
  std::string heap, bricks;

  Original() {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{most_file, most_file};
    ACCRETE_HOLDS(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
    CubeFiles files;
    std::uint64_t uid = 0;
    {
      const OpenStore open = OpenStore::create(path);
      fill_store(*open.store, *open.cube);
      files = read_cube(path);  // not closed: some records have no mark
      uid = open.cube->uid();
    }
    heap = files.heap;
    bricks = files.bricks;
    const JournalScan scan = scan_journal(as_bytes(files.journal), uid, 1);
    auto snapshot = std::make_shared<const Snapshot>();
    keep_checkpoint(*snapshot);
    for (const RecordView& record : scan.records) {
      if (record.kind == RecordKind::delta) {
        records.push_back({record.kind, without_times(as_text(record.body))});
        snapshot = must(apply(*snapshot, must(decode_delta(as_bytes(records.back().body)))));
      } else {
        records.push_back({record.kind, {}});
      }
      keep_checkpoint(*snapshot);
    }
  }

 private:
  // Without its checksum.
  void keep_checkpoint(const Snapshot& snapshot) {
    const PosixFile directory =
        must(PosixFile::open(scratch.path().c_str(), O_RDONLY | O_DIRECTORY));
    must(write_checkpoint(directory, 1, {cube_uid, 0, 0, 0}, snapshot));
    std::string bytes = read_file(scratch.path() / checkpoint_name(1));
    bytes.resize(bytes.size() - 8);
    checkpoints.push_back(std::move(bytes));
  }
};

// ---- Changes ----

std::size_t place_in(std::uint64_t number, std::size_t size) {
  return size == 0 ? 0 : static_cast<std::size_t>(number % size);
}

// One change of a row or record.
void change_bytes(Input& input, std::string& bytes) {
  const unsigned how = input.take<std::uint8_t>() % 4;
  const std::size_t at = place_in(input.take<std::uint16_t>(), bytes.size() + 1);
  if (how == 0) {  // a number near 0 or near a power of two
    const auto base = static_cast<std::int8_t>(input.take<std::uint8_t>());
    const unsigned shift = input.take<std::uint8_t>();
    const std::uint64_t power = (shift & 0x40) != 0 ? 0 : std::uint64_t{1} << (shift & 0x3f);
    const std::uint64_t number = power + static_cast<std::uint64_t>(std::int64_t{base});
    const std::size_t width = (shift & 0x80) != 0 ? 4 : 8;
    if (at + width <= bytes.size()) std::memcpy(bytes.data() + at, &number, width);
  } else {
    const std::string_view given = input.take_bytes(input.take<std::uint8_t>() % 32);
    if (how == 1) bytes.insert(at, given);
    if (how == 2) bytes.erase(at, given.size());
    if (how == 3) bytes.replace(at, std::min(given.size(), bytes.size() - at), given);
  }
}

// The journal's file; its records follow what the checkpoint says it includes.
std::string journal_of(const std::string& checkpoint, const std::vector<Record>& records,
                       const std::filesystem::path& directory) {
  CheckpointFacts facts;
  if (checkpoint.size() >= checkpoint_head) {
    std::memcpy(&facts.cube, checkpoint.data() + 8, 8);
    std::memcpy(&facts.sequence, checkpoint.data() + 40, 8);
    std::memcpy(&facts.chain, checkpoint.data() + 48, 8);
  }
  const PosixFile parent = must(PosixFile::open(directory.c_str(), O_RDONLY | O_DIRECTORY));
  Journal journal = must(Journal::create(parent, facts.cube, 1, facts.sequence, facts.chain));
  for (const Record& record : records)
    must(record.kind == RecordKind::mark ? journal.append_mark(journal.end())
                                         : journal.append(record.kind, record.body));
  return read_file(directory / journal_name(1)).substr(0, journal.end());
}

CubeFiles files_of(Input input, const Original& original) {
  const unsigned first = input.take<std::uint8_t>();
  const std::size_t included = place_in(first & 0x7f, original.checkpoints.size());
  std::string checkpoint = original.checkpoints[included];
  std::vector<Record> records(original.records.begin() + static_cast<std::ptrdiff_t>(included),
                              original.records.end());
  std::string heap = original.heap, bricks = original.bricks;
  bool is_finished = false;
  while (!input.empty() && !is_finished) {
    const unsigned change = input.take<std::uint8_t>();
    const std::size_t number = input.take<std::uint8_t>();
    const std::size_t i = place_in(number, records.size());
    switch (change % 8) {
      case 0:
        change_bytes(input, checkpoint);
        break;
      case 1:
      case 2:
        if (!records.empty()) change_bytes(input, records[i].body);
        break;
      case 3:
        if (!records.empty()) records.erase(records.begin() + static_cast<std::ptrdiff_t>(i));
        break;
      case 4:
        if (records.size() < 64 && !records.empty()) {
          const Record copy = records[i];
          const std::size_t to = place_in(input.take<std::uint8_t>(), records.size() + 1);
          records.insert(records.begin() + static_cast<std::ptrdiff_t>(to), copy);
        }
        break;
      case 5:
        records.insert(records.begin() + static_cast<std::ptrdiff_t>(i), {RecordKind::mark, {}});
        break;
      case 6:
        change_bytes(input, number % 2 == 0 ? heap : bricks);
        break;
      default:
        is_finished = true;
    }
  }
  const std::uint64_t sum = checksum(as_bytes(checkpoint));
  CubeFiles files;
  files.journal = journal_of(checkpoint, records, original.scratch.path());
  files.checkpoint = checkpoint + std::string(reinterpret_cast<const char*>(&sum), 8);
  files.heap = std::move(heap);
  files.bricks = std::move(bricks);
  files.is_clean = (first & 0x80) != 0;
  while (!input.empty()) {
    std::string* const all[] = {&files.checkpoint, &files.journal, &files.heap, &files.bricks};
    change_bytes(input, *all[input.take<std::uint8_t>() % std::size(all)]);
  }
  return files;
}

// ---- What a store must be good for ----

using Bytes = std::vector<std::byte>;

// Its elements; of a large one the first and the last.
Bytes elements_of(const Cube& cube, const Pinned& pinned, const View& view) {
  const DType type = pinned->definition.coding.type;
  const std::uint64_t count = view.element_count();
  const std::uint64_t some = std::min(count, most_elements);
  Bytes elements(2 * some * size_of(type));
  const auto read = [&](Interval range, std::byte* target) {
    must(cube.read(pinned, view, range, target, native(type)));
  };
  read({0, some}, elements.data());
  read({count - some, count}, elements.data() + some * size_of(type));
  Bytes mask(some);
  cube.read_mask(pinned, view, {0, some}, mask.data());
  for (const std::byte one : mask) ACCRETE_HOLDS(one <= std::byte{1});
  elements.insert(elements.end(), mask.begin(), mask.end());
  return elements;
}

Bytes whole(const Cube& cube) {
  const Pinned pinned = cube.pin();
  const auto view = View::whole(pinned->axes);
  return view.ok() ? elements_of(cube, pinned, *view) : Bytes{};
}

// Everything of the frames that can be read.
std::string frames_of(Cube& cube) {
  const Pinned pinned = cube.pin();
  std::string all;
  for (FrameId id = 1; id <= pinned->frames.count(); ++id) {
    const auto row = pinned->frames.find(id);
    ACCRETE_HOLDS(row && row->id == id);
    all += std::to_string(id) + " " + std::to_string(static_cast<int>(row->state)) + "\n";
    if (row->state == FrameState::gone) continue;
    all += cube.frame_name(*row) + "\n";
    if (const auto headers = cube.frame_headers(*row); headers.ok())
      all += headers->primary + headers->image;
    for (const std::string& one : cube.frame_cards(*row)) all += one;
    if (row->state != FrameState::live) continue;
    const auto view = cube.frame_view(*row);
    if (!view.ok()) continue;
    all += as_text(elements_of(cube, pinned, *view));
    for (const std::string& one : view_cards(cube, *pinned.snapshot, *view)) all += one;
  }
  if (const auto view = View::whole(pinned->axes); view.ok())
    for (const std::string& one : view_cards(cube, *pinned.snapshot, *view)) all += one;
  return all;
}

void append_a_frame(Cube& cube) {
  const Pinned before = cube.pin();
  const auto view = View::whole(before->axes);
  const Bytes old = view.ok() ? elements_of(cube, before, *view) : Bytes{};
  const DType type = before->definition.defined ? before->definition.coding.type : DType::i16;
  const Bytes elements = counting(6 * size_of(type), 0);
  const std::string name = "appended.npy";
  const auto id = put(cube, name, file_of(FormatId::npy, type, {3, 2}, elements));
  if (view.ok()) ACCRETE_HOLDS(elements_of(cube, before, *view) == old);
  if (!id.ok()) {
    ACCRETE_HOLDS(whole(cube) == old);
    return;
  }
  const auto row = cube.pin()->frames.find(*id);
  ACCRETE_HOLDS(row && row->state == FrameState::live && cube.frame_name(*row) == name);
  ACCRETE_HOLDS(cube.find_frame(name) == *id);
  const View added = must(cube.frame_view(*row));
  Bytes read(elements.size());
  must(cube.read(cube.pin(), added, {0, 6}, read.data(), native(type)));
  ACCRETE_HOLDS(read == elements);
}

void run(Input input) {
  static const Original original;
  write_store(original.path, files_of(input, original));
  std::optional<Bytes> values;
  std::string frames;
  std::vector<std::pair<std::string, std::string>> properties;
  bool read_only = false;
  {
    auto open = OpenStore::open(original.path);
    if (!open.ok()) {
      ACCRETE_HOLDS(!open.error().sentence.empty());
      return;
    }
    Cube& cube = *open->cube;
    (void)whole(cube);
    (void)frames_of(cube);
    (void)cube.common_cards();
    append_a_frame(cube);
    (void)open->store->sync();
    values = whole(cube);
    frames = frames_of(cube);
    properties = properties_of(cube);
    read_only = cube.read_only();
  }
  const auto again = OpenStore::open(original.path);
  ACCRETE_HOLDS(again.ok());
  ACCRETE_HOLDS(again->cube->read_only() == read_only);
  ACCRETE_HOLDS(whole(*again->cube) == *values);
  ACCRETE_HOLDS(frames_of(*again->cube) == frames);
  ACCRETE_HOLDS(properties_of(*again->cube) == properties);
}

}  // namespace
}  // namespace accrete::fuzzing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  accrete::fuzzing::run({data, size});
  return 0;
}
