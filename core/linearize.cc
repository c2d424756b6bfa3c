// Why the walk visits each element of the range once, and nothing else.
//
// 1. The range is cut into cuboids of the view's index space: per dimension, from the slowest, the
//    part of a row before the first whole one, the whole ones, and the part after them. They are at
//    most 2 × rank - 1, disjoint, and make up the range.
// 2. Per cuboid and axis of the cube, the indexes become *pieces*: physical runs (Axis::for_runs),
//    each with its place in the stream. The map of an axis is injective, so pieces of one axis are
//    disjoint, and the cuboid's elements are exactly the product of its axes' pieces. A fixed axis
//    has one piece of one coordinate.
// 3. Boxes are disjoint. BoxIndex::for_meeting() gives those that meet the product of pieces: no
//    hull is taken, so runs far from each other cost no look at what lies between them. An element
//    that no box holds is pad.
// 4. Within a box each axis is cut by itself into *parts*: a piece cut to the box, then at brick
//    borders, and on the layer axis at slots that are not committed. An element lies in exactly one
//    combination of parts. Its offset in the file and its place in the stream are sums of one term
//    for each axis (box.cc), so a combination of parts is a Block: the terms add up, the strides
//    are those of the brick and of the stream.
// The work for a box is the sum of its parts over the axes, plus one step for each block.
#include "core/linearize.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>

#include "core/cuboids.h"
#include "core/fault_guard.h"
#include "core/strided_copy.h"

namespace accrete {

namespace {

constexpr std::uint64_t cache_line = 64;

// Consecutive coordinates of one axis; `stream`: the term of the first in the stream index.
struct Piece {
  std::int64_t first = 0;
  std::int64_t end = 0;
  std::uint64_t stream = 0;
};

// Indexes of one axis within one brick, with the terms of the first in both sums.
struct Part {
  std::uint64_t extent = 0;
  std::uint64_t file = 0;
  std::uint64_t stream = 0;
};

// One walk over a range; holds the lists that it uses again for each cuboid and box.
class Walk {
 public:
  Walk(const View& view, const BoxIndex& boxes, std::size_t element_size, Slots slots,
       Interval range)
      : view_(view),
        boxes_(boxes),
        element_size_(element_size),
        slots_(slots),
        range_(range),
        shape_(view.shape()),
        stream_stride_(stream_strides(shape_)) {}

  // Calls visit(block).
  template <class Visit>
  void for_blocks(const Visit& visit) {
    Block block;
    block.extent = Shape(view_.rank());
    block.stream_stride = stream_stride_;
    block.file_stride = PerAxis<std::uint64_t>(view_.rank());
    for_boxes([&](const Box& box) {
      block.box = &box;
      for (std::size_t d = 0; d < view_.rank(); ++d)
        block.file_stride[d] = stride_[view_.dimension(d).axis];
      for_combinations(box, block, visit);
    });
  }

  // Elements that for_blocks() would visit.
  std::uint64_t count() {
    std::uint64_t total = 0;
    for_boxes([&](const Box&) {
      std::uint64_t elements = 1;
      for (std::size_t axis = 0; axis < view_.cube_rank(); ++axis) {
        std::uint64_t extent = 0;
        for (const Part& part : parts_[axis]) extent += part.extent;
        elements *= extent;
      }
      total += elements;
    });
    return total;
  }

 private:
  using Pieces = std::array<std::vector<Piece>, max_rank>;  // by axis, sorted by place

  // Calls visit(box), with parts_ and stride_ set, for each cuboid and box that have elements in
  // common.
  template <class Visit>
  void for_boxes(const Visit& visit) {
    if (range_.empty() || boxes_.size() == 0) return;
    Cuboid cuboid(view_.rank());
    std::size_t number = 0;
    for_cuboids(shape_, stream_stride_, view_.rank() - 1, range_.begin, range_.end, cuboid, [&] {
      // A second walk over the same range finds them as they were.
      if (number == found_.size()) found_.push_back(find_pieces(cuboid));
      pieces_ = &found_[number++];
      boxes_.for_meeting(
          [this](std::size_t axis, std::int64_t low, std::int64_t high) {
            const auto piece = first_piece(axis, low);
            return piece != pieces_of(axis).end() && piece->first < high;
          },
          [&](const Box& box) {
            if (set_parts(box)) visit(box);
          });
    });
  }

