// Unpacks compressed frames in a process of its own: what a damaged or hostile file does to the
// libraries that decompress, it does there. What that process can do is told in
// tools/unpack_sandbox.h; nothing that it answers is believed further than it can be checked.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <future>
#include <string>
#include <thread>

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
// be unpacked, kills the process, or lets it come no further: for each step it has `patience` and a
// second for each MiB of the file, for all of them that and a second for each MiB that came out.
// EFBIG for one that unpacks to more than `most` bytes; ENOMEM; EAGAIN: there are no more threads;
// the errno of a failed read or write; EIO when the process cannot be started or gives no sensible answer.
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
  using Request = std::packaged_task<Result<std::uint64_t>()>;

  // Has `request` done by the thread.
  Result<std::uint64_t> ask(int from, int to, UnpackRequest request) EXCLUDES(mutex_);

  // The thread. It alone has to do with the process, which ends when the thread that started it
  // does (PR_SET_PDEATHSIG goes by threads), so it lasts as long as this object.
  void serve() EXCLUDES(mutex_);
  Result<std::uint64_t> unpack(int from, int to, const UnpackRequest& request);
  Status start();
  Status send(int from, const UnpackRequest& request);
  Result<std::uint64_t> receive(int to, const UnpackRequest& request);
  // The next message, its bytes in `bytes_`. EINVAL: the process has died, EIO: it is no message;
  // ETIMEDOUT. The process is gone after an error.
  Result<UnpackMessage> next_message(Clock::time_point deadline);
  // The process is not to be trusted any more.
  Error strange_answer();
  // Closes the socket and waits for the process to end, `grace` long and then by killing it.
  // Gives what became of it, as "signal 11".
  std::string stop(std::chrono::milliseconds grace);

  const std::string program_;
  const std::chrono::milliseconds patience_;

  pid_t pid_ = -1;
  int socket_ = -1;
  std::string bytes_;
  std::string lacks_;  // what has been logged

  Mutex mutex_;
  CondVar wake_;
  std::deque<Request> requests_ GUARDED_BY(mutex_);
  bool ending_ GUARDED_BY(mutex_) = false;
  std::thread thread_ GUARDED_BY(mutex_);
};

}  // namespace accrete
