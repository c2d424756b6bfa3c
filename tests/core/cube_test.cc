// A cube against a plain nested array: what goes in by files comes out by views.

#include "core/cube.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <random>

#include "core/linearize.h"
#include "core/view_name.h"
#include "tests/core/store_fixture.h"

namespace accrete {
namespace {

using testing::frame_file;
using testing::put;
using testing::random_elements;
using testing::read_all;
using testing::TemporaryDirectory;

// The reference: extents and elements in natural order, axis 0 fastest.
struct Model {
  DType type = DType::u8;
  Shape shape;
  std::vector<std::byte> bytes;

  std::uint64_t count() const {
    std::uint64_t n = 1;
    for (const std::uint64_t e : shape) n *= e;
    return n;
  }
  const std::byte* at(const Shape& index) const {
    std::uint64_t i = 0;
    for (std::size_t a = shape.size(); a-- > 0;) i = i * shape[a] + index[a];
    return bytes.data() + i * size_of(type);
  }

  // The frame becomes the last indexes of `axis`; the cube takes the larger extents.
  void append(std::size_t axis, const Shape& extent, const std::vector<std::byte>& frame) {
    Model next;
    next.type = type;
    for (std::size_t a = 0; a < shape.size(); ++a)
      next.shape.push_back(a == axis ? shape[a] + extent[a] : std::max(shape[a], extent[a]));
    const std::size_t size = size_of(type);
    next.bytes.resize(next.count() * size);
    fill(next.bytes.data(), next.count(), default_pad(type), type);
    next.paste(*this, Shape(shape.size()));
    Shape place(shape.size());
    place[axis] = shape[axis];
    next.paste({type, extent, frame}, place);
    *this = std::move(next);
  }

 private:
  void paste(const Model& source, const Shape& place) {
    const std::size_t size = size_of(type);
    Shape index(source.shape.size());
    for (std::uint64_t i = 0; i < source.count(); ++i) {
      Shape target = index;
      for (std::size_t a = 0; a < index.size(); ++a) target[a] += place[a];
      std::copy_n(source.bytes.data() + i * size, size, const_cast<std::byte*>(at(target)));
      for (std::size_t a = 0; a < index.size() && ++index[a] == source.shape[a]; ++a) index[a] = 0;
    }
  }
};

std::vector<std::byte> expected(const Model& model, const View& view,
                                const PerAxis<ViewAxis>& spanned, const Shape& fixed) {
  const std::size_t size = size_of(model.type);
  std::vector<std::byte> bytes(view.element_count() * size);
  Shape index(spanned.size());
  for (std::uint64_t i = 0; i < view.element_count(); ++i) {
    Shape at = fixed;
    for (std::size_t d = 0; d < spanned.size(); ++d)
      at[spanned[d].axis] = spanned[d].range.begin + index[d];
    std::copy_n(model.at(at), size, bytes.data() + i * size);
    for (std::size_t d = 0; d < index.size() && ++index[d] == spanned[d].range.length(); ++d)
      index[d] = 0;
  }
  return bytes;
}

// `given`: 1 for the elements that frames gave.
void check_random_views(const Cube& cube, const Model& model, const Model& given,
                        std::mt19937_64& random, int views) {
  const Pinned pinned = cube.pin();
  ASSERT_EQ(pinned->shape(), model.shape);
  const auto below = [&](std::uint64_t n) { return random() % n; };
  for (int v = 0; v < views; ++v) {
    std::vector<std::size_t> axes(model.shape.size());
    for (std::size_t a = 0; a < axes.size(); ++a) axes[a] = a;
    std::shuffle(axes.begin(), axes.end(), random);
    axes.resize(1 + below(axes.size()));
    PerAxis<ViewAxis> spanned;
    for (const std::size_t a : axes) {
      const std::uint64_t begin = below(model.shape[a]);
      spanned.push_back({a, {begin, begin + 1 + below(model.shape[a] - begin)}});
      if (below(2) == 0) spanned.back().range = {0, model.shape[a]};
    }
    Shape fixed;
    for (const std::uint64_t e : model.shape) fixed.push_back(below(e));
    const auto view = View::make(pinned->axes, spanned, fixed);
    ASSERT_TRUE(view.ok()) << view.error().sentence;
    const auto want = expected(model, *view, spanned, fixed);
    ASSERT_EQ(read_all(cube, *view), want);
    // A piece of it, in another coding.
    const std::uint64_t begin = below(view->element_count());
    const Interval range{begin, begin + 1 + below(view->element_count() - begin)};
    const Coding coding = fits_coding(model.type);
    const std::size_t size = size_of(model.type);
    std::vector<std::byte> piece(range.length() * size);
    ASSERT_TRUE(cube.read(pinned, *view, range, piece.data(), coding).ok());
    recode(piece.data(), piece.data(), range.length(), coding, native(model.type));
    ASSERT_TRUE(std::equal(piece.begin(), piece.end(),
                           want.begin() + static_cast<std::ptrdiff_t>(range.begin * size)));
    const auto mask = expected(given, *view, spanned, fixed);
    std::vector<std::byte> part(range.length());
    gather_mask(*view, pinned->boxes, range, part.data());
    ASSERT_TRUE(std::equal(part.begin(), part.end(),
                           mask.begin() + static_cast<std::ptrdiff_t>(range.begin)));
  }
}

class CubeTest : public ::testing::Test {
 protected:
  CubeTest() { reopen(); }

