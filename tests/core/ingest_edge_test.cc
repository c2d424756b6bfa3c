// Incoming files whose bytes come in an unusual way, or whose meaning changes while they come in.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <random>

#include "core/fits_checksum.h"
#include "core/system_calls.h"
#include "tests/core/store_fixture.h"

namespace accrete {
namespace {

using testing::frame_file;
using testing::put;
using testing::TemporaryDirectory;

template <class T>
std::vector<std::byte> elements(const std::vector<T>& values) {
  const auto* const begin = reinterpret_cast<const std::byte*>(values.data());
  return {begin, begin + values.size() * sizeof(T)};
}

template <class T>
T element_at(const Cube& cube, const FrameRow& row, std::size_t index) {
  const std::vector<std::byte> all = testing::read_all(cube, *cube.frame_view(row));
  T value;
  std::memcpy(&value, all.data() + index * sizeof(T), sizeof value);
  return value;
}

// A header of these cards, with END, in whole blocks.
std::string fits_header(const std::vector<std::string>& cards) {
  std::string header;
  for (std::string card : cards) {
    card.resize(80, ' ');
    header += card;
  }
  header += "END";
  header.resize((header.size() + 2879) / 2880 * 2880, ' ');
  return header;
}

// Big-endian int16 values, in whole blocks.
std::string fits_data(std::size_t count, std::uint16_t begin = 0) {
  std::string data;
  for (std::size_t i = 0; i < count; ++i) {
    const auto value = static_cast<std::uint16_t>(begin + i);
    data += static_cast<char>(value >> 8);
    data += static_cast<char>(value & 0xff);
  }
  data.resize((data.size() + 2879) / 2880 * 2880, '\0');
  return data;
}

std::string datasum_of(std::string_view data) {
  FitsSummer summer;
  summer.add(as_bytes(data));
  char card[81];
  std::snprintf(card, sizeof card, "DATASUM = '%010u'", summer.sum());
  return card;
}

class IngestEdgeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    StoreOptions options;
    options.unpacker = ACCRETE_UNPACK_PROGRAM;
    store_ = *Store::open(directory_.path(), options);
    cube_ = *store_->create("c");
  }

  std::shared_ptr<Ingest> begin(const std::string& name) {
    IngestRequest request;
    request.name = name;
    return *cube_->begin_ingest(request);
  }
  FrameRow row(FrameId id) const { return *cube_->pin()->frames.find(id); }
  std::string file(FrameId id) const { return testing::file_of(*cube_, row(id)); }

  TemporaryDirectory directory_;
  std::unique_ptr<Store> store_;
  std::shared_ptr<Cube> cube_;
};

std::vector<std::string> image_cards(const std::string& data) {
  return {"SIMPLE  =                    T", "BITPIX  =                   16",
          "NAXIS   =                    1", "NAXIS1  =                 1440", datasum_of(data)};
}

TEST_F(IngestEdgeTest, ASumIsOfTheDataThatAreThereAtLast) {
  const std::string old_data = fits_data(1440);
  const std::string new_data = fits_data(1440, 77);
  // The data are written again, and no more those of which DATASUM is the sum.
  const auto damaged = begin("damaged");
  const std::string file = fits_header(image_cards(old_data)) + old_data;
  ASSERT_TRUE(damaged->write(0, as_bytes(file)).ok());
  ASSERT_TRUE(damaged->write(2880, as_bytes(new_data).first(100)).ok());
  EXPECT_FALSE(damaged->commit().ok());
  damaged->abandon("");
  // Data and DATASUM are both written again.
  const auto changed = begin("changed");
  ASSERT_TRUE(changed->write(0, as_bytes(file)).ok());
  ASSERT_TRUE(changed->write(2880, as_bytes(new_data)).ok());
  const std::string header = fits_header(image_cards(new_data));
  ASSERT_TRUE(changed->write(0, as_bytes(header)).ok());
  const auto id = changed->commit();
  ASSERT_TRUE(id.ok()) << id.error().sentence;
  EXPECT_TRUE(this->file(*id) == header + new_data);
}

