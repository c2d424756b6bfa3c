#include "tools/unpack_tile_header.h"

#include <algorithm>
#include <charconv>
#include <climits>
#include <iterator>
#include <optional>
#include <utility>
#include <vector>

#include "core/fits_card.h"
#include "core/fits_header.h"
#include "tools/unpack_input.h"

namespace accrete {

namespace {

std::string to_text(std::string_view text) {
  return is_printable(text) ? std::string(text) : "something unreadable";
}

// The cards before END of the HDU that holds the image.
class ContainerHeader {
 public:
  explicit ContainerHeader(std::string_view text) {
    for (; text.size() >= card_length; text.remove_prefix(card_length)) {
      const std::string_view card = text.substr(0, card_length);
      if (keyword_of(card) == "END") break;
      cards_.push_back(card);
    }
  }

  const std::vector<std::string_view>& cards() const { return cards_; }

  // Nothing when there is no such card; two of them are an error, for cfitsio might take the other.
  Result<std::optional<std::string_view>> find(std::string_view keyword) const {
    std::optional<std::string_view> found;
    for (const std::string_view card : cards_) {
      if (keyword_of(card) != keyword) continue;
      if (found) return bad("the compressed image has two cards " + std::string(keyword));
      found = card;
    }
    return found;
  }

  Result<std::string_view> get(const std::string& keyword) const {
    ACCRETE_TRY(const std::optional<std::string_view> card, find(keyword));
    if (!card) return bad("the compressed image has no card " + keyword);
    return *card;
  }

  Result<std::int64_t> integer(const std::string& keyword) const {
    ACCRETE_TRY(const std::string_view card, get(keyword));
    return integer_of(card);
  }

  static Result<std::int64_t> integer_of(std::string_view card) {
    std::string_view digits = value_of(card).value_or("");
    if (digits.starts_with("+") && !digits.starts_with("+-")) digits.remove_prefix(1);
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc{} || end != digits.data() + digits.size())
      return bad("the card " + std::string(keyword_of(card)) + " has no valid value");
    return value;
  }

 private:
  std::vector<std::string_view> cards_;
};

std::string_view comment_of(std::string_view card) {
  const std::optional<std::string_view> value = value_of(card);
  if (!value) return {};
  std::string_view rest =
      card.substr(static_cast<std::size_t>(value->data() + value->size() - card.data()));
  const std::size_t slash = rest.find('/');
  if (slash == std::string_view::npos) return {};
  rest.remove_prefix(slash + 1);
  rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
  return rest.substr(0, rest.find_last_not_of(' ') + 1);
}

// True for cards that speak of the table or of the compression, not of the image. ZBITPIX and the
// like become the image's first cards; the checksums are of other bytes.
bool is_of_container(std::string_view card) {
  static constexpr std::string_view keywords[] = {
      "XTENSION", "BITPIX",  "NAXIS",  "PCOUNT",   "GCOUNT",   "TFIELDS",  "THEAP",
      "CHECKSUM", "DATASUM", "ZIMAGE", "ZCMPTYPE", "ZSIMPLE",  "ZEXTEND",  "ZBLOCKED",
      "ZTENSION", "ZBITPIX", "ZNAXIS", "ZPCOUNT",  "ZGCOUNT",  "ZQUANTIZ", "ZDITHER0",
      "ZMASKCMP", "ZBLANK",  "ZSCALE", "ZZERO",    "ZHECKSUM", "ZDATASUM"};
  static constexpr std::string_view stems[] = {"NAXIS", "TTYPE", "TFORM", "TUNIT", "TNULL",
                                               "TSCAL", "TZERO", "TDISP", "TDIM",  "ZNAXIS",
                                               "ZTILE", "ZNAME", "ZVAL"};
  const std::string_view keyword = keyword_of(card);
  return std::find(std::begin(keywords), std::end(keywords), keyword) != std::end(keywords) ||
         std::any_of(std::begin(stems), std::end(stems),
                     [&](std::string_view stem) { return is_indexed_keyword(card, stem); });
}

// The header of the image as a primary array.
Result<std::string> plain_header(const ContainerHeader& container, const TiledImage& image) {
  std::string header;
  const auto comment = [&](const std::string& keyword) -> Result<std::string_view> {
    ACCRETE_TRY(const std::optional<std::string_view> card, container.find(keyword));
    return card ? comment_of(*card) : std::string_view();
  };
  const auto add_integer = [&](const std::string& keyword, std::int64_t value) -> Status {
    ACCRETE_TRY(const std::string_view text, comment("Z" + keyword));
    header += make_integer_card(keyword, value, text);
    return {};
  };
  ACCRETE_TRY(const std::string_view simple, comment("ZSIMPLE"));
  header += make_logical_card("SIMPLE", true, simple);
  ACCRETE_CHECK(add_integer("BITPIX", image.bitpix));
  ACCRETE_CHECK(add_integer("NAXIS", static_cast<std::int64_t>(image.shape.size())));
  for (std::size_t i = 0; i < image.shape.size(); ++i)
    ACCRETE_CHECK(
        add_integer("NAXIS" + std::to_string(i + 1), static_cast<std::int64_t>(image.shape[i])));
  ACCRETE_TRY(const std::optional<std::string_view> extend, container.find("ZEXTEND"));
  if (extend)
    header += make_logical_card("EXTEND", logical_of(*extend) == true, comment_of(*extend));

  // A name that says of the table that it holds a compressed image is none of the image.
  bool named = true;
  for (const std::string_view card : container.cards()) {
    if (keyword_of(card) != "EXTNAME") continue;
    named = string_of(card) != "COMPRESSED_IMAGE";
    break;
  }
  for (const std::string_view card : container.cards())
    if (!is_of_container(card) && (named || keyword_of(card) != "EXTNAME")) header += card;
  while (header.ends_with(std::string(card_length, ' ')))
    header.resize(header.size() - card_length);
  header += "END";
  header.resize((header.size() + fits_block - 1) / fits_block * fits_block, ' ');
  return header;
}

// cfitsio counts the pixels of a tile, and the tiles, in ints.
Status check_tiles(const Box& shape, const Box& tile) {
  const Error error = bad("the tiles of the compressed image are too large or too many");
  std::uint64_t pixels = 1, tiles = 1;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    const Result<std::uint64_t> all_pixels = checked_multiply(pixels, tile[i]);
    const Result<std::uint64_t> all_tiles = checked_multiply(tiles, (shape[i] - 1) / tile[i] + 1);
    if (!all_pixels.ok() || *all_pixels > INT_MAX || !all_tiles.ok() || *all_tiles > INT_MAX)
      return error;
    pixels = *all_pixels;
    tiles = *all_tiles;
  }
  return {};
}

