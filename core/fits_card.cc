#include "core/fits_card.h"

#include <algorithm>
#include <charconv>
#include <utility>

namespace accrete {

namespace {

std::string_view trim_end(std::string_view text) {
  return text.substr(0, text.find_last_not_of(' ') + 1);
}

// The position after the closing quote of the string that begins at text[0]; npos when it has none.
std::size_t end_of_string(std::string_view text) {
  for (std::size_t i = 1; i < text.size(); ++i) {
    if (text[i] != '\'') continue;
    if (i + 1 < text.size() && text[i + 1] == '\'')
      ++i;  // a doubled quote stands for one
    else
      return i + 1;
  }
  return std::string_view::npos;
}

// A quoted string without its quotes and trailing spaces.
std::string unquoted(std::string_view quoted) {
  std::string text;
  for (std::size_t i = 1; i + 1 < quoted.size(); ++i) {
    text += quoted[i];
    if (quoted[i] == '\'') ++i;
  }
  return std::string(trim_end(text));
}

}  // namespace

std::string_view keyword_of(std::string_view card) {
  return trim_end(card.substr(0, 8));
}

bool is_indexed_keyword(std::string_view card, std::string_view stem) {
  std::string_view keyword = keyword_of(card);
  if (!keyword.starts_with(stem)) return false;
  keyword.remove_prefix(stem.size());
  return !keyword.empty() && keyword[0] != '0' &&
         keyword.find_first_not_of("0123456789") == std::string_view::npos;
}

bool is_printable(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

std::optional<std::string_view> value_of(std::string_view card) {
  if (card.substr(8, 2) != "= ") return std::nullopt;
  std::string_view text = card.substr(10, card_length - 10);
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  if (!text.starts_with('\'')) return trim_end(text.substr(0, text.find('/')));
  const std::size_t end = end_of_string(text);
  if (end == std::string_view::npos) return std::nullopt;
  return text.substr(0, end);
}

std::optional<bool> logical_of(std::string_view card) {
  const std::optional<std::string_view> value = value_of(card);
  if (value == "T") return true;
  if (value == "F") return false;
  return std::nullopt;
}

std::optional<std::string> string_of(std::string_view card) {
  const std::optional<std::string_view> value = value_of(card);
  if (!value || !value->starts_with('\'')) return std::nullopt;
  std::string text = unquoted(*value);
  for (card.remove_prefix(std::min(card_length, card.size()));
       card.size() >= card_length && text.ends_with('&'); card.remove_prefix(card_length)) {
    const std::string_view more = card.substr(8, card_length - 8);
    const std::size_t begin = more.find_first_not_of(' ');
    if (begin == std::string_view::npos || more[begin] != '\'') break;
    const std::size_t end = end_of_string(more.substr(begin));
    if (end == std::string_view::npos) break;
    text.pop_back();
    text += unquoted(more.substr(begin, end));
  }
  return text;
}

bool is_commentary(std::string_view keyword) {
  return keyword.empty() || keyword == "COMMENT" || keyword == "HISTORY";
}

bool is_structural_card(std::string_view card) {
  static constexpr std::string_view keywords[] = {
      "SIMPLE", "XTENSION", "BITPIX", "NAXIS",   "EXTEND",   "PCOUNT",  "GCOUNT", "GROUPS",
      "BSCALE", "BZERO",    "BLANK",  "INHERIT", "CHECKSUM", "DATASUM", "END"};
  return std::find(std::begin(keywords), std::end(keywords), keyword_of(card)) !=
             std::end(keywords) ||
         is_indexed_keyword(card, "NAXIS");
}

bool is_mandatory_card(std::string_view card) {
  static constexpr std::string_view keywords[] = {"SIMPLE", "XTENSION", "BITPIX", "NAXIS"};
  return std::find(std::begin(keywords), std::end(keywords), keyword_of(card)) !=
             std::end(keywords) ||
         is_indexed_keyword(card, "NAXIS");
}

std::optional<std::int64_t> integer_of(std::string_view card) {
  std::string_view text = value_of(card).value_or("");
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || text.empty() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string make_card(std::string_view keyword, std::string_view value, std::string_view comment) {
  std::string card(keyword);
  card.resize(8, ' ');
  card += "= ";
  card.append(20 - std::min<std::size_t>(20, value.size()), ' ');
  card += value;
  if (!comment.empty()) card += " / ";
  card += comment;
  card.resize(card_length, ' ');
  return card;
}

std::string make_string_card(std::string_view keyword, std::string_view text,
                             std::string_view comment) {
  constexpr std::size_t most = 67;  // characters of a string in a card, besides its '&'
  std::string all;
  std::string part;
  const auto flush = [&](bool is_last) {
    std::string card(all.empty() ? keyword : "CONTINUE");
    card.resize(8, ' ');
    card += all.empty() ? "= '" : "  '";
    if (is_last) part.resize(std::max<std::size_t>(part.size(), 8), ' ');
    card += std::exchange(part, {}) + (is_last ? "'" : "&'");
    if (is_last && card.size() + 3 + comment.size() <= card_length && !comment.empty())
      card += " / " + std::string(comment);
    card.resize(card_length, ' ');
    all += card;
  };
  for (const char c : text) {
    const std::string next = c == '\'' ? "''" : std::string(1, ' ' <= c && c <= '~' ? c : '?');
    if (part.size() + next.size() > most) flush(false);
    part += next;
  }
  flush(true);
  return all;
}

std::string make_logical_card(std::string_view keyword, bool value, std::string_view comment) {
  return make_card(keyword, value ? "T" : "F", comment);
}

std::string make_integer_card(std::string_view keyword, std::int64_t value,
                              std::string_view comment) {
  return make_card(keyword, std::to_string(value), comment);
}

}  // namespace accrete
