// The check of what a FITS file says of its structure. A byte chooses the image; with its top bit
// the rest is a file, else the lines of headers (header_text.h), each with zeros for its data.
// What is taken has sums that are right, whole or in pieces, and extents that are those of its
// cards; the cards that are carried along are the same in a header that has them.
#include "core/fits.h"

#include <algorithm>

#include "core/fits_card.h"
#include "core/fits_header.h"
#include "tests/fuzz/header_text.h"
#include "tests/fuzz/look.h"

namespace accrete::fuzzing {
namespace {

constexpr std::size_t most_data = 16 << 10;  // of one HDU

ImageChoice choice_of(unsigned number) {
  ImageChoice choice;
  if (number >= 1 && number <= 4) choice.hdu = static_cast<int>(number - 1);
  if (number >= 5) choice.name = "SCI";
  if (number >= 6) choice.version = 2;
  return choice;
}

// The lines of headers as a file.
std::string file_of(Input input) {
  std::string file;
  while (!input.empty()) {
    const std::size_t start = file.size();
    file += take_header(input);
    const auto hdu = read_fits_header(std::string_view(file).substr(start), start);
    if (!hdu.ok() || !*hdu) break;
    ACCRETE_HOLDS((*hdu)->data_offset == file.size());
    ACCRETE_HOLDS((*hdu)->next >= file.size() && (*hdu)->next % fits_block == 0);
    if ((*hdu)->next - file.size() > most_data) break;
    file.resize((*hdu)->next);
  }
  return file + std::string(input.rest());
}

// By the C library, of cards that stand where they must.
void check_mandatory_cards(std::string_view header, const FrameLayout& layout) {
  const auto number = [&](std::size_t card) {
    const std::string value(header.substr(card * card_length + 10, card_length - 10));
    return std::strtoll(value.c_str(), nullptr, 10);
  };
  const DType type = layout.coding.type;
  const auto bits = static_cast<long long>(8 * size_of(type));
  ACCRETE_HOLDS(number(1) == (is_float(type) ? -bits : bits));
  ACCRETE_HOLDS(number(2) >= static_cast<long long>(layout.shape.size()));
  for (std::size_t i = 0; i < layout.shape.size(); ++i)
    ACCRETE_HOLDS(number(3 + i) == static_cast<long long>(layout.shape[i]));
}

void check_cards(std::string_view header, const std::vector<std::string>& cards) {
  for (const std::string& card : cards) {
    ACCRETE_HOLDS(!card.empty() && card.size() % card_length == 0 && is_printable(card));
    ACCRETE_HOLDS(!is_structural_card(card));
    const std::string keyword(keyword_of(card));
    const auto found = fits_format().find_card({std::string(header), ""}, keyword);
    ACCRETE_HOLDS(found && keyword_of(*found) == keyword);
    (void)logical_of(card);
    (void)integer_of(card);
    const auto text = string_of(card);
    if (!text || !is_printable(*text)) continue;
    const auto again = string_of(make_string_card("KEYWORD", *text, "comment"));
    ACCRETE_HOLDS(again == *text);
  }
}

void check_layout(const std::string& file, const FrameLayout& layout) {
  check_sums_of(layout);
  ACCRETE_HOLDS(layout.data_offset <= file.size());
  ACCRETE_HOLDS(layout.data_offset % fits_block == 0 && layout.full_bytes % fits_block == 0);
  ACCRETE_HOLDS(layout.full_bytes - layout.least_bytes < fits_block);
  ACCRETE_HOLDS(layout.primary_bytes % fits_block == 0 && layout.header_offset % fits_block == 0);
  ACCRETE_HOLDS((layout.header_offset == 0) == (layout.primary_bytes == 0));
  const std::string_view header = std::string_view(file).substr(
      layout.header_offset, layout.data_offset - layout.header_offset);
  check_mandatory_cards(header, layout);
  const std::vector<std::string> cards = fits_format().cards(header);
  check_cards(header, cards);
  check_face(fits_format(), layout, cards);
  if (fits_format().says_sums(header)) (void)fits_format().check_sums(header, 0);
}

}  // namespace
}  // namespace accrete::fuzzing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace accrete::fuzzing;
  Input input(data, size);
  const unsigned first = input.take<std::uint8_t>();
  const std::string file = (first & 0x80) != 0 ? std::string(input.rest()) : file_of(input);
  const auto look = look_in_pieces(accrete::fits_format(), file, choice_of(first & 7));
  if (look.ok() && look->kind == accrete::Format::Look::Kind::layout)
    check_layout(file, look->layout);
  return 0;
}
