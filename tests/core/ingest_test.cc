// Incoming files under every order of writes, commits and failures, against the bytes that came.

#include "core/ingest.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <random>
#include <set>
#include <thread>

#include "tests/core/store_fixture.h"

namespace accrete {
namespace {

using testing::frame_file;
using testing::put;
using testing::random_elements;
using testing::read_all;
using testing::TemporaryDirectory;

constexpr std::size_t longest_header = 5760;  // of files that frame_file() makes

// The elements that a file of this layout holds, native.
std::vector<std::byte> elements_in(const std::string& file, const FrameLayout& layout) {
  std::vector<std::byte> elements(layout.data_bytes);
  const auto all = as_bytes(file).subspan(layout.data_offset);
  std::copy_n(all.begin(), std::min<std::size_t>(all.size(), elements.size()), elements.begin());
  const DType type = layout.coding.type;
  recode(elements.data(), elements.data(), elements.size() / size_of(type), layout.coding,
         native(type));
  return elements;
}

class IngestTest : public ::testing::Test {
 protected:
  void SetUp() override { open(directory_.path()); }

  void open(const std::string& path) {
    testing::reopen(path, store_, cube_);
  }

  std::shared_ptr<Ingest> begin(const std::string& name) {
    IngestRequest request;
    request.name = name;
    return *cube_->begin_ingest(request);
  }

  std::string plane_file(std::uint64_t width, std::uint64_t height, FormatId format,
                         DType type = DType::i16) {
    return frame_file(format, type, {width, height},
                      random_elements(random_, type, width * height));
  }

  void expect_frame(FrameId id, const std::string& file) const {
    const auto row = cube_->pin()->frames.find(id);
    ASSERT_TRUE(row);
    ASSERT_EQ(row->state, FrameState::live);
    if (const DType type = cube_->pin()->definition.coding.type; type == row->layout.coding.type) {
      EXPECT_TRUE(read_all(*cube_, *cube_->frame_view(*row)) == elements_in(file, row->layout))
          << cube_->frame_name(*row);
    }
    EXPECT_TRUE(testing::file_of(*cube_, *row) == file);
  }

  std::uint64_t bytes() const {
    return std::strtoull(cube_->property("bytes")->c_str(), nullptr, 10);
  }

