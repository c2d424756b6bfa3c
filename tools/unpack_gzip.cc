#include "tools/unpack_gzip.h"

#include <zlib.h>

#include <algorithm>
#include <new>
#include <optional>
#include <string>
#include <vector>

namespace accrete {

namespace {

constexpr std::size_t chunk = std::size_t{256} << 10;  // read or unpacked at once

class Inflater {
 public:
  Inflater(const UnpackInput& input, const UnpackRequest& request, UnpackOutput& output)
      : input_(input), output_(output), keep_(request.keep), most_(request.most) {}
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
    if (total_ < keep_) {
      const auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(size, keep_ - total_));
      ACCRETE_CHECK(
          output_.write(total_, {reinterpret_cast<const char*>(unpacked_.data()), wanted}));
    }
    total_ += size;
    return total_ > keep_ ? output_.reach(total_) : Status();
  }

  // The next byte of the input, which is read on when it is used up; nothing at its end.
  Result<std::optional<unsigned char>> peek() {
    if (stream_.avail_in == 0) {
      ACCRETE_TRY(const std::size_t n, input_.read(offset_, packed_));
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

  const UnpackInput& input_;
  UnpackOutput& output_;
  const std::uint64_t keep_, most_;
  std::vector<unsigned char> packed_ = std::vector<unsigned char>(chunk);
  std::vector<unsigned char> unpacked_ = std::vector<unsigned char>(chunk);
  std::uint64_t offset_ = 0;  // where to read on
  std::uint64_t total_ = 0;   // unpacked so far
  z_stream stream_{};
  bool started_ = false;
};

}  // namespace

Result<std::uint64_t> unpack_gzip(const UnpackInput& input, const UnpackRequest& request,
                                  UnpackOutput& output) {
  return Inflater(input, request, output).run();
}

}  // namespace accrete
