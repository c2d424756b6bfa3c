#include "core/npy.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <tuple>

namespace accrete {

namespace {

constexpr std::string_view magic = "\x93NUMPY";
constexpr std::size_t alignment = 64;  // of the data in files that are written here

Error bad(const std::string& what) {
  return fail(std::errc::invalid_argument, "the NPY header " + what);
}

struct Header {
  std::optional<Coding> coding;
  std::optional<bool> fortran_order;
  std::optional<std::vector<std::uint64_t>> extents;  // numpy's order
};

// What a descr that is no element type here stands for, for the sentence of a refusal.
std::string_view kind_name(char kind) {
  switch (kind) {
    case 'O':
      return "Python objects";
    case 'V':
      return "structured elements";
    case 'c':
      return "complex numbers";
    case 'b':
      return "booleans";
    case 'm':
    case 'M':
      return "dates or times";
    case 'S':
    case 'a':
    case 'U':
      return "strings";
    case 'f':
      return "floats that are neither float32 nor float64";
    default:
      return "elements of an unknown type";
  }
}

Result<Coding> coding_from_descr(std::string_view descr) {
  std::string_view rest = descr;
  char order = '=';
  if (!rest.empty() && std::string_view("<>|=").find(rest[0]) != std::string_view::npos) {
    order = rest[0];
    rest.remove_prefix(1);
  }
  for (const DType type : all_dtypes) {
    const char kind = is_float(type) ? 'f' : is_signed(type) ? 'i' : 'u';
    if (rest.size() != 2 || rest[0] != kind || rest[1] != '0' + static_cast<char>(size_of(type)))
      continue;
    if (size_of(type) == 1 || order == '=') return native(type);
    if (order == '<') return little_endian(type);
    if (order == '>') return Coding{type, true, false};
  }
  return fail(std::errc::invalid_argument,
              "the NPY file holds " + std::string(kind_name(rest.empty() ? '?' : rest[0])) +
                  " (descr '" + std::string(descr.substr(0, 40)) + "'), which are not supported");
}

// The Python dictionary of an NPY header, no more of the language than numpy writes: string keys,
// strings, booleans and tuples of integers, in any order and spacing.
class Parser {
 public:
  explicit Parser(std::string_view text) : rest_(text) {}

  Result<Header> parse() {
    Header header;
    if (!take('{')) return bad("is not a Python dictionary");
    while (!take('}')) {
      const std::optional<std::string_view> key = string();
      if (!key || !take(':')) return bad("is not a Python dictionary");
      if (*key == "descr" && !header.coding) {
        ACCRETE_TRY(header.coding, descr());
      } else if (*key == "fortran_order" && !header.fortran_order) {
        ACCRETE_TRY(header.fortran_order, boolean());
      } else if (*key == "shape" && !header.extents) {
        ACCRETE_TRY(header.extents, tuple());
      } else {
        return bad("has the key '" + std::string(key->substr(0, 40)) + "' twice or for no purpose");
      }
      if (!take(',') && !peek('}')) return bad("is not a Python dictionary");
    }
    skip_space();
    if (!rest_.empty()) return bad("goes on after its dictionary");
    if (!header.coding || !header.fortran_order || !header.extents)
      return bad("lacks one of the keys descr, fortran_order and shape");
    return header;
  }

 private:
  void skip_space() {
    rest_.remove_prefix(std::min(rest_.find_first_not_of(" \t\r\n\f"), rest_.size()));
  }
  bool peek(char c) {
    skip_space();
    return rest_.starts_with(c);
  }
  bool take(char c) {
    const bool found = peek(c);
    if (found) rest_.remove_prefix(1);
    return found;
  }
  bool take(std::string_view word) {
    skip_space();
    const bool found = rest_.starts_with(word);
    if (found) rest_.remove_prefix(word.size());
    return found;
  }

  std::optional<std::string_view> string() {
    if (!peek('\'') && !peek('"')) return std::nullopt;
    const std::size_t end = rest_.find(rest_[0], 1);
    if (end == std::string_view::npos) return std::nullopt;
    const std::string_view inside = rest_.substr(1, end - 1);
    const auto plain = [](char c) { return c >= ' ' && c <= '~' && c != '\\'; };
    if (!std::all_of(inside.begin(), inside.end(), plain)) return std::nullopt;
    rest_.remove_prefix(end + 1);
    return inside;
  }

  Result<Coding> descr() {
    if (peek('[') || peek('('))
      return fail(std::errc::invalid_argument,
                  "the NPY file holds structured elements, which are not supported");
    const std::optional<std::string_view> text = string();
    if (!text) return bad("has no readable descr");
    return coding_from_descr(*text);
  }

  Result<bool> boolean() {
    if (take("True")) return true;
    if (take("False")) return false;
    return bad("has a fortran_order that is neither True nor False");
  }

  Result<std::vector<std::uint64_t>> tuple() {
    constexpr std::size_t most = 64;  // numpy's own bound on the number of axes
    std::vector<std::uint64_t> extents;
    if (!take('(')) return bad("has a shape that is not a tuple");
    bool comma = true;
    while (!take(')')) {
      if (!comma || extents.size() == most) return bad("has a shape that is not a tuple");
      ACCRETE_TRY(const std::uint64_t extent, integer());
      extents.push_back(extent);
      comma = take(',');
    }
    if (extents.size() == 1 && !comma) return bad("has a shape that is not a tuple");
    return extents;
  }

