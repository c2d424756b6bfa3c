// The walk against a naive one: each element's place by Axis::physical and Box::offset_of, alone.
#include "core/linearize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <random>

#include "core/strided_copy.h"

namespace accrete {
namespace {

std::uint64_t seed() {
  const char* text = std::getenv("ACCRETE_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 20240603;
}

using Random = std::mt19937_64;
using Piece = Run;  // in the body of a TEST, Run is a member of testing::Test

// Runs as appends, prepends, insertions and removals leave them.
Axis random_axis(Random& random, std::uint64_t most) {
  const std::uint64_t wanted = 1 + random() % most;
  Axis axis;
  std::int64_t low = static_cast<std::int64_t>(random() % 20) - 10;
  std::int64_t high = low;
  const bool many_runs = random() % 2 == 0;
  while (axis.extent() < wanted) {
    const std::uint64_t length = 1 + random() % (many_runs ? 2 : wanted);
    const bool at_end = random() % 2 == 0;
    const std::int64_t gap = random() % 4 == 0 ? 2 : 0;
    const std::int64_t first = at_end ? high + gap : low - gap - static_cast<std::int64_t>(length);
    const std::uint64_t at =
        many_runs ? random() % (axis.positions() + 1) : (at_end ? axis.positions() : 0);
    axis = *axis.insert(at, {first, length});
    low = std::min(low, first);
    high = std::max(high, first + static_cast<std::int64_t>(length));
    if (many_runs && axis.extent() > 2 && random() % 4 == 0) {
      const std::uint64_t begin = random() % (axis.extent() - 1);
      const Piece gone{axis.physical(begin), 1};
      axis = random() % 2 == 0 ? *axis.drop(gone) : *axis.hide(gone);
    }
  }
  return axis;
}

// A cube's geometry and its bytes.
struct World {
  DType type = DType::u8;
  PerAxis<Axis> axes;
  BoxIndex boxes;
  std::vector<std::byte> bytes;
  std::uint64_t next_id = 1;

  std::size_t element_size() const { return size_of(type); }

  void add_box(Random& random, const Coords& origin, const Shape& extent) {
    Box box;
    box.id = next_id++;
    box.origin = origin;
    box.extent = extent;
    box.layer_axis = random() % extent.size();
    const std::uint64_t layers = extent[box.layer_axis];
    box.slot_layers = random() % 3 == 0 || layers > 64 ? layers : 1;
    if (random() % 2 == 0) {
      box = *lay_out(box, element_size());
    } else {
      box.brick = Shape(extent.size());
      std::uint64_t layer = element_size();
      for (std::size_t axis = 0; axis < extent.size(); ++axis) {
        box.brick[axis] = 1 + random() % extent[axis];
        if (axis != box.layer_axis) layer *= box.brick[axis];
      }
      box.layer_pitch = layer + random() % 3 * element_size();
    }
    const std::uint64_t all =
        box.slots() == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << box.slots()) - 1;
    box.written = random() % 2 == 0 ? all : random() & all;
    box.file_offset = bytes.size();
    ASSERT_TRUE(check_box(box, element_size()).ok());
    const Result<BoxIndex> grown = boxes.put(box);
    ASSERT_TRUE(grown.ok()) << grown.error().sentence;
    boxes = *grown;
    bytes.resize(bytes.size() + box.byte_length());
    for (std::size_t i = box.file_offset; i < bytes.size(); ++i)
      bytes[i] = static_cast<std::byte>(random());
  }

  // Splits a cuboid at random into boxes and holes.
  void add_boxes(Random& random, Coords origin, Shape extent, int splits) {
    const std::size_t axis = random() % extent.size();
    if (splits > 0 && extent[axis] > 1) {
      const std::uint64_t at = 1 + random() % (extent[axis] - 1);
      Shape left = extent;
      left[axis] = at;
      add_boxes(random, origin, left, splits - 1);
      origin[axis] += static_cast<std::int64_t>(at);
      extent[axis] -= at;
      add_boxes(random, origin, extent, splits - 1);
    } else if (random() % 8 != 0) {
      add_box(random, origin, extent);
    }
  }

  static World make(Random& random, std::size_t rank) {
    constexpr std::uint64_t most[] = {0, 200, 40, 16, 9, 6, 4, 3, 3};
    World world;
    world.type = all_dtypes[random() % std::size(all_dtypes)];
    Coords origin;
    Shape extent;
    for (std::size_t axis = 0; axis < rank; ++axis) {
      world.axes.push_back(random_axis(random, most[rank]));
      const Piece hull = world.axes[axis].used();
      origin.push_back(hull.first - static_cast<std::int64_t>(random() % 2));
      extent.push_back(hull.length + random() % 2);
    }
    world.add_boxes(random, origin, extent, static_cast<int>(random() % 5));
    return world;
  }

  View random_view(Random& random) const {
    PerAxis<ViewAxis> spanned;
    std::vector<std::size_t> order;
    for (std::size_t axis = 0; axis < axes.size(); ++axis) order.push_back(axis);
    std::shuffle(order.begin(), order.end(), random);
    Shape fixed;
    for (const Axis& axis : axes) fixed.push_back(random() % axis.extent());
    const std::size_t rank = 1 + random() % axes.size();
    for (std::size_t d = 0; d < rank; ++d) {
      const std::uint64_t extent = axes[order[d]].extent();
      const std::uint64_t begin = random() % 2 == 0 ? 0 : random() % extent;
      const std::uint64_t end =
          random() % 2 == 0 ? extent : begin + 1 + random() % (extent - begin);
      spanned.push_back({order[d], {begin, end}});
    }
    Result<View> view = View::make(axes, spanned, fixed);
    EXPECT_TRUE(view.ok());
    return *view;
  }

  // Where the element at an index of the view's stream lies; nothing for pad.
  std::optional<std::uint64_t> place_of(const View& view, std::uint64_t index, Slots slots) const {
    Coords at(axes.size());
    for (std::size_t axis = 0; axis < axes.size(); ++axis)
      if (view.dimension_of(axis) == view.rank()) at[axis] = view.fixed_coordinate(axis);
    for (std::size_t d = 0; d < view.rank(); ++d) {
      const ViewAxis& dimension = view.dimension(d);
      const std::uint64_t extent = dimension.range.length();
      at[dimension.axis] = axes[dimension.axis].physical(dimension.range.begin + index % extent);
      index /= extent;
    }
    std::optional<std::uint64_t> place;
    boxes.for_all([&](const Box& box) {
      if (!box.contains(at)) return;
      const auto layer =
          static_cast<std::uint64_t>(at[box.layer_axis] - box.origin[box.layer_axis]);
      if (slots == Slots::all || (box.written >> (layer / box.slot_layers) & 1) != 0)
        place = box.offset_of(at, element_size());
    });
    return place;
  }
};

// An element's bytes in another coding, the obvious way.
std::vector<std::byte> converted(std::vector<std::byte> element, Coding from, Coding to) {
  if (from.big_endian != to.big_endian) std::reverse(element.begin(), element.end());
  if (from.sign_flipped != to.sign_flipped)
    (to.big_endian ? element.front() : element.back()) ^= std::byte{0x80};
  return element;
}

std::vector<Interval> ranges_of(const View& view, Random& random) {
  const std::uint64_t count = view.element_count();
  std::vector<Interval> ranges{{0, count}};
  for (int i = 0; i < 2; ++i) {
    const std::uint64_t begin = random() % (count + 1);
    ranges.push_back({begin, begin + random() % (count + 1 - begin)});
  }
  return ranges;
}

void expect_naive_blocks(const World& world, const View& view, Slots slots, Interval range) {
  std::vector<std::optional<std::uint64_t>> seen(range.length());
  const std::uint64_t count =
      for_blocks(view, world.boxes, world.element_size(), slots, range, [&](const Block& block) {
        for (std::uint64_t i = 0; i < block.element_count(); ++i) {
          std::uint64_t rest = i;
          std::uint64_t file = block.file_offset;
          std::uint64_t stream = block.stream_index;
          for (std::size_t d = 0; d < block.extent.size(); ++d) {
            file += rest % block.extent[d] * block.file_stride[d];
            stream += rest % block.extent[d] * block.stream_stride[d];
            rest /= block.extent[d];
          }
          ASSERT_LT(stream, range.length());
          ASSERT_FALSE(seen[stream].has_value()) << "element " << stream << " was visited twice";
          seen[stream] = file;
        }
      });
  std::uint64_t expected_count = 0;
  for (std::uint64_t i = 0; i < range.length(); ++i) {
    const auto place = world.place_of(view, range.begin + i, slots);
    ASSERT_EQ(seen[i], place) << "element " << i << " of [" << range.begin << ", " << range.end
                              << ")";
    expected_count += place.has_value() ? 1 : 0;
  }
  ASSERT_EQ(count, expected_count);
}

void expect_naive_runs(const World& world, const View& view, Slots slots, Interval range) {
  std::vector<StreamRun> expected;
  for (std::uint64_t i = 0; i < range.length(); ++i) {
    const auto place = world.place_of(view, range.begin + i, slots);
    StreamRun* last = expected.empty() ? nullptr : &expected.back();
    if (last != nullptr && last->is_pad == !place.has_value() &&
        (last->is_pad || last->file_offset + last->length * world.element_size() == *place))
      ++last->length;
    else
      expected.push_back({i, 1, place.value_or(0), !place.has_value()});
  }
  std::vector<StreamRun> runs;
  ASSERT_TRUE(
      collect_runs(view, world.boxes, world.element_size(), slots, range, expected.size(), runs));
  ASSERT_EQ(runs.size(), expected.size());
  for (std::size_t i = 0; i < runs.size(); ++i) {
    ASSERT_EQ(runs[i].stream_index, expected[i].stream_index);
    ASSERT_EQ(runs[i].length, expected[i].length);
    ASSERT_EQ(runs[i].is_pad, expected[i].is_pad);
    if (!runs[i].is_pad) {
      ASSERT_EQ(runs[i].file_offset, expected[i].file_offset);
    }
  }
  if (!expected.empty()) {
    ASSERT_FALSE(collect_runs(view, world.boxes, world.element_size(), slots, range,
                              expected.size() - 1, runs));
  }
}

void expect_naive_gather(const World& world, const View& view, Interval range, Random& random) {
  const std::size_t size = world.element_size();
  const Coding codings[] = {native(world.type), little_endian(world.type), fits_coding(world.type)};
  const Coding at_rest = codings[random() % 3];
  const Coding coding = codings[random() % 3];
  Element pad;
  for (std::size_t i = 0; i < size; ++i) pad.bytes[i] = static_cast<std::byte>(random());
  constexpr std::byte guard{0xa5};
  std::vector<std::byte> target(range.length() * size + 16, guard);
  ASSERT_TRUE(gather(view, world.boxes, world.bytes.data(), at_rest, range, target.data() + 8,
                     coding, pad));
  for (std::size_t i = 0; i < 8; ++i) {
    ASSERT_EQ(target[i], guard);
    ASSERT_EQ(target[target.size() - 1 - i], guard);
  }
  for (std::uint64_t i = 0; i < range.length(); ++i) {
    const auto place = world.place_of(view, range.begin + i, Slots::written);
    std::vector<std::byte> expected(pad.bytes.begin(),
                                    pad.bytes.begin() + static_cast<std::ptrdiff_t>(size));
    if (place) {
      const auto at = world.bytes.begin() + static_cast<std::ptrdiff_t>(*place);
      expected = converted({at, at + static_cast<std::ptrdiff_t>(size)}, at_rest, coding);
    }
    ASSERT_EQ(std::memcmp(target.data() + 8 + i * size, expected.data(), size), 0)
        << "element " << i << " of [" << range.begin << ", " << range.end << ")";
  }
}

void expect_naive_mask(const World& world, const View& view, Interval range) {
  constexpr std::byte guard{0xa5};
  std::vector<std::byte> expected(range.length() + 16, guard);
  for (std::uint64_t i = 0; i < range.length(); ++i) {
    const bool held = world.place_of(view, range.begin + i, Slots::written).has_value();
    expected[i + 8] = std::byte{held};
  }
  std::vector<std::byte> mask(expected.size(), guard);
  gather_mask(view, world.boxes, range, mask.data() + 8);
  ASSERT_EQ(mask, expected) << "of [" << range.begin << ", " << range.end << ")";
}

TEST(Linearize, any_range_of_any_view_equals_the_naive_walk) {
  SCOPED_TRACE(seed());
  Random random(seed());
  for (int round = 0; round < 160; ++round) {
    const World world = World::make(random, 1 + static_cast<std::size_t>(round) % max_rank);
    for (int v = 0; v < 3; ++v) {
      const View view = world.random_view(random);
      for (const Interval range : ranges_of(view, random)) {
        SCOPED_TRACE("round " + std::to_string(round) + ", view " + std::to_string(v));
        for (const Slots slots : {Slots::written, Slots::all}) {
          ASSERT_NO_FATAL_FAILURE(expect_naive_blocks(world, view, slots, range));
          ASSERT_NO_FATAL_FAILURE(expect_naive_runs(world, view, slots, range));
        }
        ASSERT_NO_FATAL_FAILURE(expect_naive_gather(world, view, range, random));
        ASSERT_NO_FATAL_FAILURE(expect_naive_mask(world, view, range));
      }
    }
  }
}

// Extents that fill several cache lines, so that whole tiles are transposed.
TEST(Linearize, large_transposed_planes_of_every_type_equal_the_naive_walk) {
  SCOPED_TRACE(seed());
  Random random(seed());
  for (const DType type : all_dtypes) {
    World world;
    world.type = type;
    const Shape extent{150, 3, 141};
    for (const std::uint64_t e : extent) {
      const Piece run{0, e};
      world.axes.push_back(*Axis::from_runs({&run, 1}));
    }
    ASSERT_NO_FATAL_FAILURE(world.add_box(random, {0, 0, 0}, {150, 3, 70}));
    ASSERT_NO_FATAL_FAILURE(world.add_box(random, {0, 0, 70}, {150, 2, 71}));
    for (const PerAxis<std::size_t>& order :
         {PerAxis<std::size_t>{2, 0}, PerAxis<std::size_t>{2, 0, 1}}) {
      PerAxis<ViewAxis> spanned;
      for (const std::size_t axis : order) spanned.push_back({axis, {0, extent[axis]}});
      const View view = *View::make(world.axes, spanned, {1, 1, 1});
      for (const Interval range : ranges_of(view, random)) {
        ASSERT_NO_FATAL_FAILURE(expect_naive_gather(world, view, range, random)) << name_of(type);
        ASSERT_NO_FATAL_FAILURE(expect_naive_mask(world, view, range)) << name_of(type);
      }
    }
  }
}

Box simple_box(std::uint64_t id, const Coords& origin, const Shape& extent) {
  Box box;
  box.id = id;
  box.origin = origin;
  box.extent = extent;
  box.layer_axis = extent.size() - 1;
  box.written = extent.back() == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << extent.back()) - 1;
  return *lay_out(box, 4);
}

TEST(Linearize, a_plane_of_few_bricks_is_few_runs) {
  const Box box = simple_box(1, {0, 0, 0}, {512, 512, 64});
  const BoxIndex boxes = *BoxIndex().put(box);
  PerAxis<Axis> axes;
  for (const std::uint64_t extent : box.extent) {
    const Piece run{0, extent};
    axes.push_back(*Axis::from_runs({&run, 1}));
  }
  const View plane = *View::make(axes, {{0, {0, 512}}, {1, {0, 512}}}, {0, 0, 17});
  std::vector<StreamRun> runs;
  EXPECT_TRUE(collect_runs(plane, boxes, 4, Slots::written, {0, 512 * 512}, 128, runs));
  EXPECT_EQ(runs.size(), 128u);
}

TEST(Linearize, runs_that_meet_late_still_count_as_one) {
  Box box = simple_box(1, {0, 0}, {50, 60});
  box.layer_axis = 0;  // the grid of bricks is in the order of the transposed view …
  box.brick = {1, 1};  // … while the walk takes axis 0 first
  box.slot_layers = 50;
  box.written = 1;
  box.layer_pitch = 4;
  const BoxIndex boxes = *BoxIndex().put(box);
  const Piece x{0, 50}, y{0, 60};
  const PerAxis<Axis> axes{*Axis::from_runs({&x, 1}), *Axis::from_runs({&y, 1})};
  const View view = *View::make(axes, {{1, {0, 60}}, {0, {0, 50}}}, {0, 0});
  std::vector<StreamRun> runs;
  EXPECT_TRUE(collect_runs(view, boxes, 4, Slots::written, {0, 3000}, 1, runs));
  ASSERT_EQ(runs.size(), 1u);
  EXPECT_EQ(runs[0].length, 3000u);
}

TEST(Linearize, a_column_costs_one_block_a_box) {
  BoxIndex boxes;
  for (std::uint64_t i = 0; i < 200; ++i) {
    Box box = simple_box(i + 1, {0, 0, static_cast<std::int64_t>(64 * i)}, {32, 32, 64});
    box.file_offset = i * box.byte_length();
    boxes = *boxes.put(box);
  }
  PerAxis<Axis> axes;
  for (const std::uint64_t extent : {32u, 32u, 12800u}) {
    const Piece run{0, extent};
    axes.push_back(*Axis::from_runs({&run, 1}));
  }
  const View column = *View::make(axes, {{2, {0, 12800}}}, {7, 8, 0});
  int blocks = 0;
  EXPECT_EQ(
      for_blocks(column, boxes, 4, Slots::written, {0, 12800}, [&](const Block&) { ++blocks; }),
      12800u);
  EXPECT_EQ(blocks, 200);
}

TEST(Linearize, an_empty_range_or_no_boxes_need_no_block) {
  const Piece run{5, 10};
  const PerAxis<Axis> axes{*Axis::from_runs({&run, 1})};
  const View view = *View::whole(axes);
  const auto no_block = [](const Block&) { FAIL(); };
  EXPECT_EQ(for_blocks(view, BoxIndex(), 4, Slots::all, {0, 10}, no_block), 0u);
  const BoxIndex boxes = *BoxIndex().put(simple_box(1, {5}, {10}));
  EXPECT_EQ(for_blocks(view, boxes, 4, Slots::all, {3, 3}, no_block), 0u);
  std::vector<StreamRun> runs;
  EXPECT_TRUE(collect_runs(view, BoxIndex(), 4, Slots::all, {2, 9}, 1, runs));
  ASSERT_EQ(runs.size(), 1u);
  EXPECT_TRUE(runs[0].is_pad);
  EXPECT_EQ(runs[0].length, 7u);
}

// The same in both directions: from bricks to a stream and back.
TEST(StridedCopy, any_strides_equal_the_naive_copy) {
  SCOPED_TRACE(seed());
  Random random(seed());
  for (int round = 0; round < 600; ++round) {
    const DType type = all_dtypes[random() % std::size(all_dtypes)];
    const std::size_t size = size_of(type);
    const std::size_t rank = 1 + random() % 4;
    Shape extent;
    for (std::size_t d = 0; d < rank; ++d) {
      const std::uint64_t most = rank <= 2 ? 140 : 12;
      extent.push_back(1 + random() % (random() % 3 == 0 ? 3 : most));
    }
    // Strides of arrays with the axes in any order and room behind each.
    const auto strides = [&](std::uint64_t& bytes) {
      std::vector<std::size_t> order;
      for (std::size_t d = 0; d < rank; ++d) order.push_back(d);
      std::shuffle(order.begin(), order.end(), random);
      PerAxis<std::uint64_t> result(rank);
      std::uint64_t stride = size * (random() % 4 == 0 ? 2 : 1);
      for (const std::size_t d : order) {
        result[d] = stride;
        stride *= extent[d] + (random() % 3 == 0 ? 1 : 0);
      }
      bytes = stride;
      return result;
    };
    std::uint64_t source_bytes = 0, target_bytes = 0;
    const auto source_stride = strides(source_bytes);
    const auto target_stride = strides(target_bytes);
    const Coding from = random() % 2 == 0 ? native(type) : fits_coding(type);
    const Coding to = random() % 2 == 0 ? native(type) : fits_coding(type);
    std::vector<std::byte> source(source_bytes);
    for (std::byte& b : source) b = static_cast<std::byte>(random());
    std::vector<std::byte> target(target_bytes, std::byte{0x5a});
    std::vector<std::byte> expected = target;
    std::uint64_t count = 1;
    for (const std::uint64_t e : extent) count *= e;
    for (std::uint64_t i = 0; i < count; ++i) {
      std::uint64_t rest = i;
      std::ptrdiff_t s = 0, t = 0;
      for (std::size_t d = 0; d < rank; ++d) {
        s += static_cast<std::ptrdiff_t>(rest % extent[d] * source_stride[d]);
        t += static_cast<std::ptrdiff_t>(rest % extent[d] * target_stride[d]);
        rest /= extent[d];
      }
      const auto element = converted(
          {source.begin() + s, source.begin() + s + static_cast<std::ptrdiff_t>(size)}, from, to);
      std::copy(element.begin(), element.end(), expected.begin() + t);
    }
    strided_copy(target.data(), target_stride, source.data(), source_stride, extent, from, to);
    ASSERT_EQ(target, expected) << "round " << round;
  }
}

}  // namespace
}  // namespace accrete
