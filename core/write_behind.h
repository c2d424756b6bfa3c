// A stream of bytes that is written by another thread while the next bytes come, many at a time.
//
// \invariant Bytes are written in the order in which they were put, by one write at a time.
// \invariant What a failed write had in hand is kept, and written again by the next call: an error
//   after which the caller makes room and tries again loses nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <span>
#include <vector>

#include "core/result.h"

namespace accrete {

// Not thread-safe. Holds up to twice `step` bytes, and takes no memory for them later.
class WriteBehind {
 public:
  // Called with up to `step` bytes that follow each other from `offset` on; on any thread, never
  // twice at once.
  using Write = std::function<Status(std::uint64_t offset, std::span<const std::byte> bytes)>;

  WriteBehind(std::size_t step, Write write) : step_(step), write_(std::move(write)) {
    filling_.bytes.reserve(step);
    writing_.bytes.reserve(step);
  }
  ~WriteBehind();  // waits for the write that is under way; the rest is dropped
  WriteBehind(const WriteBehind&) = delete;
  WriteBehind& operator=(const WriteBehind&) = delete;

  // What follows the bytes before is written later; all else at once. An error may be that of
  // bytes put before. After one the call may be repeated.
  Status put(std::uint64_t offset, std::span<const std::byte> bytes);
  // All is written then. After an error the call may be repeated.
  Status flush();

 private:
  struct Part {
    std::uint64_t offset = 0;
    std::vector<std::byte> bytes;

    std::uint64_t end() const { return offset + bytes.size(); }
    void begin_at(std::uint64_t at) {
      offset = at;
      bytes.clear();
    }
  };

  Status write_now(Part& part);
  Status settle();  // nothing is under way then
  Status hand_over();

  const std::size_t step_;
  const Write write_;
  Part filling_;
  Part writing_;  // empty: nothing is to be done
  std::future<Status> under_way_;
};

}  // namespace accrete