  TemporaryDirectory directory_;
  std::unique_ptr<Store> store_;
  std::shared_ptr<Cube> cube_;
  std::mt19937_64 random_{testing::seed()};
};

// A file that comes in, and what its writer knows it to hold.
struct Writer {
  std::string name;
  std::string target;  // what it will be in the end
  std::string image;   // what was written so far
  std::shared_ptr<Ingest> ingest;
  std::optional<FrameId> committed;
  std::string at_commit;
};

TEST_F(IngestTest, RandomInterleavingsOfManyWritersGiveEachItsOwnBytes) {
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(testing::seed()));
  std::vector<Writer> writers;
  std::map<std::string, std::pair<FrameId, std::string>> frames;  // done: name -> id, bytes
  int names = 0, commits = 0, again = 0;
  const auto write = [&](Writer& w, std::size_t at, const std::string& piece) {
    if (w.image.size() < at + piece.size()) w.image.resize(at + piece.size(), '\0');
    w.image.replace(at, piece.size(), piece);
    const Status status = at + piece.size() == w.image.size() && at > 0 && random_() % 4 == 0 &&
                                  at == w.ingest->size()
                              ? w.ingest->append(as_bytes(piece))
                              : w.ingest->write(at, as_bytes(piece));
    ASSERT_TRUE(status.ok()) << status.error().sentence;
  };
  const auto commit = [&](Writer& w) {
    const auto id = w.ingest->commit();
    const bool whole = w.image == w.target;
    if (!id.ok()) {
      ASSERT_FALSE(whole) << id.error().sentence;
      ASSERT_EQ(id.error().code, std::errc::invalid_argument);
      return;
    }
    commits += 1;
    again += w.committed ? 1 : 0;
    w.committed = *id;
    w.at_commit = w.image;
    ASSERT_EQ(*w.ingest->commit(), *id);
    expect_frame(*id, w.image);
  };
  for (int step = 0; step < 2500; ++step) {
    if (writers.size() < 6) {
      Writer w;
      w.name = "f" + std::to_string(names++);
      const bool wide = random_() % 6 == 0;
      const FormatId format = random_() % 3 == 0 ? FormatId::npy : FormatId::fits;
      w.target = plane_file(wide ? 1 + random_() % 80 : 40, wide ? 1 + random_() % 80 : 30, format);
      if (format == FormatId::fits && random_() % 4 == 0)
        w.target.append(2880 * (1 + random_() % 3), static_cast<char>(random_()));
      w.ingest = begin(w.name);
      writers.push_back(std::move(w));
    }
    Writer& w = writers[random_() % writers.size()];
    switch (random_() % 14) {
      case 0: {  // somewhere, with a hole before it perhaps
        const std::size_t at = random_() % w.target.size();
        write(w, at, w.target.substr(at, 1 + random_() % 900));
        break;
      }
      case 1: {  // elements that will be written again
        if (w.image.size() <= longest_header) break;
        const std::size_t at = longest_header + random_() % (w.image.size() - longest_header);
        if (at >= w.target.size()) break;
        std::string piece(std::min<std::size_t>(1 + random_() % 50, w.target.size() - at), '\0');
        for (char& c : piece) c = static_cast<char>(random_());
        write(w, at, piece);
        break;
      }
      case 2: {
        const std::size_t size =
            random_() % 3 == 0 ? random_() % (w.target.size() + 1) : w.target.size();
        ASSERT_TRUE(w.ingest->truncate(size).ok());
        w.image.resize(size, '\0');
        break;
      }
      case 3: {
        std::string back(1 + random_() % 5000, '?');
        const std::size_t at = random_() % (w.image.size() + 10);
        const auto n = w.ingest->read(at, std::as_writable_bytes(std::span(back)));
        ASSERT_TRUE(n.ok());
        ASSERT_TRUE(back.substr(0, *n) ==
                    (at < w.image.size() ? w.image.substr(at, back.size()) : ""));
        ASSERT_EQ(w.ingest->size(), w.image.size());
        break;
      }
      case 4:
        commit(w);
        break;
      case 5: {  // the end: given up, or left as it was committed
        if (random_() % 4 != 0) break;
        if (random_() % 2 == 0) w.ingest->abandon("");
        w.ingest.reset();
        if (w.committed) frames[w.name] = {*w.committed, w.at_commit};
        std::swap(w, writers.back());
        writers.pop_back();
        break;
      }
      case 6: {  // all that is missing
        ASSERT_TRUE(w.ingest->truncate(w.target.size()).ok());
        w.image.resize(w.target.size(), '\0');
        for (std::size_t at = 0; at < w.target.size(); at += 1000)
          write(w, at, w.target.substr(at, 1000));
        commit(w);
        break;
      }
      case 7:
        if (random_() % 8 == 0) {
          ASSERT_TRUE(store_->sync().ok());
        }
        break;
      default: {  // in order, as most do
        if (w.image.size() >= w.target.size()) break;
        write(w, w.image.size(), w.target.substr(w.image.size(), 1 + random_() % 1500));
        break;
      }
    }
    if (HasFailure()) return;
  }
  for (Writer& w : writers)
    if (w.committed) frames[w.name] = {*w.committed, w.at_commit};
  writers.clear();
  for (int turn = 0; turn < 2; ++turn) {
    EXPECT_EQ(cube_->pin()->live_frames(), frames.size());
    EXPECT_EQ(cube_->pin()->shape()[2], frames.size());
    for (const auto& [name, frame] : frames) {
      EXPECT_EQ(cube_->find_frame(name), frame.first);
      expect_frame(frame.first, frame.second);
    }
    open(directory_.path());
  }
  EXPECT_GT(commits, 50);
  EXPECT_GT(again, 3);
}

TEST_F(IngestTest, OfFirstFramesThatRaceOneDefinesTheCubeAndTheOthersFitOrAreRefused) {
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(testing::seed()));
  for (int turn = 0; turn < 24; ++turn) {
    const std::string name = "race" + std::to_string(turn);
    cube_ = *store_->create(name);
    struct Candidate {
      std::string file;
      std::shared_ptr<Ingest> ingest;
      DType type;
    };
    std::vector<Candidate> candidates;
    const auto add = [&](DType type, const Shape& shape, FormatId format) {
      const std::uint64_t count = *checked_product({shape.begin(), shape.end()});
      Candidate c{frame_file(format, type, shape, random_elements(random_, type, count)),
                  begin("c" + std::to_string(candidates.size())), type};
      candidates.push_back(std::move(c));
    };
    add(DType::i16, {20, 10}, FormatId::fits);
    add(DType::f32, {20, 10}, FormatId::fits);
    add(DType::i16, {7, 9, 4}, FormatId::npy);
    add(DType::i16, {33}, FormatId::npy);
    add(DType::u8, {3, 3, 2, 2}, FormatId::fits);
    add(DType::i16, {90, 2}, FormatId::npy);
    for (std::size_t at = 0; at < 9000; at += 700)
      for (Candidate& c : candidates)
        if (at < c.file.size()) {
          ASSERT_TRUE(c.ingest->write(at, as_bytes(std::string_view(c.file).substr(at, 700))).ok());
        }
    std::shuffle(candidates.begin(), candidates.end(), random_);
    std::vector<std::pair<FrameId, std::string>> taken;
    std::optional<DType> type;
    std::size_t rank = 0;
    for (Candidate& c : candidates) {
      const auto id = c.ingest->commit();
      if (!type) {
        ASSERT_TRUE(id.ok()) << id.error().sentence;
        type = c.type;
        rank = cube_->pin()->axes.size();
      }
      if (id.ok()) {
        EXPECT_TRUE(c.type == *type || c.type == DType::u8 || *type == DType::f32);
        taken.push_back({*id, c.file});
      } else {
        EXPECT_EQ(id.error().code, std::errc::invalid_argument) << id.error().sentence;
      }
      EXPECT_EQ(cube_->pin()->axes.size(), rank);
    }
    for (const auto& [id, file] : taken) expect_frame(id, file);
    candidates.clear();
    std::uint64_t held = 8192;
    cube_->pin()->boxes.for_all([&](const Box& box) { held += box.byte_length() * 2; });
    EXPECT_LE(bytes(), held);
    if (HasFailure()) return;
  }
}