  Pieces find_pieces(const Cuboid& cuboid) const {
    Pieces found;
    for (std::size_t axis = 0; axis < view_.cube_rank(); ++axis) {
      std::vector<Piece>& pieces = found[axis];
      const std::size_t d = view_.dimension_of(axis);
      if (d == view_.rank()) {
        const std::int64_t at = view_.fixed_coordinate(axis);
        pieces.push_back({at, at + 1, 0});
        continue;
      }
      const std::uint64_t start = view_.dimension(d).range.begin;
      const Interval range{start + cuboid[d].begin, start + cuboid[d].end};
      const auto add = [&](std::uint64_t logical, const Run& run) {
        pieces.push_back({run.first, run.end(), (logical - start) * stream_stride_[d]});
      };
      const Axis& runs = view_.axis(axis);
      if (range.length() >= runs.run_count() / 2) {
        for (const Axis::Placed& placed : runs.runs_by_place()) {
          const std::uint64_t from = std::max(placed.logical, range.begin);
          const std::uint64_t to = std::min(placed.logical + placed.run.length, range.end);
          if (from >= to) continue;
          add(from,
              {placed.run.first + static_cast<std::int64_t>(from - placed.logical), to - from});
        }
        continue;
      }
      runs.for_runs(range, add);
      std::sort(pieces.begin(), pieces.end(),
                [](const Piece& a, const Piece& b) { return a.first < b.first; });
    }
    return found;
  }

  const std::vector<Piece>& pieces_of(std::size_t axis) const { return (*pieces_)[axis]; }

  // The first piece that ends beyond `low`.
  std::vector<Piece>::const_iterator first_piece(std::size_t axis, std::int64_t low) const {
    const std::vector<Piece>& pieces = pieces_of(axis);
    return std::partition_point(pieces.begin(), pieces.end(),
                                [low](const Piece& piece) { return piece.end <= low; });
  }

  // False when the box holds nothing of the cuboid.
  bool set_parts(const Box& box) {
    if (slots_ == Slots::written && box.written == 0) return false;
    stride_ = box.strides_in_brick(element_size_);
    const PerAxis<std::uint64_t> brick_stride = box.brick_strides();
    for (std::size_t axis = 0; axis < view_.cube_rank(); ++axis) {
      std::vector<Part>& parts = parts_[axis];
      parts.clear();
      const std::int64_t low = box.origin[axis];
      const std::int64_t high = low + static_cast<std::int64_t>(box.extent[axis]);
      const std::uint64_t brick = box.brick[axis];
      const std::size_t d = view_.dimension_of(axis);
      const std::uint64_t stream_stride = d == view_.rank() ? 0 : stream_stride_[d];
      for (auto piece = first_piece(axis, low);
           piece != pieces_of(axis).end() && piece->first < high; ++piece) {
        const std::int64_t from = std::max(piece->first, low);
        const auto begin = static_cast<std::uint64_t>(from - low);
        const auto end = static_cast<std::uint64_t>(std::min(piece->end, high) - low);
        std::uint64_t stream =
            piece->stream + static_cast<std::uint64_t>(from - piece->first) * stream_stride;
        for (std::uint64_t i = begin; i < end;) {
          std::uint64_t next = std::min(end, (i / brick + 1) * brick);
          bool skip = false;
          if (axis == box.layer_axis && slots_ == Slots::written) skip = !same_slots(box, i, next);
          if (!skip)
            parts.push_back(
                {next - i, i / brick * brick_stride[axis] + i % brick * stride_[axis], stream});
          stream += (next - i) * stream_stride;
          i = next;
        }
      }
      if (parts.empty()) return false;
    }
    return true;
  }

  // Shortens the layers [begin, end) to the first that are all written or all not; which.
  static bool same_slots(const Box& box, std::uint64_t begin, std::uint64_t& end) {
    const auto written = [&box](std::uint64_t slot) { return (box.written >> slot & 1) != 0; };
    const std::uint64_t first = begin / box.slot_layers;
    for (std::uint64_t slot = first + 1; slot * box.slot_layers < end; ++slot)
      if (written(slot) != written(first)) end = slot * box.slot_layers;
    return written(first);
  }