  void reopen() {
    store_.reset();
    auto store = Store::open(directory_.path(), {});
    ASSERT_TRUE(store.ok()) << store.error().sentence;
    store_ = std::move(store).value();
  }
  std::shared_ptr<Cube> cube(const std::string& name = "c") {
    auto cube = store_->find(name);
    if (!cube.ok()) cube = store_->create(name);
    EXPECT_TRUE(cube.ok());
    return *cube;
  }

  TemporaryDirectory directory_;
  std::unique_ptr<Store> store_;
};

TEST_F(CubeTest, RandomAppendsOfAllTypesAndRanksEqualANestedArray) {
  std::mt19937_64 random(testing::seed());
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(testing::seed()));
  for (std::size_t rank = 1; rank <= max_rank; ++rank) {
    for (const DType type : all_dtypes) {
      const std::string name = "r" + std::to_string(rank) + "-" + std::string(name_of(type));
      SCOPED_TRACE(name);
      std::shared_ptr<Cube> c = cube(name);
      ASSERT_TRUE(c->set_property("axes", std::string("xyztsuvw").substr(0, rank)).ok());
      const std::size_t axis = random() % rank;
      ASSERT_TRUE(c->set_property("grow", std::string(1, "xyztsuvw"[axis])).ok());
      Model model{type, Shape(rank), {}};
      Model given{DType::u8, Shape(rank), {}};
      Shape extent;
      for (std::size_t a = 0; a < rank; ++a)
        extent.push_back(1 + random() % (rank <= 2 ? 40 : rank <= 4 ? 7 : 3));
      const int frames = rank <= 4 ? 14 : 6;
      for (int f = 0; f < frames; ++f) {
        if (f == frames / 2) {
          // A remount in the middle: what follows must continue what is there.
          c.reset();
          reopen();
          c = cube(name);
        }
        Shape now = extent;
        if (random() % 4 == 0) now[random() % rank] = 1 + random() % 5;
        std::uint64_t count = 1;
        for (const std::uint64_t e : now) count *= e;
        const auto elements = random_elements(random, type, count);
        const FormatId format = random() % 2 == 0 ? FormatId::fits : FormatId::npy;
        const auto id = put(*c, "f" + std::to_string(f), frame_file(format, type, now, elements));
        ASSERT_TRUE(id.ok()) << id.error().sentence;
        model.append(axis, now, elements);
        given.append(axis, now, std::vector<std::byte>(count, std::byte{1}));
        const auto row = c->pin()->frames.find(*id);
        const auto view = c->frame_view(*row);
        ASSERT_TRUE(view.ok());
        ASSERT_EQ(read_all(*c, *view), elements);
      }
      check_random_views(*c, model, given, random, 8);
    }
  }
}

TEST_F(CubeTest, SerialAppendsAreOneRunAndNoSecondCopyOfTheData) {
  std::mt19937_64 random(testing::seed());
  auto c = cube();
  const Shape plane{64, 64};
  for (int f = 0; f < 300; ++f)
    ASSERT_TRUE(put(*c, std::to_string(f) + ".fits",
                    frame_file(FormatId::fits, DType::f32, plane,
                               random_elements(random, DType::f32, 64 * 64)))
                    .ok());
  const Pinned pinned = c->pin();
  EXPECT_EQ(pinned->axes[2].run_count(), 1U);
  EXPECT_EQ(to_string(pinned->shape()), "64 64 300");
  // 1, 1, 2 … 64 layers, then 64 each: six doublings and the rest.
  EXPECT_LE(pinned->boxes.size(), 12U);
}

TEST_F(CubeTest, FramesOfAnotherShapeStoreLittleMoreThanThemselves) {
  std::mt19937_64 random(testing::seed());
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(testing::seed()));
  auto c = cube();
  std::uint64_t bytes = 0;
  for (int f = 0; f < 200; ++f) {
    const Shape plane{50 + random() % 200, 50 + random() % 200};
    bytes += plane[0] * plane[1] * 2;
    ASSERT_TRUE(put(*c, std::to_string(f),
                    frame_file(FormatId::npy, DType::i16, plane,
                               random_elements(random, DType::i16, plane[0] * plane[1])))
                    .ok());
  }
  const std::uint64_t stored = std::strtoull(c->property("bytes")->c_str(), nullptr, 10);
  EXPECT_LE(static_cast<double>(stored), 1.2 * static_cast<double>(bytes));
}

