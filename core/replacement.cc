#include "core/replacement.h"

#include <algorithm>
#include <cstring>

#include "core/bytes.h"
#include "core/transfer.h"

namespace accrete {

namespace {

constexpr std::uint64_t step_elements = 1 << 17;

// Extents without the last ones that are 1.
Shape trimmed(Shape shape) {
  while (shape.size() > 1 && shape.back() == 1) shape.pop_back();
  return shape;
}

// Where the elements of a file are, and what.
struct Source {
  FrameLayout layout;
  bool is_text = false;
};

Result<Source> find_elements(std::span<const std::byte> bytes, const View& view, DType type,
                             const Format& like) {
  using Kind = Format::Look::Kind;
  Source source;
  ACCRETE_TRY(const Format::Look found, try_formats(bytes, true, ImageChoice{}));
  if (found.kind == Kind::packed)
    return fail(std::errc::invalid_argument,
                "packed files cannot replace the elements of a view; unpack it first");
  if (found.kind == Kind::layout) {
    source.layout = found.layout;
    if (bytes.size() < source.layout.least_bytes)
      return fail(std::errc::invalid_argument,
                  "truncated: the file has " + std::to_string(bytes.size()) +
                      " bytes, its header says " + std::to_string(source.layout.least_bytes));
    Shape shape = source.layout.shape;
    if (source.layout.fortran_order) std::reverse(shape.begin(), shape.end());
    if (trimmed(shape) != trimmed(view.shape()))
      return fail(std::errc::invalid_argument, "the file has the extents " + to_string(shape) +
                                                   ", the view has " + to_string(view.shape()));
    return source;
  }
  source.layout.coding = native(type);
  source.layout.shape = view.shape();
  source.layout.data_bytes = view.element_count() * size_of(type);
  source.is_text = !like.is_binary();
  if (!source.is_text && bytes.size() != source.layout.data_bytes)
    return fail(std::errc::invalid_argument,
                "not a FITS or NPY file, and its " + std::to_string(bytes.size()) +
                    " bytes are not the " + std::to_string(source.layout.data_bytes) +
                    " of the view's elements");
  return source;
}

// Numbers, each in a line of its own -> elements at rest.
Status take_text(std::string_view text, std::uint64_t count, Coding at_rest,
                 const PosixFile& target) {
  const std::size_t size = size_of(at_rest.type);
  std::vector<std::byte> elements;
  std::uint64_t done = 0;
  const auto flush = [&]() -> Status {
    ACCRETE_CHECK(target.write(done * size, elements));
    done += elements.size() / size;
    elements.clear();
    return {};
  };
  std::uint64_t found = 0;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size() - 1);
    const std::string_view line = text.substr(0, end + 1);
    text.remove_prefix(end + 1);
    if (++found > count) break;
    const auto element = parse_element(line, at_rest.type);
    if (!element.ok())
      return fail(std::errc::invalid_argument,
                  "line " + std::to_string(found) + ": " + element.error().sentence);
    elements.resize(elements.size() + size);
    recode(elements.data() + elements.size() - size, element->bytes.data(), 1, native(at_rest.type),
           at_rest);
    if (elements.size() >= step_elements * size) ACCRETE_CHECK(flush());
  }
  if (found != count)
    return fail(std::errc::invalid_argument,
                "the text does not have the " + std::to_string(count) + " lines of the view");
  return flush();
}

Status take_binary(std::span<const std::byte> bytes, const FrameLayout& layout,
                   const Definition& definition, const PosixFile& target) {
  const Coding at_rest = definition.coding;
  const Transfer transfer(layout, at_rest, definition.settings.rounding, definition.pad);
  const std::size_t from = transfer.file_size();
  const std::size_t to = transfer.cube_size();
  const std::uint64_t count = layout.data_bytes / from;
  std::vector<std::byte> elements(std::min(count, step_elements) * to);
  for (std::uint64_t done = 0; done < count; done += step_elements) {
    const std::uint64_t n = std::min(count - done, step_elements);
    const std::byte* const source = bytes.data() + layout.data_offset + done * from;
    const Converted converted = transfer.to_cube(elements.data(), source, n);
    if (converted.count < n)
      return fail(std::errc::invalid_argument,
                  "the value " + transfer.value_text(source + converted.count * from) +
                      " is none of the cube's type " + std::string(name_of(at_rest.type)) +
                      " (meta/convert)");
    ACCRETE_CHECK(target.write(done * to, std::span(elements).first(n * to)));
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Replacement>> Replacement::begin(Cube& cube) {
  ACCRETE_TRY(PosixFile file, cube.temporary_file());
  return std::unique_ptr<Replacement>(new Replacement(cube, std::move(file)));
}

Status Replacement::write(std::uint64_t offset, std::span<const std::byte> bytes) {
  MutexLock lock(mutex_);
  return write_locked(offset, bytes);
}

Status Replacement::append(std::span<const std::byte> bytes) {
  MutexLock lock(mutex_);
  return write_locked(size_, bytes);
}

Status Replacement::write_locked(std::uint64_t offset, std::span<const std::byte> bytes) {
  dirty_ = true;
  Status written = cube_.step_making_room([&] { return file_.write(offset, bytes); });
  if (!written.ok()) {
    failure_ = written.error();
    return written;
  }
  size_ = std::max(size_, offset + bytes.size());
  return {};
}

Result<std::size_t> Replacement::read(std::uint64_t offset, std::span<std::byte> target) {
  return file_.read(offset, target);
}

Status Replacement::truncate(std::uint64_t size) {
  MutexLock lock(mutex_);
  ACCRETE_CHECK(file_.truncate(size));
  if (size == 0) failure_.reset();
  size_ = size;
  dirty_ = true;
  return {};
}

bool Replacement::dirty() const {
  MutexLock lock(mutex_);
  return dirty_;
}

Status Replacement::commit(const Pinned& pinned, const View& view, const Format& like,
                           RecentValues::Ticket& former) {
  MutexLock lock(mutex_);
  dirty_ = false;
  if (failure_) return *failure_;
  if (size_ == 0) return fail(std::errc::invalid_argument, "the file is empty");
  const Definition& definition = pinned->definition;
  ACCRETE_TRY(const auto mapping, map_shared(file_, size_));
  const std::span<const std::byte> bytes(mapping.get(), size_);
  ACCRETE_TRY(const Source source, find_elements(bytes, view, definition.coding.type, like));
  ACCRETE_TRY(const PosixFile elements, cube_.temporary_file());
  ACCRETE_CHECK(cube_.step_making_room([&] {
    return source.is_text
               ? take_text(as_text(bytes), view.element_count(), definition.coding, elements)
               : take_binary(bytes, source.layout, definition, elements);
  }));
  if (!source.layout.fortran_order) return cube_.replace(pinned, view, elements, former);
  // The file has the dimensions in the reverse order.
  PerAxis<Interval> ranges;
  PerAxis<std::size_t> order;
  for (std::size_t d = 0; d < view.rank(); ++d) {
    ranges.push_back({0, view.shape()[d]});
    order.push_back(view.rank() - 1 - d);
  }
  ACCRETE_TRY(const View reversed, view.cut(ranges, order));
  return cube_.replace(pinned, reversed, elements, former);
}

}  // namespace accrete
