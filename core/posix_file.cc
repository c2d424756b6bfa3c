#include "core/posix_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>

#include "core/system_calls.h"

namespace accrete {

namespace {

// Not to wait for the other end of what should be a file and is a FIFO.
constexpr int always = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;

// Makes a system call, again while it gives EINTR. `body` gets the most bytes that it may move.
template <class Body>
auto call(SystemCall which, const std::string& name, Body body) {
  for (;;) {
    const Intervention intervention = ask_watch(which, name);
    decltype(body(intervention.at_most)) result = -1;
    if (intervention.error != 0)
      errno = intervention.error;
    else
      result = body(intervention.at_most);
    if (result >= 0 || errno != EINTR) return result;
  }
}

}  // namespace

PosixFile::PosixFile(PosixFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), name_(std::move(other.name_)) {}

PosixFile& PosixFile::operator=(PosixFile&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = std::exchange(other.fd_, -1);
    name_ = std::move(other.name_);
  }
  return *this;
}

PosixFile::~PosixFile() {
  if (fd_ >= 0) ::close(fd_);
}

Error PosixFile::error(const char* call) const {
  return fail_errno(errno, std::string(call) + " " + name_);
}

Result<PosixFile> PosixFile::open(const std::string& path, int flags, unsigned mode) {
  const int fd = call(SystemCall::open, path,
                      [&](std::size_t) { return ::open(path.c_str(), flags | always, mode); });
  if (fd < 0) return fail_errno(errno, "open " + path);
  return PosixFile(fd, path);
}

Result<PosixFile> PosixFile::open_at(const PosixFile& directory, const std::string& name, int flags,
                                     unsigned mode) {
  const int fd = call(SystemCall::open, name, [&](std::size_t) {
    return ::openat(directory.fd_, name.c_str(), flags | always, mode);
  });
  if (fd < 0) return fail_errno(errno, "open " + name);
  return PosixFile(fd, name);
}

Result<PosixFile> PosixFile::unnamed_in(const PosixFile& directory) {
  int fd = call(SystemCall::open, "(staging file)", [&](std::size_t) {
    return ::openat(directory.fd_, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  });
  if (fd >= 0) return PosixFile(fd, "(staging file)");
  if (errno != EOPNOTSUPP && errno != EISDIR) return fail_errno(errno, "open a staging file");
  // A filesystem without O_TMPFILE: a name that is removed at once.
  const std::string name = ".staging-" + std::to_string(::getpid()) + "-" +
                           std::to_string(reinterpret_cast<std::uintptr_t>(&fd));
  ACCRETE_TRY(PosixFile file, open_at(directory, name, O_RDWR | O_CREAT | O_EXCL, 0600));
  ACCRETE_CHECK(unlink_at(directory, name, false));
  file.name_ = "(staging file)";
  return file;
}

Result<std::uint64_t> PosixFile::size() const {
  ACCRETE_TRY(const struct stat status, this->status());
  return static_cast<std::uint64_t>(status.st_size);
}

Result<struct stat> PosixFile::status() const {
  struct stat status {};
  if (call(SystemCall::stat, name_, [&](std::size_t) { return ::fstat(fd_, &status); }) != 0)
    return error("fstat");
  return status;
}

Result<std::size_t> PosixFile::read(std::uint64_t offset, std::span<std::byte> target) const {
  std::size_t done = 0;
  while (done < target.size()) {
    const ssize_t n = call(SystemCall::read, name_, [&](std::size_t at_most) {
      return ::pread(fd_, target.data() + done, std::min(at_most, target.size() - done),
                     static_cast<off_t>(offset + done));
    });
    if (n < 0) return error("read");
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  return done;
}

Status PosixFile::write(std::uint64_t offset, std::span<const std::byte> bytes) const {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = call(SystemCall::write, name_, [&](std::size_t at_most) {
      return ::pwrite(fd_, bytes.data() + done, std::min(at_most, bytes.size() - done),
                      static_cast<off_t>(offset + done));
    });
    if (n < 0) return error("write");
    done += static_cast<std::size_t>(n);
  }
  return {};
}

Status PosixFile::write(std::uint64_t offset,
                        std::span<const std::span<const std::byte>> pieces) const {
  std::array<struct iovec, IOV_MAX> vectors;
  for (; !pieces.empty(); pieces = pieces.subspan(std::min<std::size_t>(pieces.size(), IOV_MAX))) {
    const auto some = pieces.first(std::min<std::size_t>(pieces.size(), IOV_MAX));
    std::size_t total = 0;
    for (std::size_t i = 0; i < some.size(); ++i) {
      vectors[i] = {const_cast<std::byte*>(some[i].data()), some[i].size()};
      total += some[i].size();
    }
    const ssize_t n = call(SystemCall::write, name_, [&](std::size_t at_most) {
      const bool is_whole = total <= at_most;
      if (!is_whole) vectors[0].iov_len = std::min(at_most, vectors[0].iov_len);
      return ::pwritev(fd_, vectors.data(), is_whole ? static_cast<int>(some.size()) : 1,
                       static_cast<off_t>(offset));
    });
    if (n < 0) return error("write");
    // What a short write left is written piece by piece.
    std::size_t done = static_cast<std::size_t>(n);
    for (const auto piece : some) {
      const std::size_t written = std::min(done, piece.size());
      done -= written;
      if (written < piece.size()) ACCRETE_CHECK(write(offset + written, piece.subspan(written)));
      offset += piece.size();
    }
  }
  return {};
}

Status PosixFile::truncate(std::uint64_t size) const {
  if (call(SystemCall::truncate, name_,
           [&](std::size_t) { return ::ftruncate(fd_, static_cast<off_t>(size)); }) != 0)
    return error("truncate");
  return {};
}

Status PosixFile::allocate(std::uint64_t offset, std::uint64_t length, bool extend) const {
  if (length == 0) return {};
  const int mode = extend ? 0 : FALLOC_FL_KEEP_SIZE;
  if (call(SystemCall::allocate, name_, [&](std::size_t) {
        return ::fallocate(fd_, mode, static_cast<off_t>(offset), static_cast<off_t>(length));
      }) == 0)
    return {};
  if (errno == EOPNOTSUPP) {  // no reservation there: the writes themselves will find the space
    if (!extend) return {};
    ACCRETE_TRY(const std::uint64_t old, size());
    return old >= offset + length ? Status{} : truncate(offset + length);
  }
  const Error failed = error("allocate");
  (void)punch(offset, length);  // some filesystems keep what they had got so far
  return failed;
}

Status PosixFile::punch(std::uint64_t offset, std::uint64_t length) const {
  if (length == 0) return {};
  if (call(SystemCall::punch, name_, [&](std::size_t) {
        return ::fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                           static_cast<off_t>(offset), static_cast<off_t>(length));
      }) != 0)
    return error("punch");
  return {};
}

