#include "core/store.h"

#include <fcntl.h>
#include <sys/random.h>
#include <syslog.h>

#include <algorithm>
#include <map>
#include <thread>

#include "core/bytes.h"
#include "core/cube_on_disk.h"
#include "core/frame_name.h"

namespace accrete {

namespace {

constexpr std::string_view note_name = "accretefs.store";
constexpr const char* unfinished_note_name = "accretefs.store.new";
constexpr std::string_view note_text = "accretefs store, version 1\n";
constexpr std::string_view note_start = "accretefs store, version ";

Status check_cube_name(std::string_view name) {
  ACCRETE_CHECK(check_file_name(name));
  if (name.front() == '.' || name == note_name || name == unfinished_note_name)
    return fail(std::errc::invalid_argument,
                "a cube's name cannot begin with a dot or be " + std::string(note_name));
  return {};
}

Result<std::uint64_t> random_uid() {
  std::uint64_t uid = 0;
  while (uid == 0)
    if (::getrandom(&uid, sizeof uid, 0) != sizeof uid) return fail_errno(errno, "getrandom");
  return uid;
}

// Both or nothing: renamed, and that on disk.
Status rename_durably(const PosixFile& directory, const std::string& from, const std::string& to) {
  ACCRETE_CHECK(rename_at(directory, from, to, false));
  Status synced = directory.sync_all();
  if (!synced.ok()) (void)rename_at(directory, to, from, false);
  return synced;
}

// As far as it can be.
void remove_with_files(const PosixFile& store, const std::string& name) {
  const auto directory = PosixFile::open_at(store, name, O_RDONLY | O_DIRECTORY);
  if (!directory.ok()) return;
  if (const auto files = list_directory(*directory); files.ok())
    for (const std::string& file : *files) (void)unlink_at(*directory, file, false);
  (void)unlink_at(store, name, true);
}

Status lock_against_others(const PosixFile& file, const std::string& path) {
  Status locked = file.lock_exclusive();
  if (locked.ok() || locked.error().code != std::errc::device_or_resource_busy) return locked;
  return fail(std::errc::device_or_resource_busy, path + " is in use by another accretefs");
}

// Writes a store's note into a directory that is empty.
Status write_note(const PosixFile& directory, const std::string& path) {
  ACCRETE_TRY(const PosixFile locked, PosixFile::open_at(directory, ".", O_RDONLY | O_DIRECTORY));
  ACCRETE_CHECK(lock_against_others(locked, path));
  ACCRETE_TRY(const std::vector<std::string> names, list_directory(directory));
  for (const std::string& name : names) {
    if (name == note_name) return {};  // by another, meanwhile
    if (name != "lost+found" && name != unfinished_note_name)
      return fail(std::errc::directory_not_empty,
                  path + " is no store, and holds other things: give an empty directory");
  }
  ACCRETE_TRY(const PosixFile note, PosixFile::open_at(directory, unfinished_note_name,
                                                       O_WRONLY | O_CREAT | O_TRUNC, 0644));
  ACCRETE_CHECK(note.write(0, as_bytes(note_text)));
  ACCRETE_CHECK(note.sync_all());
  return rename_durably(directory, unfinished_note_name, std::string(note_name));
}

// Checks the store's note; makes a store of an empty directory.
Result<PosixFile> open_note(const PosixFile& directory, const std::string& path,
                            const StoreOptions& options) {
  const auto open = [&] {
    return PosixFile::open_at(directory, std::string(note_name),
                              options.read_only ? O_RDONLY : O_RDWR);
  };
  auto note = open();
  if (!note.ok()) {
    if (note.error().code != std::errc::no_such_file_or_directory || !options.create ||
        options.read_only)
      return std::move(note).error();
    ACCRETE_CHECK(write_note(directory, path));
    note = open();
    if (!note.ok()) return std::move(note).error();
  }
  std::string text(256, '\0');
  ACCRETE_TRY(const std::size_t n, note->read(0, std::as_writable_bytes(std::span(text))));
  text.resize(n);
  if (text != note_text)
    return fail(std::errc::invalid_argument, text.starts_with(note_start)
                                                 ? path + " was made by a newer version: " + text
                                                 : path + " is no store: its note is damaged");
  ACCRETE_CHECK(lock_against_others(*note, path));
  return note;
}

class StoreOnDisk final : public Store, public CubeHost {
 public:
  StoreOnDisk(PosixFile directory, PosixFile note, const StoreOptions& options)
      : directory_(std::move(directory)), note_(std::move(note)), options_(options) {}
  ~StoreOnDisk() override;

