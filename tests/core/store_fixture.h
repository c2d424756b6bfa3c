// A store in a temporary directory, and frames to put into it.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/store.h"
#include "core/transfer.h"

namespace accrete::testing {

inline std::uint64_t seed() {
  const char* text = std::getenv("ACCRETE_SEED");
  return text == nullptr ? 20260101 : std::strtoull(text, nullptr, 10);
}

class TemporaryDirectory {
 public:
  explicit TemporaryDirectory(
      const std::filesystem::path& in = std::filesystem::temp_directory_path()) {
    std::string path = (in / "accrete-test-XXXXXX").string();
    if (::mkdtemp(path.data()) == nullptr) std::abort();
    path_ = path;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Closes what is open and opens the store in `path` with its cube "c", which is made if there is
// none.
inline void reopen(const std::string& path, std::unique_ptr<Store>& store,
                   std::shared_ptr<Cube>& cube) {
  cube.reset();
  store.reset();
  auto opened = Store::open(path, {});
  ASSERT_TRUE(opened.ok()) << opened.error().sentence;
  store = std::move(opened).value();
  auto found = store->find("c");
  if (!found.ok()) found = store->create("c");
  ASSERT_TRUE(found.ok()) << found.error().sentence;
  cube = *found;
}

// The bytes of a frame's file: header of the format, elements (in the format's coding), padding.
inline std::string frame_file(FormatId id, DType type, const Shape& shape,
                              const std::vector<std::byte>& native_elements) {
  const Format& f = format(id);
  const FileFace face = f.face({type, shape, {}, ""});
  std::string file = face.header;
  std::string data(face.data_bytes(), '\0');
  recode(reinterpret_cast<std::byte*>(data.data()), native_elements.data(), face.elements,
         native(type), f.coding(type));
  file += data;
  file.append(face.trailer, face.trailer_fill);
  return file;
}

// Random bits, without NaNs so that values can be compared as bytes through any coding.
inline std::vector<std::byte> random_elements(std::mt19937_64& random, DType type,
                                              std::uint64_t count) {
  std::vector<std::byte> bytes(count * size_of(type));
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

// Puts a whole file in, as cp does.
inline Result<FrameId> put(Cube& cube, const std::string& name, std::string_view file,
                           IngestRequest request = {}) {
  request.name = name;
  ACCRETE_TRY(const auto ingest, cube.begin_ingest(std::move(request)));
  constexpr std::size_t step = 128 << 10;
  for (std::size_t at = 0; at < file.size(); at += step)
    ACCRETE_CHECK(ingest->write(at, as_bytes(file.substr(at, step))));
  auto id = ingest->commit();
  if (!id.ok()) ingest->abandon(id.error().sentence);
  return id;
}

// All elements of a view, native coding.
inline std::vector<std::byte> read_all(const Cube& cube, const View& view) {
  const Pinned pinned = cube.pin();
  const DType type = pinned->definition.coding.type;
  std::vector<std::byte> bytes(view.element_count() * size_of(type));
  EXPECT_TRUE(cube.read(pinned, view, {0, view.element_count()}, bytes.data(), native(type)).ok());
  return bytes;
}

inline std::string text_of(const Cube& cube, const HeapRef& text) {
  std::string bytes(text.length, '\0');
  EXPECT_TRUE(cube.read_text(text, 0, std::as_writable_bytes(std::span(bytes))).ok());
  return bytes;
}

// The file that a live or removed frame came as, put together again.
inline std::string file_of(const Cube& cube, const FrameRow& row) {
  if (row.original.length > 0) return text_of(cube, row.original);
  Pinned pinned = cube.pin();
  if (row.state == FrameState::removed) pinned = *cube.show_removed(pinned, row);
  const View view = *cube.frame_view(row);
  const Definition& d = pinned->definition;
  const Transfer transfer(row.layout, d.coding, Rounding::nearest, d.pad);
  std::vector<std::byte> elements(view.element_count() * size_of(d.coding.type));
  EXPECT_TRUE(cube.read(pinned, view, {0, view.element_count()}, elements.data(), d.coding).ok());
  std::string data(row.layout.data_bytes, '\0');
  transfer.to_file(reinterpret_cast<std::byte*>(data.data()), elements.data(),
                   view.element_count());
  return text_of(cube, row.prefix) + data + text_of(cube, row.suffix);
}

}  // namespace accrete::testing
