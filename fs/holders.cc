#include "fs/holders.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace accrete {

namespace {

std::string read_small_file(const std::string& path) {
  std::string text;
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return text;
  char buffer[1024];
  const ssize_t size = ::read(fd, buffer, sizeof buffer);
  if (size > 0) text.assign(buffer, static_cast<std::size_t>(size));
  ::close(fd);
  return text;
}

std::optional<std::uint64_t> number_at(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return std::nullopt;
  return number;
}

bool process_holds(const std::string& process, std::span<const std::uint64_t> inos) {
  const std::string directory = process + "/fdinfo";
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(::opendir(directory.c_str()), ::closedir);
  if (listing == nullptr) return false;
  while (const dirent* entry = ::readdir(listing.get())) {
    if (entry->d_name[0] == '.') continue;
    const std::string text = read_small_file(directory + "/" + entry->d_name);
    const std::size_t at = text.find("\nino:");
    if (at == std::string::npos) continue;
    const std::optional<std::uint64_t> ino = number_at(std::string_view(text).substr(at + 5));
    if (ino && std::find(inos.begin(), inos.end(), *ino) != inos.end()) return true;
  }
  return false;
}

pid_t parent_of(const std::string& process) {
  const std::string text = read_small_file(process + "/stat");
  // "PID (NAME) STATE PPID …"; a name may contain anything.
  const std::size_t at = text.rfind(") ");
  if (at == std::string::npos || at + 3 >= text.size()) return 0;
  return static_cast<pid_t>(number_at(std::string_view(text).substr(at + 3)).value_or(0));
}

}  // namespace

bool is_held(pid_t pid, std::span<const std::uint64_t> inos) {
  constexpr int most_generations = 64;
  for (int generation = 0; pid > 0 && generation < most_generations; ++generation) {
    const std::string process = "/proc/" + std::to_string(pid);
    if (process_holds(process, inos)) return true;
    pid = parent_of(process);
  }
  return false;
}

}  // namespace accrete
