// XXH3, the checksum of everything at rest.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace accrete {

std::uint64_t checksum(std::span<const std::byte> bytes, std::uint64_t seed = 0);  // XXH3-64

// The checksum of bytes that come piece by piece. Not thread-safe.
class Checksummer {
 public:
  enum class Width { bits64, bits128 };
  explicit Checksummer(Width width = Width::bits64);
  ~Checksummer();
  Checksummer(Checksummer&&) noexcept;
  Checksummer& operator=(Checksummer&&) noexcept;

  void reset();
  void add(std::span<const std::byte> bytes);
  std::uint64_t sum64() const;                  // REQUIRES: bits64
  std::array<std::uint64_t, 2> sum128() const;  // low, high. REQUIRES: bits128

 private:
  struct State;
  std::unique_ptr<State> state_;
  Width width_;
};

}  // namespace accrete
