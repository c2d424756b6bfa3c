// Writes the element stream of an incoming frame into the layers that it holds.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/brick_file.h"
#include "core/frame_sums.h"
#include "core/growth.h"
#include "core/transfer.h"
#include "core/view.h"
#include "core/write_behind.h"

namespace accrete {

// Offsets are bytes of the element stream in the file's order and coding. Not thread-safe. Writes
// to the layers until it is destroyed.
class SlabWriter {
 public:
  // `view`: the frame's elements in the file's order, over the slab's coordinates.
  SlabWriter(BrickFile& bricks, BoxIndex boxes, View view, const Transfer& transfer, Coding at_rest)
      : bricks_(&bricks),
        boxes_(std::move(boxes)),
        view_(std::move(view)),
        transfer_(transfer),
        at_rest_(at_rest) {}

  // Any alignment. REQUIRES: the range lies within the stream, and where values are converted it
  // begins where the last one that was written ended. EINVAL: a value that the cube's type does not
  // have; ENOSPC, EIO.
  Status write(std::uint64_t offset, std::span<const std::byte> bytes);
  // A long stream is written to the brick file behind the caller's back: all of it is there after
  // this. After an error it may be called again. ENOSPC, EIO, ENOMEM.
  Status flush();
  // The same; what comes afterwards is written as it comes.
  Status finish();
  // What was written so far, as long as it is invertible; zeros elsewhere. As flush().
  Status read(std::uint64_t offset, std::span<std::byte> target);
  bool converts() const { return transfer_.converts(); }
  // Whether the file's elements can be made again from the cube's. False is final; the last write
  // is then not to be read back.
  bool invertible() const { return invertible_; }
  // How many elements were rounded to another value.
  std::uint64_t changed() const { return changed_; }

  // All of it will be written once more, after an error.
  void begin_anew();

  // The same elements with the cube's axes in their order, axis 0 fastest.
  Result<View> view_in_natural_order() const;
  // Elements in natural axis order and the file's coding, for sources that were transposed.
  Status write_natural(const View& natural, Interval range, std::span<const std::byte> elements);
  // The checksums of the whole stream; read back when it did not come in order. REQUIRES: flushed.
  std::vector<std::uint64_t> sums();
  // Those of a file with the same elements in natural order. REQUIRES: flushed.
  std::vector<std::uint64_t> sums_in_natural_order() const;

 private:
  Status write_pieces(std::uint64_t offset, std::span<const std::byte> bytes);
  Status put(std::uint64_t first, std::span<const std::byte> elements);
  void write_behind();
  Status patch(std::uint64_t offset, std::span<const std::byte> part);
  // In the coding at rest, which may be `elements` themselves. `first`: in the order of `view`.
  Result<std::span<const std::byte>> at_rest(const View& view, std::uint64_t first,
                                             std::span<const std::byte> elements);

  struct LeavePlace {
    void operator()(WriteBehind* behind) const;
  };

  BrickFile* bricks_;
  BoxIndex boxes_;
  View view_;
  Transfer transfer_;
  Coding at_rest_;
  FrameSummer summer_;
  bool in_order_ = true;
  bool invertible_ = true;
  std::uint64_t changed_ = 0;
  std::string part_;           // the begin of an element, where values are converted,
  std::uint64_t part_at_ = 0;  // and its offset
  std::vector<std::byte> recoded_;
  std::unique_ptr<WriteBehind, LeavePlace> behind_;
};

}  // namespace accrete
