// Files of every kind against a plain model, under random orders of writes, reads, truncations and
// commits, and settings that change meanwhile. The model keeps what was written, and reads values
// out of it by itself.
//
//   ACCRETE_SEEDS=100 core_test --gtest_filter='RandomIngest.*'
//
// is the long run; ACCRETE_SEED=N repeats one seed.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <random>
#include <utility>

#include "core/fits_card.h"
#include "core/fits_checksum.h"
#include "core/view_header.h"
#include "tests/core/gzip.h"
#include "tests/core/store_fixture.h"

namespace accrete {
namespace {

using testing::gzip;

using Wide = __int128;

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// ---- Values ----

struct Value {
  bool whole = true;  // an integer
  Wide integer = 0;
  double number = 0;
  bool blank = false;  // none
};

struct ScalingCards {
  double scale = 1, zero = 0;
  std::optional<std::int64_t> blank;
};

// One array in a file.
struct Image {
  DType type = DType::i16;
  bool big_endian = true;
  bool offset_sign = false;  // FITS: unsigned integers and signed bytes
  std::optional<ScalingCards> scaling;
  std::vector<std::size_t> shape;                    // fastest first, x y
  bool by_columns = false;                           // NPY: x is the slowest in the file
  std::size_t header = 0, header_end = 0, data = 0;  // offsets
  std::size_t datasum = 0;                           // where its digits are; 0: none

