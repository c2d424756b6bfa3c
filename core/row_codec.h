// The rows of checkpoint and journal as bytes (tables in FORMAT.md).
#pragma once

#include <span>

#include "core/bytes.h"
#include "core/snapshot.h"

namespace accrete {

inline constexpr std::size_t frame_row_bytes = 528;
inline constexpr std::size_t box_row_bytes = 264;

void encode(ByteWriter& out, const FrameRow& row);  // frame_row_bytes
void encode(ByteWriter& out, const Box& box);       // box_row_bytes
void encode(ByteWriter& out, const Definition& definition);
void encode(ByteWriter& out, const Delta& delta);

// EINVAL when the bytes are no such row: too short, a number out of its range.
Result<FrameRow> decode_frame(std::span<const std::byte> bytes);
Result<Box> decode_box(std::span<const std::byte> bytes);
Result<Definition> decode_definition(ByteReader& in);
Result<Delta> decode_delta(std::span<const std::byte> bytes);

}  // namespace accrete
