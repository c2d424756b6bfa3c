// Changes of cards. An input is two headers in lines of text (header_text.h), or, behind a byte
// that is odd, a text for meta/header. What was changed between two headers, made to the first,
// gives the second; a text that is taken is read as the same when it is shown.
#include <algorithm>

#include "core/card_changes.h"
#include "core/fits_card.h"
#include "core/own_cards.h"
#include "tests/fuzz/header_text.h"

namespace accrete::fuzzing {
namespace {

constexpr std::string_view structure[] = {"SIMPLE  =                    T",
                                          "BITPIX  =                   16",
                                          "NAXIS   =                    0"};

std::string with_structure(const std::string& header) {
  std::string all;
  for (std::string card :
       {std::string(structure[0]), std::string(structure[1]), std::string(structure[2])}) {
    card.resize(card_length, ' ');
    all += card;
  }
  return all + header;
}

std::vector<std::string> changeable(std::string_view header) {
  std::vector<std::string> cards = *cards_of_header(header);
  std::erase_if(cards, [](const std::string& card) { return is_structural_card(card); });
  return cards;
}

std::size_t count(const std::vector<std::string>& cards, std::string_view keyword) {
  return static_cast<std::size_t>(
      std::count_if(cards.begin(), cards.end(),
                    [&](const std::string& card) { return whole_keyword(card) == keyword; }));
}

bool has_once(const std::vector<std::string>& cards) {
  return std::all_of(cards.begin(), cards.end(), [&](const std::string& card) {
    return is_commentary(keyword_of(card)) || count(cards, whole_keyword(card)) == 1;
  });
}

// Whether no card comes beside others of its keyword: it takes the place of one of them.
bool comes_alone(const std::vector<std::string>& old, const CardChanges& changes) {
  return std::all_of(changes.come.begin(), changes.come.end(), [&](const std::string& card) {
    const std::string_view keyword = whole_keyword(card);
    const std::size_t come = count(changes.come, keyword);
    return is_commentary(keyword_of(card)) || come <= count(changes.gone, keyword) ||
           (come == 1 && count(old, keyword) == 0);
  });
}

void check_changes(const std::string& before, const std::string& after) {
  const auto changes = changes_between(before, after);
  if (!changes.ok()) {
    ACCRETE_HOLDS(changes.error().code == std::errc::invalid_argument ||
                  changes.error().code == std::errc::operation_not_permitted);
    return;
  }
  const std::vector<std::string> old = changeable(before);
  std::vector<std::string> now = changeable(after);
  const auto back = changes_between(after, before);
  ACCRETE_HOLDS(back.ok());
  ACCRETE_HOLDS(back->gone.size() == changes->come.size() &&
                back->come.size() == changes->gone.size());

  if (!comes_alone(old, *changes)) return;
  std::vector<std::string> made = with_changes(old, *changes);
  const std::string written = header_with(before, made);
  std::sort(made.begin(), made.end());
  std::sort(now.begin(), now.end());
  ACCRETE_HOLDS(made == now);
  if (written.empty()) return;  // they do not fit
  ACCRETE_HOLDS(written.size() == before.size());
  const auto left = changes_between(after, written);
  ACCRETE_HOLDS(left.ok() && left->empty());
}

void check_own_cards(std::string_view text) {
  const auto header = parse_header(text);
  if (!header.ok()) return;
  ACCRETE_HOLDS(header->size() % card_length == 0 && is_printable(*header));
  ACCRETE_HOLDS(header->size() <= most_header_cards * card_length);
  const auto cards = split_cards(*header);
  ACCRETE_HOLDS(has_once(cards));
  std::string lines;
  for (std::size_t at = 0; at < header->size(); at += card_length) {
    const std::string card = header->substr(at, card_length);
    ACCRETE_HOLDS(!is_structural_card(card));
    lines += card.substr(0, card.find_last_not_of(' ') + 1) + "\n";
  }
  const auto again = parse_header(lines);
  ACCRETE_HOLDS(again.ok() && *again == *header);
  // Commentary is always added.
  if (std::none_of(cards.begin(), cards.end(),
                   [](const std::string& card) { return is_commentary(keyword_of(card)); }))
    ACCRETE_HOLDS(with_cards(*header, *header) == *header);
}

}  // namespace
}  // namespace accrete::fuzzing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace accrete::fuzzing;
  Input input(data, size);
  if (input.take<std::uint8_t>() % 2 == 1) {
    check_own_cards(input.rest());
    return 0;
  }
  const std::string before = with_structure(take_header(input));
  const std::string after = with_structure(take_header(input));
  check_changes(before, after);
  return 0;
}
