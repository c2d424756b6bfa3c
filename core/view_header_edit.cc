#include "core/view_header_edit.h"

#include <algorithm>

#include "core/card_changes.h"
#include "core/fits_card.h"
#include "core/mutex.h"
#include "core/own_cards.h"
#include "core/view_header.h"

namespace accrete {

namespace {

// Whether a view with these cards shows what was written. What it does not is made otherwise.
Status check_shown(const std::vector<std::string>& shown, const CardChanges& changes) {
  const auto is_among = [](const std::vector<std::string>& cards, const std::string& card) {
    return std::any_of(cards.begin(), cards.end(),
                       [&](const std::string& other) { return say_same(card, other); });
  };
  const auto refuse = [](const std::string& card) {
    return fail(std::errc::operation_not_permitted,
                std::string(whole_keyword(card)) +
                    " is made for this view, or is that of several frames, and cannot be changed "
                    "here");
  };
  for (const std::string& card : changes.come)
    if (!is_among(shown, card)) return refuse(card);
  for (const std::string& card : changes.gone)
    if (!is_commentary(keyword_of(card)) && !is_among(changes.come, card) && is_among(shown, card))
      return refuse(card);
  return {};
}

}  // namespace

Status edit_view_header(Cube& cube, const View& view, std::string_view before,
                        std::string_view after) {
  ACCRETE_TRY(const CardChanges changes, changes_between(before, after));
  if (changes.empty()) return {};
  // One at a time, since each begins with what there is.
  static Mutex editing;
  MutexLock lock(editing);
  const Pinned now = cube.pin();
  if (const std::optional<FrameRow> row = frame_of(cube, *now.snapshot, view)) {
    const auto cards = with_changes(cube.frame_cards(*row), changes);
    ACCRETE_CHECK(check_shown(view_cards_of(cube, *now.snapshot, view, *row, cards), changes));
    return cube.set_frame_cards(row->id, cards);
  }
  std::string header;
  for (const std::string& card : with_changes(split_cards(header_as_of(*now.snapshot)), changes))
    header += card;
  Snapshot then = *now.snapshot;
  ACCRETE_TRY(std::string parsed, parse_header(header));
  then.definition.settings = with_header(then.definition.settings, then.axes, std::move(parsed));
  ACCRETE_CHECK(check_shown(view_cards(cube, then, view), changes));
  return cube.set_property("header", header);
}

}  // namespace accrete
