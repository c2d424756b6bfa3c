// accretefs-unpack: decompresses frames for accretefs, in a process that may die of them.
//
// core/unpack_protocol.h tells what it is asked and answers. It opens nothing but the descriptors
// it is given and keeps nothing from one request to the next.
#include <fitsio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/fits_card.h"
#include "core/fits_header.h"
#include "core/result.h"
#include "core/shape.h"
#include "core/unpack_protocol.h"

namespace accrete {
namespace {

constexpr char usage[] =
    "accretefs-unpack " ACCRETE_VERSION
    ": accretefs starts this program itself; there is no use in running it by hand\n";

constexpr std::size_t chunk = std::size_t{256} << 10;     // read or written at once
constexpr std::size_t most_held = std::size_t{64} << 20;  // pixels in memory, but for a larger tile

constexpr int gzip_only = 16;  // added to zlib's window bits

Error bad(std::string sentence) {
  return fail(std::errc::invalid_argument, std::move(sentence));
}

Error too_large(std::uint64_t most) {
  return fail(std::errc::file_too_large,
              "the file unpacks to more than " + std::to_string(most) + " bytes");
}

template <class Call>
auto retry(Call call) {
  for (;;) {
    const auto result = call();
    if (result >= 0 || errno != EINTR) return result;
  }
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

Result<std::uint64_t> size_of_file(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return fail_errno(errno, "fstat of the file to unpack");
  if (!S_ISREG(status.st_mode)) return bad("what should be unpacked is not a regular file");
  return static_cast<std::uint64_t>(status.st_size);
}

// Up to `target.size()` bytes from `offset` on; fewer at the end of the file only.
Result<std::size_t> read_at(int fd, std::uint64_t offset, std::span<unsigned char> target) {
  std::size_t done = 0;
  while (done < target.size()) {
    const ssize_t n = retry([&] {
      return ::pread(fd, target.data() + done, target.size() - done,
                     static_cast<off_t>(offset + done));
    });
    if (n < 0) return fail_errno(errno, "read the file to unpack");
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  return done;
}

Status write_at(int fd, std::uint64_t offset, const void* data, std::size_t size) {
  const auto* bytes = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t n = retry([&] { return ::pwrite(fd, bytes, size, static_cast<off_t>(offset)); });
    if (n < 0) return fail_errno(errno, "write the unpacked file");
    bytes += n;
    size -= static_cast<std::size_t>(n);
    offset += static_cast<std::uint64_t>(n);
  }
  return {};
}

Status truncate(int fd, std::uint64_t size) {
  if (retry([&] { return ::ftruncate(fd, static_cast<off_t>(size)); }) != 0)
    return fail_errno(errno, "truncate the unpacked file");
  return {};
}

// ---- gzip ----

// Unpacks the members of a gzip file one after the other; zlib checks their CRCs and lengths.
class Inflater {
 public:
  Inflater(int from, int to, const UnpackRequest& request)
      : from_(from), to_(to), keep_(request.keep), most_(request.most) {}
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
  ~Inflater() {
    if (started_) inflateEnd(&stream_);
  }

  Result<std::uint64_t> run() {
    if (inflateInit2(&stream_, MAX_WBITS + gzip_only) != Z_OK) throw std::bad_alloc();
    started_ = true;
    ACCRETE_CHECK(unpack_member());
    for (;;) {
      ACCRETE_TRY(const std::optional<unsigned char> next, peek());
      if (!next) return total_;
      if (*next == 0) break;
      if (*next != 0x1f) return bad("the gzip file is damaged: other bytes follow its end");
      inflateReset(&stream_);
      ACCRETE_CHECK(unpack_member());
    }
    ACCRETE_CHECK(expect_zeros());
    return total_;
  }

 private:
  Status unpack_member() {
    for (;;) {
      ACCRETE_TRY(const std::optional<unsigned char> next, peek());
      if (!next) return bad("the gzip file is truncated");
      stream_.next_out = unpacked_.data();
      stream_.avail_out = static_cast<uInt>(unpacked_.size());
      const int result = ::inflate(&stream_, Z_NO_FLUSH);
      if (result == Z_MEM_ERROR) throw std::bad_alloc();
      // Z_BUF_ERROR: all of the input is used, and more is needed.
      if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
        return bad(std::string("the gzip file is damaged") +
                   (stream_.msg != nullptr ? ": " + std::string(stream_.msg) : ""));
      ACCRETE_CHECK(take(unpacked_.size() - stream_.avail_out));
      if (result == Z_STREAM_END) return {};
    }
  }

  // Takes the first `size` bytes of unpacked_.
  Status take(std::size_t size) {
    if (size > most_ - total_) return too_large(most_);
    if (total_ < keep_)
      ACCRETE_CHECK(
          write_at(to_, total_, unpacked_.data(),
                   static_cast<std::size_t>(std::min<std::uint64_t>(size, keep_ - total_))));
    total_ += size;
    return {};
  }

  // The next byte of the input, which is read on when it is used up; nothing at its end.
  Result<std::optional<unsigned char>> peek() {
    if (stream_.avail_in == 0) {
      ACCRETE_TRY(const std::size_t n, read_at(from_, offset_, packed_));
      offset_ += n;
      stream_.next_in = packed_.data();
      stream_.avail_in = static_cast<uInt>(n);
      if (n == 0) return std::optional<unsigned char>();
    }
    return std::optional(*stream_.next_in);
  }

  Status expect_zeros() {
    for (;;) {
      ACCRETE_TRY(const std::optional<unsigned char> next, peek());
      if (!next) return {};
      if (std::any_of(stream_.next_in, stream_.next_in + stream_.avail_in,
                      [](unsigned char c) { return c != 0; }))
        return bad("the gzip file is damaged: other bytes follow its end");
      stream_.avail_in = 0;
    }
  }

  const int from_, to_;
  const std::uint64_t keep_, most_;
  std::vector<unsigned char> packed_ = std::vector<unsigned char>(chunk);
  std::vector<unsigned char> unpacked_ = std::vector<unsigned char>(chunk);
  std::uint64_t offset_ = 0;  // where to read on
  std::uint64_t total_ = 0;   // unpacked so far
  z_stream stream_{};
  bool started_ = false;
};

// ---- The headers of tile-compressed images, read before cfitsio sees them ----

// A file mapped for reading; should it become shorter meanwhile, touching the rest is SIGBUS.
class Mapping {
 public:
  static Result<Mapping> of(int fd) {
    ACCRETE_TRY(const std::uint64_t size, size_of_file(fd));
    if (size == 0) return bad("the FITS file is empty");
    void* const address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
    if (address == MAP_FAILED) return fail_errno(errno, "map the file to unpack");
    return Mapping(static_cast<const char*>(address), size);
  }
  Mapping(Mapping&& other) noexcept
      : address_(std::exchange(other.address_, nullptr)), size_(other.size_) {}
  Mapping& operator=(Mapping&&) = delete;
  ~Mapping() {
    if (address_ != nullptr) ::munmap(const_cast<char*>(address_), size_);
  }
  std::string_view text() const { return {address_, size_}; }

 private:
  Mapping(const char* address, std::size_t size) : address_(address), size_(size) {}

  const char* address_;
  std::size_t size_;
};

constexpr std::size_t most_rank = MAX_COMPRESS_DIM;
static_assert(most_rank <= max_rank);

// Fastest axis first.
using Box = PerAxis<std::uint64_t>;

struct TiledImage {
  int bitpix = 0;
  Box shape;
  Box tile;                // its extents, at most those of the image
  std::string codec;       // ZCMPTYPE
  bool quantised = false;  // floats, as far as the cards say
  std::string header;      // of the uncompressed image, padded

  std::uint64_t element_size() const { return static_cast<std::uint64_t>(std::abs(bitpix)) / 8; }
};

std::string to_text(std::string_view text) {
  return is_printable(text) ? std::string(text) : "something unreadable";
}

// The cards before END of the HDU that holds the image.
class ContainerHeader {
 public:
  explicit ContainerHeader(std::string_view text) {
    for (; text.size() >= card_length; text.remove_prefix(card_length)) {
      const std::string_view card = text.substr(0, card_length);
      if (keyword_of(card) == "END") break;
      cards_.push_back(card);
    }
  }

  const std::vector<std::string_view>& cards() const { return cards_; }

  // Nothing when there is no such card; two of them are an error, for cfitsio might take the other.
  Result<std::optional<std::string_view>> find(std::string_view keyword) const {
    std::optional<std::string_view> found;
    for (const std::string_view card : cards_) {
      if (keyword_of(card) != keyword) continue;
      if (found) return bad("the compressed image has two cards " + std::string(keyword));
      found = card;
    }
    return found;
  }

  Result<std::string_view> get(const std::string& keyword) const {
    ACCRETE_TRY(const std::optional<std::string_view> card, find(keyword));
    if (!card) return bad("the compressed image has no card " + keyword);
    return *card;
  }

  Result<std::int64_t> integer(const std::string& keyword) const {
    ACCRETE_TRY(const std::string_view card, get(keyword));
    return integer_of(card);
  }

  static Result<std::int64_t> integer_of(std::string_view card) {
    std::string_view digits = value_of(card).value_or("");
    if (digits.starts_with("+") && !digits.starts_with("+-")) digits.remove_prefix(1);
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc{} || end != digits.data() + digits.size())
      return bad("the card " + std::string(keyword_of(card)) + " has no valid value");
    return value;
  }

 private:
  std::vector<std::string_view> cards_;
};

std::string_view comment_of(std::string_view card) {
  const std::optional<std::string_view> value = value_of(card);
  if (!value) return {};
  std::string_view rest =
      card.substr(static_cast<std::size_t>(value->data() + value->size() - card.data()));
  const std::size_t slash = rest.find('/');
  if (slash == std::string_view::npos) return {};
  rest.remove_prefix(slash + 1);
  rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
  return rest.substr(0, rest.find_last_not_of(' ') + 1);
}

// True for cards that speak of the table or of the compression, not of the image. ZBITPIX and the
// like become the image's first cards; the checksums are of other bytes.
bool is_of_container(std::string_view card) {
  static constexpr std::string_view keywords[] = {
      "XTENSION", "BITPIX",  "NAXIS",  "PCOUNT",   "GCOUNT",   "TFIELDS",  "THEAP",
      "CHECKSUM", "DATASUM", "ZIMAGE", "ZCMPTYPE", "ZSIMPLE",  "ZEXTEND",  "ZBLOCKED",
      "ZTENSION", "ZBITPIX", "ZNAXIS", "ZPCOUNT",  "ZGCOUNT",  "ZQUANTIZ", "ZDITHER0",
      "ZMASKCMP", "ZBLANK",  "ZSCALE", "ZZERO",    "ZHECKSUM", "ZDATASUM"};
  static constexpr std::string_view stems[] = {"NAXIS", "TTYPE", "TFORM", "TUNIT", "TNULL",
                                               "TSCAL", "TZERO", "TDISP", "TDIM",  "ZNAXIS",
                                               "ZTILE", "ZNAME", "ZVAL"};
  const std::string_view keyword = keyword_of(card);
  return std::find(std::begin(keywords), std::end(keywords), keyword) != std::end(keywords) ||
         std::any_of(std::begin(stems), std::end(stems),
                     [&](std::string_view stem) { return is_indexed_keyword(card, stem); });
}

// The header of the image as a primary array.
Result<std::string> plain_header(const ContainerHeader& container, const TiledImage& image) {
  std::string header;
  const auto comment = [&](const std::string& keyword) -> Result<std::string_view> {
    ACCRETE_TRY(const std::optional<std::string_view> card, container.find(keyword));
    return card ? comment_of(*card) : std::string_view();
  };
  const auto add_integer = [&](const std::string& keyword, std::int64_t value) -> Status {
    ACCRETE_TRY(const std::string_view text, comment("Z" + keyword));
    header += make_integer_card(keyword, value, text);
    return {};
  };
  ACCRETE_TRY(const std::string_view simple, comment("ZSIMPLE"));
  header += make_logical_card("SIMPLE", true, simple);
  ACCRETE_CHECK(add_integer("BITPIX", image.bitpix));
  ACCRETE_CHECK(add_integer("NAXIS", static_cast<std::int64_t>(image.shape.size())));
  for (std::size_t i = 0; i < image.shape.size(); ++i)
    ACCRETE_CHECK(
        add_integer("NAXIS" + std::to_string(i + 1), static_cast<std::int64_t>(image.shape[i])));
  ACCRETE_TRY(const std::optional<std::string_view> extend, container.find("ZEXTEND"));
  if (extend)
    header += make_logical_card("EXTEND", logical_of(*extend) == true, comment_of(*extend));

  // A name that says of the table that it holds a compressed image is none of the image.
  bool named = true;
  for (const std::string_view card : container.cards()) {
    if (keyword_of(card) != "EXTNAME") continue;
    named = string_of(card) != "COMPRESSED_IMAGE";
    break;
  }
  for (const std::string_view card : container.cards())
    if (!is_of_container(card) && (named || keyword_of(card) != "EXTNAME")) header += card;
  while (header.ends_with(std::string(card_length, ' ')))
    header.resize(header.size() - card_length);
  header += "END";
  header.resize((header.size() + fits_block - 1) / fits_block * fits_block, ' ');
  return header;
}

// cfitsio counts the pixels of a tile, and the tiles, in ints.
Status check_tiles(const Box& shape, const Box& tile) {
  const Error error = bad("the tiles of the compressed image are too large or too many");
  std::uint64_t pixels = 1, tiles = 1;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    const Result<std::uint64_t> all_pixels = checked_multiply(pixels, tile[i]);
    const Result<std::uint64_t> all_tiles = checked_multiply(tiles, (shape[i] - 1) / tile[i] + 1);
    if (!all_pixels.ok() || *all_pixels > INT_MAX || !all_tiles.ok() || *all_tiles > INT_MAX)
      return error;
    pixels = *all_pixels;
    tiles = *all_tiles;
  }
  return {};
}

Result<TiledImage> read_tiled_image(const ContainerHeader& container) {
  TiledImage image;
  ACCRETE_TRY(const std::string_view type, container.get("ZCMPTYPE"));
  const std::optional<std::string> codec = string_of(type);
  if (!codec || codec->empty()) return bad("the card ZCMPTYPE has no valid value");
  image.codec = *codec;
  if (image.codec == "RICE_ONE") image.codec = "RICE_1";
  static constexpr std::string_view codecs[] = {"RICE_1", "GZIP_1",      "GZIP_2",
                                                "PLIO_1", "HCOMPRESS_1", "NOCOMPRESS"};
  if (std::find(std::begin(codecs), std::end(codecs), image.codec) == std::end(codecs))
    return bad("the image is compressed by " + to_text(image.codec) + ", which is not supported");

  ACCRETE_TRY(const std::int64_t bitpix, container.integer("ZBITPIX"));
  if (bitpix == 64) return bad("compressed images of 64-bit integers are not supported");
  if (bitpix != 8 && bitpix != 16 && bitpix != 32 && bitpix != -32 && bitpix != -64)
    return bad("ZBITPIX = " + std::to_string(bitpix) + " is not one of 8, 16, 32, -32 and -64");
  image.bitpix = static_cast<int>(bitpix);

  ACCRETE_TRY(const std::int64_t rank, container.integer("ZNAXIS"));
  if (rank < 1 || rank > static_cast<std::int64_t>(most_rank))
    return bad("ZNAXIS = " + std::to_string(rank) + ", but compressed images have 1 to " +
               std::to_string(most_rank) + " axes");
  Box stated_tile;
  for (std::size_t i = 0; i < static_cast<std::size_t>(rank); ++i) {
    const std::string number = std::to_string(i + 1);
    ACCRETE_TRY(const std::int64_t extent, container.integer("ZNAXIS" + number));
    if (extent < 1) return bad("ZNAXIS" + number + " = " + std::to_string(extent));
    std::int64_t tile = i == 0 ? extent : 1;
    ACCRETE_TRY(const std::optional<std::string_view> card, container.find("ZTILE" + number));
    if (card) {
      ACCRETE_TRY(tile, ContainerHeader::integer_of(*card));
      if (tile < 1) return bad("ZTILE" + number + " = " + std::to_string(tile));
    }
    image.shape.push_back(static_cast<std::uint64_t>(extent));
    stated_tile.push_back(static_cast<std::uint64_t>(tile));
    image.tile.push_back(static_cast<std::uint64_t>(std::min(tile, extent)));
  }
  ACCRETE_CHECK(check_tiles(image.shape, stated_tile));
  // cfitsio reads such images, but loses all but the first five-dimensional part of each tile.
  if (rank > 5 && image.tile[5] > 1)
    return bad("compressed images with tiles along more than five axes are not supported");
  if (image.codec == "RICE_1") {
    ACCRETE_TRY(const std::int64_t block, container.integer("ZVAL1"));
    if (block < 1) return bad("ZVAL1 = " + std::to_string(block));
  }
  ACCRETE_TRY(const std::optional<std::string_view> quantisation, container.find("ZQUANTIZ"));
  image.quantised = image.bitpix < 0 && !(quantisation && string_of(*quantisation) == "NONE");
  ACCRETE_TRY(image.header, plain_header(container, image));
  return image;
}

// cfitsio quotes a number that it cannot read in a message, for which it has too little room.
Status check_numbers(const ContainerHeader& header) {
  constexpr std::size_t longest = 28;
  for (const std::string_view card : header.cards()) {
    const std::string_view value = value_of(card).value_or("");
    if (value.size() > longest && !value.starts_with('\'') && is_of_container(card))
      return bad("the card " + std::string(keyword_of(card)) + " has no valid value");
  }
  return {};
}

// The header of the HDU that should be the image. All headers up to it have then been checked:
// cfitsio trusts the structure of a file more than it should.
Result<ContainerHeader> find_container(std::string_view text, int index) {
  constexpr std::uint64_t most_axes = 99;  // cfitsio reads the extents into an array of so many
  std::uint64_t start = 0;
  for (int i = 0;; ++i) {
    if (start > text.size() || starts_fits_hdu(text.substr(start), i == 0) != true)
      return bad("the FITS file has no HDU " + std::to_string(index));
    ACCRETE_TRY(const std::optional<FitsHdu> hdu, read_fits_header(text.substr(start), start));
    if (!hdu) return bad("the FITS file is truncated");
    if (hdu->naxis > most_axes)
      return bad("NAXIS = " + std::to_string(hdu->naxis) + " is too many axes");
    const ContainerHeader header(text.substr(start, hdu->data_offset - start));
    ACCRETE_CHECK(check_numbers(header));
    if (i == index) {
      if (hdu->extension != "BINTABLE" || hdu->naxis != 2 || !hdu->tile_compressed)
        return bad("HDU " + std::to_string(index) + " is no tile-compressed image");
      if (hdu->data_offset + hdu->data_bytes > text.size())
        return bad("the FITS file is truncated");
      return header;
    }
    start = hdu->next;
  }
}

// ---- Pixels, by cfitsio ----

Error error_of(int status) {
  char text[FLEN_STATUS] = {};
  fits_get_errstatus(status, text);
  fits_clear_errmsg();
  if (status == MEMORY_ALLOCATION)
    return fail(std::errc::not_enough_memory, "not enough memory to decompress the image");
  return bad(std::string("the image cannot be decompressed: ") +
             (is_printable(text) ? text : "damaged"));
}

int cfitsio_type(int bitpix) {
  switch (bitpix) {
    case 8:
      return TBYTE;
    case 16:
      return TSHORT;
    case 32:
      return TINT;
    case -32:
      return TFLOAT;
    default:
      return TDOUBLE;
  }
}

class CompressedPixels {
 public:
  CompressedPixels() = default;
  CompressedPixels(const CompressedPixels&) = delete;
  CompressedPixels& operator=(const CompressedPixels&) = delete;
  ~CompressedPixels() {
    int status = 0;
    if (file_ != nullptr) fits_close_file(file_, &status);
    fits_clear_errmsg();
  }