  Result<std::uint64_t> integer() {
    skip_space();
    if (rest_.starts_with('-')) return bad("has a negative extent in its shape");
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
    if (error == std::errc::result_out_of_range)
      return fail(std::errc::file_too_large, "the NPY header has an extent beyond 64 bits");
    if (error != std::errc{}) return bad("has a shape that is not a tuple of integers");
    rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
    if (rest_.starts_with('L')) rest_.remove_prefix(1);  // Python 2
    return value;
  }

  std::string_view rest_;
};

Result<FrameLayout> layout_of(const Header& header, std::uint64_t data_offset) {
  // Axis x is numpy's last index, so superfluous slowest axes are numpy's first.
  std::span<const std::uint64_t> extents = *header.extents;
  const std::size_t rank = extents.size();
  if (rank == 0)
    return fail(std::errc::invalid_argument, "the NPY file holds a single value without axes");
  while (extents.size() > max_rank && extents.front() == 1) extents = extents.subspan(1);
  if (extents.size() > max_rank)
    return fail(std::errc::invalid_argument,
                "the NPY file has " + std::to_string(rank) + " axes, but at most 8 are supported");
  FrameLayout layout;
  layout.format = FormatId::npy;
  layout.coding = *header.coding;
  for (const std::uint64_t extent : extents) {
    if (extent == 0)
      return fail(std::errc::invalid_argument, "the NPY file has an axis of extent 0");
    layout.shape.push_back(extent);
  }
  layout.fortran_order = *header.fortran_order && extents.size() > 1;
  if (!layout.fortran_order) std::reverse(layout.shape.begin(), layout.shape.end());
  ACCRETE_TRY(const std::uint64_t elements, checked_product(extents));
  ACCRETE_TRY(layout.data_bytes, checked_multiply(elements, size_of(layout.coding.type)));
  layout.data_offset = data_offset;
  layout.least_bytes = layout.full_bytes = data_offset + layout.data_bytes;
  ACCRETE_TRY(std::ignore, checked_multiply(layout.full_bytes, 1));
  return layout;
}

std::string descr_of(DType type) {
  std::string descr(1, size_of(type) == 1 ? '|' : '<');
  descr += is_float(type) ? 'f' : is_signed(type) ? 'i' : 'u';
  return descr + std::to_string(size_of(type));
}

class Npy final : public Format {
 public:
  FormatId id() const override { return FormatId::npy; }
  std::string_view extension() const override { return "npy"; }

  Result<Look> look(std::span<const std::byte> head, bool at_end,
                    const ImageChoice&) const override {
    const std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
    if (text.empty() || text.substr(0, magic.size()) != magic.substr(0, text.size())) return Look{};
    const Look need_more{Look::Kind::need_more, {}};
    const Error truncated = fail(std::errc::invalid_argument, "the NPY file ends in its header");
    const auto at = [text](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
    const auto wait = [&]() -> Result<Look> {
      if (at_end) return truncated;
      return need_more;
    };

    if (text.size() < magic.size() + 2) return wait();
    const unsigned major = at(6), minor = at(7);
    if (major < 1 || major > 3 || minor != 0)
      return fail(std::errc::invalid_argument, "NPY version " + std::to_string(major) + '.' +
                                                   std::to_string(minor) + " is not supported");
    const std::size_t length_bytes = major == 1 ? 2 : 4;
    const std::size_t begin = magic.size() + 2 + length_bytes;
    if (text.size() < begin) return wait();
    std::size_t length = 0;
    for (std::size_t i = length_bytes; i > 0; --i)
      length = length << 8 | at(begin + i - 1 - length_bytes);
    if (length > max_header - begin) return bad("is longer than 16 MiB");
    if (text.size() < begin + length) return wait();
    ACCRETE_TRY(const Header header, Parser(text.substr(begin, length)).parse());
    ACCRETE_TRY(const FrameLayout layout, layout_of(header, begin + length));
    return Look{Look::Kind::layout, layout};
  }

  bool can_show(DType, std::size_t rank) const override { return rank >= 1 && rank <= max_rank; }

  FileFace face(const ViewFacts& facts) const override {
    FileFace face;
    face.elements = 1;
    std::string extents;  // numpy's order
    for (const std::uint64_t extent : facts.shape) {
      face.elements *= extent;
      extents.insert(0, std::to_string(extent) + (extents.empty() ? "," : ", "));
    }
    if (facts.shape.size() > 1) extents.pop_back();  // only a tuple of one ends in a comma
    std::string dictionary = "{'descr': '" + descr_of(facts.type) +
                             "', 'fortran_order': False, 'shape': (" + extents + "), }";
    // Room for any extents, so that the length depends on the rank alone; far below version 1's
    // limit of 64 KiB.
    const std::size_t begin = magic.size() + 4;
    const std::size_t longest = begin + 64 + facts.shape.size() * 22 + 1;
    const std::size_t total = (longest + alignment - 1) / alignment * alignment;
    dictionary.resize(total - begin - 1, ' ');
    dictionary += '\n';
    face.header = magic;
    face.header += std::string_view("\x01\x00", 2);
    face.header += static_cast<char>(dictionary.size() & 0xff);
    face.header += static_cast<char>(dictionary.size() >> 8);
    face.header += dictionary;
    face.bytes_per_element = size_of(facts.type);
    return face;
  }

  Coding coding(DType type) const override { return little_endian(type); }
  bool can_extend() const override { return false; }
};

}  // namespace

const Format& npy_format() {
  static const Npy npy;
  return npy;
}

}  // namespace accrete
