// Gives files of inputs to a fuzz target, one after the other: the files named, and those of the
// directories named. Fails when there is none.
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <set>

#include "tests/fuzz/fuzz.h"

int main(int argc, char** argv) {
  namespace fs = std::filesystem;
  std::set<fs::path> paths;
  for (int i = 1; i < argc; ++i) {
    if (!fs::is_directory(argv[i])) paths.insert(argv[i]);
    if (!fs::is_directory(argv[i])) continue;
    for (const fs::directory_entry& entry : fs::directory_iterator(argv[i]))
      paths.insert(entry.path());
  }
  LLVMFuzzerTestOneInput(nullptr, 0);
  for (const fs::path& path : paths) {
    std::ifstream file(path, std::ios::binary);
    const std::string input{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    if (!file) {
      std::cerr << path << " cannot be read\n";
      return 1;
    }
    std::cout << path.filename().string() << std::endl;  // the last line tells which one failed
    // Of exactly that size, so that a sanitizer sees a read beyond it.
    const auto bytes = std::make_unique<std::uint8_t[]>(input.size());
    std::copy(input.begin(), input.end(), bytes.get());
    LLVMFuzzerTestOneInput(bytes.get(), input.size());
  }
  std::cout << paths.size() << " inputs" << std::endl;
  return paths.empty();
}
