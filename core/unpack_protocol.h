// What core/unpacker.cc and the program accretefs-unpack say to each other. Both come from one
// build and run on one machine, so the structs travel as they are.
//
// The program's descriptor 0 is a SOCK_SEQPACKET socket. It first says `ready`. Then one message
// asks: an UnpackRequest with the descriptor (SCM_RIGHTS) of a regular file that is open for
// reading only. Any number of `piece` messages tell what the file unpacks to, and one, `done` or
// `refused`, ends the answer. Requests come one at a time; the program ends when the socket is
// closed.
//
// The program is given nothing that it could write to: once a hostile file has taken it over, it
// might fill the disk, or change or shorten a file that the daemon has already checked and mapped.
// What it unpacks passes through the socket at several GB/s, which no codec comes near, and the
// daemon writes while the program unpacks on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace accrete {

enum class UnpackKind : std::uint32_t { inflate = 1, decompress = 2 };

struct UnpackRequest {
  UnpackKind kind = UnpackKind::inflate;
  std::int32_t hdu = 0;    // decompress: which HDU is the image, 0 for the primary
  std::uint64_t size = 0;  // of the file, in bytes
  std::uint64_t keep = 0;  // inflate: so many of the first bytes are wanted
  std::uint64_t most = 0;  // bytes it may unpack to; more is EFBIG
};

enum class UnpackTell : std::uint32_t {
  ready = 1,  // followed by one sentence on each protection that the program goes without, or by
              // nothing
  piece,    // `number`: an offset in the unpacked file; followed by the bytes that belong there. No
            // bytes: it has come so far
  done,     // `number`: the unpacked length; what was in no piece is zeros
  refused,  // `error`: an errno; followed by a sentence
};

// Followed by up to max_unpack_piece bytes in the same message.
struct UnpackMessage {
  UnpackTell tell = UnpackTell::ready;
  std::int32_t error = 0;
  std::uint64_t number = 0;
};

constexpr std::size_t max_unpack_piece = std::size_t{64} << 10;

static_assert(sizeof(UnpackRequest) == 32 && std::is_trivially_copyable_v<UnpackRequest>);
static_assert(sizeof(UnpackMessage) == 16 && std::is_trivially_copyable_v<UnpackMessage>);

}  // namespace accrete