  std::size_t width() const { return size_of(type); }
  std::size_t count() const { return shape[0] * shape[1]; }
  std::size_t bytes() const { return count() * width(); }
};

std::uint64_t bits_at(const Image& image, const std::string& file, std::size_t index) {
  const std::size_t width = image.width();
  std::uint64_t bits = 0;
  for (std::size_t b = 0; b < width; ++b) {
    const std::size_t place = image.big_endian ? b : width - 1 - b;
    bits = bits << 8 | static_cast<std::uint8_t>(file[image.data + index * width + place]);
  }
  return image.offset_sign ? bits ^ std::uint64_t{1} << (8 * width - 1) : bits;
}

Value value_at(const Image& image, const std::string& file, std::size_t index) {
  const std::uint64_t bits = bits_at(image, file, index);
  const std::size_t width = image.width();
  Value v;
  if (is_float(image.type)) {
    v.whole = false;
    v.number = width == 4 ? std::bit_cast<float>(static_cast<std::uint32_t>(bits))
                          : std::bit_cast<double>(bits);
  } else {
    v.integer = static_cast<Wide>(bits);
    if (is_signed(image.type) && bits >> (8 * width - 1) != 0) v.integer -= Wide{1} << (8 * width);
  }
  if (!image.scaling) return v;
  const ScalingCards& s = *image.scaling;
  v.blank = v.whole && s.blank && v.integer == *s.blank;
  if (width <= 2 || image.type == DType::f32) {
    float f = v.whole ? static_cast<float>(v.integer) : static_cast<float>(v.number);
    if (s.scale != 1) f *= static_cast<float>(s.scale);
    if (s.zero != 0) f += static_cast<float>(s.zero);
    v.number = f;
  } else {
    double d = v.whole ? static_cast<double>(v.integer) : v.number;
    if (s.scale != 1) d *= s.scale;
    if (s.zero != 0) d += s.zero;
    v.number = d;
  }
  v.whole = false;
  return v;
}

Wide least(DType type) {
  return is_signed(type) ? -(Wide{1} << (8 * size_of(type) - 1)) : Wide{0};
}
Wide most(DType type) {
  return (Wide{1} << (8 * size_of(type) - (is_signed(type) ? 1 : 0))) - 1;
}

// Native bytes of the value in that type; `exact`: the type has it.
Element as(const Value& v, DType type, const Element& pad, bool& exact) {
  Element e;
  const auto put = [&e](auto value) { std::memcpy(e.bytes.data(), &value, sizeof value); };
  const bool is_nan = v.blank || (!v.whole && std::isnan(v.number));
  exact = true;
  if (is_float(type)) {
    const bool single = type == DType::f32;
    if (is_nan) {
      single ? put(std::numeric_limits<float>::quiet_NaN())
             : put(std::numeric_limits<double>::quiet_NaN());
    } else if (v.whole) {
      const double d = single ? static_cast<float>(v.integer) : static_cast<double>(v.integer);
      exact = static_cast<Wide>(d) == v.integer;
      single ? put(static_cast<float>(d)) : put(d);
    } else if (single) {
      constexpr double limit = std::numeric_limits<float>::max();
      const double d = std::isinf(v.number) ? v.number : std::clamp(v.number, -limit, limit);
      exact = static_cast<float>(d) == v.number;
      put(static_cast<float>(d));
    } else {
      put(v.number);
    }
    return e;
  }
  if (is_nan) {
    exact = v.blank;
    return pad;
  }
  Wide i = v.integer;
  if (!v.whole) {
    const double rounded = std::nearbyint(v.number);
    exact = rounded == v.number && !std::isinf(v.number);
    i = rounded < -1e30  ? -(Wide{1} << 100)
        : rounded > 1e30 ? Wide{1} << 100
                         : static_cast<Wide>(rounded);
  }
  const Wide inside = std::clamp(i, least(type), most(type));
  exact = exact && inside == i;
  const auto bits = static_cast<std::uint64_t>(inside);
  std::memcpy(e.bytes.data(), &bits, size_of(type));
  return e;
}

bool same_value(const std::byte* a, const std::byte* b, DType type) {
  const auto nan = [type](const std::byte* e) {
    float f;
    double d;
    std::memcpy(&f, e, sizeof f);
    if (type == DType::f32) return std::isnan(f);
    std::memcpy(&d, e, sizeof d);
    return std::isnan(d);
  };
  if (is_float(type) && (nan(a) || nan(b))) return nan(a) && nan(b);
  return std::memcmp(a, b, size_of(type)) == 0;
}

// ---- Files ----

struct Plan {
  std::string name;
  std::string file;           // what it will be in the end
  std::vector<Image> images;  // FITS: of the HDUs in order
  bool is_fits = false;
  bool packed = false;
  std::string inner;       // of a packed file, what is in it
  std::size_t object = 0;  // where the value of OBJECT is
  const Image& chosen(int hdu) const { return images[is_fits && hdu > 0 ? hdu : 0]; }
  const std::string& bytes(const std::string& written) const { return packed ? inner : written; }
};

using Random = std::mt19937_64;

bool one_in(Random& random, unsigned n) {
  return random() % n == 0;
}

void put_bits(const Image& image, std::string& file, std::size_t index, std::uint64_t bits) {
  const std::size_t width = image.width();
  if (image.offset_sign) bits ^= std::uint64_t{1} << (8 * width - 1);
  for (std::size_t b = 0; b < width; ++b) {
    const std::size_t place = image.big_endian ? width - 1 - b : b;
    file[image.data + index * width + place] = static_cast<char>(bits >> (8 * b));
  }
}

// Bits of an element: small numbers that every type has, or odd ones.
std::uint64_t some_bits(Random& random, const Image& image, bool odd) {
  const std::uint64_t small = random() % 100;
  if (!is_float(image.type)) {
    if (!odd) return small;
    if (image.scaling && image.scaling->blank && one_in(random, 2))
      return static_cast<std::uint64_t>(*image.scaling->blank);
    return random();
  }
  const double odds[] = {0.1,      -0.0,
                         0.5,      1.5,
                         2.5,      -1,
                         300,      1e30,
                         -1e300,   1e10,
                         16777217, 9007199254740993.0,
                         3e38,     3.4028235677973366e38,
                         INFINITY, -INFINITY,
                         NAN,      1e-320};
  const double value = odd ? odds[random() % std::size(odds)] : static_cast<double>(random() % 100);
  if (odd && one_in(random, 4)) return random();
  return image.width() == 4 ? std::bit_cast<std::uint32_t>(static_cast<float>(value))
                            : std::bit_cast<std::uint64_t>(value);
}

std::string card(std::string_view keyword, std::string_view value) {
  std::string text(keyword);
  text.resize(8, ' ');
  text += "= " + std::string(value);
  text.resize(80, ' ');
  return text;
}

// `usual`: the type of every other file.
void add_fits_image(Random& random, Plan& plan, std::string& file, int hdu, bool multiple,
                    std::optional<DType> usual) {
  static constexpr DType types[] = {DType::u8,  DType::i8,  DType::i16, DType::u16, DType::i32,
                                    DType::u32, DType::i64, DType::u64, DType::f32, DType::f64};
  Image image;
  image.type = usual && one_in(random, 2) ? *usual : types[random() % std::size(types)];
  image.shape = {1 + random() % 40, 1 + random() % 30};
  image.offset_sign = !is_float(image.type) && is_signed(image.type) == (image.type == DType::i8);
  if (image.type == DType::u8) image.offset_sign = false;
  if (!image.offset_sign && one_in(random, 3)) {
    ScalingCards s;
    const double scales[] = {1, 1, 2, 0.5, 0.1, -1, 0, 1e30};
    const double zeros[] = {0, 0, 10, 0.5, -3.7, 1e10};
    s.scale = scales[random() % std::size(scales)];
    s.zero = zeros[random() % std::size(zeros)];
    if (!is_float(image.type) && one_in(random, 2))
      s.blank = static_cast<std::int64_t>(random() % 120);
    const bool plain = s.scale == 1 && s.zero == 0 && !s.blank;
    if (!plain) image.scaling = s;
  }
  image.header = file.size();
  std::string header;
  header += hdu == 0 ? card("SIMPLE", "T") : card("XTENSION", "'IMAGE   '");
  const int width = 8 * static_cast<int>(image.width());
  header += card("BITPIX", std::to_string(is_float(image.type) ? -width : width));
  header += card("NAXIS", "2");
  header += card("NAXIS1", std::to_string(image.shape[0]));
  header += card("NAXIS2", std::to_string(image.shape[1]));
  if (hdu > 0) header += card("PCOUNT", "0") + card("GCOUNT", "1");
  if (hdu == 0 && multiple) header += card("EXTEND", "T");
  if (image.offset_sign) {
    header += card("BZERO", image.type == DType::i8    ? "-128"
                            : image.type == DType::u16 ? "32768"
                            : image.type == DType::u32 ? "2147483648"
                                                       : "9223372036854775808");
  } else if (image.scaling) {
    char text[40];
    std::snprintf(text, sizeof text, "%.17G", image.scaling->scale);
    header += card("BSCALE", text);
    std::snprintf(text, sizeof text, "%.17G", image.scaling->zero);
    header += card("BZERO", text);
    if (image.scaling->blank) header += card("BLANK", std::to_string(*image.scaling->blank));
  }
  if (hdu == 1) header += card("EXTNAME", "'sci     '");
  header += card("KEY", std::to_string(random() % 50));
  if (plan.object == 0 && hdu == 0) plan.object = image.header + header.size() + 11;
  header += card("OBJECT", "'aaaaaaaa'");
  if (one_in(random, 3)) header += make_string_card("LONGTEXT", std::string(150, 'x'), "");
  if (one_in(random, 4)) header += std::string(80 * (random() % 90), ' ');
  if (one_in(random, 2)) {
    image.datasum = image.header + header.size() + 11;
    header += card("DATASUM", "'0000000000'");
  }
  header += "END";
  image.header_end = image.header + header.size() + 5;
  header.resize((header.size() + 2879) / 2880 * 2880, ' ');
  file += header;
  image.data = file.size();
  file.resize(file.size() + (image.bytes() + 2879) / 2880 * 2880, '\0');
  plan.images.push_back(image);
}

std::string sum_text(const Image& image, const std::string& file) {
  FitsSummer summer;
  const std::size_t end = image.data + (image.bytes() + 2879) / 2880 * 2880;
  summer.add(as_bytes(std::string_view(file).substr(0, end).substr(image.data)));
  char text[20];
  std::snprintf(text, sizeof text, "%010u", summer.sum());
  return text;
}

Plan make_plan(Random& random, const std::string& name, bool odd, std::optional<DType> usual) {
  Plan plan;
  plan.name = name;
  std::string file;
  plan.is_fits = !one_in(random, 3);
  if (plan.is_fits) {
    const int count = one_in(random, 3) ? 3 : 1;
    for (int hdu = 0; hdu < count; ++hdu) add_fits_image(random, plan, file, hdu, count > 1, usual);
    // With one image all of them are it.
    while (plan.images.size() < 3) plan.images.push_back(plan.images.front());
    if (count == 1 && one_in(random, 4)) file.append(1 + random() % 5000, 'T');
    if (count == 1 && one_in(random, 4)) file.resize(plan.images[0].data + plan.images[0].bytes());
  } else {
    Image image;
    image.type = usual && one_in(random, 2) ? *usual : all_dtypes[random() % std::size(all_dtypes)];
    image.big_endian = one_in(random, 2);
    image.by_columns = one_in(random, 3);
    image.shape = {1 + random() % 40, 1 + random() % 30};
    const char kind = is_float(image.type) ? 'f' : is_signed(image.type) ? 'i' : 'u';
    std::string dictionary = std::string("{'descr': '") + (image.big_endian ? '>' : '<') + kind +
                             std::to_string(image.width()) +
                             "', 'fortran_order': " + (image.by_columns ? "True" : "False") +
                             ", 'shape': (" + std::to_string(image.shape[1]) + ", " +
                             std::to_string(image.shape[0]) + "), }";
    dictionary.resize(118 + random() % 9, ' ');
    dictionary.back() = '\n';
    file = std::string("\x93NUMPY\x01\x00", 8) + static_cast<char>(dictionary.size()) + '\0';
    file += dictionary;
    image.data = image.header_end = file.size();
    file.resize(file.size() + image.bytes());
    plan.images.push_back(image);
  }
  constexpr unsigned rates[] = {10, 100, 1000};
  const unsigned rate = rates[random() % std::size(rates)];
  for (std::size_t i = 0; i < plan.images.size(); ++i) {
    const Image& image = plan.images[i];
    if (i > 0 && image.data == plan.images[0].data) continue;
    for (std::size_t at = 0; at < image.count(); ++at)
      put_bits(image, file, at, some_bits(random, image, odd && one_in(random, rate)));
  }
  for (const Image& image : plan.images)
    if (image.datasum != 0) file.replace(image.datasum, 10, sum_text(image, file));
  if (one_in(random, 6)) {
    plan.packed = true;
    plan.inner = file;
    file = gzip(file);
    if (one_in(random, 3)) file.append(random() % 3000, '\0');
  }
  plan.file = std::move(file);
  return plan;
}

// ---- The run ----

struct Writer {
  Plan plan;
  std::string written;
  std::shared_ptr<Ingest> ingest;
  std::optional<FrameId> committed;
  std::size_t step = 3000;  // bytes of a write at most
  bool was_odd = false;     // some element was perhaps one that the cube's type does not have
};

struct Frame {
  Plan plan;
  std::string file;  // as it came
  int hdu = 0;
  bool dropped = false;  // residue
  bool live = true;
};

class History {
 public:
  explicit History(std::uint64_t seed) : random_(seed) {
    if (one_in(random_, 4)) return;
    type_ = all_dtypes[random_() % std::size(all_dtypes)];
  }