  Status open(int fd, int hdu, const TiledImage& image) {
    image_ = &image;
    ACCRETE_TRY(file_size_, size_of_file(fd));
    fits_clear_errmsg();
    const std::string path = "/proc/self/fd/" + std::to_string(fd);
    int status = 0;
    fits_open_diskfile(&file_, path.c_str(), READONLY, &status);
    fits_movabs_hdu(file_, hdu + 1, nullptr, &status);
    if (status != 0) return error_of(status);
    if (fits_is_compressed_image(file_, &status) == 0)
      return bad("HDU " + std::to_string(hdu) + " is no tile-compressed image");
    ACCRETE_CHECK(check_sums());

    int bitpix = 0, rank = 0;
    std::array<LONGLONG, most_rank> extents{};
    fits_get_img_paramll(file_, most_rank, &bitpix, &rank, extents.data(), &status);
    if (status != 0) return error_of(status);
    bool same = bitpix == image.bitpix && static_cast<std::size_t>(rank) == image.shape.size();
    for (std::size_t i = 0; same && i < image.shape.size(); ++i)
      same = static_cast<std::uint64_t>(extents[i]) == image.shape[i];
    if (!same) return bad("the header of the compressed image is ambiguous");

    fits_set_bscale(file_, 1, 0, &status);
    if (status != 0) return error_of(status);
    compressed_ = column("COMPRESSED_DATA");
    if (compressed_ == 0) return bad("the compressed image has no column COMPRESSED_DATA");
    uncompressed_ = column("UNCOMPRESSED_DATA");
    gzipped_ = column("GZIP_COMPRESSED_DATA");
    quantised_ = image.quantised && (column("ZSCALE") != 0 || column("ZZERO") != 0);
    return {};
  }

