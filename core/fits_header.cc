#include "core/fits_header.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <tuple>
#include <utility>

#include "core/fits_card.h"

namespace accrete {

namespace {

constexpr std::uint64_t most_axes = 999;  // FITS standard 4.0, 4.4.1.1

Error bad(std::string sentence) {
  return fail(std::errc::invalid_argument, std::move(sentence));
}

Error bad_value(std::string_view card) {
  return bad("the FITS card " + std::string(keyword_of(card)) + " has no valid value");
}

Error misplaced(std::string_view card, std::string_view expected) {
  const std::string_view keyword = keyword_of(card);
  const std::string found =
      is_printable(keyword) && !keyword.empty() ? std::string(keyword) : "an unreadable card";
  return bad("the FITS header has " + found + " where " + std::string(expected) + " belongs");
}

Result<std::string_view> valid_value_of(std::string_view card) {
  const std::optional<std::string_view> value = value_of(card);
  if (!value || value->empty() || !is_printable(card)) return bad_value(card);
  return *value;
}

// An extent or count: a non-negative integer; EFBIG beyond 63 bits.
Result<std::uint64_t> count_of(std::string_view card) {
  ACCRETE_TRY(const std::string_view value, valid_value_of(card));
  const std::string shown = std::string(keyword_of(card)) + " = " + std::string(value);
  std::string_view digits = value;
  const bool negative = digits.starts_with('-');
  if (negative || digits.starts_with('+')) digits.remove_prefix(1);
  if (digits.empty() || digits.find_first_not_of("0123456789") != std::string_view::npos)
    return bad(shown + " is not an integer");
  std::uint64_t count = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), count);
  const bool too_large = error != std::errc{} || count > std::numeric_limits<std::int64_t>::max();
  if (negative && (too_large || count > 0)) return bad(shown + " is negative");
  if (too_large) return fail(std::errc::file_too_large, shown + " does not fit 63 bits");
  return count;
}

Result<int> bitpix_of(std::string_view card) {
  ACCRETE_TRY(const std::string_view value, valid_value_of(card));
  const std::string_view digits =
      value.substr(value.starts_with('+') && !value.starts_with("+-") ? 1 : 0);
  int bitpix = 0;
  const char* const end = std::from_chars(digits.data(), digits.data() + digits.size(), bitpix).ptr;
  for (const int known : {8, 16, 32, 64, -32, -64})
    if (bitpix == known && end == digits.data() + digits.size()) return known;
  return bad("BITPIX = " + std::string(value) + " is not one of 8, 16, 32, 64, -32 and -64");
}

// Takes the cards of one header in order.
class HeaderReader {
 public:
  explicit HeaderReader(bool primary) : primary_(primary) {}

  bool mandatory_done() const { return position_ >= 3 + hdu_.naxis; }

  Status take(std::string_view card) {
    const std::size_t position = position_++;
    if (position == 0) return take_first(card);
    if (position == 1) return take_bitpix(card);
    if (position == 2) return take_naxis(card);
    if (position < 3 + hdu_.naxis) return take_extent(card, position - 2);
    return take_other(card);
  }

  // After the last card. REQUIRES: mandatory_done().
  Result<FitsHdu> finish(std::uint64_t start, std::uint64_t header_bytes) && {
    hdu_.data_offset = start + header_bytes;
    if (hdu_.naxis == 0 || empty_ || (first_empty_ && !hdu_.groups)) elements_ = 0;
    if (hdu_.naxis > 0 && (hdu_.groups || !primary_)) {
      ACCRETE_TRY(elements_, checked_multiply(elements_ + hdu_.pcount, hdu_.gcount));
    }
    const auto size = static_cast<std::uint64_t>(std::abs(hdu_.bitpix)) / 8;
    ACCRETE_TRY(hdu_.data_bytes, checked_multiply(elements_, size));
    const std::uint64_t blocks = (hdu_.data_bytes + fits_block - 1) / fits_block;
    hdu_.next = hdu_.data_offset + blocks * fits_block;
    ACCRETE_TRY(std::ignore, checked_multiply(hdu_.next, 1));
    return std::move(hdu_);
  }