TEST_F(CubeTest, FortranOrderIsTransposedOnTheWayIn) {
  std::mt19937_64 random(testing::seed());
  const Shape natural{5, 3, 4};
  const auto elements = random_elements(random, DType::u16, 60);
  // The same array as numpy writes it with fortran_order: its first index (our z) fastest.
  std::string file = frame_file(FormatId::npy, DType::u16, natural, elements);
  const std::size_t data = file.size() - 120;
  for (std::size_t x = 0; x < 5; ++x)
    for (std::size_t y = 0; y < 3; ++y)
      for (std::size_t z = 0; z < 4; ++z)
        std::copy_n(reinterpret_cast<const char*>(elements.data()) + ((z * 3 + y) * 5 + x) * 2, 2,
                    file.begin() + static_cast<std::ptrdiff_t>(data + ((x * 3 + y) * 4 + z) * 2));
  const std::size_t order = file.find("False");
  ASSERT_NE(order, std::string::npos);
  file.replace(order, 5, "True ");
  auto c = cube();
  const auto id = put(*c, "f.npy", file);
  ASSERT_TRUE(id.ok()) << id.error().sentence;
  EXPECT_EQ(to_string(c->pin()->shape()), "5 3 4");
  EXPECT_EQ(read_all(*c, *View::whole(c->pin()->axes)), elements);
}

TEST_F(CubeTest, BytesInAnyOrderGiveTheSameFrame) {
  std::mt19937_64 random(testing::seed());
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(testing::seed()));
  auto c = cube();
  const Shape plane{37, 21};
  for (int turn = 0; turn < 20; ++turn) {
    const auto elements = random_elements(random, DType::i32, 37 * 21);
    const std::string file =
        frame_file(turn % 2 == 0 ? FormatId::fits : FormatId::npy, DType::i32, plane, elements);
    std::vector<std::pair<std::size_t, std::size_t>> pieces;
    for (std::size_t at = 0; at < file.size();) {
      const std::size_t n = std::min<std::size_t>(file.size() - at, 1 + random() % 700);
      pieces.push_back({at, n});
      at += n;
    }
    std::shuffle(pieces.begin() + (turn % 3 == 0 ? 0 : 8), pieces.end(), random);
    IngestRequest request;
    request.name = "f" + std::to_string(turn);
    const auto ingest = c->begin_ingest(request);
    ASSERT_TRUE(ingest.ok());
    for (const auto& [at, n] : pieces)
      ASSERT_TRUE((*ingest)->write(at, as_bytes(std::string_view(file).substr(at, n))).ok());
    std::string back(file.size() + 10, '?');
    const auto n = (*ingest)->read(0, std::as_writable_bytes(std::span(back)));
    ASSERT_TRUE(n.ok());
    ASSERT_EQ(back.substr(0, *n), file);
    const auto id = (*ingest)->commit();
    ASSERT_TRUE(id.ok()) << id.error().sentence;
    const auto view = c->frame_view(*c->pin()->frames.find(*id));
    ASSERT_EQ(read_all(*c, *view), elements);
  }
}