  // The pixels [first, first + extent), which are those of one tile: the table's row `row`, from 1.
  Status read(std::uint64_t row, const Box& first, const Box& extent, void* target) {
    std::array<long, most_rank> from{}, to{}, step{};
    LONGLONG pixels = 1;
    for (std::size_t i = 0; i < first.size(); ++i) {
      from[i] = static_cast<long>(first[i]) + 1;
      to[i] = static_cast<long>(first[i] + extent[i]);
      step[i] = 1;
      pixels *= static_cast<LONGLONG>(extent[i]);
    }
    ACCRETE_TRY(const bool packed, check_tile(static_cast<LONGLONG>(row), pixels));
    // Quantised floats are looked through for the value that stands for no value. All other pixels
    // come as they are: looking for NaN would make one NaN of all, and 0 of the smallest values.
    const bool look = quantised_ && packed;
    float float_null = std::bit_cast<float>(~std::uint32_t{0});
    double double_null = std::bit_cast<double>(~std::uint64_t{0});
    void* const null = image_->bitpix == -32 ? static_cast<void*>(&float_null) : &double_null;
    int status = 0, any_null = 0;
    fits_read_subset(file_, cfitsio_type(image_->bitpix), from.data(), to.data(), step.data(),
                     look ? null : nullptr, target, &any_null, &status);
    if (status != 0) return error_of(status);
    return {};
  }

