// Names of views: "xy" + "z000017" <-> which axes are spanned, cut and fixed. Pure.
// Grammar (see fs/TREE.md): a directory of axis letters, fastest first; below it
// any number of nested components, each one or more terms joined by '_'; a term is a letter and an
// index ("z000017", any width), or a letter and a half-open range ("x100..200", "x100..", "x..200").
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/view.h"

namespace accrete {

// What one term says of one axis.
struct AxisTerm {
  std::size_t axis = 0;
  bool is_range = false;
  std::uint64_t index = 0;              // when !is_range
  std::uint64_t begin = 0;              // when is_range; open start is 0
  std::optional<std::uint64_t> end;     // when is_range; nothing: to the end

  friend bool operator==(const AxisTerm&, const AxisTerm&) = default;
};

// "zx" -> axis numbers in that order. Nothing when a letter is unknown, repeated, or the text empty.
std::optional<PerAxis<std::size_t>> parse_axes(std::string_view text, std::string_view letters);

// "x100..200_y50..80_z000017" -> terms. `letters`: the cube's axis letters, axis 0 first. Nothing
// when it is not of the grammar (also: repeated axis, signs, an index over 2^63-1, reversed or
// empty range).
std::optional<std::vector<AxisTerm>> parse_terms(std::string_view text, std::string_view letters);

// "z000017" with at least six digits; terms joined by '_' elsewhere.
std::string format_index(char letter, std::uint64_t index);
// The inverse of parse_terms for listings and tests.
std::string format_terms(const std::vector<AxisTerm>& terms, std::string_view letters);

// Terms gathered along a path "x000120/y000088". EINVAL (ENOENT as POSIX sees it) when an axis
// occurs twice. Makes the view: axes in `spanned` order; a range on a spanned axis restricts it; an
// axis that is not spanned needs exactly one index. ENOENT for everything that does not resolve.
Result<View> resolve_view(const PerAxis<Axis>& axes, const PerAxis<std::size_t>& spanned,
                          const std::vector<AxisTerm>& terms);

// True when the terms fix each axis that is not spanned (so the name is a file, not a directory).
bool is_complete(std::size_t rank, const PerAxis<std::size_t>& spanned,
                 const std::vector<AxisTerm>& terms);

}  // namespace accrete
