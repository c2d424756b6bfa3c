// One header card: 80 characters, "KEYWORD = value / comment" (FITS standard 4.0, 4.1 and 4.2).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace accrete {

inline constexpr std::size_t card_length = 80;
inline constexpr std::size_t fits_block = 2880;
inline constexpr std::size_t cards_per_block = fits_block / card_length;

// All below take one card of exactly card_length characters; or a string card and the CONTINUE
// cards behind it (FITS standard 4.0, 4.2.1.2), of which only string_of looks at more than the
// first.

// "NAXIS1"; without the trailing spaces of its eight characters.
std::string_view keyword_of(std::string_view card);
// True when `card`'s keyword is `stem` followed by a number without leading zeros: NAXIS12.
bool is_indexed_keyword(std::string_view card, std::string_view stem);
bool is_printable(std::string_view text);  // ASCII 32 to 126

// The value's characters, fixed or free format, without comment and surrounding spaces; for a
// string, with its quotes. Nothing when the card has no value indicator "= " or an unclosed string.
std::optional<std::string_view> value_of(std::string_view card);

// The value as what it should be; nothing when it is something else.
std::optional<bool> logical_of(std::string_view card);
std::optional<std::int64_t> integer_of(std::string_view card);
std::optional<std::string> string_of(std::string_view card);  // without trailing spaces

// Cards of which there may be many, without a value: COMMENT, HISTORY, blank ones.
bool is_commentary(std::string_view keyword);
// A card that says how a file is built, or that holds only of the very bytes it came with (BSCALE,
// CHECKSUM): made for each file, never carried along.
bool is_structural_card(std::string_view card);

// Those of them that stand at the begin of a header, in an order of their own.
bool is_mandatory_card(std::string_view card);

// Fixed-format cards. `comment` is cut at the card's end. `value` of make_card is the text of a
// number or logical value.
std::string make_card(std::string_view keyword, std::string_view value, std::string_view comment);
// A string, in CONTINUE cards as far as it does not fit one; characters that FITS does not allow
// become '?'.
std::string make_string_card(std::string_view keyword, std::string_view text,
                             std::string_view comment);
std::string make_logical_card(std::string_view keyword, bool value, std::string_view comment);
std::string make_integer_card(std::string_view keyword, std::int64_t value,
                              std::string_view comment);

}  // namespace accrete
