// The properties of a cube as text: the files of meta/.

#include <algorithm>
#include <ctime>

#include "core/cube_on_disk.h"
#include "core/definition.h"
#include "core/fits_card.h"
#include "core/frame_order.h"
#include "core/own_cards.h"
#include "core/view_header.h"

namespace accrete {

namespace {

constexpr std::string_view names[] = {"shape",   "dtype",      "axes",    "grow",     "pad",
                                      "ragged",  "convert",    "order",   "samename", "hdu",
                                      "residue", "durability", "formats", "header",   "frames",
                                      "bytes",   "generation"};

// What a user may write; the others tell.
constexpr std::string_view settable[] = {"dtype",      "axes",    "grow",     "pad", "ragged",
                                         "convert",    "order",   "samename", "hdu", "residue",
                                         "durability", "formats", "header"};
constexpr std::string_view ragged_words[] = {"pad", "smaller", "refuse"};
constexpr std::string_view convert_words[] = {"exact", "nearest"};
constexpr std::string_view residue_words[] = {"keep", "drop"};
constexpr std::string_view same_name_words[] = {"once", "append", "replace", "refuse"};

std::string_view trimmed(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

std::string spaced(std::string_view letters) {
  std::string text;
  for (const char c : letters) {
    if (!text.empty()) text += ' ';
    text += c;
  }
  return text;
}

std::string iso_time(std::int64_t ns) {
  const std::time_t seconds = ns / 1'000'000'000;
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc)};
}

// In a table a name keeps to its field.
std::string tsv_field(std::string text) {
  for (char& c : text)
    if (c == '\t' || c == '\n') c = ' ';
  return text;
}

Error refuse(std::string sentence) {
  return fail(std::errc::invalid_argument, std::move(sentence));
}

Error too_late(std::string_view name) {
  return fail(std::errc::operation_not_permitted,
              std::string(name) + " is fixed by the first frame; the cube holds frames");
}

// Number of `text` among the words that a property takes.
template <class Value, std::size_t n>
Result<Value> choice(std::string_view name, std::string_view text,
                     const std::string_view (&words)[n]) {
  std::string all;
  for (std::size_t i = 0; i < n; ++i) {
    if (text == words[i]) return static_cast<Value>(i);
    all += (i == 0 ? "" : i + 1 == n ? " or " : ", ") + std::string(words[i]);
  }
  return refuse(std::string(name) + " takes " + all);
}

Status check_pad(std::string_view pad, std::string_view dtype) {
  if (pad.empty()) return {};
  const auto parsed = parse_element(pad, dtype_from_name(dtype).value_or(DType::f64));
  return parsed.ok() ? Status() : Status(parsed.error());
}

Result<Settings> changed(const Definition& d, std::string_view name, std::string_view text) {
  Settings set = d.settings;
  const bool fixed = name == "dtype" || name == "axes" || name == "pad";
  if (fixed && d.defined) return too_late(name);
  if (name == "dtype") {
    if (!dtype_from_name(text))
      return refuse("'" + std::string(text) +
                    "' is no element type; types are uint8 int8 uint16 "
                    "int16 uint32 int32 uint64 int64 float32 float64");
    set.dtype = text;
    ACCRETE_CHECK(check_pad(set.pad, set.dtype));
  } else if (name == "axes") {
    ACCRETE_TRY(set.letters, parse_letters(text));
    if (set.letters.find(set.grow) == std::string::npos) set.grow.clear();
  } else if (name == "pad") {
    if (text.empty()) return refuse("pad takes a number, nan or inf");
    ACCRETE_CHECK(check_pad(text, set.dtype));
    set.pad = text;
  } else if (name == "grow") {
    const std::string_view letters = letters_of(d);
    if (text.size() != 1 || letters.find(text) == std::string_view::npos)
      return refuse("grow takes one of the axes " + spaced(letters));
    set.grow = text;
  } else if (name == "formats") {
    ACCRETE_TRY(set.formats, parse_formats(text));
  } else if (name == "ragged") {
    ACCRETE_TRY(set.ragged, choice<Ragged>(name, text, ragged_words));
  } else if (name == "samename") {
    ACCRETE_TRY(set.same_name, choice<SameName>(name, text, same_name_words));
  } else if (name == "convert") {
    ACCRETE_TRY(set.rounding, choice<Rounding>(name, text, convert_words));
  } else if (name == "residue") {
    ACCRETE_TRY(set.drops_residue, choice<bool>(name, text, residue_words));
  } else if (name == "hdu") {
    ACCRETE_TRY(set.hdu, parse_hdu(text));
  } else if (name == "order") {
    ACCRETE_TRY(set.order, parse_order(text));
  } else if (name == "header") {
    ACCRETE_TRY(set.header, parse_header(text));
  } else if (name == "durability") {
    if (text != "close" && text != "disk") return refuse("durability takes close or disk");
    set.sync_each_close = text == "disk";
  }
  return set;
}

// The present definition under other settings.
Definition with_settings(Definition d, const Settings& settings) {
  if (!d.defined) return undefined_by(settings);
  if (settings.formats != d.settings.formats) d.formats = settings.formats;
  d.settings = settings;
  return d;
}

}  // namespace

