#include "tools/unpack_tiles.h"

#include <fitsio.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <bit>
#include <climits>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/fits_card.h"
#include "core/fits_header.h"
#include "core/shape.h"
#include "tools/unpack_gzip.h"
#include "tools/unpack_sandbox.h"
#include "tools/unpack_tile_header.h"

namespace accrete {

namespace {

constexpr std::size_t chunk = std::size_t{256} << 10;     // of a tile, unpacked at once
constexpr std::size_t most_held = std::size_t{64} << 20;  // pixels in memory, but for a larger tile

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

  // `file` is the whole file, which must outlive this.
  Status open(std::string_view file, int hdu, const TiledImage& image) {
    image_ = &image;
    // cfitsio keeps these addresses. A file opened by its name would need open(), which the sandbox
    // has not; in memory cfitsio relies on lengths that read_tiled_image() has checked.
    address_ = const_cast<char*>(file.data());
    file_size_ = file.size();
    fits_clear_errmsg();
    int status = 0;
    fits_open_memfile(&file_, "frame", READONLY, &address_, &file_size_, 0, nullptr, &status);
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

  // Checks what cfitsio takes on trust: it would read or write beyond a tile's memory, leave it
  // unset, or not come to an end. (HCOMPRESS_1 is looked at in its beginning only.) True when the
  // tile was compressed as the image says, false when that did not work and it was stored
  // otherwise.
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
    } else if (image_->codec == "RICE_1") {
      ACCRETE_CHECK(read_bytes(compressed_, row, length));
      if (!rice_codes_end_within(bytes_, count, image_->rice)) return ends_too_early();
    } else if (image_->codec == "PLIO_1") {
      words_.resize(static_cast<std::size_t>(length));
      int status = 0;
      fits_read_col(file_, TSHORT, compressed_, row, 1, length, nullptr, words_.data(), nullptr,
                    &status);
      if (status != 0) return error_of(status);
      if (!plio_codes_end_within(words_)) return ends_too_early();
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

  static Error ends_too_early() {
    return bad("the compressed image is damaged: a tile ends too early");
  }

  // Elements of a variable-length array; no more than there are bytes in the file.
  Result<LONGLONG> length_of(int column, LONGLONG row) {
    LONGLONG length = 0, offset = 0;
    int status = 0;
    fits_read_descriptll(file_, column, row, &length, &offset, &status);
    if (status != 0) return error_of(status);
    if (length < 0 || static_cast<std::size_t>(length) > file_size_) return wrong_size();
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
  void* address_ = nullptr;  // of the file
  std::size_t file_size_ = 0;
  int compressed_ = 0, uncompressed_ = 0, gzipped_ = 0;  // columns, 0: none
  bool quantised_ = false;
  std::vector<unsigned char> bytes_;     // of a tile as it is stored
  std::vector<std::int16_t> words_;      // the same of PLIO_1
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
  ImageWriter(const TiledImage& image, CompressedPixels& pixels, UnpackOutput& output)
      : image_(image), pixels_(pixels), output_(output) {}

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
      ACCRETE_CHECK(output_.write(image_.header.size() + offset * image_.element_size(),
                                  {box_.data() + at, static_cast<std::size_t>(run)}));
    }
    return {};
  }

  const TiledImage& image_;
  CompressedPixels& pixels_;
  UnpackOutput& output_;
  std::vector<char> box_, tile_;
};

}  // namespace

void prepare_tiles() {
  fits_init_cfitsio();
}

Result<std::uint64_t> unpack_tiles(const UnpackInput& input, const UnpackRequest& request,
                                   UnpackOutput& output) {
  ACCRETE_TRY(const UnpackMapping mapping, UnpackMapping::of(input));
  ACCRETE_TRY(const TiledImage image, read_tiled_image(mapping.text(), request.hdu));
  std::uint64_t bytes = image.element_size();
  for (const std::uint64_t extent : image.shape) {
    const Result<std::uint64_t> more = checked_multiply(bytes, extent);
    if (!more.ok() || *more > request.most) return too_large(request.most);
    bytes = *more;
  }
  const std::uint64_t blocks = (bytes + fits_block - 1) / fits_block;
  const std::uint64_t length = image.header.size() + blocks * fits_block;
  if (length > request.most) return too_large(request.most);

  // cfitsio has up to 16 bytes for a pixel of a tile beside those of the result; a tile as it is
  // stored is there twice.
  const std::uint64_t tile_pixels = product(image.tile);
  bound_memory(most_held + tile_pixels * (16 + 2 * image.element_size()) + 2 * input.size());
  CompressedPixels pixels;
  ACCRETE_CHECK(pixels.open(mapping.text(), request.hdu, image));
  ACCRETE_CHECK(output.write(0, image.header));
  ACCRETE_CHECK(ImageWriter(image, pixels, output).run());
  return length;
}

}  // namespace accrete
