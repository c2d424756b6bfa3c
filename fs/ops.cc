#include "fs/ops.h"

#include <fcntl.h>

#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "fs/dir_buffer.h"
#include "fs/door_file.h"
#include "fs/node.h"
#include "fs/session.h"
#include "fs/tree.h"

namespace accrete {

namespace {

Session& session_of(fuse_req_t request) {
  return *static_cast<Session*>(fuse_req_userdata(request));
}

Tree& tree_of(fuse_req_t request) {
  return session_of(request).tree();
}

Caller caller_of(fuse_req_t request) {
  const fuse_ctx* context = fuse_req_ctx(request);
  return {context->uid, context->gid, context->pid};
}

OpenFile& file_of(const fuse_file_info* file) {
  return *reinterpret_cast<OpenFile*>(file->fh);
}

// Exceptions are exhausted memory or bugs. The Reply that such a handler owned has said EIO by
// then.
template <class Body>
void guarded(const char* what, const Body& body) {
  try {
    body();
  } catch (const std::exception& problem) {
    fuse_log(FUSE_LOG_ERR, "accretefs: %s: %s\n", what, problem.what());
  }
}

// Errors of whoever tries to change what cannot be changed are told in the cube's history.
void refuse(Reply& reply, const Node& node, std::string_view name, const Error& error) {
  if (const std::shared_ptr<Cube> cube = node.cube();
      cube != nullptr && error.code != std::errc::no_such_file_or_directory)
    cube->record({"refuse", std::string(name), std::nullopt, error.number(), error.sentence});
  reply.error(error);
}

// Calls body(node, reply) with the node of a number that the kernel gave.
template <class Body>
void with_node(fuse_req_t request, fuse_ino_t number, const char* what, const Body& body) {
  guarded(what, [&] {
    Reply reply(request);
    const std::shared_ptr<Node> node = tree_of(request).nodes().find(number);
    if (node == nullptr) return reply.error(ESTALE);
    body(*node, std::move(reply));
  });
}

// Attributes that may change are believed where `grant` gives a lease.
template <class Grant>
Result<fuse_entry_param> entry_of(Node& node, const Grant& grant) {
  fuse_entry_param entry{};
  // First: who changes the attributes from now on finds the lease.
  const Node::AttributeBelief belief = node.attribute_belief();
  if (!belief.lease || grant(*belief.lease)) entry.attr_timeout = belief.timeout;
  ACCRETE_TRY(entry.attr, node.attributes());
  entry.attr.st_ino = node.ino();
  entry.ino = node.number();
  entry.entry_timeout = node.entry_timeout();
  return entry;
}

// Enters what was found under `name` into the table and describes it. The look-up is counted only
// where there is an entry.
Result<fuse_entry_param> enter(Tree& tree, std::shared_ptr<Node>& node, const Node& parent,
                               std::string_view name, bool is_created = false) {
  const std::shared_ptr<Node> found = node;
  NodeTable& nodes = tree.nodes();
  node = nodes.enter(std::move(node), parent.number(), name);
  Result<fuse_entry_param> entry = entry_of(*node, [&](const Lease& lease) {
    return is_created ? nodes.grant_attributes(*node, lease)
                      : nodes.grant_attributes(*node, parent.number(), name, lease);
  });
  if (!entry.ok()) {
    tree.nodes().forget(node->number(), 1);
  } else if (const std::optional<Lease> lease = found->lease();
             lease && tree.nodes().grant_name(*node, parent.number(), name, *lease)) {
    // From now on whoever changes the cube revokes it; who has done so before is seen here. Others
    // may have relied on the lease meanwhile, so it is revoked all the same.
    if (found->lease() == lease)
      entry->entry_timeout = lease_timeout;
    else
      tree.publisher().announce(tree.state_of(found->cube()), nullptr, nullptr);
  }
  tree.publisher().trim_if_large();
  return entry;
}

void reply_entry(Reply reply, Tree& tree, std::shared_ptr<Node> node, const Node& parent,
                 std::string_view name) {
  const Result<fuse_entry_param> entry = enter(tree, node, parent, name);
  if (!entry.ok()) return reply.error(entry.error());
  if (!reply.entry(*entry)) tree.nodes().forget(entry->ino, 1);
}

// Hands an open file over to the kernel's answer.
void describe(Tree& tree, std::unique_ptr<OpenFile> file, std::shared_ptr<Node> node,
              fuse_file_info& info) {
  const OpenFile::Manner manner = file->manner();
  info.direct_io = manner.direct_io;
  info.noflush = manner.no_flush;
  info.keep_cache = manner.keep_cache;
  info.fh = reinterpret_cast<std::uint64_t>(tree.keep(std::move(file), std::move(node)));
}

void init(void* userdata, fuse_conn_info* connection) {
  // With ATOMIC_O_TRUNC the kernel sets a file's size to 0 by itself, which kills whoever has it
  // mapped.
  connection->want &= ~static_cast<unsigned>(FUSE_CAP_ATOMIC_O_TRUNC);
  connection->max_background = 64;
  // With attributes where look-ups follow: programs that want names alone get them as before.
  connection->want |= connection->capable & (FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO);
  static_cast<Session*>(userdata)->on_init();
}

void lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
  with_node(request, parent, "lookup", [&](Node& node, Reply reply) {
    Result<std::shared_ptr<Node>> found = node.find(name);
    if (!found.ok()) return reply.error(found.error());
    reply_entry(std::move(reply), tree_of(request), *std::move(found), node, name);
  });
}

void forget(fuse_req_t request, fuse_ino_t number, std::uint64_t lookups) {
  guarded("forget", [&] { tree_of(request).nodes().forget(number, lookups); });
  fuse_reply_none(request);
}

void forget_multi(fuse_req_t request, std::size_t count, fuse_forget_data* items) {
  guarded("forget", [&] {
    for (std::size_t i = 0; i < count; ++i)
      tree_of(request).nodes().forget(items[i].ino, items[i].nlookup);
  });
  fuse_reply_none(request);
}

void getattr(fuse_req_t request, fuse_ino_t number, fuse_file_info*) {
  with_node(request, number, "getattr", [&](Node& node, Reply reply) {
    const Result<fuse_entry_param> entry = entry_of(node, [&](const Lease& lease) {
      return tree_of(request).nodes().grant_attributes(node, lease);
    });
    if (!entry.ok()) return reply.error(entry.error());
    reply.attributes(entry->attr, entry->attr_timeout);
  });
}

void setattr(fuse_req_t request, fuse_ino_t number, struct stat* wanted, int which,
             fuse_file_info* file) {
  with_node(request, number, "setattr", [&](Node& node, Reply reply) {
    AttributeChange change;
    if (which & FUSE_SET_ATTR_MODE) change.mode = wanted->st_mode;
    if (which & FUSE_SET_ATTR_UID) change.uid = wanted->st_uid;
    if (which & FUSE_SET_ATTR_GID) change.gid = wanted->st_gid;
    if (which & FUSE_SET_ATTR_SIZE) change.size = static_cast<std::uint64_t>(wanted->st_size);
    if (which & FUSE_SET_ATTR_MTIME_NOW)
      change.mtime_ns = wall_clock_ns();
    else if (which & FUSE_SET_ATTR_MTIME)
      change.mtime_ns =
          std::int64_t{wanted->st_mtim.tv_sec} * 1'000'000'000 + wanted->st_mtim.tv_nsec;
    change.file = file == nullptr ? nullptr : &file_of(file);
    change.caller = caller_of(request);
    const Result<bool> has_changed = node.change_attributes(change);
    if (!has_changed.ok()) return refuse(reply, node, "", has_changed.error());
    Tree& tree = tree_of(request);
    const std::shared_ptr<Reply> later = tree.later(std::move(reply));
    const auto answer = [node = node.shared_from_this(), later] {
      // No lease: the kernel takes this answer for what is, whatever was revoked meanwhile.
      const Result<fuse_entry_param> entry = entry_of(*node, [](const Lease&) { return false; });
      if (!entry.ok()) return later->error(entry.error());
      later->attributes(entry->attr, entry->attr_timeout);
    };
    if (!*has_changed) return answer();
    std::shared_ptr<CubeState> state = tree.state_of(node.cube());
    if (!change.size) return tree.publisher().announce(std::move(state), nullptr, answer);
    answer();  // the kernel holds back the pages of a file until it is truncated
    tree.publisher().announce(std::move(state), nullptr, nullptr);
  });
}

void readlink(fuse_req_t request, fuse_ino_t number) {
  with_node(request, number, "readlink", [&](Node& node, Reply reply) {
    const Result<std::string> target = node.link_target();
    if (!target.ok()) return reply.error(target.error());
    reply.link(*target);
  });
}

// mknod, symlink and link: there is no place for such things anywhere.
void refuse_special(fuse_req_t request, fuse_ino_t parent, const char* name) {
  with_node(request, parent, "mknod", [&](Node& node, Reply reply) {
    refuse(reply, node, name,
           fail(std::errc::operation_not_permitted,
                "only plain files and cubes are made here, no devices and no links"));
  });
}

void mknod(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t, dev_t) {
  refuse_special(request, parent, name);
}

void symlink(fuse_req_t request, const char*, fuse_ino_t parent, const char* name) {
  refuse_special(request, parent, name);
}

void link(fuse_req_t request, fuse_ino_t, fuse_ino_t parent, const char* name) {
  refuse_special(request, parent, name);
}

void mkdir(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t) {
  with_node(request, parent, "mkdir", [&](Node& node, Reply reply) {
    Result<std::shared_ptr<Node>> made = node.make_directory(name);
    if (!made.ok()) return refuse(reply, node, name, made.error());
    reply_entry(std::move(reply), tree_of(request), *std::move(made), node, name);
  });
}

void unlink(fuse_req_t request, fuse_ino_t parent, const char* name) {
  with_node(request, parent, "unlink", [&](Node& node, Reply reply) {
    const std::shared_ptr<Reply> later = tree_of(request).later(std::move(reply));
    const Status status = node.unlink(later, name);
    if (!status.ok()) refuse(*later, node, name, status.error());
  });
}

void rmdir(fuse_req_t request, fuse_ino_t parent, const char* name) {
  with_node(request, parent, "rmdir", [&](Node& node, Reply reply) {
    const Status status = node.remove_directory(name);
    if (!status.ok()) return refuse(reply, node, name, status.error());
    reply.ok();
  });
}

void rename(fuse_req_t request, fuse_ino_t parent, const char* name, fuse_ino_t new_parent,
            const char* new_name, unsigned int flags) {
  with_node(request, parent, "rename", [&](Node& node, Reply reply) {
    const std::shared_ptr<Node> target = tree_of(request).nodes().find(new_parent);
    if (target == nullptr) return reply.error(ESTALE);
    if ((flags & ~static_cast<unsigned>(RENAME_NOREPLACE)) != 0) return reply.error(EINVAL);
    const std::shared_ptr<Reply> later = tree_of(request).later(std::move(reply));
    const Status status = node.rename(later, name, *target, new_name, flags != 0);
    if (!status.ok()) refuse(*later, node, name, status.error());
  });
}

void open(fuse_req_t request, fuse_ino_t number, fuse_file_info* info) {
  with_node(request, number, "open", [&](Node& node, Reply reply) {
    Tree& tree = tree_of(request);
    Result<std::unique_ptr<OpenFile>> file = node.open(info->flags, caller_of(request));
    if (!file.ok()) {
      if (opens_for_writing(info->flags)) return refuse(reply, node, "", file.error());
      return reply.error(file.error());
    }
    describe(tree, *std::move(file), node.shared_from_this(), *info);
    if (!reply.opened(*info)) tree.drop(&file_of(info));
  });
}

void create(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode,
            fuse_file_info* info) {
  with_node(request, parent, "create", [&](Node& node, Reply reply) {
    Tree& tree = tree_of(request);
    Result<Created> created =
        node.create(name, mode, (info->flags & O_EXCL) != 0, caller_of(request));
    if (!created.ok()) return refuse(reply, node, name, created.error());
    // What was created is a new node, or one that the kernel knows.
    std::shared_ptr<Node> made = created->node;
    const Result<fuse_entry_param> entry = enter(tree, made, node, name, true);
    describe(tree, std::move(created->file), made, *info);
    if (!entry.ok()) {
      tree.drop(&file_of(info));
      return reply.error(entry.error());
    }
    if (!reply.created(*entry, *info)) {
      tree.drop(&file_of(info));
      tree.nodes().forget(entry->ino, 1);
    }
  });
}

void read(fuse_req_t request, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info* info) {
  guarded("read", [&] {
    file_of(info).read(Reply(request), static_cast<std::uint64_t>(offset), size,
                       info->lock_owner == 0);
  });
}

void write(fuse_req_t request, fuse_ino_t, const char* bytes, std::size_t size, off_t offset,
           fuse_file_info* info) {
  guarded("write", [&] {
    // Pages that come back from a mapping have their place, also in a file opened for appending.
    const bool is_page = info->writepage != 0;
    const bool appends = (info->flags & O_APPEND) != 0 && !is_page;
    file_of(info).write(Reply(request), static_cast<std::uint64_t>(offset),
                        std::as_bytes(std::span<const char>(bytes, size)), {appends, is_page});
  });
}

void flush(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
  guarded("flush", [&] { file_of(info).flush(Reply(request), caller_of(request)); });
}

// Of whatever belongs to a cube: the cube; of the root: all of them.
void sync_node(Tree& tree, const Node& node, Reply reply) {
  const std::shared_ptr<Cube> cube = node.cube();
  if (cube == nullptr) return reply.status(tree.store().sync());
  const std::shared_ptr<Reply> later = tree.later(std::move(reply));
  cube->sync([later](const Status& status) { later->status(status); });
}

void fsync(fuse_req_t request, fuse_ino_t number, int, fuse_file_info* info) {
  with_node(request, number, "fsync", [&](Node& node, Reply reply) {
    if (file_of(info).is_incoming()) return reply.ok();
    const Result<bool> settled = file_of(info).settle();
    if (!settled.ok()) return refuse(reply, node, "", settled.error());
    // Pages of a mapping that came back just before are to be seen everywhere, too.
    Tree& tree = tree_of(request);
    const std::shared_ptr<Reply> later = tree.later(std::move(reply));
    const auto sync = [&tree, node = node.shared_from_this(), later] {
      sync_node(tree, *node, std::move(*later));
    };
    tree.publisher().after(sync, *settled, WaitsWith::lock);
  });
}

void release(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
  guarded("release", [&] {
    Reply reply(request);
    tree_of(request).drop(&file_of(info));
    reply.ok();
  });
}

void opendir(fuse_req_t request, fuse_ino_t number, fuse_file_info* info) {
  with_node(request, number, "opendir", [&](Node& node, Reply reply) {
    Result<std::unique_ptr<Listing>> listing = node.list();
    if (!listing.ok()) return reply.error(listing.error());
    Tree& tree = tree_of(request);
    auto directory = std::make_unique<OpenDirectory>(*std::move(listing), node.ino());
    info->fh =
        reinterpret_cast<std::uint64_t>(tree.keep(std::move(directory), node.shared_from_this()));
    if (!reply.opened(*info)) tree.drop(&file_of(info));
  });
}

void readdir(fuse_req_t request, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info* info) {
  guarded("readdir", [&] {
    Reply reply(request);
    const auto& directory = static_cast<const OpenDirectory&>(file_of(info));
    const std::vector<char> entries =
        directory.entries(request, static_cast<std::uint64_t>(offset), size);
    reply.bytes(std::string_view(entries.data(), entries.size()));
  });
}

// Look-ups that the kernel is about to be told of; taken back unless it was.
class LookUps {
 public:
  explicit LookUps(Tree& tree) : tree_(tree) {}
  LookUps(const LookUps&) = delete;
  ~LookUps() {
    for (const std::uint64_t number : numbers_) tree_.nodes().forget(number, 1);
  }
  void told() { numbers_.clear(); }

