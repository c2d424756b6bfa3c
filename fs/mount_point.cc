#include "fs/mount_point.h"

#include <spawn.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>
#include <utility>
#include <vector>

extern char** environ;

namespace accrete {

namespace {

constexpr std::string_view our_type = "fuse.accretefs";

struct Mount {
  std::string where;
  std::string type;
  std::string source;
};

// mountinfo writes space, tab, newline and backslash as \ooo.
std::string unescaped(std::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      const int code = (text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0');
      plain += static_cast<char>(code);
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

std::vector<Mount> all_mounts() {
  std::vector<Mount> mounts;
  std::ifstream table("/proc/self/mountinfo");
  for (std::string line; std::getline(table, line);) {
    std::istringstream fields(line);
    std::string skipped, where, field, type, source;
    fields >> skipped >> skipped >> skipped >> skipped >> where;
    while (fields >> field && field != "-") {
    }
    fields >> type >> source;
    mounts.push_back({unescaped(where), type, unescaped(source)});
  }
  return mounts;
}

// What is mounted on exactly that path, the topmost.
std::optional<Mount> mount_on(const std::string& path) {
  std::optional<Mount> found;
  for (Mount& mount : all_mounts())
    if (mount.where == path) found = std::move(mount);
  return found;
}

Status unmount_dead(const std::string& mount_point) {
  std::string program = "fusermount3", flag = "-u", path = mount_point;
  char* const arguments[] = {program.data(), flag.data(), path.data(), nullptr};
  pid_t child = 0;
  const int error = posix_spawnp(&child, arguments[0], nullptr, nullptr, arguments, environ);
  if (error != 0) return fail_errno(error, "starting fusermount3");
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    return fail(std::errc::device_or_resource_busy,
                "'" + mount_point + "' is a mount whose daemon is gone, and cannot be unmounted");
  return {};
}

bool is_inside(const std::string& inner, const std::string& outer) {
  return inner == outer ||
         (inner.starts_with(outer) && (outer == "/" || inner[outer.size()] == '/'));
}

}  // namespace

Result<std::string> absolute_path(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::path given = fs::absolute(path, error);
  if (error) return fail_errno(error.value(), path);
  given = given.lexically_normal();
  if (given.filename().empty() && given.has_relative_path()) given = given.parent_path();
  struct stat attributes {};
  if (::lstat(given.c_str(), &attributes) == 0 && S_ISLNK(attributes.st_mode)) {
    const fs::path target = fs::canonical(given, error);
    if (error) return fail_errno(error.value(), path);
    return target.string();
  }
  const fs::path directory = fs::canonical(given.parent_path(), error);
  if (error) return fail_errno(error.value(), given.parent_path().string());
  return (directory / given.filename()).string();
}

bool is_passed_descriptor(const std::string& mount_point) {
  constexpr std::string_view prefix = "/dev/fd/";
  return mount_point.starts_with(prefix) && mount_point.size() > prefix.size() &&
         mount_point.find_first_not_of("0123456789", prefix.size()) == std::string::npos;
}

bool is_mounted(const std::string& store) {
  const std::vector<Mount> mounts = all_mounts();
  return std::any_of(mounts.begin(), mounts.end(), [&](const Mount& mount) {
    return mount.type == our_type && mount.source == store;
  });
}

Status prepare_mount_point(const std::string& store, const std::string& mount_point) {
  if (is_inside(store, mount_point) || is_inside(mount_point, store))
    return fail(std::errc::invalid_argument, "the store '" + store + "' and the mount point '" +
                                                 mount_point + "' lie one inside the other");
  if (const std::optional<Mount> mount = mount_on(mount_point); mount && mount->type == our_type) {
    // Attributes may still be known to the kernel, this is always asked for.
    struct statvfs space {};
    const int error = ::statvfs(mount_point.c_str(), &space) == 0 ? 0 : errno;
    if (error != ENOTCONN)
      return fail(std::errc::device_or_resource_busy,
                  "the store '" + mount->source + "' is mounted on '" + mount_point + "' already");
    if (mount->source != store)
      return fail_errno(error, "'" + mount_point + "' is a mount of '" + mount->source +
                                   "' whose daemon is gone");
    ACCRETE_CHECK(unmount_dead(mount_point));
    return prepare_mount_point(store, mount_point);
  }
  struct stat attributes {};
  const int error = ::stat(mount_point.c_str(), &attributes) == 0 ? 0 : errno;
  if (error != 0) return fail_errno(error, "mount point '" + mount_point + "'");
  if (!S_ISDIR(attributes.st_mode))
    return fail(std::errc::not_a_directory, "mount point '" + mount_point + "' is no directory");
  return {};
}

}  // namespace accrete
