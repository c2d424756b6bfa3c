// A store: a directory of the host's filesystem that holds cubes at rest.
#pragma once

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/cube.h"
#include "core/unpacker.h"

namespace accrete {

struct StoreOptions {
  bool create = true;  // make an empty directory (or a missing one) a store
  // Nothing on the disk is changed, all cubes are read-only; also on a read-only filesystem.
  bool read_only = false;
  Limits limits;
  std::chrono::milliseconds sync_interval{5000};
  std::uint64_t checkpoint_step = 4 << 20;  // bytes of journal that make a checkpoint due
  std::string unpacker = Unpacker::default_program();  // path of the program that unpacks files
};

// Thread-safe.
class Store {
 public:
  // Takes the store's lock. EBUSY: another daemon has it; ENOTEMPTY: a directory with other things
  // in it; EPROTO-like EINVAL: a newer version; ENOENT, EACCES, ….
  // Starts no thread: daemonize, then call start().
  static Result<std::unique_ptr<Store>> open(const std::string& path, const StoreOptions& options);
  virtual ~Store() = default;  // syncs all cubes, stops the threads, releases the lock

  virtual void start() = 0;  // the thread that syncs and checkpoints

  virtual std::vector<std::string> names() const = 0;  // sorted
  // ENOENT; EIO with a sentence when it is damaged beyond opening (also in the log).
  virtual Result<std::shared_ptr<Cube>> find(std::string_view name) = 0;
  // EEXIST, EINVAL (control character, leading dot, '/'), ENAMETOOLONG, ENOSPC.
  virtual Result<std::shared_ptr<Cube>> create(std::string_view name) = 0;
  // ENOTEMPTY while it holds frames or files are coming in. ENOENT.
  virtual Status remove(std::string_view name) = 0;
  // EEXIST when `to` exists (also an empty one), ENOENT.
  virtual Status rename(std::string_view from, std::string_view to) = 0;

  virtual Status sync() = 0;  // all cubes, waits
  virtual Result<struct statvfs> space() const = 0;
  virtual Result<struct stat> attributes() const = 0;  // of the store's directory: owner, mode
};

}  // namespace accrete
