// Stands at the kernel's end of a session: sends requests of the FUSE protocol over a socket and
// takes the answers. No mount, no privileges, and control over the order of things.
#pragma once

#include <linux/fuse.h>
#include <sys/types.h>

#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace accrete {

class FakeKernel {
 public:
  struct Answer {
    int error = 0;  // positive errno, 0: success; -1: none came in time
    std::string body;

    // The body's beginning as a struct of the protocol.
    template <class T>
    T as() const {
      T value{};
      std::memcpy(&value, body.data(), std::min(body.size(), sizeof value));
      return value;
    }
  };

  // Makes the socket. The session's end is session_fd().
  FakeKernel();
  ~FakeKernel();  // hangs up
  FakeKernel(const FakeKernel&) = delete;

  int session_fd() const { return session_fd_; }
  // As an unmount: the session's loop ends.
  void hang_up();

  // ---- Any request ----
  std::uint64_t send(std::uint32_t opcode, std::uint64_t node, std::string_view body,
                     pid_t pid = 0);
  Answer wait(std::uint64_t unique);
  Answer call(std::uint32_t opcode, std::uint64_t node, std::string_view body, pid_t pid = 0) {
    return wait(send(opcode, node, body, pid));
  }

  // ---- Requests by name ----
  fuse_init_out init(bool offers_mmap_of_direct_io);
  Answer lookup(std::uint64_t parent, std::string_view name);
  // Walks names separated by '/' from the root; the last answer.
  Answer walk(std::string_view path);
  // Number of the node; 0 when a look-up fails.
  std::uint64_t node(std::string_view path);
  Answer mkdir(std::uint64_t parent, std::string_view name);
  Answer create(std::uint64_t parent, std::string_view name);
  Answer open(std::uint64_t node, int flags);
  Answer read(std::uint64_t node, std::uint64_t handle, std::uint64_t offset, std::uint32_t size);
  // Fills a page of a mapping; the same page comes back with stores.
  Answer fill_page(std::uint64_t node, std::uint64_t handle, std::uint64_t offset);
  Answer write_page(std::uint64_t node, std::uint64_t handle, std::uint64_t offset,
                    std::string_view bytes);
  Answer write(std::uint64_t node, std::uint64_t handle, std::uint64_t offset,
               std::string_view bytes, int flags = 0);
  Answer flush(std::uint64_t node, std::uint64_t handle, pid_t pid = 0);
  Answer release(std::uint64_t node, std::uint64_t handle);
  Answer opendir(std::uint64_t node);
  Answer readdir(std::uint64_t node, std::uint64_t handle, std::uint64_t offset,
                 std::uint32_t size);
  Answer readdirplus(std::uint64_t node, std::uint64_t handle, std::uint64_t offset,
                     std::uint32_t size);
  Answer rename(std::uint64_t parent, std::string_view from, std::uint64_t to_parent,
                std::string_view to);
  Answer unlink(std::uint64_t parent, std::string_view name);
  Answer getattr(std::uint64_t node);
  Answer truncate(std::uint64_t node, std::uint64_t size, pid_t pid = 0);
  void forget(std::uint64_t node, std::uint64_t lookups);

  // Handle and node number in the answer to create().
  static std::uint64_t created_handle(const Answer& created);
  static std::uint64_t created_node(const Answer& created);

  // ---- What came back ----
  std::size_t unanswered() const;      // requests that wait for an answer
  std::size_t second_answers() const;  // answers to nothing that waits
  std::vector<fuse_notify_inval_inode_out> invalidations() const;
  struct Revoked {
    std::uint64_t parent = 0;
    std::string name;
    friend bool operator==(const Revoked&, const Revoked&) = default;
  };
  std::vector<Revoked> revoked_names() const;

 private:
  void receive();

  int kernel_fd_ = -1;
  int session_fd_ = -1;
  std::uint64_t last_unique_ = 0;
  mutable std::mutex mutex_;
  std::condition_variable came_;
  std::map<std::uint64_t, bool> waiting_;  // unique -> answered
  std::map<std::uint64_t, Answer> answers_;
  std::size_t second_answers_ = 0;
  std::vector<fuse_notify_inval_inode_out> invalidations_;
  std::vector<Revoked> revoked_names_;
  std::thread receiver_;
};

}  // namespace accrete
