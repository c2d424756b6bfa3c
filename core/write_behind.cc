#include "core/write_behind.h"

#include <algorithm>
#include <exception>

namespace accrete {

WriteBehind::~WriteBehind() {
  if (under_way_.valid()) under_way_.wait();
}

Status WriteBehind::put(std::uint64_t offset, std::span<const std::byte> bytes) {
  if (offset != filling_.end()) {
    ACCRETE_CHECK(flush());
    ACCRETE_CHECK(write_(offset, bytes));
    filling_.begin_at(offset + bytes.size());
    return {};
  }
  while (!bytes.empty()) {
    if (filling_.bytes.size() == step_) ACCRETE_CHECK(hand_over());
    const auto part = bytes.first(std::min(bytes.size(), step_ - filling_.bytes.size()));
    filling_.bytes.insert(filling_.bytes.end(), part.begin(), part.end());
    bytes = bytes.subspan(part.size());
  }
  return {};
}

Status WriteBehind::flush() {
  ACCRETE_CHECK(settle());
  return write_now(filling_);
}

Status WriteBehind::write_now(Part& part) {
  if (part.bytes.empty()) return {};
  Status status = write_(part.offset, part.bytes);
  if (status.ok()) part.begin_at(part.end());
  return status;
}

Status WriteBehind::settle() {
  if (!under_way_.valid()) return write_now(writing_);  // failed before, or found no thread
  Status status = under_way_.get();
  if (status.ok()) writing_.begin_at(writing_.end());
  return status;
}

Status WriteBehind::hand_over() {
  ACCRETE_CHECK(settle());
  std::swap(writing_, filling_);
  filling_.begin_at(writing_.end());
  try {
    under_way_ =
        std::async(std::launch::async, [this] { return write_(writing_.offset, writing_.bytes); });
  } catch (const std::exception&) {
    // No thread, or no memory for one, is to be had: the next call writes it.
  }
  return {};
}

}  // namespace accrete