 private:
  // 0 when there is no such column.
  int column(std::string name) {
    int number = 0, status = 0;
    fits_get_colnum(file_, CASEINSEN, name.data(), &number, &status);
    fits_clear_errmsg();
    return status == 0 ? number : 0;
  }

  Status check_sums() {
    int data = 0, hdu = 0, status = 0;
    fits_verify_chksum(file_, &data, &hdu, &status);
    if (status != 0) return error_of(status);
    if (data < 0) return bad("the compressed image is damaged: its DATASUM does not fit");
    if (hdu < 0) return bad("the compressed image is damaged: its CHECKSUM does not fit");
    return {};
  }

  // Checks what cfitsio takes on trust: it would write beyond a tile's memory, leave it unset, or
  // not come to an end. True when the tile was compressed as the image says, false when that did
  // not work and it was stored otherwise.
  Result<bool> check_tile(LONGLONG row, LONGLONG pixels) {
    ACCRETE_TRY(LONGLONG length, length_of(compressed_, row));
    const auto count = static_cast<std::uint64_t>(pixels);
    if (length == 0) {
      if (uncompressed_ != 0) {
        ACCRETE_TRY(length, length_of(uncompressed_, row));
        if (length != pixels) return wrong_size();
      } else if (gzipped_ != 0) {
        ACCRETE_TRY(length, length_of(gzipped_, row));
        ACCRETE_TRY(const std::uint64_t unpacked, check_gzip(gzipped_, row, length));
        if (unpacked != count * image_->element_size()) return wrong_size();
      }
      return false;
    }
    if (image_->codec == "HCOMPRESS_1") {
      // A tile begins with a magic number and two big-endian extents.
      constexpr LONGLONG head = 10;
      if (length < head) return wrong_size();
      ACCRETE_CHECK(read_bytes(compressed_, row, head));
      const std::uint64_t width = big_endian_at(2), height = big_endian_at(6);
      if (width > INT_MAX || height > INT_MAX || width * height != count) return wrong_size();
    } else if (image_->codec.starts_with("GZIP")) {
      ACCRETE_TRY(const std::uint64_t unpacked, check_gzip(compressed_, row, length));
      if (image_->bitpix < 0 && !quantised_) {
        if (unpacked != count * image_->element_size()) return wrong_size();
      } else if (unpacked != count && unpacked != count * 2 && unpacked != count * 4) {
        return wrong_size();
      }
    }
    return true;
  }

