// FITS headers as lines of text, so that inputs are short and a mutation of one line leaves the
// others in their places.
#pragma once

#include <string>
#include <string_view>

#include "core/fits_card.h"
#include "tests/fuzz/fuzz.h"

namespace accrete::fuzzing {

// Takes lines from the input, to one that says END or the input's end; each is a card, cut or
// filled up to its 80 characters. After END blank cards fill the last block.
inline std::string take_header(Input& input) {
  std::string header;
  while (!input.empty()) {
    const std::string_view line = input.take_until('\n');
    std::string card(line.substr(0, card_length));
    card.resize(card_length, ' ');
    header += card;
    if (line != "END") continue;
    header.resize((header.size() + fits_block - 1) / fits_block * fits_block, ' ');
    break;
  }
  return header;
}

}  // namespace accrete::fuzzing
