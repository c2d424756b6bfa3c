#include "core/fits.h"

#include <algorithm>
#include <cassert>

#include "core/bytes.h"
#include "core/fits_card.h"
#include "core/fits_header.h"

namespace accrete {

namespace {

constexpr std::size_t spare_cards = 36;  // free in every header that is written here

Error bad(std::string sentence) {
  return fail(std::errc::invalid_argument, std::move(sentence));
}

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string name_of_hdu(int index) {
  return index == 0 ? "the primary HDU" : "HDU " + std::to_string(index);
}

// The HDU as a frame, or why it cannot be one.
Result<FrameLayout> layout_of(const FitsHdu& hdu, int index) {
  const std::string name = name_of_hdu(index);
  if (hdu.tile_compressed)
    return bad(name + " is a tile-compressed image, which is not supported yet");
  if (hdu.groups) return bad(name + " holds random groups, not an image");
  if (!hdu.is_image())
    return bad(name + (hdu.naxis == 0 ? " has no data (NAXIS = 0)"
                                      : " is no image (XTENSION = '" + hdu.extension + "')"));
  if (hdu.too_many_axes)
    return bad("NAXIS = " + std::to_string(hdu.naxis) + ", but at most 8 axes are supported");
  for (std::size_t i = 0; i < hdu.shape.size(); ++i)
    if (hdu.shape[i] == 0) return bad("NAXIS" + std::to_string(i + 1) + " = 0: there are no data");
  if (hdu.pcount != 0 || hdu.gcount != 1)
    return bad("PCOUNT = " + std::to_string(hdu.pcount) + " and GCOUNT = " +
               std::to_string(hdu.gcount) + ", but those of an image are 0 and 1");
  FrameLayout layout;
  layout.format = FormatId::fits;
  ACCRETE_TRY(layout.coding, fits_coding_of(hdu));
  layout.shape = hdu.shape;
  layout.data_offset = hdu.data_offset;
  layout.data_bytes = hdu.data_bytes;
  layout.least_bytes = hdu.data_offset + hdu.data_bytes;
  layout.full_bytes = hdu.next;
  return layout;
}

bool is_structural(std::string_view card) {
  static constexpr std::string_view keywords[] = {
      "SIMPLE", "XTENSION", "BITPIX", "NAXIS",   "EXTEND",   "PCOUNT",  "GCOUNT",
      "GROUPS", "BSCALE",   "BZERO",  "INHERIT", "CHECKSUM", "DATASUM", "END"};
  return std::find(std::begin(keywords), std::end(keywords), keyword_of(card)) !=
             std::end(keywords) ||
         is_indexed_keyword(card, "NAXIS");
}

// What BZERO the unsigned types and signed bytes need; nothing for the others.
std::string_view bzero_of(DType type) {
  switch (type) {
    case DType::i8:
      return "-128";
    case DType::u16:
      return "32768";
    case DType::u32:
      return "2147483648";
    case DType::u64:
      return "9223372036854775808";
    default:
      return {};
  }
}

class Fits final : public Format {
 public:
  FormatId id() const override { return FormatId::fits; }
  std::string_view extension() const override { return "fits"; }

  Result<Look> look(std::span<const std::byte> head, bool at_end,
                    const ImageChoice& choice) const override {
    const std::string_view text = text_of(head).substr(0, max_header);
    const auto need_more_or = [at_end](const std::string& sentence) -> Result<Look> {
      if (at_end) return bad(sentence);
      return Look{Look::Kind::need_more, {}};
    };
    const std::string none = choice.first_image
                                 ? "the FITS file has no image"
                                 : "the FITS file has no HDU " + std::to_string(choice.hdu);
    std::uint64_t start = 0;
    for (int index = 0;; ++index) {
      if (start > text.size())
        return need_more_or("the FITS file ends in the data of " + name_of_hdu(index - 1));
      const std::optional<bool> starts = starts_fits_hdu(text.substr(start), index == 0);
      if (index == 0 && (starts == false || text.empty() || (at_end && !starts))) return Look{};
      if (starts == false) return bad(none);
      if (!starts) return need_more_or(none);

      ACCRETE_TRY(const std::optional<FitsHdu> hdu, read_fits_header(text, start));
      if (!hdu && text.size() < max_header)
        return need_more_or("the FITS file ends in the header of " + name_of_hdu(index));
      if (!hdu) return bad("the header of " + name_of_hdu(index) + " does not end within 16 MiB");
      if (choice.first_image ? hdu->is_image() || hdu->tile_compressed : index == choice.hdu) {
        ACCRETE_TRY(const FrameLayout layout, layout_of(*hdu, index));
        return Look{Look::Kind::layout, layout};
      }
      if (hdu->next > max_header - fits_block)
        return bad("no image begins within the first 16 MiB of the FITS file");
      start = hdu->next;
    }
  }

