#include "core/frame_order.h"

#include <algorithm>
#include <bit>
#include <cstdlib>

#include "core/definition.h"
#include "core/fits_card.h"

namespace accrete {

namespace {

bool is_digit(char c) {
  return '0' <= c && c <= '9';
}

void put_big_endian(std::string& key, std::uint64_t value, int bytes) {
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8)
    key += static_cast<char>(value >> shift & 0xff);
}

// Digits by value: their number without leading zeros, then they. At last the name itself, which
// decides between "f1" and "f01".
std::string natural_key(std::string_view name) {
  std::string key;
  for (std::size_t i = 0; i < name.size();) {
    if (!is_digit(name[i])) {
      key += name[i++];
      continue;
    }
    std::size_t end = i;
    while (end < name.size() && is_digit(name[end])) ++end;
    while (i + 1 < end && name[i] == '0') ++i;
    key += '0';
    put_big_endian(key, end - i, 2);
    key += name.substr(i, end - i);
    i = end;
  }
  key += '\0';
  key += name;
  return key;
}

// IEEE numbers in the order of their bits, once negative ones are inverted.
void put_double(std::string& key, double value) {
  constexpr std::uint64_t sign = std::uint64_t{1} << 63;
  const auto bits = std::bit_cast<std::uint64_t>(value == 0 ? 0.0 : value);
  put_big_endian(key, (bits & sign) != 0 ? ~bits : bits | sign, 8);
}

std::optional<long double> number_of(std::string_view text) {
  std::string digits(text);
  for (char& c : digits)
    if (c == 'D' || c == 'd') c = 'E';
  char* end = nullptr;
  const long double value = std::strtold(digits.c_str(), &end);
  if (digits.empty() || end != digits.c_str() + digits.size()) return std::nullopt;
  return value;
}

// A number by the nearest double, then by what is left: 64-bit integers keep apart.
void put_value(std::string& key, std::string_view card) {
  if (const auto text = string_of(card)) {
    key += '\2' + *text + '\0';
    return;
  }
  const auto logical = logical_of(card);
  const auto number = logical ? std::optional<long double>(*logical ? 1 : 0)
                              : number_of(value_of(card).value_or(""));
  if (!number) {
    key += '\2' + std::string(value_of(card).value_or("")) + '\0';
    return;
  }
  const auto nearest = static_cast<double>(*number);
  key += '\1';
  put_double(key, nearest);
  put_double(key, static_cast<double>(*number - static_cast<long double>(nearest)));
}

}  // namespace

Result<std::string> sort_key(std::string_view order, std::string_view name, const Headers& headers,
                             FormatId id) {
  if (order == "name") return natural_key(name);
  std::string key;
  for (const std::string& keyword : words(order)) {
    const auto card = format(id).find_card(headers, keyword);
    if (!card || value_of(*card).value_or("").empty())
      return fail(std::errc::invalid_argument, "the frame has no value for " + keyword +
                                                   ", by which the cube is sorted (meta/order)");
    put_value(key, *card);
  }
  return key;
}

std::string keyword_text(const Headers& headers, FormatId id, std::string_view keyword) {
  const auto card = format(id).find_card(headers, keyword);
  if (!card) return {};
  if (const auto text = string_of(*card)) return *text;
  return std::string(value_of(*card).value_or(""));
}

std::uint64_t sorted_position(
    const Axis& axis, const std::string& key,
    const std::function<std::optional<std::string>(std::int64_t)>& key_at) {
  std::uint64_t low = 0;
  std::uint64_t high = axis.positions();
  while (low < high) {
    const std::uint64_t middle = low + (high - low) / 2;
    std::optional<std::string> other;
    std::uint64_t at = middle;
    for (; at < high && !other; ++at) other = key_at(axis.coordinate_at(at));
    if (other && *other <= key)
      low = at;
    else
      high = middle;
  }
  return low;
}

std::vector<Axis::Piece> arranged(const Axis& axis, const std::vector<Run>& runs) {
  const std::vector<Axis::Piece> present = axis.pieces();
  std::vector<Axis::Piece> by_place = present;
  std::sort(by_place.begin(), by_place.end(),
            [](const Axis::Piece& a, const Axis::Piece& b) { return a.run.first < b.run.first; });
  std::vector<Axis::Piece> result;
  const auto put = [&](std::int64_t first, std::int64_t end, bool dormant) {
    result.push_back({{first, static_cast<std::uint64_t>(end - first)}, dormant});
  };
  for (const Run& run : runs) {
    auto piece = std::partition_point(by_place.begin(), by_place.end(), [&](const Axis::Piece& p) {
      return p.run.end() <= run.first;
    });
    for (; piece != by_place.end() && piece->run.first < run.end(); ++piece)
      put(std::max(run.first, piece->run.first), std::min(run.end(), piece->run.end()),
          piece->dormant);
  }
  std::vector<Run> taken = runs;
  std::sort(taken.begin(), taken.end(),
            [](const Run& a, const Run& b) { return a.first < b.first; });
  for (const Axis::Piece& piece : present) {
    std::int64_t first = piece.run.first;
    auto run = std::partition_point(taken.begin(), taken.end(),
                                    [&](const Run& r) { return r.end() <= first; });
    for (; run != taken.end() && run->first < piece.run.end(); ++run) {
      if (first < run->first) put(first, run->first, piece.dormant);
      first = std::min(run->end(), piece.run.end());
    }
    if (first < piece.run.end()) put(first, piece.run.end(), piece.dormant);
  }
  return result;
}

}  // namespace accrete
