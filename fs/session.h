// One conversation with the kernel: mounting, the loop over requests, unmounting.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "core/mutex.h"
#include "fs/fuse.h"
#include "fs/init_amendment.h"
#include "fs/tree.h"

namespace accrete {

class Session {
 public:
  // `options`: what libfuse and the kernel understand, each as for -o. `amend`: ask for shared
  // mappings of direct_io files. `tree` outlives the session.
  static Result<std::unique_ptr<Session>> make(Tree& tree, const std::vector<std::string>& options,
                                               bool debug, bool amend);
  ~Session();  // unmounts
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // `mount_point` may be /dev/fd/N, an open /dev/fuse that is mounted already.
  Status mount(const std::string& mount_point);
  // Talks to whoever holds the other end of `fd` as to the kernel; takes the descriptor.
  Status attach(int fd);

  // Until the filesystem is unmounted, or a signal where `signals` is set. Starts threads: not
  // before daemonizing. Some replies may still be under way when it returns.
  Status loop(unsigned threads, bool signals);

  Tree& tree() const { return tree_; }
  void on_init();  // INIT has been understood

 private:
  Session(Tree& tree, bool amend) : tree_(tree), amendment_(amend) {}

  Status use_own_io(int fd);
  // Answers all requests with ENOTCONN until then; when that takes long, cuts off the threads'
  // devices, so that the kernel ends what was read from them.
  void refuse_requests(const std::atomic<bool>& enough) EXCLUDES(mutex_);
  void note_device(int fd) EXCLUDES(mutex_);
  void cut_off_devices() EXCLUDES(mutex_);
  static ssize_t write_message(int fd, iovec* parts, int count, void* userdata);
  static ssize_t read_message(int fd, void* buffer, std::size_t size, void* userdata);

  Tree& tree_;
  InitAmendment amendment_;
  fuse_session* session_ = nullptr;
  bool is_attached_ = false;
  Mutex mutex_;
  std::vector<int> devices_ GUARDED_BY(mutex_);  // from which session threads have read
};

}  // namespace accrete
