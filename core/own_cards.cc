#include "core/own_cards.h"

#include <algorithm>
#include <optional>

#include "core/dtype.h"
#include "core/fits_card.h"
#include "core/wcs.h"

namespace accrete {

namespace {

Error refuse(std::string sentence) {
  return fail(std::errc::invalid_argument, std::move(sentence));
}

bool is_keyword(std::string_view keyword) {
  return !keyword.empty() && keyword.size() <= 8 &&
         std::all_of(keyword.begin(), keyword.end(), [](char c) {
           return ('A' <= c && c <= 'Z') || ('0' <= c && c <= '9') || c == '-' || c == '_';
         });
}

// A number, as FITS writes it, or a logical value (FITS standard 4.0, 4.2); nothing: something
// else.
std::optional<std::string> plain_value(std::string_view text) {
  std::string value(text);
  if (value == "T" || value == "F") return value;
  for (char& c : value)
    if (c == 'e' || c == 'd') c = static_cast<char>(c - 'a' + 'A');
  std::string number = value;
  std::replace(number.begin(), number.end(), 'D', 'E');
  if (number.find_first_not_of("+-.0123456789E") != std::string::npos ||
      !parse_element(number, DType::f64).ok())
    return std::nullopt;
  return value;
}

// What stands behind the "= " of a card, with numbers written as FITS does; nothing: no value.
std::optional<std::string> value_and_comment(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  std::size_t end = text.find('/');
  if (text.starts_with('\'')) {
    end = 1;
    while (end < text.size() && (text[end] != '\'' || text.substr(end, 2) == "''"))
      end += text[end] == '\'' ? 2 : 1;
    if (end >= text.size()) return std::nullopt;
    std::string_view behind = text.substr(end + 1);
    behind.remove_prefix(std::min(behind.find_first_not_of(' '), behind.size()));
    if (!behind.empty() && !behind.starts_with('/')) return std::nullopt;
    return std::string(text);
  }
  const std::string_view number = text.substr(0, end);
  const auto value = plain_value(number.substr(0, number.find_last_not_of(' ') + 1));
  if (!value) return std::nullopt;
  const std::string_view comment = text.substr(number.size());
  std::string whole;
  // Values end in column 30 where there is room.
  if (value->size() < 20 && 21 + comment.size() <= card_length - 10)
    whole.append(20 - value->size(), ' ');
  whole += *value;
  if (!comment.empty()) whole += " " + std::string(comment);
  return whole;
}

// "KEY = 12 / c" becomes a card of the fixed format.
Result<std::string> card_of_line(std::string_view line) {
  const auto quoted = [line] { return "'" + std::string(line.substr(0, 80)) + "'"; };
  const Error too_long = refuse(quoted() + "… is longer than a card's 80 characters");
  if (line.size() > card_length) return too_long;
  if (!is_printable(line)) return refuse(quoted() + " has characters that FITS does not allow");
  const std::string_view keyword = line.substr(0, line.find_first_of(" ="));
  const std::string_view first_field = line.substr(0, 8);
  std::string card(line);
  if (is_commentary(keyword)) {
    // As it is, behind the eight characters of the keyword.
    if (keyword_of(first_field) != keyword)
      return refuse(quoted() + " does not begin with a FITS keyword");
  } else if (keyword == "CONTINUE") {
    if (!value_and_comment(line.substr(std::min<std::size_t>(line.size(), 8))) ||
        line.find('\'') == std::string_view::npos)
      return refuse(quoted() + " does not continue a string");
  } else if (!is_keyword(keyword)) {
    return refuse(quoted() + " does not begin with a FITS keyword");
  } else {
    const std::size_t equals = line.find('=');
    const std::string_view words = equals == std::string_view::npos
                                       ? std::string_view()
                                       : line.substr(keyword.size(), equals - keyword.size());
    const bool has_words = words.find_first_not_of(' ') != std::string_view::npos;
    if (equals == std::string_view::npos || has_words != (keyword == "HIERARCH"))
      return refuse(quoted() + " is not of the form: KEYWORD = value / comment");
    const auto value = value_and_comment(line.substr(equals + 1));
    if (!value) return refuse(quoted() + " has no value: a number, T, F, or a string in quotes");
    if (!has_words) {
      card = keyword;
      card.resize(8, ' ');
      card += "= " + *value;
    }
  }
  if (card.size() > card_length) return too_long;
  card.resize(card_length, ' ');
  if (is_structural_card(card) || is_physical(card) || keyword == frame_keyword)
    return fail(std::errc::operation_not_permitted,
                std::string(keyword) + " is made for each view and cannot be set");
  return card;
}

}  // namespace

bool is_physical(std::string_view card) {
  const std::string_view keyword = keyword_of(card);
  if (!keyword.starts_with("LTV") && !keyword.starts_with("LTM")) return false;
  return keyword.size() > 3 &&
         keyword.find_first_not_of("0123456789_", 3) == std::string_view::npos;
}

std::vector<std::string> split_cards(std::string_view header) {
  std::vector<std::string> cards;
  for (; header.size() >= card_length; header.remove_prefix(card_length)) {
    const std::string_view card = header.substr(0, card_length);
    if (keyword_of(card) == "CONTINUE" && !cards.empty())
      cards.back() += card;
    else
      cards.emplace_back(card);
  }
  return cards;
}

std::string_view whole_keyword(std::string_view card) {
  const std::string_view keyword = keyword_of(card);
  if (keyword != "HIERARCH") return keyword;
  card = card.substr(0, std::min(card.find('='), card_length));
  return card.substr(0, card.find_last_not_of(' ') + 1);
}

Result<std::string> parse_header(std::string_view text) {
  std::vector<std::string_view> lines;
  if (text.find('\n') == std::string_view::npos && text.size() > card_length) {
    for (; !text.empty(); text.remove_prefix(std::min(card_length, text.size())))
      lines.push_back(text.substr(0, card_length));
  } else {
    while (!text.empty()) {
      const std::size_t end = std::min(text.find('\n'), text.size());
      lines.push_back(text.substr(0, end));
      text.remove_prefix(std::min(end + 1, text.size()));
    }
  }
  std::string header;
  for (std::string_view line : lines) {
    if (line.ends_with('\r')) line.remove_suffix(1);
    line = line.substr(0, line.find_last_not_of(' ') + 1);
    if (line == "END") break;
    ACCRETE_TRY(const std::string card, card_of_line(line));
    if (keyword_of(card) == "CONTINUE" &&
        (header.empty() || !string_of(split_cards(header).back()).value_or("").ends_with('&')))
      return refuse("'" + std::string(line) + "' does not continue a string");
    header += card;
    if (header.size() > most_header_cards * card_length)
      return refuse("header takes at most " + std::to_string(most_header_cards) + " cards");
  }
  // Blank ones at the end come of editors and of the begins of texts.
  while (header.size() >= card_length &&
         header.find_first_not_of(' ', header.size() - card_length) == std::string::npos)
    header.resize(header.size() - card_length);
  return with_cards("", header);  // of a keyword that is there twice, the last counts
}

std::string with_cards(std::string_view header, std::string_view added) {
  std::vector<std::string> cards = split_cards(header);
  for (std::string& card : split_cards(added)) {
    const std::string_view keyword = whole_keyword(card);
    const auto same = std::find_if(cards.begin(), cards.end(), [&](const std::string& other) {
      return !is_commentary(keyword) && whole_keyword(other) == keyword;
    });
    if (same == cards.end())
      cards.push_back(std::move(card));
    else
      *same = std::move(card);
  }
  // The standard wants WCSAXES in front of all else that is about the same axes.
  for (auto card = cards.begin(); card != cards.end(); ++card) {
    if (!keyword_of(*card).starts_with("WCSAXES")) continue;
    const auto alternate = alternate_of(*card);
    const auto first = std::find_if(cards.begin(), card, [&](const std::string& other) {
      return alternate && alternate_of(other) == alternate;
    });
    std::rotate(first, card, card + 1);
  }
  std::string all;
  for (const std::string& card : cards) all += card;
  return all;
}

}  // namespace accrete