  static Error wrong_size() {
    return bad("the compressed image is damaged: a tile has a wrong size");
  }

  // Elements of a variable-length array; no more than there are bytes in the file.
  Result<LONGLONG> length_of(int column, LONGLONG row) {
    LONGLONG length = 0, offset = 0;
    int status = 0;
    fits_read_descriptll(file_, column, row, &length, &offset, &status);
    if (status != 0) return error_of(status);
    if (length < 0 || static_cast<std::uint64_t>(length) > file_size_) return wrong_size();
    return length;
  }

  // Its first bytes, into bytes_.
  Status read_bytes(int column, LONGLONG row, LONGLONG length) {
    bytes_.resize(static_cast<std::size_t>(length));
    int status = 0;
    if (length > 0)
      fits_read_col(file_, TBYTE, column, row, 1, length, nullptr, bytes_.data(), nullptr, &status);
    if (status != 0) return error_of(status);
    return {};
  }

  std::uint64_t big_endian_at(std::size_t at) const {
    std::uint64_t value = 0;
    for (std::size_t i = at; i < at + 4; ++i) value = value << 8 | bytes_[i];
    return value;
  }

  // The unpacked length of a tile that is a gzip member. cfitsio asks for ever more memory for one
  // that is truncated.
  Result<std::uint64_t> check_gzip(int column, LONGLONG row, LONGLONG length) {
    ACCRETE_CHECK(read_bytes(column, row, length));
    z_stream stream{};
    if (inflateInit2(&stream, MAX_WBITS + gzip_only) != Z_OK) throw std::bad_alloc();
    const std::unique_ptr<z_stream, int (*)(z_stream*)> end(&stream, inflateEnd);
    unpacked_.resize(chunk);
    std::size_t given = 0;
    std::uint64_t total = 0;
    int result = Z_OK;
    while (result == Z_OK && total <= std::uint64_t{INT_MAX} * sizeof(double)) {
      if (stream.avail_in == 0) {
        const std::size_t more = std::min<std::size_t>(bytes_.size() - given, INT_MAX);
        stream.next_in = bytes_.data() + given;
        stream.avail_in = static_cast<uInt>(more);
        given += more;
      }
      stream.next_out = unpacked_.data();
      stream.avail_out = static_cast<uInt>(unpacked_.size());
      result = ::inflate(&stream, Z_NO_FLUSH);
      total += unpacked_.size() - stream.avail_out;
    }
    if (result == Z_MEM_ERROR) throw std::bad_alloc();
    if (result != Z_STREAM_END)
      return bad("the compressed image is damaged: a tile cannot be unpacked");
    return total;
  }

