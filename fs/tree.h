// What all nodes of one mount share: the store, the table of nodes, the open files, the cubes with
// what comes in to them.
#pragma once

#include <sys/stat.h>

#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/mutex.h"
#include "core/store.h"
#include "fs/change_count.h"
#include "fs/node.h"
#include "fs/node_table.h"
#include "fs/publish.h"
#include "fs/workers.h"

namespace accrete {

class FrameNode;
class Tree;

// How views are opened for reading (-o io=).
enum class Caching { automatic, direct, cached };

// A cube in the tree. Thread-safe.
class CubeState {
 public:
  CubeState(Tree& tree, std::shared_ptr<Cube> cube) : tree_(tree), cube_(std::move(cube)) {}

  Tree& tree() const { return tree_; }
  Cube& cube() const { return *cube_; }
  const std::shared_ptr<Cube>& shared_cube() const { return cube_; }

  // ---- Files that come in, by door and name ----
  using StagingName = std::pair<std::string, std::string>;
  std::shared_ptr<FrameNode> find_staging(const StagingName& name) const EXCLUDES(mutex_);
  // The incoming file that has become this frame but is still listed here.
  std::shared_ptr<FrameNode> find_staging(FrameId frame) const EXCLUDES(mutex_);
  // False when the name is taken.
  bool add_staging(const StagingName& name, std::shared_ptr<FrameNode> node) EXCLUDES(mutex_);
  // Does nothing when the name means another node by now.
  void remove_staging(const StagingName& name, const FrameNode& node) EXCLUDES(mutex_);
  std::vector<std::pair<std::string, std::shared_ptr<FrameNode>>> stagings(
      const std::string& door) const EXCLUDES(mutex_);
  void drop_stagings() EXCLUDES(mutex_);

  // ---- Files whose pages the kernel may hold: watched while they are open ----
  void watch(std::shared_ptr<Watched> file) EXCLUDES(mutex_);
  void unwatch(const Watched& file) EXCLUDES(mutex_);
  std::vector<std::shared_ptr<Watched>> watched() const EXCLUDES(mutex_);
  bool is_watched() const EXCLUDES(mutex_);
  // Whether the kernel has pages of one of them.
  bool has_pages() const EXCLUDES(mutex_);

  // ---- Changes that are published: all, and those that are not only growth ----
  ChangeCount& changes() { return changes_; }
  ChangeCount& content_changes() { return content_changes_; }

 private:
  struct Watch {
    std::shared_ptr<Watched> file;
    std::size_t count = 0;
  };

  Tree& tree_;
  const std::shared_ptr<Cube> cube_;
  ChangeCount changes_;
  ChangeCount content_changes_;
  mutable Mutex mutex_;
  std::map<StagingName, std::shared_ptr<FrameNode>> stagings_ GUARDED_BY(mutex_);
  std::unordered_map<const Watched*, Watch> watches_ GUARDED_BY(mutex_);
};

// Thread-safe.
class Tree {
 public:
  // `store` outlives the tree; `directory`: owner and mode of the store's directory.
  Tree(Store& store, const struct stat& directory, Caching caching);
  ~Tree();  // open files and incoming ones are dropped

  Store& store() const { return store_; }
  NodeTable& nodes() { return nodes_; }
  Publisher& publisher() { return publisher_; }
  Workers& workers() { return workers_; }

  // After INIT: whether direct_io files can be mapped shared.
  void set_direct_mmap(bool allowed);
  bool maps_for_writing() const { return direct_mmap_; }
  // How a file is opened for reading only.
  OpenFile::Manner reading_manner() const { return {direct_reads_.load(), true}; }

  // ENOENT and what else Store::find says.
  Result<std::shared_ptr<CubeState>> find_cube(std::string_view name);
  std::shared_ptr<CubeState> state_of(std::shared_ptr<Cube> cube) EXCLUDES(mutex_);
  void drop_state(std::uint64_t uid) EXCLUDES(mutex_);

  // Open files live here until their release, so that none outlives the mount.
  OpenFile* keep(std::unique_ptr<OpenFile> file, std::shared_ptr<Node> node) EXCLUDES(mutex_);
  void drop(OpenFile* file) EXCLUDES(mutex_);

  // A reply that outlives its handler. All of them are given before the session ends.
  std::shared_ptr<Reply> later(Reply reply) EXCLUDES(mutex_);
  void wait_until_answered() EXCLUDES(mutex_);

  // Attributes but for st_ino. Permission bits are those of the store's directory, without x for
  // files and without w where `writable` is false.
  struct stat directory_attributes(std::int64_t mtime_ns) const;
  struct stat file_attributes(std::uint64_t size, std::int64_t mtime_ns, bool writable) const;

 private:
  struct Kept {
    std::unique_ptr<OpenFile> file;
    std::shared_ptr<Node> node;
  };

  Store& store_;
  const struct stat directory_;
  const Caching caching_;
  std::atomic<bool> direct_reads_;
  std::atomic<bool> direct_mmap_ = false;
  NodeTable nodes_;
  mutable Mutex mutex_;
  std::unordered_map<std::uint64_t, std::shared_ptr<CubeState>> states_ GUARDED_BY(mutex_);
  std::unordered_map<OpenFile*, Kept> files_ GUARDED_BY(mutex_);
  std::size_t late_replies_ GUARDED_BY(mutex_) = 0;
  CondVar all_answered_;
  Publisher publisher_;  // these are last: their threads use the rest
  Workers workers_;
};

// Fills in what all regular files have in common.
void set_size(struct stat& attributes, std::uint64_t size);
void set_times(struct stat& attributes, std::int64_t ns);

}  // namespace accrete
