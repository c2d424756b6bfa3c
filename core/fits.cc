#include "core/fits.h"

#include <algorithm>
#include <cassert>

#include "core/fits_card.h"
#include "core/fits_checksum.h"
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
  ACCRETE_TRY(const FitsElements elements, fits_elements_of(hdu));
  layout.coding = elements.coding;
  layout.scaling = elements.scaling;
  layout.shape = hdu.shape;
  layout.data_offset = hdu.data_offset;
  layout.data_bytes = hdu.data_bytes;
  layout.least_bytes = hdu.data_offset + hdu.data_bytes;
  layout.full_bytes = hdu.next;
  return layout;
}

bool is_chosen(const FitsHdu& hdu, int index, const ImageChoice& choice) {
  if (choice.hdu >= 0) return index == choice.hdu;
  if (choice.name.empty()) return hdu.is_image() || hdu.tile_compressed;
  return hdu.extname == choice.name && (choice.version == 0 || hdu.extver == choice.version);
}

std::string none_of(const ImageChoice& choice) {
  if (choice.hdu >= 0) return "the FITS file has no HDU " + std::to_string(choice.hdu);
  if (choice.name.empty()) return "the FITS file has no image";
  return "the FITS file has no HDU named '" + choice.name + "'" +
         (choice.version == 0 ? "" : " with EXTVER = " + std::to_string(choice.version));
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
    const std::string_view text = text_of(head);
    const auto need_more_or = [at_end](const std::string& sentence) -> Result<Look> {
      if (at_end) return bad(sentence);
      return Look{Look::Kind::need_more, {}};
    };
    std::uint64_t start = 0;
    std::uint64_t primary_bytes = 0;
    for (int index = 0;; ++index) {
      if (start > text.size())
        return need_more_or("the FITS file ends in the data of " + name_of_hdu(index - 1));
      const std::string_view rest = text.substr(start);
      const std::optional<bool> starts = starts_fits_hdu(rest, index == 0);
      if (index == 0 && (starts == false || text.empty() || (at_end && !starts))) return Look{};
      if (starts == false) return bad(none_of(choice));
      if (!starts) return need_more_or(none_of(choice));

      const auto read = read_fits_header(rest.substr(0, max_header), start);
      // cfitsio may write the end of a header last of all, and elements before it.
      if (!read.ok() && read.error().code == std::errc::illegal_byte_sequence)
        return need_more_or(read.error().sentence);
      ACCRETE_TRY(const std::optional<FitsHdu> hdu, read);
      if (!hdu && rest.size() < max_header)
        return need_more_or("the FITS file ends in the header of " + name_of_hdu(index));
      if (!hdu) return bad("the header of " + name_of_hdu(index) + " does not end within 16 MiB");
      if (is_chosen(*hdu, index, choice)) {
        if (hdu->tile_compressed) return Look{Look::Kind::packed, {}, Packing::tiles, index};
        ACCRETE_TRY(FrameLayout layout, layout_of(*hdu, index));
        layout.header_offset = start;
        layout.primary_bytes = primary_bytes;
        return Look{Look::Kind::layout, layout};
      }
      if (index == 0) primary_bytes = hdu->data_offset;
      start = hdu->next;
    }
  }

  std::vector<std::string> cards(std::string_view header) const override {
    std::vector<std::string> cards;
    std::size_t kept = 0;    // without trailing blank cards
    bool continues = false;  // the card before was taken, and may go on
    for (; header.size() >= card_length; header.remove_prefix(card_length)) {
      const std::string_view card = header.substr(0, card_length);
      if (keyword_of(card) == "END") break;
      const bool is_continuation = keyword_of(card) == "CONTINUE";
      if (is_continuation ? !continues : is_structural_card(card)) {
        continues = false;
        continue;
      }
      if (!is_continuation || cards.empty()) cards.emplace_back();
      continues = true;
      std::string& text = cards.back();
      text += card;
      // Views are valid FITS even where a frame is not quite.
      std::replace_if(
          text.begin(), text.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
      if (card.find_first_not_of(' ') != std::string_view::npos) kept = cards.size();
    }
    cards.resize(kept);
    return cards;
  }

  std::optional<std::string> find_card(const Headers& headers,
                                       std::string_view keyword) const override {
    if (auto card = card_in(headers.image, keyword)) return card;
    return card_in(headers.primary, keyword);
  }

  bool says_sums(std::string_view header) const override {
    return card_in(header, "CHECKSUM") || card_in(header, "DATASUM");
  }

  Status check_sums(std::string_view header, std::uint32_t data_sum) const override {
    return check_fits_sums(header, card_in(header, "DATASUM"), card_in(header, "CHECKSUM"),
                           data_sum);
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
      assert(card.size() % card_length == 0);
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
  static std::optional<std::string> card_in(std::string_view header, std::string_view keyword) {
    for (; header.size() >= card_length; header.remove_prefix(card_length)) {
      if (keyword_of(header) == "END") break;
      if (keyword_of(header) != keyword) continue;
      std::size_t length = card_length;
      while (header.size() >= length + card_length &&
             keyword_of(header.substr(length)) == "CONTINUE")
        length += card_length;
      return std::string(header.substr(0, length));
    }
    return std::nullopt;
  }
};

}  // namespace

const Format& fits_format() {
  static const Fits fits;
  return fits;
}

}  // namespace accrete