  template <class Visit>
  void for_combinations(const Box& box, Block& block, const Visit& visit) const {
    PerAxis<std::size_t> at(view_.cube_rank(), 0);
    for (;;) {
      block.file_offset = box.file_offset;
      block.stream_index = std::uint64_t{0} - range_.begin;  // modulo 2^64, as the sum of terms
      for (std::size_t axis = 0; axis < at.size(); ++axis) {
        block.file_offset += parts_[axis][at[axis]].file;
        block.stream_index += parts_[axis][at[axis]].stream;
      }
      for (std::size_t d = 0; d < view_.rank(); ++d) {
        const std::size_t axis = view_.dimension(d).axis;
        block.extent[d] = parts_[axis][at[axis]].extent;
      }
      visit(block);
      std::size_t axis = 0;
      while (axis < at.size() && ++at[axis] == parts_[axis].size()) at[axis++] = 0;
      if (axis == at.size()) return;
    }
  }

  const View& view_;
  const BoxIndex& boxes_;
  const std::size_t element_size_;
  const Slots slots_;
  const Interval range_;
  const Shape shape_;
  const PerAxis<std::uint64_t> stream_stride_;
  std::deque<Pieces> found_;                       // of the cuboids, in the order of the walk
  const Pieces* pieces_ = nullptr;                 // of this one
  std::array<std::vector<Part>, max_rank> parts_;  // by axis, of this box
  PerAxis<std::uint64_t> stride_;                  // by axis, within a brick of this box
};

// Calls visit(stream index, length, file offset) for the contiguous runs of a block in stream
// order.
template <class Visit>
void for_runs(const Block& block, std::size_t element_size, const Visit& visit) {
  struct Dimension {
    std::uint64_t extent, file, stream;
  };
  PerAxis<Dimension> outer;
  std::uint64_t length = 1;
  for (std::size_t d = 0; d < block.extent.size(); ++d) {
    if (block.extent[d] == 1) continue;
    if (outer.empty() && block.stream_stride[d] == length &&
        block.file_stride[d] == length * element_size)
      length *= block.extent[d];
    else
      outer.push_back({block.extent[d], block.file_stride[d], block.stream_stride[d]});
  }
  std::uint64_t file = block.file_offset;
  std::uint64_t stream = block.stream_index;
  PerAxis<std::uint64_t> at(outer.size(), 0);
  for (;;) {
    if (!visit(stream, length, file)) return;
    std::size_t d = 0;
    for (; d < outer.size(); ++d) {
      file += outer[d].file;
      stream += outer[d].stream;
      if (++at[d] < outer[d].extent) break;
      file -= outer[d].file * outer[d].extent;
      stream -= outer[d].stream * outer[d].extent;
      at[d] = 0;
    }
    if (d == outer.size()) return;
  }
}

bool continues(const StreamRun& a, const StreamRun& b, std::size_t element_size) {
  return a.stream_index + a.length == b.stream_index &&
         a.file_offset + a.length * element_size == b.file_offset;
}

void sort_and_merge(std::vector<StreamRun>& runs, std::size_t element_size) {
  std::sort(runs.begin(), runs.end(),
            [](const StreamRun& a, const StreamRun& b) { return a.stream_index < b.stream_index; });
  std::size_t kept = 0;
  for (std::size_t i = 1; i < runs.size(); ++i) {
    if (continues(runs[kept], runs[i], element_size))
      runs[kept].length += runs[i].length;
    else
      runs[++kept] = runs[i];
  }
  if (!runs.empty()) runs.resize(kept + 1);
}

// How many runs there will be at least when more are found between these, which are in order: only
// runs with the same distance between file and stream can become one.
std::size_t least_runs(const std::vector<StreamRun>& runs, std::size_t element_size) {
  std::size_t least = 0;
  std::uint64_t last = 0;
  for (const StreamRun& run : runs) {
    const std::uint64_t distance = run.file_offset - run.stream_index * element_size;
    if (least == 0 || distance != last) ++least;
    last = distance;
  }
  return least;
}

}  // namespace

std::uint64_t Block::element_count() const {
  std::uint64_t count = 1;
  for (const std::uint64_t e : extent) count *= e;
  return count;
}

std::uint64_t for_blocks(const View& view, const BoxIndex& boxes, std::size_t element_size,
                         Slots slots, Interval range,
                         const std::function<void(const Block&)>& visit) {
  std::uint64_t count = 0;
  Walk(view, boxes, element_size, slots, range).for_blocks([&](const Block& block) {
    count += block.element_count();
    visit(block);
  });
  return count;
}

void for_runs_in_boxes(
    const View& view, const BoxIndex& boxes, std::size_t element_size, Slots slots, Interval range,
    const std::function<void(std::uint64_t, std::uint64_t, std::uint64_t, const Box&)>& visit) {
  Walk(view, boxes, element_size, slots, range).for_blocks([&](const Block& block) {
    for_runs(block, element_size,
             [&](std::uint64_t stream, std::uint64_t length, std::uint64_t file) {
               visit(stream, length, file, *block.box);
               return true;
             });
  });
}

bool collect_runs(const View& view, const BoxIndex& boxes, std::size_t element_size, Slots slots,
                  Interval range, std::size_t most, std::vector<StreamRun>& runs) {
  runs.clear();
  if (range.empty()) return true;
  std::vector<StreamRun> found;
  // When so many were found: are they too many for sure?
  std::size_t look_at = 2 * std::min<std::size_t>(most, 1 << 16) + 64;
  bool too_many = false;
  Walk(view, boxes, element_size, slots, range).for_blocks([&](const Block& block) {
    if (too_many) return;
    for_runs(block, element_size,
             [&](std::uint64_t stream, std::uint64_t length, std::uint64_t file) {
               found.push_back({stream, length, file, false});
               if (found.size() < look_at) return true;
               sort_and_merge(found, element_size);
               too_many = least_runs(found, element_size) > most;
               look_at = std::max(look_at, 2 * found.size());
               return !too_many;
             });
  });
  if (too_many) return false;

  sort_and_merge(found, element_size);
  std::uint64_t next = 0;
  const auto pad_to = [&](std::uint64_t end) {
    if (next < end) runs.push_back({next, end - next, 0, true});
  };
  for (const StreamRun& run : found) {
    pad_to(run.stream_index);
    runs.push_back(run);
    next = run.stream_index + run.length;
    if (runs.size() > most) return false;
  }
  pad_to(range.length());
  return runs.size() <= most;
}

namespace {

// Where an axis has many runs (frames that came in any order), a view that has it as its fastest
// dimension falls into blocks of one or a few indexes of it. Their rows, each contiguous in the
// file, are gathered here and turned together where they follow each other in the stream.
class ScatteredRows {
 public:
  ScatteredRows(const std::byte* mapping, std::byte* target, Coding from, Coding to)
      : mapping_(mapping), target_(target), from_(from), to_(to) {}

