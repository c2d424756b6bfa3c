// What FUSE itself costs: a filesystem that shows a directory and does nothing else.
//
//   bench-passthrough -f [-o io=direct|cached] DIRECTORY MNT
//
//   io=cached   the kernel keeps pages, and those of an earlier open (the default)
//   io=direct   every read() and write() comes here
//
// As fast as libfuse allows without privileges: several threads, requests of 1 MiB, page-aligned
// buffers, names and attributes believed for a second, no extended attributes. Files are what their
// path was when the kernel first asked for it: they are not renamed, and nobody else changes the
// directory. Stays in the foreground until it is unmounted.
#define FUSE_USE_VERSION 312
#include <dirent.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace {

constexpr double believed_seconds = 1;
constexpr std::size_t most_bytes = 1 << 20;  // of one request

// What the kernel knows by a number: the address of this.
struct Node {
  const std::string path;  // below the directory
  std::uint64_t lookups;   // guarded by Nodes::mutex_
};

// Thread-safe.
class Nodes {
 public:
  Node& of(fuse_ino_t number) {
    return number == FUSE_ROOT_ID ? root_ : *reinterpret_cast<Node*>(number);
  }
  fuse_ino_t look_up(const std::string& path) {
    const std::lock_guard lock(mutex_);
    auto& node = by_path_[path];
    if (node == nullptr) node = new Node{path, 0};
    ++node->lookups;
    return reinterpret_cast<fuse_ino_t>(node);
  }
  void forget(fuse_ino_t number, std::uint64_t count) {
    if (number == FUSE_ROOT_ID) return;
    const std::lock_guard lock(mutex_);
    Node& node = of(number);
    node.lookups -= count;
    if (node.lookups > 0) return;
    if (const auto at = by_path_.find(node.path); at != by_path_.end() && at->second == &node) {
      by_path_.erase(at);
    }
    delete &node;
  }
  // A file that is made under this path later is another one.
  void take_away(const std::string& path) {
    const std::lock_guard lock(mutex_);
    by_path_.erase(path);
  }

 private:
  std::mutex mutex_;
  std::unordered_map<std::string, Node*> by_path_;
  Node root_{".", 1};
};

Nodes nodes;
int directory = -1;
bool is_direct = false;

std::string below(fuse_ino_t parent, const char* name) {
  const Node& node = nodes.of(parent);
  return parent == FUSE_ROOT_ID ? name : node.path + "/" + name;
}

const char* path_of(fuse_ino_t number) {
  return nodes.of(number).path.c_str();
}

// Programs such as cp use requests of this size.
void set_block_size(struct stat& status) {
  status.st_blksize = most_bytes;
}

// An errno, or 0 and an entry that the kernel holds one look-up of.
int make_entry(const std::string& path, fuse_entry_param& entry) {
  entry = {};
  if (::fstatat(directory, path.c_str(), &entry.attr, AT_SYMLINK_NOFOLLOW) != 0) return errno;
  set_block_size(entry.attr);
  entry.ino = nodes.look_up(path);
  entry.attr_timeout = entry.entry_timeout = believed_seconds;
  return 0;
}

void reply_entry(fuse_req_t request, const std::string& path) {
  fuse_entry_param entry;
  if (const int error = make_entry(path, entry)) {
    fuse_reply_err(request, error);
  } else if (fuse_reply_entry(request, &entry) != 0) {
    nodes.forget(entry.ino, 1);
  }
}

void set_caching(fuse_file_info& file) {
  file.direct_io = is_direct;
  file.keep_cache = !is_direct;
}

int descriptor_of(const fuse_file_info* file) {
  return static_cast<int>(file->fh);
}

void reply_result(fuse_req_t request, long result) {
  fuse_reply_err(request, result < 0 ? errno : 0);
}

void look_up(fuse_req_t request, fuse_ino_t parent, const char* name) {
  reply_entry(request, below(parent, name));
}

void forget(fuse_req_t request, fuse_ino_t number, std::uint64_t count) {
  nodes.forget(number, count);
  fuse_reply_none(request);
}

void forget_many(fuse_req_t request, std::size_t count, fuse_forget_data* forgotten) {
  for (std::size_t i = 0; i < count; ++i) nodes.forget(forgotten[i].ino, forgotten[i].nlookup);
  fuse_reply_none(request);
}

void reply_attributes(fuse_req_t request, fuse_ino_t number, const fuse_file_info* file) {
  struct stat status {};
  const int result = file != nullptr
                         ? ::fstat(descriptor_of(file), &status)
                         : ::fstatat(directory, path_of(number), &status, AT_SYMLINK_NOFOLLOW);
  if (result != 0) {
    fuse_reply_err(request, errno);
    return;
  }
  set_block_size(status);
  fuse_reply_attr(request, &status, believed_seconds);
}

void get_attributes(fuse_req_t request, fuse_ino_t number, fuse_file_info* file) {
  reply_attributes(request, number, file);
}

