// Reads files as both sides of a measurement are read, and prints the seconds that it took.
//
//   bench-reader read BYTES <LIST
//   bench-reader stat <LIST
//   bench-reader walk <LIST
//
// LIST has a path a line. `read`: each file in turn is opened, read to its end into one buffer of so
// many bytes, and closed. `stat`: each is asked for its attributes. `walk`: each is a directory, and
// what is in it is asked for its attributes as it is listed. Prints the seconds from the first call
// to the last, and the bytes read or what there was; the start of the program and reading LIST are
// not in it. A failure ends it with 1 and a message.
#include <dirent.h>
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

[[noreturn]] void fail(const std::string& path) {
  std::perror(path.c_str());
  std::exit(1);
}

std::uint64_t read_whole(const std::string& path, char* buffer, std::size_t size) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail(path);
  std::uint64_t total = 0;
  ssize_t got = 0;
  while ((got = ::read(file, buffer, size)) > 0) total += static_cast<std::uint64_t>(got);
  if (got < 0 || ::close(file) != 0) fail(path);
  return total;
}

std::uint64_t look_at(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) fail(path);
  return 1;
}

std::uint64_t walk(const std::string& path) {
  DIR* const directory = ::opendir(path.c_str());
  if (directory == nullptr) fail(path);
  std::uint64_t count = 0;
  while (const dirent* const entry = ::readdir(directory)) {
    struct stat status {};
    if (::fstatat(::dirfd(directory), entry->d_name, &status, 0) != 0) fail(entry->d_name);
    ++count;
  }
  if (::closedir(directory) != 0) fail(path);
  return count;
}

int say_usage() {
  std::fputs("usage: bench-reader read BYTES|stat|walk <LIST\n", stderr);
  return 2;
}

}  // namespace

int main(int count, char** arguments) {
  const std::string_view work = count > 1 ? arguments[1] : "";
  if (count != (work == "read" ? 3 : 2)) return say_usage();
  if (work != "read" && work != "stat" && work != "walk") return say_usage();
  const std::size_t size = work == "read" ? std::strtoul(arguments[2], nullptr, 10) : 4096;
  if (size == 0 || size % 4096 != 0) return say_usage();
  std::vector<std::string> paths;
  for (std::string line; std::getline(std::cin, line);) paths.push_back(line);
  char* const buffer = static_cast<char*>(std::aligned_alloc(4096, size));
  if (buffer == nullptr) fail("buffer");
  for (std::size_t i = 0; i < size; i += 4096) buffer[i] = 1;  // its pages are there

  std::uint64_t total = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (const std::string& path : paths) {
    if (work == "read")
      total += read_whole(path, buffer, size);
    else
      total += work == "stat" ? look_at(path) : walk(path);
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  std::free(buffer);
  std::printf("%.9f %llu\n", seconds.count(), static_cast<unsigned long long>(total));
}