  void run(int steps) {
    open(directory_.path());
    if (type_) {
      EXPECT_TRUE(cube_->set_property("dtype", name_of(*type_)).ok());
    }
    if (type_ && one_in(random_, 2)) {
      EXPECT_TRUE(cube_->set_property("pad", "7").ok());
    }
    EXPECT_TRUE(cube_->set_property("axes", "x y z").ok());
    for (int i = 0; i < steps && !::testing::Test::HasFailure(); ++i) step();
    if (::testing::Test::HasFailure()) return;
    writers_.clear();
    check_all(*cube_);
    open(directory_.path());
    check_all(*cube_);
  }

 private:
  void open(const std::string& path) {
    cube_.reset();
    store_.reset();
    StoreOptions options;
    options.unpacker = ACCRETE_UNPACK_PROGRAM;
    store_ = *Store::open(path, options);
    auto cube = store_->find("c");
    cube_ = cube.ok() ? *cube : *store_->create("c");
  }

  DType type() const { return cube_->pin()->definition.coding.type; }

  bool all_exact(const Plan& plan, const Image& image, const std::string& written) {
    const std::string& file = plan.bytes(written);
    const Pinned pinned = cube_->pin();
    const Definition& d = pinned->definition;
    const DType to = d.defined ? d.coding.type : type_.value_or(DType::f64);
    if (!d.defined && !type_) return true;
    for (std::size_t i = 0; i < image.count(); ++i) {
      if (image.data + (i + 1) * image.width() > file.size()) break;
      bool exact = true;
      (void)as(value_at(image, file, i), to, d.pad, exact);
      if (!exact) return false;
    }
    return true;
  }
  bool any_odd(const Plan& plan, const std::string& written) {
    return std::any_of(plan.images.begin(), plan.images.end(),
                       [&](const Image& image) { return !all_exact(plan, image, written); });
  }