  void start() override;
  std::vector<std::string> names() const override;
  Result<std::shared_ptr<Cube>> find(std::string_view name) override;
  Result<std::shared_ptr<Cube>> create(std::string_view name) override;
  Status remove(std::string_view name) override;
  Status rename(std::string_view from, std::string_view to) override;
  Status sync() override;
  Result<struct statvfs> space() const override;
  Result<struct stat> attributes() const override;

  void request_sync(std::shared_ptr<CubeOnDisk> cube, SyncDone done) override;
  Unpacker& unpacker() override { return unpacker_; }
  std::uint64_t checkpoint_step() const override { return options_.checkpoint_step; }
  void release_held() override EXCLUDES(held_lock_);

 private:
  struct Request {
    std::shared_ptr<CubeOnDisk> cube;
    SyncDone done;
  };

  Result<std::shared_ptr<CubeOnDisk>> open_cube(const std::string& name) REQUIRES(lock_);
  Result<bool> is_cube(const std::string& name) const;
  Status writable() const;  // EROFS
  std::vector<std::shared_ptr<CubeOnDisk>> open_cubes() const;
  void enter(const std::string& name, std::shared_ptr<CubeOnDisk> cube) REQUIRES(lock_)
      EXCLUDES(held_lock_);
  void run();
  static void serve(std::vector<Request> requests);

  const PosixFile directory_;
  const PosixFile note_;  // holds the store's lock
  const StoreOptions options_;
  Unpacker unpacker_{options_.unpacker};
  mutable Mutex lock_;
  std::map<std::string, std::shared_ptr<CubeOnDisk>, std::less<>> cubes_ GUARDED_BY(lock_);
  // The same, for who must not wait until one is opened or removed.
  Mutex held_lock_;
  std::vector<std::weak_ptr<CubeOnDisk>> may_hold_ GUARDED_BY(held_lock_);

