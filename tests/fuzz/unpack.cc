// What accretefs-unpack does with the bytes of a file, in this process. The first byte chooses:
// even is gzip; odd a tile-compressed image, in lines of a header (header_text.h) and the bytes of
// its table. What is unpacked is as long as it says, no longer than allowed, and the same a second
// time (gzip: by a second path; not so HCOMPRESS).
#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <ucontext.h>
#include <unistd.h>
#include <zlib.h>

#include <csetjmp>
#include <csignal>
#include <cstring>
#include <optional>
#include <thread>

#include "core/fits_card.h"
#include "core/fits_header.h"
#include "tests/fuzz/header_text.h"
#include "tools/unpack_gzip.h"
#include "tools/unpack_tiles.h"

#if defined(__SANITIZE_ADDRESS__)
#define ACCRETE_LEAK_CHECK
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ACCRETE_LEAK_CHECK
#endif
#endif
#ifdef ACCRETE_LEAK_CHECK
#include <sanitizer/lsan_interface.h>
#endif

namespace accrete::fuzzing {
namespace {

constexpr std::uint64_t most = 1 << 20;

struct Unpacked {
  Result<std::uint64_t> number = 0;
  std::string bytes;
};

// What the daemon makes of the pieces that it is told; all lie within what was asked for.
std::string put_together(int channel, std::uint64_t room) {
  std::string file;
  std::string body(max_unpack_piece, '\0');
  for (;;) {
    UnpackMessage head;
    iovec parts[] = {{&head, sizeof head}, {body.data(), body.size()}};
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    const ssize_t n = ::recvmsg(channel, &message, 0);
    ACCRETE_HOLDS(n >= static_cast<ssize_t>(sizeof head));
    if (head.tell != UnpackTell::piece) return file;
    const std::size_t length = static_cast<std::size_t>(n) - sizeof head;
    if (length == 0) continue;
    ACCRETE_HOLDS(head.number <= room && length <= room - head.number);
    file.resize(std::max<std::size_t>(file.size(), head.number + length));
    body.copy(file.data() + head.number, length);
  }
}

struct WithoutLeakCheck {
#ifdef ACCRETE_LEAK_CHECK
  WithoutLeakCheck() {
    __lsan_disable();
  }
  ~WithoutLeakCheck() {
    __lsan_enable();
  }
#else
  WithoutLeakCheck() {}
#endif
  WithoutLeakCheck(const WithoutLeakCheck&) = delete;
};

// cfitsio reads on behind an HCOMPRESS tile that ends too early. In the program such a fault is its
// end, and the frame is refused; here the search goes on.
sigjmp_buf after_fault;
struct sigaction usual_action;

const void* program_counter(const ucontext_t& at) {
#if defined(__x86_64__)
  return reinterpret_cast<const void*>(at.uc_mcontext.gregs[REG_RIP]);
#elif defined(__aarch64__)
  return reinterpret_cast<const void*>(at.uc_mcontext.pc);
#else
  return nullptr;
#endif
}

void on_fault(int signal, siginfo_t*, void* context) {
  Dl_info found{};
  if (::dladdr(program_counter(*static_cast<const ucontext_t*>(context)), &found) != 0 &&
      std::strstr(found.dli_fname, "/libcfitsio.") != nullptr)
    siglongjmp(after_fault, 1);
  ::sigaction(signal, &usual_action, nullptr);
}

void watch_faults() {
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGSEGV, &action, &usual_action);
}

Result<std::uint64_t> unpack_tiles_or_fault(const UnpackInput& input, const UnpackRequest& request,
                                            UnpackOutput& output) {
  static const bool watched = (watch_faults(), true);
  (void)watched;
  const WithoutLeakCheck after_a_fault_memory_stays;
  if (sigsetjmp(after_fault, 1) != 0)
    return fail(std::errc::invalid_argument, "the unpacking process died");
  return unpack_tiles(input, request, output);
}

Unpacked unpack(std::string_view file, const UnpackRequest& request) {
  const int fd = ::memfd_create("fuzz", MFD_CLOEXEC);
  ACCRETE_HOLDS(fd >= 0);
  ACCRETE_HOLDS(::pwrite(fd, file.data(), file.size(), 0) == static_cast<ssize_t>(file.size()));
  int channel[2];
  ACCRETE_HOLDS(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel) == 0);
  Unpacked unpacked;
  std::thread reader([&] { unpacked.bytes = put_together(channel[1], most); });
  const UnpackInput input(fd, file.size());
  UnpackOutput output(channel[0]);
  unpacked.number = request.kind == UnpackKind::inflate
                        ? unpack_gzip(input, request, output)
                        : unpack_tiles_or_fault(input, request, output);
  ACCRETE_HOLDS(output.finish(unpacked.number).ok());
  reader.join();
  for (const int end : {channel[0], channel[1], fd}) ::close(end);
  return unpacked;
}

