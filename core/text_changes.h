// Bytes that were written over texts of a file, such as its headers, without the file having
// changed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace accrete {

// A value. Offsets are of the file's bytes.
class TextChanges {
 public:
  bool empty() const { return pieces_.empty(); }
  void put(std::uint64_t offset, std::span<const std::byte> bytes);
  void put(const TextChanges& later);
  // Puts them over what the file has from `offset` on.
  void lay_over(std::uint64_t offset, std::span<std::byte> target) const;

  friend bool operator==(const TextChanges&, const TextChanges&) = default;

 private:
  struct Piece {
    std::uint64_t offset;
    std::vector<std::byte> bytes;

    std::uint64_t end() const { return offset + bytes.size(); }
    friend bool operator==(const Piece&, const Piece&) = default;
  };
  std::vector<Piece> pieces_;  // later ones over earlier ones
};

}  // namespace accrete
