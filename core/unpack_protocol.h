// What core/unpacker.cc and the program accretefs-unpack say to each other. Both come from one
// build and run on one machine, so the structs travel as they are.
//
// The program's descriptor 0 is a SOCK_SEQPACKET socket. One message asks: an UnpackRequest, with
// two descriptors (SCM_RIGHTS): the regular file to read, then the regular file to fill, which is
// emptied first. One message answers: an UnpackReply. Requests come one at a time; the program ends
// when the socket is closed.
#pragma once

#include <cstdint>
#include <type_traits>

namespace accrete {

enum class UnpackKind : std::uint32_t { inflate = 1, decompress = 2 };

struct UnpackRequest {
  UnpackKind kind = UnpackKind::inflate;
  std::int32_t hdu = 0;    // decompress: which HDU is the image, 0 for the primary
  std::uint64_t keep = 0;  // inflate: so many of the first bytes are written
  std::uint64_t most = 0;  // bytes it may unpack to; more is EFBIG
};

struct UnpackReply {
  std::int32_t error = 0;      // an errno, or 0
  std::uint32_t reserved = 0;  // 0
  std::uint64_t number = 0;    // without an error: the unpacked length
  char sentence[240] = {};     // with an error: why, ended by a NUL
};

static_assert(sizeof(UnpackRequest) == 24 && std::is_trivially_copyable_v<UnpackRequest>);
static_assert(sizeof(UnpackReply) == 256 && std::is_trivially_copyable_v<UnpackReply>);

}  // namespace accrete