  fitsfile* file_ = nullptr;
  const TiledImage* image_ = nullptr;
  std::uint64_t file_size_ = 0;
  int compressed_ = 0, uncompressed_ = 0, gzipped_ = 0;  // columns, 0: none
  bool quantised_ = false;
  std::vector<unsigned char> bytes_;     // of a tile as it is stored
  std::vector<unsigned char> unpacked_;  // a part of one
};

std::uint64_t product(const Box& extents) {
  std::uint64_t n = 1;
  for (const std::uint64_t extent : extents) n *= extent;
  return n;
}

template <class T>
void swap_bytes(std::span<char> bytes) {
  for (std::size_t i = 0; i < bytes.size(); i += sizeof(T)) {
    T value;
    std::memcpy(&value, bytes.data() + i, sizeof(T));
    if constexpr (sizeof(T) == 2) value = __builtin_bswap16(value);
    if constexpr (sizeof(T) == 4) value = __builtin_bswap32(value);
    if constexpr (sizeof(T) == 8) value = __builtin_bswap64(value);
    std::memcpy(bytes.data() + i, &value, sizeof(T));
  }
}

void to_big_endian(std::span<char> bytes, std::uint64_t element_size) {
  if (element_size == 2) swap_bytes<std::uint16_t>(bytes);
  if (element_size == 4) swap_bytes<std::uint32_t>(bytes);
  if (element_size == 8) swap_bytes<std::uint64_t>(bytes);
}

// Moves `index` to the next one in [0, counts), the axis `from` varying fastest; false at the end.
bool advance(Box& index, const Box& counts, std::size_t from) {
  for (std::size_t i = from; i < counts.size(); ++i) {
    if (++index[i] < counts[i]) return true;
    index[i] = 0;
  }
  return false;
}

// Decompresses tile after tile, each once, and writes them by boxes: as many tiles that follow each
// other along the first axis as may be held.
class ImageWriter {
 public:
  ImageWriter(const TiledImage& image, CompressedPixels& pixels, int to)
      : image_(image), pixels_(pixels), to_(to) {}

