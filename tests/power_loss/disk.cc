#include "tests/power_loss/disk.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <sched.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace accrete::power_loss {

namespace {

[[noreturn]] void give_up(const std::string& what) {
  throw std::runtime_error(what + ": " + std::strerror(errno));
}

class File {
 public:
  File(const std::string& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0600)) {
    if (fd_ < 0) give_up(path);
  }
  ~File() { ::close(fd_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  operator int() const { return fd_; }

 private:
  int fd_;
};

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (in.bad()) give_up(path);
  return text;
}

}  // namespace

// ---- Image ----

Image::Image(std::uint64_t size) : size_(size), used_(size / chunk + 1) {
  void* const at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) give_up("mmap");
  bytes_ = static_cast<char*>(at);
}

Image::Image(const Image& other) : Image(other.size_) {
  for (std::uint64_t c = 0; c < other.used_.size(); ++c)
    if (other.used_[c])
      put(c * chunk, {other.bytes_ + c * chunk, std::min(chunk, size_ - c * chunk)});
}

Image& Image::operator=(Image other) noexcept {
  std::swap(bytes_, other.bytes_);
  std::swap(size_, other.size_);
  std::swap(used_, other.used_);
  return *this;
}

Image::~Image() {
  ::munmap(bytes_, size_);
}

Image Image::load(const std::string& path) {
  const File file(path, O_RDONLY);
  struct stat status {};
  if (::fstat(file, &status) != 0) give_up(path);
  Image image(static_cast<std::uint64_t>(status.st_size));
  std::string bytes(chunk, '\0');
  for (off_t at = 0; (at = ::lseek(file, at, SEEK_DATA)) >= 0;) {
    const ssize_t n = ::pread(file, bytes.data(), chunk, at);
    if (n <= 0) break;
    const std::span<const char> read(bytes.data(), static_cast<std::size_t>(n));
    if (std::any_of(read.begin(), read.end(), [](char c) { return c != 0; }))
      image.put(static_cast<std::uint64_t>(at), read);
    at += n;
  }
  return image;
}

void Image::put(std::uint64_t offset, std::span<const char> bytes) {
  if (bytes.empty()) return;
  if (offset > size_ || bytes.size() > size_ - offset)
    throw std::runtime_error("a write behind the end of the disk");
  std::memcpy(bytes_ + offset, bytes.data(), bytes.size());
  for (std::uint64_t c = offset / chunk; c <= (offset + bytes.size() - 1) / chunk; ++c)
    used_[c] = true;
}

void Image::put(std::span<const Entry> writes) {
  for (const Entry& write : writes)
    if (write.kind == Entry::Kind::write) put(write.offset, write.bytes);
}

void Image::store_in(int fd) const {
  if (::ftruncate(fd, static_cast<off_t>(size_)) != 0 ||
      ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(size_)) !=
          0)
    give_up("the image's file");
  for (std::uint64_t c = 0; c < used_.size(); ++c) {
    if (!used_[c]) continue;
    const std::uint64_t length = std::min(chunk, size_ - c * chunk);
    if (::pwrite(fd, bytes_ + c * chunk, length, static_cast<off_t>(c * chunk)) !=
        static_cast<ssize_t>(length))
      give_up("the image's file");
  }
}

void Image::save(const std::string& path) const {
  store_in(File(path, O_RDWR | O_CREAT | O_TRUNC));
}

// ---- Log ----

std::vector<Entry> read_log(const std::string& path) {
  const std::string text = read_file(path);
  std::vector<Entry> log;
  std::size_t at = 0;
  const auto number = [&] {
    std::uint64_t n = 0;
    std::memcpy(&n, text.data() + at, sizeof n);
    at += sizeof n;
    return n;
  };
  while (at < text.size()) {
    Entry entry{static_cast<Entry::Kind>(text[at++]), 0, {}};
    if (text.size() - at < 16) throw std::runtime_error("a cut entry in " + path);
    entry.offset = number();
    const std::uint64_t length = number();
    if (text.size() - at < length) throw std::runtime_error("a cut entry in " + path);
    entry.bytes = text.substr(at, length);
    at += length;
    log.push_back(std::move(entry));
  }
  return log;
}

