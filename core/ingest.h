// One incoming file, from its first byte to its commit or refusal. Knows nothing of FUSE.
//
//   probing --header known--> direct --complete + commit()--> committed
//      |                        |                                |  write after commit:
//      +--------> staged <------+ (structural header rewrite)    +--> staged, replaces the frame
//   any --error or abandon()--> refused: layers, heap and staging file are given back
//
// *probing*: bytes gather in memory until a format knows its header (at most max_header).
// *direct*: elements are written to fresh layers of boxes as they arrive, in any order; only the
// bytes before and after the elements are kept in memory (a long tail goes to a staging file).
// *staged*: the bytes lie in an unnamed file of the cube's directory: files whose header comes
// late, out of order before the header is known, or while another frame still defines the cube.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "core/result.h"
#include "core/snapshot.h"

namespace accrete {

class Cube;

// Where and as what a file comes in.
struct IngestRequest {
  std::string name;                 // checked by Cube::begin_ingest
  std::optional<std::size_t> axis;  // nothing: meta/grow
  Side side = Side::append;         // of no meaning while meta/order sorts that axis
  std::uint64_t at = 0;             // logical index, for insert
  std::uint32_t mode = 0644, uid = 0, gid = 0;
};

// Thread-safe: one lock inside; calls on different ingests run in parallel. Const members do not
// wait for others: during a commit they tell what was before.
class Ingest {
 public:
  virtual ~Ingest() = default;  // abandons what is not committed

  // Takes bytes at a file offset. EINVAL / EFBIG / ENOSPC as soon as the header alone makes the
  // frame impossible; from then on every call repeats that error.
  virtual Status write(std::uint64_t offset, std::span<const std::byte> bytes) = 0;
  // Appends at the size known here, for O_APPEND.
  virtual Status append(std::span<const std::byte> bytes) = 0;
  // Reads back; short at the end, 0 beyond it. Holes are zeros.
  virtual Result<std::size_t> read(std::uint64_t offset, std::span<std::byte> target) = 0;
  virtual Status truncate(std::uint64_t size) = 0;
  virtual std::uint64_t size() const = 0;

  virtual void set_mtime(std::int64_t ns) = 0;
  virtual void set_mode(std::uint32_t mode, std::uint32_t uid, std::uint32_t gid) = 0;
  // The name it will have at its commit. `replaces`: a frame of that name goes then, and this one
  // takes its place (rename of a temporary name).
  virtual Status set_name(std::string name, bool replaces) = 0;

  // The commit will have to go through the whole file once more (it was staged).
  virtual bool takes_long() const = 0;
  // Bytes changed since the last commit(), whatever that gave.
  virtual bool dirty() const = 0;
  virtual bool empty() const = 0;  // nothing was ever written
  // Makes the frame part of the cube, whole, or returns why not and changes nothing. After EINVAL
  // "incomplete" more bytes may follow and commit() be tried again. Committing again without new
  // bytes gives the same answer.
  virtual Result<FrameId> commit() = 0;
  virtual std::optional<FrameId> committed() const = 0;
  // Tells history that the writer got this error for the file as it stands; once for the same
  // bytes.
  virtual void note_refusal(const Error& error) = 0;
  // Gives everything back. History is told why, unless it was told before or `why` is empty.
  virtual void abandon(const std::string& why) = 0;
};

}  // namespace accrete
