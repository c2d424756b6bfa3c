// What a program that rewrites a FITS header in place has changed of its cards. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace accrete {

// The cards of a whole header, without END, each with its CONTINUE cards; no blank ones. EINVAL:
// there is no END, or characters that FITS does not allow.
Result<std::vector<std::string>> cards_of_header(std::string_view header);

// True when two cards have the same keyword and value, however these and the comment are written.
bool say_same(std::string_view a, std::string_view b);

// A card of another text is one that went and one that came.
struct CardChanges {
  std::vector<std::string> gone, come;  // in the order of the headers

  bool empty() const { return gone.empty() && come.empty(); }
};

// Without structural cards. EINVAL as cards_of_header();
// EPERM: these say that the file is built otherwise. (CHECKSUM, DATASUM, EXTEND may differ.)
Result<CardChanges> changes_between(std::string_view before, std::string_view after);

// The same changes made to other cards: one that came takes the place of that of its keyword.
std::vector<std::string> with_changes(std::vector<std::string> cards, const CardChanges& changes);

// The header of a FITS file with other cards besides those that say how it is built, in the same
// length; empty where they do not fit. Its checksums go, as they are no more right.
std::string header_with(std::string_view header, const std::vector<std::string>& cards);

}  // namespace accrete
