// A disk that tells what it was asked to write, and that can be made to go bad: a filesystem with
// one file, the image of a disk, to be put under a loop device.
//
//   one-file-disk IMAGE LOG MNT
//
//   MNT/disk      the image, at its size; every read and write goes through to the file IMAGE
//   MNT/control   takes one command a write; reading it gives "R reads W writes S syncs F failures"
//
// Commands:
//   mark TEXT                 puts TEXT into the log
//   bad read BEGIN LENGTH     reads that touch these bytes fail with EIO from now on
//   bad write BEGIN LENGTH    writes likewise
//   fail write K              the K-th write from now on fails, once
//   fail sync K               the K-th flush likewise
//   good                      nothing fails any more
//
// The log has what the disk took, in order. One entry: u8 kind, u64 offset, u64 length, and for a
// write ('W') and a mark ('M') as many bytes; a flush ('F') has none. Numbers are in the byte order
// of the machine. LOG may be /dev/null.
//
// Stays in the foreground, single-threaded, until it is unmounted.
#define FUSE_USE_VERSION 312
#include <fcntl.h>
#include <fuse.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

namespace {

constexpr std::string_view disk_path = "/disk";
constexpr std::string_view control_path = "/control";

class Disk {
 public:
  // False: one of the files cannot be opened.
  bool open(const char* image, const char* log) {
    image_ = ::open(image, O_RDWR | O_CLOEXEC);
    log_ = ::open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct stat status {};
    if (image_ < 0 || log_ < 0 || ::fstat(image_, &status) != 0) return false;
    size_ = status.st_size;
    return true;
  }
  off_t size() const { return size_; }

  // Each gives what a FUSE operation does: a count, or an errno below 0.
  int read(char* target, std::size_t count, off_t offset) {
    ++reads_;
    if (touches(bad_reads_, offset, count)) return failure();
    const ssize_t n = ::pread(image_, target, count, offset);
    return n < 0 ? -errno : static_cast<int>(n);
  }
  int write(const char* bytes, std::size_t count, off_t offset) {
    ++writes_;
    if (is_due(failing_write_) || touches(bad_writes_, offset, count)) return failure();
    if (offset + static_cast<off_t>(count) > size_) return -ENOSPC;
    if (!note('W', static_cast<std::uint64_t>(offset), count, bytes)) return -EIO;
    const ssize_t n = ::pwrite(image_, bytes, count, offset);
    return n < 0 ? -errno : static_cast<int>(n);
  }
  int sync() {
    ++syncs_;
    if (is_due(failing_sync_)) return failure();
    return note('F', 0, 0, nullptr) ? 0 : -EIO;
  }
  int obey(const std::string& command) {
    std::istringstream in(command);
    std::string verb, kind;
    in >> verb;
    if (verb == "mark") {
      std::getline(in >> std::ws, kind);
      return note('M', 0, kind.size(), kind.data()) ? 0 : -EIO;
    }
    if (verb == "good") {
      bad_reads_.clear();
      bad_writes_.clear();
      failing_write_ = failing_sync_ = 0;
      return 0;
    }
    in >> kind;
    Range range{};
    std::uint64_t count = 0;
    if (verb == "bad" && in >> range.begin >> range.length && (kind == "read" || kind == "write")) {
      (kind == "read" ? bad_reads_ : bad_writes_).push_back(range);
    } else if (verb == "fail" && in >> count && (kind == "write" || kind == "sync")) {
      (kind == "write" ? failing_write_ : failing_sync_) = count;
    } else {
      return -EINVAL;
    }
    return 0;
  }
  std::string counts() const {
    return std::to_string(reads_) + " reads " + std::to_string(writes_) + " writes " +
           std::to_string(syncs_) + " syncs " + std::to_string(failures_) + " failures\n";
  }

 private:
  struct Range {
    off_t begin, length;
  };

  static bool touches(const std::vector<Range>& ranges, off_t offset, std::size_t count) {
    return std::any_of(ranges.begin(), ranges.end(), [&](const Range& range) {
      return offset < range.begin + range.length &&
             range.begin < offset + static_cast<off_t>(count);
    });
  }
  static bool is_due(std::uint64_t& countdown) { return countdown > 0 && --countdown == 0; }
  int failure() {
    ++failures_;
    return -EIO;
  }
  bool note(char kind, std::uint64_t offset, std::uint64_t length, const char* bytes) const {
    std::string entry(1, kind);
    entry.append(reinterpret_cast<const char*>(&offset), sizeof offset);
    entry.append(reinterpret_cast<const char*>(&length), sizeof length);
    if (bytes != nullptr) entry.append(bytes, length);
    return ::write(log_, entry.data(), entry.size()) == static_cast<ssize_t>(entry.size());
  }

  int image_ = -1;
  int log_ = -1;
  off_t size_ = 0;
  std::uint64_t reads_ = 0, writes_ = 0, syncs_ = 0, failures_ = 0;
  std::vector<Range> bad_reads_, bad_writes_;
  std::uint64_t failing_write_ = 0, failing_sync_ = 0;  // 0: none
};

Disk disk;

int get_attributes(const char* path, struct stat* status, fuse_file_info*) {
  status->st_nlink = 1;
  if (std::strcmp(path, "/") == 0) {
    status->st_mode = S_IFDIR | 0700;
  } else if (path == disk_path) {
    status->st_mode = S_IFREG | 0600;
    status->st_size = disk.size();
  } else if (path == control_path) {
    status->st_mode = S_IFREG | 0600;
  } else {
    return -ENOENT;
  }
  return 0;
}

int list(const char*, void* buffer, fuse_fill_dir_t fill, off_t, fuse_file_info*,
         fuse_readdir_flags) {
  for (const std::string_view path : {disk_path, control_path})
    fill(buffer, path.data() + 1, nullptr, 0, fuse_fill_dir_flags{});
  return 0;
}

int open_file(const char*, fuse_file_info* file) {
  file->direct_io = 1;
  return 0;
}

int truncate_file(const char* path, off_t, fuse_file_info*) {
  return path == control_path ? 0 : -EPERM;
}

int read_file(const char* path, char* target, std::size_t count, off_t offset, fuse_file_info*) {
  if (path == disk_path) return disk.read(target, count, offset);
  const std::string text = disk.counts();
  if (offset >= static_cast<off_t>(text.size())) return 0;
  return static_cast<int>(text.copy(target, count, static_cast<std::size_t>(offset)));
}

int write_file(const char* path, const char* bytes, std::size_t count, off_t offset,
               fuse_file_info*) {
  if (path == disk_path) return disk.write(bytes, count, offset);
  const int status = disk.obey({bytes, count});
  return status < 0 ? status : static_cast<int>(count);
}

int sync_file(const char* path, int, fuse_file_info*) {
  return path == disk_path ? disk.sync() : 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: one-file-disk IMAGE LOG MNT\n";
    return 2;
  }
  if (!disk.open(argv[1], argv[2])) {
    std::perror("one-file-disk");
    return 1;
  }
  fuse_operations operations{};
  operations.getattr = get_attributes;
  operations.readdir = list;
  operations.open = open_file;
  operations.truncate = truncate_file;
  operations.read = read_file;
  operations.write = write_file;
  operations.fsync = sync_file;
  std::string name = "one-file-disk", foreground = "-f", single = "-s";
  char* arguments[] = {name.data(), foreground.data(), single.data(), argv[3], nullptr};
  return fuse_main(4, arguments, &operations, nullptr);
}