  // False when the block is not of that kind.
  bool take(const Block& block) {
    const std::size_t size = size_of(from_.type);
    if (block.extent.size() < 2 || block.extent[0] >= few) return false;
    std::size_t along = 0;
    for (std::size_t d = 1; d < block.extent.size(); ++d) {
      if (block.extent[d] == 1) continue;
      if (along != 0 || block.file_stride[d] != size) return false;
      along = d;
    }
    if (along == 0 || block.extent[along] < few) return false;
    for (std::uint64_t i = 0; i < block.extent[0]; ++i)
      rows_.push_back({block.stream_index + i, block.file_offset + i * block.file_stride[0],
                       block.extent[along], block.stream_stride[along]});
    return true;
  }

  void copy() {
    std::sort(rows_.begin(), rows_.end(),
              [](const Row& a, const Row& b) { return a.stream < b.stream; });
    for (std::size_t i = 0; i < rows_.size(); i += sources_.size()) {
      const Row& first = rows_[i];
      sources_.clear();
      for (std::size_t j = i; j < rows_.size() && rows_[j].stream == first.stream + (j - i) &&
                              rows_[j].length == first.length && rows_[j].stride == first.stride;
           ++j)
        sources_.push_back(mapping_ + rows_[j].file);
      const std::size_t size = size_of(from_.type);
      transpose_rows(target_ + first.stream * size, first.stride * size, sources_, first.length,
                     from_, to_);
    }
  }

 private:
  struct Row {
    std::uint64_t stream, file, length, stride;
  };
  static constexpr std::uint64_t few = 16;  // indexes that fill a line of a cache, or less