// Values that both types have, or some that only `from` has.
std::vector<std::byte> values_for(std::mt19937_64& random, DType from, DType to, std::size_t n,
                                  bool fitting) {
  std::vector<std::byte> values(n * size_of(from));
  std::vector<std::byte> bytes(n);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random() % 100);
  (void)convert(values.data(), from, bytes.data(), DType::u8, n, Rounding::exact, Element{});
  if (!fitting) {
    const Element odd = *parse_element(is_float(from) ? "0.1" : "101", from);
    if (!is_float(from) || !is_float(to) || size_of(to) < size_of(from))
      std::memcpy(values.data() + random() % n * size_of(from), odd.bytes.data(), size_of(from));
  }
  return values;
}

TEST_F(IngestTest, AFrameOfAnotherTypeIsConvertedAndComesBackAsItWas) {
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(testing::seed()));
  int n = 0;
  for (const DType to : all_dtypes) {
    cube_ = *store_->create(std::string(name_of(to)));
    ASSERT_TRUE(cube_->set_property("dtype", name_of(to)).ok());
    for (const DType from : all_dtypes)
      for (const FormatId format : {FormatId::fits, FormatId::npy}) {
        const Shape shape{31, 17};
        const auto values = values_for(random_, from, to, 31 * 17, true);
        const std::string file = frame_file(format, from, shape, values);
        const auto ingest = begin("f" + std::to_string(n++));
        // Pieces that end within elements; sometimes not in order.
        const std::size_t step = 1 + random_() % 3000;
        const bool in_order = random_() % 3 != 0;
        for (std::size_t at = 0; at < file.size(); at += step)
          ASSERT_TRUE(ingest->write(at, as_bytes(std::string_view(file).substr(at, step))).ok());
        if (!in_order) {
          const std::size_t at = step % file.size();
          ASSERT_TRUE(ingest->write(at, as_bytes(std::string_view(file).substr(at, 900))).ok());
        }
        std::string back(file.size(), '\0');
        ASSERT_TRUE(ingest->read(0, std::as_writable_bytes(std::span(back))).ok());
        EXPECT_TRUE(back == file) << "read back before the commit";
        const auto id = ingest->commit();
        ASSERT_TRUE(id.ok()) << name_of(from) << " to " << name_of(to) << ": "
                             << id.error().sentence;
        expect_frame(*id, file);
        const auto row = *cube_->pin()->frames.find(*id);
        EXPECT_EQ(row.original.length, 0U);
        std::vector<std::byte> expected(31 * 17 * size_of(to));
        (void)convert(expected.data(), to, values.data(), from, 31 * 17, Rounding::exact,
                      Element{});
        EXPECT_TRUE(read_all(*cube_, *cube_->frame_view(row)) == expected);
      }
  }
}