 private:
  Status take_first(std::string_view card) {
    if (!primary_) {
      const std::optional<std::string> name = string_of(card);
      if (!name || name->empty() || !is_printable(*name)) return bad_value(card);
      hdu_.extension = *name;
      return {};
    }
    const std::optional<bool> simple = logical_of(card);
    if (!simple) return bad_value(card);
    if (!*simple) return bad("SIMPLE = F: the file says that it does not conform to FITS");
    return {};
  }

  Status take_bitpix(std::string_view card) {
    if (keyword_of(card) != "BITPIX") return misplaced(card, "BITPIX");
    ACCRETE_TRY(hdu_.bitpix, bitpix_of(card));
    return {};
  }

  Status take_naxis(std::string_view card) {
    if (keyword_of(card) != "NAXIS") return misplaced(card, "NAXIS");
    ACCRETE_TRY(const std::uint64_t naxis, count_of(card));
    if (naxis > most_axes)
      return bad("NAXIS = " + std::to_string(naxis) + " is beyond the 999 axes of FITS");
    hdu_.naxis = naxis;
    return {};
  }

  Status take_extent(std::string_view card, std::size_t axis) {
    const std::string expected = "NAXIS" + std::to_string(axis);
    if (keyword_of(card) != expected) return misplaced(card, expected);
    ACCRETE_TRY(const std::uint64_t extent, count_of(card));
    if (axis <= max_rank)
      hdu_.shape.push_back(extent);
    else if (extent != 1)
      hdu_.too_many_axes = true;
    if (extent == 0) {
      // NAXIS1 of random groups is 0 and does not count; GROUPS comes later in the header.
      (axis == 1 ? first_empty_ : empty_) = true;
      return {};
    }
    ACCRETE_TRY(elements_, checked_multiply(elements_, extent));
    return {};
  }

  Status take_other(std::string_view card) {
    const std::string_view keyword = keyword_of(card);
    if (!is_printable(keyword))
      return fail(std::errc::illegal_byte_sequence,
                  "card " + std::to_string(position_) + " of the FITS header is not text");
    // Of repeated cards the first counts, as for cfitsio and astropy.
    if (keyword == "BSCALE" && !std::exchange(bscale_seen_, true)) {
      ACCRETE_TRY(hdu_.bscale, valid_value_of(card));
    } else if (keyword == "BZERO" && !std::exchange(bzero_seen_, true)) {
      ACCRETE_TRY(hdu_.bzero, valid_value_of(card));
    } else if (keyword == "PCOUNT" && !std::exchange(pcount_seen_, true)) {
      ACCRETE_TRY(hdu_.pcount, count_of(card));
    } else if (keyword == "GCOUNT" && !std::exchange(gcount_seen_, true)) {
      ACCRETE_TRY(hdu_.gcount, count_of(card));
    } else if (keyword == "GROUPS" && primary_) {
      hdu_.groups = first_empty_ && logical_of(card) == true;
    } else if (keyword == "ZIMAGE" && !primary_) {
      hdu_.tile_compressed = logical_of(card) == true;
    } else if (keyword == "BLANK" && !std::exchange(blank_seen_, true)) {
      hdu_.blank = integer_of(card);
    } else if (keyword == "EXTNAME" && hdu_.extname.empty()) {
      hdu_.extname = string_of(card).value_or("");
      for (char& c : hdu_.extname)
        if ('a' <= c && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    } else if (keyword == "EXTVER") {
      hdu_.extver = integer_of(card).value_or(1);
    } else if (keyword == "CHECKSUM" && hdu_.checksum.empty()) {
      hdu_.checksum = string_of(card).value_or("");
    } else if (keyword == "DATASUM" && hdu_.datasum.empty()) {
      hdu_.datasum = string_of(card).value_or("");
    }
    return {};
  }

  const bool primary_;
  FitsHdu hdu_;
  std::size_t position_ = 0;    // of the next card
  std::uint64_t elements_ = 1;  // product of the extents that are not 0
  bool first_empty_ = false;    // NAXIS1 = 0
  bool empty_ = false;          // another extent is 0
  bool bscale_seen_ = false, bzero_seen_ = false, pcount_seen_ = false, gcount_seen_ = false;
  bool blank_seen_ = false;
};

// True when the text of a BSCALE or BZERO card is exactly `number` (65536.0, 6.5536E4, 6.5536d4 …).
bool is_exactly(std::string text, std::string_view number, DType type) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c == 'D' || c == 'd'; }, 'E');
  const Result<Element> value = parse_element(text, type);
  return value.ok() && *value == *parse_element(number, type);
}