  void write(Writer& w, std::size_t at, const std::string& piece) {
    if (piece.empty()) return;
    if (w.written.size() < at + piece.size()) w.written.resize(at + piece.size(), '\0');
    w.written.replace(at, piece.size(), piece);
    w.was_odd = w.was_odd || any_odd(w.plan, w.written);
    const Status status = at == w.ingest->size() && one_in(random_, 4)
                              ? w.ingest->append(as_bytes(piece))
                              : w.ingest->write(at, as_bytes(piece));
    if (status.ok()) return;
    ASSERT_EQ(status.error().code, std::errc::invalid_argument) << status.error().sentence;
    ASSERT_TRUE(w.was_odd) << w.plan.name << ": " << status.error().sentence;
    drop(w);
  }

  void drop(Writer& w) {
    w.ingest->abandon("");
    w.ingest.reset();
  }

  void commit(Writer& w) {
    if (w.committed && frames_.contains(*w.committed) && !frames_[*w.committed].live) return;
    if (w.committed && !frames_.contains(*w.committed)) return;
    const Plan& plan = w.plan;
    const bool is_dirty = w.ingest->dirty();
    const auto id = w.ingest->commit();
    const Image& image = plan.chosen(hdu_);
    // Whole where the header is there and the data are as long as it says.
    const std::string& bytes = plan.bytes(w.written);
    bool whole = plan.packed ? w.written == plan.file : true;
    if (!plan.packed) {
      whole = bytes.size() >= image.data + image.bytes() && is_header_there(plan, w.written, image);
      if (!plan.is_fits) whole = whole && bytes.size() == image.data + image.bytes();
    }
    if (!whole && id.ok() && is_dirty) {
      // Without its header, and by chance as long as a raw frame.
      const auto row = cube_->pin()->frames.find(*id);
      ASSERT_TRUE(row);
      if (row->layout.format == FormatId::raw) return forget(w, *id);
    }
    if (!whole && !plan.packed) {
      ASSERT_FALSE(id.ok() && is_dirty) << describe(w);
      return;
    }
    if (!whole) {
      if (!id.ok()) return;
      // Only zeros or a lack of zeros behind it may differ.
      ASSERT_TRUE(!is_dirty || w.written.substr(0, w.written.find_last_not_of('\0') + 1) ==
                                   plan.file.substr(0, plan.file.find_last_not_of('\0') + 1));
    }
    const bool sums =
        image.datasum == 0 || bytes.substr(image.datasum, 10) == sum_text(image, bytes) ||
        (bytes.substr(image.datasum, 10) == "0000000000" && sum_text(image, bytes) == "4294967295");
    const bool exact = nearest_ || all_exact(plan, image, w.written);
    const bool should = sums && exact;
    if (is_dirty) {
      ASSERT_EQ(id.ok(), should) << plan.name << ": " << (id.ok() ? "taken" : id.error().sentence)
                                 << " sums " << sums << " exact " << exact;
    }
    if (!id.ok()) {
      ASSERT_EQ(id.error().code, std::errc::invalid_argument) << id.error().sentence;
      return;
    }
    if (!is_dirty) return;
    if (w.committed && *w.committed != *id) frames_.erase(*w.committed);
    w.committed = *id;
    frames_[*id] = Frame{plan, w.written, hdu_, drops_, true};
    ++commits_;
    check(*cube_, *id, frames_[*id]);
  }

