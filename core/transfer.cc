// Goes through blocks that fit the innermost cache, one step after the other over each block.
#include "core/transfer.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace accrete {

namespace {

constexpr std::size_t block = 512;  // elements

struct alignas(64) Buffer {
  std::array<std::byte, block * 8> bytes;
  std::byte* data() { return bytes.data(); }
};

// The product and the sum are rounded each by itself, as astropy does it.
template <class T>
void scale_block(std::byte* values, std::size_t n, const Scaling& scaling) {
  const auto scale = static_cast<T>(scaling.scale);
  const auto zero = static_cast<T>(scaling.zero);
  std::array<T, block> v;
  std::memcpy(v.data(), values, n * sizeof(T));
  if (scaling.scale != 1)
    for (std::size_t i = 0; i < n; ++i) v[i] *= scale;
  if (scaling.zero != 0)
    for (std::size_t i = 0; i < n; ++i) v[i] += zero;
  std::memcpy(values, v.data(), n * sizeof(T));
}

template <class T>
void unscale_block(std::byte* values, std::size_t n, const Scaling& scaling) {
  const double factor = 1 / scaling.scale;
  std::array<T, block> v;
  std::memcpy(v.data(), values, n * sizeof(T));
  for (std::size_t i = 0; i < n; ++i)
    v[i] = static_cast<T>((static_cast<double>(v[i]) - scaling.zero) * factor);
  std::memcpy(values, v.data(), n * sizeof(T));
}

void scale(std::byte* values, std::size_t n, const Scaling& scaling) {
  scaling.physical == DType::f32 ? scale_block<float>(values, n, scaling)
                                 : scale_block<double>(values, n, scaling);
}

void unscale(std::byte* values, std::size_t n, const Scaling& scaling) {
  scaling.physical == DType::f32 ? unscale_block<float>(values, n, scaling)
                                 : unscale_block<double>(values, n, scaling);
}

// The places of an element among n others, all native; how many there are.
template <class T>
std::size_t find_equal(const std::byte* elements, std::size_t n, const Element& element,
                       std::array<std::size_t, block>& places) {
  std::array<T, block> e;
  T wanted;
  std::memcpy(e.data(), elements, n * sizeof(T));
  std::memcpy(&wanted, element.bytes.data(), sizeof wanted);
  std::size_t count = 0;
  for (std::size_t i = 0; i < n; ++i) count += e[i] == wanted ? 1 : 0;
  if (count == 0) return 0;
  for (std::size_t i = 0, found = 0; found < count; ++i)
    if (e[i] == wanted) places[found++] = i;
  return count;
}

std::size_t find_equal(const std::byte* elements, std::size_t n, const Element& element,
                       std::size_t size, std::array<std::size_t, block>& places) {
  switch (size) {
    case 1:
      return find_equal<std::uint8_t>(elements, n, element, places);
    case 2:
      return find_equal<std::uint16_t>(elements, n, element, places);
    case 4:
      return find_equal<std::uint32_t>(elements, n, element, places);
    default:
      return find_equal<std::uint64_t>(elements, n, element, places);
  }
}

}  // namespace

Transfer::Transfer(const FrameLayout& file, Coding at_rest, Rounding rounding, const Element& pad)
    : file_(file.coding),
      scaling_(file.scaling),
      at_rest_(at_rest),
      rounding_(rounding),
      pad_(pad),
      converts_(file.scaling.has_value() || file.coding.type != at_rest.type),
      // Integers that only have blanks stay integers where the cube has integers.
      scales_(file.scaling &&
              (file.scaling->scale != 1 || file.scaling->zero != 0 || is_float(at_rest.type))) {
  if (!scaling_ || !scaling_->blank) return;
  // One that the type does not have stands for nothing.
  const auto blank = parse_element(std::to_string(*scaling_->blank), file_.type);
  if (blank.ok()) blank_ = *blank;
}

Converted Transfer::to_cube(std::byte* target, const std::byte* source, std::size_t n) const {
  if (!converts_) {
    recode(target, source, n, file_, at_rest_);
    return {n, 0, true};
  }
  const std::size_t from = file_size();
  const std::size_t to = cube_size();
  Converted all;
  Buffer elements, values, converted, back;
  std::array<std::size_t, block> blanks;
  for (std::size_t done = 0; done < n; done += block) {
    const std::size_t count = std::min(block, n - done);
    const std::byte* const original = source + done * from;
    recode(elements.data(), original, count, file_, native(file_.type));
    const std::size_t blank_count =
        blank_ ? find_equal(elements.data(), count, *blank_, from, blanks) : 0;
    std::byte* now = elements.data();
    if (scales_) {
      convert_nearest(values.data(), scaling_->physical, now, file_.type, count, Element{});
      scale(values.data(), count, *scaling_);
      now = values.data();
    }
    // No value; while the others are converted one that every type has stands for it.
    const std::size_t size = size_of(value_type());
    for (std::size_t i = 0; i < blank_count; ++i) std::memset(now + blanks[i] * size, 0, size);
    const Converted step =
        convert(converted.data(), at_rest_.type, now, value_type(), count, rounding_, pad_);
    const Element none = is_float(at_rest_.type) ? default_pad(at_rest_.type) : pad_;
    for (std::size_t i = 0; i < blank_count; ++i)
      std::memcpy(converted.data() + blanks[i] * to, none.bytes.data(), to);
    recode(target + done * to, converted.data(), step.count, native(at_rest_.type), at_rest_);
    all.count += step.count;
    all.changed += step.changed;
    if (!scaling_) {
      all.invertible = all.invertible && step.invertible;
    } else if (all.invertible) {
      to_file(back.data(), target + done * to, step.count);
      all.invertible = std::memcmp(back.data(), original, step.count * from) == 0;
    }
    if (step.count < count) break;
  }
  return all;
}

void Transfer::to_file(std::byte* target, const std::byte* source, std::size_t n) const {
  if (!converts_) return recode(target, source, n, at_rest_, file_);
  const std::size_t to = file_size();
  const std::size_t from = cube_size();
  Buffer elements, values, converted;
  for (std::size_t done = 0; done < n; done += block) {
    const std::size_t count = std::min(block, n - done);
    recode(elements.data(), source + done * from, count, at_rest_, native(at_rest_.type));
    const std::byte* now = elements.data();
    DType type = at_rest_.type;
    if (scales_) {
      convert_nearest(values.data(), scaling_->physical, now, type, count, Element{});
      unscale(values.data(), count, *scaling_);
      now = values.data();
      type = scaling_->physical;
    }
    convert_nearest(converted.data(), file_.type, now, type, count, blank_.value_or(Element{}));
    recode(target + done * to, converted.data(), count, native(file_.type), file_);
  }
}

std::string Transfer::value_text(const std::byte* element) const {
  Element native_element;
  recode(native_element.bytes.data(), element, 1, file_, native(file_.type));
  if (!scales_) return format_element(native_element, file_.type);
  Element value;
  convert_nearest(value.bytes.data(), scaling_->physical, native_element.bytes.data(), file_.type,
                  1, Element{});
  scale(value.bytes.data(), 1, *scaling_);
  return format_element(value, scaling_->physical);
}

}  // namespace accrete
