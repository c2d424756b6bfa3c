// Unpacks compressed frames in a process of its own: what a damaged or hostile file does to the
// libraries that decompress, it does there.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <string>

#include "core/mutex.h"
#include "core/result.h"
#include "core/unpack_protocol.h"

namespace accrete {

// The process is started by the first request and kept. Should it die, the request under way is
// EINVAL and the next one starts another. Thread-safe, but one request is done at a time: callers
// wait for each other.
//
// `from` is read and `to` filled, both regular files; `to` is emptied first and may hold anything
// after an error. Their offsets are neither used nor changed. Errors: EINVAL for a file that cannot
// be unpacked, EFBIG for one that unpacks to more than `most` bytes, ETIMEDOUT for one that takes
// longer than `patience` and a second for each MiB that it has or may unpack to, ENOMEM, the errno
// of a failed read or write, EIO when the process cannot be started or gives no sensible answer.
class Unpacker {
 public:
  explicit Unpacker(std::string program,
                    std::chrono::milliseconds patience = std::chrono::seconds(60));
  Unpacker(const Unpacker&) = delete;
  Unpacker& operator=(const Unpacker&) = delete;
  // No request may be under way.
  ~Unpacker();

  // accretefs-unpack beside the running program; $ACCRETE_UNPACK overrides it.
  static std::string default_program();

  // A gzip file (RFC 1952), of several members too; zeros may follow it. All of it is unpacked and
  // checked, but only the first `keep` bytes are written. Gives the whole unpacked length.
  Result<std::uint64_t> inflate(int from, int to, std::uint64_t keep, std::uint64_t most)
      EXCLUDES(mutex_);

  // A FITS file whose HDU `hdu` (0: the primary) is a tile-compressed image; `to` becomes a FITS
  // file with that image, uncompressed and as stored (BSCALE and BZERO not applied), as its primary
  // array. The HDU's checksums are checked where it has them. Gives the length of `to`.
  Result<std::uint64_t> decompress(int from, int to, int hdu, std::uint64_t most) EXCLUDES(mutex_);

 private:
  using Clock = std::chrono::steady_clock;

  Result<UnpackReply> ask(int from, int to, const UnpackRequest& request) EXCLUDES(mutex_);
  Status start() REQUIRES(mutex_);
  Status send(int from, int to, const UnpackRequest& request) REQUIRES(mutex_);
  Result<UnpackReply> receive(Clock::time_point deadline) REQUIRES(mutex_);
  // Closes the socket and waits for the process to end, `grace` long and then by killing it.
  // Gives what became of it, as "signal 11".
  std::string stop(std::chrono::milliseconds grace) REQUIRES(mutex_);

  const std::string program_;
  const std::chrono::milliseconds patience_;
  Mutex mutex_;
  pid_t pid_ GUARDED_BY(mutex_) = -1;
  int socket_ GUARDED_BY(mutex_) = -1;
};

}  // namespace accrete
