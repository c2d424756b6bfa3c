// What the header of one FITS HDU says of its structure, checked strictly: mandatory cards in their
// places, bounded counts, checked products. Reads nothing but the header's bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/format.h"

namespace accrete {

struct FitsHdu {
  std::string extension;  // "IMAGE", "BINTABLE" …; empty for the primary
  int bitpix = 0;
  std::uint64_t naxis = 0;
  Shape shape;                   // of the first eight axes
  bool too_many_axes = false;    // an axis beyond them has an extent other than 1
  bool groups = false;           // random groups
  bool tile_compressed = false;  // a table that holds an image
  std::uint64_t pcount = 0;
  std::uint64_t gcount = 1;
  std::string bscale = "1";  // as the cards say
  std::string bzero = "0";
  std::optional<std::int64_t> blank;  // where the card's value is an integer
  std::string extname;                // without trailing spaces, in upper case
  std::int64_t extver = 1;
  std::string checksum, datasum;  // texts of the cards' strings; empty: none
  std::uint64_t data_offset = 0;  // from the file's begin
  std::uint64_t data_bytes = 0;   // without padding
  std::uint64_t next = 0;         // where the next HDU starts if there is one

  bool is_image() const {
    return naxis > 0 && !groups && (extension.empty() || extension == "IMAGE");
  }
};

// Reads the header that begins with `header`, which lies at `start` of the file; the first HDU
// (start 0) must be a primary one, the others extensions, told by `starts_hdu`. Nothing when the
// header goes on beyond these bytes; EINVAL or EFBIG as soon as a card makes the HDU impossible;
// EILSEQ: what comes before END is no text.
Result<std::optional<FitsHdu>> read_fits_header(std::string_view header, std::uint64_t start);

// True or false when the bytes are, or are not, the begin of an HDU; nothing when there are too few
// of them to tell. Between the last HDU and the end of a file anything may lie.
std::optional<bool> starts_fits_hdu(std::string_view text, bool primary);

// What an image's elements are by BITPIX, BSCALE, BZERO and BLANK. Without scaling where they are
// the values themselves, or those of unsigned integers and signed bytes by the BZERO convention
// (whose BLANK is ignored, as by astropy). EINVAL when BSCALE or BZERO is no finite number.
struct FitsElements {
  Coding coding;
  std::optional<Scaling> scaling;
};
Result<FitsElements> fits_elements_of(const FitsHdu& hdu);

}  // namespace accrete
