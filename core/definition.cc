#include "core/definition.h"

#include <algorithm>
#include <charconv>

namespace accrete {

namespace {

Error refuse(std::string sentence) {
  return fail(std::errc::invalid_argument, std::move(sentence));
}

std::size_t significant_rank(const Shape& shape) {
  std::size_t rank = shape.size();
  while (rank > 1 && shape[rank - 1] == 1) --rank;
  return rank;
}

// The frame's extents fastest axis of the cube first, whatever the file's order is.
Shape natural_shape(const FrameLayout& layout) {
  Shape natural = layout.shape;
  if (layout.fortran_order) std::reverse(natural.begin(), natural.end());
  return natural;
}

}  // namespace

std::vector<std::string> words(std::string_view text) {
  std::vector<std::string> found;
  std::string word;
  for (const char c : text) {
    if (c == ' ' || c == '\n' || c == '\t' || c == '\r') {
      if (!word.empty()) found.push_back(std::exchange(word, {}));
    } else {
      word += c;
    }
  }
  if (!word.empty()) found.push_back(word);
  return found;
}

std::string_view letters_of(const Definition& definition) {
  return definition.letters.empty() ? default_letters : std::string_view(definition.letters);
}

Definition undefined_by(const Settings& settings) {
  Definition d;
  d.settings = settings;
  d.letters = settings.letters;
  d.rank = d.letters.size();
  d.formats = settings.formats;
  return d;
}

Result<Definition> define_by(const Settings& settings, const FrameLayout& layout) {
  Definition d = undefined_by(settings);
  d.defined = true;
  // Elements that come as they are stay so; others are stored as their format has them.
  const DType type = dtype_from_name(settings.dtype).value_or(layout.value_type());
  const bool is_same = !layout.scaling && type == layout.coding.type;
  d.coding = is_same ? layout.coding : format(layout.format).coding(type);
  const std::size_t rank = layout.shape.size();
  if (d.letters.empty()) {
    d.rank = rank <= 2 ? rank + 1 : rank;
    d.letters = default_letters.substr(0, d.rank);
  } else if (significant_rank(natural_shape(layout)) > d.rank) {
    return refuse("the frame has " + std::to_string(rank) + " axes, meta/axes names " +
                  std::to_string(d.rank));
  }
  if (!settings.grow.empty() && d.letters.find(settings.grow) == std::string::npos)
    return refuse("meta/grow names axis " + settings.grow + ", which the cube would not have");
  d.pad = default_pad(d.coding.type);
  if (!settings.pad.empty()) {
    ACCRETE_TRY(d.pad, parse_element(settings.pad, d.coding.type));
  }
  if (d.formats.empty()) d.formats = format(layout.format).extension();
  return d;
}

Status check_ragged(const Definition& definition, const Shape& cube, const Shape& frame,
                    std::size_t axis) {
  const Ragged ragged = definition.settings.ragged;
  for (std::size_t a = 0; a < cube.size() && ragged != Ragged::pad; ++a) {
    if (a == axis || cube[a] == 0 || frame[a] == cube[a]) continue;
    if (ragged == Ragged::smaller && frame[a] < cube[a]) continue;
    return refuse("the frame has " + std::to_string(frame[a]) + " elements along axis " +
                  std::string(1, definition.letters[a]) + ", the cube has " +
                  std::to_string(cube[a]) + ", and meta/ragged takes " +
                  (ragged == Ragged::smaller ? "no larger ones" : "no others"));
  }
  return {};
}

Result<Shape> fit(const Definition& definition, const FrameLayout& layout) {
  const Shape natural = natural_shape(layout);
  const std::size_t significant = significant_rank(natural);
  if (significant > definition.rank)
    return refuse("the frame has " + std::to_string(significant) + " axes, the cube has " +
                  std::to_string(definition.rank));
  Shape extent;
  for (std::size_t a = 0; a < definition.rank; ++a)
    extent.push_back(a < natural.size() ? natural[a] : 1);
  return extent;
}

ImageChoice image_choice(const Settings& settings) {
  ImageChoice choice;
  const std::string_view text = settings.hdu;
  const std::size_t comma = text.rfind(',');
  const auto number = [](std::string_view digits, int& value) {
    const char* const end = digits.data() + digits.size();
    const auto [last, error] = std::from_chars(digits.data(), end, value);
    return !digits.empty() && error == std::errc() && last == end;
  };
  if (number(text, choice.hdu)) return choice;
  choice.hdu = -1;
  choice.name = text;
  if (comma != std::string_view::npos && number(text.substr(comma + 1), choice.version))
    choice.name = text.substr(0, comma);
  return choice;
}

Result<std::string> parse_hdu(std::string_view text) {
  const bool is_printable =
      std::all_of(text.begin(), text.end(), [](char c) { return ' ' <= c && c <= '~'; });
  if (text.empty() || text.size() > 68 || !is_printable || text.starts_with('-'))
    return refuse(
        "hdu takes first, a number (0 is the primary HDU), or an EXTNAME, as in SCI or SCI,2");
  if (text == "first") return std::string();
  if (text.find_first_not_of("0123456789") == std::string_view::npos && text.size() > 6)
    return refuse("the FITS file would have to have more than a million HDUs");
  std::string hdu(text);
  for (char& c : hdu)
    if ('a' <= c && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  return hdu;
}

Result<std::string> parse_letters(std::string_view text) {
  std::string letters;
  for (const std::string& word : words(text)) letters += word;
  if (letters.empty() || letters.size() > max_rank)
    return refuse("axes takes one to eight letters, fastest axis first, as in: x y z");
  for (std::size_t i = 0; i < letters.size(); ++i) {
    if (letters[i] < 'a' || letters[i] > 'z')
      return refuse("an axis is named by one lower-case letter, not by '" +
                    std::string(1, letters[i]) + "'");
    if (letters.find(letters[i], i + 1) != std::string::npos)
      return refuse("two axes cannot both be named " + std::string(1, letters[i]));
  }
  return letters;
}

Result<std::string> parse_formats(std::string_view text) {
  std::string formats;
  for (const std::string& word : words(text)) {
    if (format_by_extension(word) == nullptr)
      return refuse("there is no format '" + word + "'; formats are fits, npy, raw and txt");
    if ((" " + formats + " ").find(" " + word + " ") != std::string::npos) continue;
    if (!formats.empty()) formats += ' ';
    formats += word;
  }
  if (formats.empty()) return refuse("formats takes one or more of fits, npy, raw and txt");
  return formats;
}

Result<std::string> parse_order(std::string_view text) {
  std::string order;
  const std::vector<std::string> given = words(text);
  if (given.size() == 1 && given[0] == "arrival") return order;
  if (given.size() == 1 && given[0] == "name") return given[0];
  for (std::string keyword : given) {
    for (char& c : keyword) {
      if ('a' <= c && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
      const bool allowed = ('A' <= c && c <= 'Z') || ('0' <= c && c <= '9') || c == '-' || c == '_';
      if (!allowed || keyword.size() > 8)
        return refuse("'" + keyword +
                      "' is no FITS keyword; order takes arrival, name or keywords");
    }
    if (!order.empty()) order += ' ';
    order += keyword;
  }
  if (order.empty()) return refuse("order takes arrival, name, or one or more FITS keywords");
  return order;
}

}  // namespace accrete