Result<std::uint64_t> PosixFile::free_space() const {
  struct statvfs space {};
  if (::fstatvfs(fd_, &space) != 0) return error("statvfs");
  return std::uint64_t{space.f_bavail} * space.f_frsize;
}

Status PosixFile::sync_data() const {
  if (call(SystemCall::sync, name_, [&](std::size_t) { return ::fdatasync(fd_); }) != 0)
    return error("fdatasync");
  return {};
}

Status PosixFile::sync_all() const {
  if (call(SystemCall::sync, name_, [&](std::size_t) { return ::fsync(fd_); }) != 0)
    return error("fsync");
  return {};
}

void PosixFile::forget() const {
  (void)::posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED);
}

Status PosixFile::lock_exclusive() const {
  if (call(SystemCall::lock, name_, [&](std::size_t) { return ::flock(fd_, LOCK_EX | LOCK_NB); }) !=
      0) {
    if (errno == EWOULDBLOCK) return fail(std::errc::device_or_resource_busy, "locked by another");
    return error("flock");
  }
  return {};
}

Status make_directory_at(const PosixFile& directory, const std::string& name, unsigned mode) {
  if (call(SystemCall::make_directory, name,
           [&](std::size_t) { return ::mkdirat(directory.fd(), name.c_str(), mode); }) != 0)
    return fail_errno(errno, "mkdir " + name);
  return {};
}

Status rename_at(const PosixFile& directory, const std::string& from, const std::string& to,
                 bool replace) {
  const unsigned flags = replace ? 0 : RENAME_NOREPLACE;
  if (call(SystemCall::rename, to, [&](std::size_t) {
        return ::renameat2(directory.fd(), from.c_str(), directory.fd(), to.c_str(), flags);
      }) != 0)
    return fail_errno(errno, "rename " + from + " to " + to);
  return {};
}

Status unlink_at(const PosixFile& directory, const std::string& name, bool is_directory) {
  if (call(SystemCall::remove, name, [&](std::size_t) {
        return ::unlinkat(directory.fd(), name.c_str(), is_directory ? AT_REMOVEDIR : 0);
      }) != 0)
    return fail_errno(errno, "remove " + name);
  return {};
}

Result<std::vector<std::string>> list_directory(const PosixFile& directory) {
  const int fd = call(SystemCall::list, directory.name(), [&](std::size_t) {
    return ::openat(directory.fd(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  });
  if (fd < 0) return fail_errno(errno, "open " + directory.name());
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(::fdopendir(fd), ::closedir);
  if (!entries) {
    ::close(fd);
    return fail_errno(errno, "list " + directory.name());
  }
  std::vector<std::string> names;
  for (errno = 0; const dirent* entry = ::readdir(entries.get()); errno = 0) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  if (errno != 0) return fail_errno(errno, "list " + directory.name());
  return names;
}

namespace {

Result<std::shared_ptr<std::byte>> map(const PosixFile& file, std::uint64_t length, int access,
                                       int sharing = MAP_SHARED) {
  void* address = MAP_FAILED;
  if (call(SystemCall::map, file.name(), [&](std::size_t) {
        address = ::mmap(nullptr, length, access, sharing | MAP_NORESERVE, file.fd(), 0);
        return address == MAP_FAILED ? -1 : 0;
      }) != 0)
    return fail_errno(errno, "map " + file.name());
  return std::shared_ptr<std::byte>(static_cast<std::byte*>(address),
                                    [length](std::byte* p) { ::munmap(p, length); });
}

}  // namespace

Result<std::shared_ptr<const std::byte>> map_shared(const PosixFile& file, std::uint64_t length) {
  ACCRETE_TRY(std::shared_ptr<const std::byte> mapping, map(file, length, PROT_READ));
  return mapping;
}

Result<std::shared_ptr<const std::byte>> map_resident(const PosixFile& file, std::uint64_t length) {
  ACCRETE_TRY(std::shared_ptr<const std::byte> mapping, map_shared(file, length));
  (void)::mlock(mapping.get(), length);
  return mapping;
}

Result<std::shared_ptr<std::byte>> map_shared_writable(const PosixFile& file,
                                                       std::uint64_t length) {
  return map(file, length, PROT_READ | PROT_WRITE);
}

Result<std::shared_ptr<std::byte>> map_private(const PosixFile& file, std::uint64_t length) {
  // Only pages that are stored to take memory, so none is set aside for the others.
  return map(file, length, PROT_READ | PROT_WRITE, MAP_PRIVATE);
}

}  // namespace accrete
