// How boxes are laid out, and why the index finds exactly the boxes that meet a region.
//
// Layout. The offset of an element is a sum of one term for each axis: (coordinate / brick extent)
// times a stride of the grid plus (coordinate % brick extent) times a stride inside the brick. Both
// sets of strides number their parts densely, so different elements have different offsets, and all
// lie below bricks × brick_bytes() = byte_length(), which lay_out() computed without overflow. One
// layer of a brick is `layer_pitch` ≥ its elements' bytes away from the next: no two layers share a
// byte. for_blocks() relies on the terms' independence: it cuts each axis by itself.
//
// Index. Boxes are kept by layer axis, ordered by their origin along it and then by their age,
// every subtree with the smallest cuboid that holds its boxes. A subtree is skipped only if the
// region has no coordinate in an interval of that cuboid, hence none in any box below it; a box is
// visited only if the region meets it on every axis. No more is assumed of the boxes than that.
// What makes it fast is that growth gives fresh coordinates: boxes that reserve ahead follow each
// other along their layer axis, and those of one frame (whose layer axis need not be the one that
// grew; they may all begin at the same place along it) follow each other along the grown axis by
// age.
#include "core/box.h"

#include <algorithm>
#include <array>
#include <string>

namespace accrete {

namespace {

constexpr std::uint64_t page_bytes = 4096;
// A layer of a brick: long enough for the cost of a run to vanish (64 KiB are no quicker to write
// or to read), short enough that a cold column takes little more than its own pages from the disk,
// in long pieces.
constexpr std::uint64_t layer_target_bytes = 8 << 10;
// Bricks are 64 layers deep, or more or less where they would be very small or large.
constexpr std::uint64_t depth_target = 64;
constexpr std::uint64_t brick_least_bytes = 256 << 10;
constexpr std::uint64_t brick_most_bytes = 1 << 20;
constexpr std::uint64_t most_slots = 64;

std::uint64_t ceil_divide(std::uint64_t a, std::uint64_t b) {
  return a / b + (a % b != 0);
}

// The extent, at most `target`, of equal parts that cover `n`: the fewest parts that waste at most
// a thirty-second, else those among twice as many that waste least.
std::uint64_t even_part(std::uint64_t n, std::uint64_t target) {
  const std::uint64_t fewest = ceil_divide(n, target);
  std::uint64_t best = ceil_divide(n, fewest);
  std::uint64_t best_waste = best * fewest - n;
  for (std::uint64_t parts = fewest + 1; best_waste > n / 32 && parts <= 2 * fewest; ++parts) {
    const std::uint64_t part = ceil_divide(n, parts);
    const std::uint64_t waste = part * ceil_divide(n, part) - n;
    if (waste < best_waste) best = part, best_waste = waste;
  }
  return best;
}

// 0 ≤ n: the next multiple of a page. EFBIG when it does not fit 63 bits.
Result<std::uint64_t> round_up_to_page(std::uint64_t n) {
  return checked_multiply(ceil_divide(n, page_bytes), page_bytes);
}

// Checked byte_length().
Result<std::uint64_t> total_bytes(const Box& box) {
  ACCRETE_TRY(std::uint64_t bytes, checked_multiply(box.layer_pitch, box.brick[box.layer_axis]));
  for (std::size_t axis = 0; axis < box.rank(); ++axis) {
    ACCRETE_TRY(bytes, checked_multiply(bytes, box.bricks_along(axis)));
  }
  return round_up_to_page(bytes);
}

Result<std::uint64_t> layer_bytes(const Box& box, std::size_t element_size) {
  std::uint64_t bytes = element_size;
  for (std::size_t axis = 0; axis < box.rank(); ++axis) {
    if (axis == box.layer_axis) continue;
    ACCRETE_TRY(bytes, checked_multiply(bytes, box.brick[axis]));
  }
  return bytes;
}

}  // namespace

std::uint64_t slot_bits(std::uint64_t first, std::uint64_t count) {
  const std::uint64_t low = count >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1;
  return low << first;
}

std::uint64_t Box::bricks_along(std::size_t axis) const {
  return ceil_divide(extent[axis], brick[axis]);
}

std::uint64_t Box::byte_length() const {
  std::uint64_t bytes = brick_bytes();
  for (std::size_t axis = 0; axis < rank(); ++axis) bytes *= bricks_along(axis);
  return ceil_divide(bytes, page_bytes) * page_bytes;
}

bool Box::contains(const Coords& at) const {
  for (std::size_t axis = 0; axis < rank(); ++axis) {
    if (at[axis] < origin[axis] ||
        at[axis] >= origin[axis] + static_cast<std::int64_t>(extent[axis]))
      return false;
  }
  return true;
}

PerAxis<std::uint64_t> Box::strides_in_brick(std::size_t element_size) const {
  PerAxis<std::uint64_t> strides(rank());
  std::uint64_t stride = element_size;
  for (std::size_t axis = 0; axis < rank(); ++axis) {
    if (axis == layer_axis) continue;
    strides[axis] = stride;
    stride *= brick[axis];
  }
  strides[layer_axis] = layer_pitch;
  return strides;
}

PerAxis<std::uint64_t> Box::brick_strides() const {
  PerAxis<std::uint64_t> strides(rank());
  std::uint64_t stride = brick_bytes();
  for (std::size_t axis = 0; axis < rank(); ++axis) {
    if (axis == layer_axis) continue;
    strides[axis] = stride;
    stride *= bricks_along(axis);
  }
  strides[layer_axis] = stride;
  return strides;
}

std::uint64_t Box::offset_of(const Coords& at, std::size_t element_size) const {
  const PerAxis<std::uint64_t> inner = strides_in_brick(element_size);
  const PerAxis<std::uint64_t> outer = brick_strides();
  std::uint64_t offset = file_offset;
  for (std::size_t axis = 0; axis < rank(); ++axis) {
    const auto i = static_cast<std::uint64_t>(at[axis] - origin[axis]);
    offset += i / brick[axis] * outer[axis] + i % brick[axis] * inner[axis];
  }
  return offset;
}

Result<Box> lay_out(Box box, std::size_t element_size) {
  const std::uint64_t layers = box.extent[box.layer_axis];
  box.brick = Shape(box.rank(), 1);
  std::uint64_t layer = element_size;
  for (std::size_t axis = 0; axis < box.rank(); ++axis) {
    if (axis == box.layer_axis) continue;
    const std::uint64_t room = std::max<std::uint64_t>(layer_target_bytes / layer, 1);
    box.brick[axis] = even_part(box.extent[axis], room);
    layer *= box.brick[axis];
  }

  const std::uint64_t depth = std::max<std::uint64_t>(
      std::min(depth_target, brick_most_bytes / layer), brick_least_bytes / layer);
  box.brick[box.layer_axis] = even_part(layers, depth);

  // Pages for each layer, unless all that is wasted then comes to more than a tenth.
  ACCRETE_TRY(std::uint64_t elements, checked_product({box.extent.begin(), box.extent.size()}));
  ACCRETE_TRY(elements, checked_multiply(elements, element_size));
  ACCRETE_TRY(box.layer_pitch, round_up_to_page(layer));
  const Result<std::uint64_t> with_pages = total_bytes(box);
  if (!with_pages.ok() || *with_pages - elements > elements / 10) box.layer_pitch = layer;
  ACCRETE_CHECK(total_bytes(box));
  return box;
}

Status check_box(const Box& box, std::size_t element_size) {
  const auto refuse = [&](const char* reason) {
    return fail(std::errc::invalid_argument, "box " + std::to_string(box.id) + " " + reason);
  };
  const std::size_t rank = box.rank();
  if (rank == 0 || box.extent.size() != rank || box.brick.size() != rank || box.layer_axis >= rank)
    return refuse("has no consistent rank");
  for (std::size_t axis = 0; axis < rank; ++axis) {
    const std::int64_t first = box.origin[axis];
    // A box whose unused layers were cut off keeps the depth of its bricks.
    const bool deeper = axis != box.layer_axis && box.brick[axis] > box.extent[axis];
    if (box.extent[axis] == 0 || box.brick[axis] == 0 || deeper)
      return refuse("has an impossible extent");
    if (first <= -coordinate_limit || first >= coordinate_limit ||
        box.extent[axis] > static_cast<std::uint64_t>(coordinate_limit - first))
      return refuse("leaves the range of coordinates");
  }
  const std::uint64_t layers = box.extent[box.layer_axis];
  if (box.slot_layers == 0 || layers % box.slot_layers != 0 || box.slots() > most_slots)
    return refuse("has impossible slots");
  if (box.slots() < most_slots && (box.committed() >> box.slots()) != 0)
    return refuse("has written slots that do not exist");
  if (((box.written & box.kept) | (box.written & box.spent) | (box.kept & box.spent)) != 0)
    return refuse("has a slot in two states");

  const Result<std::uint64_t> layer = layer_bytes(box, element_size);
  if (!layer.ok() || box.layer_pitch < *layer || box.layer_pitch % element_size != 0)
    return refuse("has an impossible layer pitch");
  const Result<std::uint64_t> bytes = total_bytes(box);
  constexpr std::uint64_t most = (std::uint64_t{1} << 63) - 1;
  if (!bytes.ok() || box.file_offset > most - *bytes) return refuse("is too large");
  if (box.file_offset % page_bytes != 0) return refuse("does not start at a page");
  return {};
}

namespace {

using BoxPointer = std::shared_ptr<const Box>;

// The smallest cuboid that holds some boxes of one rank; of rank 0 when there are none.
struct Hull {
  Coords low;
  Coords high;

