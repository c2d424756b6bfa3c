// Writes the element stream of an incoming frame into the layers that it holds.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "core/brick_file.h"
#include "core/frame_sums.h"
#include "core/growth.h"
#include "core/view.h"

namespace accrete {

// Offsets are bytes of the element stream in the file's order and coding. Not thread-safe.
class SlabWriter {
 public:
  // `view`: the frame's elements in the file's order, over the slab's coordinates.
  SlabWriter(BrickFile& bricks, BoxIndex boxes, View view, Coding file, Coding at_rest)
      : bricks_(&bricks),
        boxes_(std::move(boxes)),
        view_(std::move(view)),
        file_(file),
        at_rest_(at_rest) {}

  // Any offset, any alignment. REQUIRES: the range lies within the stream. ENOSPC, EIO.
  Status write(std::uint64_t offset, std::span<const std::byte> bytes);
  // What was written so far; zeros elsewhere.
  void read(std::uint64_t offset, std::span<std::byte> target) const;
  // The same elements with the cube's axes in their order, axis 0 fastest.
  Result<View> view_in_natural_order() const;
  // Elements in natural axis order and the coding at rest, for sources that were transposed.
  Status write_natural(const View& natural, Interval range, std::span<const std::byte> at_rest);
  // The checksums of the whole stream; read back when it did not come in order.
  std::vector<std::uint64_t> sums();

 private:
  Status put(std::uint64_t first, std::span<const std::byte> elements);
  Status patch(std::uint64_t offset, std::span<const std::byte> part);

  BrickFile* bricks_;
  BoxIndex boxes_;
  View view_;
  Coding file_;
  Coding at_rest_;
  FrameSummer summer_;
  bool in_order_ = true;
  std::vector<std::byte> recoded_;
};

}  // namespace accrete