// As cfitsio understands it: files of old have another parameter in place of the second one, or
// the two the other way round.
Result<RiceCoding> rice_coding(const ContainerHeader& container) {
  ACCRETE_TRY(std::int64_t block, container.integer("ZVAL1"));
  std::int64_t bytes = 4;
  ACCRETE_TRY(const std::optional<std::string_view> name, container.find("ZNAME2"));
  ACCRETE_TRY(const std::optional<std::string_view> value, container.find("ZVAL2"));
  if (value && !(name && string_of(*name) == "NOISEBIT")) {
    ACCRETE_TRY(bytes, ContainerHeader::integer_of(*value));
  }
  if (block < 16 && bytes > 8) std::swap(block, bytes);
  if (block < 1 || block > INT_MAX) return bad("ZVAL1 = " + std::to_string(block));
  if (bytes < 1 || bytes > 8) return bad("ZVAL2 = " + std::to_string(bytes));
  return RiceCoding{static_cast<std::uint64_t>(block),
                    bytes <= 2 ? static_cast<unsigned>(bytes) : 4};
}

Result<TiledImage> read_tiled_image(const ContainerHeader& container) {
  TiledImage image;
  ACCRETE_TRY(const std::string_view type, container.get("ZCMPTYPE"));
  const std::optional<std::string> codec = string_of(type);
  if (!codec || codec->empty()) return bad("the card ZCMPTYPE has no valid value");
  image.codec = *codec;
  if (image.codec == "RICE_ONE") image.codec = "RICE_1";
  static constexpr std::string_view codecs[] = {"RICE_1", "GZIP_1",      "GZIP_2",
                                                "PLIO_1", "HCOMPRESS_1", "NOCOMPRESS"};
  if (std::find(std::begin(codecs), std::end(codecs), image.codec) == std::end(codecs))
    return bad("the image is compressed by " + to_text(image.codec) + ", which is not supported");

  ACCRETE_TRY(const std::int64_t bitpix, container.integer("ZBITPIX"));
  if (bitpix == 64) return bad("compressed images of 64-bit integers are not supported");
  if (bitpix != 8 && bitpix != 16 && bitpix != 32 && bitpix != -32 && bitpix != -64)
    return bad("ZBITPIX = " + std::to_string(bitpix) + " is not one of 8, 16, 32, -32 and -64");
  image.bitpix = static_cast<int>(bitpix);

  ACCRETE_TRY(const std::int64_t rank, container.integer("ZNAXIS"));
  if (rank < 1 || rank > static_cast<std::int64_t>(most_rank))
    return bad("ZNAXIS = " + std::to_string(rank) + ", but compressed images have 1 to " +
               std::to_string(most_rank) + " axes");
  Box stated_tile;
  for (std::size_t i = 0; i < static_cast<std::size_t>(rank); ++i) {
    const std::string number = std::to_string(i + 1);
    ACCRETE_TRY(const std::int64_t extent, container.integer("ZNAXIS" + number));
    if (extent < 1) return bad("ZNAXIS" + number + " = " + std::to_string(extent));
    std::int64_t tile = i == 0 ? extent : 1;
    ACCRETE_TRY(const std::optional<std::string_view> card, container.find("ZTILE" + number));
    if (card) {
      ACCRETE_TRY(tile, ContainerHeader::integer_of(*card));
      if (tile < 1) return bad("ZTILE" + number + " = " + std::to_string(tile));
    }
    image.shape.push_back(static_cast<std::uint64_t>(extent));
    stated_tile.push_back(static_cast<std::uint64_t>(tile));
    image.tile.push_back(static_cast<std::uint64_t>(std::min(tile, extent)));
  }
  ACCRETE_CHECK(check_tiles(image.shape, stated_tile));
  // cfitsio reads such images, but loses all but the first five-dimensional part of each tile.
  if (rank > 5 && image.tile[5] > 1)
    return bad("compressed images with tiles along more than five axes are not supported");
  if (image.codec == "RICE_1") {
    ACCRETE_TRY(image.rice, rice_coding(container));
  }
  ACCRETE_TRY(const std::optional<std::string_view> quantisation, container.find("ZQUANTIZ"));
  image.quantised = image.bitpix < 0 && !(quantisation && string_of(*quantisation) == "NONE");
  ACCRETE_TRY(image.header, plain_header(container, image));
  return image;
}