TEST_F(CubeTest, AFileOfUnfinishedHeaderOrDataIsRefusedAndTakesNothing) {
  std::mt19937_64 random(testing::seed());
  auto c = cube();
  const Shape plane{40, 30};
  const auto elements = random_elements(random, DType::f64, 1200);
  const std::string file = frame_file(FormatId::fits, DType::f64, plane, elements);
  ASSERT_TRUE(put(*c, "first.fits", file).ok());
  const std::string bytes = *c->property("bytes");
  for (std::size_t length = 0; length < 2880 * 2 + 40 * 30 * 8; length += 497) {
    const auto id = put(*c, "cut.fits", std::string_view(file).substr(0, length));
    ASSERT_FALSE(id.ok()) << length;
    EXPECT_EQ(id.error().code, std::errc::invalid_argument) << length << id.error().sentence;
  }
  EXPECT_EQ(to_string(c->pin()->shape()), "40 30 1");
  EXPECT_EQ(*c->property("bytes"), bytes);
  EXPECT_NE(c->last_error().find("truncated"), std::string::npos) << c->last_error();
  ASSERT_TRUE(put(*c, "cut.fits", file + "").ok());
}

TEST_F(CubeTest, FramesThatDoNotFitAreRefusedWithASentence) {
  auto c = cube();
  std::mt19937_64 random(1);
  const auto plane =
      frame_file(FormatId::fits, DType::f32, {8, 8}, random_elements(random, DType::f32, 64));
  ASSERT_TRUE(put(*c, "a.fits", plane).ok());
  const auto other_type =
      put(*c, "b.fits",
          frame_file(FormatId::fits, DType::f64, {8, 8}, random_elements(random, DType::f64, 64)));
  ASSERT_FALSE(other_type.ok());
  EXPECT_EQ(other_type.error().code, std::errc::invalid_argument);
  for (const char* part : {"float64", "float32", "meta/dtype", " at (0, 0"})
    EXPECT_NE(other_type.error().sentence.find(part), std::string::npos)
        << other_type.error().sentence;
  const auto other_rank = put(*c, "c.fits",
                              frame_file(FormatId::fits, DType::f32, {2, 2, 2, 2},
                                         random_elements(random, DType::f32, 16)));
  ASSERT_FALSE(other_rank.ok());
  EXPECT_EQ(other_rank.error().code, std::errc::invalid_argument);
  EXPECT_FALSE(put(*c, "d", "no image at all").ok());
  EXPECT_FALSE(put(*c, "z", plane).ok()) << "an axis letter";
  EXPECT_EQ(put(*c, "bad\nname", plane).error().code, std::errc::invalid_argument);
  EXPECT_EQ(put(*c, std::string(256, 'n'), plane).error().code, std::errc::filename_too_long);
  EXPECT_EQ(to_string(c->pin()->shape()), "8 8 1");
}

TEST_F(CubeTest, ARawFrameIsExactlyOneLikeTheLast) {
  std::mt19937_64 random(testing::seed());
  auto c = cube();
  const auto first = random_elements(random, DType::u16, 16 * 9);
  const auto second = random_elements(random, DType::u16, 16 * 9);
  ASSERT_TRUE(put(*c, "a.npy", frame_file(FormatId::npy, DType::u16, {16, 9}, first)).ok());
  ASSERT_TRUE(put(*c, "b.raw", frame_file(FormatId::raw, DType::u16, {16, 9}, second)).ok());
  EXPECT_FALSE(put(*c, "c.raw", std::string(16 * 9 * 2 - 1, 'q')).ok());
  EXPECT_FALSE(put(*c, "d.raw", std::string(16 * 9 * 2 + 1, 'q')).ok());
  EXPECT_EQ(to_string(c->pin()->shape()), "16 9 2");
  auto all = first;
  all.insert(all.end(), second.begin(), second.end());
  EXPECT_EQ(read_all(*c, *View::whole(c->pin()->axes)), all);
}

