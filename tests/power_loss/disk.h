// A disk whose writes are recorded, and the images that a loss of power may leave of it.
//
// What fails here throws std::runtime_error: it is the test's own trouble, not the store's.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <span>
#include <string>
#include <vector>

namespace accrete::power_loss {

// One entry of what tests/support/one_file_disk.cc records.
struct Entry {
  enum class Kind : char { write = 'W', flush = 'F', mark = 'M' };
  Kind kind;
  std::uint64_t offset;
  std::string bytes;
};

// The content of a disk, in memory; chunks that are zero take none.
class Image {
 public:
  explicit Image(std::uint64_t size);
  static Image load(const std::string& file);
  Image(const Image& other);
  Image& operator=(Image other) noexcept;
  ~Image();

  std::uint64_t size() const { return size_; }
  void put(std::uint64_t offset, std::span<const char> bytes);
  void put(std::span<const Entry> writes);
  // Makes the file that is open there the same.
  void store_in(int fd) const;
  void save(const std::string& file) const;

 private:
  static constexpr std::uint64_t chunk = 64 << 10;

  char* bytes_;
  std::uint64_t size_;
  std::vector<bool> used_;  // chunks
};

// What one-file-disk recorded.
std::vector<Entry> read_log(const std::string& file);

// What is left of the writes after the last flush when the power goes: any of them may be missing,
// and of any only some sectors may be there.
std::vector<Entry> some_of(std::span<const Entry> writes, std::mt19937_64& random);

// A block device over a file; detached with the object, or with the process.
class LoopDevice {
 public:
  LoopDevice(const std::string& file, bool direct);
  ~LoopDevice();
  LoopDevice(const LoopDevice&) = delete;
  LoopDevice& operator=(const LoopDevice&) = delete;

  const std::string& path() const { return path_; }
  // Writes and forgets what the kernel has in memory of the device.
  void flush() const;

 private:
  std::string path_;
  int fd_ = -1;
};

// A filesystem, mounted read-write as it is by default.
class Mount {
 public:
  Mount(const std::string& device, const std::string& directory, const std::string& type);
  ~Mount();
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;

  void unmount();  // throws, unlike the destructor

 private:
  std::string directory_;
};

// A process of one-file-disk over a file, which records into `log`.
class RecordingDisk {
 public:
  RecordingDisk(const std::string& image, const std::string& log, const std::string& directory);
  ~RecordingDisk();
  RecordingDisk(const RecordingDisk&) = delete;
  RecordingDisk& operator=(const RecordingDisk&) = delete;

  std::string file() const { return directory_ + "/disk"; }
  // Into the log, behind all that was written before the call.
  void mark(const std::string& text) const;

 private:
  std::string directory_;
  pid_t process_ = -1;
};

// Mounts that are made from now on end with this process, however it ends. Needs root.
void leave_mount_namespace();
// REQUIRES: no shell syntax in it.
void run(const std::vector<std::string>& command);

}  // namespace accrete::power_loss
