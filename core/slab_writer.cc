#include "core/slab_writer.h"

#include <algorithm>
#include <limits>

#include "core/linearize.h"

namespace accrete {

namespace {

constexpr std::size_t any_number = std::numeric_limits<std::size_t>::max();

Status write_runs(BrickFile& bricks, const View& view, const BoxIndex& boxes, std::size_t size,
                  Interval range, std::span<const std::byte> at_rest) {
  std::vector<StreamRun> runs;
  (void)collect_runs(view, boxes, size, Slots::written, range, any_number, runs);
  for (const StreamRun& run : runs)
    if (!run.is_pad)
      ACCRETE_CHECK(bricks.write(run.file_offset,
                                 at_rest.subspan(run.stream_index * size, run.length * size)));
  return {};
}

}  // namespace

Status SlabWriter::write(std::uint64_t offset, std::span<const std::byte> bytes) {
  const std::size_t size = size_of(at_rest_.type);
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
  const std::size_t size = size_of(at_rest_.type);
  std::array<std::byte, 8> element{};
  const std::uint64_t first = offset / size * size;
  in_order_ = false;
  read(first, std::span(element).first(size));
  std::copy(part.begin(), part.end(),
            element.begin() + static_cast<std::ptrdiff_t>(offset - first));
  return put(first / size, std::span(element).first(size));
}

Status SlabWriter::put(std::uint64_t first, std::span<const std::byte> elements) {
  const std::size_t size = size_of(at_rest_.type);
  std::span<const std::byte> at_rest = elements;
  if (file_ != at_rest_) {
    if (recoded_.size() < elements.size()) recoded_.resize(elements.size());
    recode(recoded_.data(), elements.data(), elements.size() / size, file_, at_rest_);
    at_rest = std::span(recoded_).first(elements.size());
  }
  in_order_ = in_order_ && summer_.bytes() == first * size;
  if (in_order_) summer_.add(at_rest);
  return write_runs(*bricks_, view_, boxes_, size, {first, first + elements.size() / size},
                    at_rest);
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
                                 std::span<const std::byte> at_rest) {
  in_order_ = false;
  return write_runs(*bricks_, natural, boxes_, size_of(at_rest_.type), range, at_rest);
}

void SlabWriter::read(std::uint64_t offset, std::span<std::byte> target) const {
  const std::size_t size = size_of(at_rest_.type);
  const auto mapping = bricks_->mapping();
  std::array<std::byte, 8> element{};
  while (!target.empty()) {
    const std::size_t skew = offset % size;
    const std::uint64_t first = offset / size;
    if (skew == 0 && target.size() >= size) {
      const std::uint64_t count = target.size() / size;
      gather(view_, boxes_, mapping.get(), at_rest_, {first, first + count}, target.data(), file_,
             Element{});
      offset += count * size;
      target = target.subspan(count * size);
      continue;
    }
    gather(view_, boxes_, mapping.get(), at_rest_, {first, first + 1}, element.data(), file_,
           Element{});
    const std::size_t n = std::min(size - skew, target.size());
    std::copy_n(element.begin() + static_cast<std::ptrdiff_t>(skew), n, target.begin());
    offset += n;
    target = target.subspan(n);
  }
}

std::vector<std::uint64_t> SlabWriter::sums() {
  const std::uint64_t bytes = view_.element_count() * size_of(at_rest_.type);
  if (in_order_ && summer_.bytes() == bytes) {
    in_order_ = false;
    return summer_.finish();
  }
  return sum_frame(view_, boxes_, bricks_->mapping().get(), at_rest_, Element{});
}

}  // namespace accrete
