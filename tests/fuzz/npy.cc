// NPY headers: an input is a file; or, where its first byte is 1 to 3, the text of the dictionary
// in a header of that version. Whatever is taken has sums that are right, whole or in pieces; its
// facts written in any version, byte order and order of elements, by us and as numpy does, are read
// as the same.
#include "core/npy.h"

#include "core/bytes.h"
#include "tests/fuzz/look.h"

namespace accrete::fuzzing {
namespace {

std::string npy_header(unsigned version, std::string_view dictionary) {
  std::string header = "\x93NUMPY";
  header += static_cast<char>(version);
  header += '\0';
  for (unsigned i = 0; i < (version == 1 ? 2u : 4u); ++i)
    header += static_cast<char>(dictionary.size() >> 8 * i & 0xff);
  return header + std::string(dictionary);
}

std::string dictionary_of(const FrameLayout& layout) {
  const DType type = layout.coding.type;
  const char order = size_of(type) == 1 ? '|' : layout.coding.big_endian ? '>' : '<';
  const char kind = is_float(type) ? 'f' : is_signed(type) ? 'i' : 'u';
  Shape extents = layout.shape;  // numpy's order
  if (!layout.fortran_order) std::reverse(extents.begin(), extents.end());
  std::string tuple;
  for (const std::uint64_t extent : extents) tuple += std::to_string(extent) + ",";
  return std::string("{'descr': '") + order + kind + std::to_string(size_of(type)) +
         "', 'fortran_order': " + (layout.fortran_order ? "True" : "False") + ", 'shape': (" +
         tuple + "), }\n";
}

void check_layout(const FrameLayout& layout) {
  check_sums_of(layout);
  ACCRETE_HOLDS(layout.full_bytes == layout.least_bytes && !layout.scaling);
  ACCRETE_HOLDS(!layout.coding.sign_flipped);
  for (unsigned version = 1; version <= 3; ++version) {
    const std::string header = npy_header(version, dictionary_of(layout));
    const auto again = npy_format().look(as_bytes(header), true, {});
    ACCRETE_HOLDS(again.ok() && again->kind == Format::Look::Kind::layout);
    ACCRETE_HOLDS(again->layout.data_offset == header.size());
    ACCRETE_HOLDS(again->layout.coding == layout.coding);
    ACCRETE_HOLDS(again->layout.shape == layout.shape);
    ACCRETE_HOLDS(again->layout.fortran_order == layout.fortran_order);
  }
  check_face(npy_format(), layout, {});
}

}  // namespace
}  // namespace accrete::fuzzing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace accrete::fuzzing;
  Input input(data, size);
  std::string file(input.rest());
  const unsigned version = input.take<std::uint8_t>();
  if (1 <= version && version <= 3) {
    const std::string_view dictionary = input.take_until('\0');
    file = npy_header(version, dictionary) + std::string(input.rest());
  }
  const auto look = look_in_pieces(accrete::npy_format(), file, {});
  if (look.ok() && look->kind == accrete::Format::Look::Kind::layout) check_layout(look->layout);
  return 0;
}