TEST_F(IngestTest, WhatIsNotExactIsRefusedOrRoundedAndKept) {
  const auto values = values_for(random_, DType::f64, DType::f32, 40 * 30, false);
  for (const FormatId format : {FormatId::fits, FormatId::npy}) {
    const std::string file = frame_file(format, DType::f64, {40, 30}, values);
    cube_ = *store_->create(format == FormatId::fits ? "fits" : "npy");
    ASSERT_TRUE(cube_->set_property("dtype", "float32").ok());
    const auto refused = put(*cube_, "f", file);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code, std::errc::invalid_argument);
    for (const char* part : {"float64", "float32", "0.1 at (", "meta/convert"})
      EXPECT_NE(refused.error().sentence.find(part), std::string::npos) << refused.error().sentence;
    EXPECT_EQ(cube_->pin()->frames.count(), 0U);
    ASSERT_TRUE(cube_->set_property("convert", "nearest").ok());
    const auto taken = put(*cube_, "f", file);
    ASSERT_TRUE(taken.ok()) << taken.error().sentence;
    expect_frame(*taken, file);
    EXPECT_GT(cube_->pin()->frames.find(*taken)->original.length, 0U);
    ASSERT_TRUE(cube_->set_property("residue", "drop").ok());
    const auto dropped = put(*cube_, "g", file + (format == FormatId::fits ? "tail" : ""));
    ASSERT_TRUE(dropped.ok()) << dropped.error().sentence;
    const FrameRow row = *cube_->pin()->frames.find(*dropped);
    std::vector<std::byte> rounded(40 * 30 * 4);
    (void)convert(rounded.data(), DType::f32, values.data(), DType::f64, 40 * 30, Rounding::nearest,
                  Element{});
    EXPECT_TRUE(testing::file_of(*cube_, row) == frame_file(format, DType::f32, {40, 30}, rounded));
  }
}

TEST_F(IngestTest, WhatIsLeftOfAFortranFileIsNotTransposed) {
  cube_ = *store_->create("fortran");
  ASSERT_TRUE(cube_->set_property("dtype", "int16").ok());
  ASSERT_TRUE(cube_->set_property("convert", "nearest").ok());
  ASSERT_TRUE(cube_->set_property("residue", "drop").ok());
  // numpy's [[.5, 2, 4], [1, 3, 5]], column by column.
  const std::vector<double> values{.5, 1, 2, 3, 4, 5};
  const auto* const first = reinterpret_cast<const std::byte*>(values.data());
  std::string file = frame_file(FormatId::npy, DType::f64, {3, 2}, {first, first + 48});
  file.replace(file.find("False"), 5, "True ");
  const auto id = put(*cube_, "f", file);
  ASSERT_TRUE(id.ok()) << id.error().sentence;
  const std::vector<std::int16_t> rounded{0, 2, 4, 1, 3, 5};
  const auto* const element = reinterpret_cast<const std::byte*>(rounded.data());
  EXPECT_TRUE(testing::file_of(*cube_, *cube_->pin()->frames.find(*id)) ==
              frame_file(FormatId::npy, DType::i16, {3, 2}, {element, element + 12}));
}

TEST_F(IngestTest, AMinusZeroThatIntegersDoNotHaveIsKeptInTheFile) {
  cube_ = *store_->create("zero");
  ASSERT_TRUE(cube_->set_property("dtype", "int16").ok());
  std::vector<double> values(3000, 5);
  values[2999] = -0.0;
  const std::string file =
      frame_file(FormatId::npy, DType::f64, {3000},
                 {reinterpret_cast<const std::byte*>(values.data()),
                  reinterpret_cast<const std::byte*>(values.data() + values.size())});
  const auto ingest = begin("f");
  for (std::size_t at = 0; at < file.size(); at += 1001)
    ASSERT_TRUE(ingest->write(at, as_bytes(std::string_view(file).substr(at, 1001))).ok());
  const auto id = ingest->commit();
  ASSERT_TRUE(id.ok()) << id.error().sentence;
  expect_frame(*id, file);
}

TEST_F(IngestTest, TailsOfAnyLengthComeBack) {
  const std::string image = plane_file(50, 50, FormatId::fits);
  int n = 0;
  for (const std::size_t length : {std::size_t{1}, std::size_t{2880}, std::size_t{4} << 20,
                                   (std::size_t{4} << 20) + 1, std::size_t{9} << 20}) {
    std::string file = image;
    file.resize(image.size() + length);
    for (std::size_t i = image.size(); i < file.size(); ++i) file[i] = static_cast<char>(random_());
    const auto id = put(*cube_, "t" + std::to_string(n++), file);
    ASSERT_TRUE(id.ok()) << id.error().sentence;
    expect_frame(*id, file);
  }
}

TEST_F(IngestTest, AHugeHoleTakesNoMemoryAndIsGivenUpWithoutATrace) {
  ASSERT_TRUE(put(*cube_, "a", plane_file(50, 50, FormatId::fits)).ok());
  const auto before = bytes();
  const std::string file = plane_file(50, 50, FormatId::fits);
  for (const std::uint64_t size : {std::uint64_t{1} << 40, ~std::uint64_t{0}}) {
    auto ingest = begin("b");
    ASSERT_TRUE(ingest->write(0, as_bytes(file)).ok());
    const Status status = ingest->truncate(size);
    EXPECT_EQ(status.ok(), size == std::uint64_t{1} << 40);
    ingest->abandon("enough");
  }
  EXPECT_LE(bytes(), before + 4096);
}