// All members of a gzip file at once; nothing when it is damaged or unpacks to too much.
std::optional<std::string> inflate_whole(std::string_view file) {
  std::string all(most + 1, '\0');
  std::size_t done = 0;
  do {
    z_stream stream{};
    ACCRETE_HOLDS(inflateInit2(&stream, MAX_WBITS + gzip_only) == Z_OK);
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(file.data()));
    stream.avail_in = static_cast<uInt>(file.size());
    stream.next_out = reinterpret_cast<Bytef*>(all.data() + done);
    stream.avail_out = static_cast<uInt>(all.size() - done);
    const int result = ::inflate(&stream, Z_FINISH);
    file.remove_prefix(file.size() - stream.avail_in);
    done = all.size() - stream.avail_out;
    inflateEnd(&stream);
    if (result != Z_STREAM_END) return std::nullopt;
  } while (!file.empty() && file.front() != '\0');
  if (file.find_first_not_of('\0') != std::string_view::npos || done > most) return std::nullopt;
  all.resize(done);
  return all;
}

void check_gzip(Input input) {
  UnpackRequest request;
  request.kind = UnpackKind::inflate;
  request.keep = input.take<std::uint16_t>();
  request.most = most;
  const Unpacked unpacked = unpack(input.rest(), request);
  const std::optional<std::string> whole = inflate_whole(input.rest());
  ACCRETE_HOLDS(unpacked.number.ok() == whole.has_value());
  if (!whole) return;
  ACCRETE_HOLDS(*unpacked.number == whole->size());
  ACCRETE_HOLDS(unpacked.bytes == whole->substr(0, request.keep));
}

void check_tiles(Input input) {
  std::string file = make_logical_card("SIMPLE", true, "") + make_integer_card("BITPIX", 8, "") +
                     make_integer_card("NAXIS", 0, "") + "END";
  file.resize(fits_block, ' ');
  file += take_header(input);
  file += input.rest();
  file.resize((file.size() + fits_block - 1) / fits_block * fits_block);

  UnpackRequest request;
  request.kind = UnpackKind::decompress;
  request.hdu = 1;
  request.most = most;
  Unpacked unpacked = unpack(file, request);
  if (!unpacked.number.ok()) return;
  // Zeros at the end are in no piece.
  ACCRETE_HOLDS(*unpacked.number <= most && unpacked.bytes.size() <= *unpacked.number);
  unpacked.bytes.resize(*unpacked.number);
  // Cards that the image has besides those of its structure may be bad; the frame is refused then.
  const auto hdu = read_fits_header(unpacked.bytes, 0);
  if (hdu.ok()) ACCRETE_HOLDS(*hdu && (*hdu)->is_image() && (*hdu)->next == unpacked.bytes.size());
  // cfitsio goes on behind a tile of this codec that ends too early, wherever that leads.
  if (file.find("HCOMPRESS_1") != std::string::npos) return;
  Unpacked again = unpack(file, request);
  again.bytes.resize(unpacked.bytes.size());
  ACCRETE_HOLDS(again.number.ok() && again.bytes == unpacked.bytes);
}

}  // namespace
}  // namespace accrete::fuzzing

// Memory that cannot be had is an error of one file.
extern "C" const char* __asan_default_options() {
  return "allocator_may_return_null=1";
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace accrete::fuzzing;
  Input input(data, size);
  if (input.take<std::uint8_t>() % 2 == 0)
    check_gzip(input);
  else
    check_tiles(input);
  return 0;
}
