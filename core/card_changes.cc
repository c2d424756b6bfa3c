#include "core/card_changes.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "core/dtype.h"
#include "core/fits_card.h"
#include "core/own_cards.h"

namespace accrete {

namespace {

bool is_blank(std::string_view card) {
  return card.find_first_not_of(' ') == std::string_view::npos;
}

bool is_sum(std::string_view card) {
  return keyword_of(card) == "CHECKSUM" || keyword_of(card) == "DATASUM";
}

// What holds of the file that it stands in alone, and changes nothing of how it is built.
bool is_of_the_file(std::string_view card) {
  return is_sum(card) || keyword_of(card) == "EXTEND" || keyword_of(card) == "INHERIT";
}

// The cards of `a` that `b` does not have, as often as it lacks them.
template <class IsSame>
std::vector<std::string> lacking(const std::vector<std::string>& a, std::vector<std::string> b,
                                 const IsSame& is_same) {
  std::vector<std::string> lacking;
  for (const std::string& card : a) {
    const auto same = std::find_if(b.begin(), b.end(),
                                   [&](const std::string& other) { return is_same(card, other); });
    if (same == b.end())
      lacking.push_back(card);
    else
      b.erase(same);
  }
  return lacking;
}

}  // namespace

Result<std::vector<std::string>> cards_of_header(std::string_view header) {
  std::size_t end = 0;
  while (end + card_length <= header.size() && keyword_of(header.substr(end, card_length)) != "END")
    end += card_length;
  if (end + card_length > header.size())
    return fail(std::errc::invalid_argument, "the header that was written has no END");
  if (!is_printable(header.substr(0, end)))
    return fail(std::errc::invalid_argument,
                "the header that was written has characters that FITS does not allow");
  std::vector<std::string> cards = split_cards(header.substr(0, end));
  std::erase_if(cards, is_blank);
  return cards;
}

bool say_same(std::string_view a, std::string_view b) {
  if (a == b) return true;
  const auto value = value_of(a), other = value_of(b);
  if (!value || !other || whole_keyword(a) != whole_keyword(b)) return false;
  if (a.size() > card_length || b.size() > card_length) return string_of(a) == string_of(b);
  if (*value == *other) return true;
  const auto number = parse_element(*value, DType::f64);
  const auto other_number = parse_element(*other, DType::f64);
  return number.ok() && other_number.ok() && *number == *other_number;
}

Result<CardChanges> changes_between(std::string_view before, std::string_view after) {
  ACCRETE_TRY(std::vector<std::string> old, cards_of_header(before));
  ACCRETE_TRY(std::vector<std::string> now, cards_of_header(after));
  std::vector<std::string> old_structure, structure;
  for (auto [cards, taken] : {std::pair{&old, &old_structure}, std::pair{&now, &structure}}) {
    const auto others = std::stable_partition(cards->begin(), cards->end(), is_structural_card);
    taken->assign(cards->begin(), others);
    cards->erase(cards->begin(), others);
    std::erase_if(*taken, is_of_the_file);
  }
  std::vector<std::string> other = lacking(structure, old_structure, say_same);
  if (other.empty()) other = lacking(old_structure, structure, say_same);
  if (!other.empty())
    return fail(std::errc::operation_not_permitted,
                std::string(keyword_of(other.front())) +
                    " says how the file is built, and is not written in place");
  const std::equal_to<std::string> is_same;
  return CardChanges{lacking(old, now, is_same), lacking(now, old, is_same)};
}

std::vector<std::string> with_changes(std::vector<std::string> cards, const CardChanges& changes) {
  std::vector<std::string> come = changes.come, gone = changes.gone;
  // One that takes another's place stays there; of several of its keyword, that of one which went.
  for (std::string& card : come) {
    const std::string_view keyword = whole_keyword(card);
    if (is_commentary(keyword)) continue;
    const auto is_of_keyword = [&](const std::string& other) {
      return whole_keyword(other) == keyword;
    };
    auto same = std::find_first_of(
        cards.begin(), cards.end(), gone.begin(), gone.end(),
        [&](const std::string& a, const std::string& b) { return a == b && is_of_keyword(a); });
    if (same != cards.end())
      gone.erase(std::find(gone.begin(), gone.end(), *same));
    else
      same = std::find_if(cards.begin(), cards.end(), is_of_keyword);
    if (same == cards.end()) continue;
    *same = std::move(card);
    card.clear();
  }
  for (const std::string& card : gone)
    if (const auto same = std::find(cards.begin(), cards.end(), card); same != cards.end())
      cards.erase(same);
  for (std::string& card : come)
    if (!card.empty()) cards.push_back(std::move(card));
  return cards;
}

std::string header_with(std::string_view header, const std::vector<std::string>& cards) {
  std::string made;
  for (std::string_view rest = header; rest.size() >= card_length;
       rest.remove_prefix(card_length)) {
    const std::string_view card = rest.substr(0, card_length);
    if (keyword_of(card) == "END") break;
    if (is_structural_card(card) && !is_sum(card)) made += card;
  }
  for (const std::string& card : cards) made += card;
  made += "END";
  if (made.size() > header.size()) return {};
  made.resize(header.size(), ' ');
  return made;
}

}  // namespace accrete
