// Makes a store of random cubes and, beside it, what a reader must find in them.
//
//   make_store STORE EXPECTED SEED [LIVE_COPY]
//   make_store STORE READ
//
// In EXPECTED/CUBE, for each cube that is defined: cube.npy, the whole cube; mask.npy, 1 where
// there is data; frames/FRAME and removed/FRAME, each frame's file: as it came in or, where
// meta/residue drops some of that, as it is to be; with its elements as they are where they may
// have been poked. LIVE_COPY is a copy of the store taken before it was closed, some of its records
// not yet synced, and the elements of the last replacement not yet stored. READ gets what core
// finds in a store that is there, in the form of EXPECTED.
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <numeric>

#include "core/convert.h"
#include "core/fits_card.h"
#include "core/format.h"
#include "core/linearize.h"
#include "core/transfer.h"
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

struct Image {
  DType type;
  Shape shape;
  std::vector<std::byte> elements;  // native
  std::optional<Scaling> scaling;   // FITS only
};

std::string real_card(std::string_view keyword, double value) {
  Element element;
  std::memcpy(element.bytes.data(), &value, sizeof value);
  return make_card(keyword, format_element(element, DType::f64), "");
}

std::string filled_up(std::string text, char filler) {
  text.resize((text.size() + fits_block - 1) / fits_block * fits_block, filler);
  return text;
}

// The cards of an HDU that come before all others; without shape it has no data.
std::string first_cards(bool primary, int bitpix, const Shape& shape) {
  std::string cards =
      primary ? make_logical_card("SIMPLE", true, "") : make_card("XTENSION", "'IMAGE   '", "");
  cards += make_integer_card("BITPIX", bitpix, "");
  cards += make_integer_card("NAXIS", static_cast<std::int64_t>(shape.size()), "");
  for (std::size_t i = 0; i < shape.size(); ++i)
    cards +=
        make_integer_card("NAXIS" + std::to_string(i + 1), static_cast<std::int64_t>(shape[i]), "");
  if (!primary) cards += make_integer_card("PCOUNT", 0, "") + make_integer_card("GCOUNT", 1, "");
  return cards;
}

// REQUIRES: a type that FITS has without an offset.
std::string fits_hdu(const Image& image, bool primary, const std::string& cards) {
  const int bits = static_cast<int>(8 * size_of(image.type));
  std::string header = first_cards(primary, is_float(image.type) ? -bits : bits, image.shape);
  if (image.scaling) {
    header += real_card("BSCALE", image.scaling->scale) + real_card("BZERO", image.scaling->zero);
    if (image.scaling->blank) header += make_integer_card("BLANK", *image.scaling->blank, "");
  }
  header += cards + "END";
  std::string data(image.elements.size(), '\0');
  recode(reinterpret_cast<std::byte*>(data.data()), image.elements.data(),
         data.size() / size_of(image.type), native(image.type), fits_coding(image.type));
  return filled_up(std::move(header), ' ') + filled_up(std::move(data), '\0');
}

// n random elements of type `from` whose values `to` has too; `minus_zeros`: also some -0, which
// integers have as another.
std::vector<std::byte> common_elements(std::mt19937_64& random, DType from, DType to, std::size_t n,
                                       bool minus_zeros) {
  std::vector<std::byte> elements(n * size_of(from));
  if (is_float(from) && is_float(to)) {
    convert_nearest(elements.data(), from, testing::random_elements(random, DType::f32, n).data(),
                    DType::f32, n, {});
    return elements;
  }
  const auto bits = [](DType type) {
    if (is_float(type)) return type == DType::f32 ? 24 : 53;
    return static_cast<int>(8 * size_of(type)) - (is_signed(type) ? 1 : 0);
  };
  const std::int64_t above = std::int64_t{1} << std::min({bits(from), bits(to), 62});
  const std::int64_t least = is_signed(from) && is_signed(to) ? -above : 0;
  std::vector<std::int64_t> values(n);
  for (std::int64_t& value : values)
    value = least + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(above - least));
  convert_nearest(elements.data(), from, reinterpret_cast<std::byte*>(values.data()), DType::i64, n,
                  {});
  if (minus_zeros && is_float(from))
    for (std::size_t i = random() % 7; i < n; i += 1 + random() % 50) {
      std::memset(elements.data() + i * size_of(from), 0, size_of(from));
      elements[(i + 1) * size_of(from) - 1] = std::byte{0x80};
    }
  return elements;
}

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
      c->read_mask(pinned, whole, {0, mask.size()}, mask.data());
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