  Status run() {
    Box counts(image_.shape.size());
    for (std::size_t i = 0; i < counts.size(); ++i)
      counts[i] = (image_.shape[i] - 1) / image_.tile[i] + 1;
    const std::uint64_t tile_bytes = product(image_.tile) * image_.element_size();
    const std::uint64_t at_once = std::clamp<std::uint64_t>(most_held / tile_bytes, 1, counts[0]);
    std::uint64_t row = 1;
    Box index(counts.size());
    do {
      for (std::uint64_t i = 0; i < counts[0]; i += at_once) {
        index[0] = i;
        const std::uint64_t tiles = std::min(at_once, counts[0] - i);
        ACCRETE_CHECK(copy_box(index, tiles, row));
        row += tiles;
      }
      index[0] = 0;
    } while (advance(index, counts, 1));
    return {};
  }

 private:
  // `tiles` tiles from the one at `index` on, whose first is the table's row `row`.
  Status copy_box(const Box& index, std::uint64_t tiles, std::uint64_t row) {
    Box first(index.size()), extent(index.size());
    for (std::size_t i = 0; i < index.size(); ++i) {
      first[i] = index[i] * image_.tile[i];
      extent[i] = std::min(image_.tile[i] * (i == 0 ? tiles : 1), image_.shape[i] - first[i]);
    }
    box_.resize(product(extent) * image_.element_size());
    if (tiles == 1) {
      ACCRETE_CHECK(pixels_.read(row, first, extent, box_.data()));
    } else {
      for (std::uint64_t i = 0; i < tiles; ++i) ACCRETE_CHECK(add_tile(first, extent, i, row + i));
    }
    to_big_endian(box_, image_.element_size());
    return write_box(first, extent);
  }

  Status add_tile(const Box& box_first, const Box& box_extent, std::uint64_t number,
                  std::uint64_t row) {
    Box first = box_first, extent = box_extent;
    first[0] += number * image_.tile[0];
    extent[0] = std::min(image_.tile[0], image_.shape[0] - first[0]);
    const std::uint64_t size = image_.element_size();
    tile_.resize(product(extent) * size);
    ACCRETE_CHECK(pixels_.read(row, first, extent, tile_.data()));
    const std::uint64_t length = extent[0] * size;
    char* target = box_.data() + (first[0] - box_first[0]) * size;
    for (std::uint64_t at = 0; at < tile_.size(); at += length, target += box_extent[0] * size)
      std::memcpy(target, tile_.data() + at, length);
    return {};
  }

