#include "core/wcs.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <numbers>
#include <set>

#include "core/fits_card.h"

namespace accrete {

namespace {

constexpr std::size_t max_axes = 99;  // the standard's, of two digits
constexpr std::size_t keyword_length = 8;

enum class Kind {
  count,      // WCSAXESa
  whole,      // what stays with the alternate: WCSNAMEa
  celestial,  // for all celestial axes
  spectral,   // for all spectral axes
  axis,       // of one world axis, number or text, indexed or not
  crpix,
  ctype,
  cdelt,
  crota,
  pc,
  cd,
  sip,
  alt_pixel,   // ALTRPIX, AIPS: a second reference pixel of the spectral axis
  dimension,   // WCSDIM, IRAF: as WCSAXES
  text,        // WATi_nnn, IRAF: pieces of a text about an axis, of all for i = 0
  distortion,  // by a function that needs no table, or a number about one
  table,       // in another HDU
  unclear,     // older forms
};

struct Keyword {
  Kind kind = Kind::whole;
  char alternate = ' ';
  std::string_view stem;
  std::size_t axis = 0;    // i of PVi_m and PCi_j, j of CRPIXj; 0-based. SIP: p
  std::size_t second = 0;  // j of PCi_j, 0-based; m of PVi_m; n of WATi_n; SIP: q
};

class Reader {
 public:
  explicit Reader(std::string_view text) : rest_(text) {}

