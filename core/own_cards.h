// The cube's own FITS cards: the text of meta/header, and what cards it may have. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace accrete {

// Has the name of a view's frame; made for each view.
inline constexpr std::string_view frame_keyword = "ACRFRAME";

// IRAF's transform from the pixels of an image to those of what it was cut from (LTVi, LTMi_j).
bool is_physical(std::string_view card);

// Text of 80 characters a card -> cards, each with its CONTINUE cards.
std::vector<std::string> split_cards(std::string_view header);
// By which one card replaces another: with HIERARCH, all words before the value.
std::string_view whole_keyword(std::string_view card);

inline constexpr std::size_t most_header_cards = 800;

// A text as cards of meta/header: lines of "KEYWORD = value / comment", COMMENT, HISTORY or blank
// ones; or cards of 80 characters without line ends. END and what follows it is ignored. Gives 80
// characters a card. EINVAL: a line that is no card, a keyword of the file's structure.
Result<std::string> parse_header(std::string_view text);
// `header` with these cards added: those of a keyword that it has take that one's place.
std::string with_cards(std::string_view header, std::string_view added);

}  // namespace accrete
