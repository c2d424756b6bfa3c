// Reads files as both sides of a measurement are read, and prints the seconds that it took.
//
//   bench-reader read|stat <LIST
//
// LIST has a path a line. `read`: each file in turn is opened, read to its end into one buffer of
// 1 MiB, and closed. `stat`: each is asked for its attributes. Prints the seconds from the first
// call to the last, and the bytes read; the start of the program and reading LIST are not in it. A
// failure ends it with 1 and a message.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr std::size_t buffer_size = 1 << 20;

[[noreturn]] void fail(const std::string& path) {
  std::perror(path.c_str());
  std::exit(1);
}

std::uint64_t read_whole(const std::string& path, char* buffer) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail(path);
  std::uint64_t total = 0;
  ssize_t got = 0;
  while ((got = ::read(file, buffer, buffer_size)) > 0) total += static_cast<std::uint64_t>(got);
  if (got < 0 || ::close(file) != 0) fail(path);
  return total;
}

void look_at(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) fail(path);
}

}  // namespace

int main(int count, char** arguments) {
  const std::string_view work = count == 2 ? arguments[1] : "";
  if (work != "read" && work != "stat") {
    std::fputs("usage: bench-reader read|stat <LIST\n", stderr);
    return 2;
  }
  std::vector<std::string> paths;
  for (std::string line; std::getline(std::cin, line);) paths.push_back(line);
  char* const buffer = static_cast<char*>(std::aligned_alloc(4096, buffer_size));
  if (buffer == nullptr) fail("buffer");
  for (std::size_t i = 0; i < buffer_size; i += 4096) buffer[i] = 1;  // its pages are there

  std::uint64_t total = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (const std::string& path : paths) {
    if (work == "read") {
      total += read_whole(path, buffer);
    } else {
      look_at(path);
    }
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  std::free(buffer);
  std::printf("%.9f %llu\n", seconds.count(), static_cast<unsigned long long>(total));
}
