#include "core/view_file.h"

#include <algorithm>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/view_header.h"
#include "core/view_name.h"

namespace accrete {

namespace {

constexpr std::size_t piece_bytes = 4 << 20;

Error no_such_view(std::string_view path) {
  return fail(std::errc::no_such_file_or_directory, "there is no view " + std::string(path));
}

// "xy/x10..20/z000017" -> the view.
Result<View> find_view(const Snapshot& snapshot, std::string_view name, std::string_view path) {
  const std::string& letters = snapshot.definition.letters;
  const std::size_t slash = name.find('/');
  const auto spanned = parse_axes(name.substr(0, slash), letters);
  if (!spanned || slash == std::string_view::npos) return no_such_view(path);
  std::vector<AxisTerm> terms;
  for (std::string_view rest = name.substr(slash + 1); !rest.empty();) {
    const std::size_t end = std::min(rest.find('/'), rest.size());
    const auto more = parse_terms(rest.substr(0, end), letters);
    if (!more) return no_such_view(path);
    terms.insert(terms.end(), more->begin(), more->end());
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return resolve_view(snapshot.axes, *spanned, terms);
}

// Removes the prefix if it is there.
bool take_prefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

}  // namespace

Result<ViewFile> find_view_file(Cube& cube, const Pinned& pinned, std::string_view path) {
  const Definition& definition = pinned->definition;
  if (!definition.defined)
    return fail(std::errc::no_such_file_or_directory,
                "the cube " + cube.name() + " has no frame yet, so no elements");
  const std::size_t dot = path.rfind('.');
  if (dot == std::string_view::npos) return no_such_view(path);
  const Format* const file_format = format_by_extension(path.substr(dot + 1));
  if (file_format == nullptr) return no_such_view(path);
  std::string_view name = path.substr(0, dot);
  const bool is_mask = take_prefix(name, "mask/");
  if (!is_mask) take_prefix(name, "slices/");
  ACCRETE_TRY(View view, name == "cube" && !is_mask ? View::whole(pinned->axes)
                                                    : find_view(*pinned.snapshot, name, path));
  ViewFacts facts;
  facts.type = is_mask ? DType::u8 : definition.coding.type;
  facts.shape = view.shape();
  if (!file_format->can_show(facts.type, view.rank())) return no_such_view(path);
  for (std::size_t d = 0; d < view.rank(); ++d)
    facts.axis_letters += definition.letters[view.dimension(d).axis];
  if (!is_mask && file_format->id() == FormatId::fits)
    facts.cards = view_cards(cube, *pinned.snapshot, view);
  FileFace face = file_format->face(facts);
  return ViewFile{std::move(view), is_mask, file_format, std::move(face)};
}

Status write_view_file(const Cube& cube, const Pinned& pinned, const ViewFile& file,
                       const PosixFile& target) {
  const FileFace& face = file.face;
  const DType type = file.is_mask ? DType::u8 : pinned->definition.coding.type;
  const Coding coding = file.format->is_binary() ? file.format->coding(type) : native(type);
  ACCRETE_CHECK(target.allocate(0, face.total(), true));
  ACCRETE_CHECK(target.write(0, as_bytes(face.header)));
  std::uint64_t offset = face.header.size();
  const std::size_t width = std::max<std::size_t>(size_of(type), face.bytes_per_element);
  const std::uint64_t step = std::max<std::size_t>(piece_bytes / width, 1);
  std::vector<std::byte> elements(std::min(step, face.elements) * size_of(type));
  std::string text;
  for (std::uint64_t done = 0; done < face.elements; done += step) {
    const Interval range{done, std::min(face.elements, done + step)};
    if (file.is_mask)
      cube.read_mask(pinned, file.view, range, elements.data());
    else
      ACCRETE_CHECK(cube.read(pinned, file.view, range, elements.data(), coding));
    std::span<const std::byte> bytes(elements.data(), range.length() * size_of(type));
    if (!file.format->is_binary()) {
      text.resize(range.length() * face.bytes_per_element);
      file.format->print(elements.data(), range.length(), type, text.data());
      bytes = as_bytes(text);
    }
    ACCRETE_CHECK(target.write(offset, bytes));
    offset += bytes.size();
  }
  return target.write(offset, as_bytes(std::string(face.trailer, face.trailer_fill)));
}

}  // namespace accrete