TEST_F(IngestTest, WhatAFrameHadBesideItsElementsGoesWithIt) {
  const auto heap_blocks = [&] {
    struct stat status {};
    EXPECT_EQ(::stat((directory_.path() + "/c/heap").c_str(), &status), 0);
    return static_cast<std::uint64_t>(status.st_blocks) * 512;
  };
  ASSERT_TRUE(put(*cube_, "small", plane_file(8, 8, FormatId::fits)).ok());
  const std::uint64_t before = heap_blocks();
  constexpr std::uint64_t tail = 8 << 20;
  ASSERT_TRUE(put(*cube_, "f", plane_file(8, 8, FormatId::fits) + std::string(tail, 'x')).ok());
  EXPECT_GE(heap_blocks(), before + tail);
  ASSERT_TRUE(cube_->remove_frame("f", "f").ok());
  ASSERT_TRUE(store_->sync().ok());
  EXPECT_GE(heap_blocks(), before + tail);
  ASSERT_TRUE(cube_->discard_frame("f").ok());
  ASSERT_TRUE(store_->sync().ok());
  EXPECT_LE(heap_blocks(), before + (64 << 10));
  EXPECT_EQ(cube_->pin()->frames.find(1)->prefix.length, 5760u);
}

// A cube of NPY keeps unsigned numbers as they are, FITS with the top bit inverted.
TEST_F(IngestTest, HolesAreZerosOfTheFileWhateverTheCodingAtRest) {
  ASSERT_TRUE(put(*cube_, "first", plane_file(40, 30, FormatId::npy, DType::u16)).ok());
  const std::string file =
      frame_file(FormatId::fits, DType::u16, {40, 30}, std::vector<std::byte>(40 * 30 * 2));
  const std::size_t header = file.size() / 2880 * 2880 - 2880;
  std::string holey = file;
  std::fill(holey.begin() + static_cast<std::ptrdiff_t>(header), holey.end(), '\0');
  for (const bool by_write : {true, false}) {
    const auto ingest = begin(by_write ? "written" : "truncated");
    ASSERT_TRUE(ingest->write(0, as_bytes(holey).first(header)).ok());
    if (by_write)
      ASSERT_TRUE(ingest->write(holey.size() - 2, as_bytes(holey).last(2)).ok());
    else
      ASSERT_TRUE(ingest->truncate(holey.size()).ok());
    std::string back(holey.size(), '?');
    ASSERT_TRUE(ingest->read(0, std::as_writable_bytes(std::span(back))).ok());
    EXPECT_TRUE(back == holey);
    const auto id = ingest->commit();
    ASSERT_TRUE(id.ok()) << id.error().sentence;
    expect_frame(*id, holey);
  }
}

TEST_F(IngestTest, AFileThatGetsItsHeaderLastIsWhatItsHeaderSays) {
  ASSERT_TRUE(put(*cube_, "a", plane_file(50, 50, FormatId::fits)).ok());
  const std::string file = plane_file(60, 40, FormatId::fits);
  // The place of the header holds zeros at first, so the stream looks like a raw frame.
  std::string draft = file;
  std::fill_n(draft.begin(), 2880, '\0');
  auto ingest = begin("b");
  for (std::size_t at = 0; at < draft.size(); at += 1000)
    ASSERT_TRUE(ingest->write(at, as_bytes(std::string_view(draft).substr(at, 1000))).ok());
  EXPECT_FALSE(ingest->commit().ok());
  ASSERT_TRUE(ingest->write(0, as_bytes(file).first(2880)).ok());
  const auto id = ingest->commit();
  ASSERT_TRUE(id.ok()) << id.error().sentence;
  expect_frame(*id, file);
}

TEST_F(IngestTest, AFrameThatIsRewrittenKeepsThePlaceAndTheNameThatItHasByThen) {
  const std::string first = plane_file(20, 20, FormatId::fits);
  auto ingest = begin("same");
  ASSERT_TRUE(ingest->write(0, as_bytes(first)).ok());
  ASSERT_TRUE(ingest->commit().ok());
  const std::string second = plane_file(20, 20, FormatId::fits);
  const FrameId newer = *put(*cube_, "same", second);
  EXPECT_TRUE(cube_->find_frame("same.~1~"));
  ASSERT_TRUE(cube_->set_property("grow", "x").ok());
  const std::string third = plane_file(20, 20, FormatId::fits);
  ASSERT_TRUE(ingest->write(2880, as_bytes(third).subspan(2880)).ok());
  const auto id = ingest->commit();
  ASSERT_TRUE(id.ok()) << id.error().sentence;
  expect_frame(*id, third);
  expect_frame(newer, second);
  EXPECT_EQ(cube_->find_frame("same"), newer);
  EXPECT_EQ(cube_->find_frame("same.~1~"), *id);
  EXPECT_EQ(to_string(cube_->pin()->shape()), "20 20 2");
  EXPECT_EQ(cube_->pin()->axes[2].logical(cube_->pin()->frames.find(*id)->first[2]), 0U);
}

