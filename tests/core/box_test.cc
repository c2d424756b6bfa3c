#include "core/box.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <map>
#include <random>
#include <set>

namespace accrete {
namespace {

std::uint64_t seed() {
  const char* text = std::getenv("ACCRETE_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 20240604;
}

using Random = std::mt19937_64;

Box make_box(std::uint64_t id, const Coords& origin, const Shape& extent, std::size_t layer_axis,
             std::size_t element_size) {
  Box box;
  box.id = id;
  box.origin = origin;
  box.extent = extent;
  box.layer_axis = layer_axis;
  box.slot_layers = extent[layer_axis];
  Result<Box> laid = lay_out(box, element_size);
  EXPECT_TRUE(laid.ok());
  return *laid;
}

std::uint64_t elements_of(const Shape& extent) {
  std::uint64_t count = 1;
  for (const std::uint64_t e : extent) count *= e;
  return count;
}

Box random_box(Random& random, std::size_t element_size) {
  constexpr std::uint64_t most[] = {0, 3000, 60, 15, 8, 5, 4, 3, 3};
  const std::size_t rank = 1 + random() % max_rank;
  Coords origin;
  Shape extent;
  for (std::size_t axis = 0; axis < rank; ++axis) {
    origin.push_back(static_cast<std::int64_t>(random() % 100) - 50);
    extent.push_back(1 + random() % most[rank]);
  }
  Box box = make_box(1, origin, extent, random() % rank, element_size);
  if (random() % 2 == 0) {  // bricks of any extent, not only those that lay_out() makes
    std::uint64_t layer = element_size;
    for (std::size_t axis = 0; axis < rank; ++axis) {
      box.brick[axis] = 1 + random() % extent[axis];
      if (axis != box.layer_axis) layer *= box.brick[axis];
    }
    box.layer_pitch = layer + random() % 3 * element_size;
  }
  box.file_offset = 4096 * (random() % 5);
  return box;
}

template <class Visit>
void for_coordinates(const Box& box, const Visit& visit) {
  for (std::uint64_t i = 0; i < elements_of(box.extent); ++i) {
    Coords at = box.origin;
    std::uint64_t rest = i;
    for (std::size_t axis = 0; axis < box.rank(); ++axis) {
      at[axis] += static_cast<std::int64_t>(rest % box.extent[axis]);
      rest /= box.extent[axis];
    }
    visit(at);
  }
}

TEST(Box, every_element_has_a_place_of_its_own_within_the_box) {
  SCOPED_TRACE(seed());
  Random random(seed());
  for (int round = 0; round < 150; ++round) {
    const std::size_t size = std::size_t{1} << random() % 4;
    const Box box = random_box(random, size);
    ASSERT_TRUE(check_box(box, size).ok()) << check_box(box, size).error().sentence;
    std::set<std::uint64_t> places;
    for_coordinates(box, [&](const Coords& at) {
      ASSERT_TRUE(box.contains(at));
      const std::uint64_t place = box.offset_of(at, size);
      ASSERT_GE(place, box.file_offset);
      ASSERT_LE(place + size, box.file_offset + box.byte_length());
      ASSERT_EQ(place % size, 0u);
      ASSERT_TRUE(places.insert(place).second);
    });
  }
}

TEST(Box, a_layer_of_a_brick_is_contiguous_and_the_strides_are_those_of_its_elements) {
  SCOPED_TRACE(seed());
  Random random(seed());
  for (int round = 0; round < 100; ++round) {
    const std::size_t size = std::size_t{1} << random() % 4;
    const Box box = random_box(random, size);
    const auto strides = box.strides_in_brick(size);
    std::uint64_t layer = size;
    for (std::size_t axis = 0; axis < box.rank(); ++axis)
      if (axis != box.layer_axis) layer *= box.brick[axis];
    for_coordinates(box, [&](const Coords& at) {
      // Relative to the first element of its brick, an element lies at the sum of its strides.
      Coords first = at;
      std::uint64_t distance = 0;
      std::uint64_t in_layer = size;
      for (std::size_t axis = 0; axis < box.rank(); ++axis) {
        const auto i = static_cast<std::uint64_t>(at[axis] - box.origin[axis]) % box.brick[axis];
        first[axis] -= static_cast<std::int64_t>(i);
        distance += i * strides[axis];
        if (axis != box.layer_axis) in_layer += i * strides[axis];
      }
      ASSERT_EQ(box.offset_of(at, size) - box.offset_of(first, size), distance);
      ASSERT_LE(in_layer, layer);
    });
    ASSERT_EQ(strides[box.layer_axis], box.layer_pitch);
    ASSERT_GE(box.layer_pitch, layer);
  }
}

TEST(Box, does_not_contain_its_neighbours) {
  const Box box = make_box(1, {-3, 5}, {4, 2}, 1, 4);
  EXPECT_TRUE(box.contains({-3, 5}));
  EXPECT_TRUE(box.contains({0, 6}));
  for (const Coords& outside : {Coords{-4, 5}, Coords{1, 5}, Coords{0, 4}, Coords{0, 7}})
    EXPECT_FALSE(box.contains(outside));
}

TEST(LayOut, wastes_little_whatever_the_extents) {
  SCOPED_TRACE(seed());
  Random random(seed());
  double worst = 0;
  for (int round = 0; round < 20000; ++round) {
    const std::size_t size = std::size_t{1} << random() % 4;
    const std::size_t rank = 1 + random() % 5;
    Shape extent;
    for (std::size_t axis = 0; axis < rank; ++axis) {
      const std::uint64_t most = random() % 2 == 0 ? 100 : (rank <= 3 ? 20000 : 600);
      extent.push_back(16 + random() % most);
    }
    const Box box = make_box(1, Coords(rank, 0), extent, random() % rank, size);
    const double bytes = static_cast<double>(elements_of(extent) * size);
    ASSERT_LE(static_cast<double>(box.byte_length()), 1.15 * bytes + 4096)
        << to_string(extent) << " in bricks of " << to_string(box.brick) << ", layers along "
        << box.layer_axis << ", " << size << " bytes an element";
    worst = std::max(worst, (static_cast<double>(box.byte_length()) - 4096) / bytes);
    ASSERT_EQ(box.byte_length() % 4096, 0u);
    ASSERT_LE(box.brick_bytes(), 5u << 18);
    ASSERT_TRUE(check_box(box, size).ok());
  }
  RecordProperty("worst", std::to_string(worst));
}

TEST(LayOut, one_layer_in_one_brick_takes_its_bytes) {
  for (const std::uint64_t width : {1u, 10u, 32u, 64u}) {
    const Box box = make_box(1, {0, 0, 0}, {width, 30, 1}, 2, 4);
    EXPECT_EQ(box.brick, box.extent);
    EXPECT_EQ(box.byte_length(), (width * 30 * 4 + 4095) / 4096 * 4096);
  }
}

TEST(LayOut, a_camera_frame_gives_page_aligned_layers_and_bricks_of_half_a_megabyte) {
  const Box box = make_box(1, {0, 0, 0}, {512, 512, 64}, 2, 4);
  EXPECT_EQ(box.layer_pitch % 4096, 0u);
  EXPECT_EQ(box.brick[0], 512u);
  EXPECT_EQ(box.brick[2], 64u);
  EXPECT_EQ(box.brick_bytes(), 512u << 10);
  EXPECT_EQ(box.byte_length(), 512u * 512 * 64 * 4);
}

TEST(LayOut, small_layers_do_not_make_small_bricks) {
  const Box box = make_box(1, {0}, {1 << 20}, 0, 4);
  EXPECT_GE(box.brick_bytes(), 128u << 10);
  EXPECT_EQ(box.byte_length(), 4u << 20);
}

TEST(LayOut, bytes_that_overflow_are_too_large) {
  Box box;
  box.origin = {0, 0, 0};
  box.extent = {std::uint64_t{1} << 30, std::uint64_t{1} << 30, 8};
  box.layer_axis = 2;
  ASSERT_FALSE(lay_out(box, 1).ok());
  EXPECT_EQ(lay_out(box, 1).error().code, std::errc::file_too_large);
  box.extent = {std::numeric_limits<std::uint64_t>::max(), 1, 1};
  EXPECT_FALSE(lay_out(box, 8).ok());
  box.extent = {std::uint64_t{1} << 30, std::uint64_t{1} << 29, 8};
  EXPECT_FALSE(lay_out(box, 8).ok());
  EXPECT_TRUE(lay_out(box, 1).ok());
}

TEST(CheckBox, refuses_what_no_cube_holds) {
  Box good = make_box(1, {0, 0, 0}, {100, 100, 64}, 2, 4);
  good.slot_layers = 1;
  good.written = ~std::uint64_t{0};
  ASSERT_TRUE(check_box(good, 4).ok());
  const auto refused = [&](auto change) {
    Box box = good;
    change(box);
    return !check_box(box, 4).ok();
  };
  constexpr std::uint64_t huge = std::numeric_limits<std::uint64_t>::max();
  EXPECT_TRUE(refused([](Box& b) { b.origin.pop_back(); }));
  EXPECT_TRUE(refused([](Box& b) { b.brick.pop_back(); }));
  EXPECT_TRUE(refused([](Box& b) { b.extent.pop_back(); }));
  EXPECT_TRUE(refused([](Box& b) { b.layer_axis = 3; }));
  EXPECT_TRUE(refused([](Box& b) { b.extent[1] = 0; }));
  EXPECT_TRUE(refused([](Box& b) { b.extent[1] = huge; }));
  EXPECT_TRUE(refused([](Box& b) { b.brick[0] = 0; }));
  EXPECT_TRUE(refused([](Box& b) { b.brick[0] = 101; }));
  EXPECT_TRUE(refused([](Box& b) { b.origin[0] = coordinate_limit; }));
  EXPECT_TRUE(refused([](Box& b) { b.origin[0] = std::numeric_limits<std::int64_t>::min(); }));
  EXPECT_TRUE(refused([](Box& b) { b.slot_layers = 0; }));
  EXPECT_TRUE(refused([](Box& b) { b.slot_layers = 3; }));
  EXPECT_TRUE(refused([](Box& b) { b.slot_layers = 64; }));  // then only one slot can be written
  EXPECT_TRUE(refused([](Box& b) { b.extent[2] = 65; }));    // too many slots
  EXPECT_TRUE(refused([](Box& b) { b.layer_pitch -= 4096; }));
  EXPECT_TRUE(refused([](Box& b) { b.layer_pitch += 1; }));
  EXPECT_TRUE(refused([](Box& b) { b.layer_pitch = huge - 3; }));
  EXPECT_TRUE(refused([](Box& b) { b.file_offset = 512; }));
  EXPECT_TRUE(refused([](Box& b) { b.file_offset = (std::uint64_t{1} << 63) - 4096; }));
}

bool meet(const Box& a, const Coords& first, const Shape& extent) {
  for (std::size_t axis = 0; axis < a.rank(); ++axis) {
    if (a.origin[axis] >= first[axis] + static_cast<std::int64_t>(extent[axis]) ||
        first[axis] >= a.origin[axis] + static_cast<std::int64_t>(a.extent[axis]))
      return false;
  }
  return true;
}

TEST(BoxIndex, random_edits_and_queries_equal_a_search_of_all_boxes) {
  SCOPED_TRACE(seed());
  Random random(seed());
  for (int round = 0; round < 12; ++round) {
    const std::size_t rank = 1 + random() % 4;
    BoxIndex index;
    std::map<std::uint64_t, Box> model;
    int refused = 0;
    const auto random_cuboid = [&](Coords& first, Shape& extent, std::uint64_t most) {
      for (std::size_t axis = 0; axis < rank; ++axis) {
        first.push_back(static_cast<std::int64_t>(random() % 60) - 30);
        extent.push_back(1 + random() % (random() % 8 == 0 ? 3 * most : most));
      }
    };
    for (int step = 0; step < 400; ++step) {
      if (random() % 4 != 0) {
        Coords first;
        Shape extent;
        random_cuboid(first, extent, rank == 1 ? 4 : 12);
        const Box box = make_box(random() % 300, first, extent, random() % rank, 2);
        const bool free = std::none_of(model.begin(), model.end(), [&](const auto& other) {
          return other.first != box.id && meet(other.second, first, extent);
        });
        const Result<BoxIndex> grown = index.put(box);
        ASSERT_EQ(grown.ok(), free);
        refused += free ? 0 : 1;
        if (free) index = *grown, model[box.id] = box;
      } else if (!model.empty()) {
        const std::uint64_t id = random() % 300;
        index = index.remove(id);
        model.erase(id);
      }
      ASSERT_EQ(index.size(), model.size());
      const std::uint64_t id = random() % 300;
      const Box* found = index.find(id);
      ASSERT_EQ(found != nullptr, model.contains(id));
      if (found != nullptr) {
        ASSERT_EQ(*found, model[id]);
      }
      Coords first;
      Shape extent;
      random_cuboid(first, extent, 10);
      std::set<std::uint64_t> expected, seen;
      for (const auto& [other_id, box] : model)
        if (meet(box, first, extent)) expected.insert(other_id);
      index.for_overlapping(first, extent, [&](const Box& box) {
        ASSERT_EQ(box, model[box.id]);
        ASSERT_TRUE(seen.insert(box.id).second);
      });
      ASSERT_EQ(seen, expected);
    }
    std::size_t all = 0;
    index.for_all([&](const Box& box) {
      ++all;
      ASSERT_EQ(box, model[box.id]);
    });
    EXPECT_EQ(all, model.size());
    EXPECT_GT(refused, 10);
  }
}

TEST(BoxIndex, replacing_a_box_changes_what_is_found) {
  Box box = make_box(7, {0, 0}, {10, 10}, 1, 4);
  const BoxIndex before = *BoxIndex().put(box);
  box.written = 1;
  const BoxIndex after = *before.put(box);
  EXPECT_EQ(before.find(7)->written, 0u);
  EXPECT_EQ(after.find(7)->written, 1u);
  EXPECT_EQ(after.size(), 1u);
  EXPECT_EQ(after.remove(7).size(), 0u);
  EXPECT_EQ(after.remove(8).size(), 1u);
}

TEST(BoxIndex, a_query_looks_at_few_of_many_boxes) {
  BoxIndex index;
  for (std::uint64_t i = 0; i < 2000; ++i)
    index = *index.put(make_box(i, {0, static_cast<std::int64_t>(i) * 64}, {8, 64}, 1, 4));
  int asked = 0, visited = 0;
  index.for_meeting(
      [&](std::size_t axis, std::int64_t low, std::int64_t high) {
        ++asked;
        if (axis == 0) return low <= 3 && 3 < high;
        return (low <= 5000 && 5000 < high) || (low <= 120000 && 120000 < high);
      },
      [&](const Box&) { ++visited; });
  EXPECT_EQ(visited, 2);
  EXPECT_LE(asked, 120);
}

TEST(BoxIndex, hostile_boxes_are_refused) {
  const BoxIndex index = *BoxIndex().put(make_box(1, {0, 0}, {4, 4}, 1, 4));
  EXPECT_FALSE(index.put(make_box(2, {100}, {4}, 0, 4)).ok());
  Box bad = make_box(2, {100, 100}, {4, 4}, 1, 4);
  bad.extent[0] = std::numeric_limits<std::uint64_t>::max();
  EXPECT_FALSE(index.put(bad).ok());
}

}  // namespace
}  // namespace accrete
