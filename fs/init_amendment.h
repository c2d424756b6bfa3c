// Asks the kernel for shared mappings of direct_io files (FUSE_DIRECT_IO_ALLOW_MMAP, Linux 6.6).
//
// libfuse before 3.17 knows nothing of that capability, but lets the daemon do its own input and
// output. So the session's reply to INIT is amended on its way out: the second part of that reply
// is a fuse_init_out, in which two bits are set. That happens only where the kernel's INIT offered
// the capability; older kernels never see a changed byte.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

namespace accrete {

// Watches one session's messages. Thread-safe.
class InitAmendment {
 public:
  explicit InitAmendment(bool wanted) : wanted_(wanted) {}

  // A request from the kernel. Costs one load once INIT has passed.
  void see_request(std::span<const std::byte> message);
  // A reply to the kernel, which may be changed: iov[0] is its fuse_out_header.
  void amend_reply(std::span<iovec> parts);

  // Direct_io files can be mapped shared. Known once the request has been seen.
  bool is_offered() const { return offered_; }

 private:
  const bool wanted_;
  std::atomic<bool> seen_ = false;  // INIT came
  std::atomic<bool> answered_ = false;
  std::atomic<bool> offered_ = false;
  std::uint64_t unique_ = 0;  // of INIT; written before seen_
};

}  // namespace accrete