TEST_F(IngestTest, ACameraMayWriteTheSameNameForEver) {
  std::vector<std::string> files;
  for (int n = 0; n < 300; ++n) {
    files.push_back(plane_file(4, 4, FormatId::npy));
    ASSERT_TRUE(put(*cube_, "frame.fits", files.back()).ok());
  }
  expect_frame(*cube_->find_frame("frame.fits"), files.back());
  std::set<std::uint64_t> places;
  for (int n = 1; n < 300; ++n) {
    const auto id = cube_->find_frame("frame.fits.~" + std::to_string(n) + "~");
    ASSERT_TRUE(id) << n;
    expect_frame(*id, files[static_cast<std::size_t>(n - 1)]);
  }
}

TEST_F(IngestTest, FramesOfOtherShapesDoNotMakeAWalkLookAtAllOfThem) {
  // Each has a box of its own, and all of these begin at the same place of their layer axis.
  for (std::uint64_t n = 0; n < 1000; ++n)
    ASSERT_TRUE(put(*cube_, std::to_string(n), plane_file(3 + n % 2, 4, FormatId::npy)).ok());
  const Pinned pinned = cube_->pin();
  ASSERT_GE(pinned->boxes.size(), 900U);
  int asked = 0;
  int visited = 0;
  pinned->boxes.for_meeting(
      [&](std::size_t axis, std::int64_t low, std::int64_t high) {
        ++asked;
        const std::int64_t at = axis == 2 ? pinned->axes[2].physical(700) : 1;
        return low <= at && at < high;
      },
      [&](const Box&) { ++visited; });
  EXPECT_EQ(visited, 1);
  EXPECT_LE(asked, 200);
}

// A limit of the files' size stands for a disk that is full at some point of the work.
TEST_F(IngestTest, AWriteThatFailsAnywhereChangesNothing) {
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(testing::seed()));
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  std::map<FrameId, std::string> frames;
  int failed = 0;
  for (int n = 0; n < 120; ++n) {
    std::string file = plane_file(30 + random_() % 40, 50, FormatId::fits);
    if (n % 3 == 0) file.append(random_() % 60'000, 'x');
    struct stat bricks {
    }, heap{};
    ::stat((directory_.path() + "/c/bricks").c_str(), &bricks);
    ::stat((directory_.path() + "/c/heap").c_str(), &heap);
    rlimit limit = old;
    const auto base = static_cast<rlim_t>(random_() % 2 == 0 ? bricks.st_size : heap.st_size);
    limit.rlim_cur = base + random_() % 40'000;
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::uint64_t before = cube_->pin()->live_frames();
    const auto id = put(*cube_, "f" + std::to_string(n), file);
    if (n % 4 == 0) (void)store_->sync();
    ::setrlimit(RLIMIT_FSIZE, &old);
    ASSERT_FALSE(cube_->read_only()) << cube_->last_error();
    if (id.ok()) {
      frames[*id] = file;
    } else {
      ++failed;
      EXPECT_EQ(id.error().code, std::errc::file_too_large) << id.error().sentence;
      EXPECT_EQ(cube_->pin()->live_frames(), before);
    }
    if (n % 40 == 39) {
      ASSERT_TRUE(store_->sync().ok());
      for (const auto& [frame, bytes] : frames) expect_frame(frame, bytes);
      open(directory_.path());
      ASSERT_FALSE(cube_->read_only());
    }
  }
  EXPECT_GT(failed, 10);
  EXPECT_GT(frames.size(), 10U);
  for (const auto& [frame, bytes] : frames) expect_frame(frame, bytes);
}

TEST_F(IngestTest, AWriterReadsItsBytesAsLongAsItsFileIsOpenWhateverBecomesOfTheFrame) {
  const std::string keep = plane_file(200, 200, FormatId::fits);
  ASSERT_TRUE(put(*cube_, "keep", keep).ok());
  const std::string file = plane_file(300, 500, FormatId::fits);
  auto ingest = begin("a");
  ASSERT_TRUE(ingest->write(0, as_bytes(file)).ok());
  ASSERT_TRUE(ingest->commit().ok());
  ASSERT_TRUE(cube_->remove_frame("a", "a").ok());
  ASSERT_TRUE(cube_->discard_frame("a").ok());
  ASSERT_TRUE(store_->sync().ok());
  const auto expect_file = [&] {
    std::string seen(file.size(), '\0');
    const auto n = ingest->read(0, std::as_writable_bytes(std::span(seen)));
    ASSERT_TRUE(n.ok()) << n.error().sentence;
    EXPECT_EQ(*n, file.size());
    EXPECT_TRUE(seen == file);
  };
  expect_file();
  ASSERT_TRUE(put(*cube_, "b", plane_file(300, 500, FormatId::fits)).ok());
  expect_file();
  const std::uint64_t held = bytes();
  ingest.reset();
  ASSERT_TRUE(store_->sync().ok());
  EXPECT_LE(bytes() + 300 * 500 * 2, held);
}

