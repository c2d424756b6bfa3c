#include "core/card_changes.h"

#include <gtest/gtest.h>

#include "core/fits_card.h"
#include "core/text_changes.h"

namespace accrete {
namespace {

std::string card(std::string text) {
  text.resize(card_length, ' ');
  return text;
}

const std::string structure =
    card("SIMPLE  =                    T / conforms") + card("BITPIX  =                   16") +
    card("NAXIS   =                    1") + card("NAXIS1  =                   10");

std::string header(const std::vector<std::string>& cards, const std::string& first = structure) {
  std::string text = first;
  for (const std::string& each : cards) text += card(each);
  text += card("END");
  text.resize((text.size() + fits_block - 1) / fits_block * fits_block, ' ');
  return text;
}

const std::string object = "OBJECT  = 'M 42    '           / what it is";

TEST(CardChanges, AreTheCardsThatCameAndWent) {
  const auto changes =
      changes_between(header({object, "EXPTIME =                  1.5"}),
                      header({object, "EXPTIME =                  2.5", "A       = 1"}));
  ASSERT_TRUE(changes.ok());
  EXPECT_EQ(changes->gone, std::vector<std::string>{card("EXPTIME =                  1.5")});
  EXPECT_EQ(changes->come, (std::vector<std::string>{card("EXPTIME =                  2.5"),
                                                     card("A       = 1")}));
}

TEST(CardChanges, OfSeveralCardsOfAKeywordTheOneThatWentIsReplaced) {
  const std::vector<std::string> old = {card("A       = 3"), card("A       = 1")};
  const auto changes = changes_between(header(old), header({"A       = 3", "A       = 4"}));
  ASSERT_TRUE(changes.ok());
  EXPECT_EQ(with_changes(old, *changes),
            (std::vector<std::string>{card("A       = 3"), card("A       = 4")}));
}

TEST(CardChanges, AnotherOrderAndBlankCardsAreNone) {
  const auto changes = changes_between(header({object, "A       = 1", "", "COMMENT c"}),
                                       header({"", "COMMENT c", "A       = 1", object, ""}));
  ASSERT_TRUE(changes.ok());
  EXPECT_TRUE(changes->empty());
}

TEST(CardChanges, CommentsCountAsOftenAsTheyStandThere) {
  const auto changes = changes_between(header({"COMMENT c", "COMMENT c", "HISTORY h"}),
                                       header({"COMMENT c", "HISTORY h", "HISTORY h"}));
  ASSERT_TRUE(changes.ok());
  EXPECT_EQ(changes->gone, std::vector<std::string>{card("COMMENT c")});
  EXPECT_EQ(changes->come, std::vector<std::string>{card("HISTORY h")});
}

TEST(CardChanges, ALongStringIsOneCard) {
  const std::string first = card("LONG    = 'begins &'"), rest = card("CONTINUE  'and ends'");
  const auto changes = changes_between(header({}), header({first, rest}));
  ASSERT_TRUE(changes.ok());
  EXPECT_EQ(changes->come, std::vector<std::string>{first + rest});
}

TEST(CardChanges, StructuralCardsMaySayTheSameOtherwise) {
  const std::string free = card("SIMPLE  = T") + card("BITPIX  = 16 / bits") + card("NAXIS   = 1") +
                           card("NAXIS1  = 10");
  const auto changes = changes_between(header({"BZERO   =                32768"}),
                                       header({object, "BZERO   =          32768.0 / u16"}, free));
  ASSERT_TRUE(changes.ok()) << changes.error().sentence;
  EXPECT_EQ(changes->come, std::vector<std::string>{card(object)});
  EXPECT_TRUE(changes->gone.empty());
}

TEST(CardChanges, StructuralCardsThatSayOtherwiseAreRefused) {
  const std::string before = header({object, "BZERO   =                32768"});
  for (const std::string& after :
       {header({object}), header({object, "BZERO   =                    0"}),
        header({object, "BZERO   =                32768", "BSCALE  =                  2.0"}),
        header({object, "BZERO   =                32768", "NAXIS2  =                    1"})}) {
    const auto changes = changes_between(before, after);
    ASSERT_FALSE(changes.ok());
    EXPECT_EQ(changes.error().code, std::errc::operation_not_permitted);
  }
}

TEST(CardChanges, WhatHoldsOfTheFileAloneIsPassedOver) {
  const auto changes =
      changes_between(header({"CHECKSUM= 'abcdefghijklmnop'"}),
                      header({"DATASUM = '17      '", "EXTEND  =                    T",
                              "INHERIT =                    T"}));
  ASSERT_TRUE(changes.ok());
  EXPECT_TRUE(changes->empty());
}

TEST(CardChanges, WhatIsNoHeaderIsRefused) {
  const std::string good = header({object});
  std::string without_end = good;
  without_end.replace(without_end.find("END"), 3, "   ");
  std::string binary = good;
  binary[400] = '\n';
  for (const std::string& bad : {without_end, binary, std::string(), good.substr(0, 160)}) {
    const auto changes = changes_between(good, bad);
    ASSERT_FALSE(changes.ok());
    EXPECT_EQ(changes.error().code, std::errc::invalid_argument);
  }
}

TEST(CardChanges, AreMadeToOtherCardsInTheirPlaces) {
  CardChanges changes;
  changes.gone = {card("OBJECT  = 'M 42'"), card("COMMENT one"), card("GONE    = 1")};
  changes.come = {card("OBJECT  = 'M 43'"), card("NEW     = 2"), card("COMMENT two")};
  const std::vector<std::string> cards = {card("COMMENT one"), card("OBJECT  = 'other'"),
                                          card("A       = 1"), card("GONE    = 1"),
                                          card("COMMENT one")};
  EXPECT_EQ(
      with_changes(cards, changes),
      (std::vector<std::string>{card("OBJECT  = 'M 43'"), card("A       = 1"), card("COMMENT one"),
                                card("NEW     = 2"), card("COMMENT two")}));
}

TEST(CardChanges, HierarchKeywordsAreTheirWords) {
  CardChanges changes;
  changes.come = {card("HIERARCH ESO TEL = 2")};
  EXPECT_EQ(with_changes({card("HIERARCH ESO INS = 1"), card("HIERARCH ESO TEL = 1")}, changes),
            (std::vector<std::string>{card("HIERARCH ESO INS = 1"), card("HIERARCH ESO TEL = 2")}));
}

TEST(CardChanges, AHeaderKeepsItsLengthOrIsNotMade) {
  const std::string old = header({object, "CHECKSUM= 'abcdefghijklmnop'", "BZERO   = 32768"});
  const std::string made = header_with(old, {card("A       = 1")});
  EXPECT_EQ(made, header({"BZERO   = 32768", "A       = 1"}));
  std::vector<std::string> many(fits_block / card_length - 6, card("COMMENT"));  // 5 others, END
  EXPECT_EQ(header_with(old, many).size(), old.size());
  many.push_back(card("COMMENT"));
  EXPECT_EQ(header_with(old, many), "");
}

TEST(TextChanges, LaterOnesAreOverEarlierOnes) {
  TextChanges changes;
  const auto put = [&](std::uint64_t at, std::string_view text) {
    changes.put(at, std::as_bytes(std::span(text)));
  };
  const auto over = [&](std::uint64_t at, std::string text) {
    changes.lay_over(at, std::as_writable_bytes(std::span(text)));
    return text;
  };
  EXPECT_TRUE(changes.empty());
  put(4, "");
  EXPECT_TRUE(changes.empty());
  put(10, "abc");
  put(13, "def");
  put(11, "XY");
  EXPECT_EQ(over(8, "........."), "..aXYdef.");
  EXPECT_EQ(over(12, "..."), "Yde");
  EXPECT_EQ(over(0, "...."), "....");
  EXPECT_EQ(over(20, ".."), "..");
  put(9, "0123456789");
  EXPECT_EQ(over(8, "............"), ".0123456789.");
  TextChanges more;
  more.put(9, std::as_bytes(std::span(std::string_view("zz"))));
  changes.put(more);
  EXPECT_EQ(over(8, "...."), ".zz2");
}

}  // namespace
}  // namespace accrete