// The number of a BSCALE or BZERO card; Fortran's exponents are D or E.
Result<double> finite(std::string_view keyword, std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c == 'D' || c == 'd'; }, 'E');
  const auto number = parse_element(text, DType::f64);
  const double value = number.ok() ? std::bit_cast<double>(number->bytes) : NAN;
  if (!std::isfinite(value))
    return bad(std::string(keyword) + " = " + text + " is not a finite number");
  return value;
}

}  // namespace

Result<std::optional<FitsHdu>> read_fits_header(std::string_view header, std::uint64_t start) {
  HeaderReader reader(start == 0);
  for (std::size_t at = 0; header.size() - at >= card_length; at += card_length) {
    const std::string_view card = header.substr(at, card_length);
    if (reader.mandatory_done() && keyword_of(card) == "END") {
      const std::size_t bytes = (at / fits_block + 1) * fits_block;
      if (header.size() < bytes) break;
      ACCRETE_TRY(FitsHdu hdu, std::move(reader).finish(start, bytes));
      return std::optional(std::move(hdu));
    }
    ACCRETE_CHECK(reader.take(card));
  }
  return std::optional<FitsHdu>();
}

std::optional<bool> starts_fits_hdu(std::string_view text, bool primary) {
  const std::string_view start = primary ? "SIMPLE  =" : "XTENSION=";
  if (text.substr(0, start.size()) != start.substr(0, text.size())) return false;
  if (text.size() < start.size()) return std::nullopt;
  return true;
}

Result<FitsElements> fits_elements_of(const FitsHdu& hdu) {
  struct Row {
    int bitpix;
    DType plain, offset;  // without an offset, and with BZERO = `bzero`
    DType bzero_type;     // that can hold it
    std::string_view bzero;
  };
  static constexpr Row rows[] = {
      {8, DType::u8, DType::i8, DType::i64, "-128"},
      {16, DType::i16, DType::u16, DType::i64, "32768"},
      {32, DType::i32, DType::u32, DType::i64, "2147483648"},
      {64, DType::i64, DType::u64, DType::u64, "9223372036854775808"},
      {-32, DType::f32, DType::f32, DType::i64, "0"},
      {-64, DType::f64, DType::f64, DType::i64, "0"},
  };
  const Row* const row = std::find_if(std::begin(rows), std::end(rows),
                                      [&](const Row& r) { return r.bitpix == hdu.bitpix; });
  const auto is_zero = [&](std::string_view zero, DType type) {
    return is_exactly(hdu.bzero, zero, type);
  };
  if (is_exactly(hdu.bscale, "1", DType::i64)) {
    if (is_zero(row->bzero, row->bzero_type) && row->offset != row->plain)
      return FitsElements{fits_coding(row->offset), std::nullopt};
    if (is_zero("0", DType::i64) && (!hdu.blank || is_float(row->plain)))
      return FitsElements{fits_coding(row->plain), std::nullopt};
  }
  Scaling scaling;
  ACCRETE_TRY(scaling.scale, finite("BSCALE", hdu.bscale));
  ACCRETE_TRY(scaling.zero, finite("BZERO", hdu.bzero));
  if (!is_float(row->plain)) scaling.blank = hdu.blank;
  const bool is_narrow = size_of(row->plain) <= 2 || row->plain == DType::f32;
  scaling.physical = is_narrow ? DType::f32 : DType::f64;
  return FitsElements{fits_coding(row->plain), scaling};
}

}  // namespace accrete
