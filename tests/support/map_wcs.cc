// Maps the world coordinates of images, many in one run.
//
// On standard input, for each image, a line of four counts and then as many lines of each:
//
//   AXES FIXED BROKEN CARDS
//   SOURCE BEGIN             for each axis of the new image; SOURCE -1: the old one has no such
//   axis SOURCE INDEX             for each fixed axis SOURCE                   for each broken axis
//   a card, or one with its CONTINUE cards
//
// On standard output, for each image, a line with the count of cards, and the cards.
#include <iostream>
#include <string>

#include "core/wcs.h"

int main() {
  std::size_t axes = 0;
  std::size_t fixed = 0;
  std::size_t broken = 0;
  std::size_t count = 0;
  while (std::cin >> axes >> fixed >> broken >> count) {
    accrete::PixelMap map;
    for (std::size_t i = 0; i < axes; ++i) {
      long source = 0;
      accrete::PixelMap::Axis axis;
      std::cin >> source >> axis.begin;
      if (source >= 0) axis.source = static_cast<std::size_t>(source);
      map.axes.push_back(axis);
    }
    map.fixed.resize(fixed);
    for (auto& [source, index] : map.fixed) std::cin >> source >> index;
    map.broken.resize(broken);
    for (std::size_t& source : map.broken) std::cin >> source;
    std::string line;
    std::getline(std::cin, line);
    std::vector<std::string> cards(count);
    for (std::string& card : cards) std::getline(std::cin, card);
    const std::vector<std::string> mapped = accrete::map_wcs(cards, map);
    std::cout << mapped.size() << '\n';
    for (const std::string& card : mapped) std::cout << card << '\n';
  }
  return std::cin.eof() ? 0 : 1;
}