  void forget(Writer& w, FrameId id) {
    if (w.committed) frames_.erase(*w.committed);
    drop(w);
    ASSERT_TRUE(cube_->remove_frame(w.plan.name, w.plan.name).ok());
    ASSERT_TRUE(cube_->discard_frame(w.plan.name).ok());
    ASSERT_EQ(cube_->pin()->frames.find(id)->state, FrameState::gone);
  }

  static std::string describe(const Writer& w) {
    std::string text = w.plan.name + (w.plan.is_fits ? " FITS" : " NPY") +
                       (w.plan.packed ? " packed" : "") + " of " +
                       std::to_string(w.plan.file.size()) + " bytes, " +
                       std::to_string(w.written.size()) + " written";
    std::size_t at = 0;
    while (at < std::min(w.written.size(), w.plan.file.size()) && w.written[at] == w.plan.file[at])
      ++at;
    text += ", other from " + std::to_string(at);
    for (const Image& image : w.plan.images)
      text += "; " + std::string(name_of(image.type)) + " at " + std::to_string(image.data) + "+" +
              std::to_string(image.bytes());
    return text;
  }

  static bool is_header_there(const Plan& plan, const std::string& written, const Image& chosen) {
    // What differs from the plan may only be values of OBJECT and DATASUM, and data.
    std::string a = written, b = plan.file;
    const std::size_t end = chosen.data;
    a.resize(std::max(a.size(), end));
    const auto blot = [&](std::size_t at, std::size_t n) {
      for (std::string* s : {&a, &b})
        if (at < s->size()) s->replace(at, std::min(n, s->size() - at), n, '#');
    };
    if (plan.object != 0) blot(plan.object, 8);
    std::size_t at = 0;
    for (const Image& image : plan.images) {
      if (image.datasum != 0) blot(image.datasum, 10);
      if (image.data < at || image.data > chosen.data) continue;
      const std::size_t length = image.header_end - image.header;
      if (a.substr(image.header, length) != b.substr(image.header, length)) return false;
      at = image.data + 1;
    }
    return true;
  }

