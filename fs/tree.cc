#include "fs/tree.h"

#include <algorithm>
#include <bit>

#include "fs/directories.h"
#include "fs/frame_node.h"

namespace accrete {

std::shared_ptr<FrameNode> CubeState::find_staging(const StagingName& name) const {
  MutexLock lock(mutex_);
  const auto at = stagings_.find(name);
  return at == stagings_.end() ? nullptr : at->second;
}

std::shared_ptr<FrameNode> CubeState::find_staging(FrameId frame) const {
  MutexLock lock(mutex_);
  for (const auto& [name, node] : stagings_)
    if (node->became(frame)) return node;
  return nullptr;
}

bool CubeState::add_staging(const StagingName& name, std::shared_ptr<FrameNode> node) {
  MutexLock lock(mutex_);
  return stagings_.emplace(name, std::move(node)).second;
}

void CubeState::remove_staging(const StagingName& name, const FrameNode& node) {
  std::shared_ptr<FrameNode> last;  // destroyed after the lock
  MutexLock lock(mutex_);
  const auto at = stagings_.find(name);
  if (at == stagings_.end() || at->second.get() != &node) return;
  last = std::move(at->second);
  stagings_.erase(at);
}

std::vector<std::pair<std::string, std::shared_ptr<FrameNode>>> CubeState::stagings(
    const std::string& door) const {
  std::vector<std::pair<std::string, std::shared_ptr<FrameNode>>> found;
  MutexLock lock(mutex_);
  for (auto at = stagings_.lower_bound({door, ""}); at != stagings_.end(); ++at) {
    if (at->first.first != door) break;
    found.emplace_back(at->first.second, at->second);
  }
  return found;
}

void CubeState::drop_stagings() {
  std::map<StagingName, std::shared_ptr<FrameNode>> last;
  MutexLock lock(mutex_);
  last.swap(stagings_);
}

void CubeState::watch(std::shared_ptr<Watched> file) {
  MutexLock lock(mutex_);
  Watch& watch = watches_[file.get()];
  watch.file = std::move(file);
  ++watch.count;
}

void CubeState::unwatch(const Watched& file) {
  std::shared_ptr<Watched> last;
  MutexLock lock(mutex_);
  const auto at = watches_.find(&file);
  if (at == watches_.end() || --at->second.count != 0) return;
  last = std::move(at->second.file);
  watches_.erase(at);
}

std::vector<std::shared_ptr<Watched>> CubeState::watched() const {
  std::vector<std::shared_ptr<Watched>> files;
  MutexLock lock(mutex_);
  files.reserve(watches_.size());
  for (const auto& [key, watch] : watches_) files.push_back(watch.file);
  return files;
}

bool CubeState::is_watched() const {
  MutexLock lock(mutex_);
  return !watches_.empty();
}

bool CubeState::has_pages() const {
  MutexLock lock(mutex_);
  return std::any_of(watches_.begin(), watches_.end(),
                     [](const auto& watch) { return watch.second.file->has_pages(); });
}

Tree::Tree(Store& store, const struct stat& directory, Caching caching)
    : store_(store),
      directory_(directory),
      caching_(caching),
      direct_reads_(caching == Caching::direct),
      nodes_(std::make_shared<RootDirectory>(*this)),
      publisher_(*this) {}

Tree::~Tree() {
  publisher_.stop();
  std::unordered_map<OpenFile*, Kept> files;
  std::unordered_map<std::uint64_t, std::shared_ptr<CubeState>> states;
  {
    MutexLock lock(mutex_);
    files.swap(files_);
    states.swap(states_);
  }
  for (auto& [key, kept] : files) kept.file->release();
  files.clear();
  for (auto& [uid, state] : states) {
    state->drop_stagings();
  }
}

void Tree::set_direct_mmap(bool allowed) {
  direct_mmap_ = allowed;
  if (caching_ == Caching::automatic) direct_reads_ = allowed;
}

Result<std::shared_ptr<CubeState>> Tree::find_cube(std::string_view name) {
  ACCRETE_TRY(std::shared_ptr<Cube> cube, store_.find(name));
  return state_of(std::move(cube));
}

std::shared_ptr<CubeState> Tree::state_of(std::shared_ptr<Cube> cube) {
  MutexLock lock(mutex_);
  std::shared_ptr<CubeState>& place = states_[cube->uid()];
  if (place == nullptr) place = std::make_shared<CubeState>(*this, std::move(cube));
  return place;
}

void Tree::drop_state(std::uint64_t uid) {
  std::shared_ptr<CubeState> last;
  MutexLock lock(mutex_);
  const auto at = states_.find(uid);
  if (at == states_.end()) return;
  last = std::move(at->second);
  states_.erase(at);
}

OpenFile* Tree::keep(std::unique_ptr<OpenFile> file, std::shared_ptr<Node> node) {
  OpenFile* key = file.get();
  ++node->opens;
  MutexLock lock(mutex_);
  files_.emplace(key, Kept{std::move(file), std::move(node)});
  return key;
}

void Tree::drop(OpenFile* file) {
  Kept kept;
  {
    MutexLock lock(mutex_);
    const auto at = files_.find(file);
    if (at == files_.end()) return;
    kept = std::move(at->second);
    files_.erase(at);
  }
  kept.file->release();
  --kept.node->opens;
}

std::shared_ptr<Reply> Tree::later(Reply reply) {
  {
    MutexLock lock(mutex_);
    ++late_replies_;
  }
  return std::shared_ptr<Reply>(new Reply(std::move(reply)), [this](Reply* answered) {
    delete answered;
    MutexLock lock(mutex_);
    if (--late_replies_ == 0) all_answered_.notify_all();
  });
}

void Tree::wait_until_answered() {
  MutexLock lock(mutex_);
  while (late_replies_ != 0) all_answered_.wait(mutex_);
}

struct stat Tree::directory_attributes(std::int64_t mtime_ns) const {
  struct stat attributes {};
  attributes.st_mode = S_IFDIR | (directory_.st_mode & 0777);
  attributes.st_nlink = 1;  // says nothing about subdirectories
  attributes.st_uid = directory_.st_uid;
  attributes.st_gid = directory_.st_gid;
  attributes.st_blksize = 4096;
  set_times(attributes, mtime_ns);
  return attributes;
}

struct stat Tree::file_attributes(std::uint64_t size, std::int64_t mtime_ns, bool writable) const {
  struct stat attributes = directory_attributes(mtime_ns);
  attributes.st_mode = S_IFREG | (directory_.st_mode & (writable ? 0666u : 0444u));
  set_size(attributes, size);
  return attributes;
}

void set_size(struct stat& attributes, std::uint64_t size) {
  attributes.st_size = static_cast<off_t>(size);
  attributes.st_blocks = static_cast<blkcnt_t>((size + 511) / 512);
  // cp and cat ask in such pieces, and the kernel holds all of a reader's buffer while it waits.
  attributes.st_blksize =
      static_cast<blksize_t>(std::bit_ceil(std::clamp<std::uint64_t>(size, 4096, 1 << 20)));
}

void set_times(struct stat& attributes, std::int64_t ns) {
  constexpr std::int64_t second = 1'000'000'000;
  const std::int64_t part = (ns % second + second) % second;
  attributes.st_mtim.tv_sec = (ns - part) / second;
  attributes.st_mtim.tv_nsec = part;
  attributes.st_atim = attributes.st_ctim = attributes.st_mtim;
}

}  // namespace accrete
