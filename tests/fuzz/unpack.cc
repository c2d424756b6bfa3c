// What accretefs-unpack does with the bytes of a file, in this process. The first byte chooses:
// even is gzip; odd a tile-compressed image, in lines of a header (header_text.h) and the bytes of
// its table. What is unpacked is as long as it says, no longer than allowed, and the same a second
// time (gzip: by a second path).
#define main unpack_main
#include "tools/accretefs-unpack.cc"
#undef main

#include "tests/fuzz/header_text.h"

namespace accrete::fuzzing {
namespace {

constexpr std::uint64_t most = 1 << 20;

int memory_file(std::string_view bytes) {
  const int fd = ::memfd_create("fuzz", MFD_CLOEXEC);
  ACCRETE_HOLDS(fd >= 0);
  ACCRETE_HOLDS(write_at(fd, 0, bytes.data(), bytes.size()).ok());
  return fd;
}

struct Unpacked {
  Result<std::uint64_t> number = 0;
  std::string bytes;
};

Unpacked unpack(std::string_view file, const UnpackRequest& request) {
  const Received received{request, Descriptor(memory_file(file)),
                          Descriptor(memory_file("bytes that were there before"))};
  Unpacked unpacked{answer(received), {}};
  const auto size = size_of_file(received.to.get());
  ACCRETE_HOLDS(size.ok() && *size <= most + chunk);
  unpacked.bytes.resize(*size);
  const auto n = read_at(received.to.get(), 0,
                         {reinterpret_cast<unsigned char*>(unpacked.bytes.data()), *size});
  ACCRETE_HOLDS(n.ok() && *n == *size);
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
  const Unpacked unpacked = unpack(file, request);
  if (!unpacked.number.ok()) return;
  ACCRETE_HOLDS(*unpacked.number == unpacked.bytes.size() && unpacked.bytes.size() <= most);
  // Cards that the image has besides those of its structure may be bad; the frame is refused then.
  const auto hdu = read_fits_header(unpacked.bytes, 0);
  if (hdu.ok()) ACCRETE_HOLDS(*hdu && (*hdu)->is_image() && (*hdu)->next == unpacked.bytes.size());
  const Unpacked again = unpack(file, request);
  ACCRETE_HOLDS(again.number.ok() && again.bytes == unpacked.bytes);
}

}  // namespace
}  // namespace accrete::fuzzing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace accrete::fuzzing;
  Input input(data, size);
  if (input.take<std::uint8_t>() % 2 == 0)
    check_gzip(input);
  else
    check_tiles(input);
  return 0;
}
