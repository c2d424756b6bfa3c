// World coordinates of an image made of another's axes: FITS cards in, FITS cards out. No I/O.
//
// Formulas and keywords: FITS standard 4.0, section 8; Greisen & Calabretta 2002 (paper I, the
// linear part), Calabretta & Greisen 2002 (paper II, celestial axes, CROTAi), Greisen et al. 2006
// (paper III, spectral axes); Shupe et al. 2005 (SIP). What those leave open is as WCSLIB has it.
//
// Axes count from 0 here, fastest first, and pixels too; from 1 in the cards. An alternate is one
// of up to 27 descriptions of the same axes, told by a letter: ' ' (the primary), 'A' … 'Z'.
//
// A card is card_length characters; a string that goes on in CONTINUE cards is one element with
// them. All functions are pure: safe from any thread. None fails: what a description says that is
// not understood costs that description only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/shape.h"

namespace accrete {

// How the axes of a new image come from those of the image that cards describe, the old one.
struct PixelMap {
  struct Axis {
    std::optional<std::size_t> source;  // axis of the old image; nothing: it has no such axis
    std::int64_t begin = 0;             // old index of the new image's first pixel, maybe negative
  };
  struct Fixed {
    std::size_t source = 0;
    std::int64_t index = 0;  // at which the new image takes the old one
  };

  PerAxis<Axis> axes;               // of the new image
  std::vector<Fixed> fixed;         // old axes that the new image does not span
  std::vector<std::size_t> broken;  // old axes whose indexes do not follow each other any more

  // REQUIRES of maps: an old axis is spanned or fixed, once; it may be broken besides. Old axes
  // that are not named have the one index 0, as those that only WCSAXES counts.
  bool is_identity() const;  // the same axes in their order, whole
};

// The alternate to which a card with this keyword belongs; nothing for other keywords. SIP's are
// the primary's, and so are those of the older conventions (EPOCH, CD001002, WAT1_001 …).
// Dates, the observer's place and time's reference are not of any one alternate: nothing.
std::optional<char> alternate_of_keyword(std::string_view keyword);
bool is_wcs_keyword(std::string_view keyword);
// The same of a card (or one with its CONTINUE cards).
std::optional<char> alternate_of(std::string_view card);

// The letters of the alternates of which `cards` has a card, in order.
std::string alternates_in(std::span<const std::string> cards);

// The cards of the new image: each of its pixels has the world coordinates of the old image's pixel
// that it is.
//
// Cards that are of no alternate stay as they are, in order. By the identity an alternate stays as
// it is, too; otherwise its cards stand together where its first was, those that need no change
// word for word, WCSAXES first. World axes move with their pixel axes. An old axis that is fixed
// goes, unless others depend on it: then it becomes an axis behind those of the image (of which
// WCSAXES tells), whose only pixel is the fixed one. Axes that only WCSAXES counted stay so. What
// depends on a broken axis goes.
//
// An alternate goes whole
// - by any map, the identity too, when it takes values from another HDU: -TAB axes and tables of
//   distortions;
// - by other maps than the identity, when nothing of it is left, when it is not understood (an
//   unreadable number, half a celestial pair, CDi_j beside PCi_j, CD001002, WAXMAP01), and when it
//   has a distortion that the map moves to other axes (SIP may be transposed; TPV, TNX and ZPX may
//   not: WCSLIB 7.12 misreads a transposed TPV);
// - with the primary, when its CTYPEi end in -SIP: the polynomials are the primary's.
//
// Of cards with the same keyword the first counts, the others go unless by the identity. Axes
// beyond WCSAXES and all numbers in keywords are of no description: the new image's have the
// defaults, even where a cut moves them. O(cards log cards), for axis numbers up to 99.
std::vector<std::string> map_wcs(std::span<const std::string> cards, const PixelMap& map);

}  // namespace accrete