  void check(const Cube& cube, FrameId id, const Frame& frame) const {
    const Pinned pinned = cube.pin();
    const auto row = pinned->frames.find(id);
    ASSERT_TRUE(row) << frame.plan.name;
    ASSERT_EQ(cube.frame_name(*row), frame.plan.name);
    ASSERT_EQ(row->state, frame.live ? FrameState::live : FrameState::removed);
    const std::string file = testing::file_of(cube, *row);
    ASSERT_EQ(file.size(), row->file_bytes());
    const Image& image = frame.plan.chosen(frame.hdu);
    const std::string& bytes = frame.plan.bytes(frame.file);
    if (!frame.dropped) {
      ASSERT_TRUE(file == frame.file) << frame.plan.name;
    } else if (file != frame.file) {
      check_canonical(file, frame, pinned->definition);
      if (::testing::Test::HasFailure()) return;
    }
    if (!frame.live) return;
    const Definition& d = pinned->definition;
    PerAxis<ViewAxis> spanned;
    Coords fixed(3);
    spanned.push_back({0, {0, image.shape[0]}});
    spanned.push_back({1, {0, image.shape[1]}});
    const auto z = pinned->axes[2].logical(row->first[2]);
    ASSERT_TRUE(z);
    fixed[2] = static_cast<std::int64_t>(*z);
    Shape at(3);
    at[2] = *z;
    const auto view = View::make(pinned->axes, spanned, at);
    ASSERT_TRUE(view.ok()) << view.error().sentence;
    const std::size_t width = size_of(d.coding.type);
    std::vector<std::byte> elements(image.count() * width);
    ASSERT_TRUE(
        cube.read(pinned, *view, {0, image.count()}, elements.data(), native(d.coding.type)).ok());
    for (std::size_t y = 0; y < image.shape[1]; ++y)
      for (std::size_t x = 0; x < image.shape[0]; ++x) {
        const std::size_t in_file =
            image.by_columns ? x * image.shape[1] + y : y * image.shape[0] + x;
        bool exact = true;
        const Element e = as(value_at(image, bytes, in_file), d.coding.type, d.pad, exact);
        ASSERT_TRUE(same_value(e.bytes.data(), elements.data() + (y * image.shape[0] + x) * width,
                               d.coding.type))
            << frame.plan.name << " at " << x << ", " << y << " from " << name_of(image.type);
      }
  }

  // A file of what is dropped: without its tail, or of the cube's type.
  static void check_canonical(const std::string& file, const Frame& frame, const Definition& d) {
    const Image& image = frame.plan.chosen(frame.hdu);
    if (!frame.plan.packed && frame.file.starts_with(file)) return;
    const auto look = try_formats(as_bytes(file), true, ImageChoice{});
    ASSERT_TRUE(look.ok()) << look.error().sentence;
    ASSERT_EQ(look->kind, Format::Look::Kind::layout);
    const FrameLayout& layout = look->layout;
    ASSERT_FALSE(layout.scaling);
    ASSERT_EQ(layout.coding.type, d.coding.type);
    ASSERT_EQ(file.size(), layout.full_bytes);
    Shape shape = layout.shape;
    if (layout.fortran_order) std::reverse(shape.begin(), shape.end());
    ASSERT_EQ(to_string(shape),
              std::to_string(image.shape[0]) + " " + std::to_string(image.shape[1]));
    std::vector<std::byte> elements(layout.data_bytes);
    recode(elements.data(), as_bytes(file).data() + layout.data_offset, image.count(),
           layout.coding, native(layout.coding.type));
    const std::size_t width = size_of(d.coding.type);
    for (std::size_t y = 0; y < image.shape[1]; ++y)
      for (std::size_t x = 0; x < image.shape[0]; ++x) {
        const std::size_t from = image.by_columns ? x * image.shape[1] + y : y * image.shape[0] + x;
        const std::size_t to =
            layout.fortran_order ? x * image.shape[1] + y : y * image.shape[0] + x;
        bool exact = true;
        const Element e =
            as(value_at(image, frame.plan.bytes(frame.file), from), d.coding.type, d.pad, exact);
        ASSERT_TRUE(same_value(e.bytes.data(), elements.data() + to * width, d.coding.type))
            << frame.plan.name << " at " << x << ", " << y;
      }
  }

  void check_all(const Cube& cube) const {
    std::size_t live = 0;
    for (const auto& [id, frame] : frames_) live += frame.live ? 1 : 0;
    ASSERT_EQ(cube.pin()->live_frames(), live);
    ASSERT_EQ(cube.pin()->places.size(), frames_.size());
    for (const auto& [id, frame] : frames_) {
      check(cube, id, frame);
      if (::testing::Test::HasFailure()) return;
    }
  }