// Overwrites some elements.
class Overwrite final : public ElementEdit {
 public:
  // `chosen`: 1 for each element that is overwritten.
  Overwrite(std::vector<std::byte> elements, std::vector<std::uint8_t> chosen)
      : elements_(std::move(elements)),
        chosen_(std::move(chosen)),
        size_(elements_.size() / chosen_.size()) {}

  Status apply(const std::byte* old, std::byte* now) override {
    std::memcpy(now, old, elements_.size());
    for (std::size_t i = 0; i < chosen_.size(); ++i)
      if (chosen_[i] != 0) std::memcpy(now + i * size_, elements_.data() + i * size_, size_);
    return {};
  }
  bool leaves(std::uint64_t i, const std::byte* element) const override {
    return std::memcmp(element, elements_.data() + i * size_, size_) == 0;
  }

 private:
  const std::vector<std::byte> elements_;
  const std::vector<std::uint8_t> chosen_;
  const std::size_t size_;
};

// Whether elements of the frame may be others than those that came.
bool is_poked(const Cube& cube, const FrameRow& row) {
  bool poked = false;
  for_boxes_of(cube.pin()->boxes, row, must(cube.frame_runs(row)),
               [&](const Box& box, std::uint64_t first, std::uint64_t slots) {
                 poked = poked || (box.poked & slot_bits(first, slots)) != 0;
               });
  return poked;
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
    for (const Mixture& mixture : mixtures) make_mixed(mixture);
    make_large();
    make_many();
    make_again();
    make_hidden();
    make_kept();
    make_poked();
    must(cube("empty")->set_property("axes", "x y f"));
    must(cube("empty")->set_property("pad", "7"));
    must(cube("empty")->set_property("convert", "nearest"));
    must(cube("empty")->set_property("residue", "drop"));
    must(cube("empty")->set_property("hdu", "sci,2"));
    make_replaced();
  }
  void copy_open_store(const fs::path& target) const {
    fs::copy(path_, target, fs::copy_options::recursive);
    write_file(target / "replaced" / "bricks", bricks_before_);
  }
  void close() { store_.reset(); }

  void write_expected() const {
    write_arrays(*store_, expected_, [&](const Cube& c, const FrameRow& row) {
      if (row.original.length == 0 && is_poked(c, row)) return testing::file_of(c, row);
      return files_.at(c.name()).at(row.id);
    });
  }

 private:
  // Nothing is synced unless it is asked for.
  void open() {
    StoreOptions options;
    options.sync_interval = std::chrono::hours(24);
    store_ = must(Store::open(path_.string(), options));
  }
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

  // Some indexes of some axes, in any order; nothing where there is no element. At most `most`.
  std::optional<View> random_view(const Pinned& now, std::uint64_t most) {
    const std::size_t rank = now->axes.size();
    std::vector<std::size_t> order(rank);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random_);
    PerAxis<ViewAxis> spanned;
    Shape fixed;
    for (const std::uint64_t extent : now->shape()) {
      if (extent == 0) return std::nullopt;
      fixed.push_back(below(extent));
    }
    if (rank == 0) return std::nullopt;
    for (std::size_t d = 0, n = 1 + below(rank); d < n; ++d) {
      const std::uint64_t extent = now->axes[order[d]].extent();
      const std::uint64_t begin = below(extent);
      const std::uint64_t length = 1 + below(std::min(extent - begin, most));
      spanned.push_back({order[d], {begin, begin + length}});
      most /= length;
    }
    return must(View::make(now->axes, spanned, fixed));
  }

  // Elements [range) of a view get other values, one in `step` of them; pad becomes data.
  void poke(const std::string& name, const View& view, Interval range, std::uint64_t step) {
    const Pinned now = cube(name)->pin();
    std::vector<std::uint8_t> chosen(range.length());
    for (std::uint8_t& each : chosen) each = below(step) == 0 ? 1 : 0;
    Overwrite edit(testing::random_elements(random_, now->definition.coding.type, range.length()),
                   chosen);
    RecentValues::Ticket former;
    must(cube(name)->poke(now, view, range, edit, PokeOrigin{}, former));
  }
  void poke_some(const std::string& name) {
    const auto view = random_view(cube(name)->pin(), 64);
    if (!view) return;
    const std::uint64_t begin = below(view->element_count());
    poke(name, *view, {begin, begin + 1 + below(view->element_count() - begin)}, 1 + below(3));
  }
  void replace_view(const std::string& name, const View& view) {
    const Pinned now = cube(name)->pin();
    const PosixFile file = must(cube(name)->temporary_file());
    const auto elements =
        testing::random_elements(random_, now->definition.coding.type, view.element_count());
    must(file.write(0, elements));
    RecentValues::Ticket former;
    must(cube(name)->replace(now, view, file, former));
  }
  void replace_some(const std::string& name) {
    if (const auto view = random_view(cube(name)->pin(), 64)) replace_view(name, *view);
  }

  // Frames of several extents through all doors; some of them rewritten after their commit, taken
  // out, brought back, renamed, replaced or gone for good. Elements are poked, frames' and pad.
  // Some cubes are sorted by name, from the beginning or later.
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
      if (f > 0 && below(3) == 0) poke_some(name);
      if (f > 0 && below(8) == 0) replace_some(name);
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
      if (f % 20 == 11 && f < 450) poke_some("many");
      IngestRequest request;
      if (f / 50 % 3 == 1) request.side = Side::prepend;
      // One is larger, so that the others have pad beside them.
      put("many", std::to_string(f), random_npy(DType::u16, f == 3 ? Shape{5, 4} : plane), request);
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

  // The second of three frames cannot be made of the cube's elements.
  void make_kept() {
    put("kept", "a", random_npy(DType::i16, {5, 4}));
    must(cube("kept")->set_property("header", "OBJECT = 'kept'"));
    std::vector<std::byte> zeros(20 * sizeof(double));
    zeros[7] = std::byte{0x80};
    put("kept", "b", testing::frame_file(FormatId::npy, DType::f64, {5, 4}, zeros));
    put("kept", "c", random_npy(DType::i16, {5, 4}));
  }

  // Pad that became data where frames had been: one came back and hides it, one came back and went
  // again. A frame was poked and taken out. Beside them one holds all indexes.
  void make_poked() {
    const std::string name = "poked";
    for (const char* frame : {"a", "b", "c", "d"})
      put(name, frame,
          random_npy(DType::i16, frame == std::string("c") ? Shape{3, 6} : Shape{5, 4}));
    IngestRequest beside;
    beside.axis = 0;
    put(name, "beside", random_npy(DType::i16, {1, 6, 4}), beside);
    const auto plane = [&](std::uint64_t z) {
      return must(View::make(cube(name)->pin()->axes, {{1, {1, 4}}, {0, {0, 4}}}, {0, 0, z}));
    };
    poke(name, plane(3), {3, 7}, 1);
    must(cube(name)->remove_frame("d", "d"));
    for (const char* frame : {"b", "c"}) {
      must(cube(name)->remove_frame(frame, frame));
      poke(name, plane(frame == std::string("b") ? 1 : 2), {0, 12}, 1);
      must(cube(name)->restore_frame(frame, frame));
    }
    must(cube(name)->remove_frame("c", "c"));
    poke(name, plane(0), {2, 9}, 1);
    put(name, "e", random_npy(DType::i16, {5, 4}));
    std::string card = "OBJECT  = 'M 42'";
    card.resize(80, ' ');
    must(cube(name)->set_frame_cards(*cube(name)->find_frame("e"), {card}));
  }

  // At the end is a replacement: of what frames gave and of what became data before, in part under
  // a frame that hides it and goes then.
  void make_replaced() {
    const std::string name = "replaced";
    const auto axes = [&] { return cube(name)->pin()->axes; };
    for (unsigned f = 0; f < 3; ++f) {
      const Shape plane = f == 1 ? Shape{30, 20} : Shape{40, 30};
      put(name, std::to_string(f),
          testing::frame_file(FormatId::fits, DType::f32, plane,
                              testing::random_elements(random_, DType::f32, count_of(plane))));
    }
    IngestRequest beside;
    beside.axis = 1;
    put(name, "beside", random_npy(DType::f32, {40, 2, 3}), beside);
    must(cube(name)->remove_frame("0", "0"));
    replace_view(name, must(View::whole(axes())));
    must(cube(name)->restore_frame("0", "0"));
    poke(name, must(View::whole(axes())), {0, 100}, 2);
    std::ifstream bricks(path_ / name / "bricks", std::ios::binary);
    bricks_before_.assign(std::istreambuf_iterator<char>(bricks), {});
    replace_view(name,
                 must(View::make(axes(), {{2, {0, 2}}, {0, {3, 40}}, {1, {2, 31}}}, {0, 0, 0})));
    must(cube(name)->remove_frame("0", "0"));
  }

  // A cube of frames of other types and scaled ones.
  struct Mixture {
    const char* name;
    DType type;
    const char* pad;  // empty: that of the type
    bool rounds;      // convert = nearest
    bool drops;       // residue = drop
    int hdu;          // of the images of FITS files
  };
  static constexpr Mixture mixtures[] = {
      {"mixed-uint8", DType::u8, "", false, false, 0},
      {"mixed-int32", DType::i32, "-7", false, false, 0},
      {"mixed-uint64", DType::u64, "77", false, false, 0},
      {"mixed-float32", DType::f32, "", false, false, 0},
      {"mixed-float64", DType::f64, "-1.5", false, false, 0},
      {"rounded-int16", DType::i16, "77", true, false, 0},
      {"rounded-uint64", DType::u64, "", true, false, 0},
      {"rounded-float32", DType::f32, "", true, false, 0},
      {"second-int16", DType::i16, "", true, false, 1},
      {"second-float64", DType::f64, "", true, false, 1},
      {"dropped-int32", DType::i32, "-7", true, true, 0},
      {"dropped-float32", DType::f32, "", true, true, 1},
  };

  // Values that the cube has unless it rounds.
  Image random_image(const Mixture& mixture, const Shape& shape) {
    const std::size_t n = count_of(shape);
    Image image{all_dtypes[below(std::size(all_dtypes))], shape, {}, std::nullopt};
    if (below(2) == 0) {
      image.elements = mixture.rounds && below(2) == 0
                           ? testing::random_elements(random_, image.type, n)
                           : common_elements(random_, image.type, mixture.type, n, below(2) == 0);
      return image;
    }
    static constexpr DType plain[] = {DType::u8,  DType::i16, DType::i32,
                                      DType::i64, DType::f32, DType::f64};
    image.type = plain[below(std::size(plain))];
    static constexpr double scales[][2] = {{1, 0},        {1, 5},      {2, -3},   {0.25, 1000},
                                           {1e-3, 32768}, {0.1, 32.7}, {-3, 0.5}, {1e-3, 1e6},
                                           {0.1, 0},      {0, 5}};
    const bool is_wide = is_float(mixture.type) && size_of(mixture.type) == 8;
    const bool narrows = size_of(image.type) <= 2 || image.type == DType::f32;
    // Any value of the narrow arithmetic is a float32.
    const bool any = mixture.rounds || is_wide || (mixture.type == DType::f32 && narrows);
    const auto& scale = scales[below(any                         ? std::size(scales)
                                     : is_float(mixture.type)    ? 4
                                     : mixture.type == DType::u8 ? 2
                                                                 : 3)];
    image.scaling = Scaling{narrows ? DType::f32 : DType::f64, scale[0], scale[1], {}};
    if (any) {
      image.elements = testing::random_elements(random_, image.type, n);
    } else {
      std::vector<std::byte> small(n);
      for (std::byte& value : small) value = static_cast<std::byte>(2 + below(100));
      image.elements.resize(n * size_of(image.type));
      convert_nearest(image.elements.data(), image.type, small.data(), DType::u8, n, {});
    }
    if (is_float(image.type)) {
      if (scale[0] == 1 && scale[1] == 0) image.scaling.reset();
      if (below(2) == 0) keep_what_comes_back(mixture, image);
      return image;
    }
    if (any) {
      const double most[] = {-1e300, 1e300};
      for (const double& value : most) {
        Element element;
        convert_nearest(element.bytes.data(), image.type,
                        reinterpret_cast<const std::byte*>(&value), DType::f64, 1, {});
        scatter(image, element);
      }
    }
    if (scale[1] == 0 || below(2) == 0) {
      static constexpr std::int64_t blanks[] = {7, 77, -1000, 1000};
      image.scaling->blank = blanks[below(std::size(blanks))];
      // There are types that do not have it.
      if (const auto blank = parse_element(std::to_string(*image.scaling->blank), image.type);
          blank.ok())
        scatter(image, *blank);
    }
    if (below(2) == 0) keep_what_comes_back(mixture, image);
    return image;
  }
  void scatter(Image& image, const Element& element) {
    const std::size_t size = size_of(image.type);
    for (std::size_t i = below(9) * size; i < image.elements.size(); i += (1 + below(20)) * size)
      std::memcpy(image.elements.data() + i, element.bytes.data(), size);
  }
  // Puts elements that come back from the cube, where there are any, in the place of all others.
  static void keep_what_comes_back(const Mixture& mixture, Image& image) {
    const std::size_t size = size_of(image.type);
    const std::byte* good = nullptr;
    for (int turn = 0; turn < 2; ++turn)
      for (std::size_t i = 0; i < image.elements.size(); i += size) {
        std::byte* const element = image.elements.data() + i;
        const Image one{image.type, {1}, {element, element + size}, image.scaling};
        if (converts_back(mixture, one))
          good = element;
        else if (good != nullptr)
          std::memcpy(element, good, size);
      }
  }

  // A file, and what of it there is to be in the end.
  struct MixedFile {
    std::string given, kept;
  };
  MixedFile random_mixed(const Mixture& mixture, const Image& image) {
    const bool has_offset =
        !image.scaling && (image.type == DType::i8 || image.type == DType::u16 ||
                           image.type == DType::u32 || image.type == DType::u64);
    if (has_offset || (!image.scaling && below(2) == 0)) {
      std::string file =
          testing::frame_file(FormatId::npy, image.type, image.shape, image.elements);
      const bool is_same = !mixture.drops || converts_back(mixture, image);
      if (!mixture.drops && below(3) == 0) file.replace(file.find("False"), 5, "True ");
      return {file, is_same ? file : canonical(FormatId::npy, mixture, image, {})};
    }
    const std::string card = make_integer_card("SERIAL", static_cast<std::int64_t>(++names_), "");
    std::vector<std::string> cards{card};
    std::string file;
    if (mixture.hdu == 1) {
      const Shape small{3, 1 + below(90)};
      const Image other{
          DType::i16, small, testing::random_elements(random_, DType::i16, count_of(small)), {}};
      if (below(2) == 0) {
        cards.push_back(make_integer_card("RUN", 5, ""));
        file = fits_hdu(other, true, cards.back());
      } else {
        file = filled_up(first_cards(true, 8, {}) + "END", ' ');
      }
    }
    file += fits_hdu(image, mixture.hdu == 0, card);
    const bool lacks_padding = below(4) == 0;
    if (lacks_padding)
      file.resize(file.size() - (fits_block - image.elements.size() % fits_block) % fits_block);
    std::string kept = file;
    const bool is_proper = mixture.hdu == 0 && file.size() % fits_block == 0;
    if (mixture.drops && (!is_proper || !converts_back(mixture, image)))
      kept = canonical(FormatId::fits, mixture, image, cards);
    if (!lacks_padding && below(2) == 0) {
      const Shape small{1 + below(9), 2};
      file += fits_hdu(
          {DType::u8, small, testing::random_elements(random_, DType::u8, count_of(small)), {}},
          false, "");
      if (below(2) == 0) file.append(1 + below(99), 'x');
    }
    return {file, mixture.drops ? kept : file};
  }

  static Transfer transfer(const Mixture& mixture, const Image& image) {
    FrameLayout layout;
    layout.coding = native(image.type);
    layout.scaling = image.scaling;
    const Element pad = mixture.pad[0] != '\0' ? must(parse_element(mixture.pad, mixture.type))
                                               : default_pad(mixture.type);
    return {layout, native(mixture.type), Rounding::nearest, pad};
  }
  static std::vector<std::byte> converted(const Mixture& mixture, const Image& image, bool* back) {
    const std::size_t n = count_of(image.shape);
    std::vector<std::byte> elements(n * size_of(mixture.type));
    const Converted done =
        transfer(mixture, image).to_cube(elements.data(), image.elements.data(), n);
    if (back != nullptr) *back = done.invertible;
    return elements;
  }
  static bool converts_back(const Mixture& mixture, const Image& image) {
    bool back = false;
    (void)converted(mixture, image, &back);
    return back;
  }
  // The file that a view of the converted elements would be.
  static std::string canonical(FormatId id, const Mixture& mixture, const Image& image,
                               const std::vector<std::string>& cards) {
    const FileFace face = format(id).face({mixture.type, image.shape, cards, ""});
    const std::string plain =
        testing::frame_file(id, mixture.type, image.shape, converted(mixture, image, nullptr));
    const std::size_t header = format(id).face({mixture.type, image.shape, {}, ""}).header.size();
    return face.header + plain.substr(header);
  }

  void make_mixed(const Mixture& mixture) {
    const std::string name = mixture.name;
    must(cube(name)->set_property("dtype", name_of(mixture.type)));
    must(cube(name)->set_property("axes", "x y z"));
    if (mixture.pad[0] != '\0') must(cube(name)->set_property("pad", mixture.pad));
    if (mixture.rounds) must(cube(name)->set_property("convert", "nearest"));
    if (mixture.drops) must(cube(name)->set_property("residue", "drop"));
    if (mixture.hdu != 0) must(cube(name)->set_property("hdu", std::to_string(mixture.hdu)));
    for (int f = 0; f < 32; ++f) {
      if (below(8) == 0) must(store_->sync());
      if (below(12) == 0) reopen();
      if (f > 2 && below(4) == 0) poke_some(name);
      if (f > 2 && below(12) == 0) replace_some(name);
      switch (f < 2 ? 9 : below(10)) {
        case 0:
          take_out(name);
          break;
        case 1:
          bring_back(name);
          break;
        case 2:
          discard(name);
          break;
        default: {
          const Shape shape{2 + below(14), 2 + below(8)};
          const Image image = random_image(mixture, shape);
          const MixedFile file = random_mixed(mixture, image);
          const std::string frame = "f" + std::to_string(f);
          const FrameId id = must(testing::put(*cube(name), frame, file.given, random_door(name)));
          files_[name][id] = file.kept;
        }
      }
    }
  }

  const fs::path path_;
  const fs::path expected_;
  const std::uint64_t seed_;
  std::mt19937_64 random_;
  std::unique_ptr<Store> store_;
  std::map<std::string, std::map<FrameId, std::string>> files_;
  std::string bricks_before_;  // of "replaced"
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
    accrete::write_arrays(*store, argv[2], accrete::testing::file_of);
    return 0;
  }
  accrete::Maker maker(argv[1], argv[2], std::strtoull(argv[3], nullptr, 10));
  maker.make_all();
  maker.write_expected();
  if (argc == 5) maker.copy_open_store(argv[4]);
  maker.close();
  return 0;
}
