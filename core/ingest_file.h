// The one implementation of Ingest (states and transitions: ingest.h).
#pragma once

#include "core/checksum.h"
#include "core/cube_on_disk.h"
#include "core/ingest.h"
#include "core/slab_writer.h"

namespace accrete {

// ENOSPC or EDQUOT: another try may succeed when space has been made free.
bool says_full(const Error& error);

class IngestFile final : public Ingest {
 public:
  IngestFile(std::shared_ptr<CubeOnDisk> cube, IngestRequest request);
  ~IngestFile() override;

  Status write(std::uint64_t offset, std::span<const std::byte> bytes) override;
  Status append(std::span<const std::byte> bytes) override;
  Result<std::size_t> read(std::uint64_t offset, std::span<std::byte> target) override;
  Status truncate(std::uint64_t size) override;
  std::uint64_t size() const override;
  void set_mtime(std::int64_t ns) override;
  void set_mode(std::uint32_t mode, std::uint32_t uid, std::uint32_t gid) override;
  Status set_name(std::string name, bool replaces) override;
  bool dirty() const override;
  bool empty() const override;
  Result<FrameId> commit() override;
  std::optional<FrameId> committed() const override;
  void note_refusal(const Error& error) override;
  void abandon(const std::string& why) override;

 private:
  enum class State { probing, direct, staged, refused };

  // What the present reservation was made for.
  struct Reservation {
    Slab slab;
    Definition definition;
    bool defines = false;
    FrameLayout layout;
    std::optional<SlabWriter> writer;
    // That of the commit: while it lives, the frame's layers are not reused, whatever becomes of
    // it.
    std::shared_ptr<const Snapshot> committed;
  };

  Status write_locked(std::uint64_t offset, std::span<const std::byte> bytes) REQUIRES(lock_);
  Status write_probing(std::uint64_t offset, std::span<const std::byte> bytes) REQUIRES(lock_);
  Status write_direct(std::uint64_t offset, std::span<const std::byte> bytes) REQUIRES(lock_);
  bool holes_are_zeros() const REQUIRES(lock_);
  Status write_staged(std::uint64_t offset, std::span<const std::byte> bytes) REQUIRES(lock_);
  Status write_tail(std::uint64_t offset, std::span<const std::byte> bytes) REQUIRES(lock_);
  Status truncate_locked(std::uint64_t size) REQUIRES(lock_);
  void read_locked(std::uint64_t offset, std::span<std::byte> target) REQUIRES(lock_);
  void digest_in_order(std::uint64_t offset, std::span<const std::byte> bytes) REQUIRES(lock_);
  std::array<std::uint64_t, 2> digest_all() REQUIRES(lock_);

  // What the bytes so far say the file is; raw when no format claims it and the cube has a frame.
  Result<Format::Look> look(std::span<const std::byte> head, bool at_end) REQUIRES(lock_);
  Result<FrameLayout> final_layout() REQUIRES(lock_);
  // Layers for a frame of that layout. False when it should be staged for now.
  Result<bool> reserve(const FrameLayout& layout, bool insist)
      REQUIRES(lock_, cube_->commit_lock());
  // The same; space of frames that are gone is made free where that helps.
  Result<bool> reserve_making_room(const FrameLayout& layout, bool insist) REQUIRES(lock_)
      EXCLUDES(cube_->commit_lock());
  // Takes a step, and takes it anew where the disk was full but such space could be made free.
  Status step_making_room(const std::function<Status()>& step) REQUIRES(lock_)
      EXCLUDES(cube_->commit_lock());
  void give_back_slab() REQUIRES(lock_, cube_->commit_lock());
  Status begin_direct(const FrameLayout& layout) REQUIRES(lock_);
  Status stage() REQUIRES(lock_);  // to the staging file, whatever the state was
  Status pump() REQUIRES(lock_);   // from the staging file into the reserved layers
  Status pump_transposed() REQUIRES(lock_);
  Status check_length(const FrameLayout& layout) const REQUIRES(lock_);

