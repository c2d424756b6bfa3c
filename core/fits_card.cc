#include "core/fits_card.h"

#include <algorithm>

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
  std::string_view text = card.substr(10);
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
  std::string text;
  for (std::size_t i = 1; i + 1 < value->size(); ++i) {
    text += (*value)[i];
    if ((*value)[i] == '\'') ++i;
  }
  return std::string(trim_end(text));
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

std::string make_logical_card(std::string_view keyword, bool value, std::string_view comment) {
  return make_card(keyword, value ? "T" : "F", comment);
}

std::string make_integer_card(std::string_view keyword, std::int64_t value,
                              std::string_view comment) {
  return make_card(keyword, std::to_string(value), comment);
}

}  // namespace accrete