  const std::byte* mapping_;
  std::byte* target_;
  Coding from_;
  Coding to_;
  std::vector<Row> rows_;
  std::vector<const std::byte*> sources_;
};

}  // namespace

namespace {

// Asks for the elements of a block that is a line across layers, each of which is in a page of its
// own: while the processor looks for them, the block before is copied and the next one is found.
void ask_for_line(const Block& block, const std::byte* mapping) {
  constexpr std::uint64_t most = 256;
  std::size_t along = block.extent.size();
  for (std::size_t d = 0; d < block.extent.size(); ++d) {
    if (block.extent[d] == 1) continue;
    if (along != block.extent.size()) return;
    along = d;
  }
  if (along == block.extent.size() || block.file_stride[along] < cache_line) return;
  const std::byte* at = mapping + block.file_offset;
  for (std::uint64_t i = std::min(block.extent[along], most); i > 0; --i) {
    __builtin_prefetch(at);
    at += block.file_stride[along];
  }
}

// The blocks of a range. They are kept when they are few, as those of a column are, since finding
// them then takes long beside what they hold; many are found again each time.
class Blocks {
 public:
  Blocks(const View& view, const BoxIndex& boxes, std::size_t element_size, Interval range)
      : walk_(view, boxes, element_size, Slots::written, range) {
    walk_.for_blocks([&](const Block& block) {
      elements_ += block.element_count();
      if (++number_ <= few) kept_.push_back(block);
    });
  }

  std::uint64_t elements() const { return elements_; }

  // Owns nothing that it did not own before (core/fault_guard.h).
  template <class Visit>
  void for_each(const Visit& visit) {
    if (number_ > few) return walk_.for_blocks(visit);
    for (const Block& block : kept_) visit(block);
  }

 private:
  static constexpr std::size_t few = 256;

  Walk walk_;
  std::uint64_t elements_ = 0;
  std::size_t number_ = 0;
  std::vector<Block> kept_;
};

// False: the mapping could not be read.
bool copy_blocks(Blocks& blocks, const View& view, const std::byte* mapping, Coding at_rest,
                 std::byte* target, Coding coding) {
  const std::size_t size = size_of(at_rest.type);
  ScatteredRows scattered(mapping, target, at_rest, coding);
  PerAxis<std::uint64_t> target_stride(view.rank());
  const auto copy_block = [&](const Block& block) {
    std::byte* const to = target + block.stream_index * size;
    const std::byte* const from = mapping + block.file_offset;
    if (block.element_count() == 1) return recode(to, from, 1, at_rest, coding);
    for (std::size_t d = 0; d < view.rank(); ++d) target_stride[d] = block.stream_stride[d] * size;
    strided_copy(to, target_stride, from, block.file_stride, block.extent, at_rest, coding);
  };
  Block last;  // is copied when the next one was asked for
  auto copy = [&] {
    blocks.for_each([&](const Block& block) {
      if (scattered.take(block)) return;
      ask_for_line(block, mapping);
      if (last.box != nullptr) copy_block(last);
      last = block;
    });
    if (last.box != nullptr) copy_block(last);
    scattered.copy();
  };
  return run_guarded(copy);
}

}  // namespace

bool gather(const View& view, const BoxIndex& boxes, const std::byte* mapping, Coding at_rest,
            Interval range, std::byte* target, Coding coding, const Element& pad) {
  Blocks blocks(view, boxes, size_of(at_rest.type), range);
  if (blocks.elements() < range.length()) fill(target, range.length(), pad, coding.type);
  return copy_blocks(blocks, view, mapping, at_rest, target, coding);
}

bool gather_over(const View& view, const BoxIndex& boxes, const std::byte* mapping, Coding at_rest,
                 Interval range, std::byte* target, Coding coding) {
  Blocks blocks(view, boxes, size_of(at_rest.type), range);
  return blocks.elements() == 0 || copy_blocks(blocks, view, mapping, at_rest, target, coding);
}

void gather_mask(const View& view, const BoxIndex& boxes, Interval range, std::byte* target) {
  std::memset(target, 0, range.length());
  gather_mask_over(view, boxes, range, target);
}

void gather_mask_over(const View& view, const BoxIndex& boxes, Interval range, std::byte* target) {
  // Where things lie in the file does not matter, so any size of elements will do.
  Walk walk(view, boxes, 1, Slots::written, range);
  const std::uint64_t held = walk.count();
  if (held == range.length()) std::memset(target, 1, range.length());
  if (held == 0 || held == range.length()) return;
  walk.for_blocks([&](Block block) {
    block.file_stride = block.stream_stride;  // so that only the stream ends a run
    for_runs(block, 1, [&](std::uint64_t stream, std::uint64_t length, std::uint64_t) {
      if (length == 1)
        target[stream] = std::byte{1};
      else
        std::memset(target + stream, 1, length);
      return true;
    });
  });
}

}  // namespace accrete
