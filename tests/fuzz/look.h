// What holds of the answer of any format that looks at a file (core/format.h).
#pragma once

#include <cmath>
#include <set>
#include <vector>

#include "core/bytes.h"
#include "core/format.h"
#include "tests/fuzz/fuzz.h"

namespace accrete::fuzzing {

inline bool same(const FrameLayout& a, const FrameLayout& b) {
  return a.format == b.format && a.coding == b.coding && a.scaling == b.scaling &&
         a.shape == b.shape && a.fortran_order == b.fortran_order &&
         a.data_offset == b.data_offset && a.data_bytes == b.data_bytes &&
         a.least_bytes == b.least_bytes && a.full_bytes == b.full_bytes &&
         a.header_offset == b.header_offset && a.primary_bytes == b.primary_bytes;
}

inline bool same(const Result<Format::Look>& a, const Result<Format::Look>& b) {
  if (a.ok() != b.ok()) return false;
  if (!a.ok()) return a.error().code == b.error().code && a.error().sentence == b.error().sentence;
  return a->kind == b->kind && same(a->layout, b->layout) && a->packing == b->packing &&
         a->hdu == b->hdu;
}

// The answer to the whole file. Checked: at the file's end there is one; whatever answers the
// file's first bytes get, the first that is none to wait is that of the file; the bytes are not
// read beyond.
inline Result<Format::Look> look_in_pieces(const Format& format, const std::string& file,
                                           const ImageChoice& choice) {
  using Kind = Format::Look::Kind;
  const auto look = [&](std::size_t length, bool at_end) {
    const std::vector<std::byte> exactly(as_bytes(file).begin(),
                                         as_bytes(file).begin() + static_cast<long>(length));
    return format.look(exactly, at_end, choice);
  };
  const auto waits = [](const Result<Format::Look>& answer) {
    return answer.ok() && answer->kind == Kind::need_more;
  };
  const Result<Format::Look> so_far = look(file.size(), false);
  const Result<Format::Look> whole = look(file.size(), true);
  ACCRETE_HOLDS(!waits(whole));
  if (file.empty()) return whole;  // nothing is known of it
  if (!waits(so_far)) ACCRETE_HOLDS(same(so_far, whole));

  std::set<std::size_t> cuts = {1, 8, 9, 10, 12, file.size() / 2, file.size() - 1};
  for (std::size_t at = 80; at < file.size(); at += at < 2880 ? 400 : 2880)
    cuts.insert({at - 1, at, at + 1});
  for (const std::size_t cut : cuts) {
    if (cut == 0 || cut >= file.size()) continue;
    const Result<Format::Look> early = look(cut, false);
    if (!waits(early)) ACCRETE_HOLDS(same(early, so_far));
    ACCRETE_HOLDS(!waits(look(cut, true)));
  }
  return whole;
}

inline void check_sums_of(const FrameLayout& layout) {
  ACCRETE_HOLDS(layout.shape.size() >= 1);
  unsigned __int128 bytes = size_of(layout.coding.type);
  for (const std::uint64_t extent : layout.shape) {
    ACCRETE_HOLDS(extent > 0);
    bytes *= extent;
    ACCRETE_HOLDS(bytes <= INT64_MAX);
  }
  ACCRETE_HOLDS(bytes == layout.data_bytes);
  ACCRETE_HOLDS(layout.data_offset <= max_header + (std::uint64_t{1} << 62));
  ACCRETE_HOLDS(layout.least_bytes == layout.data_offset + layout.data_bytes);
  ACCRETE_HOLDS(layout.least_bytes <= layout.full_bytes && layout.full_bytes <= INT64_MAX);
  ACCRETE_HOLDS(layout.header_offset <= layout.data_offset);
  ACCRETE_HOLDS(layout.primary_bytes <= layout.header_offset);
  if (layout.scaling) {
    ACCRETE_HOLDS(std::isfinite(layout.scaling->scale) && std::isfinite(layout.scaling->zero));
    ACCRETE_HOLDS(is_float(layout.scaling->physical));
  }
}

// A view with the elements of a file and these cards has a header that says so.
inline void check_face(const Format& format, const FrameLayout& layout,
                       const std::vector<std::string>& cards) {
  const DType type = layout.value_type();
  const FileFace face = format.face({type, layout.shape, cards, ""});
  const Coding coding = format.coding(type);
  const auto shown = format.look(as_bytes(face.header), false, {});
  // Elements that are scaled may take more bytes than those of the file, and then too many.
  if (face.data_bytes() > (std::uint64_t{1} << 60)) return;
  ACCRETE_HOLDS(shown.ok() && shown->kind == Format::Look::Kind::layout);
  ACCRETE_HOLDS(shown->layout.coding == coding && !shown->layout.scaling);
  ACCRETE_HOLDS(shown->layout.shape == layout.shape && !shown->layout.fortran_order);
  ACCRETE_HOLDS(shown->layout.data_offset == face.header.size());
  ACCRETE_HOLDS(shown->layout.data_bytes == face.data_bytes());
  ACCRETE_HOLDS(shown->layout.full_bytes == face.total());
  ACCRETE_HOLDS(format.cards(face.header) == cards);
}

}  // namespace accrete::fuzzing