int set_size(fuse_ino_t number, const fuse_file_info* file, off_t size) {
  if (file != nullptr) return ::ftruncate(descriptor_of(file), size);
  const int descriptor = ::openat(directory, path_of(number), O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
  if (descriptor < 0) return -1;
  const int result = ::ftruncate(descriptor, size);
  const int error = errno;
  ::close(descriptor);
  errno = error;
  return result;
}

void set_attributes(fuse_req_t request, fuse_ino_t number, struct stat* wanted, int which,
                    fuse_file_info* file) {
  int result = 0;
  if (which & FUSE_SET_ATTR_MODE)
    result = ::fchmodat(directory, path_of(number), wanted->st_mode, 0);
  if (result == 0 && (which & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))) {
    result = ::fchownat(directory, path_of(number),
                        which & FUSE_SET_ATTR_UID ? wanted->st_uid : static_cast<uid_t>(-1),
                        which & FUSE_SET_ATTR_GID ? wanted->st_gid : static_cast<gid_t>(-1),
                        AT_SYMLINK_NOFOLLOW);
  }
  if (result == 0 && (which & FUSE_SET_ATTR_SIZE)) result = set_size(number, file, wanted->st_size);
  if (result == 0 && (which & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME))) {
    const auto time_of = [which](int given, int now, timespec value) {
      if (which & now) return timespec{0, UTIME_NOW};
      return which & given ? value : timespec{0, UTIME_OMIT};
    };
    const timespec times[2] = {
        time_of(FUSE_SET_ATTR_ATIME, FUSE_SET_ATTR_ATIME_NOW, wanted->st_atim),
        time_of(FUSE_SET_ATTR_MTIME, FUSE_SET_ATTR_MTIME_NOW, wanted->st_mtim)};
    result = ::utimensat(directory, path_of(number), times, AT_SYMLINK_NOFOLLOW);
  }
  if (result != 0) {
    fuse_reply_err(request, errno);
  } else {
    reply_attributes(request, number, file);
  }
}

void make_directory(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode) {
  const std::string path = below(parent, name);
  if (::mkdirat(directory, path.c_str(), mode) != 0) {
    fuse_reply_err(request, errno);
  } else {
    reply_entry(request, path);
  }
}

void remove(fuse_req_t request, const std::string& path, int flags) {
  const int result = ::unlinkat(directory, path.c_str(), flags);
  if (result == 0) nodes.take_away(path);
  reply_result(request, result);
}

void unlink(fuse_req_t request, fuse_ino_t parent, const char* name) {
  remove(request, below(parent, name), 0);
}

void remove_directory(fuse_req_t request, fuse_ino_t parent, const char* name) {
  remove(request, below(parent, name), AT_REMOVEDIR);
}

void create(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode,
            fuse_file_info* file) {
  const std::string path = below(parent, name);
  const int flags = (file->flags | O_CREAT | O_NOFOLLOW | O_CLOEXEC) & ~O_APPEND;
  const int descriptor = ::openat(directory, path.c_str(), flags, mode);
  fuse_entry_param entry;
  const int error = descriptor < 0 ? errno : make_entry(path, entry);
  if (error != 0) {
    if (descriptor >= 0) ::close(descriptor);
    fuse_reply_err(request, error);
    return;
  }
  file->fh = static_cast<std::uint64_t>(descriptor);
  set_caching(*file);
  if (fuse_reply_create(request, &entry, file) != 0) {
    ::close(descriptor);
    nodes.forget(entry.ino, 1);
  }
}

void open(fuse_req_t request, fuse_ino_t number, fuse_file_info* file) {
  const int flags = (file->flags | O_CLOEXEC) & ~(O_APPEND | O_NOFOLLOW);
  const int descriptor = ::openat(directory, path_of(number), flags);
  if (descriptor < 0) {
    fuse_reply_err(request, errno);
    return;
  }
  file->fh = static_cast<std::uint64_t>(descriptor);
  set_caching(*file);
  if (fuse_reply_open(request, file) != 0) ::close(descriptor);
}

// One a thread, page-aligned: what is copied to and from other buffers is slower.
char* thread_buffer() {
  struct Free {
    void operator()(char* buffer) const { std::free(buffer); }
  };
  thread_local const std::unique_ptr<char, Free> buffer(
      static_cast<char*>(std::aligned_alloc(4096, most_bytes)));
  return buffer.get();
}

void read(fuse_req_t request, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info* file) {
  char* const buffer = thread_buffer();
  if (buffer == nullptr || size > most_bytes) {
    fuse_reply_err(request, ENOMEM);
    return;
  }
  const ssize_t got = ::pread(descriptor_of(file), buffer, size, offset);
  if (got < 0) {
    fuse_reply_err(request, errno);
  } else {
    fuse_reply_buf(request, buffer, static_cast<std::size_t>(got));
  }
}

void write(fuse_req_t request, fuse_ino_t, const char* data, std::size_t size, off_t offset,
           fuse_file_info* file) {
  const ssize_t put = ::pwrite(descriptor_of(file), data, size, offset);
  if (put < 0) {
    fuse_reply_err(request, errno);
  } else {
    fuse_reply_write(request, static_cast<std::size_t>(put));
  }
}

