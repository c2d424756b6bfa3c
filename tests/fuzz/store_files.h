// The files of a store with one cube, "c", as bytes.
#pragma once

#include <memory>
#include <string>

#include "core/bytes.h"
#include "core/store.h"
#include "tests/fuzz/scratch.h"

namespace accrete::fuzzing {

struct CubeFiles {
  std::string checkpoint, journal, heap, bricks;  // of generation 1
  bool is_clean = false;
};

inline CubeFiles read_cube(const std::filesystem::path& store) {
  const auto directory = store / "c";
  return {read_file(directory / "checkpoint.000001"), read_file(directory / "journal.000001"),
          read_file(directory / "heap"), read_file(directory / "bricks"), false};
}

// In place of what is there.
inline void write_store(const std::filesystem::path& store, const CubeFiles& files) {
  std::filesystem::remove_all(store);
  const auto directory = store / "c";
  std::filesystem::create_directories(directory);
  write_file(store / "accretefs.store", "accretefs store, version 1\n");
  write_file(directory / "checkpoint.000001", files.checkpoint);
  write_file(directory / "journal.000001", files.journal);
  write_file(directory / "heap", files.heap);
  write_file(directory / "bricks", files.bricks);
  if (files.is_clean) write_file(directory / "clean", "");
}

// A store and its cube "c", of which nothing runs beside the caller.
struct OpenStore {
  std::unique_ptr<Store> store;
  std::shared_ptr<Cube> cube;

  static Result<OpenStore> open(const std::filesystem::path& path) {
    OpenStore open;
    ACCRETE_TRY(open.store, Store::open(path, {}));
    ACCRETE_TRY(open.cube, open.store->find("c"));
    return open;
  }
  static OpenStore create(const std::filesystem::path& path) {
    OpenStore open;
    open.store = std::move(*Store::open(path, {}));
    open.cube = *open.store->create("c");
    return open;
  }
  ~OpenStore() { cube.reset(); }
  OpenStore() = default;
  OpenStore(OpenStore&&) = default;
  OpenStore& operator=(OpenStore&&) = delete;
};

inline IngestRequest through(Side side, std::optional<std::size_t> axis = std::nullopt,
                             std::uint64_t at = 0) {
  IngestRequest request;
  request.side = side;
  request.axis = axis;
  request.at = at;
  return request;
}

// Puts a whole file in.
inline Result<FrameId> put(Cube& cube, const std::string& name, std::string_view file,
                           IngestRequest request = {}) {
  request.name = name;
  ACCRETE_TRY(const auto ingest, cube.begin_ingest(std::move(request)));
  ACCRETE_CHECK(ingest->write(0, as_bytes(file)));
  return ingest->commit();
}

// The bytes of a file with these native elements.
inline std::string file_of(FormatId id, DType type, const Shape& shape,
                           std::span<const std::byte> elements,
                           const std::vector<std::string>& cards = {}) {
  const Format& f = format(id);
  const FileFace face = f.face({type, shape, cards, ""});
  std::string data(face.data_bytes(), '\0');
  ACCRETE_HOLDS(data.size() == elements.size());
  recode(reinterpret_cast<std::byte*>(data.data()), elements.data(), face.elements, native(type),
         f.coding(type));
  return face.header + data + std::string(face.trailer, face.trailer_fill);
}

// The texts of meta/ that do not depend on the time, by name.
inline std::vector<std::pair<std::string, std::string>> properties_of(const Cube& cube) {
  std::vector<std::pair<std::string, std::string>> texts;
  for (const std::string_view name : Cube::property_names()) {
    if (name == "bytes") continue;
    const auto text = cube.property(name);
    ACCRETE_HOLDS(text.ok());
    texts.emplace_back(name, *text);
  }
  return texts;
}

}  // namespace accrete::fuzzing
