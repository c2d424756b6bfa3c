// Makes a store of random cubes and, beside it, what a reader must find in them.
//
//   make_store STORE EXPECTED SEED [LIVE_COPY]
//   make_store STORE READ
//
// EXPECTED/CUBE.npy is the whole cube, EXPECTED/CUBE/FRAME each frame's file as it came in.
// LIVE_COPY is a copy of the store taken before it was closed, some of its records not yet synced.
// READ gets what core finds in a store that is there, in the form of EXPECTED.
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>

#include "core/format.h"
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

void write_file(const fs::path& path, std::string_view bytes) {
  std::ofstream out(path, std::ios::binary);
  out << bytes;
  if (!out.flush()) must(Status(fail(std::errc::io_error, "cannot write " + path.string())));
}

std::uint64_t count_of(const Shape& shape) {
  return must(checked_product({shape.begin(), shape.size()}));
}

// Each cube as NPY, each of its live frames as `file_of` gives it.
void write_arrays(Store& store, const fs::path& target,
                  const std::function<std::string(const Cube&, const FrameRow&)>& file_of) {
  for (const std::string& name : store.names()) {
    const std::shared_ptr<Cube> c = must(store.find(name));
    const Pinned pinned = c->pin();
    if (!pinned->definition.defined) continue;
    const View whole = must(View::whole(pinned->axes));
    write_file(target / (name + ".npy"),
               testing::frame_file(FormatId::npy, pinned->definition.coding.type, whole.shape(),
                                   testing::read_all(*c, whole)));
    fs::create_directories(target / name);
    for (FrameId id = 1; id <= pinned->frames.count(); ++id) {
      const FrameRow row = *pinned->frames.find(id);
      if (row.state != FrameState::live) continue;
      write_file(target / name / c->frame_name(row), file_of(*c, row));
    }
  }
}

// The file that a frame came as, put together again.
std::string file_of_frame(const Cube& cube, const FrameRow& row) {
  const View view = must(cube.frame_view(row));
  std::string data(row.layout.data_bytes, '\0');
  must(cube.read(cube.pin(), view, {0, view.element_count()},
                 reinterpret_cast<std::byte*>(data.data()), row.layout.coding));
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

  void put(const std::string& name, const std::string& frame, const std::string& file) {
    const FrameId id = must(testing::put(*cube(name), frame, file));
    files_[name][id] = file;
  }

  // FITS or NPY; an NPY file may be in Fortran order (its elements then mean another array).
  std::string random_file(DType type, const Shape& extent) {
    const auto elements = testing::random_elements(random_, type, count_of(extent));
    if (below(2) == 0) return testing::frame_file(FormatId::fits, type, extent, elements);
    std::string file = testing::frame_file(FormatId::npy, type, extent, elements);
    if (below(2) == 0) file.replace(file.find("False"), 5, "True ");
    return file;
  }

  // Frames of several extents along changing axes, some of them rewritten after their commit.
  void make_random(DType type, std::size_t rank) {
    const std::string name = "r" + std::to_string(rank) + "-" + std::string(name_of(type));
    const std::string letters = std::string("xyztsuvw").substr(0, rank);
    must(cube(name)->set_property("axes", letters));
    Shape base;
    for (std::size_t a = 0; a < rank; ++a)
      base.push_back(1 + below(rank == 1 ? 300 : rank == 2 ? 20 : rank <= 4 ? 5 : 2));
    for (int f = 0; f < 16; ++f) {
      if (below(3) == 0) must(cube(name)->set_property("grow", letters.substr(below(rank), 1)));
      if (below(8) == 0) must(store_->sync());
      if (f == 8) reopen();
      Shape extent = base;
      if (below(3) == 0) extent[below(rank)] = 1 + below(2 * base[0] + 3);
      // A name that is taken already goes to the newer frame.
      const std::string frame = "f" + std::to_string(below(12) == 0 ? f / 2 : f);
      if (f > 0 && below(4) == 0) {
        rewrite(name, frame, type, extent);
      } else if (f > 0 && below(6) == 0) {
        const Shape last = cube(name)->pin()->frames.find(cube(name)->pin()->newest)->extent;
        put(name, frame,
            testing::frame_file(FormatId::raw, type, last,
                                testing::random_elements(random_, type, count_of(last))));
      } else {
        put(name, frame, random_file(type, extent));
      }
    }
  }

  // Commits a frame and, with another one behind it perhaps, replaces its elements.
  void rewrite(const std::string& name, const std::string& frame, DType type, const Shape& extent) {
    const std::shared_ptr<Cube> c = cube(name);
    IngestRequest request;
    request.name = frame;
    const auto ingest = must(c->begin_ingest(request));
    must(ingest->write(0, as_bytes(random_file(type, extent))));
    (void)must(ingest->commit());
    if (below(2) == 0) put(name, frame + "-after", random_file(type, extent));
    const std::string file = random_file(type, extent);
    must(ingest->truncate(0));
    must(ingest->write(0, as_bytes(file)));
    files_[name][must(ingest->commit())] = file;
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

  // More than one journal: a checkpoint, and records behind it.
  void make_many() {
    for (unsigned f = 0; f < 470; ++f) {
      if (f == 450) reopen();
      const Shape plane{4, 3};
      put("many", std::to_string(f),
          testing::frame_file(FormatId::npy, DType::u16, plane,
                              testing::random_elements(random_, DType::u16, count_of(plane))));
    }
  }

  const fs::path path_;
  const fs::path expected_;
  const std::uint64_t seed_;
  std::mt19937_64 random_;
  std::unique_ptr<Store> store_;
  std::map<std::string, std::map<FrameId, std::string>> files_;
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