  Mutex queue_lock_;
  CondVar woken_;
  std::vector<Request> queue_ GUARDED_BY(queue_lock_);
  bool running_ GUARDED_BY(queue_lock_) = false;
  bool stopping_ GUARDED_BY(queue_lock_) = false;
  std::thread thread_;
};

StoreOnDisk::~StoreOnDisk() {
  {
    MutexLock lock(queue_lock_);
    stopping_ = true;
    woken_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
  release_held();
  for (const auto& cube : open_cubes()) cube->close();
}

void StoreOnDisk::release_held() {
  std::vector<std::shared_ptr<CubeOnDisk>> cubes;
  {
    MutexLock lock(held_lock_);
    std::erase_if(may_hold_, [](const auto& cube) { return cube.expired(); });
    for (const auto& cube : may_hold_)
      if (auto held = cube.lock()) cubes.push_back(std::move(held));
  }
  for (const auto& cube : cubes) cube->release_held();
}

void StoreOnDisk::enter(const std::string& name, std::shared_ptr<CubeOnDisk> cube) {
  {
    MutexLock lock(held_lock_);
    may_hold_.push_back(cube);
  }
  cubes_.emplace(name, std::move(cube));
}

void StoreOnDisk::start() {
  MutexLock lock(queue_lock_);
  if (running_) return;
  running_ = true;
  thread_ = std::thread([this] { run(); });
}

// Syncs what was asked for, and every so often all that is dirty.
void StoreOnDisk::run() {
  auto next = std::chrono::steady_clock::now() + options_.sync_interval;
  for (;;) {
    std::vector<Request> requests;
    bool stop = false;
    {
      MutexLock lock(queue_lock_);
      while (queue_.empty() && !stopping_) {
        const auto left = next - std::chrono::steady_clock::now();
        if (left <= left.zero() || !woken_.wait_for(queue_lock_, left)) break;
      }
      requests.swap(queue_);
      stop = stopping_;
    }
    serve(std::move(requests));
    if (stop) return;
    if (std::chrono::steady_clock::now() < next) continue;
    for (const auto& cube : open_cubes())
      if (cube->is_dirty()) (void)cube->sync_now();
    next = std::chrono::steady_clock::now() + options_.sync_interval;
  }
}

// One sync serves all requests for a cube that came before it.
void StoreOnDisk::serve(std::vector<Request> requests) {
  std::map<CubeOnDisk*, Status> results;
  for (const Request& r : requests)
    if (!results.contains(r.cube.get())) results.emplace(r.cube.get(), r.cube->sync_now());
  for (const Request& r : requests) r.done(results.at(r.cube.get()));
}

void StoreOnDisk::request_sync(std::shared_ptr<CubeOnDisk> cube, SyncDone done) {
  {
    MutexLock lock(queue_lock_);
    if (running_ && !stopping_) {
      queue_.push_back({std::move(cube), std::move(done)});
      woken_.notify_all();
      return;
    }
  }
  done(cube->sync_now());
}

Result<bool> StoreOnDisk::is_cube(const std::string& name) const {
  const auto directory = PosixFile::open_at(directory_, name, O_RDONLY | O_DIRECTORY);
  if (!directory.ok()) {
    const std::errc code = directory.error().code;
    // Also a directory that is somebody else's, such as lost+found.
    if (code == std::errc::no_such_file_or_directory || code == std::errc::not_a_directory ||
        code == std::errc::too_many_symbolic_link_levels || code == std::errc::permission_denied)
      return false;
    return directory.error();
  }
  ACCRETE_TRY(const auto files, list_directory(*directory));
  // Also one that lost what says how it is built: it is not to be passed over.
  return std::any_of(files.begin(), files.end(), [](const std::string& file) {
    return file.starts_with("checkpoint.") || file.starts_with("journal.") || file == "bricks" ||
           file == "heap";
  });
}

Status StoreOnDisk::writable() const {
  if (!options_.read_only) return {};
  return fail(std::errc::read_only_file_system, "the store was opened for reading");
}

std::vector<std::string> StoreOnDisk::names() const {
  std::vector<std::string> cubes;
  if (auto all = list_directory(directory_); all.ok())
    for (std::string& name : *all)
      if (check_cube_name(name).ok()) {
        // One that cannot be read is there.
        const auto known = is_cube(name);
        if (!known.ok() || *known) cubes.push_back(std::move(name));
      }
  std::sort(cubes.begin(), cubes.end());
  return cubes;
}

Result<std::shared_ptr<CubeOnDisk>> StoreOnDisk::open_cube(const std::string& name) {
  ACCRETE_TRY(PosixFile directory, PosixFile::open_at(directory_, name, O_RDONLY | O_DIRECTORY));
  ACCRETE_TRY(auto cube, CubeOnDisk::open(std::move(directory), name, options_.limits, *this,
                                          !options_.read_only));
  enter(name, cube);
  return cube;
}

Result<std::shared_ptr<Cube>> StoreOnDisk::find(std::string_view name) {
  MutexLock lock(lock_);
  if (const auto it = cubes_.find(name); it != cubes_.end())
    return std::shared_ptr<Cube>(it->second);
  const std::string text(name);
  bool is_there = check_cube_name(name).ok();
  if (is_there) {
    ACCRETE_TRY(is_there, is_cube(text));
  }
  if (!is_there) return fail(std::errc::no_such_file_or_directory, "there is no cube " + text);
  auto cube = open_cube(text);
  if (!cube.ok()) {
    ::syslog(LOG_ERR, "cube %s cannot be opened: %s", text.c_str(), cube.error().sentence.c_str());
    return fail(std::errc::io_error, cube.error().sentence);
  }
  return std::shared_ptr<Cube>(std::move(cube).value());
}

// Made under a name that is no cube's and renamed, so a cube is there whole or not at all.
Result<std::shared_ptr<Cube>> StoreOnDisk::create(std::string_view name) {
  ACCRETE_CHECK(writable());
  ACCRETE_CHECK(check_cube_name(name));
  MutexLock lock(lock_);
  const std::string text(name);
  ACCRETE_TRY(const std::uint64_t uid, random_uid());
  const std::string unfinished = ".new-" + std::to_string(uid);
  const auto build = [&]() -> Result<std::shared_ptr<CubeOnDisk>> {
    ACCRETE_CHECK(make_directory_at(directory_, unfinished, 0700));
    ACCRETE_TRY(PosixFile made, PosixFile::open_at(directory_, unfinished, O_RDONLY | O_DIRECTORY));
    ACCRETE_CHECK(CubeOnDisk::make(made, uid));
    ACCRETE_TRY(auto cube, CubeOnDisk::open(std::move(made), text, options_.limits, *this, true));
    ACCRETE_CHECK(rename_durably(directory_, unfinished, text));
    return cube;
  };
  auto cube = build();
  if (!cube.ok() && says_full(cube.error())) {
    remove_with_files(directory_, unfinished);
    release_held();
    cube = build();
  }
  if (!cube.ok()) {
    remove_with_files(directory_, unfinished);
    return std::move(cube).error();
  }
  enter(text, *cube);
  return std::shared_ptr<Cube>(std::move(cube).value());
}

Status StoreOnDisk::remove(std::string_view name) {
  ACCRETE_CHECK(writable());
  ACCRETE_TRY(const auto found, find(name));
  MutexLock lock(lock_);
  const auto it = cubes_.find(name);
  if (it == cubes_.end())
    return fail(std::errc::no_such_file_or_directory, "there is no such cube");
  CubeOnDisk& cube = *it->second;
  ACCRETE_CHECK(cube.retire());
  // First out of sight, then file by file: what a crash leaves is no cube.
  const std::string doomed = ".gone-" + std::to_string(cube.uid());
  if (Status renamed = rename_durably(directory_, std::string(name), doomed); !renamed.ok()) {
    cube.reinstate();
    return renamed;
  }
  cubes_.erase(it);
  remove_with_files(directory_, doomed);
  return {};
}

Status StoreOnDisk::rename(std::string_view from, std::string_view to) {
  ACCRETE_CHECK(writable());
  ACCRETE_CHECK(check_cube_name(to));
  ACCRETE_TRY(const auto found, find(from));
  MutexLock lock(lock_);
  const auto it = cubes_.find(from);
  if (it == cubes_.end())
    return fail(std::errc::no_such_file_or_directory, "there is no such cube");
  const std::string new_name(to);
  ACCRETE_CHECK(rename_durably(directory_, std::string(from), new_name));
  auto cube = it->second;
  cubes_.erase(it);
  cube->rename(new_name);
  cubes_.emplace(new_name, std::move(cube));
  return {};
}

std::vector<std::shared_ptr<CubeOnDisk>> StoreOnDisk::open_cubes() const {
  MutexLock lock(lock_);
  std::vector<std::shared_ptr<CubeOnDisk>> open;
  for (const auto& [name, cube] : cubes_) open.push_back(cube);
  return open;
}

Status StoreOnDisk::sync() {
  Status first;
  for (const auto& cube : open_cubes()) {
    Status status = cube->sync_now();
    if (first.ok()) first = std::move(status);
  }
  return first;
}

Result<struct statvfs> StoreOnDisk::space() const {
  struct statvfs space {};
  if (::fstatvfs(directory_.fd(), &space) != 0) return fail_errno(errno, "statvfs");
  return space;
}

Result<struct stat> StoreOnDisk::attributes() const {
  return directory_.status();
}

// Leftovers of a cube that was being made or removed when the last run ended.
void sweep(const PosixFile& store) {
  const auto names = list_directory(store);
  if (!names.ok()) return;
  for (const std::string& name : *names) {
    if (!name.starts_with(".new-") && !name.starts_with(".gone-")) continue;
    remove_with_files(store, name);
  }
}

}  // namespace

Result<std::unique_ptr<Store>> Store::open(const std::string& path, const StoreOptions& options) {
  if (options.create && !options.read_only && ::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST)
    return fail_errno(errno, "mkdir " + path);
  // The store itself may be reached by a symbolic link; below it none is followed.
  const std::unique_ptr<char, void (*)(void*)> real(::realpath(path.c_str(), nullptr), ::free);
  if (!real) return fail_errno(errno, path);
  ACCRETE_TRY(PosixFile directory, PosixFile::open(real.get(), O_RDONLY | O_DIRECTORY));
  ACCRETE_TRY(PosixFile note, open_note(directory, path, options));
  if (!options.read_only) sweep(directory);
  return std::unique_ptr<Store>(
      std::make_unique<StoreOnDisk>(std::move(directory), std::move(note), options));
}

}  // namespace accrete