TEST_F(IngestEdgeTest, AnElementInTwoWritesIsKeptWhereItIsTheFirstThatIsRounded) {
  ASSERT_TRUE(cube_->set_property("dtype", "float32").ok());
  ASSERT_TRUE(cube_->set_property("convert", "nearest").ok());
  std::vector<double> values(100, 1.0);
  values[10] = 0.1;
  const std::string file = frame_file(FormatId::npy, DType::f64, {100}, elements(values));
  const std::size_t data = file.size() - 800;
  const auto ingest = begin("f");
  const std::size_t first = data + 10 * 8 + 4;  // in the middle of the element
  const std::size_t second = data + 50 * 8 + 4;
  ASSERT_TRUE(ingest->write(0, as_bytes(file).first(first)).ok());
  ASSERT_TRUE(ingest->write(first, as_bytes(file).subspan(first, second - first)).ok());
  ASSERT_TRUE(ingest->write(second, as_bytes(file).subspan(second)).ok());
  std::string back(file.size(), '\0');
  ASSERT_TRUE(ingest->read(0, std::as_writable_bytes(std::span(back))).ok());
  EXPECT_TRUE(back == file);
  const auto id = ingest->commit();
  ASSERT_TRUE(id.ok()) << id.error().sentence;
  EXPECT_TRUE(this->file(*id) == file);
  EXPECT_EQ(element_at<float>(*cube_, row(*id), 10), 0.1f);
}

TEST_F(IngestEdgeTest, OneWriteMayHaveElementsAndALongTail) {
  const std::string file =
      frame_file(FormatId::fits, DType::i16, {1440}, elements(std::vector<std::int16_t>(1440, 7))) +
      std::string(5 << 20, 'x');
  const auto ingest = begin("f");
  ASSERT_TRUE(ingest->write(0, as_bytes(file)).ok());
  const auto id = ingest->commit();
  ASSERT_TRUE(id.ok()) << id.error().sentence;
  EXPECT_TRUE(this->file(*id) == file);
}

TEST_F(IngestEdgeTest, FramesStaySortedWhenTheirKeywordIsInAHeaderThatIsDropped) {
  ASSERT_TRUE(cube_->set_property("order", "KEY").ok());
  ASSERT_TRUE(cube_->set_property("residue", "drop").ok());
  for (const int key : {1, 2, 3, 4}) {
    const std::string primary =
        fits_header({"SIMPLE  =                    T", "BITPIX  =                    8",
                     "NAXIS   =                    0", "KEY     = " + std::to_string(key)});
    const std::string image =
        fits_header({"XTENSION= 'IMAGE   '", "BITPIX  =                   16",
                     "NAXIS   =                    1", "NAXIS1  =                   10",
                     "PCOUNT  =                    0", "GCOUNT  =                    1"});
    const auto id = put(*cube_, "f" + std::to_string(key), primary + image + fits_data(10));
    ASSERT_TRUE(id.ok()) << id.error().sentence;
  }
  std::string order;
  for (const FrameId id : cube_->pin()->frames_in_order(false)) order += cube_->frame_name(row(id));
  EXPECT_EQ(order, "f1f2f3f4");
}

TEST_F(IngestEdgeTest, ACanonicalFileOfAFortranArrayHasItsShape) {
  ASSERT_TRUE(cube_->set_property("dtype", "int16").ok());
  ASSERT_TRUE(cube_->set_property("convert", "nearest").ok());
  ASSERT_TRUE(cube_->set_property("residue", "drop").ok());
  // numpy: shape (2, 3), [0.5 2 4; 1 3 5] by columns.
  std::string file = frame_file(FormatId::npy, DType::f64, {3, 2},
                                elements(std::vector<double>{0.5, 1, 2, 3, 4, 5}));
  const std::size_t at = file.find("False");
  file.replace(at, 5, "True ");
  const auto id = put(*cube_, "f", file);
  ASSERT_TRUE(id.ok()) << id.error().sentence;
  EXPECT_EQ(to_string(cube_->pin()->shape()), "3 2 1");
  const std::string canonical = this->file(*id);
  EXPECT_NE(canonical.find("(2, 3)"), std::string::npos) << canonical.substr(0, 120);
  EXPECT_TRUE(canonical == frame_file(FormatId::npy, DType::i16, {3, 2},
                                      elements(std::vector<std::int16_t>{0, 2, 4, 1, 3, 5})) ||
              canonical.find("True") != std::string::npos);
}