  bool take(std::string_view text) {
    if (!rest_.starts_with(text)) return false;
    rest_.remove_prefix(text.size());
    return true;
  }
  // Up to two digits without leading zero.
  std::optional<std::size_t> number() {
    const std::string_view digits =
        rest_.substr(0, std::min(rest_.find_first_not_of("0123456789"), rest_.size()));
    if (digits.empty() || digits.size() > 2 || (digits.size() == 2 && digits[0] == '0'))
      return std::nullopt;
    rest_.remove_prefix(digits.size());
    std::size_t value = 0;
    for (const char c : digits) value = 10 * value + static_cast<std::size_t>(c - '0');
    return value;
  }
  std::optional<std::size_t> axis() {
    const auto n = number();
    return n && *n > 0 ? std::optional(*n - 1) : std::nullopt;
  }
  // The alternate's letter at the end; nothing when there is more.
  std::optional<char> alternate() const {
    if (rest_.empty()) return ' ';
    if (rest_.size() == 1 && 'A' <= rest_[0] && rest_[0] <= 'Z') return rest_[0];
    return std::nullopt;
  }
  bool digits(std::size_t count) const {
    return rest_.size() == count && rest_.find_first_not_of("0123456789") == std::string_view::npos;
  }
  std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
};

struct Stem {
  std::string_view text;
  Kind kind;
};

// With a letter or none.
constexpr Stem plain_stems[] = {
    {"WCSAXES", Kind::count},     {"WCSNAME", Kind::whole},     {"LONPOLE", Kind::celestial},
    {"LATPOLE", Kind::celestial}, {"RADESYS", Kind::celestial}, {"EQUINOX", Kind::celestial},
    {"SPECSYS", Kind::spectral},  {"SSYSOBS", Kind::spectral},  {"SSYSSRC", Kind::spectral},
    {"RESTFRQ", Kind::spectral},  {"RESTWAV", Kind::spectral},  {"VELOSYS", Kind::spectral},
    {"ZSOURCE", Kind::spectral},  {"VELANGL", Kind::spectral},  {"DVERR", Kind::distortion},
};
constexpr Stem primary_keywords[] = {
    {"EPOCH", Kind::celestial},  {"RADECSYS", Kind::celestial}, {"RESTFREQ", Kind::spectral},
    {"VELREF", Kind::spectral},  {"ALTRVAL", Kind::spectral},   {"ALTRPIX", Kind::alt_pixel},
    {"WCSDIM", Kind::dimension}, {"D2IMEXT", Kind::table},      {"D2IMARR", Kind::table},
    {"AXISCORR", Kind::table},
};
// With an axis, and a letter or none.
constexpr Stem axis_stems[] = {
    {"CRPIX", Kind::crpix},      {"CRVAL", Kind::axis},       {"CDELT", Kind::cdelt},
    {"CTYPE", Kind::ctype},      {"CUNIT", Kind::axis},       {"CNAME", Kind::axis},
    {"CRDER", Kind::axis},       {"CSYER", Kind::axis},       {"CROTA", Kind::crota},
    {"CZPHS", Kind::axis},       {"CPERI", Kind::axis},       {"CPDIS", Kind::distortion},
    {"CQDIS", Kind::distortion}, {"CPERR", Kind::distortion}, {"CQERR", Kind::distortion},
    {"DP", Kind::distortion},    {"DQ", Kind::distortion},    {"D2IMDIS", Kind::table},
    {"D2IMERR", Kind::table},    {"D2IM", Kind::table},
};
// With an axis, '_', another or a number, and a letter or none.
constexpr Stem pair_stems[] = {
    {"PC", Kind::pc}, {"CD", Kind::cd}, {"PV", Kind::axis}, {"PS", Kind::axis}};
constexpr std::string_view sip_stems[] = {"A_", "B_", "AP_", "BP_"};

std::optional<Keyword> parse_sip(std::string_view text) {
  for (const std::string_view stem : sip_stems) {
    Reader reader(text);
    if (!reader.take(stem)) continue;
    Keyword keyword{Kind::sip, ' ', stem, max_axes + 1, 0};  // beyond all powers: not a coefficient
    if (reader.rest() == "ORDER" || reader.rest() == "DMAX") return keyword;
    const auto p = reader.number();
    if (!p || !reader.take("_")) return std::nullopt;
    const auto q = reader.number();
    if (!q || !reader.rest().empty()) return std::nullopt;
    keyword.axis = *p;
    keyword.second = *q;
    return keyword;
  }
  return std::nullopt;
}

std::optional<Keyword> parse_pair(std::string_view text) {
  for (const auto& [stem, kind] : pair_stems) {
    Reader reader(text);
    if (!reader.take(stem)) continue;
    if ((kind == Kind::pc || kind == Kind::cd) && reader.digits(6))
      return Keyword{Kind::unclear, ' ', stem, 0, 0};  // PC001002
    const auto axis = reader.axis();
    if (!axis || !reader.take("_")) return std::nullopt;
    const auto second = kind == Kind::axis ? reader.number() : reader.axis();
    const auto alternate = reader.alternate();
    if (!second || !alternate) return std::nullopt;
    return Keyword{kind, *alternate, stem, *axis, *second};
  }
  return std::nullopt;
}

std::optional<Keyword> parse_iraf(std::string_view text) {
  Reader reader(text);
  if (reader.take("WAXMAP"))
    return reader.digits(2) ? std::optional(Keyword{Kind::unclear, ' ', "WAXMAP", 0, 0})
                            : std::nullopt;
  if (!reader.take("WAT")) return std::nullopt;
  const auto axis = reader.number();  // from 1; 0 for all
  if (!axis || !reader.take("_") || !reader.digits(3)) return std::nullopt;
  std::size_t piece = 0;
  for (const char c : reader.rest()) piece = 10 * piece + static_cast<std::size_t>(c - '0');
  if (*axis == 0) return Keyword{Kind::whole, ' ', "WAT", 0, piece};
  return Keyword{Kind::text, ' ', "WAT", *axis - 1, piece};
}

std::optional<Keyword> parse_keyword(std::string_view text) {
  if (text.empty()) return std::nullopt;
  for (const auto& [word, kind] : primary_keywords)
    if (text == word) return Keyword{kind, ' ', word, 0, 0};
  for (const auto& [stem, kind] : plain_stems) {
    Reader reader(text);
    if (!reader.take(stem)) continue;
    const auto alternate = reader.alternate();
    return alternate ? std::optional(Keyword{kind, *alternate, stem, 0, 0}) : std::nullopt;
  }
  for (const auto& [stem, kind] : axis_stems) {
    Reader reader(text);
    if (!reader.take(stem)) continue;
    const auto axis = reader.axis();
    const auto alternate = reader.alternate();
    if (axis && alternate) return Keyword{kind, *alternate, stem, *axis, 0};
  }
  if (const auto sip = parse_sip(text)) return sip;
  if (const auto pair = parse_pair(text)) return pair;
  return parse_iraf(text);
}

std::optional<Keyword> keyword_in(std::string_view card) {
  if (card.size() < card_length) return std::nullopt;
  return parse_keyword(keyword_of(card));
}

// "CRPIX2A"; longer than a keyword may be where only other numbers fit.
std::string renumbered(const Keyword& keyword, std::size_t axis, std::size_t second) {
  std::string text = std::string(keyword.stem) + std::to_string(axis + 1);
  if (keyword.kind == Kind::pc || keyword.kind == Kind::cd) {
    text += '_' + std::to_string(second + 1);
  } else if (keyword.kind == Kind::text) {
    const std::string digits = std::to_string(second);
    text += '_' + std::string(3 - digits.size(), '0') + digits;
  } else if (keyword.stem == "PV" || keyword.stem == "PS") {
    text += '_' + std::to_string(second);
  }
  if (keyword.alternate != ' ') text += keyword.alternate;
  return text;
}

std::string with_keyword(std::string card, std::string keyword) {
  keyword.resize(keyword_length, ' ');
  return card.replace(0, keyword_length, keyword);
}

// A finite number as FITS writes them; nothing for anything else.
std::optional<double> number_of(std::string_view card) {
  std::string text(value_of(card).value_or(""));
  if (text.starts_with('+')) text.erase(0, 1);
  if (text.empty() || text.find_first_not_of("0123456789+-.EeDd") != std::string::npos)
    return std::nullopt;
  for (char& c : text)
    if (c == 'D' || c == 'd') c = 'E';
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// The shortest text that reads as `value`, with a point: "-12.5", "1.0E+22".
std::string number_text(double value) {
  std::array<char, 32> buffer;
  const auto [end, error] =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value + 0.0);
  std::string text(buffer.data(), end);
  const std::size_t exponent = std::min(text.find('e'), text.size());
  if (exponent < text.size()) text[exponent] = 'E';
  if (text.find('.') == std::string::npos) text.insert(exponent, ".0");
  return text;
}

// The comment of a card whose value is a number.
std::string_view comment_of(std::string_view card) {
  card = card.substr(0, card_length);
  const std::size_t slash = card.find('/', 10);
  if (slash == std::string_view::npos) return {};
  card.remove_prefix(slash + 1);
  card.remove_prefix(std::min(card.find_first_not_of(' '), card.size()));
  return card.substr(0, card.find_last_not_of(' ') + 1);
}

// What CTYPEi says: type and algorithm ("RA" and "TAN" of "RA---TAN-SIP").
struct AxisType {
  std::string type;
  std::string algorithm;
  bool sip = false;