TEST_F(CubeTest, TheSameFileTwiceIsOneFrameAndAnotherOfThatNameKeepsBoth) {
  std::mt19937_64 random(testing::seed());
  auto c = cube();
  const auto first =
      frame_file(FormatId::fits, DType::u8, {10, 10}, random_elements(random, DType::u8, 100));
  const auto second =
      frame_file(FormatId::fits, DType::u8, {10, 10}, random_elements(random, DType::u8, 100));
  const auto id = put(*c, "frame.fits", first);
  ASSERT_TRUE(id.ok());
  const auto again = put(*c, "frame.fits", first);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(*id, *again);
  EXPECT_EQ(to_string(c->pin()->shape()), "10 10 1");
  ASSERT_TRUE(put(*c, "frame.fits", second).ok());
  EXPECT_EQ(to_string(c->pin()->shape()), "10 10 2");
  EXPECT_EQ(c->find_frame("frame.fits.~1~"), *id);
  EXPECT_NE(c->find_frame("frame.fits"), *id);
}

TEST_F(CubeTest, BytesAfterTheCommitChangeTheFrame) {
  std::mt19937_64 random(testing::seed());
  auto c = cube();
  auto old_elements = random_elements(random, DType::i16, 600);
  auto new_elements = random_elements(random, DType::i16, 600);
  const std::string old_file = frame_file(FormatId::fits, DType::i16, {30, 20}, old_elements);
  const std::string new_file = frame_file(FormatId::fits, DType::i16, {30, 20}, new_elements);
  ASSERT_TRUE(put(*c, "before.fits", old_file).ok());
  IngestRequest request;
  request.name = "f.fits";
  const auto ingest = *c->begin_ingest(request);
  ASSERT_TRUE(ingest->write(0, as_bytes(old_file)).ok());
  ASSERT_TRUE(ingest->commit().ok());
  ASSERT_TRUE(put(*c, "after.fits",
                  frame_file(FormatId::fits, DType::i16, {30, 20},
                             random_elements(random, DType::i16, 600)))
                  .ok());
  // A header card, then the data.
  std::string changed = new_file;
  const std::string card = "COMMENT a later thought";
  changed.replace(2880 - 80 * 3, card.size(), card);
  ASSERT_TRUE(ingest->write(0, as_bytes(changed).first(2880)).ok());
  ASSERT_TRUE(ingest->dirty());
  ASSERT_TRUE(ingest->commit().ok());
  ASSERT_TRUE(ingest->write(0, as_bytes(changed)).ok());
  const auto id = ingest->commit();
  ASSERT_TRUE(id.ok()) << id.error().sentence;
  EXPECT_EQ(to_string(c->pin()->shape()), "30 20 3");
  const auto row = *c->pin()->frames.find(*c->find_frame("f.fits"));
  EXPECT_EQ(read_all(*c, *c->frame_view(row)), new_elements);
  EXPECT_EQ(c->pin()->axes[2].logical(row.first[2]), 1U) << "it keeps its place";
  EXPECT_TRUE(testing::file_of(*c, row) == changed);
}

