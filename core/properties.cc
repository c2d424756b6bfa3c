// The properties of a cube as text: the files of meta/.

#include <ctime>

#include "core/cube_on_disk.h"
#include "core/definition.h"

namespace accrete {

namespace {

constexpr std::string_view names[] = {
    "shape", "dtype",    "axes", "grow",    "pad",        "ragged",  "convert", "order",
    "samename", "hdu", "residue", "durability", "formats", "header", "frames", "bytes", "generation"};

// What a user may write; the others tell.
constexpr std::string_view settable[] = {"dtype", "axes", "grow", "pad", "durability", "formats"};

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

Result<Definition> changed(Definition d, std::string_view name, std::string_view text) {
  const bool fixed = name == "dtype" || name == "axes" || name == "pad";
  if (fixed && d.defined) return too_late(name);
  if (name == "dtype") {
    const auto type = dtype_from_name(text);
    if (!type)
      return refuse("'" + std::string(text) + "' is no element type; types are uint8 int8 uint16 "
                    "int16 uint32 int32 uint64 int64 float32 float64");
    d.coding = native(*type);
    d.has_dtype = true;
    if (!d.pad_text.empty()) ACCRETE_CHECK([&]() -> Status {
      ACCRETE_TRY(const Element pad, parse_element(d.pad_text, *type));
      (void)pad;
      return {};
    }());
  } else if (name == "axes") {
    ACCRETE_TRY(d.letters, parse_letters(text));
    d.rank = d.letters.size();
    if (!d.grow.empty() && d.letters.find(d.grow) == std::string::npos) d.grow.clear();
  } else if (name == "pad") {
    ACCRETE_TRY(const Element pad,
                parse_element(text, d.has_dtype ? d.coding.type : DType::f64));
    (void)pad;
    d.pad_text = text;
  } else if (name == "grow") {
    const std::string_view letters = d.letters.empty() ? default_letters : d.letters;
    if (text.size() != 1 || letters.find(text) == std::string_view::npos)
      return refuse("grow takes one of the axes " + spaced(letters));
    d.grow = text;
  } else if (name == "formats") {
    ACCRETE_TRY(d.formats, parse_formats(text));
  } else if (name == "durability") {
    if (text != "close" && text != "disk") return refuse("durability takes close or disk");
    d.sync_each_close = text == "disk";
  }
  return d;
}

}  // namespace

std::span<const std::string_view> Cube::property_names() { return names; }

bool Cube::is_settable(std::string_view name) {
  return std::find(std::begin(settable), std::end(settable), name) != std::end(settable);
}

std::string CubeOnDisk::frames_table(const Snapshot& snapshot) const {
  std::string table = "name\taxis\tindex\textent\tshape\ttype\tarrival\n";
  snapshot.places.for_range(0, snapshot.places.size(), [&](const Snapshot::Place& place) {
    const auto row = snapshot.frames.find(place.id);
    if (!row) return;
    const auto index = snapshot.axes[place.axis].logical(place.first);
    table += tsv_field(frame_name(*row));
    table += '\t';
    table += snapshot.definition.letters[place.axis];
    table += '\t' + (index ? std::to_string(*index) : "") + '\t' +
             std::to_string(row->extent[place.axis]) + '\t' + to_string(row->layout.shape) + '\t';
    table += name_of(row->layout.coding.type);
    table += '\t' + iso_time(row->arrival_ns) + '\n';
  });
  return table;
}

Result<std::string> CubeOnDisk::property(std::string_view name) const {
  const std::shared_ptr<const Snapshot> now = snapshot();
  const Definition& d = now->definition;
  const auto line = [](std::string_view text) { return std::string(text) + "\n"; };
  if (name == "shape") return line(to_string(now->shape()));
  if (name == "dtype") return line(d.has_dtype ? name_of(d.coding.type) : "");
  if (name == "axes") return line(spaced(d.letters));
  if (name == "grow")
    return line(d.defined ? std::string(1, d.letters[now->grow_axis()]) : d.grow);
  if (name == "pad") return line(d.defined ? format_element(d.pad, d.coding.type) : d.pad_text);
  if (name == "ragged") return line("pad");
  if (name == "convert") return line("exact");
  if (name == "order") return line("arrival");
  if (name == "samename") return line("once");
  if (name == "hdu") return line("first");
  if (name == "residue") return line("keep");
  if (name == "durability") return line(d.sync_each_close ? "disk" : "close");
  if (name == "formats") return line(d.formats);
  if (name == "header") {
    std::string text;
    for (std::size_t at = 0; at + 80 <= d.header.size(); at += 80)
      text += std::string(trimmed(std::string_view(d.header).substr(at, 80))) + "\n";
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

Status CubeOnDisk::set_property(std::string_view name, std::string_view text) {
  if (!is_settable(name))
    return fail(std::errc::operation_not_permitted, std::string(name) + " cannot be set");
  MutexLock lock(commit_lock_);
  const std::shared_ptr<const Snapshot> before = snapshot();
  Delta delta;
  ACCRETE_TRY(delta.definition, changed(before->definition, name, trimmed(text)));
  if (*delta.definition == before->definition) return {};
  ACCRETE_CHECK(publish(delta));
  history_->record({"set", std::string(name), std::nullopt, 0, std::string(trimmed(text))});
  return {};
}

}  // namespace accrete
