// An open frame file (frame_node.h), from open to release.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "fs/frame_node.h"
#include "fs/header_edits.h"

namespace accrete {

// Shows a committed frame, or an incoming file where it is attached to one.
class FrameFile : public OpenFile {
 public:
  FrameFile(std::shared_ptr<FrameNode> node, bool writes, const Caller& opener)
      : node_(std::move(node)), writes_(writes), opener_(opener) {
    node_->pages_.add_opener(node_, false);
  }

  ~FrameFile() override;

  // ---- Before use ----
  void attach(std::shared_ptr<DoorFile> incoming) EXCLUDES(mutex_);
  Status load() EXCLUDES(mutex_);

  Manner manner() const override;
  void read(Reply reply, std::uint64_t offset, std::size_t size, bool fills_cache) override;
  void write(Reply reply, std::uint64_t offset, std::span<const std::byte> bytes,
             WriteManner manner) override;
  void flush(Reply reply, const Caller& caller) override;
  Result<bool> settle() override;
  bool is_incoming() const override;
  void release() override;

  std::shared_ptr<DoorFile> incoming() const EXCLUDES(mutex_);
  bool opened_by(const Caller& caller) const { return opener_.pid == caller.pid; }
  // What is written from now on becomes a frame of the same name.
  Status replace(const Door& door) EXCLUDES(mutex_);

 private:
  void close(const std::shared_ptr<DoorFile>& file, const Caller& caller,
             std::shared_ptr<Reply> reply);
  void record_refusal(const Error& error);
  void refuse(Reply& reply, const Error& error);
  // What pages of the node are filled from and come back to, if not a frame. What is to replace a
  // frame is none of that: pages are all others' who have the node open as well.
  std::shared_ptr<DoorFile> incoming_behind_pages() const EXCLUDES(mutex_);
  // Whether a commit may take the place of another frame.
  bool replaces_others() const;
  CubeState& state() const { return *node_->state_; }
  std::shared_ptr<const Shown> current() EXCLUDES(mutex_);

  const std::shared_ptr<FrameNode> node_;
  const bool writes_;
  const Caller opener_;
  HeaderEdits edits_;
  mutable Mutex mutex_;
  std::shared_ptr<DoorFile> incoming_ GUARDED_BY(mutex_);
  std::shared_ptr<const Shown> shown_ GUARDED_BY(mutex_);
};

}  // namespace accrete