  // Nothing where there is no such name now, or room for no more.
  std::optional<fuse_entry_param> find(Node& directory, const std::string& name) {
    if (tree_.publisher().is_crowded()) return std::nullopt;
    Result<std::shared_ptr<Node>> node = directory.find(name);
    if (!node.ok()) return std::nullopt;
    const Result<fuse_entry_param> entry = enter(tree_, *node, directory, name);
    if (!entry.ok()) return std::nullopt;
    numbers_.push_back(entry->ino);
    return *entry;
  }

 private:
  Tree& tree_;
  std::vector<std::uint64_t> numbers_;
};

void readdirplus(fuse_req_t request, fuse_ino_t number, std::size_t size, off_t offset,
                 fuse_file_info* info) {
  with_node(request, number, "readdirplus", [&](Node& node, Reply reply) {
    const auto& directory = static_cast<const OpenDirectory&>(file_of(info));
    LookUps look_ups(tree_of(request));
    const std::vector<char> entries = directory.entries_with_attributes(
        request, static_cast<std::uint64_t>(offset), size,
        [&](const std::string& name) { return look_ups.find(node, name); });
    if (reply.entries(entries)) look_ups.told();
  });
}

// The caller holds the directory's lock, which the notifier may be waiting for: so nothing is
// waited for but the disk.
void fsyncdir(fuse_req_t request, fuse_ino_t number, int, fuse_file_info*) {
  with_node(request, number, "fsyncdir",
            [&](Node& node, Reply reply) { sync_node(tree_of(request), node, std::move(reply)); });
}

void statfs(fuse_req_t request, fuse_ino_t) {
  guarded("statfs", [&] {
    Reply reply(request);
    const Result<struct statvfs> space = tree_of(request).store().space();
    if (!space.ok()) return reply.error(space.error());
    reply.space(*space);
  });
}

void getxattr(fuse_req_t request, fuse_ino_t number, const char* name, std::size_t size) {
  // The kernel asks for system attributes of its own often; we have none.
  if (std::strncmp(name, "user.accrete.", 13) != 0) {
    fuse_reply_err(request, ENODATA);
    return;
  }
  with_node(request, number, "getxattr", [&](Node& node, Reply reply) {
    for (const auto& [key, value] : node.extended_attributes())
      if (key == name) return reply.attribute_text(value, size);
    reply.error(ENODATA);
  });
}

void listxattr(fuse_req_t request, fuse_ino_t number, std::size_t size) {
  with_node(request, number, "listxattr", [&](Node& node, Reply reply) {
    std::string names;
    for (const auto& [key, value] : node.extended_attributes()) names.append(key).push_back('\0');
    reply.attribute_text(names, size);
  });
}

void setxattr(fuse_req_t request, fuse_ino_t, const char*, const char*, std::size_t, int) {
  fuse_reply_err(request, ENOTSUP);
}

void removexattr(fuse_req_t request, fuse_ino_t, const char*) {
  fuse_reply_err(request, ENOTSUP);
}

void ioctl(fuse_req_t request, fuse_ino_t, unsigned int, void*, fuse_file_info*, unsigned,
           const void*, std::size_t, std::size_t) {
  fuse_reply_err(request, ENOTTY);
}

fuse_lowlevel_ops make_operations() {
  // What is missing answers ENOSYS once and is then done by the kernel itself: locks, lseek,
  // copy_file_range, poll, access (default_permissions).
  fuse_lowlevel_ops table{};
  table.init = init;
  table.lookup = lookup;
  table.forget = forget;
  table.forget_multi = forget_multi;
  table.getattr = getattr;
  table.setattr = setattr;
  table.readlink = readlink;
  table.mknod = mknod;
  table.symlink = symlink;
  table.link = link;
  table.mkdir = mkdir;
  table.unlink = unlink;
  table.rmdir = rmdir;
  table.rename = rename;
  table.open = open;
  table.create = create;
  table.read = read;
  table.write = write;
  table.flush = flush;
  table.fsync = fsync;
  table.release = release;
  table.opendir = opendir;
  table.readdir = readdir;
  table.readdirplus = readdirplus;
  table.releasedir = release;
  table.fsyncdir = fsyncdir;
  table.statfs = statfs;
  table.getxattr = getxattr;
  table.listxattr = listxattr;
  table.setxattr = setxattr;
  table.removexattr = removexattr;
  table.ioctl = ioctl;
  return table;
}

}  // namespace

const fuse_lowlevel_ops& operations() {
  static const fuse_lowlevel_ops table = make_operations();
  return table;
}

}  // namespace accrete
