#include "fs/publish.h"

#include <algorithm>
#include <cerrno>
#include <iterator>
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
  names_.start(session);
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
  names_.stop();
  if (trimmer_.joinable()) trimmer_.join();
}

bool Publisher::queue(Item& item, bool is_work) {
  {
    MutexLock lock(mutex_);
    const bool is_first = !busy_ && queue_.empty() && (!item.waits_for_names || names_.is_idle());
    if (!running_ || (!is_work && is_first)) return false;
    queue_.push_back(std::move(item));
  }
  wake_.notify_one();
  return true;
}

void Publisher::begin(const Item& item) {
  item.cube->changes().begin();
  if (item.changes_contents()) item.cube->content_changes().begin();
}

void Publisher::end(Item& item) {
  const bool changes_contents = item.changes_contents();
  item.former.reset();
  item.poked.reset();
  if (item.cube != nullptr) {
    item.cube->changes().end();
    if (changes_contents) item.cube->content_changes().end();
  }
}

void Publisher::finish(Item& item) {
  end(item);
  if (item.then) item.then();
}

void Publisher::announce(std::shared_ptr<CubeState> cube, RecentValues::Ticket former,
                         std::function<void()> then, WaitsWith held) {
  Item item{std::move(cube), std::move(former), std::nullopt, std::move(then), true, held};
  begin(item);
  const Cube& changed = item.cube->cube();
  const bool is_work =
      item.cube->is_watched() || tree_.nodes().must_revoke(changed.uid(), *changed.pin().snapshot);
  if (!queue(item, is_work)) finish(item);
}

void Publisher::announce(std::shared_ptr<CubeState> cube, Poked poked, std::function<void()> then) {
  Item item{std::move(cube), nullptr, std::move(poked), std::move(then), false};
  begin(item);
  if (!item.cube->has_pages() || !queue(item, true)) finish(item);
}

void Publisher::after(std::function<void()> then, bool names, WaitsWith held) {
  Item item{nullptr, nullptr, std::nullopt, std::move(then), names, held};
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
      while (running_ && queue_.empty() && names_.is_idle()) wake_.wait(mutex_);
      if (running_ && queue_.empty()) wake_.wait_for(mutex_, NameRevoker::patience / 8);
      items.swap(queue_);
      busy_ = !items.empty();
      running = running_;
    }
    std::vector<NodeTable::RevokedName> names;
    if (running) notify(items, names);
    NameRevoker::Waiting later;
    const bool waits = running && (!names.empty() || !names_.is_idle());
    for (Item& item : items) {
      end(item);
      if (!item.then) continue;
      if (!waits || !item.waits_for_names)
        item.then();
      else
        (item.held == WaitsWith::lock ? later.with_lock : later.without)
            .push_back(std::move(item.then));
    }
    if (!names.empty() || !later.empty()) names_.revoke(std::move(names), std::move(later));
    names_.release_if_stuck();
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

bool Publisher::send(const CacheNotice& notice) {
  return notice.node == 0 || fuse_lowlevel_notify_inval_inode(session_, notice.node, notice.offset,
                                                              notice.length) != -ENOENT;
}

void Publisher::revoke(const CubeState& cube, std::vector<NodeTable::RevokedName>& names) {
  const Pinned now = cube.cube().pin();
  NodeTable::Revoked revoked = tree_.nodes().revoke(cube.cube().uid(), *now.snapshot);
  std::move(revoked.names.begin(), revoked.names.end(), std::back_inserter(names));
  for (NodeTable::RevokedAttributes& each : revoked.attributes)
    if (!send(CacheNotice{each.node}) && !each.name.name.empty())
      names.push_back({std::move(each.name), each.node});
}

void Publisher::notify(const std::vector<Item>& items, std::vector<NodeTable::RevokedName>& names) {
  std::map<CubeState*, bool> committed;  // -> contents changed
  for (const Item& item : items)
    if (item.cube != nullptr && !item.poked) committed[item.cube.get()] |= item.former != nullptr;
  for (const auto& [cube, contents_changed] : committed) {
    revoke(*cube, names);
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
  for (const NodeTable::Name& each : tree_.nodes().idle_names(count - wanted))
    fuse_lowlevel_notify_inval_entry(session_, each.parent, each.name.data(), each.name.size());
}

}  // namespace accrete
