// What stands behind an inode, an open file and an open directory: the calls that ops.cc makes.
// Every member has a default that refuses, so a kind of node says only what it can do.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "fs/inode.h"
#include "fs/lease.h"
#include "fs/reply.h"

namespace accrete {

class Cube;
class Node;

// Who asks.
struct Caller {
  uid_t uid = 0;
  gid_t gid = 0;
  pid_t pid = 0;  // of the thread; 0 when it is not known
};

// One open file description. Thread-safe; release() comes last and once. It may come as soon as a
// reply is out, even before the call that gave it has returned: what a reply is made of must not
// belong to the file alone.
class OpenFile {
 public:
  // How the kernel shall treat it.
  struct Manner {
    bool direct_io = true;
    bool no_flush = true;     // close() needs no answer of ours
    bool keep_cache = false;  // the pages from before are right
  };

  virtual ~OpenFile() = default;
  virtual Manner manner() const { return {}; }
  // `fills_cache`: the kernel keeps what it gets.
  virtual void read(Reply reply, std::uint64_t offset, std::size_t size, bool fills_cache);
  struct WriteManner {
    bool appends = false;  // at the end as it is now, whatever the offset says
    bool is_page = false;  // the page of a mapping comes back
  };
  virtual void write(Reply reply, std::uint64_t offset, std::span<const std::byte> bytes,
                     WriteManner manner);
  virtual void flush(Reply reply, const Caller&) { reply.ok(); }
  // Takes what was written and is kept until close() or fsync() into the cube. Whether names of
  // views mean something else by what this file has changed, which was announced.
  virtual Result<bool> settle() { return false; }
  // Nothing of what was written is in the cube yet; so there is nothing to sync.
  virtual bool is_incoming() const { return false; }
  virtual void release() {}
};

// What SETATTR asks for.
struct AttributeChange {
  std::optional<std::uint32_t> mode;
  std::optional<std::uint32_t> uid;
  std::optional<std::uint32_t> gid;
  std::optional<std::uint64_t> size;
  std::optional<std::int64_t> mtime_ns;
  OpenFile* file = nullptr;  // through which open file, where the kernel says so
  Caller caller;
};

struct DirectoryEntry {
  std::string name;
  std::uint64_t ino = 0;
  mode_t type = S_IFREG;
};

// A directory as it was when it was opened. Immutable.
class Listing {
 public:
  virtual ~Listing() = default;
  virtual std::uint64_t size() const = 0;
  virtual DirectoryEntry entry(std::uint64_t index) const = 0;
  // Whether the kernel may take the entries for look-ups of their names.
  virtual bool is_of_views() const { return false; }
};

// A listing that was gathered beforehand.
class ShortListing : public Listing {
 public:
  void add(std::string name, const Identity& identity, mode_t type) {
    add(std::move(name), identity.ino(), type);
  }
  void add(std::string name, std::uint64_t ino, mode_t type) {
    entries_.push_back({std::move(name), ino, type});
  }
  std::uint64_t size() const override { return entries_.size(); }
  DirectoryEntry entry(std::uint64_t index) const override { return entries_[index]; }

 private:
  std::vector<DirectoryEntry> entries_;
};

struct Created {
  std::shared_ptr<Node> node;
  std::unique_ptr<OpenFile> file;
};

// Extended attributes, full name and value.
using ExtendedAttributes = std::vector<std::pair<std::string, std::string>>;

// How long the kernel may believe what it was told, in seconds.
inline constexpr double for_ever = 1e6;

// Thread-safe.
class Node : public std::enable_shared_from_this<Node> {
 public:
  explicit Node(const Identity& identity) : Node(identity, identity.ino()) {}
  // For what shares its st_ino with others.
  Node(const Identity& identity, std::uint64_t ino) : key_(identity.key()), ino_(ino) {}
  virtual ~Node() = default;
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  // ---- Any node ----
  std::uint64_t ino() const { return ino_.load(); }
  // The number under which the kernel knows it, 0 when it does not.
  std::uint64_t number() const { return number_.load(); }
  // st_ino is filled in by the caller.
  virtual Result<struct stat> attributes() = 0;
  virtual double entry_timeout() const { return 0; }
  // Of a node that find() has just made: what the meaning of its name rests on; nothing where the
  // name is not to be believed longer than that, or the cube has changed since.
  virtual std::optional<Lease> lease() const { return std::nullopt; }
  // How long the attributes that are asked for next may be believed, and what they rest on where a
  // commit may change them within that time.
  struct AttributeBelief {
    double timeout = 0;
    std::optional<Lease> lease;
  };
  virtual AttributeBelief attribute_belief() const { return {}; }
  // Whether the cube has changed by it.
  virtual Result<bool> change_attributes(const AttributeChange& change);
  virtual ExtendedAttributes extended_attributes() { return {}; }
  // Whose history hears of refusals; nothing outside of cubes.
  virtual std::shared_ptr<Cube> cube() const { return nullptr; }

  // ---- Directories ----
  // A node for the name; one with the same identity that is in the table already takes its place.
  virtual Result<std::shared_ptr<Node>> find(std::string_view name);
  virtual Result<std::unique_ptr<Listing>> list();
  virtual Result<std::shared_ptr<Node>> make_directory(std::string_view name);
  virtual Status remove_directory(std::string_view name);
  virtual Result<Created> create(std::string_view name, mode_t mode, bool exclusive,
                                 const Caller& caller);
  // These two answer `reply` once what they did is seen everywhere. An error that was not recorded
  // yet is returned, with `reply` left to the caller.
  virtual Status unlink(std::shared_ptr<Reply> reply, std::string_view name);
  virtual Status rename(std::shared_ptr<Reply> reply, std::string_view from, Node& directory,
                        std::string_view to, bool no_replace);

  // ---- Files and links ----
  virtual Result<std::unique_ptr<OpenFile>> open(int flags, const Caller& caller);
  virtual Result<std::string> link_target();

  // A leaf that the kernel may be asked to let go of while nobody has it open.
  virtual bool trimmable() const { return false; }
  // Open files of this node.
  std::atomic<std::uint32_t> opens = 0;

 private:
  friend class NodeTable;
  std::string key_;  // guarded by the table
  std::atomic<std::uint64_t> ino_;
  std::atomic<std::uint64_t> number_ = 0;
};

// True when open flags ask for writing.
bool opens_for_writing(int flags);

}  // namespace accrete