TEST_F(CubeTest, SeveralWritersAtOnceAreAllTaken) {
  std::mt19937_64 random(testing::seed());
  auto c = cube();
  constexpr int writers = 6;
  std::vector<std::shared_ptr<Ingest>> ingests;
  std::vector<std::string> files;
  std::vector<std::vector<std::byte>> elements;
  for (int w = 0; w < writers; ++w) {
    // The fourth is wider than the others.
    const Shape plane{w == 3 ? 30U : 20U, 10};
    elements.push_back(random_elements(random, DType::f32, plane[0] * 10));
    files.push_back(frame_file(FormatId::fits, DType::f32, plane, elements.back()));
    IngestRequest request;
    request.name = "w" + std::to_string(w);
    ingests.push_back(*c->begin_ingest(request));
  }
  std::size_t longest = 0;
  for (const auto& file : files) longest = std::max(longest, file.size());
  for (std::size_t at = 0; at < longest; at += 333)
    for (std::size_t w = 0; w < files.size(); ++w) {
      if (at >= files[w].size()) continue;
      const std::string_view piece = std::string_view(files[w]).substr(at, 333);
      ASSERT_TRUE(ingests[w]->write(at, as_bytes(piece)).ok());
    }
  std::vector<int> order{4, 1, 3, 0, 5, 2};
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto w = static_cast<std::size_t>(order[i]);
    const auto id = ingests[w]->commit();
    ASSERT_TRUE(id.ok()) << id.error().sentence;
    const auto row = *c->pin()->frames.find(*id);
    EXPECT_EQ(read_all(*c, *c->frame_view(row)), elements[w]) << w;
    EXPECT_EQ(c->pin()->axes[2].logical(row.first[2]), i) << "in the order of their commits";
  }
  EXPECT_EQ(to_string(c->pin()->shape()), "30 10 6");
}

TEST_F(CubeTest, AnAbandonedStreamGivesItsLayersAndCoordinatesBack) {
  std::mt19937_64 random(testing::seed());
  auto c = cube();
  const auto file =
      frame_file(FormatId::fits, DType::f64, {64, 64}, random_elements(random, DType::f64, 4096));
  ASSERT_TRUE(put(*c, "a", file).ok());
  const std::string bytes = *c->property("bytes");
  for (int turn = 0; turn < 50; ++turn) {
    IngestRequest request;
    request.name = "gone";
    auto ingest = *c->begin_ingest(request);
    ASSERT_TRUE(ingest->write(0, as_bytes(file).first(20000)).ok());
    if (turn % 2 == 0) ingest->abandon("cut off");
  }
  EXPECT_EQ(*c->property("bytes"), bytes);
  for (int f = 0; f < 20; ++f)
    ASSERT_TRUE(put(*c, "n" + std::to_string(f),
                    frame_file(FormatId::fits, DType::f64, {64, 64},
                               random_elements(random, DType::f64, 4096)))
                    .ok());
  EXPECT_EQ(c->pin()->axes[2].run_count(), 1U);
}

TEST_F(CubeTest, FramesThatComeAndGoLeaveNoBoxesBehind) {
  std::mt19937_64 random(testing::seed());
  const auto file = [&] {
    return frame_file(FormatId::fits, DType::i16, {64, 64},
                      random_elements(random, DType::i16, 64 * 64));
  };
  ASSERT_TRUE(put(*cube(), "stays", file()).ok());
  for (const bool reopened : {false, true}) {
    for (int n = 0; n < 400; ++n) {
      const std::string name = "f" + std::to_string(n);
      ASSERT_TRUE(put(*cube(), name, file()).ok());
      ASSERT_TRUE(cube()->remove_frame(name, name).ok());
      ASSERT_TRUE(cube()->discard_frame(name).ok());
    }
    EXPECT_LE(cube()->pin()->boxes.size(), 4U) << reopened;
    EXPECT_EQ(cube()->pin()->newest, 1U);
    reopen();
  }
}

