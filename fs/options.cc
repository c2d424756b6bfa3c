#include "fs/options.h"

#include <charconv>
#include <limits>
#include <string_view>

namespace accrete {

namespace {

Error not_understood(const std::string& what) {
  return fail(std::errc::invalid_argument, what + " (accretefs --help tells more)");
}

// Splits at commas that no backslash precedes.
std::vector<std::string> split_options(std::string_view text) {
  std::vector<std::string> parts(1);
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == ',') {
      parts.emplace_back();
    } else {
      parts.back() += text[i];
      if (text[i] == '\\' && i + 1 < text.size()) parts.back() += text[++i];
    }
  }
  std::erase(parts, "");
  return parts;
}

Status take_mount_option(Options& options, const std::string& option) {
  const std::size_t equals = option.find('=');
  const std::string key = option.substr(0, equals);
  const std::string value = equals == std::string::npos ? "" : option.substr(equals + 1);
  if (key == "io") {
    if (value == "auto")
      options.caching = Caching::automatic;
    else if (value == "direct")
      options.caching = Caching::direct;
    else if (value == "cached")
      options.caching = Caching::cached;
    else
      return not_understood("io= takes auto, direct or cached, not '" + value + "'");
  } else if (key == "max_frame") {
    ACCRETE_TRY(options.limits.max_frame, parse_bytes(value));
  } else if (key == "max_cube") {
    ACCRETE_TRY(options.limits.max_cube, parse_bytes(value));
  } else if (key == "threads") {
    const auto [end, error] =
        std::from_chars(value.data(), value.data() + value.size(), options.threads);
    if (error != std::errc() || end != value.data() + value.size() || options.threads < 2 ||
        options.threads > 1000)
      return not_understood("threads= takes a number from 2 to 1000, not '" + value + "'");
  } else if (key != "dev" && key != "suid" && key != "default_permissions") {
    // mount.fuse3 passes dev and suid; they stay off.
    options.mount_options.push_back(option);
  }
  return {};
}

}  // namespace

Result<std::uint64_t> parse_bytes(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view suffix = text.substr(static_cast<std::size_t>(end - text.data()));
  constexpr std::string_view units = "KMGT";
  const std::size_t unit = suffix.empty() ? 0 : units.find(suffix[0]) + 1;
  if (error != std::errc() || suffix.size() > 1 || unit > units.size() ||
      (!suffix.empty() && unit == 0))
    return not_understood("a number of bytes is like 4096, 512M or 2G, not '" + std::string(text) +
                          "'");
  if (number > std::numeric_limits<std::uint64_t>::max() >> (10 * unit))
    return not_understood("'" + std::string(text) + "' is too many bytes");
  return number << (10 * unit);
}

Result<Options> parse_options(const std::vector<std::string>& arguments) {
  Options options;
  std::vector<std::string> paths;
  bool only_paths = false;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (only_paths || argument.empty() || argument[0] != '-') {
      paths.push_back(argument);
    } else if (argument == "--") {
      only_paths = true;
    } else if (argument == "-h" || argument == "--help") {
      options.help = true;
    } else if (argument == "-V" || argument == "--version") {
      options.version = true;
    } else if (argument == "-f") {
      options.foreground = true;
    } else if (argument == "-d") {
      options.debug = options.foreground = true;
    } else if (argument.starts_with("-o")) {
      if (argument.size() == 2 && ++i == arguments.size())
        return not_understood("-o needs options after it");
      const std::string_view list = argument.size() == 2 ? std::string_view(arguments[i])
                                                         : std::string_view(argument).substr(2);
      for (const std::string& option : split_options(list))
        ACCRETE_CHECK(take_mount_option(options, option));
    } else {
      return not_understood("unknown option '" + argument + "'");
    }
  }
  if (options.help || options.version) return options;
  if (paths.size() != 2)
    return not_understood("give the store and the mount point: accretefs STORE MNT");
  options.store = paths[0];
  options.mount_point = paths[1];
  return options;
}

std::string help_text() {
  return R"(usage: accretefs STORE MNT [-f] [-d] [-o OPTION,...]

Mounts STORE, a directory that holds cubes (an empty or missing one becomes a
store), on the directory MNT. Unmount with: fusermount3 -u MNT

  -f             stay in the foreground
  -d             stay in the foreground and tell of every request
  -h, --help     this text
  -V, --version  the version

options for -o:
  io=auto|direct|cached  how views are read: by every read() from here, or by
                         way of the kernel's cache; auto: direct where the
                         kernel can map such files shared (Linux 6.6)
  max_frame=BYTES        largest frame; BYTES may end in K, M, G or T
  max_cube=BYTES         largest cube
  threads=N              most threads that answer requests
  allow_other            let other users in
  ro, noexec, ...        as for any mount; nosuid, nodev and
                         default_permissions are always set
)";
}

}  // namespace accrete
