#include "fs/publish.h"

#include <algorithm>
#include <map>
#include <utility>

#include "fs/fuse.h"
#include "fs/tree.h"

namespace accrete {

namespace {

// A node with its view takes about a kilobyte.
constexpr std::size_t most_nodes = 16384;
// The kernel forgets in its own time, and not what is in use; so the next trim comes only after so
// many more.
constexpr std::size_t step = most_nodes / 4;

}  // namespace

Publisher::Publisher(Tree& tree) : tree_(tree), trim_above_(most_nodes) {}

void Publisher::start(fuse_session* session) {
  session_ = session;
  {
    MutexLock lock(mutex_);
    running_ = true;
  }
  thread_ = std::thread([this] { run(); });
}

void Publisher::stop() {
  {
    MutexLock lock(mutex_);
    running_ = false;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Publisher::announce(std::shared_ptr<CubeState> cube, bool contents_changed,
                         std::function<void()> then) {
  bool queued = false;
  if (cube->is_watched()) {
    MutexLock lock(mutex_);
    if (running_) {
      queue_.push_back({std::move(cube), contents_changed, std::move(then)});
      queued = true;
    }
  }
  if (queued)
    wake_.notify_one();
  else if (then)
    then();
}

void Publisher::trim_if_large() {
  const std::size_t count = tree_.nodes().size();
  const std::size_t above = trim_above_;
  if (count <= above) {
    if (count + step < above) trim_above_ = std::max(most_nodes, count + step);
    return;
  }
  {
    MutexLock lock(mutex_);
    if (trim_wanted_ || !running_) return;
    trim_wanted_ = true;
  }
  wake_.notify_one();
}

void Publisher::run() {
  for (;;) {
    std::vector<Item> items;
    bool trim_now = false;
    bool running = true;
    {
      MutexLock lock(mutex_);
      while (running_ && queue_.empty() && !trim_wanted_) wake_.wait(mutex_);
      items.swap(queue_);
      trim_now = trim_wanted_;
      running = running_;
    }
    if (running) notify(items);
    for (const Item& item : items)
      if (item.then) item.then();
    if (!running) return;
    if (trim_now) {
      trim();
      MutexLock lock(mutex_);
      trim_wanted_ = false;
    }
  }
}

void Publisher::notify(const std::vector<Item>& items) {
  std::map<CubeState*, bool> cubes;  // -> contents changed
  for (const Item& item : items) cubes[item.cube.get()] |= item.contents_changed;
  for (const auto& [cube, contents_changed] : cubes) {
    for (const std::shared_ptr<Watched>& file : cube->watched()) {
      const std::optional<CacheNotice> notice = file->after_commit(contents_changed);
      if (notice && notice->node != 0)
        fuse_lowlevel_notify_inval_inode(session_, notice->node, notice->offset, 0);
    }
  }
}

void Publisher::trim() {
  const std::size_t count = tree_.nodes().size();
  trim_above_ = count + step;
  constexpr std::size_t wanted = most_nodes - step;
  if (count <= wanted) return;
  for (const NodeTable::Name& name : tree_.nodes().idle_names(count - wanted))
    fuse_lowlevel_notify_inval_entry(session_, name.parent, name.name.data(), name.name.size());
}

}  // namespace accrete
