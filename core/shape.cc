#include "core/shape.h"

namespace accrete {

namespace {
constexpr std::uint64_t limit = (std::uint64_t{1} << 63) - 1;
}

Result<std::uint64_t> checked_multiply(std::uint64_t a, std::uint64_t b) {
  std::uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product) || product > limit)
    return fail(std::errc::file_too_large, "the extents' product does not fit 63 bits");
  return product;
}

Result<std::uint64_t> checked_product(std::span<const std::uint64_t> extents) {
  std::uint64_t product = 1;
  for (const std::uint64_t extent : extents) {
    ACCRETE_TRY(product, checked_multiply(product, extent));
  }
  return product;
}

std::string to_string(const Shape& shape) {
  std::string text;
  for (const std::uint64_t extent : shape) {
    if (!text.empty()) text += ' ';
    text += std::to_string(extent);
  }
  return text;
}

}  // namespace accrete