// A FITS file whose first blank card is another one.
std::string with_card(std::string file, std::string card) {
  std::size_t at = 0;
  while (file.compare(at, 80, std::string(80, ' ')) != 0) at += 80;
  card.resize(80, ' ');
  return file.replace(at, 80, card);
}

TEST_F(IngestTest, AHeaderThatIsRewrittenAfterTheCommitMovesItsFrameWhereKeywordsSort) {
  ASSERT_TRUE(put(*cube_, "n1", with_card(plane_file(9, 9, FormatId::fits), "NUM     = 1")).ok());
  ASSERT_TRUE(cube_->set_property("order", "NUM").ok());
  const std::string file = plane_file(9, 9, FormatId::fits);
  auto ingest = begin("moves");
  ASSERT_TRUE(ingest->write(0, as_bytes(with_card(file, "NUM     = 0"))).ok());
  ASSERT_TRUE(ingest->commit().ok());
  for (const int n : {3, 5, 7})
    ASSERT_TRUE(put(*cube_, "n" + std::to_string(n),
                    with_card(plane_file(9, 9, FormatId::fits), "NUM     = " + std::to_string(n)))
                    .ok());
  const auto names = [&] {
    std::string all;
    const Pinned pinned = cube_->pin();
    for (const FrameId id : pinned->frames_in_order(false))
      all += cube_->frame_name(*pinned->frames.find(id)) + " ";
    return all;
  };
  EXPECT_EQ(names(), "moves n1 n3 n5 n7 ");
  const std::string moved = with_card(file, "NUM     = 4");
  ASSERT_TRUE(ingest->write(0, as_bytes(moved).first(2880)).ok());
  const auto id = ingest->commit();
  ASSERT_TRUE(id.ok()) << id.error().sentence;
  EXPECT_EQ(names(), "n1 n3 moves n5 n7 ");
  expect_frame(*id, moved);
  // Without the keyword it has no place.
  ASSERT_TRUE(ingest->write(0, as_bytes(file).first(2880)).ok());
  EXPECT_EQ(ingest->commit().error().code, std::errc::invalid_argument);
  expect_frame(*id, moved);
  ASSERT_TRUE(put(*cube_, "n2", with_card(plane_file(9, 9, FormatId::fits), "NUM     = 2")).ok());
  EXPECT_EQ(names(), "n1 n2 n3 moves n5 n7 ");
}

TEST_F(IngestTest, AFullDiskGetsTheSpaceOfDiscardedFramesBackAtOnce) {
  cube_.reset();
  store_.reset();
  const std::string mount = directory_.path() + "/disk";
  std::filesystem::create_directory(mount);
  if (::mount("tmpfs", mount.c_str(), "tmpfs", 0, "size=4m") != 0)
    GTEST_SKIP() << "mounting takes privileges";
  open(mount);
  int n = 0;
  std::string file;
  const auto next = [&] {
    file = plane_file(200, 200, FormatId::fits);
    return put(*cube_, "f" + std::to_string(++n), file);
  };
  while (n < 200 && next().ok()) continue;
  ASSERT_LT(n, 200);
  for (int turn = 0; turn < 30; ++turn) {
    SCOPED_TRACE(turn);
    for (int k = 0; k < 3; ++k) {
      const std::string name = "f" + std::to_string(turn * 3 + k + 1);
      if (!cube_->remove_frame(name, name).ok()) break;
      ASSERT_TRUE(cube_->discard_frame(name).ok());
    }
    const auto id = next();
    ASSERT_TRUE(id.ok()) << id.error().sentence;
    expect_frame(*id, file);
  }
  cube_.reset();
  store_.reset();
  EXPECT_EQ(::umount(mount.c_str()), 0);
}