std::span<const std::string_view> Cube::property_names() {
  return names;
}

bool Cube::is_settable(std::string_view name) {
  return std::find(std::begin(settable), std::end(settable), name) != std::end(settable);
}

std::string CubeOnDisk::frames_table(const Snapshot& snapshot) const {
  std::string table = "name\taxis\tindex\textent\tshape\ttype\tarrival";
  const std::string& order = snapshot.definition.settings.order;
  const std::vector<std::string> keywords = order == "name" ? words("") : words(order);
  for (const std::string& keyword : keywords) table += '\t' + keyword;
  table += '\n';
  for (const FrameId id : snapshot.frames_in_order(false)) {
    const auto row = snapshot.frames.find(id);
    if (!row) continue;
    const std::size_t axis = row->grow_axis;
    const auto index = snapshot.axes[axis].logical(row->first[axis]);
    table += tsv_field(frame_name(*row));
    table += '\t';
    table += snapshot.definition.letters[axis];
    table += '\t' + (index ? std::to_string(*index) : "") + '\t' +
             std::to_string(row->extent[axis]) + '\t' + to_string(row->layout.shape) + '\t';
    table += name_of(row->layout.value_type());
    table += '\t' + iso_time(row->arrival_ns);
    if (!keywords.empty()) {
      const auto headers = frame_headers(*row);
      for (const std::string& keyword : keywords)
        table +=
            '\t' +
            tsv_field(headers.ok() ? keyword_text(*headers, row->cards_format(), keyword) : "");
    }
    table += '\n';
  }
  return table;
}

Result<std::string> CubeOnDisk::property(std::string_view name) const {
  const std::shared_ptr<const Snapshot> now = snapshot();
  const Definition& d = now->definition;
  const auto line = [](std::string_view text) { return std::string(text) + "\n"; };
  if (name == "shape") return line(to_string(now->shape()));
  const Settings& set = d.settings;
  const auto word = [](const auto& words, auto value) {
    return words[static_cast<unsigned>(value)];
  };
  if (name == "dtype") return line(d.defined ? name_of(d.coding.type) : set.dtype);
  if (name == "axes") return line(spaced(d.letters));
  if (name == "grow")
    return line(d.defined ? std::string(1, d.letters[now->grow_axis()]) : set.grow);
  if (name == "pad") return line(d.defined ? format_element(d.pad, d.coding.type) : set.pad);
  if (name == "ragged") return line(word(ragged_words, set.ragged));
  if (name == "convert") return line(word(convert_words, set.rounding));
  if (name == "order") return line(set.order.empty() ? "arrival" : set.order);
  if (name == "samename") return line(word(same_name_words, set.same_name));
  if (name == "hdu") return line(set.hdu.empty() ? "first" : set.hdu);
  if (name == "residue") return line(word(residue_words, set.drops_residue));
  if (name == "durability") return line(set.sync_each_close ? "disk" : "close");
  if (name == "formats") return line(d.formats);
  if (name == "header") {
    std::string text;
    const std::string header = header_as_of(*now);
    for (std::size_t at = 0; at < header.size(); at += card_length) {
      const std::string_view card = std::string_view(header).substr(at, card_length);
      text += std::string(card.substr(0, card.find_last_not_of(' ') + 1)) + "\n";
    }
    return text;
  }
  if (name == "frames") return frames_table(*now);
  if (name == "bytes") {
    ACCRETE_TRY(const std::uint64_t bytes, bricks_->blocks_in_use());
    return line(std::to_string(bytes));
  }
  if (name == "generation") return line(std::to_string(now->generation));
  return fail(std::errc::no_such_file_or_directory, "there is no property of that name");
}

Status CubeOnDisk::set_property(std::string_view name, std::string_view text, bool append) {
  return step_making_room([&] { return try_set_property(name, text, append); });
}

Status CubeOnDisk::try_set_property(std::string_view name, std::string_view text, bool append) {
  if (!is_settable(name))
    return fail(std::errc::operation_not_permitted, std::string(name) + " cannot be set");
  MutexLock lock(commit_lock_);
  const std::shared_ptr<const Snapshot> before = snapshot();
  const bool is_header = name == "header";  // in which blanks have a meaning
  ACCRETE_TRY(Settings settings,
              changed(before->definition, name, is_header ? text : trimmed(text)));
  if (is_header) {
    if (append) settings.header = with_cards(header_as_of(*before), settings.header);
    if (settings.header.size() > most_header_cards * card_length)
      return refuse("header takes at most " + std::to_string(most_header_cards) + " cards");
    const std::string header = settings.header;
    settings = with_header(std::move(settings), before->axes, header);
  }
  if (settings == before->definition.settings) return {};
  Draft draft(*before);
  const Definition definition = with_settings(before->definition, settings);
  draft.define(definition);
  if (name == "order" || name == "grow") ACCRETE_CHECK(sort_all(draft, definition));
  ACCRETE_CHECK(publish(std::move(draft)));
  const std::string value = is_header
                                ? std::to_string(settings.header.size() / card_length) + " cards"
                                : std::string(trimmed(text));
  history_->record({"set", std::string(name), std::nullopt, 0, value});
  return {};
}

}  // namespace accrete
