#include "core/frame_name.h"

namespace accrete {

namespace {
constexpr std::size_t longest_name = 255;
}

Status check_file_name(std::string_view name) {
  if (name.size() > longest_name)
    return fail(std::errc::filename_too_long, "the name is longer than 255 bytes");
  if (name.empty() || name == "." || name == "..")
    return fail(std::errc::invalid_argument, "that is no name for a file");
  for (const char c : name)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == '/')
      return fail(std::errc::invalid_argument, "the name holds a control character or a slash");
  return {};
}

Status check_frame_name(std::string_view name, std::string_view letters) {
  ACCRETE_CHECK(check_file_name(name));
  if (name.size() == 1 && letters.find(name) != std::string_view::npos)
    return fail(std::errc::invalid_argument,
                "a frame cannot be named " + std::string(name) + ", which names an axis");
  return {};
}

std::string numbered_name(std::string_view name, unsigned number) {
  const std::string suffix = ".~" + std::to_string(number) + "~";
  return std::string(name.substr(0, longest_name - suffix.size())) + suffix;
}

}  // namespace accrete
