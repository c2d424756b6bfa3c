// Rows of the store at rest. A byte chooses what the rest is: a frame's row, a box's, a definition
// or a delta. What is decoded is encoded as bytes that are decoded as the same; a box that passes
// the check has all its elements inside its bytes.
#include "core/box.h"
#include "core/row_codec.h"
#include "tests/fuzz/fuzz.h"

namespace accrete::fuzzing {
namespace {

// Bytes that mean nothing are lost the first time.
template <class T, class Decode>
void check_identity(const T& value, const Decode& decode) {
  ByteWriter first;
  encode(first, value);
  const auto again = decode(as_bytes(first.bytes()));
  ACCRETE_HOLDS(again.ok());
  ByteWriter second;
  encode(second, *again);
  ACCRETE_HOLDS(first.bytes() == second.bytes());
}

Result<Definition> decode_whole_definition(std::span<const std::byte> bytes) {
  ByteReader in(bytes);
  return decode_definition(in);
}

void check_layout(const Box& box, std::size_t element_size) {
  if (!check_box(box, element_size).ok()) return;
  const std::uint64_t end = box.file_offset + box.byte_length();
  ACCRETE_HOLDS(box.file_offset <= end && end <= INT64_MAX);
  Coords first = box.origin, last = box.origin;
  for (std::size_t a = 0; a < box.rank(); ++a)
    last[a] += static_cast<std::int64_t>(box.extent[a] - 1);
  for (const Coords& corner : {first, last}) {
    ACCRETE_HOLDS(box.contains(corner));
    const std::uint64_t offset = box.offset_of(corner, element_size);
    ACCRETE_HOLDS(box.file_offset <= offset && offset + element_size <= end);
  }
  const auto index = BoxIndex().put(box);
  if (index.ok()) ACCRETE_HOLDS(index->size() == 1 && *index->find(box.id) == box);
}

void check_rows(unsigned kind, std::span<const std::byte> bytes) {
  if (kind == 0) {
    const auto row = decode_frame(bytes.first(std::min(bytes.size(), frame_row_bytes)));
    if (!row.ok()) return;
    check_identity(*row, decode_frame);
    const auto runs = frame_runs(*row, bytes.subspan(frame_row_bytes));
    if (!runs.ok()) return;
    const auto view = frame_view(*row, *runs);
    if (view.ok()) ACCRETE_HOLDS(view->rank() == row->extent.size());
  } else if (kind == 1) {
    const auto box = decode_box(bytes);
    if (!box.ok()) return;
    check_identity(*box, decode_box);
    for (const std::size_t size : {1u, 2u, 4u, 8u}) check_layout(*box, size);
  } else if (kind == 2) {
    const auto definition = decode_whole_definition(bytes);
    if (definition.ok()) check_identity(*definition, decode_whole_definition);
  } else {
    const auto delta = decode_delta(bytes);
    if (!delta.ok()) return;
    check_identity(*delta, decode_delta);
    if (delta->redo) (void)delta->redo->view();
    (void)apply(Snapshot{}, *delta);
  }
}

}  // namespace
}  // namespace accrete::fuzzing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace accrete::fuzzing;
  Input input(data, size);
  const unsigned kind = input.take<std::uint8_t>() % 4;
  check_rows(kind, accrete::as_bytes(input.rest()));
  return 0;
}
