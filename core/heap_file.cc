#include "core/heap_file.h"

#include <fcntl.h>

#include "core/bytes.h"
#include "core/checksum.h"

namespace accrete {

namespace {
constexpr std::size_t copy_step = 1 << 20;
}

Result<std::unique_ptr<HeapFile>> HeapFile::open(const PosixFile& directory, std::uint64_t end,
                                                 bool writable) {
  ACCRETE_TRY(PosixFile file,
              PosixFile::open_at(directory, "heap", writable ? O_RDWR | O_CREAT : O_RDONLY, 0600));
  ACCRETE_TRY(const std::uint64_t size, file.size());
  if (size < end) return fail(std::errc::io_error, "the heap file is shorter than its rows say");
  if (size > end && writable) ACCRETE_CHECK(file.truncate(end));
  return std::unique_ptr<HeapFile>(new HeapFile(std::move(file), end));
}

std::unique_ptr<HeapFile> HeapFile::none() {
  return std::unique_ptr<HeapFile>(new HeapFile(PosixFile(), 0));
}

Result<HeapRef> HeapFile::append(std::span<const std::byte> bytes) {
  if (bytes.empty()) return HeapRef{};
  ACCRETE_CHECK(file_.write(end_, bytes));
  const HeapRef ref{end_, bytes.size(), checksum(bytes)};
  end_ += bytes.size();
  return ref;
}

Result<HeapRef> HeapFile::append(const PosixFile& file, std::uint64_t offset,
                                 std::uint64_t length) {
  if (length == 0) return HeapRef{};
  Checksummer sum;
  std::string piece;
  for (std::uint64_t done = 0; done < length; done += piece.size()) {
    piece.resize(std::min<std::uint64_t>(copy_step, length - done));
    const auto bytes = std::as_writable_bytes(std::span(piece));
    ACCRETE_TRY(const std::size_t n, file.read(offset + done, bytes));
    if (n != piece.size()) return fail(std::errc::io_error, "a staging file ended early");
    ACCRETE_CHECK(file_.write(end_ + done, bytes));
    sum.add(bytes);
  }
  const HeapRef ref{end_, length, sum.sum64()};
  end_ += length;
  return ref;
}

void HeapFile::rewind(std::uint64_t end) {
  (void)file_.truncate(end);
  end_ = end;
}

Status HeapFile::check(const HeapRef& ref) const {
  if (ref.length > end_ || ref.offset > end_ - ref.length)
    return fail(std::errc::io_error, "a row points outside of the heap file");
  return {};
}

Status HeapFile::read_part(const HeapRef& ref, std::uint64_t offset,
                           std::span<std::byte> target) const {
  ACCRETE_CHECK(check(ref));
  if (offset > ref.length || target.size() > ref.length - offset)
    return fail(std::errc::io_error, "a row's text is shorter than the row says");
  ACCRETE_TRY(const std::size_t n, file_.read(ref.offset + offset, target));
  if (n != target.size()) return fail(std::errc::io_error, "damaged heap file");
  return {};
}

Result<bool> HeapFile::is_whole(const HeapRef& ref) const {
  if (ref.length == 0) return true;
  if (!check(ref).ok()) return false;
  Checksummer sum;
  std::string piece;
  for (std::uint64_t done = 0; done < ref.length; done += piece.size()) {
    piece.resize(std::min<std::uint64_t>(copy_step, ref.length - done));
    const auto bytes = std::as_writable_bytes(std::span(piece));
    ACCRETE_TRY(const std::size_t n, file_.read(ref.offset + done, bytes));
    if (n != piece.size()) return false;
    sum.add(bytes);
  }
  return sum.sum64() == ref.sum;
}

Status HeapFile::verify(const HeapRef& ref) const {
  ACCRETE_TRY(const bool good, is_whole(ref));
  return good ? Status() : fail(std::errc::io_error, "damaged heap file");
}

Result<std::string> HeapFile::read(const HeapRef& ref) const {
  ACCRETE_CHECK(check(ref));
  std::string text(ref.length, '\0');
  ACCRETE_TRY(const std::size_t n, file_.read(ref.offset, std::as_writable_bytes(std::span(text))));
  if (n != ref.length || (n > 0 && checksum(as_bytes(text)) != ref.sum))
    return fail(std::errc::io_error, "damaged heap file");
  return text;
}

}  // namespace accrete