// close() answers with the errors that the file below has for it.
void flush(fuse_req_t request, fuse_ino_t, fuse_file_info* file) {
  reply_result(request, ::close(::dup(descriptor_of(file))));
}

void release(fuse_req_t request, fuse_ino_t, fuse_file_info* file) {
  ::close(descriptor_of(file));
  fuse_reply_err(request, 0);
}

void sync_file(fuse_req_t request, fuse_ino_t, int only_data, fuse_file_info* file) {
  const int descriptor = descriptor_of(file);
  reply_result(request, only_data ? ::fdatasync(descriptor) : ::fsync(descriptor));
}

void open_directory(fuse_req_t request, fuse_ino_t number, fuse_file_info* file) {
  const int descriptor = ::openat(directory, path_of(number), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* const stream = descriptor < 0 ? nullptr : ::fdopendir(descriptor);
  if (stream == nullptr) {
    const int error = errno;
    if (descriptor >= 0) ::close(descriptor);
    fuse_reply_err(request, error);
    return;
  }
  file->fh = reinterpret_cast<std::uint64_t>(stream);
  if (fuse_reply_open(request, file) != 0) ::closedir(stream);
}

void read_directory(fuse_req_t request, fuse_ino_t, std::size_t size, off_t offset,
                    fuse_file_info* file) {
  DIR* const stream = reinterpret_cast<DIR*>(file->fh);
  std::vector<char> names(size);
  std::size_t used = 0;
  ::seekdir(stream, offset);
  while (const dirent* const entry = ::readdir(stream)) {
    struct stat status {};
    status.st_ino = entry->d_ino;
    status.st_mode = static_cast<mode_t>(entry->d_type) << 12;
    const std::size_t needed = fuse_add_direntry(request, names.data() + used, size - used,
                                                 entry->d_name, &status, entry->d_off);
    if (needed > size - used) break;
    used += needed;
  }
  fuse_reply_buf(request, names.data(), used);
}

void release_directory(fuse_req_t request, fuse_ino_t, fuse_file_info* file) {
  ::closedir(reinterpret_cast<DIR*>(file->fh));
  fuse_reply_err(request, 0);
}

void tell_space(fuse_req_t request, fuse_ino_t) {
  struct statvfs space {};
  if (::fstatvfs(directory, &space) != 0) {
    fuse_reply_err(request, errno);
  } else {
    fuse_reply_statfs(request, &space);
  }
}

fuse_lowlevel_ops operations() {
  fuse_lowlevel_ops ops{};
  ops.lookup = look_up;
  ops.forget = forget;
  ops.forget_multi = forget_many;
  ops.getattr = get_attributes;
  ops.setattr = set_attributes;
  ops.mkdir = make_directory;
  ops.unlink = unlink;
  ops.rmdir = remove_directory;
  ops.create = create;
  ops.open = open;
  ops.read = read;
  ops.write = write;
  ops.flush = flush;
  ops.release = release;
  ops.fsync = sync_file;
  ops.opendir = open_directory;
  ops.readdir = read_directory;
  ops.releasedir = release_directory;
  ops.statfs = tell_space;
  return ops;
}

int serve(const char* program, const char* mount_point) {
  const char* arguments[] = {program, "-o", "fsname=bench-passthrough"};
  fuse_args args = FUSE_ARGS_INIT(3, const_cast<char**>(arguments));
  const fuse_lowlevel_ops ops = operations();
  fuse_session* const session = fuse_session_new(&args, &ops, sizeof ops, nullptr);
  if (session == nullptr) return 1;
  int result = 1;
  if (fuse_set_signal_handlers(session) == 0) {
    if (fuse_session_mount(session, mount_point) == 0) {
      fuse_loop_config* const config = fuse_loop_cfg_create();
      fuse_loop_cfg_set_clone_fd(config, 1);
      fuse_loop_cfg_set_max_threads(config, 10);
      result = fuse_session_loop_mt(session, config) == 0 ? 0 : 1;
      fuse_loop_cfg_destroy(config);
      fuse_session_unmount(session);
    }
    fuse_remove_signal_handlers(session);
  }
  fuse_session_destroy(session);
  fuse_opt_free_args(&args);
  return result;
}

}  // namespace

int main(int count, char** arguments) {
  const char* places[2] = {};
  int given = 0;
  bool is_understood = true;
  for (int i = 1; i < count; ++i) {
    const std::string_view argument = arguments[i];
    if (argument == "-f" || argument == "-o" || argument == "io=cached") {
      continue;
    } else if (argument == "io=direct") {
      is_direct = true;
    } else if (argument.starts_with("-") || argument.starts_with("io=") || given == 2) {
      is_understood = false;
    } else {
      places[given++] = arguments[i];
    }
  }
  if (!is_understood || given != 2) {
    std::fputs("usage: bench-passthrough -f [-o io=direct|cached] DIRECTORY MNT\n", stderr);
    return 2;
  }
  directory = ::open(places[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) {
    std::perror(places[0]);
    return 1;
  }
  return serve(arguments[0], places[1]);
}