  // As after the process was killed: the files as they are now, opened elsewhere.
  void check_after_a_kill() {
    SCOPED_TRACE("after a kill");
    testing::TemporaryDirectory copy;
    const std::string to = copy.path() + "/s";
    std::filesystem::copy(directory_.path(), to, std::filesystem::copy_options::recursive);
    StoreOptions options;
    options.unpacker = ACCRETE_UNPACK_PROGRAM;
    auto store = Store::open(to, options);
    ASSERT_TRUE(store.ok()) << store.error().sentence;
    const auto cube = *(*store)->find("c");
    ASSERT_FALSE(cube->read_only()) << cube->last_error();
    check_all(*cube);
  }

  void check_view() {
    const Pinned pinned = cube_->pin();
    if (pinned->live_frames() == 0) return;
    PerAxis<ViewAxis> spanned;
    Shape at(3);
    const Shape shape = pinned->shape();
    std::vector<std::size_t> axes{0, 1, 2};
    std::shuffle(axes.begin(), axes.end(), random_);
    const std::size_t rank = 1 + random_() % 3;
    for (std::size_t i = 0; i < 3; ++i) {
      if (i < rank)
        spanned.push_back({axes[i], {0, shape[axes[i]]}});
      else
        at[axes[i]] = random_() % shape[axes[i]];
    }
    const auto view = View::make(pinned->axes, spanned, at);
    ASSERT_TRUE(view.ok());
    for (const std::string& text : view_cards(*cube_, *pinned.snapshot, *view)) {
      ASSERT_EQ(text.size() % 80, 0U);
      ASSERT_FALSE(is_structural_card(text.substr(0, 80))) << text;
      ASSERT_TRUE(is_printable(text));
    }
  }

  void set_something() {
    switch (random_() % 4) {
      case 0:
        nearest_ = one_in(random_, 2);
        ASSERT_TRUE(cube_->set_property("convert", nearest_ ? "nearest" : "exact").ok());
        break;
      case 1:
        drops_ = one_in(random_, 3);
        ASSERT_TRUE(cube_->set_property("residue", drops_ ? "drop" : "keep").ok());
        break;
      case 2: {
        const char* const words[] = {"first", "0", "1", "2", "Sci"};
        const std::size_t word = random_() % std::size(words);
        // Files with one image are those of the first one only.
        if (has_single_fits()) break;
        hdu_ = word == 4 ? 1 : word == 0 ? 0 : static_cast<int>(word) - 1;
        ASSERT_TRUE(cube_->set_property("hdu", words[word]).ok());
        break;
      }
      default:
        ASSERT_TRUE(
            cube_->set_property("header", "NOTE = 'n" + std::to_string(random_()) + "'").ok());
    }
  }
  bool has_single_fits() const {
    return std::any_of(writers_.begin(), writers_.end(), [](const Writer& w) {
      return w.plan.is_fits && w.plan.images[0].data == w.plan.images[1].data;
    });
  }

  void change_a_frame() {
    if (frames_.empty()) return;
    auto it = std::next(frames_.begin(), static_cast<std::ptrdiff_t>(random_() % frames_.size()));
    Frame& frame = it->second;
    const std::string& name = frame.plan.name;
    if (frame.live) {
      if (frames_.size() < 3) return;
      ASSERT_TRUE(cube_->remove_frame(name, name).ok());
      frame.live = false;
    } else if (one_in(random_, 2)) {
      ASSERT_TRUE(cube_->restore_frame(name, name).ok());
      frame.live = true;
    } else {
      if (frames_.size() < 3) return;
      ASSERT_TRUE(cube_->discard_frame(name).ok());
      frames_.erase(it);
    }
  }

