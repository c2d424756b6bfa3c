// How the elements of a file become those of a cube, and back: byte order and sign bit, scaling,
// conversion of values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "core/convert.h"
#include "core/dtype.h"
#include "core/format.h"

namespace accrete {

// Immutable; thread-safe. Arrays may have any alignment and do not overlap.
class Transfer {
 public:
  // `at_rest`: of the cube's elements; `pad`: native, what becomes of a value that an integer cube
  // cannot have (NaN, BLANK).
  Transfer(const FrameLayout& file, Coding at_rest, Rounding rounding, const Element& pad);

  std::size_t file_size() const { return size_of(file_.type); }  // bytes an element
  std::size_t cube_size() const { return size_of(at_rest_.type); }
  // False: values stay as they are, at most their coding changes; so it never fails and is always
  // invertible, byte by byte.
  bool converts() const { return converts_; }

  // The same, which takes only values that the cube's type has.
  Transfer exactly() const {
    Transfer exact = *this;
    exact.rounding_ = Rounding::exact;
    return exact;
  }

  // Elements of the file -> elements at rest. exact: stops at the first whose value the cube's type
  // does not have. `invertible`: to_file() gives the same bytes.
  Converted to_cube(std::byte* target, const std::byte* source, std::size_t n) const;
  // Elements at rest -> elements of the file, the nearest ones where it has none of that value.
  void to_file(std::byte* target, const std::byte* source, std::size_t n) const;

  // The value of an element of the file, as text.
  std::string value_text(const std::byte* element) const;
  Coding file() const { return file_; }
  DType value_type() const { return scales_ ? scaling_->physical : file_.type; }

 private:
  Coding file_;
  std::optional<Scaling> scaling_;
  Coding at_rest_;
  Rounding rounding_;
  Element pad_;
  bool converts_;
  bool scales_;                   // goes by way of physical values
  std::optional<Element> blank_;  // native
};

}  // namespace accrete