// cfitsio quotes a number that it cannot read, also one in a string, in a message for which it has
// too little room. For a column's name it has room as far as that is a string.
Status check_values(const ContainerHeader& header) {
  constexpr std::size_t longest = 28;
  static constexpr std::string_view keywords[] = {"BLANK",  "PCOUNT", "GCOUNT",  "TFIELDS",
                                                  "THEAP",  "ZBLANK", "ZPCOUNT", "ZGCOUNT",
                                                  "ZSCALE", "ZZERO",  "ZDITHER0"};
  static constexpr std::string_view stems[] = {"TNULL", "TSCAL", "TZERO", "ZVAL"};
  for (const std::string_view card : header.cards()) {
    // It finds values behind any "=".
    if (card.substr(0, 8).find('=') != std::string_view::npos)
      return bad("a card has its = within its keyword");
    const std::string_view keyword = keyword_of(card);
    const bool is_number =
        std::find(std::begin(keywords), std::end(keywords), keyword) != std::end(keywords) ||
        std::any_of(std::begin(stems), std::end(stems),
                    [&](std::string_view stem) { return is_indexed_keyword(card, stem); });
    const bool is_name = is_indexed_keyword(card, "TTYPE");
    const std::optional<std::string_view> value = value_of(card);
    if ((is_number && (!value || value->size() > longest)) || (is_name && !string_of(card)))
      return bad("the card " + std::string(keyword) + " has no valid value");
  }
  return {};
}

// The header of the HDU that should be the image, after those before it.
Result<ContainerHeader> find_container(std::string_view text, int index) {
  constexpr std::uint64_t most_axes = 99;  // cfitsio reads the extents into an array of so many
  std::uint64_t start = 0;
  for (int i = 0;; ++i) {
    if (start > text.size() || starts_fits_hdu(text.substr(start), i == 0) != true)
      return bad("the FITS file has no HDU " + std::to_string(index));
    const auto read = read_fits_header(text.substr(start), start);
    if (!read.ok() && read.error().code == std::errc::illegal_byte_sequence)
      return bad(read.error().sentence);
    ACCRETE_TRY(const std::optional<FitsHdu> hdu, read);
    if (!hdu) return bad("the FITS file is truncated");
    if (hdu->naxis > most_axes)
      return bad("NAXIS = " + std::to_string(hdu->naxis) + " is too many axes");
    const ContainerHeader header(text.substr(start, hdu->data_offset - start));
    ACCRETE_CHECK(check_values(header));
    if (i == index) {
      if (hdu->extension != "BINTABLE" || hdu->naxis != 2 || !hdu->tile_compressed)
        return bad("HDU " + std::to_string(index) + " is no tile-compressed image");
      if (hdu->data_offset + hdu->data_bytes > text.size())
        return bad("the FITS file is truncated");
      return header;
    }
    start = hdu->next;
  }
}

}  // namespace

Result<TiledImage> read_tiled_image(std::string_view file, int hdu) {
  ACCRETE_TRY(const ContainerHeader container, find_container(file, hdu));
  return read_tiled_image(container);
}

}  // namespace accrete
