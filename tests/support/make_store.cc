// Makes a store of random cubes and, beside it, what a reader must find in them.
//
//   make_store STORE EXPECTED SEED [LIVE_COPY]
//   make_store STORE READ
//
// In EXPECTED/CUBE, for each cube that is defined: cube.npy, the whole cube; mask.npy, 1 where a
// frame gave the element; frames/FRAME and removed/FRAME, each frame's file as it came in.
// LIVE_COPY is a copy of the store taken before it was closed, some of its records not yet synced.
// READ gets what core finds in a store that is there, in the form of EXPECTED.
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>

#include "core/format.h"
#include "core/linearize.h"
#include "tests/core/store_fixture.h"

namespace accrete {
namespace {

namespace fs = std::filesystem;

// Ends the program when a call of core fails: there is nothing to make then.
template <class T>
T must(Result<T> result) {
  if (result.ok()) return std::move(result).value();
  std::cerr << "make_store: " << result.error().sentence << "\n";
  std::exit(1);
}
void must(const Status& status) {
  if (status.ok()) return;
  std::cerr << "make_store: " << status.error().sentence << "\n";
  std::exit(1);
}

constexpr std::uint64_t largest_random = 1 << 17;  // elements up to which a random cube may grow

void write_file(const fs::path& path, std::string_view bytes) {
  std::ofstream out(path, std::ios::binary);
  out << bytes;
  if (!out.flush()) must(Status(fail(std::errc::io_error, "cannot write " + path.string())));
}

std::uint64_t count_of(const Shape& shape) {
  return must(checked_product({shape.begin(), shape.size()}));
}

// Each cube and its mask as NPY, each of its frames as `file_of` gives it.
void write_arrays(Store& store, const fs::path& target,
                  const std::function<std::string(const Cube&, const FrameRow&)>& file_of) {
  for (const std::string& name : store.names()) {
    const std::shared_ptr<Cube> c = must(store.find(name));
    const Pinned pinned = c->pin();
    if (!pinned->definition.defined) continue;
    const fs::path directory = target / name;
    fs::create_directories(directory / "frames");
    fs::create_directories(directory / "removed");
    const Shape shape = pinned->shape();
    std::vector<std::byte> elements;
    std::vector<std::byte> mask(count_of(shape));
    if (!mask.empty()) {  // a cube without indexes has no views
      const View whole = must(View::whole(pinned->axes));
      elements = testing::read_all(*c, whole);
      gather_mask(whole, pinned->boxes, {0, mask.size()}, mask.data());
    }
    const DType type = pinned->definition.coding.type;
    write_file(directory / "cube.npy", testing::frame_file(FormatId::npy, type, shape, elements));
    write_file(directory / "mask.npy", testing::frame_file(FormatId::npy, DType::u8, shape, mask));
    for (FrameId id = 1; id <= pinned->frames.count(); ++id) {
      const FrameRow row = *pinned->frames.find(id);
      if (row.state == FrameState::gone) continue;
      const char* const state = row.state == FrameState::live ? "frames" : "removed";
      write_file(directory / state / c->frame_name(row), file_of(*c, row));
    }
  }
}

// The file that a frame came as, put together again.
std::string file_of_frame(const Cube& cube, const FrameRow& row) {
  const View view = must(cube.frame_view(row));
  Pinned pinned = cube.pin();
  if (row.state == FrameState::removed) pinned = must(cube.show_removed(pinned, row));
  std::string data(row.layout.data_bytes, '\0');
  must(cube.read(pinned, view, {0, view.element_count()}, reinterpret_cast<std::byte*>(data.data()),
                 row.layout.coding));
  return must(cube.frame_prefix(row)) + data + must(cube.frame_suffix(row));
}

class Maker {
 public:
  Maker(fs::path store, fs::path expected, std::uint64_t seed)
      : path_(std::move(store)), expected_(std::move(expected)), seed_(seed), random_(seed) {
    open();
  }

  // Every type; the ranks one to eight turn with the seed.
  void make_all() {
    std::uint64_t turn = seed_;
    for (const DType type : all_dtypes) make_random(type, 1 + turn++ % max_rank);
    make_large();
    make_many();
    make_again();
    make_hidden();
    must(cube("empty")->set_property("axes", "x y f"));
    must(cube("empty")->set_property("pad", "7"));
  }
  void copy_open_store(const fs::path& target) const {
    fs::copy(path_, target, fs::copy_options::recursive);
  }
  void close() { store_.reset(); }

  void write_expected() const {
    write_arrays(*store_, expected_, [&](const Cube& c, const FrameRow& row) {
      return files_.at(c.name()).at(row.id);
    });
  }

 private:
  void open() { store_ = must(Store::open(path_.string(), {})); }
  void reopen() {
    store_.reset();
    open();
  }
  std::shared_ptr<Cube> cube(const std::string& name) {
    auto found = store_->find(name);
    return found.ok() ? std::move(found).value() : must(store_->create(name));
  }
  std::uint64_t below(std::uint64_t n) { return random_() % n; }

