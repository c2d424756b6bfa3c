// The bytes of a file that is made of a head, elements of a cube, and a tail.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/cube.h"
#include "core/transfer.h"
#include "fs/reply.h"

namespace accrete {

// What a view shows of its elements: themselves, or by a byte each whether a frame gave them.
enum class Shows : std::uint8_t { elements, mask };

struct Content {
  std::string head;                  // of a view: what is before its elements
  HeapRef before, after;             // of a frame: what is before and after its elements
  TextChanges changes;               // over these three
  std::vector<Interval> headers;     // of FITS, that may be edited, as bytes of the file
  std::optional<View> view;          // whose elements; nothing where there are none
  Shows shows = Shows::elements;     // what of them
  Coding coding;                     // of the elements as the file has them
  std::optional<Transfer> transfer;  // where their values are converted for the file
  HeapRef kept;                      // of a frame: the elements as they came; what has changed
                                     // since is shown by `transfer`
  const Format* printer = nullptr;   // makes text of them; nothing: they are binary
  std::uint64_t elements = 0;
  std::uint64_t bytes_per_element = 1;
  std::uint64_t tail_bytes = 0;  // of a view
  char tail_fill = '\0';

  std::uint64_t elements_offset() const { return head.size() + before.length; }
  std::uint64_t tail_offset() const { return elements_offset() + elements * bytes_per_element; }
  std::uint64_t total() const { return tail_offset() + tail_bytes + after.length; }
};

// Content as of a snapshot; what an open file shows until it shows a newer one.
struct Shown {
  Pinned pinned;
  Content content;
};

// Answers a read of [offset, offset + size), cut at the end. Elements go straight from the mapping
// into the reply where the file has them as they are at rest and in few pieces and no element of
// the cube changes meanwhile, else through a buffer of this thread.
void reply_range(Reply reply, const Cube& cube, const Shown& shown, std::uint64_t offset,
                 std::size_t size);

}  // namespace accrete
