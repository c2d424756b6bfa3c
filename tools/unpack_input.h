// The file to unpack, as the parts of accretefs-unpack read it, and their errors.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "core/result.h"

namespace accrete {

inline Error bad(std::string sentence) {
  return fail(std::errc::invalid_argument, std::move(sentence));
}

inline Error too_large(std::uint64_t most) {
  return fail(std::errc::file_too_large,
              "the file unpacks to more than " + std::to_string(most) + " bytes");
}

// A regular file of `size` bytes, open for reading; its offset is neither used nor changed.
class UnpackInput {
 public:
  UnpackInput(int fd, std::uint64_t size) : fd_(fd), size_(size) {}
  std::uint64_t size() const { return size_; }
  // Up to `target.size()` bytes from `offset` on; fewer at the end of the file only.
  Result<std::size_t> read(std::uint64_t offset, std::span<unsigned char> target) const;

 private:
  friend class UnpackMapping;
  int fd_;
  std::uint64_t size_;
};

// All of it mapped for reading; should it become shorter meanwhile, touching the rest is SIGBUS.
class UnpackMapping {
 public:
  static Result<UnpackMapping> of(const UnpackInput& input);
  UnpackMapping(UnpackMapping&& other) noexcept
      : address_(std::exchange(other.address_, nullptr)), size_(other.size_) {}
  UnpackMapping& operator=(UnpackMapping&&) = delete;
  ~UnpackMapping();
  std::string_view text() const { return {address_, size_}; }

 private:
  UnpackMapping(const char* address, std::size_t size) : address_(address), size_(size) {}

  const char* address_;
  std::size_t size_;
};

}  // namespace accrete