TEST_F(CubeTest, SettingsThatDefineTheCubeHoldFromBeforeItsFirstFrame) {
  std::mt19937_64 random(testing::seed());
  auto c = cube();
  EXPECT_FALSE(c->set_property("axes", "x y x").ok());
  EXPECT_FALSE(c->set_property("axes", "x Y").ok());
  EXPECT_FALSE(c->set_property("dtype", "complex64").ok());
  EXPECT_FALSE(c->set_property("pad", "much").ok());
  EXPECT_FALSE(c->set_property("grow", "q").ok());
  EXPECT_FALSE(c->set_property("formats", "fits jpeg").ok());
  EXPECT_FALSE(c->set_property("durability", "maybe").ok());
  EXPECT_EQ(c->set_property("shape", "1 2").error().code, std::errc::operation_not_permitted);
  ASSERT_TRUE(c->set_property("axes", "x y f s\n").ok());
  ASSERT_TRUE(c->set_property("grow", "f\n").ok());
  ASSERT_TRUE(c->set_property("dtype", "int16\n").ok());
  ASSERT_TRUE(c->set_property("pad", "-7\n").ok());
  ASSERT_TRUE(c->set_property("formats", "npy txt\n").ok());
  const auto elements = random_elements(random, DType::i16, 12);
  EXPECT_FALSE(put(*c, "a", frame_file(FormatId::npy, DType::u16, {4, 3}, elements)).ok());
  ASSERT_TRUE(put(*c, "a", frame_file(FormatId::npy, DType::i16, {4, 3}, elements)).ok());
  ASSERT_TRUE(
      put(*c, "b",
          frame_file(FormatId::npy, DType::i16, {2, 2}, random_elements(random, DType::i16, 4)))
          .ok());
  EXPECT_EQ(*c->property("shape"), "4 3 2 1\n");
  EXPECT_EQ(*c->property("axes"), "x y f s\n");
  EXPECT_EQ(*c->property("pad"), "-7\n");
  EXPECT_EQ(*c->property("formats"), "npy txt\n");
  for (const char* name : {"dtype", "axes", "pad"})
    EXPECT_EQ(c->set_property(name, "x").error().code, std::errc::operation_not_permitted);
  const auto terms = parse_terms("y2_f1_s0", "xyfs");
  ASSERT_TRUE(terms.has_value());
  const auto corner = resolve_view(c->pin()->axes, {0}, *terms);
  ASSERT_TRUE(corner.ok());
  const auto bytes = read_all(*c, *corner);
  Element first;
  std::copy_n(bytes.begin(), 2, first.bytes.begin());
  EXPECT_EQ(format_element(first, DType::i16), "-7");
  for (const std::string_view name : Cube::property_names()) {
    const auto text = c->property(name);
    ASSERT_TRUE(text.ok()) << name;
    EXPECT_TRUE(text->empty() || text->back() == '\n') << name;
  }
}

TEST(StoreTest, AStoreThatWasBeingMadeIsMadeAgain) {
  const TemporaryDirectory directory;
  const std::string unfinished = directory.path() + "/accretefs.store.new";
  std::ofstream(unfinished).close();
  StoreOptions options;
  options.create = false;
  EXPECT_EQ(Store::open(directory.path(), options).error().code,
            std::errc::no_such_file_or_directory);
  ASSERT_TRUE(Store::open(directory.path(), {}).ok());
  EXPECT_TRUE(Store::open(directory.path(), options).ok());
}

TEST(StoreTest, OneIsNotMadeBesideOtherThings) {
  const TemporaryDirectory directory;
  std::ofstream(directory.path() + "/accretefs.store.new").close();
  std::ofstream(directory.path() + "/other").close();
  EXPECT_EQ(Store::open(directory.path(), {}).error().code, std::errc::directory_not_empty);
}

TEST_F(CubeTest, LimitsRefuseBeforeAnythingIsTaken) {
  StoreOptions options;
  options.limits = {.max_frame = 1000, .max_cube = 3000};
  store_.reset();
  store_ = std::move(Store::open(directory_.path(), options)).value();
  auto c = cube();
  const std::vector<std::byte> elements(1004);
  EXPECT_EQ(put(*c, "a", frame_file(FormatId::fits, DType::f32, {251, 1}, elements)).error().code,
            std::errc::file_too_large);
  for (int f = 0; f < 3; ++f) {
    std::vector<std::byte> unlike(elements);
    unlike[0] = static_cast<std::byte>(f);
    ASSERT_TRUE(
        put(*c, std::to_string(f), frame_file(FormatId::fits, DType::f32, {250, 1}, unlike)).ok());
  }
  std::vector<std::byte> unlike(elements);
  unlike[1] = std::byte{9};
  EXPECT_EQ(put(*c, "4", frame_file(FormatId::fits, DType::f32, {250, 1}, unlike)).error().code,
            std::errc::file_too_large);
}

}  // namespace
}  // namespace accrete
