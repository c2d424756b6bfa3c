#include "fs/node_table.h"

#include <utility>

namespace accrete {

namespace {
constexpr std::uint32_t root_slot = 1;
}  // namespace

NodeTable::NodeTable(std::shared_ptr<Node> root) {
  slots_.resize(root_slot + 1);
  root->number_ = NodeNumber{root_slot, 0}.number();
  by_key_.emplace(root->key_, root_slot);
  slots_[root_slot].lookups = 1;
  slots_[root_slot].node = std::move(root);
}

std::shared_ptr<Node> NodeTable::find(std::uint64_t number) const {
  const NodeNumber wanted = NodeNumber::from(number);
  MutexLock lock(mutex_);
  if (wanted.slot >= slots_.size()) return nullptr;
  const Slot& slot = slots_[wanted.slot];
  return slot.generation == wanted.generation ? slot.node : nullptr;
}

std::shared_ptr<Node> NodeTable::enter(std::shared_ptr<Node> node, std::uint64_t parent,
                                       std::string_view name) {
  MutexLock lock(mutex_);
  const auto [at, fresh] = by_key_.try_emplace(node->key_, 0);
  if (fresh) {
    if (free_.empty()) {
      free_.push_back(static_cast<std::uint32_t>(slots_.size()));
      slots_.emplace_back();
    }
    at->second = free_.back();
    free_.pop_back();
    Slot& slot = slots_[at->second];
    node->number_ = NodeNumber{at->second, slot.generation}.number();
    slot.node = std::move(node);
  }
  Slot& slot = slots_[at->second];
  if (at->second != root_slot) {
    ++slot.lookups;
    slot.is_named = false;
    if (!has_lease(slot)) slot.found_as = {parent, std::string(name)};
  }
  return slot.node;
}

bool NodeTable::grant_name(const Node& node, std::uint64_t parent, std::string_view name,
                           const Lease& lease) {
  MutexLock lock(mutex_);
  const std::uint32_t index = NodeNumber::from(node.number_).slot;
  Slot& slot = slots_[index];
  if (has_lease(slot) && (slot.found_as.parent != parent || slot.found_as.name != name))
    return false;
  if (!grant(index, &Slot::name_lease, lease)) return false;
  slot.found_as = {parent, std::string(name)};
  return true;
}

bool NodeTable::grant_attributes(const Node& node, const Lease& lease) {
  MutexLock lock(mutex_);
  return grant(NodeNumber::from(node.number_).slot, &Slot::attribute_lease, lease);
}

bool NodeTable::grant_attributes(const Node& node, std::uint64_t parent, std::string_view name,
                                 const Lease& lease) {
  MutexLock lock(mutex_);
  const std::uint32_t index = NodeNumber::from(node.number_).slot;
  const Slot& slot = slots_[index];
  // Frames lie in directories whose locks are held by who waits for what is revoked.
  return !lease.of.of_rows && slot.found_as.parent == parent && slot.found_as.name == name &&
         grant(index, &Slot::attribute_lease, lease);
}

bool NodeTable::grant(std::uint32_t index, Place Slot::*which, const Lease& lease) {
  Place& place = slots_[index].*which;
  if (place.leases != nullptr) return place.leases->ground == lease.ground;
  Leases& leases = leases_[lease.of];
  if (leases.slots.empty()) leases.ground = lease.ground;
  if (leases.ground != lease.ground) return false;
  place = {&leases, leases.slots.size()};
  leases.slots.push_back(index);
  return true;
}

void NodeTable::end_lease(Slot& slot, Place Slot::*which) {
  Place& place = slot.*which;
  if (place.leases == nullptr) return;
  std::vector<std::uint32_t>& others = place.leases->slots;
  (slots_[others.back()].*which).index = place.index;
  others[place.index] = others.back();
  others.pop_back();
  place.leases = nullptr;
}

std::shared_ptr<Node> NodeTable::known(std::shared_ptr<Node> node) const {
  MutexLock lock(mutex_);
  const auto at = by_key_.find(node->key_);
  return at == by_key_.end() ? node : slots_[at->second].node;
}

void NodeTable::forget(std::uint64_t number, std::uint64_t lookups) {
  const NodeNumber wanted = NodeNumber::from(number);
  std::shared_ptr<Node> last;  // destroyed after the lock
  MutexLock lock(mutex_);
  if (wanted.slot == root_slot || wanted.slot >= slots_.size()) return;
  Slot& slot = slots_[wanted.slot];
  if (slot.node == nullptr || slot.generation != wanted.generation) return;
  slot.lookups -= lookups < slot.lookups ? lookups : slot.lookups;
  if (slot.lookups != 0) return;
  const auto at = by_key_.find(slot.node->key_);
  if (at != by_key_.end() && at->second == wanted.slot) by_key_.erase(at);
  slot.node->number_ = 0;
  last = std::move(slot.node);
  slot.node = nullptr;
  end_lease(slot, &Slot::name_lease);
  end_lease(slot, &Slot::attribute_lease);
  slot.found_as = {};
  ++slot.generation;
  free_.push_back(wanted.slot);
}

void NodeTable::rename(Node& node, const Identity& identity) {
  MutexLock lock(mutex_);
  const std::uint32_t slot = NodeNumber::from(node.number_).slot;
  node.ino_ = identity.ino();
  if (slot != 0 && by_key_.contains(identity.key())) return;
  const auto at = by_key_.find(node.key_);
  if (slot != 0 && at != by_key_.end() && at->second == slot) by_key_.erase(at);
  node.key_ = identity.key();
  if (slot != 0) by_key_.emplace(node.key_, slot);
}

std::size_t NodeTable::size() const {
  MutexLock lock(mutex_);
  return slots_.size() - 1 - free_.size();
}

std::vector<NodeTable::Name> NodeTable::idle_names(std::size_t most) {
  std::vector<Name> names;
  MutexLock lock(mutex_);
  for (std::size_t seen = 0; seen < slots_.size() && names.size() < most; ++seen) {
    hand_ = hand_ + 1 < slots_.size() ? hand_ + 1 : 0;
    Slot& slot = slots_[hand_];
    if (hand_ > root_slot && slot.node != nullptr && !slot.is_named && slot.node->opens == 0 &&
        slot.node->trimmable()) {
      slot.is_named = true;
      names.push_back(slot.found_as);
    }
  }
  return names;
}

bool NodeTable::must_revoke(std::uint64_t cube, const Snapshot& now) const {
  MutexLock lock(mutex_);
  for (auto at = leases_.lower_bound({cube}); at != leases_.end(); ++at) {
    if (at->first.cube != cube) break;
    if (!at->second.slots.empty() && at->second.ground != at->first.ground(now)) return true;
  }
  return false;
}

NodeTable::Revoked NodeTable::revoke(std::uint64_t cube, const Snapshot& now) {
  Revoked revoked;
  MutexLock lock(mutex_);
  for (auto at = leases_.lower_bound({cube}); at != leases_.end(); ++at) {
    if (at->first.cube != cube) break;
    if (at->second.ground == at->first.ground(now)) continue;
    for (const std::uint32_t index : std::exchange(at->second.slots, {})) {
      Slot& slot = slots_[index];
      if (at->first.of_attributes) {
        slot.attribute_lease.leases = nullptr;
        revoked.attributes.push_back(
            {slot.node->number_, at->first.of_rows ? Name() : slot.found_as});
      } else {
        slot.name_lease.leases = nullptr;
        revoked.names.push_back({slot.found_as});
      }
    }
  }
  return revoked;
}

}  // namespace accrete