TEST_F(IngestEdgeTest, AHeaderMayMoveBehindAPrimaryOneThatGrows) {
  const std::vector<std::string> primary = {"SIMPLE  =                    T",
                                            "BITPIX  =                    8",
                                            "NAXIS   =                    0"};
  const std::vector<std::string> image = {"XTENSION= 'IMAGE   '",
                                          "BITPIX  =                   16",
                                          "NAXIS   =                    1",
                                          "NAXIS1  =                 1440",
                                          "PCOUNT  =                    0",
                                          "GCOUNT  =                    1",
                                          "OBJECT  = 'M31     '"};
  const std::string data = fits_data(1440);
  std::vector<std::string> long_image = image;
  long_image.insert(long_image.end(), 30, "COMMENT x");
  std::vector<std::string> long_primary = primary;
  long_primary.insert(long_primary.end(), 40, "COMMENT y");
  const std::string before = fits_header(primary) + fits_header(long_image);
  const std::string after = fits_header(long_primary) + fits_header(image);
  ASSERT_EQ(before.size(), after.size());
  const auto ingest = begin("f");
  ASSERT_TRUE(ingest->write(0, as_bytes(before + data)).ok());
  ASSERT_TRUE(ingest->write(0, as_bytes(after)).ok());
  const auto id = ingest->commit();
  ASSERT_TRUE(id.ok()) << id.error().sentence;
  EXPECT_TRUE(file(*id) == after + data);
  const Headers headers = *cube_->frame_headers(row(*id));
  EXPECT_TRUE(headers.image == fits_header(image));
  EXPECT_TRUE(headers.primary == fits_header(long_primary));
}

TEST_F(IngestEdgeTest, AnHduBeyondAnyNumberIsRefused) {
  EXPECT_FALSE(cube_->set_property("hdu", "99999999999").ok());
}

TEST_F(IngestEdgeTest, ExactKeepsLargeIntegersWhateverBLANKIs) {
  ASSERT_TRUE(cube_->set_property("dtype", "int64").ok());
  std::string data(2880, '\0');
  const std::uint64_t value = (std::uint64_t{1} << 53) + 1;
  for (int i = 0; i < 8; ++i) data[i] = static_cast<char>(value >> (56 - 8 * i));
  const std::string file =
      fits_header({"SIMPLE  =                    T", "BITPIX  =                   64",
                   "NAXIS   =                    1", "NAXIS1  =                    1",
                   "BLANK   =                   -1"}) +
      data;
  const auto id = put(*cube_, "f", file);
  if (!id.ok()) return;  // refused: no value was changed
  EXPECT_EQ(element_at<std::int64_t>(*cube_, row(*id), 0), static_cast<std::int64_t>(value));
}

TEST_F(IngestEdgeTest, AFrameWhoseHeaderIsRewrittenIsNewer) {
  const std::string file =
      frame_file(FormatId::fits, DType::i16, {1440}, elements(std::vector<std::int16_t>(1440, 7)));
  const auto ingest = begin("f");
  ASSERT_TRUE(ingest->write(0, as_bytes(file)).ok());
  const FrameId id = *ingest->commit();
  const std::int64_t before = row(id).mtime_ns;
  ASSERT_TRUE(ingest->write(80 * 10, as_bytes(std::string("OBJECT  = 'M31     '"))).ok());
  ASSERT_EQ(*ingest->commit(), id);
  EXPECT_GT(row(id).mtime_ns, before);
}

// Frames so long that their elements are written by another thread while the next ones come.
class LongFrameTest : public IngestEdgeTest {
 protected:
  static constexpr std::size_t plane = 256 * 256 * 4;

  // A cube of `planes` planes in one file, the values of which differ everywhere.
  static std::string long_file(std::uint64_t planes, unsigned seed) {
    std::mt19937_64 random(seed);
    const std::uint64_t count = planes * plane / 4;
    return frame_file(FormatId::fits, DType::f32, {256, 256, planes},
                      testing::random_elements(random, DType::f32, count));
  }
  std::uint64_t blocks() const {
    struct stat status {};
    const std::string path = directory_.path() + "/c/bricks";
    EXPECT_EQ(::stat(path.c_str(), &status), 0);
    return static_cast<std::uint64_t>(status.st_blocks) * 512;
  }
};

