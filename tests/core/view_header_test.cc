#include "core/view_header.h"

#include <gtest/gtest.h>

#include "core/fits_card.h"
#include "core/own_cards.h"
#include "tests/core/store_fixture.h"

namespace accrete {
namespace {

std::string card(std::string text) {
  text.resize(card_length, ' ');
  return text;
}

std::string sentence(std::string_view text) {
  const auto header = parse_header(text);
  return header.ok() ? "taken" : header.error().sentence;
}

TEST(ParseHeaderTest, LinesBecomeCardsOfTheFixedFormat) {
  EXPECT_EQ(*parse_header("OBJECT='M 42'"), card("OBJECT  = 'M 42'"));
  EXPECT_EQ(*parse_header("EXPTIME = 5e-1 / s\n"), card("EXPTIME =                 5E-1 / s"));
  EXPECT_EQ(*parse_header("A = T\r\nB = -12\n"),
            card("A       =                    T") + card("B       =                  -12"));
  EXPECT_EQ(*parse_header("COMMENT as it is\nHISTORY = 5\nHIERARCH ESO X = 1"),
            card("COMMENT as it is") + card("HISTORY = 5") + card("HIERARCH ESO X = 1"));
  EXPECT_EQ(*parse_header("A = 1\n\n\n"), card("A       =                    1"));
  EXPECT_EQ(*parse_header("A = 1\nEND\nrubbish"), card("A       =                    1"));
  EXPECT_EQ(*parse_header("\n"), "");
}

TEST(ParseHeaderTest, CardsWithoutLineEndsAreTakenAsTheyAre) {
  const std::string cards =
      card("OBJECT  = 'M 42'") + card("LONG    = 'a&'") + card("CONTINUE  'b'");
  EXPECT_EQ(*parse_header(cards + card("END") + card("")), cards);
}

TEST(ParseHeaderTest, WhatIsNoCardIsRefusedBySayingWhy) {
  EXPECT_NE(sentence("object = 'M 42'").find("FITS keyword"), std::string::npos);
  EXPECT_NE(sentence("TOOLONGKEY = 1").find("FITS keyword"), std::string::npos);
  EXPECT_NE(sentence("OBJECT").find("KEYWORD = value"), std::string::npos);
  EXPECT_NE(sentence("OBJECT = M42").find("no value"), std::string::npos);
  EXPECT_NE(sentence("OBJECT = ").find("no value"), std::string::npos);
  EXPECT_NE(sentence("OBJECT = 1.2.3").find("no value"), std::string::npos);
  EXPECT_NE(sentence("OBJECT = 'M42").find("no value"), std::string::npos);
  EXPECT_NE(sentence("OBJECT = '" + std::string(80, 'x') + "'\n").find("80"), std::string::npos);
  EXPECT_NE(sentence("OBJECT = 'M\x01'").find("does not allow"), std::string::npos);
  for (const char* line : {"NAXIS = 2", "NAXIS3 = 5", "BITPIX = 8", "CHECKSUM = 'x'", "LTV1 = 1.0",
                           "LTM1_1 = 1.0", "ACRFRAME = 'x'"}) {
    const auto refused = parse_header(line);
    ASSERT_FALSE(refused.ok()) << line;
    EXPECT_EQ(refused.error().code, std::errc::operation_not_permitted) << line;
  }
}

TEST(ParseHeaderTest, AddedCardsTakeThePlaceOfThoseOfTheirKeyword) {
  const std::string a = card("A       = 1"), b = card("B       = 2"), c = card("COMMENT one");
  EXPECT_EQ(with_cards(a + b + c, card("A       = 3") + c), card("A       = 3") + b + c + c);
  EXPECT_EQ(with_cards("", a), a);
  const std::string longer = card("A       = 'x&'") + card("CONTINUE  'y'");
  EXPECT_EQ(with_cards(longer + b, a), a + b);
}

// Frames with random cards come, go and come back; the common ones against counting them anew.
TEST(CommonCardsTest, CountsKeepUpWithWhatComesAndGoes) {
  std::mt19937_64 random(testing::seed());
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(testing::seed()));
  struct Frame {
    std::vector<std::string> cards;
    FrameRow row;
  };
  FactCounts counts;
  std::vector<Frame> frames;
  for (int step = 0; step < 2000; ++step) {
    if (frames.size() > 5 || (!frames.empty() && random() % 2 == 0)) {
      const auto gone = frames.begin() + static_cast<std::ptrdiff_t>(random() % frames.size());
      counts.remove(facts_of(gone->cards, gone->row));
      frames.erase(gone);
    } else {
      Frame frame;
      for (int i = 0; i < 8; ++i)
        frame.cards.push_back(
            card("K" + std::to_string(random() % 4) + "      = " + std::to_string(random() % 2)));
      for (const char* keyword : {"CRPIX1", "CRVAL1", "CRPIX1A"})
        if (random() % 4 != 0)
          frame.cards.push_back(make_integer_card(keyword, static_cast<int>(random() % 2), ""));
      frame.row.first = {0, static_cast<std::int64_t>(random() % 2), step};
      counts.add(facts_of(frame.cards, frame.row));
      frames.push_back(std::move(frame));
    }
    if (frames.empty()) continue;
    const CommonCards common = common_cards(counts, frames[0].cards, frames[0].row);
    const auto of_alternate = [](const Frame& frame, std::string_view suffix) {
      std::vector<std::string> cards;
      for (const std::string& text : frame.cards)
        if (keyword_of(text).starts_with("CR") && keyword_of(text).substr(6) == suffix)
          cards.push_back(text);
      return cards;
    };
    std::vector<std::string> expected;
    for (std::size_t i = 0; i < frames[0].cards.size(); ++i) {
      const std::string& text = frames[0].cards[i];
      const auto occurrences = [&](const std::vector<std::string>& cards, std::size_t end) {
        return std::count(cards.begin(), cards.begin() + static_cast<std::ptrdiff_t>(end), text);
      };
      const auto before = occurrences(frames[0].cards, i);
      bool all = true;
      for (const Frame& frame : frames) {
        all = all && occurrences(frame.cards, frame.cards.size()) > before;
        if (keyword_of(text).starts_with("CR")) {
          const std::string_view suffix = keyword_of(text).substr(6);
          all = all && of_alternate(frame, suffix) == of_alternate(frames[0], suffix);
        }
      }
      if (all) expected.push_back(text);
    }
    ASSERT_EQ(common.cards, expected) << "step " << step;
    for (std::size_t axis = 0; axis < 3; ++axis)
      ASSERT_EQ(common.same_start[axis],
                std::all_of(frames.begin(), frames.end(), [&](const Frame& frame) {
                  return frame.row.first[axis] == frames[0].row.first[axis];
                }));
  }
}

}  // namespace
}  // namespace accrete