  // The name that both axes of a pair have, and which of them this is; 0 for other types.
  std::string system;
  char role = 0;  // 'l'ongitude or 'b', latitude

  bool is_spectral() const {
    static constexpr std::string_view types[] = {"FREQ", "ENER", "WAVN", "VRAD", "WAVE", "VOPT",
                                                 "ZOPT", "AWAV", "VELO", "BETA", "FELO"};
    return std::find(std::begin(types), std::end(types), type) != std::end(types);
  }
  bool is_celestial() const { return role != 0; }
  // A polynomial of both coordinates whose readers know the axes by number.
  bool is_polynomial() const {
    return algorithm == "TPV" || algorithm == "TNX" || algorithm == "ZPX";
  }
};

AxisType type_of(const std::string& ctype) {
  AxisType result;
  result.type = ctype.substr(0, 4);
  result.type.erase(result.type.find_last_not_of("- ") + 1);
  if (ctype.size() > 5 && ctype[4] == '-') {
    result.algorithm = ctype.substr(5, 3);
    result.sip = ctype.substr(std::min<std::size_t>(8, ctype.size())) == "-SIP";
  } else if (ctype.size() > 4) {
    result.type = ctype;  // a longer word, of a linear axis
  }
  const std::string& type = result.type;
  if (type == "RA" || type == "DEC") {
    result.system = "equatorial";
    result.role = type == "RA" ? 'l' : 'b';
  } else if (type.size() == 4) {
    const std::string end = type.substr(1);
    if (end == "LON" || end == "LAT") {
      result.system = type.substr(0, 1);
      result.role = end == "LON" ? 'l' : 'b';
    } else if (type.ends_with("LN") || type.ends_with("LT")) {
      result.system = type.substr(0, 2);
      result.role = type[3] == 'N' ? 'l' : 'b';
    }
  }
  return result;
}

struct OldAxis {
  bool has_cards = false;
  double crpix = 0;
  double cdelt = 1;
  double crota = 0;
  bool has_crpix = false;
  bool in_matrix = false;  // in the row or column of an element
  AxisType type;
};

struct Member {
  const std::string* card = nullptr;
  Keyword keyword;
};

struct Element {
  std::size_t row = 0;
  std::size_t column = 0;
};

struct Pair {
  std::size_t longitude = 0;
  std::size_t latitude = 0;
};

// One alternate as its cards have it.
struct Alternate {
  std::vector<Member> members;     // in order, the first of each keyword
  std::vector<OldAxis> axes;       // up to WCSAXES or the highest number in a keyword
  std::vector<Element> couplings;  // elements beside the diagonal that are not 0
  std::optional<Pair> pair;        // the celestial axes
  bool has_count = false;
  bool has_pc = false;
  bool has_cd = false;
  bool has_sip_cards = false;
  bool has_sip_types = false;
  bool uses_sip = false;
  bool needs_tables = false;
  bool is_understood = true;
};

bool names_table(const Member& member) {
  const std::string_view stem = member.keyword.stem;
  if (stem != "CPDIS" && stem != "CQDIS") return false;
  std::string function =
      string_of(std::string_view(*member.card).substr(0, card_length)).value_or("");
  for (char& c : function)
    if ('A' <= c && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return function == "lookup";
}

OldAxis& axis_of(Alternate& alternate, std::size_t number) {
  if (number >= alternate.axes.size()) alternate.axes.resize(number + 1);
  return alternate.axes[number];
}

// PCi_j or CDi_j. A 0 between two axes says nothing of either.
void read_element(Alternate& alternate, const Keyword& keyword, double value) {
  (keyword.kind == Kind::pc ? alternate.has_pc : alternate.has_cd) = true;
  axis_of(alternate, std::max(keyword.axis, keyword.second));
  if (value == 0 && keyword.axis != keyword.second) return;
  for (const std::size_t i : {keyword.axis, keyword.second})
    alternate.axes[i].has_cards = alternate.axes[i].in_matrix = true;
  if (keyword.axis != keyword.second) alternate.couplings.push_back({keyword.axis, keyword.second});
}

void read_member(Alternate& alternate, const Member& member) {
  const Keyword& keyword = member.keyword;
  const std::string_view card = std::string_view(*member.card).substr(0, card_length);
  const auto axis = [&](std::size_t number) -> OldAxis& {
    OldAxis& found = axis_of(alternate, number);
    found.has_cards = true;
    return found;
  };
  const auto number = [&] {
    const auto value = number_of(card);
    if (!value) alternate.is_understood = false;
    return value.value_or(0);
  };
  switch (keyword.kind) {
    case Kind::count: {
      const double value = number();
      alternate.has_count = true;
      if (value < 1 || value > static_cast<double>(max_axes) || value != std::floor(value))
        alternate.is_understood = false;
      else if (const auto count = static_cast<std::size_t>(value); count > alternate.axes.size())
        alternate.axes.resize(count);
      break;
    }
    case Kind::crpix:
      axis(keyword.axis).crpix = number();
      axis(keyword.axis).has_crpix = true;
      break;
    case Kind::cdelt:
      axis(keyword.axis).cdelt = number();
      break;
    case Kind::crota:
      axis(keyword.axis).crota = number();
      break;
    case Kind::ctype:
      axis(keyword.axis).type = type_of(string_of(card).value_or(""));
      break;
    case Kind::pc:
    case Kind::cd:
      read_element(alternate, keyword, number());
      break;
    case Kind::sip:
      alternate.has_sip_cards = true;
      break;
    case Kind::alt_pixel:
      number();
      break;
    case Kind::table:
      alternate.needs_tables = true;
      break;
    case Kind::distortion:
      alternate.is_understood = false;
      if (names_table(member)) alternate.needs_tables = true;
      break;
    case Kind::unclear:
      alternate.is_understood = false;
      break;
    case Kind::axis:
    case Kind::text:
      axis(keyword.axis);
      break;
    case Kind::whole:
    case Kind::celestial:
    case Kind::spectral:
    case Kind::dimension:
      break;
  }
}

// The celestial axes, which must be two of one system and projection if they are projected.
void read_types(Alternate& alternate, bool is_primary) {
  for (const bool projected : {true, false}) {
    std::vector<std::size_t> found;
    for (std::size_t i = 0; i < alternate.axes.size(); ++i)
      if (const AxisType& t = alternate.axes[i].type;
          t.is_celestial() && t.algorithm.empty() != projected)
        found.push_back(i);
    if (found.empty()) continue;
    const auto type = [&](std::size_t i) -> const AxisType& {
      return alternate.axes[found[i]].type;
    };
    if (found.size() == 2 && type(0).system == type(1).system && type(0).role != type(1).role &&
        type(0).algorithm == type(1).algorithm) {
      alternate.pair = type(0).role == 'l' ? Pair{found[0], found[1]} : Pair{found[1], found[0]};
      break;
    }
    if (projected) alternate.is_understood = false;
  }
  for (std::size_t i = 0; i < alternate.axes.size(); ++i) {
    const AxisType& t = alternate.axes[i].type;
    if (t.sip) alternate.has_sip_types = true;
    if (t.algorithm == "TAB") alternate.needs_tables = true;
    // The faces of a cube on which the sky is projected.
    if (t.type == "CUBEFACE" && alternate.pair)
      alternate.couplings.push_back({i, alternate.pair->longitude});
  }
  alternate.uses_sip = is_primary ? alternate.has_sip_cards : alternate.has_sip_types;
  if (alternate.pair)
    alternate.couplings.push_back({alternate.pair->longitude, alternate.pair->latitude});
  if (alternate.has_pc && alternate.has_cd) alternate.is_understood = false;
  if (alternate.uses_sip && alternate.axes.size() >= 2) alternate.couplings.push_back({0, 1});
}

// Sets of axes that depend on each other: for each axis, one that stands for its set.
std::vector<std::size_t> sets_of(const Alternate& alternate) {
  std::vector<std::size_t> parent(alternate.axes.size());
  for (std::size_t i = 0; i < parent.size(); ++i) parent[i] = i;
  const auto root = [&](std::size_t i) {
    while (parent[i] != i) i = parent[i] = parent[parent[i]];
    return i;
  };
  for (const Element& e : alternate.couplings) parent[root(e.row)] = root(e.column);
  for (std::size_t& p : parent) p = root(p);
  return parent;
}

enum class SipOrder { same, transposed, lost };

SipOrder sip_order(const PixelMap& map) {
  if (map.axes.size() < 2) return SipOrder::lost;
  for (const std::size_t axis : map.broken)
    if (axis < 2) return SipOrder::lost;
  if (map.axes[0].source == 0u && map.axes[1].source == 1u) return SipOrder::same;
  if (map.axes[0].source == 1u && map.axes[1].source == 0u) return SipOrder::transposed;
  return SipOrder::lost;
}

std::string sip_transposed(const Keyword& keyword, const std::string& card) {
  std::string text(keyword_of(card));
  text[0] = text[0] == 'A' ? 'B' : 'A';
  if (keyword.axis <= max_axes)
    text = text.substr(0, keyword.stem.size()) + std::to_string(keyword.second) + '_' +
           std::to_string(keyword.axis);
  return with_keyword(card, text);
}

// Writes one alternate's cards for the new image.
class Mapper {
 public:
  Mapper(const Alternate& alternate, char letter, const PixelMap& map)
      : old_(alternate), letter_(letter), map_(map), places_(alternate.axes.size()) {}

  // Nothing when the alternate goes whole.
  std::optional<std::vector<std::string>> run() {
    if (!old_.is_understood || old_.needs_tables) return std::nullopt;
    if (old_.uses_sip && sip_order(map_) == SipOrder::lost) return std::nullopt;
    place_axes();
    if (count_ > max_axes || (!old_.axes.empty() && !any_left_)) return std::nullopt;
    if (old_.pair && is_polynomial() && !pair_stays()) return std::nullopt;
    if (!resolve_rotation()) return std::nullopt;
    write_count();
    for (const Member& member : old_.members) write(member);
    write_what_was_default();
    if (too_long_) return std::nullopt;
    return std::move(cards_);
  }

 private:
  struct Place {
    std::optional<std::size_t> to;  // new axis; nothing: the axis goes
    std::int64_t shift = 0;         // old index of its first pixel
  };

  void place_axes() {
    enum class State { degenerate, spanned, fixed, broken };
    const std::size_t n = old_.axes.size();
    std::vector<State> states(n, State::degenerate);
    std::vector<Place> wished(n);
    for (std::size_t d = 0; d < map_.axes.size(); ++d) {
      const PixelMap::Axis& axis = map_.axes[d];
      if (!axis.source || *axis.source >= n) continue;
      states[*axis.source] = State::spanned;
      wished[*axis.source] = {d, axis.begin};
    }
    for (const PixelMap::Fixed& fixed : map_.fixed) {
      if (fixed.source >= n) continue;
      states[fixed.source] = State::fixed;
      wished[fixed.source] = {std::nullopt, fixed.index};
    }
    for (const std::size_t axis : map_.broken)
      if (axis < n) states[axis] = State::broken;

    const std::vector<std::size_t> sets = sets_of(old_);
    std::vector<bool> has_broken(n);
    std::vector<bool> has_pixels(n);
    for (std::size_t i = 0; i < n; ++i) {
      if (states[i] == State::broken) has_broken[sets[i]] = true;
      if (states[i] == State::spanned || states[i] == State::degenerate) has_pixels[sets[i]] = true;
    }
    count_ = map_.axes.size();
    for (std::size_t i = 0; i < n; ++i) {
      if (has_broken[sets[i]] || !has_pixels[sets[i]]) continue;
      places_[i] = wished[i];
      if (states[i] != State::spanned) places_[i].to = count_++;
      if (old_.axes[i].has_cards) any_left_ = true;
    }
    matrix_left_ = std::any_of(old_.members.begin(), old_.members.end(),
                               [&](const Member& member) { return is_matrix_left(member); });
  }

  bool is_polynomial() const { return old_.axes[old_.pair->longitude].type.is_polynomial(); }
  bool pair_stays() const {
    return places_[old_.pair->longitude].to == old_.pair->longitude &&
           places_[old_.pair->latitude].to == old_.pair->latitude;
  }

  // CROTAi of the latitude turns the celestial pair (paper II, 6.1). Not all readers find it at
  // other axes than usual: a pair that moves is turned by PCi_j instead. False when CDELTi make
  // that impossible.
  bool resolve_rotation() {
    if (old_.has_pc || old_.has_cd || !old_.pair) return true;
    const auto [longitude, latitude] = *old_.pair;
    const double degrees = old_.axes[latitude].crota;
    if (degrees == 0 || !places_[latitude].to || pair_stays()) return true;
    const double ratio = old_.axes[latitude].cdelt / old_.axes[longitude].cdelt;
    if (!std::isfinite(ratio) || !std::isfinite(1 / ratio)) return false;
    double sine = std::sin(degrees * (std::numbers::pi / 180));
    double cosine = std::cos(degrees * (std::numbers::pi / 180));
    if (const double quarters = degrees / 90; quarters == std::floor(quarters)) {
      sine = std::round(sine);
      cosine = std::round(cosine);
    }
    const std::size_t l = *places_[longitude].to;
    const std::size_t b = *places_[latitude].to;
    turned_ = {{l, l, cosine}, {l, b, -sine * ratio}, {b, l, sine / ratio}, {b, b, cosine}};
    return true;
  }

  void write_count() {
    if (!old_.has_count && (old_.axes.empty() || count_ == map_.axes.size())) return;
    for (const Member& member : old_.members) {
      if (member.keyword.kind != Kind::count) continue;
      if (number_of(first_card(member)) == static_cast<double>(count_))
        cards_.push_back(*member.card);
      else
        cards_.push_back(make_integer_card(
            keyword_of(*member.card), static_cast<std::int64_t>(count_), comment_of(*member.card)));
      return;
    }
    add("WCSAXES", std::to_string(count_), "number of world coordinate axes");
  }

  void write(const Member& member) {
    const Keyword& keyword = member.keyword;
    switch (keyword.kind) {
      case Kind::count:
        break;
      case Kind::whole:
        cards_.push_back(*member.card);
        break;
      case Kind::celestial:
        if (stays([](const AxisType& t) { return t.is_celestial(); }))
          cards_.push_back(*member.card);
        break;
      case Kind::spectral:
        if (stays([](const AxisType& t) { return t.is_spectral(); }))
          cards_.push_back(*member.card);
        break;
      case Kind::alt_pixel:
        write_alt_pixel(member);
        break;
      case Kind::dimension:
        cards_.push_back(make_integer_card(
            keyword_of(*member.card), static_cast<std::int64_t>(count_), comment_of(*member.card)));
        break;
      case Kind::crpix:
        write_crpix(member);
        break;
      case Kind::crota:
        // Where PCi_j or CDi_j are there it says nothing, and must not once they are gone.
        if (turned_.empty() && (!old_.has_pc || matrix_left_)) write_renumbered(member);
        break;
      case Kind::pc:
      case Kind::cd:
        if (is_matrix_left(member))
          renumber(member, *places_[keyword.axis].to, *places_[keyword.second].to);
        break;
      case Kind::sip:
        cards_.push_back(sip_order(map_) == SipOrder::same ? *member.card
                                                           : sip_transposed(keyword, *member.card));
        break;
      case Kind::axis:
      case Kind::ctype:
      case Kind::cdelt:
      case Kind::text:
        write_renumbered(member);
        break;
      case Kind::distortion:
      case Kind::table:
      case Kind::unclear:
        break;  // the alternate went whole
    }
  }

  void write_renumbered(const Member& member) {
    if (places_[member.keyword.axis].to)
      renumber(member, *places_[member.keyword.axis].to, member.keyword.second);
  }

  void renumber(const Member& member, std::size_t axis, std::size_t second) {
    const std::string keyword = renumbered(member.keyword, axis, second);
    if (keyword.size() > keyword_length) too_long_ = true;
    cards_.push_back(with_keyword(*member.card, keyword));
  }

  void write_crpix(const Member& member) {
    const Place& place = places_[member.keyword.axis];
    if (!place.to) return;
    if (place.shift == 0) return write_renumbered(member);
    const double value = old_.axes[member.keyword.axis].crpix - static_cast<double>(place.shift);
    cards_.push_back(make_card(renumbered(member.keyword, *place.to, 0), number_text(value),
                               comment_of(*member.card)));
  }

  void write_alt_pixel(const Member& member) {
    std::optional<std::int64_t> shift;
    for (std::size_t i = 0; i < places_.size(); ++i)
      if (places_[i].to && old_.axes[i].type.is_spectral()) shift = places_[i].shift;
    if (!shift) return;
    if (*shift == 0) return cards_.push_back(*member.card);
    const double value = number_of(first_card(member)).value_or(0) - static_cast<double>(*shift);
    cards_.push_back(
        make_card(keyword_of(*member.card), number_text(value), comment_of(*member.card)));
  }

  void write_what_was_default() {
    for (std::size_t i = 0; i < places_.size(); ++i) {
      const Place& place = places_[i];
      if (!place.to || place.shift == 0 || old_.axes[i].has_crpix) continue;
      add("CRPIX" + std::to_string(*place.to + 1), number_text(-static_cast<double>(place.shift)),
          "");
    }
    for (const auto& [row, column, value] : turned_)
      add("PC" + std::to_string(row + 1) + '_' + std::to_string(column + 1), number_text(value),
          "");
    if (!old_.has_cd || old_.axes.empty()) return;
    // Beside CDi_j an element that is not there is 0: axes of which none is need their own.
    std::vector<bool> in_matrix(count_);
    for (std::size_t i = 0; i < places_.size(); ++i)
      if (places_[i].to && old_.axes[i].in_matrix) in_matrix[*places_[i].to] = true;
    for (std::size_t i = 0; i < count_; ++i)
      if (const std::string n = std::to_string(i + 1); !in_matrix[i])
        add("CD" + n + '_' + n, "1.0", "");
  }

  void add(std::string keyword, const std::string& value, std::string_view comment) {
    if (letter_ != ' ') keyword += letter_;
    if (keyword.size() > keyword_length) too_long_ = true;
    cards_.push_back(make_card(keyword, value, comment));
  }

  // Whether cards about all axes of a kind stay: the axes do, or there were none that told.
  template <class IsOfKind>
  bool stays(IsOfKind is_of_kind) const {
    bool any = false;
    for (std::size_t i = 0; i < places_.size(); ++i) {
      if (!is_of_kind(old_.axes[i].type)) continue;
      if (places_[i].to) return true;
      any = true;
    }
    return !any;
  }

  bool is_matrix_left(const Member& member) const {
    const Keyword& k = member.keyword;
    return (k.kind == Kind::pc || k.kind == Kind::cd) && places_[k.axis].to && places_[k.second].to;
  }

  static std::string_view first_card(const Member& member) {
    return std::string_view(*member.card).substr(0, card_length);
  }

  struct Turn {
    std::size_t row;
    std::size_t column;
    double value;
  };

  const Alternate& old_;
  const char letter_;
  const PixelMap& map_;
  std::vector<Place> places_;  // of the old axes
  std::vector<Turn> turned_;   // PCi_j in place of CROTAi
  std::size_t count_ = 0;      // of the new axes, those that the image does not have included
  bool any_left_ = false;      // an axis with cards of its own
  bool matrix_left_ = false;   // an element of PCi_j or CDi_j
  bool too_long_ = false;      // a keyword became
  std::vector<std::string> cards_;
};

constexpr std::size_t letters = 27;

std::size_t slot_of(char alternate) {
  return alternate == ' ' ? 0 : static_cast<std::size_t>(alternate - 'A') + 1;
}

char letter_of(std::size_t slot) {
  return slot == 0 ? ' ' : static_cast<char>('A' + static_cast<char>(slot - 1));
}

}  // namespace

bool PixelMap::is_identity() const {
  if (!fixed.empty() || !broken.empty()) return false;
  for (std::size_t d = 0; d < axes.size(); ++d)
    if (axes[d].source != d || axes[d].begin != 0) return false;
  return true;
}

std::optional<char> alternate_of_keyword(std::string_view keyword) {
  const auto parsed = parse_keyword(keyword);
  return parsed ? std::optional(parsed->alternate) : std::nullopt;
}

bool is_wcs_keyword(std::string_view keyword) {
  return alternate_of_keyword(keyword).has_value();
}

std::optional<char> alternate_of(std::string_view card) {
  const auto parsed = keyword_in(card);
  return parsed ? std::optional(parsed->alternate) : std::nullopt;
}

std::string alternates_in(std::span<const std::string> cards) {
  std::array<bool, letters> found{};
  for (const std::string& card : cards)
    if (const auto alternate = alternate_of(card)) found[slot_of(*alternate)] = true;
  std::string text;
  for (std::size_t slot = 0; slot < letters; ++slot)
    if (found[slot]) text += letter_of(slot);
  return text;
}

std::vector<std::string> map_wcs(std::span<const std::string> cards, const PixelMap& map) {
  std::array<Alternate, letters> alternates;
  std::vector<std::optional<std::size_t>> slots;  // of each card
  std::set<std::string_view> seen;
  for (const std::string& card : cards) {
    const auto keyword = keyword_in(card);
    slots.push_back(keyword ? std::optional(slot_of(keyword->alternate)) : std::nullopt);
    if (!keyword || !seen.insert(keyword_of(card)).second) continue;
    Alternate& alternate = alternates[*slots.back()];
    alternate.members.push_back({&card, *keyword});
    read_member(alternate, alternate.members.back());
  }
  for (std::size_t slot = 0; slot < letters; ++slot) read_types(alternates[slot], slot == 0);

  const bool identity = map.is_identity();
  std::array<std::optional<std::vector<std::string>>, letters> blocks;
  for (std::size_t slot = 0; slot < letters; ++slot) {
    const Alternate& alternate = alternates[slot];
    // The polynomials of SIP are among the primary's cards, and go with them.
    if (slot > 0 && alternate.has_sip_types && alternates[0].has_sip_cards && !blocks[0]) continue;
    if (identity) {
      if (!alternate.needs_tables) blocks[slot].emplace();
    } else if (slot == 0 || !alternate.has_sip_types || alternates[0].has_sip_cards) {
      blocks[slot] = Mapper(alternate, letter_of(slot), map).run();
    }
  }

  std::vector<std::string> result;
  for (std::size_t i = 0; i < cards.size(); ++i) {
    if (!slots[i]) {
      result.push_back(cards[i]);
    } else if (auto& block = blocks[*slots[i]]) {
      if (identity) {
        result.push_back(cards[i]);
      } else {
        std::move(block->begin(), block->end(), std::back_inserter(result));
        block->clear();
      }
    }
  }
  return result;
}

}  // namespace accrete