  void step() {
    if (writers_.size() < 4) {
      Writer w;
      do w.plan = make_plan(random_, "f" + std::to_string(names_), one_in(random_, 3), type_);
      while (hdu_ != 0 && w.plan.is_fits && w.plan.images[0].data == w.plan.images[1].data);
      ++names_;
      constexpr std::size_t steps[] = {30, 300, 3000};
      w.step = steps[random_() % std::size(steps)];
      IngestRequest request;
      request.name = w.plan.name;
      request.axis = 2;
      w.ingest = *cube_->begin_ingest(request);
      writers_.push_back(std::move(w));
    }
    const std::size_t which = random_() % writers_.size();
    Writer& w = writers_[which];
    const Plan& plan = w.plan;
    switch (random_() % 40) {
      case 0: {  // somewhere, with a hole before it perhaps
        const std::size_t at = random_() % plan.file.size();
        write(w, at, plan.file.substr(at, 1 + random_() % 900));
        break;
      }
      case 1:
      case 2:
      case 11:
      case 12: {  // elements that are others
        const Image& image = plan.chosen(hdu_);
        if (plan.packed || w.written.size() <= image.data) break;
        const std::size_t known = std::min(w.written.size() - image.data, image.bytes());
        const std::size_t at = random_() % known;
        std::string piece = w.written;
        for (std::size_t i = at / image.width(); i < image.count() && i < at / image.width() + 9;
             ++i)
          if (image.data + (i + 1) * image.width() <= piece.size())
            put_bits(image, piece, i, some_bits(random_, image, one_in(random_, 60)));
        write(w, image.data + at, piece.substr(image.data + at, 1 + random_() % 60));
        break;
      }
      case 3: {
        const std::size_t size =
            one_in(random_, 3) ? random_() % (plan.file.size() + 1) : plan.file.size();
        w.written.resize(size, '\0');
        w.was_odd = w.was_odd || any_odd(plan, w.written);
        const Status status = w.ingest->truncate(size);
        ASSERT_TRUE(status.ok()) << status.error().sentence;
        break;
      }
      case 4:
      case 5:
      case 6: {
        std::string back(1 + random_() % 9000, '?');
        const std::size_t at = random_() % (w.written.size() + 10);
        const auto n = w.ingest->read(at, std::as_writable_bytes(std::span(back)));
        ASSERT_TRUE(n.ok());
        ASSERT_TRUE(back.substr(0, *n) ==
                    (at < w.written.size() ? w.written.substr(at, back.size()) : ""))
            << plan.name;
        ASSERT_EQ(w.ingest->size(), w.written.size());
        break;
      }
      case 7:
      case 8:
        commit(w);
        break;
      case 9:
        if (one_in(random_, 3)) drop(w);
        break;
      case 10: {  // all that is missing
        for (std::size_t at = 0; at < plan.file.size() && w.ingest;) {
          const std::size_t n = 1 + random_() % 5000;
          write(w, at, plan.file.substr(at, n));
          at += n;
        }
        if (!w.ingest) break;
        w.written.resize(plan.file.size());
        ASSERT_TRUE(w.ingest->truncate(plan.file.size()).ok());
        commit(w);
        break;
      }
      case 13:
        if (plan.object != 0 && !plan.packed && w.written.size() > plan.images[0].data)
          write(w, plan.object, std::string(8, static_cast<char>('a' + random_() % 26)));
        break;
      case 14: {
        const Image& image = plan.chosen(hdu_);
        if (image.datasum != 0 && !plan.packed && w.written.size() >= image.data + image.bytes())
          write(w, image.datasum, sum_text(image, w.written));
        break;
      }
      case 15:
        set_something();
        break;
      case 16:
      case 17:
        change_a_frame();
        break;
      case 18:
        if (one_in(random_, 4)) {
          ASSERT_TRUE(store_->sync().ok());
        }
        break;
      case 19:
        check_view();
        break;
      case 20:
        if (one_in(random_, 20)) check_after_a_kill();
        break;
      case 21:
        if (!one_in(random_, 20)) break;
        writers_.clear();
        open(directory_.path());
        {
          SCOPED_TRACE("after a remount");
          check_all(*cube_);
        }
        return;
      default:  // in order, as most do
        for (int n = 0; n < 30 && w.ingest && w.written.size() < plan.file.size(); ++n)
          write(w, w.written.size(), plan.file.substr(w.written.size(), 1 + random_() % w.step));
        break;
    }
    if (!w.ingest) {
      std::swap(w, writers_.back());
      writers_.pop_back();
    }
  }

  Random random_;
  testing::TemporaryDirectory directory_;
  std::unique_ptr<Store> store_;
  std::shared_ptr<Cube> cube_;
  std::optional<DType> type_;  // as set
  bool nearest_ = false, drops_ = false;
  int hdu_ = 0;
  int names_ = 0;
  int commits_ = 0;
  std::vector<Writer> writers_;
  std::map<FrameId, Frame> frames_;
};

TEST(RandomIngest, FramesAreTheFilesThatCameAndTheirValues) {
  const std::uint64_t first = testing::seed();
  const std::uint64_t seeds = from_environment("ACCRETE_SEEDS", 50);
  for (std::uint64_t seed = first; seed < first + seeds; ++seed) {
    SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(seed));
    History(seed).run(static_cast<int>(from_environment("ACCRETE_STEPS", 800)));
    if (::testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace accrete
