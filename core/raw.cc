#include "core/raw.h"

namespace accrete {

namespace {

class Raw final : public Format {
 public:
  FormatId id() const override { return FormatId::raw; }
  std::string_view extension() const override { return "raw"; }

  Result<Look> look(std::span<const std::byte>, bool, const ImageChoice&) const override {
    return Look{};
  }
  bool can_show(DType, std::size_t rank) const override { return rank >= 1 && rank <= max_rank; }
  FileFace face(const ViewFacts& facts) const override {
    FileFace face;
    face.elements = 1;
    for (const std::uint64_t extent : facts.shape) face.elements *= extent;
    face.bytes_per_element = size_of(facts.type);
    return face;
  }
  Coding coding(DType type) const override { return native(type); }
  bool can_extend() const override { return true; }
};

}  // namespace

const Format& raw_format() {
  static const Raw raw;
  return raw;
}

}  // namespace accrete