  Result<FrameId> commit_locked() REQUIRES(lock_);
  Result<FrameId> commit_reserved(const FrameLayout& layout) REQUIRES(lock_);
  // EFBIG when the cube would have more elements than max_cube allows.
  Status check_cube_size(const PerAxis<Axis>& axes, std::size_t axis, const Shape& extent,
                         std::size_t element_size) const;
  // The axis that the frame will grow: that of the frame whose place it takes, the door's, or
  // meta/grow. REQUIRES: a definition with axes.
  std::size_t axis_to_grow(const Snapshot& now) const REQUIRES(lock_);
  // Its key where meta/order sorts that axis, else empty. EINVAL: it has none, or is to be put at a
  // place of the user's choice.
  Result<std::string> sort_key_in(const Snapshot& now, const FrameLayout& layout) REQUIRES(lock_);
  bool reservation_holds(const Snapshot& now) const REQUIRES(lock_);

  // What becomes of the frame that has this name, or that was committed from here before.
  struct Namesake {
    std::optional<FrameRow> same;      // it has these very bytes: nothing is to be done
    std::optional<FrameRow> replaced;  // this frame takes its place
    std::optional<FrameRow> older;     // it gets another name
  };
  // EEXIST.
  Result<Namesake> find_namesake(const std::array<std::uint64_t, 2>* digest) const REQUIRES(lock_);
  Result<FrameId> publish(std::array<std::uint64_t, 2> digest,
                          const std::vector<std::uint64_t>& sums)
      REQUIRES(lock_, cube_->commit_lock());
  // What the commit changes; returns the frame's logical place along its axis.
  Result<std::uint64_t> describe(const Namesake& namesake, const std::vector<std::uint64_t>& sums,
                                 FrameRow& row, Draft& draft) REQUIRES(lock_, cube_->commit_lock());
  Status refresh(const FrameRow& same) REQUIRES(lock_, cube_->commit_lock());
  Result<FrameId> amend() REQUIRES(lock_);  // header and tail of a committed frame
  Result<std::string> prefix_text(const FrameLayout& layout) REQUIRES(lock_);
  Status store_prefix(FrameRow& row) REQUIRES(lock_, cube_->commit_lock());
  void refuse(const Error& error) REQUIRES(lock_);
  void note(const Error& error) REQUIRES(lock_);
  void end() REQUIRES(lock_);

  const std::shared_ptr<CubeOnDisk> cube_;
  mutable Mutex lock_;
  IngestRequest request_ GUARDED_BY(lock_);
  State state_ GUARDED_BY(lock_) = State::probing;
  std::optional<Error> refusal_ GUARDED_BY(lock_);
  std::string head_ GUARDED_BY(lock_);  // probing: all bytes; direct: those before the elements
  std::optional<Reservation> reserved_ GUARDED_BY(lock_);
  std::string tail_ GUARDED_BY(lock_);  // direct: bytes behind the elements
  PosixFile staging_ GUARDED_BY(lock_);
  std::uint64_t size_ GUARDED_BY(lock_) = 0;
  bool dirty_ GUARDED_BY(lock_) = false;  // since the last commit
  bool noted_ GUARDED_BY(lock_) = false;  // history knows that the file as it stands is refused
  std::optional<FrameId> committed_ GUARDED_BY(lock_);
  bool replaces_ GUARDED_BY(lock_) = false;    // a frame of its name
  bool owns_frame_ GUARDED_BY(lock_) = false;  // committed_ came from here, not from an equal file
  Checksummer digest_ GUARDED_BY(lock_){Checksummer::Width::bits128};
  std::uint64_t digested_ GUARDED_BY(lock_) = 0;
  bool digest_in_order_ GUARDED_BY(lock_) = true;
  std::int64_t mtime_ns_ GUARDED_BY(lock_) = 0;  // 0: not set by the writer
  bool ended_ GUARDED_BY(lock_) = false;
};

}  // namespace accrete