TEST_F(LongFrameTest, IsTheFileThatCameInWhateverTheOrder) {
  for (unsigned seed = 0; seed < 6; ++seed) {
    std::mt19937_64 random(seed);
    std::string file = long_file(90, seed);
    const auto ingest = begin("f" + std::to_string(seed));
    for (std::size_t at = 0; at < file.size();) {
      const std::size_t most = seed == 0 ? 256 << 10 : random() % (512 << 10) + 1;
      const std::size_t n = std::min(most, file.size() - at);
      ASSERT_TRUE(ingest->write(at, as_bytes(file).subspan(at, n)).ok());
      at += n;
      if (seed == 0 || random() % 20 != 0 || at < 6000) continue;
      // Elements that came are read, others are written again.
      const std::size_t from = 2880 + random() % (at - 2880);
      std::string back(std::min<std::size_t>(10'000, at - from), ' ');
      ASSERT_EQ(*ingest->read(from, std::as_writable_bytes(std::span(back))), back.size());
      ASSERT_EQ(back, file.substr(from, back.size()));
      for (std::size_t i = 0; i < back.size(); ++i) file[from + i] = static_cast<char>(random());
      ASSERT_TRUE(ingest->write(from, as_bytes(file).subspan(from, back.size())).ok());
    }
    const auto id = ingest->commit();
    ASSERT_TRUE(id.ok()) << id.error().sentence;
    EXPECT_TRUE(this->file(*id) == file) << "seed " << seed;
  }
}

TEST_F(LongFrameTest, TakesNoSpaceWhenItIsAbandoned) {
  ASSERT_TRUE(testing::put(*cube_, "first", long_file(1, 1)).ok());
  const std::uint64_t before = blocks();
  const std::string file = long_file(90, 2);
  for (int i = 0; i < 5; ++i) {
    const auto ingest = begin("f");
    ASSERT_TRUE(ingest->write(0, as_bytes(file).first(file.size() - 5'000'000 * i)).ok());
    ingest->abandon("");
    EXPECT_LE(blocks(), before);
  }
}

TEST_F(LongFrameTest, AFullDiskIsToldAtTheCommitAtTheLatestAndChangesNothing) {
  ASSERT_TRUE(testing::put(*cube_, "first", long_file(1, 1)).ok());
  const std::uint64_t before = blocks();
  const std::uint64_t generation = cube_->pin()->generation;
  const std::string file = long_file(90, 2);
  for (const std::size_t part : {std::size_t{9} << 20, file.size()}) {
    const auto ingest = begin("f");
    const SystemCallWatch watch([&](SystemCall call, const std::string& name) {
      return Intervention{call == SystemCall::write && name == "bricks" ? ENOSPC : 0};
    });
    Status status = ingest->write(0, as_bytes(file).first(part));
    if (status.ok()) status = ingest->write(part, as_bytes(file).subspan(part));
    if (status.ok()) {
      const auto id = ingest->commit();
      ASSERT_FALSE(id.ok());
      status = id.error();
    }
    EXPECT_EQ(status.error().code, std::errc::no_space_on_device) << status.error().sentence;
    ingest->abandon(status.error().sentence);
    EXPECT_LE(blocks(), before);
    EXPECT_EQ(cube_->pin()->generation, generation);
  }
  const auto id = testing::put(*cube_, "f", file);
  ASSERT_TRUE(id.ok()) << id.error().sentence;
  EXPECT_TRUE(this->file(*id) == file);
}

// More than are written behind at a time.
TEST_F(LongFrameTest, ManyAtATimeDoNotMix) {
  ASSERT_TRUE(testing::put(*cube_, "first", long_file(90, 100)).ok());
  constexpr unsigned count = 7;
  std::vector<std::string> files;
  std::vector<std::shared_ptr<Ingest>> ingests;
  for (unsigned i = 0; i < count; ++i) {
    files.push_back(long_file(90, i));
    ingests.push_back(begin("f" + std::to_string(i)));
  }
  constexpr std::size_t step = 1 << 20;
  for (std::size_t at = 0; at < files.front().size(); at += step)
    for (unsigned i = 0; i < count; ++i) {
      const auto all = as_bytes(files[i]);
      ASSERT_TRUE(ingests[i]->write(at, all.subspan(at, std::min(step, all.size() - at))).ok());
    }
  for (unsigned i = 0; i < count; ++i) {
    const auto id = ingests[i]->commit();
    ASSERT_TRUE(id.ok()) << id.error().sentence;
    EXPECT_TRUE(file(*id) == files[i]) << i;
  }
}

}  // namespace
}  // namespace accrete
