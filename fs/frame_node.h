// A frame's file: while it comes in through a door, and ever after. Its reading gives the bytes
// that came in.
//
// The inode of an incoming file becomes the frame's when it is committed. A frame that is opened
// with O_TRUNC is not touched: what is written becomes a frame of its own under that name. Linux
// tells of O_TRUNC by a truncation of its own after the open; so an open for writing stays
// undecided until then, and writing without it is refused.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fs/content.h"
#include "fs/door_file.h"
#include "fs/node.h"
#include "fs/page_holder.h"
#include "fs/tree.h"

namespace accrete {

class FrameFile;

Identity frame_identity(std::uint64_t cube_uid, FrameId id);

// Lock order: mutex_ of a node, then those of its FrameFiles and DoorFile.
class FrameNode : public Node, public Watched {
 public:
  // A committed frame.
  FrameNode(std::shared_ptr<CubeState> state, FrameId id);
  // One that comes in under a name that this gives to CubeState.
  FrameNode(std::shared_ptr<CubeState> state, std::shared_ptr<DoorFile> incoming,
            CubeState::StagingName name);

  Result<struct stat> attributes() override EXCLUDES(mutex_);
  AttributeBelief attribute_belief() const override EXCLUDES(mutex_);
  Result<bool> change_attributes(const AttributeChange& change) override EXCLUDES(mutex_);
  std::shared_ptr<Cube> cube() const override { return state_->shared_cube(); }
  Result<std::unique_ptr<OpenFile>> open(int flags, const Caller& caller) override EXCLUDES(mutex_);
  bool trimmable() const override;
  std::optional<CacheNotice> after_commit(bool contents_changed) override;
  std::vector<CacheNotice> after_poke(const Poked& poked) override {
    return pages_.overlapping(number(), poked);
  }
  bool has_pages() const override { return pages_.any(); }

  bool became(FrameId id) const { return id_ == id; }
  // Nothing once it is no more than a frame.
  std::shared_ptr<DoorFile> incoming() const EXCLUDES(mutex_);
  // The door through which it was found last, for what is written over it.
  void set_door(const Door& door) EXCLUDES(mutex_);
  // The incoming file has another name, or has become a frame.
  void set_staging_name(CubeState::StagingName name) EXCLUDES(mutex_);
  void finish(FrameId id) EXCLUDES(mutex_);
  // Takes it from the names that come in.
  void vanish() EXCLUDES(mutex_);
  // Nobody has that incoming file open any more.
  void let_go(const DoorFile& incoming) EXCLUDES(mutex_);

 private:
  friend class FrameFile;

  // The file that its attributes are of, nothing where they are the frame's.
  DoorFile* described_by() const REQUIRES(mutex_);
  Result<FrameRow> row() const;  // ENOENT when it is gone
  // Also of a frame that is gone, which may still be open.
  Result<FrameRow> last_row() const;
  Result<Shown> show() const;
  std::shared_ptr<DoorFile> written_by(const AttributeChange& change) const REQUIRES(mutex_);

  const std::shared_ptr<CubeState> state_;
  std::atomic<FrameId> id_ = 0;          // 0 until it is committed
  const std::uint64_t staging_ino_ = 0;  // 0: it was a frame from the start
  PageHolder pages_;
  mutable Mutex mutex_;
  std::shared_ptr<DoorFile> incoming_ GUARDED_BY(mutex_);
  CubeState::StagingName staging_name_ GUARDED_BY(mutex_);
  Door door_ GUARDED_BY(mutex_);
  std::vector<FrameFile*> writers_ GUARDED_BY(mutex_);
};

}  // namespace accrete
