// From an element type to the C++ type of its elements.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace accrete {

// Calls f with a value-initialised object of the C++ type behind `type`.
template <class F>
auto with_type(DType type, F f) {
  switch (type) {
    case DType::u8:
      return f(std::uint8_t{});
    case DType::i8:
      return f(std::int8_t{});
    case DType::u16:
      return f(std::uint16_t{});
    case DType::i16:
      return f(std::int16_t{});
    case DType::u32:
      return f(std::uint32_t{});
    case DType::i32:
      return f(std::int32_t{});
    case DType::u64:
      return f(std::uint64_t{});
    case DType::i64:
      return f(std::int64_t{});
    case DType::f32:
      return f(float{});
    case DType::f64:
      break;
  }
  return f(double{});
}

}  // namespace accrete