  void put(const std::string& name, const std::string& frame, const std::string& file,
           IngestRequest request = {}) {
    const FrameId id = must(testing::put(*cube(name), frame, file, std::move(request)));
    files_[name][id] = file;
  }
  std::string random_npy(DType type, const Shape& extent) {
    return testing::frame_file(FormatId::npy, type, extent,
                               testing::random_elements(random_, type, count_of(extent)));
  }

  // FITS or NPY; an NPY file may be in Fortran order (its elements then mean another array).
  std::string random_file(DType type, const Shape& extent) {
    if (below(2) == 0)
      return testing::frame_file(FormatId::fits, type, extent,
                                 testing::random_elements(random_, type, count_of(extent)));
    std::string file = random_npy(type, extent);
    if (below(2) == 0) file.replace(file.find("False"), 5, "True ");
    return file;
  }

  // A door at random: any side of any axis.
  IngestRequest random_door(const std::string& name) {
    IngestRequest request;
    const Pinned now = cube(name)->pin();
    if (!now->definition.defined) return request;
    const std::size_t rank = now->definition.rank;
    if (below(3) != 0) request.axis = below(rank);
    const std::size_t axis = request.axis.value_or(now->grow_axis());
    if (axis == now->grow_axis() && !now->definition.settings.order.empty()) return request;
    request.side = static_cast<Side>(below(3));
    if (request.side == Side::insert) request.at = below(now->axes[axis].extent() + 1);
    return request;
  }

  // A frame's row at random; nothing when none is in that state.
  std::optional<FrameRow> random_frame(const std::string& name, FrameState state) {
    const Pinned now = cube(name)->pin();
    const auto ids = now->frames_in_order(state == FrameState::removed);
    if (ids.empty()) return std::nullopt;
    return now->frames.find(ids[below(ids.size())]);
  }

  void take_out(const std::string& name) {
    const auto row = random_frame(name, FrameState::live);
    if (!row) return;
    const std::string frame = cube(name)->frame_name(*row);
    must(cube(name)->remove_frame(frame, frame));
  }
  void bring_back(const std::string& name) {
    const auto row = random_frame(name, FrameState::removed);
    if (!row) return;
    const std::string frame = cube(name)->frame_name(*row);
    must(cube(name)->restore_frame(frame, below(3) == 0 ? fresh_name() : frame));
  }
  void discard(const std::string& name) {
    if (const auto row = random_frame(name, FrameState::removed))
      must(cube(name)->discard_frame(cube(name)->frame_name(*row)));
  }
  // To a name of its own, or, for a live one, to that of another, which goes.
  void rename(const std::string& name) {
    const auto row = random_frame(name, below(4) == 0 ? FrameState::removed : FrameState::live);
    if (!row) return;
    std::string to = fresh_name();
    if (row->state == FrameState::live && below(2) == 0) {
      const auto other = random_frame(name, below(2) == 0 ? FrameState::removed : FrameState::live);
      if (other && other->grow_axis == row->grow_axis) to = cube(name)->frame_name(*other);
    }
    must(cube(name)->rename_frame(cube(name)->frame_name(*row), to));
  }
  std::string fresh_name() {
    return "n" + std::to_string(below(1000)) + "-" + std::to_string(++names_);
  }

  // Frames of several extents through all doors; some of them rewritten after their commit, taken
  // out, brought back, renamed, replaced or gone for good. Some cubes are sorted by name, from the
  // beginning or later.
  void make_random(DType type, std::size_t rank) {
    const std::string name = "r" + std::to_string(rank) + "-" + std::string(name_of(type));
    const std::string letters = std::string("xyztsuvw").substr(0, rank);
    must(cube(name)->set_property("axes", letters));
    const bool is_sorted = type == DType::f32 || below(3) == 0;
    if (is_sorted && below(2) == 0) must(cube(name)->set_property("order", "name"));
    Shape base;
    for (std::size_t a = 0; a < rank; ++a)
      base.push_back(1 + below(rank == 1 ? 300 : rank == 2 ? 20 : rank <= 4 ? 5 : 2));
    for (int f = 0; f < 32; ++f) {
      if (below(4) == 0) must(cube(name)->set_property("grow", letters.substr(below(rank), 1)));
      if (below(8) == 0) must(store_->sync());
      if (below(12) == 0) reopen();
      if (f == 16 && is_sorted) must(cube(name)->set_property("order", "name"));
      Shape extent = base;
      if (below(3) == 0) extent[below(rank)] = 1 + below(2 * base[0] + 3);
      // A name that is taken already goes to the newer frame.
      const std::string frame = "f" + std::to_string(below(12) == 0 ? f / 2 : f);
      const Pinned now = cube(name)->pin();
      const bool is_large = count_of(now->shape()) > largest_random;
      switch (f == 0 ? 9 : below(is_large ? 6 : 16)) {
        case 0:
        case 1:
        case 2:
          take_out(name);
          break;
        case 3:
          bring_back(name);
          break;
        case 4:
          discard(name);
          break;
        case 5:
          rename(name);
          break;
        case 6:
          rewrite(name, frame, type, extent);
          break;
        case 7:
          replace(name, type, extent);
          break;
        case 8:
          if (now->newest == 0) break;
          extent = now->frames.find(now->newest)->extent;
          put(name, frame,
              testing::frame_file(FormatId::raw, type, extent,
                                  testing::random_elements(random_, type, count_of(extent))),
              random_door(name));
          break;
        default:
          put(name, frame, random_file(type, extent), random_door(name));
      }
    }
  }