std::vector<Entry> some_of(std::span<const Entry> writes, std::mt19937_64& random) {
  constexpr std::size_t sector = 512;
  const std::uint64_t kept_of_16 = 1 + random() % 15;
  std::vector<Entry> some;
  for (const Entry& write : writes) {
    if (write.kind != Entry::Kind::write) continue;
    if (random() % 4 != 0) {
      if (random() % 16 < kept_of_16) some.push_back(write);
      continue;
    }
    for (std::size_t at = 0; at < write.bytes.size(); at += sector)
      if (random() % 16 < kept_of_16)
        some.push_back({write.kind, write.offset + at, write.bytes.substr(at, sector)});
  }
  return some;
}

// ---- Devices and mounts ----

LoopDevice::LoopDevice(const std::string& path, bool direct) {
  const File backing(path, O_RDWR);
  const File control("/dev/loop-control", O_RDWR);
  loop_config config{};
  config.fd = static_cast<__u32>(static_cast<int>(backing));
  config.info.lo_flags = LO_FLAGS_AUTOCLEAR | (direct ? LO_FLAGS_DIRECT_IO : 0);
  for (int turn = 0; turn < 100; ++turn) {  // another program may take the number
    const int number = ::ioctl(control, LOOP_CTL_GET_FREE);
    if (number < 0) give_up("no loop device");
    path_ = "/dev/loop" + std::to_string(number);
    fd_ = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
    if (fd_ < 0) give_up(path_);
    if (::ioctl(fd_, LOOP_CONFIGURE, &config) == 0) return;
    ::close(fd_);
    if (errno != EBUSY) break;
  }
  give_up(path_);
}

LoopDevice::~LoopDevice() {
  ::close(fd_);
}

void LoopDevice::flush() const {
  if (::ioctl(fd_, BLKFLSBUF, 0) != 0) give_up(path_);
}

Mount::Mount(const std::string& device, const std::string& directory, const std::string& type)
    : directory_(directory) {
  const char* const options = type == "xfs" ? "nouuid" : "";
  if (::mount(device.c_str(), directory.c_str(), type.c_str(), 0, options) != 0)
    give_up("mounting " + device);
}

Mount::~Mount() {
  if (!directory_.empty()) ::umount2(directory_.c_str(), MNT_DETACH);
}

void Mount::unmount() {
  if (::umount2(directory_.c_str(), 0) != 0) give_up("unmounting " + directory_);
  directory_.clear();
}

RecordingDisk::RecordingDisk(const std::string& image, const std::string& log,
                             const std::string& directory)
    : directory_(directory) {
  const char* const program = std::getenv("ONE_FILE_DISK");
  if (program == nullptr) throw std::runtime_error("set ONE_FILE_DISK, or run by ctest");
  process_ = ::fork();
  if (process_ < 0) give_up("fork");
  if (process_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::execl(program, program, image.c_str(), log.c_str(), directory.c_str(), nullptr);
    ::_exit(127);
  }
  for (int turn = 0; turn < 10000; ++turn) {
    if (::access(file().c_str(), F_OK) == 0) return;
    if (::waitpid(process_, nullptr, WNOHANG) == process_) break;
    ::usleep(1000);
  }
  throw std::runtime_error(std::string(program) + " did not mount");
}

RecordingDisk::~RecordingDisk() {
  // A loop device lets go of its file in the background.
  for (int turn = 0; turn < 5000 && ::umount2(directory_.c_str(), 0) != 0; ++turn) ::usleep(1000);
  ::waitpid(process_, nullptr, 0);
}

void RecordingDisk::mark(const std::string& text) const {
  const File control(directory_ + "/control", O_WRONLY);
  const std::string command = "mark " + text;
  if (::write(control, command.data(), command.size()) != static_cast<ssize_t>(command.size()))
    give_up("control");
}

void leave_mount_namespace() {
  if (::unshare(CLONE_NEWNS) != 0 ||
      ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    give_up("a mount namespace");
  // Those of tests that run meanwhile would be in use as long as this one is.
  std::istringstream mounts(read_file("/proc/self/mounts"));
  std::string source, directory, rest;
  while (mounts >> source >> directory && std::getline(mounts, rest))
    if (directory.find("/accrete-") != std::string::npos) ::umount2(directory.c_str(), MNT_DETACH);
}

void run(const std::vector<std::string>& command) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  pid_t process = 0;
  errno = ::posix_spawnp(&process, arguments[0], nullptr, nullptr, arguments.data(), environ);
  if (errno != 0) give_up(command[0]);
  int status = 0;
  if (::waitpid(process, &status, 0) != process || status != 0)
    throw std::runtime_error(command[0] + " failed");
}

}  // namespace accrete::power_loss
