#include "core/format.h"

#include <algorithm>

#include "core/fits.h"
#include "core/npy.h"
#include "core/raw.h"
#include "core/txt.h"

namespace accrete {

std::vector<std::string> Format::cards(std::string_view) const {
  return {};
}

std::optional<std::string> Format::find_card(const Headers&, std::string_view) const {
  return std::nullopt;
}

bool Format::says_sums(std::string_view) const {
  return false;
}

Status Format::check_sums(std::string_view, std::uint32_t) const {
  return {};
}

Result<Element> Format::parse(std::string_view, DType) const {
  return fail(std::errc::not_supported, "a binary format has no texts");
}

void Format::print(const std::byte* elements, std::size_t n, DType type, char* target) const {
  recode(reinterpret_cast<std::byte*>(target), elements, n, native(type), coding(type));
}

namespace {

// RFC 1952, 2.3.1. Nothing: too few bytes to tell.
std::optional<bool> starts_gzip(std::span<const std::byte> head) {
  constexpr std::byte magic[] = {std::byte{0x1f}, std::byte{0x8b}, std::byte{8}};
  const std::size_t known = std::min(head.size(), std::size(magic));
  if (!std::equal(magic, magic + known, head.begin())) return false;
  if (known < std::size(magic)) return std::nullopt;
  return true;
}

}  // namespace

std::span<const Format* const> all_formats() {
  static const Format* const formats[] = {&fits_format(), &npy_format(), &raw_format(),
                                          &txt_format()};
  return formats;
}

const Format& format(FormatId id) {
  switch (id) {
    case FormatId::fits:
      return fits_format();
    case FormatId::npy:
      return npy_format();
    case FormatId::raw:
      return raw_format();
    case FormatId::txt:
      break;
  }
  return txt_format();
}

FileFace make_canonical(FrameLayout& layout, DType type, std::vector<std::string> cards) {
  const Format& file_format = format(layout.format);
  if (layout.fortran_order) std::reverse(layout.shape.begin(), layout.shape.end());
  FileFace face = file_format.face({type, layout.shape, std::move(cards), {}});
  layout.coding = file_format.coding(type);
  layout.scaling.reset();
  layout.fortran_order = false;
  layout.data_offset = face.header.size();
  layout.data_bytes = face.data_bytes();
  layout.least_bytes = layout.data_offset + layout.data_bytes;
  layout.full_bytes = face.total();
  layout.header_offset = layout.primary_bytes = 0;
  return face;
}

const Format* format_by_extension(std::string_view extension) {
  for (const Format* candidate : all_formats())
    if (candidate->extension() == extension) return candidate;
  return nullptr;
}

Result<Format::Look> try_formats(std::span<const std::byte> head, bool at_end,
                                 const ImageChoice& choice) {
  using Kind = Format::Look::Kind;
  Format::Look answer;
  if (const std::optional<bool> gzip = starts_gzip(head); gzip != false) {
    answer.kind = gzip ? Kind::packed : at_end ? Kind::not_mine : Kind::need_more;
    if (gzip) return answer;
  }
  for (const Format* candidate : all_formats()) {
    ACCRETE_TRY(const Format::Look look, candidate->look(head, at_end, choice));
    if (look.kind == Kind::need_more)
      answer = look;
    else if (look.kind != Kind::not_mine)
      return look;
  }
  return answer;
}

Result<Format::Look> look_at(std::span<const std::byte> head, bool at_end,
                             const ImageChoice& choice) {
  ACCRETE_TRY(const Format::Look look, try_formats(head, at_end, choice));
  if (look.kind != Format::Look::Kind::not_mine) return look;
  if (head.empty()) {
    if (at_end) return fail(std::errc::invalid_argument, "the file is empty");
    return Format::Look{Format::Look::Kind::need_more, {}};
  }
  return fail(std::errc::invalid_argument, "not a FITS or NPY file");
}

}  // namespace accrete