  // Commits a frame and, with another one behind it perhaps, replaces its elements.
  void rewrite(const std::string& name, const std::string& frame, DType type, const Shape& extent) {
    IngestRequest request = random_door(name);
    request.name = frame;
    const auto ingest = must(cube(name)->begin_ingest(request));
    must(ingest->write(0, as_bytes(random_file(type, extent))));
    (void)must(ingest->commit());
    if (below(2) == 0) put(name, frame + "-after", random_file(type, extent), random_door(name));
    write_again(*ingest, name, random_file(type, extent));
  }

  // A frame that comes in under another name and takes the place of one that is there.
  void replace(const std::string& name, DType type, const Shape& extent) {
    const auto row = random_frame(name, below(3) == 0 ? FrameState::removed : FrameState::live);
    if (!row) return;
    IngestRequest request;
    request.name = ".temporary";
    const auto ingest = must(cube(name)->begin_ingest(request));
    must(ingest->set_name(cube(name)->frame_name(*row), true));
    write_again(*ingest, name, random_file(type, extent));
  }

  void write_again(Ingest& ingest, const std::string& name, const std::string& file) {
    must(ingest.truncate(0));
    must(ingest.write(0, as_bytes(file)));
    files_[name][must(ingest.commit())] = file;
  }

  // Several bricks a layer, several chunks of checksums a frame; data that compress well.
  void make_large() {
    const Shape plane{700, 600};
    for (unsigned f = 0; f < 4; ++f) {
      std::vector<std::byte> elements(count_of(plane) * 4);
      for (std::size_t i = 0; i < elements.size(); i += 4)
        elements[i] = static_cast<std::byte>(i / 4 % plane[0]),
        elements[i + 1] = static_cast<std::byte>(i / 4 / plane[0] + f);
      put("large", std::to_string(f) + ".fits",
          testing::frame_file(FormatId::fits, DType::f32, plane, elements));
    }
  }

  // More than one journal: a checkpoint with frames in all states, and records behind it.
  void make_many() {
    const Shape plane{4, 3};
    for (unsigned f = 0; f < 470; ++f) {
      if (f == 450) reopen();
      IngestRequest request;
      if (f / 50 % 3 == 1) request.side = Side::prepend;
      put("many", std::to_string(f), random_npy(DType::u16, plane), request);
      if (f >= 449) continue;
      if (f % 8 == 0) take_out("many");
      if (f % 16 == 5) bring_back("many");
      if (f % 32 == 9) discard("many");
    }
  }

  // A cube whose last frame went, defined anew with another type and rank.
  void make_again() {
    put("again", "a", random_npy(DType::u16, {5, 4, 3, 2}));
    put("again", "b", random_npy(DType::u16, {7, 4}));
    for (int n = 0; n < 2; ++n) take_out("again");
    for (int n = 0; n < 2; ++n) discard("again");
    put("again", "c", random_npy(DType::f64, {6, 5}));
  }

  // All that it had is taken out; so it has axes and coordinates, but no index.
  void make_hidden() {
    put("hidden", "a", random_npy(DType::i16, {5, 4}));
    put("hidden", "b", random_npy(DType::i16, {3, 6}));
    for (int n = 0; n < 2; ++n) take_out("hidden");
  }

  const fs::path path_;
  const fs::path expected_;
  const std::uint64_t seed_;
  std::mt19937_64 random_;
  std::unique_ptr<Store> store_;
  std::map<std::string, std::map<FrameId, std::string>> files_;
  unsigned names_ = 0;
};

}  // namespace
}  // namespace accrete

int main(int argc, char** argv) {
  if (argc < 3 || argc > 5) {
    std::cerr << "usage: make_store STORE EXPECTED SEED [LIVE_COPY] | make_store STORE READ\n";
    return 2;
  }
  std::filesystem::create_directories(argv[2]);
  if (argc == 3) {
    const auto store = accrete::must(accrete::Store::open(argv[1], {}));
    accrete::write_arrays(*store, argv[2], accrete::file_of_frame);
    return 0;
  }
  accrete::Maker maker(argv[1], argv[2], std::strtoull(argv[3], nullptr, 10));
  maker.make_all();
  maker.write_expected();
  if (argc == 5) maker.copy_open_store(argv[4]);
  maker.close();
  return 0;
}
