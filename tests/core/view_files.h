// Files whose elements are those of a view, in every form that may replace them.
#pragma once

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/format.h"
#include "tests/core/store_fixture.h"

namespace accrete::testing {

enum class FileKind { fits, npy_little, npy_big, npy_fortran_little, npy_fortran_big, raw, text };
inline constexpr int file_kinds = 7;

inline FileKind random_kind(std::mt19937_64& random) {
  return static_cast<FileKind>(random() % file_kinds);
}

// Text does not tell one NaN from another.
inline void make_printable(std::vector<std::byte>& elements, DType type) {
  if (!is_float(type)) return;
  const std::size_t size = size_of(type);
  for (std::size_t at = 0; at < elements.size(); at += size) {
    Element element;
    std::memcpy(element.bytes.data(), elements.data() + at, size);
    if (format_element(element, type) == "nan")
      std::memcpy(elements.data() + at, default_pad(type).bytes.data(), size);
  }
}

// Numpy's, version 1. `shape`: fastest first, in C order; `elements`: native, in that order.
inline std::string npy_file(DType type, const Shape& shape, const std::vector<std::byte>& elements,
                            bool big_endian, bool fortran_order) {
  const std::size_t size = size_of(type);
  std::string extents;
  for (std::size_t d = shape.size(); d-- > 0;) extents += std::to_string(shape[d]) + ", ";
  const char kind = is_float(type) ? 'f' : is_signed(type) ? 'i' : 'u';
  std::string header = std::string("{'descr': '") +
                       (size == 1    ? '|'
                        : big_endian ? '>'
                                     : '<') +
                       kind + std::to_string(size) +
                       "', 'fortran_order': " + (fortran_order ? "True" : "False") +
                       ", 'shape': (" + extents + "), }";
  while ((10 + header.size() + 1) % 64 != 0) header += ' ';
  header += '\n';
  std::string file("\x93NUMPY\x01\x00", 8);
  file += static_cast<char>(header.size() & 0xff);
  file += static_cast<char>(header.size() >> 8);
  file += header;
  std::vector<std::byte> stream = elements;
  if (fortran_order) {
    const std::uint64_t count = elements.size() / size;
    for (std::uint64_t i = 0; i < count; ++i) {
      std::uint64_t rest = i;
      std::uint64_t target = 0;
      for (std::size_t d = 0; d < shape.size(); ++d) {
        target = target * shape[d] + rest % shape[d];
        rest /= shape[d];
      }
      std::memcpy(stream.data() + target * size, elements.data() + i * size, size);
    }
  }
  recode(stream.data(), stream.data(), stream.size() / size, native(type),
         Coding{type, big_endian && size > 1, false});
  return file + std::string(as_text(stream));
}

inline std::string file_of_view(FileKind kind, DType type, const Shape& shape,
                                const std::vector<std::byte>& elements) {
  const std::size_t size = size_of(type);
  switch (kind) {
    case FileKind::fits:
      return frame_file(FormatId::fits, type, shape, elements);
    case FileKind::npy_little:
      return npy_file(type, shape, elements, false, false);
    case FileKind::npy_big:
      return npy_file(type, shape, elements, true, false);
    case FileKind::npy_fortran_little:
      return npy_file(type, shape, elements, false, true);
    case FileKind::npy_fortran_big:
      return npy_file(type, shape, elements, true, true);
    case FileKind::raw:
      return std::string(as_text(elements));
    case FileKind::text:
      break;
  }
  std::string text;
  for (std::size_t at = 0; at < elements.size(); at += size) {
    Element element;
    std::memcpy(element.bytes.data(), elements.data() + at, size);
    text += format_element(element, type) + "\n";
  }
  return text;
}

}  // namespace accrete::testing
