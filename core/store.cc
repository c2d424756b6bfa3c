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
constexpr std::string_view note_text = "accretefs store, version 1\n";
constexpr std::string_view note_start = "accretefs store, version ";

Status check_cube_name(std::string_view name) {
  ACCRETE_CHECK(check_file_name(name));
  if (name.front() == '.' || name == note_name)
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

// Checks the store's note, or writes it into an empty directory. One without text is none: the
// power went when it was about to be written.
Result<PosixFile> open_note(const PosixFile& directory, const std::string& path, bool create) {
  const std::string file(note_name);
  auto note = PosixFile::open_at(directory, file, O_RDWR);
  if (!note.ok() && (note.error().code != std::errc::no_such_file_or_directory || !create))
    return std::move(note).error();
  std::uint64_t size = 0;
  if (note.ok()) {
    ACCRETE_TRY(size, note->size());
  }
  if (size == 0 && create) {
    ACCRETE_TRY(const std::vector<std::string> names, list_directory(directory));
    for (const std::string& name : names)
      if (name != "lost+found" && name != note_name)
        return fail(std::errc::directory_not_empty,
                    path + " is no store, and holds other things: give an empty directory");
    note = PosixFile::open_at(directory, file, O_RDWR | O_CREAT, 0644);
    if (!note.ok()) return std::move(note).error();
    ACCRETE_CHECK(note->write(0, as_bytes(note_text)));
    ACCRETE_CHECK(note->sync_all());
    ACCRETE_CHECK(directory.sync_all());
  }
  std::string text(256, '\0');
  ACCRETE_TRY(const std::size_t n, note->read(0, std::as_writable_bytes(std::span(text))));
  text.resize(n);
  if (text != note_text)
    return fail(std::errc::invalid_argument, text.starts_with(note_start)
                                                 ? path + " was made by a newer version: " + text
                                                 : path + " is no store: its note is damaged");
  if (const Status locked = note->lock_exclusive(); !locked.ok())
    return fail(std::errc::device_or_resource_busy, path + " is in use by another accretefs");
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

 private:
  struct Request {
    std::shared_ptr<CubeOnDisk> cube;
    SyncDone done;
  };

  Result<std::shared_ptr<CubeOnDisk>> open_cube(const std::string& name) REQUIRES(lock_);
  bool is_cube(const std::string& name) const;
  std::vector<std::shared_ptr<CubeOnDisk>> open_cubes() const;
  void run();
  static void serve(std::vector<Request> requests);

  const PosixFile directory_;
  const PosixFile note_;  // holds the store's lock
  const StoreOptions options_;
  Unpacker unpacker_{options_.unpacker};
  mutable Mutex lock_;
  std::map<std::string, std::shared_ptr<CubeOnDisk>, std::less<>> cubes_ GUARDED_BY(lock_);

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
  for (const auto& cube : open_cubes()) cube->close();
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

bool StoreOnDisk::is_cube(const std::string& name) const {
  const auto directory = PosixFile::open_at(directory_, name, O_RDONLY | O_DIRECTORY);
  if (!directory.ok()) return false;
  const auto files = list_directory(*directory);
  return files.ok() && std::any_of(files->begin(), files->end(), [](const std::string& file) {
           return file.starts_with("checkpoint.") || file.starts_with("journal.");
         });
}

std::vector<std::string> StoreOnDisk::names() const {
  std::vector<std::string> cubes;
  if (auto all = list_directory(directory_); all.ok())
    for (std::string& name : *all)
      if (check_cube_name(name).ok() && is_cube(name)) cubes.push_back(std::move(name));
  std::sort(cubes.begin(), cubes.end());
  return cubes;
}

Result<std::shared_ptr<CubeOnDisk>> StoreOnDisk::open_cube(const std::string& name) {
  ACCRETE_TRY(PosixFile directory, PosixFile::open_at(directory_, name, O_RDONLY | O_DIRECTORY));
  ACCRETE_TRY(auto cube, CubeOnDisk::open(std::move(directory), name, options_.limits, *this));
  cubes_.emplace(name, cube);
  return cube;
}

Result<std::shared_ptr<Cube>> StoreOnDisk::find(std::string_view name) {
  MutexLock lock(lock_);
  if (const auto it = cubes_.find(name); it != cubes_.end())
    return std::shared_ptr<Cube>(it->second);
  const std::string text(name);
  if (!check_cube_name(name).ok() || !is_cube(text))
    return fail(std::errc::no_such_file_or_directory, "there is no cube " + text);
  auto cube = open_cube(text);
  if (!cube.ok()) {
    ::syslog(LOG_ERR, "cube %s cannot be opened: %s", text.c_str(), cube.error().sentence.c_str());
    return fail(std::errc::io_error, cube.error().sentence);
  }
  return std::shared_ptr<Cube>(std::move(cube).value());
}

// Made under a name that is no cube's and renamed, so a cube is there whole or not at all.
Result<std::shared_ptr<Cube>> StoreOnDisk::create(std::string_view name) {
  ACCRETE_CHECK(check_cube_name(name));
  MutexLock lock(lock_);
  const std::string text(name);
  ACCRETE_TRY(const std::uint64_t uid, random_uid());
  const std::string unfinished = ".new-" + std::to_string(uid);
  ACCRETE_CHECK(make_directory_at(directory_, unfinished, 0700));
  const auto build = [&]() -> Status {
    ACCRETE_TRY(const PosixFile made,
                PosixFile::open_at(directory_, unfinished, O_RDONLY | O_DIRECTORY));
    Status status = CubeOnDisk::make(made, uid);
    if (status.ok()) status = rename_at(directory_, unfinished, text, false);
    if (!status.ok()) {
      if (const auto files = list_directory(made); files.ok())
        for (const std::string& file : *files) (void)unlink_at(made, file, false);
      (void)unlink_at(directory_, unfinished, true);
      return status;
    }
    return directory_.sync_all();
  };
  ACCRETE_CHECK(build());
  ACCRETE_TRY(auto cube, open_cube(text));
  return std::shared_ptr<Cube>(std::move(cube));
}

Status StoreOnDisk::remove(std::string_view name) {
  ACCRETE_TRY(const auto found, find(name));
  MutexLock lock(lock_);
  const auto it = cubes_.find(name);
  if (it == cubes_.end())
    return fail(std::errc::no_such_file_or_directory, "there is no such cube");
  CubeOnDisk& cube = *it->second;
  ACCRETE_CHECK(cube.retire());
  // First out of sight, then file by file: what a crash leaves is no cube.
  const std::string doomed = ".gone-" + std::to_string(cube.uid());
  if (Status renamed = rename_at(directory_, std::string(name), doomed, false); !renamed.ok()) {
    cube.reinstate();
    return renamed;
  }
  if (const auto files = list_directory(cube.directory()); files.ok())
    for (const std::string& file : *files) (void)unlink_at(cube.directory(), file, false);
  cubes_.erase(it);
  (void)unlink_at(directory_, doomed, true);
  return directory_.sync_all();
}

Status StoreOnDisk::rename(std::string_view from, std::string_view to) {
  ACCRETE_CHECK(check_cube_name(to));
  ACCRETE_TRY(const auto found, find(from));
  MutexLock lock(lock_);
  const auto it = cubes_.find(from);
  if (it == cubes_.end())
    return fail(std::errc::no_such_file_or_directory, "there is no such cube");
  const std::string new_name(to);
  ACCRETE_CHECK(rename_at(directory_, std::string(from), new_name, false));
  auto cube = it->second;
  cubes_.erase(it);
  cube->rename(new_name);
  cubes_.emplace(new_name, std::move(cube));
  return directory_.sync_all();
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
  struct stat status {};
  if (::fstat(directory_.fd(), &status) != 0) return fail_errno(errno, "stat");
  return status;
}

// Leftovers of a cube that was being made or removed when the last run ended.
void sweep(const PosixFile& store) {
  const auto names = list_directory(store);
  if (!names.ok()) return;
  for (const std::string& name : *names) {
    if (!name.starts_with(".new-") && !name.starts_with(".gone-")) continue;
    const auto directory = PosixFile::open_at(store, name, O_RDONLY | O_DIRECTORY);
    if (!directory.ok()) continue;
    if (const auto files = list_directory(*directory); files.ok())
      for (const std::string& file : *files) (void)unlink_at(*directory, file, false);
    (void)unlink_at(store, name, true);
  }
}

}  // namespace

Result<std::unique_ptr<Store>> Store::open(const std::string& path, const StoreOptions& options) {
  if (options.create && ::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST)
    return fail_errno(errno, "mkdir " + path);
  // The store itself may be reached by a symbolic link; below it none is followed.
  const std::unique_ptr<char, void (*)(void*)> real(::realpath(path.c_str(), nullptr), ::free);
  if (!real) return fail_errno(errno, path);
  ACCRETE_TRY(PosixFile directory, PosixFile::open(real.get(), O_RDONLY | O_DIRECTORY));
  ACCRETE_TRY(PosixFile note, open_note(directory, path, options.create));
  sweep(directory);
  return std::unique_ptr<Store>(
      std::make_unique<StoreOnDisk>(std::move(directory), std::move(note), options));
}

}  // namespace accrete