  static Hull of(const BoxPointer& box) {
    Hull hull{box->origin, box->origin};
    for (std::size_t axis = 0; axis < box->rank(); ++axis)
      hull.high[axis] += static_cast<std::int64_t>(box->extent[axis]);
    return hull;
  }
  friend Hull operator+(const Hull& a, const Hull& b) {
    if (a.low.empty()) return b;
    if (b.low.empty()) return a;
    Hull sum = a;
    for (std::size_t axis = 0; axis < a.low.size(); ++axis) {
      sum.low[axis] = std::min(a.low[axis], b.low[axis]);
      sum.high[axis] = std::max(a.high[axis], b.high[axis]);
    }
    return sum;
  }
};

}  // namespace

struct BoxIndex::Content {
  std::array<PersistentSequence<BoxPointer, Hull>, max_rank> by_place;  // by layer axis
  PersistentSequence<BoxPointer> by_id;

  std::size_t index_of(std::uint64_t id) const {
    return by_id.partition_point([id](const BoxPointer& b) { return b->id < id; });
  }
  std::size_t place_of(const Box& box) const {
    const std::size_t axis = box.layer_axis;
    return by_place[axis].partition_point([&](const BoxPointer& b) {
      if (b->origin[axis] != box.origin[axis]) return b->origin[axis] < box.origin[axis];
      return b->id < box.id;
    });
  }
};

std::size_t BoxIndex::size() const {
  return content_ ? content_->by_id.size() : 0;
}

Result<BoxIndex> BoxIndex::put(const Box& box) const {
  ACCRETE_CHECK(check_box(box, 1));
  if (content_ && content_->by_id.front()->rank() != box.rank())
    return fail(std::errc::invalid_argument,
                "box " + std::to_string(box.id) + " has another rank than its cube");
  const Box* in_the_way = nullptr;
  for_overlapping(box.origin, box.extent, [&](const Box& other) {
    if (other.id != box.id) in_the_way = &other;
  });
  if (in_the_way != nullptr)
    return fail(std::errc::invalid_argument, "box " + std::to_string(box.id) + " overlaps box " +
                                                 std::to_string(in_the_way->id));

  const BoxIndex others = find(box.id) != nullptr ? remove(box.id) : *this;
  auto content =
      others.content_ ? std::make_shared<Content>(*others.content_) : std::make_shared<Content>();
  const auto pointer = std::make_shared<const Box>(box);
  auto& by_place = content->by_place[box.layer_axis];
  by_place = by_place.insert(content->place_of(box), pointer);
  content->by_id = content->by_id.insert(content->index_of(box.id), pointer);
  BoxIndex result;
  result.content_ = std::move(content);
  return result;
}

BoxIndex BoxIndex::remove(std::uint64_t id) const {
  const Box* box = find(id);
  if (box == nullptr) return *this;
  auto content = std::make_shared<Content>(*content_);
  auto& by_place = content->by_place[box->layer_axis];
  by_place = by_place.erase(content->place_of(*box));
  content->by_id = content->by_id.erase(content->index_of(id));
  BoxIndex result;
  if (!content->by_id.empty()) result.content_ = std::move(content);
  return result;
}

const Box* BoxIndex::find(std::uint64_t id) const {
  if (!content_) return nullptr;
  const std::size_t index = content_->index_of(id);
  if (index == content_->by_id.size()) return nullptr;
  const Box& box = *content_->by_id.at(index);
  return box.id == id ? &box : nullptr;
}

void BoxIndex::for_overlapping(const Coords& first, const Shape& extent,
                               const std::function<void(const Box&)>& visit) const {
  for_meeting(
      [&](std::size_t axis, std::int64_t low, std::int64_t high) {
        return low < first[axis] + static_cast<std::int64_t>(extent[axis]) && first[axis] < high;
      },
      visit);
}

void BoxIndex::for_meeting(
    const std::function<bool(std::size_t axis, std::int64_t low, std::int64_t high)>& meets,
    const std::function<void(const Box&)>& visit) const {
  if (!content_) return;
  for (std::size_t layer_axis = 0; layer_axis < max_rank; ++layer_axis) {
    content_->by_place[layer_axis].for_where(
        [&](const Hull& hull) {
          if (!meets(layer_axis, hull.low[layer_axis], hull.high[layer_axis])) return false;
          for (std::size_t axis = 0; axis < hull.low.size(); ++axis)
            if (axis != layer_axis && !meets(axis, hull.low[axis], hull.high[axis])) return false;
          return true;
        },
        [&](std::size_t, const BoxPointer& box) { visit(*box); });
  }
}

void BoxIndex::for_all(const std::function<void(const Box&)>& visit) const {
  if (!content_) return;
  content_->by_id.for_range(0, size(), [&](const BoxPointer& box) { visit(*box); });
}

}  // namespace accrete
