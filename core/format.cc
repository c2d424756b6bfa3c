#include "core/format.h"

#include <algorithm>

#include "core/fits.h"
#include "core/npy.h"
#include "core/raw.h"
#include "core/txt.h"

namespace accrete {

std::optional<std::string> Format::find_card(std::span<const std::byte>, const FrameLayout&,
                                             std::string_view) const {
  return std::nullopt;
}

void Format::print(const std::byte* elements, std::size_t n, DType type, char* target) const {
  recode(reinterpret_cast<std::byte*>(target), elements, n, native(type), coding(type));
}

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

const Format* format_by_extension(std::string_view extension) {
  for (const Format* candidate : all_formats())
    if (candidate->extension() == extension) return candidate;
  return nullptr;
}

Result<Format::Look> try_formats(std::span<const std::byte> head, bool at_end,
                                 const ImageChoice& choice) {
  Format::Look answer;
  for (const Format* candidate : all_formats()) {
    ACCRETE_TRY(const Format::Look look, candidate->look(head, at_end, choice));
    if (look.kind == Format::Look::Kind::layout) return look;
    if (look.kind == Format::Look::Kind::need_more) answer = look;
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
  if (head.size() >= 2 && head[0] == std::byte{0x1f} && head[1] == std::byte{0x8b})
    return fail(std::errc::invalid_argument, "gzip-compressed files are not supported yet");
  return fail(std::errc::invalid_argument, "not a FITS or NPY file");
}

}  // namespace accrete