  Status write_box(const Box& first, const Box& extent) {
    // The axes before `whole` are contiguous in the image.
    std::size_t whole = 1;
    std::uint64_t run = extent[0] * image_.element_size();
    while (whole < extent.size() && extent[whole - 1] == image_.shape[whole - 1])
      run *= extent[whole++];
    Box index(extent.size());
    for (std::uint64_t at = 0; at < box_.size(); at += run, advance(index, extent, whole)) {
      std::uint64_t offset = 0;
      for (std::size_t i = extent.size(); i-- > 0;)
        offset = offset * image_.shape[i] + first[i] + index[i];
      ACCRETE_CHECK(write_at(to_, image_.header.size() + offset * image_.element_size(),
                             box_.data() + at, run));
    }
    return {};
  }

  const TiledImage& image_;
  CompressedPixels& pixels_;
  const int to_;
  std::vector<char> box_, tile_;
};

Result<std::uint64_t> decompress(int from, int to, const UnpackRequest& request) {
  ACCRETE_TRY(const Mapping mapping, Mapping::of(from));
  ACCRETE_TRY(const ContainerHeader container, find_container(mapping.text(), request.hdu));
  ACCRETE_TRY(const TiledImage image, read_tiled_image(container));
  std::uint64_t bytes = image.element_size();
  for (const std::uint64_t extent : image.shape) {
    const Result<std::uint64_t> more = checked_multiply(bytes, extent);
    if (!more.ok() || *more > request.most) return too_large(request.most);
    bytes = *more;
  }
  const std::uint64_t blocks = (bytes + fits_block - 1) / fits_block;
  const std::uint64_t length = image.header.size() + blocks * fits_block;
  if (length > request.most) return too_large(request.most);

  CompressedPixels pixels;
  ACCRETE_CHECK(pixels.open(from, request.hdu, image));
  ACCRETE_CHECK(write_at(to, 0, image.header.data(), image.header.size()));
  ACCRETE_CHECK(ImageWriter(image, pixels, to).run());
  ACCRETE_CHECK(truncate(to, length));
  return length;
}

// ---- Requests ----

constexpr int channel = 0;

struct Received {
  UnpackRequest request;
  Descriptor from, to;
};

// Nothing when the socket is closed, or what came is no request.
std::optional<Received> receive() {
  UnpackRequest request;
  constexpr std::size_t count = 2;
  alignas(cmsghdr) char control[CMSG_SPACE(count * sizeof(int))] = {};
  iovec body{&request, sizeof request};
  msghdr message{};
  message.msg_iov = &body;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t n = retry([&] { return ::recvmsg(channel, &message, MSG_CMSG_CLOEXEC); });
  const cmsghdr* const header = n > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
  if (n != sizeof request || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 ||
      header == nullptr || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS ||
      header->cmsg_len != CMSG_LEN(count * sizeof(int)))
    return std::nullopt;
  int descriptors[count];
  std::memcpy(descriptors, CMSG_DATA(header), sizeof descriptors);
  return Received{request, Descriptor(descriptors[0]), Descriptor(descriptors[1])};
}

Result<std::uint64_t> answer(const Received& received) {
  const int from = received.from.get(), to = received.to.get();
  try {
    ACCRETE_CHECK(truncate(to, 0));
    switch (received.request.kind) {
      case UnpackKind::inflate:
        return Inflater(from, to, received.request).run();
      case UnpackKind::decompress:
        return decompress(from, to, received.request);
    }
    return bad("the request is of an unknown kind");
  } catch (const std::bad_alloc&) {
    return fail(std::errc::not_enough_memory, "not enough memory to unpack the file");
  }
}

bool reply(const Result<std::uint64_t>& result) {
  UnpackReply message;
  if (result.ok()) {
    message.number = *result;
  } else {
    message.error = result.error().number();
    const std::string& sentence = result.error().sentence;
    sentence.copy(message.sentence, sizeof message.sentence - 1);
  }
  return retry([&] { return ::send(channel, &message, sizeof message, MSG_NOSIGNAL); }) ==
         sizeof message;
}

int run(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "--help") return std::fputs(usage, stdout) < 0;
  int type = 0;
  socklen_t length = sizeof type;
  if (argc > 1 || ::getsockopt(channel, SOL_SOCKET, SO_TYPE, &type, &length) != 0 ||
      type != SOCK_SEQPACKET) {
    std::fputs(usage, stderr);
    return 1;
  }
  const rlimit none{0, 0};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ::setrlimit(RLIMIT_CORE, &none) != 0 ||
      ::chdir("/") != 0) {
    std::perror("accretefs-unpack");
    return 1;
  }
  while (std::optional<Received> received = receive()) {
    const Result<std::uint64_t> result = answer(*received);
    received.reset();  // both files are closed when the answer arrives
    if (!reply(result)) break;
  }
  return 0;
}

}  // namespace
}  // namespace accrete

int main(int argc, char** argv) {
  return accrete::run(argc, argv);
}
