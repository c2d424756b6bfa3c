#include "fs/publish.h"

#include <algorithm>
#include <map>
#include <utility>

#include "fs/fuse.h"
#include "fs/tree.h"
#include "fs/view_node.h"

namespace accrete {

namespace {

// A node that nobody has open, some more; the kernel's own part of it takes as much again.
constexpr std::size_t node_bytes = 900;
constexpr std::size_t most_nodes = 131072;
// The kernel forgets in its own time, and not what is in use; so the next trim comes only after so
// many more.
constexpr std::size_t step = most_nodes / 16;

// Cards of views count for as many nodes as would take that room.
std::size_t size_of(const NodeTable& nodes) {
  return nodes.size() + ViewNode::card_bytes() / node_bytes;
}

}  // namespace

Publisher::Publisher(Tree& tree) : tree_(tree), trim_above_(most_nodes) {}

void Publisher::start(fuse_session* session) {
  session_ = session;
  {
    MutexLock lock(mutex_);
    running_ = true;
  }
  thread_ = std::thread([this] { run(); });
  trimmer_ = std::thread([this] { run_trimmer(); });
}

void Publisher::stop() {
  {
    MutexLock lock(mutex_);
    running_ = false;
  }
  wake_.notify_all();
  wake_trimmer_.notify_all();
  if (thread_.joinable()) thread_.join();
  if (trimmer_.joinable()) trimmer_.join();
}

bool Publisher::queue(Item& item, bool is_work) {
  {
    MutexLock lock(mutex_);
    if (!running_ || (!is_work && !busy_ && queue_.empty())) return false;
    queue_.push_back(std::move(item));
  }
  wake_.notify_one();
  return true;
}

void Publisher::begin(const Item& item) {
  item.cube->changes().begin();
  if (item.changes_contents()) item.cube->content_changes().begin();
}

void Publisher::finish(Item& item) {
  const bool changes_contents = item.changes_contents();
  item.former.reset();
  item.poked.reset();
  if (item.cube != nullptr) {
    item.cube->changes().end();
    if (changes_contents) item.cube->content_changes().end();
  }
  if (item.then) item.then();
}

void Publisher::announce(std::shared_ptr<CubeState> cube, RecentValues::Ticket former,
                         std::function<void()> then) {
  Item item{std::move(cube), std::move(former), std::nullopt, std::move(then)};
  begin(item);
  const Cube& changed = item.cube->cube();
  const bool is_work =
      item.cube->is_watched() || tree_.nodes().must_revoke(changed.uid(), *changed.pin().snapshot);
  if (!queue(item, is_work)) finish(item);
}

void Publisher::announce(std::shared_ptr<CubeState> cube, Poked poked, std::function<void()> then) {
  Item item{std::move(cube), nullptr, std::move(poked), std::move(then)};
  begin(item);
  if (!item.cube->has_pages() || !queue(item, true)) finish(item);
}

void Publisher::after_all(std::function<void()> then) {
  Item item{nullptr, nullptr, std::nullopt, std::move(then)};
  if (!queue(item, false)) item.then();
}

bool Publisher::is_crowded() const {
  return size_of(tree_.nodes()) > most_nodes;
}

void Publisher::trim_if_large() {
  const std::size_t count = size_of(tree_.nodes());
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
  wake_trimmer_.notify_one();
}

void Publisher::run() {
  for (;;) {
    std::vector<Item> items;
    bool running = true;
    {
      MutexLock lock(mutex_);
      busy_ = false;
      while (running_ && queue_.empty()) wake_.wait(mutex_);
      items.swap(queue_);
      busy_ = true;
      running = running_;
    }
    if (running) notify(items);
    for (Item& item : items) finish(item);
    if (!running) return;
  }
}

void Publisher::run_trimmer() {
  for (;;) {
    {
      MutexLock lock(mutex_);
      while (running_ && !trim_wanted_) wake_trimmer_.wait(mutex_);
      if (!running_) return;
    }
    trim();
    MutexLock lock(mutex_);
    trim_wanted_ = false;
  }
}

void Publisher::send(const CacheNotice& notice) {
  if (notice.node != 0)
    fuse_lowlevel_notify_inval_inode(session_, notice.node, notice.offset, notice.length);
}

void Publisher::send(const NodeTable::Name& name) {
  fuse_lowlevel_notify_inval_entry(session_, name.parent, name.name.data(), name.name.size());
}

void Publisher::revoke(const CubeState& cube) {
  const Pinned now = cube.cube().pin();
  const NodeTable::Revoked revoked = tree_.nodes().revoke(cube.cube().uid(), *now.snapshot);
  for (const NodeTable::Name& name : revoked.names) send(name);
  for (const std::uint64_t number : revoked.attributes) send(CacheNotice{number});
}

void Publisher::notify(const std::vector<Item>& items) {
  std::map<CubeState*, bool> committed;  // -> contents changed
  for (const Item& item : items)
    if (item.cube != nullptr && !item.poked) committed[item.cube.get()] |= item.former != nullptr;
  for (const auto& [cube, contents_changed] : committed) {
    revoke(*cube);
    for (const std::shared_ptr<Watched>& file : cube->watched())
      if (const auto notice = file->after_commit(contents_changed)) send(*notice);
  }
  for (const Item& item : items) {
    if (!item.poked) continue;
    for (const std::shared_ptr<Watched>& file : item.cube->watched())
      for (const CacheNotice& notice : file->after_poke(*item.poked)) send(notice);
  }
}

void Publisher::trim() {
  const std::size_t count = size_of(tree_.nodes());
  trim_above_ = count + step;
  constexpr std::size_t wanted = most_nodes - step;
  if (count <= wanted) return;
  for (const NodeTable::Name& name : tree_.nodes().idle_names(count - wanted)) send(name);
}

}  // namespace accrete
