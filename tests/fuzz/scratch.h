// A directory for a target's files, in memory where there is one for that; gone at the end of the
// process.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "tests/fuzz/fuzz.h"

namespace accrete::fuzzing {

class Scratch {
 public:
  Scratch() {
    const std::filesystem::path memory = "/dev/shm";
    const bool is_usable = ::access(memory.c_str(), W_OK) == 0;
    std::string path =
        (is_usable ? memory : std::filesystem::temp_directory_path()) / "accrete-fuzz-XXXXXX";
    ACCRETE_HOLDS(::mkdtemp(path.data()) != nullptr);
    path_ = path;
  }
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline void write_file(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  ACCRETE_HOLDS(file.flush().good());
}

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  ACCRETE_HOLDS(file.good() || file.eof());
  return bytes;
}

}  // namespace accrete::fuzzing