TEST_F(IngestTest, AFullDiskRefusesAndLosesNothing) {
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(testing::seed()));
  cube_.reset();
  store_.reset();
  const std::string mount = directory_.path() + "/disk";
  std::filesystem::create_directory(mount);
  if (::mount("tmpfs", mount.c_str(), "tmpfs", 0, "size=3m") != 0)
    GTEST_SKIP() << "mounting takes privileges";
  open(mount);
  std::map<FrameId, std::string> frames;
  int refused = 0;
  for (int n = 0; n < 150 && !HasFailure(); ++n) {
    const std::string file =
        plane_file(n % 5 == 0 ? 50 + random_() % 100 : 100, 100, FormatId::fits);
    const auto id = put(*cube_, "f" + std::to_string(n), file);
    if (id.ok()) {
      frames[*id] = file;
    } else {
      ++refused;
      EXPECT_EQ(id.error().code, std::errc::no_space_on_device) << id.error().sentence;
    }
    if (n % 10 == 0) (void)store_->sync();
    EXPECT_FALSE(cube_->read_only()) << cube_->last_error();
    if (n % 50 == 49) {
      for (const auto& [frame, bytes] : frames) expect_frame(frame, bytes);
      open(mount);
    }
  }
  EXPECT_GT(refused, 20);
  EXPECT_GT(frames.size(), 100U);
  for (const auto& [frame, bytes] : frames) expect_frame(frame, bytes);
  cube_.reset();
  store_.reset();
  EXPECT_EQ(::umount(mount.c_str()), 0);
}

TEST_F(IngestTest, ThreadsThatWriteReadAndSyncSeeWholeFrames) {
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(testing::seed()));
  store_->start();
  constexpr int writers = 4, frames = 40;
  std::atomic<bool> stop{false};
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  // A frame's elements are all the same, and different from those of others.
  for (int w = 0; w < writers; ++w)
    threads.emplace_back([&, w] {
      std::mt19937_64 random(testing::seed() + static_cast<std::uint64_t>(w));
      for (int n = 0; n < frames; ++n) {
        const std::uint64_t width = random() % 5 == 0 ? 10 + random() % 60 : 48;
        std::vector<std::int32_t> values(width * 32, 1 + w * frames + n);
        const auto elements = std::as_bytes(std::span(values));
        const std::string file = frame_file(n % 2 == 0 ? FormatId::fits : FormatId::npy, DType::i32,
                                            {width, 32}, {elements.begin(), elements.end()});
        IngestRequest request;
        request.name = n % 10 == 0 ? "same" : std::to_string(w) + "-" + std::to_string(n);
        const auto ingest = cube_->begin_ingest(request);
        if (!ingest.ok()) {
          ++failures;
          continue;
        }
        for (std::size_t at = 0; at < file.size(); at += 1500)
          if (!(*ingest)->write(at, as_bytes(std::string_view(file).substr(at, 1500))).ok())
            ++failures;
        if (n % 7 == 3) continue;  // given up
        if (!(*ingest)->commit().ok()) ++failures;
        if (n % 9 == 4) {
          std::fill(values.begin(), values.end(), -(1 + w * frames + n));
          const std::string other =
              frame_file(n % 2 == 0 ? FormatId::fits : FormatId::npy, DType::i32, {width, 32},
                         {elements.begin(), elements.end()});
          if (!(*ingest)->write(0, as_bytes(other)).ok() || !(*ingest)->commit().ok()) ++failures;
        }
      }
    });
  for (int r = 0; r < 2; ++r)
    threads.emplace_back([&] {
      while (!stop) {
        const Pinned pinned = cube_->pin();
        if (pinned->live_frames() == 0) continue;
        const Shape shape = pinned->shape();
        const View view = *View::whole(pinned->axes);
        std::vector<std::int32_t> all(view.element_count());
        if (!cube_
                 ->read(pinned, view, {0, all.size()}, reinterpret_cast<std::byte*>(all.data()),
                        native(DType::i32))
                 .ok())
          ++failures;
        const std::uint64_t plane = shape[0] * shape[1];
        for (std::uint64_t z = 0; z < shape[2]; ++z)
          for (std::uint64_t i = 0; i < plane; ++i) {
            const std::int32_t value = all[z * plane + i];
            if (value != all[z * plane] && value != 0) {
              ++failures;
              break;
            }
          }
        for (FrameId id = 1; id <= pinned->frames.count(); ++id)
          if (const auto row = pinned->frames.find(id); row && cube_->frame_name(*row).empty())
            ++failures;
        (void)cube_->find_frame("same");
        (void)cube_->property("frames");
      }
    });
  threads.emplace_back([&] {
    while (!stop) {
      if (!store_->sync().ok()) ++failures;
      cube_->sync([&](const Status& status) { failures += status.ok() ? 0 : 1; });
    }
  });
  for (int w = 0; w < writers; ++w) threads[static_cast<std::size_t>(w)].join();
  stop = true;
  for (std::size_t t = writers; t < threads.size(); ++t) threads[t].join();
  EXPECT_EQ(failures, 0);
  const auto live = cube_->pin()->live_frames();
  EXPECT_EQ(live, cube_->pin()->shape()[2]);
  EXPECT_EQ(live, static_cast<std::uint64_t>(writers * frames - writers * 6));
  open(directory_.path());
  EXPECT_EQ(cube_->pin()->live_frames(), live);
}

}  // namespace
}  // namespace accrete
