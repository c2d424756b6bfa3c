// The answers of accretefs-unpack, on their way to the daemon (core/unpack_protocol.h).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "core/unpack_protocol.h"

namespace accrete {

// Every call: EPIPE when the daemon no longer listens.
class UnpackOutput {
 public:
  // `channel`: the socket, which must stay open.
  explicit UnpackOutput(int channel) : channel_(channel) {}
  UnpackOutput(const UnpackOutput&) = delete;
  UnpackOutput& operator=(const UnpackOutput&) = delete;

  // What the program goes without; empty for nothing.
  Status ready(const std::string& lacks);
  // Bytes of the unpacked file from `offset` on. They are held back while others may continue them.
  Status write(std::uint64_t offset, std::string_view bytes);
  // The file is unpacked up to `offset`, though no bytes are wanted. Said now and then only.
  Status reach(std::uint64_t offset);
  // Ends the answer; forgets what was held back of one that failed.
  Status finish(const Result<std::uint64_t>& length);

 private:
  Status flush();
  Status send(UnpackTell tell, std::uint64_t number, std::string_view bytes, int error = 0);

  const int channel_;
  std::string held_;               // a piece not yet sent
  std::uint64_t held_offset_ = 0;  // its place
  std::uint64_t told_ = 0;         // up to where the daemon knows that it is unpacked
};

}  // namespace accrete
