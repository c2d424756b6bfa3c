// All inodes that the kernel knows.
//
// The kernel counts every reply that names an inode (LOOKUP, CREATE, MKDIR, …) and later gives the
// counts back by FORGET; until then the number must keep its meaning. A node without look-ups
// leaves the table; its slot is used again under the next generation.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/mutex.h"
#include "fs/node.h"

namespace accrete {

// Thread-safe.
class NodeTable {
 public:
  // The root stays for ever, as number 1.
  explicit NodeTable(std::shared_ptr<Node> root);

  // The node of a number that the kernel holds; nothing for one that it does not.
  std::shared_ptr<Node> find(std::uint64_t number) const EXCLUDES(mutex_);

  // Counts one look-up of `node`, or of the one with the same identity that is here already; that
  // one is returned and has a number. `parent`, `name`: where it was found.
  std::shared_ptr<Node> enter(std::shared_ptr<Node> node, std::uint64_t parent,
                              std::string_view name) EXCLUDES(mutex_);

  // The node with the identity of `node` that is here, or `node` itself.
  std::shared_ptr<Node> known(std::shared_ptr<Node> node) const EXCLUDES(mutex_);

  // The kernel may believe the name that it is about to be told for a node that it knows, until
  // revoke() gives it back. False where it may not: names of this class are still to be revoked, or
  // the node has a lease by another name.
  bool grant_name(const Node& node, std::uint64_t parent, std::string_view name, const Lease& lease)
      EXCLUDES(mutex_);
  // The same for attributes. REQUIRES: the kernel asks for them by the node's number, or nobody
  // else can find it before the answer.
  bool grant_attributes(const Node& node, const Lease& lease) EXCLUDES(mutex_);
  // For those that go with a name. False as well for what revoke() could not take back of an answer
  // that is on its way, as the kernel may not have the node yet: where the name cannot be revoked
  // with them.
  bool grant_attributes(const Node& node, std::uint64_t parent, std::string_view name,
                        const Lease& lease) EXCLUDES(mutex_);

  // Takes look-ups back.
  void forget(std::uint64_t number, std::uint64_t lookups) EXCLUDES(mutex_);

  // Gives a node another identity under the same number. When another node has that identity
  // already both stay, each with its own number.
  void rename(Node& node, const Identity& identity) EXCLUDES(mutex_);

  // How many nodes there are, the root included.
  std::size_t size() const EXCLUDES(mutex_);

  // A name by which the kernel knows a node.
  struct Name {
    std::uint64_t parent = 0;
    std::string name;
  };
  // Up to `most` names of trimmable nodes that are not open, going round the table from call to
  // call; each once after it was looked up.
  std::vector<Name> idle_names(std::size_t most) EXCLUDES(mutex_);

  // Whether anything of that cube is believed on other ground than this snapshot gives.
  bool must_revoke(std::uint64_t cube, const Snapshot& now) const EXCLUDES(mutex_);
  // Ends those leases, which the kernel is to be told.
  struct RevokedName : Name {
    std::uint64_t node = 0;  // whose attributes are to be revoked after the name; 0: of none
  };
  struct RevokedAttributes {
    std::uint64_t node = 0;
    Name name;  // to be revoked where the kernel does not have the node yet; may be empty
  };
  struct Revoked {
    std::vector<RevokedName> names;
    std::vector<RevokedAttributes> attributes;
  };
  Revoked revoke(std::uint64_t cube, const Snapshot& now) EXCLUDES(mutex_);

 private:
  // The slots that have a lease, all on the same ground.
  struct Leases {
    Lease::Ground ground;
    std::vector<std::uint32_t> slots;
  };
  // Where among them a slot is.
  struct Place {
    Leases* leases = nullptr;  // nothing: it has no lease
    std::size_t index = 0;
  };
  struct Slot {
    std::shared_ptr<Node> node;  // nothing: free
    std::uint32_t generation = 0;
    std::uint64_t lookups = 0;
    Name found_as;          // stays while there is a lease, which may be for this name
    bool is_named = false;  // by idle_names()
    Place name_lease;
    Place attribute_lease;
  };

  static bool has_lease(const Slot& slot) {
    return slot.name_lease.leases != nullptr || slot.attribute_lease.leases != nullptr;
  }
  // The slot's place among the leases of a class, or where it could not have one.
  bool grant(std::uint32_t index, Place Slot::*which, const Lease& lease) REQUIRES(mutex_);
  void end_lease(Slot& slot, Place Slot::*which) REQUIRES(mutex_);

  mutable Mutex mutex_;
  std::vector<Slot> slots_ GUARDED_BY(mutex_);  // slot 0 is never used
  std::vector<std::uint32_t> free_ GUARDED_BY(mutex_);
  std::unordered_map<std::string_view, std::uint32_t> by_key_ GUARDED_BY(mutex_);  // in nodes
  std::map<Lease::Class, Leases> leases_ GUARDED_BY(mutex_);
  std::size_t hand_ GUARDED_BY(mutex_) = 0;
};

}  // namespace accrete
