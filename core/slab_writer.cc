#include "core/slab_writer.h"

#include <algorithm>
#include <new>
#include <semaphore>

#include "core/linearize.h"

namespace accrete {

namespace {

constexpr std::size_t most_runs = 1 << 16;

// Bytes of a long frame that are kept until they are written, and as many that are being written:
// where layers are thin, what several of them have in one brick goes to the disk's cache at once.
constexpr std::size_t step_behind = 8 << 20;
constexpr std::ptrdiff_t most_behind = 4;  // frames at a time; others are written as they come
std::counting_semaphore<most_behind> places_behind{most_behind};

// Where the runs are so short that their list would be large, it is made by halves.
Status write_runs(BrickFile& bricks, const View& view, const BoxIndex& boxes, std::size_t size,
                  Interval range, std::span<const std::byte> at_rest) {
  std::vector<StreamRun> runs;
  if (!collect_runs(view, boxes, size, Slots::written, range, most_runs, runs)) {
    runs = std::vector<StreamRun>();
    const std::uint64_t half = range.length() / 2;
    const Interval first{range.begin, range.begin + half};
    ACCRETE_CHECK(write_runs(bricks, view, boxes, size, first, at_rest.first(half * size)));
    return write_runs(bricks, view, boxes, size, {first.end, range.end},
                      at_rest.subspan(half * size));
  }
  std::erase_if(runs, [](const StreamRun& run) { return run.is_pad; });
  std::sort(runs.begin(), runs.end(),
            [](const StreamRun& a, const StreamRun& b) { return a.file_offset < b.file_offset; });
  std::vector<std::span<const std::byte>> pieces;
  for (auto run = runs.begin(); run != runs.end(); pieces.clear()) {
    const std::uint64_t begin = run->file_offset;
    for (std::uint64_t end = begin; run != runs.end() && run->file_offset == end; ++run) {
      pieces.push_back(at_rest.subspan(run->stream_index * size, run->length * size));
      end += pieces.back().size();
    }
    ACCRETE_CHECK(bricks.write(begin, pieces));
  }
  return {};
}

}  // namespace

void SlabWriter::LeavePlace::operator()(WriteBehind* behind) const {
  delete behind;
  places_behind.release();
}

void SlabWriter::begin_anew() {
  behind_.reset();
  summer_ = {};
  in_order_ = true;
  changed_ = 0;
  part_.clear();
}

// A write that fails may be tried again: its elements count once.
Status SlabWriter::write(std::uint64_t offset, std::span<const std::byte> bytes) {
  const std::uint64_t changed = changed_;
  Status status = write_pieces(offset, bytes);
  if (!status.ok()) changed_ = changed;
  return status;
}

Status SlabWriter::write_pieces(std::uint64_t offset, std::span<const std::byte> bytes) {
  const std::size_t size = transfer_.file_size();
  if (const std::size_t skew = offset % size; skew != 0) {
    const auto part = bytes.first(std::min(size - skew, bytes.size()));
    ACCRETE_CHECK(patch(offset, part));
    offset += part.size();
    bytes = bytes.subspan(part.size());
  }
  const std::size_t whole = bytes.size() / size * size;
  if (whole > 0) ACCRETE_CHECK(put(offset / size, bytes.first(whole)));
  if (whole < bytes.size()) return patch(offset + whole, bytes.subspan(whole));
  return {};
}

// Some bytes of one element.
Status SlabWriter::patch(std::uint64_t offset, std::span<const std::byte> part) {
  const std::size_t size = transfer_.file_size();
  const std::uint64_t first = offset / size * size;
  if (converts()) {
    if (!invertible_) return {};  // the begin of the element that was not stays here
    // A value that is not whole is none.
    part_at_ = first;
    part_.resize(offset - first);  // no more than is there, also when a write is tried again
    part_.append(reinterpret_cast<const char*>(part.data()), part.size());
    if (part_.size() < size) return {};
    // It stays here, in case that it cannot be read back.
    return put(first / size, std::as_bytes(std::span(part_)));
  }
  std::array<std::byte, 8> element{};
  in_order_ = false;
  ACCRETE_CHECK(read(first, std::span(element).first(size)));
  std::copy(part.begin(), part.end(),
            element.begin() + static_cast<std::ptrdiff_t>(offset - first));
  return put(first / size, std::span(element).first(size));
}

Result<std::span<const std::byte>> SlabWriter::at_rest(const View& view, std::uint64_t first,
                                                       std::span<const std::byte> elements) {
  if (!converts() && transfer_.file() == at_rest_) return elements;
  const std::size_t count = elements.size() / transfer_.file_size();
  const std::size_t bytes = count * transfer_.cube_size();
  if (recoded_.size() < bytes) recoded_.resize(bytes);
  const Converted done = transfer_.to_cube(recoded_.data(), elements.data(), count);
  if (done.count < count) {
    std::string place;
    std::uint64_t index = first + done.count;
    for (std::size_t d = 0; d < view.rank(); index /= view.shape()[d++])
      place += (place.empty() ? "" : ", ") + std::to_string(index % view.shape()[d]);
    return fail(std::errc::invalid_argument,
                "the frame's elements are " + std::string(name_of(transfer_.value_type())) +
                    ", the cube's are " + std::string(name_of(at_rest_.type)) +
                    " (meta/dtype), which cannot hold " +
                    transfer_.value_text(elements.data() + done.count * transfer_.file_size()) +
                    " at (" + place + "), and meta/convert takes exact values only");
  }
  invertible_ = invertible_ && done.invertible;
  changed_ += done.changed;
  return std::span<const std::byte>(recoded_).first(bytes);
}

Status SlabWriter::put(std::uint64_t first, std::span<const std::byte> elements) {
  ACCRETE_TRY(const std::span<const std::byte> bytes, at_rest(view_, first, elements));
  const std::size_t size = transfer_.cube_size();
  in_order_ = in_order_ && summer_.bytes() == first * size;
  if (in_order_) summer_.add(bytes);
  if (first == 0 && !behind_ && view_.element_count() * size > step_behind) write_behind();
  if (behind_) return behind_->put(first * size, bytes);
  return write_runs(*bricks_, view_, boxes_, size, {first, first + bytes.size() / size}, bytes);
}

// From now on, if there are place and memory for it.
void SlabWriter::write_behind() {
  if (!places_behind.try_acquire()) return;
  try {
    const std::size_t size = transfer_.cube_size();
    behind_.reset(new WriteBehind(step_behind, [bricks = bricks_, view = view_, boxes = boxes_,
                                                size](std::uint64_t offset, auto stream) {
      const Interval range{offset / size, (offset + stream.size()) / size};
      try {
        return write_runs(*bricks, view, boxes, size, range, stream);
      } catch (const std::bad_alloc&) {
        return Status(fail(std::errc::not_enough_memory, "there is no memory to write a frame"));
      }
    }));
  } catch (const std::bad_alloc&) {
    places_behind.release();
  }
}

Status SlabWriter::flush() {
  return behind_ ? behind_->flush() : Status();
}

Status SlabWriter::finish() {
  ACCRETE_CHECK(flush());
  behind_.reset();
  return {};
}

Result<View> SlabWriter::view_in_natural_order() const {
  PerAxis<Interval> ranges;
  PerAxis<std::size_t> order;
  for (std::size_t a = 0; a < view_.rank(); ++a) {
    ranges.push_back({0, view_.shape()[a]});
    order.push_back(view_.dimension_of(a));
  }
  return view_.cut(ranges, order);
}

Status SlabWriter::write_natural(const View& natural, Interval range,
                                 std::span<const std::byte> elements) {
  in_order_ = false;
  ACCRETE_TRY(const std::span<const std::byte> bytes, at_rest(natural, range.begin, elements));
  return write_runs(*bricks_, natural, boxes_, transfer_.cube_size(), range, bytes);
}

Status SlabWriter::read(std::uint64_t offset, std::span<std::byte> target) {
  ACCRETE_CHECK(flush());
  const std::size_t size = transfer_.file_size();
  const auto mapping = bricks_->mapping();
  const auto read_elements = [&](std::uint64_t first, std::uint64_t count,
                                 std::byte* to) -> Status {
    const Interval range{first, first + count};
    std::vector<std::byte> elements(converts() ? count * transfer_.cube_size() : 0);
    const bool good =
        converts()
            ? gather(view_, boxes_, mapping.get(), at_rest_, range, elements.data(), at_rest_, {})
            : gather(view_, boxes_, mapping.get(), at_rest_, range, to, transfer_.file(), {});
    if (!good) return fail(std::errc::io_error, "what came in cannot be read again");
    if (converts()) transfer_.to_file(to, elements.data(), count);
    return {};
  };
  std::array<std::byte, 8> element{};
  const std::span<std::byte> all = target;
  const std::uint64_t begin = offset;
  while (!target.empty()) {
    const std::size_t skew = offset % size;
    const std::uint64_t first = offset / size;
    if (skew == 0 && target.size() >= size) {
      const std::uint64_t count = target.size() / size;
      ACCRETE_CHECK(read_elements(first, count, target.data()));
      offset += count * size;
      target = target.subspan(count * size);
      continue;
    }
    ACCRETE_CHECK(read_elements(first, 1, element.data()));
    const std::size_t n = std::min(size - skew, target.size());
    std::copy_n(element.begin() + static_cast<std::ptrdiff_t>(skew), n, target.begin());
    offset += n;
    target = target.subspan(n);
  }
  for (std::size_t i = 0; i < part_.size(); ++i)
    if (part_at_ + i >= begin && part_at_ + i < begin + all.size())
      all[part_at_ + i - begin] = static_cast<std::byte>(part_[i]);
  return {};
}

std::vector<std::uint64_t> SlabWriter::sums() {
  const std::uint64_t bytes = view_.element_count() * transfer_.cube_size();
  if (in_order_ && summer_.bytes() == bytes) {
    in_order_ = false;
    return summer_.finish();
  }
  return sum_frame(view_, boxes_, bricks_->mapping().get(), at_rest_, Element{});
}

std::vector<std::uint64_t> SlabWriter::sums_in_natural_order() const {
  const auto natural = view_in_natural_order();
  return sum_frame(natural.ok() ? *natural : view_, boxes_, bricks_->mapping().get(), at_rest_,
                   Element{});
}

}  // namespace accrete
