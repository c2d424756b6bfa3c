#include "tests/support/fake_kernel.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>

namespace accrete {

namespace {

constexpr auto patience = std::chrono::seconds(60);

template <class T>
std::string bytes_of(const T& value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

std::string text(std::string_view name) {
  return std::string(name) + '\0';
}

// Of nobody: what is read so comes into the cache.
fuse_read_in part_of(std::uint64_t handle, std::uint64_t offset, std::uint32_t size) {
  fuse_read_in in{};
  in.fh = handle;
  in.offset = offset;
  in.size = size;
  return in;
}

}  // namespace

FakeKernel::FakeKernel() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    throw std::runtime_error("socketpair");
  kernel_fd_ = ends[0];
  session_fd_ = ends[1];
  receiver_ = std::thread([this] { receive(); });
}

FakeKernel::~FakeKernel() {
  hang_up();
  receiver_.join();
  ::close(kernel_fd_);
}

void FakeKernel::hang_up() {
  ::shutdown(kernel_fd_, SHUT_RDWR);
}

void FakeKernel::receive() {
  std::vector<char> buffer(2 << 20);
  for (;;) {
    const ssize_t size = ::read(kernel_fd_, buffer.data(), buffer.size());
    if (size < static_cast<ssize_t>(sizeof(fuse_out_header))) return;
    fuse_out_header header;
    std::memcpy(&header, buffer.data(), sizeof header);
    const std::string body(buffer.data() + sizeof header,
                           static_cast<std::size_t>(size) - sizeof header);
    const std::lock_guard lock(mutex_);
    if (header.unique == 0) {
      if (header.error == FUSE_NOTIFY_INVAL_INODE)
        invalidations_.push_back(Answer{0, body}.as<fuse_notify_inval_inode_out>());
      if (header.error == FUSE_NOTIFY_INVAL_ENTRY) {
        const auto out = Answer{0, body}.as<fuse_notify_inval_entry_out>();
        revoked_names_.push_back({out.parent, body.substr(sizeof out, out.namelen)});
      }
      continue;
    }
    const auto at = waiting_.find(header.unique);
    if (at == waiting_.end() || at->second) {
      ++second_answers_;
    } else {
      at->second = true;
      answers_[header.unique] = {-header.error, body};
    }
    came_.notify_all();
  }
}

std::uint64_t FakeKernel::send(std::uint32_t opcode, std::uint64_t node, std::string_view body,
                               pid_t pid) {
  fuse_in_header header{};
  {
    const std::lock_guard lock(mutex_);
    header.unique = ++last_unique_;
    if (opcode != FUSE_FORGET) waiting_[header.unique] = false;
  }
  header.len = static_cast<std::uint32_t>(sizeof header + body.size());
  header.opcode = opcode;
  header.nodeid = node;
  header.pid = static_cast<std::uint32_t>(pid);
  const std::string message = bytes_of(header) + std::string(body);
  if (::write(kernel_fd_, message.data(), message.size()) < 0)
    throw std::runtime_error("cannot send a request");
  return header.unique;
}

FakeKernel::Answer FakeKernel::wait(std::uint64_t unique) {
  std::unique_lock lock(mutex_);
  if (!came_.wait_for(lock, patience, [&] { return answers_.contains(unique); })) return {-1, ""};
  Answer answer = std::move(answers_[unique]);
  answers_.erase(unique);
  return answer;
}

fuse_init_out FakeKernel::init(bool offers_mmap_of_direct_io) {
  fuse_init_in in{};
  in.major = 7;
  in.minor = 38;
  in.max_readahead = 1 << 17;
  in.flags = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_MAX_PAGES |
             FUSE_INIT_EXT | FUSE_PARALLEL_DIROPS | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO;
  in.flags2 = offers_mmap_of_direct_io ? 1u << 4 : 0;
  return call(FUSE_INIT, 0, bytes_of(in)).as<fuse_init_out>();
}

FakeKernel::Answer FakeKernel::lookup(std::uint64_t parent, std::string_view name) {
  return call(FUSE_LOOKUP, parent, text(name));
}

FakeKernel::Answer FakeKernel::walk(std::string_view path) {
  std::uint64_t at = FUSE_ROOT_ID;
  Answer answer;
  while (!path.empty()) {
    const std::size_t end = std::min(path.find('/'), path.size());
    answer = lookup(at, path.substr(0, end));
    if (answer.error != 0) return answer;
    at = answer.as<fuse_entry_out>().nodeid;
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return answer;
}

std::uint64_t FakeKernel::node(std::string_view path) {
  const Answer answer = walk(path);
  return answer.error == 0 ? answer.as<fuse_entry_out>().nodeid : 0;
}

FakeKernel::Answer FakeKernel::mkdir(std::uint64_t parent, std::string_view name) {
  fuse_mkdir_in in{};
  in.mode = 0755;
  return call(FUSE_MKDIR, parent, bytes_of(in) + text(name));
}

FakeKernel::Answer FakeKernel::create(std::uint64_t parent, std::string_view name) {
  fuse_create_in in{};
  in.flags = O_RDWR | O_CREAT | O_EXCL;
  in.mode = S_IFREG | 0640;
  return call(FUSE_CREATE, parent, bytes_of(in) + text(name));
}

FakeKernel::Answer FakeKernel::open(std::uint64_t node, int flags) {
  fuse_open_in in{};
  in.flags = static_cast<std::uint32_t>(flags);
  return call(FUSE_OPEN, node, bytes_of(in));
}

FakeKernel::Answer FakeKernel::read(std::uint64_t node, std::uint64_t handle, std::uint64_t offset,
                                    std::uint32_t size) {
  fuse_read_in in = part_of(handle, offset, size);
  in.lock_owner = 1;
  return call(FUSE_READ, node, bytes_of(in));
}

FakeKernel::Answer FakeKernel::fill_page(std::uint64_t node, std::uint64_t handle,
                                         std::uint64_t offset) {
  return call(FUSE_READ, node, bytes_of(part_of(handle, offset, 4096)));
}

FakeKernel::Answer FakeKernel::write_page(std::uint64_t node, std::uint64_t handle,
                                          std::uint64_t offset, std::string_view bytes) {
  fuse_write_in in{};
  in.fh = handle;
  in.offset = offset;
  in.size = static_cast<std::uint32_t>(bytes.size());
  in.write_flags = FUSE_WRITE_CACHE;
  return call(FUSE_WRITE, node, bytes_of(in) + std::string(bytes));
}

FakeKernel::Answer FakeKernel::write(std::uint64_t node, std::uint64_t handle, std::uint64_t offset,
                                     std::string_view bytes, int flags) {
  fuse_write_in in{};
  in.fh = handle;
  in.offset = offset;
  in.size = static_cast<std::uint32_t>(bytes.size());
  in.flags = static_cast<std::uint32_t>(flags);
  return call(FUSE_WRITE, node, bytes_of(in) + std::string(bytes));
}

FakeKernel::Answer FakeKernel::flush(std::uint64_t node, std::uint64_t handle, pid_t pid) {
  fuse_flush_in in{};
  in.fh = handle;
  return call(FUSE_FLUSH, node, bytes_of(in), pid);
}

FakeKernel::Answer FakeKernel::release(std::uint64_t node, std::uint64_t handle) {
  fuse_release_in in{};
  in.fh = handle;
  return call(FUSE_RELEASE, node, bytes_of(in));
}

FakeKernel::Answer FakeKernel::opendir(std::uint64_t node) {
  return call(FUSE_OPENDIR, node, bytes_of(fuse_open_in{}));
}

FakeKernel::Answer FakeKernel::readdir(std::uint64_t node, std::uint64_t handle,
                                       std::uint64_t offset, std::uint32_t size) {
  return call(FUSE_READDIR, node, bytes_of(part_of(handle, offset, size)));
}

FakeKernel::Answer FakeKernel::readdirplus(std::uint64_t node, std::uint64_t handle,
                                           std::uint64_t offset, std::uint32_t size) {
  return call(FUSE_READDIRPLUS, node, bytes_of(part_of(handle, offset, size)));
}

FakeKernel::Answer FakeKernel::rename(std::uint64_t parent, std::string_view from,
                                      std::uint64_t to_parent, std::string_view to) {
  fuse_rename_in in{};
  in.newdir = to_parent;
  return call(FUSE_RENAME, parent, bytes_of(in) + text(from) + text(to));
}

FakeKernel::Answer FakeKernel::unlink(std::uint64_t parent, std::string_view name) {
  return call(FUSE_UNLINK, parent, text(name));
}

FakeKernel::Answer FakeKernel::getattr(std::uint64_t node) {
  return call(FUSE_GETATTR, node, bytes_of(fuse_getattr_in{}));
}

FakeKernel::Answer FakeKernel::truncate(std::uint64_t node, std::uint64_t size, pid_t pid) {
  fuse_setattr_in in{};
  in.valid = FATTR_SIZE;
  in.size = size;
  return call(FUSE_SETATTR, node, bytes_of(in), pid);
}

void FakeKernel::forget(std::uint64_t node, std::uint64_t lookups) {
  fuse_forget_in in{};
  in.nlookup = lookups;
  send(FUSE_FORGET, node, bytes_of(in));
}

std::uint64_t FakeKernel::created_handle(const Answer& created) {
  fuse_open_out out{};
  if (created.body.size() >= sizeof(fuse_entry_out) + sizeof out)
    std::memcpy(&out, created.body.data() + sizeof(fuse_entry_out), sizeof out);
  return out.fh;
}

std::uint64_t FakeKernel::created_node(const Answer& created) {
  return created.as<fuse_entry_out>().nodeid;
}

std::size_t FakeKernel::unanswered() const {
  const std::lock_guard lock(mutex_);
  return static_cast<std::size_t>(std::count_if(
      waiting_.begin(), waiting_.end(), [](const auto& request) { return !request.second; }));
}

std::size_t FakeKernel::second_answers() const {
  const std::lock_guard lock(mutex_);
  return second_answers_;
}

std::vector<fuse_notify_inval_inode_out> FakeKernel::invalidations() const {
  const std::lock_guard lock(mutex_);
  return invalidations_;
}

std::vector<FakeKernel::Revoked> FakeKernel::revoked_names() const {
  const std::lock_guard lock(mutex_);
  return revoked_names_;
}

}  // namespace accrete