  std::vector<std::string> cards(std::span<const std::byte> prefix,
                                 const FrameLayout& layout) const override {
    const std::string_view text = text_of(prefix).substr(0, layout.data_offset);
    std::vector<std::string> cards;
    if (const auto header = header_of_image(text, layout)) collect_cards(*header, cards);
    return cards;
  }

  std::optional<std::string> find_card(std::span<const std::byte> prefix, const FrameLayout& layout,
                                       std::string_view keyword) const override {
    const std::string_view text = as_text(prefix);
    const auto header = header_of_image(text, layout);
    if (!header) return std::nullopt;
    if (const auto card = card_in(*header, keyword)) return card;
    return card_in(text, keyword);
  }

  bool can_show(DType, std::size_t rank) const override { return rank >= 1 && rank <= max_rank; }

  FileFace face(const ViewFacts& facts) const override {
    const auto size = static_cast<std::int64_t>(size_of(facts.type));
    FileFace face;
    std::string& header = face.header;
    header += make_logical_card("SIMPLE", true, "conforms to FITS standard");
    header +=
        make_integer_card("BITPIX", is_float(facts.type) ? -8 * size : 8 * size, "array data type");
    header += make_integer_card("NAXIS", static_cast<std::int64_t>(facts.shape.size()),
                                "number of array dimensions");
    face.elements = 1;
    for (std::size_t i = 0; i < facts.shape.size(); ++i) {
      header += make_integer_card("NAXIS" + std::to_string(i + 1),
                                  static_cast<std::int64_t>(facts.shape[i]), "");
      face.elements *= facts.shape[i];
    }
    if (const std::string_view bzero = bzero_of(facts.type); !bzero.empty()) {
      header += make_integer_card("BSCALE", 1, "");
      header += make_card("BZERO", bzero, "offset of " + std::string(name_of(facts.type)));
    }
    for (const std::string& card : facts.cards) {
      assert(card.size() == card_length);
      header += card;
    }
    // Blank cards, then END as the last card of a block.
    const std::size_t least = header.size() + (spare_cards + 1) * card_length;
    header.resize((least + fits_block - 1) / fits_block * fits_block - card_length, ' ');
    header += "END";
    header.resize(header.size() + card_length - 3, ' ');
    face.bytes_per_element = size_of(facts.type);
    face.trailer = (fits_block - face.data_bytes() % fits_block) % fits_block;
    return face;
  }

  Coding coding(DType type) const override { return fits_coding(type); }
  bool can_extend() const override { return false; }

 private:
  // From the header of the HDU whose data begin behind the prefix on.
  static std::optional<std::string_view> header_of_image(std::string_view text,
                                                         const FrameLayout& layout) {
    for (std::uint64_t start = 0; start < text.size();) {
      const auto hdu = read_fits_header(text, start);
      if (!hdu.ok() || !hdu.value()) return std::nullopt;
      if (hdu.value()->data_offset == layout.data_offset) return text.substr(start);
      start = hdu.value()->next;
    }
    return std::nullopt;
  }

  static std::optional<std::string> card_in(std::string_view header, std::string_view keyword) {
    for (; header.size() >= card_length; header.remove_prefix(card_length)) {
      const std::string_view card = header.substr(0, card_length);
      if (keyword_of(card) == "END") break;
      if (keyword_of(card) == keyword) return std::string(card);
    }
    return std::nullopt;
  }

  // Those of the header at the begin of `header` that are worth carrying along.
  static void collect_cards(std::string_view header, std::vector<std::string>& cards) {
    std::size_t kept = 0;  // without trailing blank cards
    for (; header.size() >= card_length; header.remove_prefix(card_length)) {
      const std::string_view card = header.substr(0, card_length);
      if (keyword_of(card) == "END") break;
      if (is_structural(card)) continue;
      // Views are valid FITS even where a frame is not quite.
      std::string& text = cards.emplace_back(card);
      std::replace_if(
          text.begin(), text.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
      if (card.find_first_not_of(' ') != std::string_view::npos) kept = cards.size();
    }
    cards.resize(kept);
  }
};

}  // namespace

const Format& fits_format() {
  static const Fits fits;
  return fits;
}

}  // namespace accrete
