#include "fs/content.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "core/linearize.h"
#include "core/prefetch.h"

namespace accrete {

namespace {

constexpr std::size_t page = 4096;
// Linux takes at most 1024 pieces in a reply; some are for the protocol's header, head and tail.
constexpr std::size_t most_runs = 1000;
// Below this length of a run a copy is cheaper than one more piece.
constexpr std::size_t least_run_bytes = 1024;

// Page-aligned memory that a thread uses again and again: replies out of it are copied several
// times faster by the kernel than those from odd addresses.
class Buffer {
 public:
  std::byte* room(std::size_t bytes) {
    if (bytes > size_) {
      size_ = (bytes + page - 1) / page * page;
      memory_.reset();
      memory_.reset(static_cast<std::byte*>(std::aligned_alloc(page, size_)));
      if (memory_ == nullptr) {
        size_ = 0;
        throw std::bad_alloc();
      }
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  std::size_t size_ = 0;
};

thread_local Buffer reply_buffer;
thread_local Buffer native_buffer;
thread_local Buffer text_buffer;
thread_local Buffer former_buffer;

// Pieces of a reply, in order.
using Pieces = std::vector<iovec>;

void add(Pieces& pieces, const void* bytes, std::size_t size) {
  if (size != 0) pieces.push_back({const_cast<void*>(bytes), size});
}

// A range of bytes among the elements, and the elements that hold them.
struct ElementRange {
  ElementRange(std::uint64_t begin, std::uint64_t end, std::uint64_t width)
      : elements{begin / width, (end + width - 1) / width},
        skip(static_cast<std::size_t>(begin % width)),
        bytes(static_cast<std::size_t>(end - begin)) {}

  Interval elements;
  std::size_t skip;  // bytes of the first element that are not asked for
  std::size_t bytes;
};

// Pieces of a reply, in order, and what is held until it is sent.
struct Answer {
  Pieces pieces;
  Stillness::Hold still;
};

// False when there are too many pieces to be worth it: always where neighbours in the file are none
// at rest. Also while elements change.
bool add_from_mapping(Answer& answer, const Cube& cube, const Shown& shown,
                      const ElementRange& range, std::size_t width) {
  if (shown.content.view->dimension(0).axis != 0) return false;
  if (cube.has_patches(shown.pinned)) return false;
  std::vector<StreamRun> runs;
  const std::size_t most = std::min(most_runs, range.bytes / least_run_bytes + 8);
  if (!collect_runs(*shown.content.view, shown.pinned->boxes, width, Slots::written, range.elements,
                    most, runs))
    return false;
  prefetch(shown.pinned.mapping.get(), runs, width);
  answer.still = cube.hold_still();
  if (answer.still == nullptr) return false;
  std::uint64_t pad_elements = 0;
  for (const StreamRun& run : runs)
    if (run.is_pad) pad_elements = std::max(pad_elements, run.length);
  std::byte* pad = nullptr;
  if (pad_elements != 0) {  // all runs of pad can share one
    pad = reply_buffer.room(static_cast<std::size_t>(pad_elements) * width);
    fill(pad, static_cast<std::size_t>(pad_elements), shown.pinned->pad_at_rest(),
         shown.content.coding.type);
  }
  std::size_t skip = range.skip;
  std::size_t left = range.bytes;
  for (const StreamRun& run : runs) {
    const std::byte* from = run.is_pad ? pad : shown.pinned.mapping.get() + run.file_offset;
    const std::size_t bytes = std::min(static_cast<std::size_t>(run.length) * width - skip, left);
    add(answer.pieces, from + skip, bytes);
    left -= bytes;
    skip = 0;
  }
  return true;
}

// In `coding`, to which a mask is indifferent: its elements are bytes.
Status read_elements(const Cube& cube, const Shown& shown, Interval range, std::byte* target,
                     Coding coding) {
  const View& view = *shown.content.view;
  if (shown.content.shows == Shows::elements)
    return cube.read(shown.pinned, view, range, target, coding);
  cube.read_mask(shown.pinned, view, range, target);
  return {};
}

// A file that was kept, with what was changed since: where its elements are no more those of the
// cube.
Status show_changes(const Cube& cube, const Content& content, Interval range, std::size_t size,
                    const std::byte* elements, std::byte* target) {
  const std::uint64_t width = content.bytes_per_element;
  const std::size_t count = range.length();
  ACCRETE_CHECK(cube.read_text(content.kept, range.begin * width, {target, count * width}));
  std::byte* const former = former_buffer.room(count * size);
  const std::size_t known = content.transfer->to_cube(former, target, count).count;
  for (std::size_t i = 0; i < count; ++i)
    if (i >= known || std::memcmp(former + i * size, elements + i * size, size) != 0)
      content.transfer->to_file(target + i * width, elements + i * size, 1);
  return {};
}

Status add_elements(Answer& answer, const Cube& cube, const Shown& shown, std::uint64_t begin,
                    std::uint64_t end) {
  const Content& content = shown.content;
  const auto width = static_cast<std::size_t>(content.bytes_per_element);
  const ElementRange range(begin, end, width);
  const auto count = static_cast<std::size_t>(range.elements.length());
  if (content.transfer) {
    const Coding at_rest = shown.pinned->definition.coding;
    std::byte* elements = native_buffer.room(count * size_of(at_rest.type));
    ACCRETE_CHECK(read_elements(cube, shown, range.elements, elements, at_rest));
    std::byte* buffer = reply_buffer.room(count * width);
    if (content.kept.length > 0)
      ACCRETE_CHECK(
          show_changes(cube, content, range.elements, size_of(at_rest.type), elements, buffer));
    else
      content.transfer->to_file(buffer, elements, count);
    add(answer.pieces, buffer + range.skip, range.bytes);
    return {};
  }
  if (content.printer == nullptr) {
    if (content.shows == Shows::elements && content.coding == shown.pinned->definition.coding &&
        add_from_mapping(answer, cube, shown, range, width))
      return {};
    std::byte* buffer = reply_buffer.room(count * width);
    ACCRETE_CHECK(read_elements(cube, shown, range.elements, buffer, content.coding));
    add(answer.pieces, buffer + range.skip, range.bytes);
    return {};
  }
  const DType type = content.coding.type;
  std::byte* elements = native_buffer.room(count * size_of(type));
  ACCRETE_CHECK(read_elements(cube, shown, range.elements, elements, native(type)));
  std::byte* text = reply_buffer.room(count * width);
  content.printer->print(elements, count, type, reinterpret_cast<char*>(text));
  add(answer.pieces, text + range.skip, range.bytes);
  return {};
}

}  // namespace

void reply_range(Reply reply, const Cube& cube, const Shown& shown, std::uint64_t offset,
                 std::size_t size) {
  const Content& content = shown.content;
  const std::uint64_t total = content.total();
  const std::uint64_t begin = std::min(offset, total);
  const std::uint64_t end = begin + std::min<std::uint64_t>(size, total - begin);
  Answer answer;
  // Calls add_part(first, end) for what the range has of the part that follows the one before.
  std::uint64_t part = 0;
  const auto take = [&](std::uint64_t length, const auto& add_part) -> Status {
    const std::uint64_t first = std::max(begin, part);
    const std::uint64_t last = std::min(end, part + length);
    const std::uint64_t at = std::exchange(part, part + length);
    return first < last ? add_part(first - at, last - at) : Status();
  };
  const std::uint64_t all_texts =
      content.head.size() + content.before.length + content.tail_bytes + content.after.length;
  std::byte* const texts =
      text_buffer.room(static_cast<std::size_t>(std::min(end - begin, all_texts)));
  std::size_t text_bytes = 0;
  // A part that begins at that byte of the file, filled in by read_part(first, bytes).
  const auto take_text = [&](std::uint64_t at, std::uint64_t length, const auto& read_part) {
    return take(length, [&](std::uint64_t first, std::uint64_t last) -> Status {
      const std::span<std::byte> target(texts + text_bytes, static_cast<std::size_t>(last - first));
      ACCRETE_CHECK(read_part(first, target));
      content.changes.lay_over(at + first, target);
      add(answer.pieces, target.data(), target.size());
      text_bytes += target.size();
      return {};
    });
  };
  const auto take_kept = [&](const HeapRef& text) {
    return take_text(part, text.length, [&](std::uint64_t first, std::span<std::byte> target) {
      return cube.read_text(text, first, target);
    });
  };
  const auto read = [&]() -> Status {
    ACCRETE_CHECK(take_text(
        0, content.head.size(), [&](std::uint64_t first, std::span<std::byte> target) -> Status {
          std::memcpy(target.data(), content.head.data() + first, target.size());
          return {};
        }));
    ACCRETE_CHECK(take_kept(content.before));
    ACCRETE_CHECK(take(content.elements * content.bytes_per_element,
                       [&](std::uint64_t first, std::uint64_t last) {
                         return add_elements(answer, cube, shown, first, last);
                       }));
    ACCRETE_CHECK(take_text(part, content.tail_bytes,
                            [&](std::uint64_t, std::span<std::byte> target) -> Status {
                              std::memset(target.data(), content.tail_fill, target.size());
                              return {};
                            }));
    return take_kept(content.after);
  };
  if (const Status status = read(); !status.ok()) return reply.error(status.error());
  if (answer.pieces.empty()) return reply.bytes(std::string_view());
  reply.pieces(answer.pieces);
}

}  // namespace accrete
