// The one implementation of Ingest (states and transitions: ingest.h).
#pragma once

#include "core/checksum.h"
#include "core/cube_on_disk.h"
#include "core/fits_checksum.h"
#include "core/ingest.h"
#include "core/slab_writer.h"

namespace accrete {

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
  bool takes_long() const override;
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
    std::optional<SlabWriter> writer;  // its transfer is by `definition`
    // That of the commit: while it lives, the frame's layers are not reused, whatever becomes of
    // it.
    std::shared_ptr<const Snapshot> committed;
  };

  void tell() REQUIRES(lock_);
  Status write_locked(std::uint64_t offset, std::span<const std::byte> bytes) REQUIRES(lock_);
  Status write_probing(std::uint64_t offset, std::span<const std::byte> bytes) REQUIRES(lock_);
  Status write_direct(std::uint64_t offset, std::span<const std::byte> bytes) REQUIRES(lock_);
  bool holes_are_zeros() const REQUIRES(lock_);
  Status write_staged(std::uint64_t offset, std::span<const std::byte> bytes) REQUIRES(lock_);
  Status write_tail(std::uint64_t offset, std::span<const std::byte> bytes) REQUIRES(lock_);
  Status truncate_locked(std::uint64_t size) REQUIRES(lock_);
  Status read_locked(std::uint64_t offset, std::span<std::byte> target) REQUIRES(lock_);
  void digest_in_order(std::uint64_t offset, std::span<const std::byte> bytes) REQUIRES(lock_);
  std::array<std::uint64_t, 2> digest_all() REQUIRES(lock_);

  // What the bytes so far say the file is; raw when no format claims it and the cube has a frame.
  // `is_image`: meta/hdu has chosen already.
  Result<Format::Look> look(std::span<const std::byte> head, bool at_end, bool is_image)
      REQUIRES(lock_);
  Result<FrameLayout> final_layout() REQUIRES(lock_);
  Result<FrameLayout> staged_layout() REQUIRES(lock_);
  // Makes `unpacked_` of what the staging file, or `unpacked_` itself, has packed. EINVAL: damaged.
  Status unpack(const Format::Look& found) REQUIRES(lock_);
  // Where a staged file has its header and elements: packed files elsewhere than as they came.
  const PosixFile& source() const REQUIRES(lock_) {
    return unpacked_.is_open() ? unpacked_ : staging_;
  }
  std::uint64_t source_size() const REQUIRES(lock_) {
    return unpacked_.is_open() ? unpacked_size_ : size_;
  }
  // Layers for a frame of that layout. False when it should be staged for now.
  Result<bool> reserve(const FrameLayout& layout, bool insist)
      REQUIRES(lock_, cube_->commit_lock());
  // The same; space of frames that are gone is made free where that helps.
  Result<bool> reserve_making_room(const FrameLayout& layout, bool insist) REQUIRES(lock_)
      EXCLUDES(cube_->commit_lock());
  void give_back_slab() REQUIRES(lock_, cube_->commit_lock());
  // False: it has to be staged.
  Result<bool> begin_direct(const FrameLayout& layout) REQUIRES(lock_);
  void keep_head(std::uint64_t offset, std::span<const std::byte> bytes) REQUIRES(lock_);
  Status take_begin(std::span<const std::byte> all) REQUIRES(lock_);
  Status stage() REQUIRES(lock_);  // to the staging file, whatever the state was
  Status pump() REQUIRES(lock_);   // from the staging file into the reserved layers
  Status pump_transposed() REQUIRES(lock_);
  Status check_length(const FrameLayout& layout) const REQUIRES(lock_);
  Status check_sums(const FrameLayout& layout) REQUIRES(lock_);

  Result<FrameId> commit_locked() REQUIRES(lock_);
  Result<FrameId> commit_reserved(const FrameLayout& layout) REQUIRES(lock_);
  // EFBIG when its elements are more bytes than max_frame allows.
  Status check_frame_size(const FrameLayout& layout) const;
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
  // Only header and tail of a committed frame are others now.
  Status amend(const FrameLayout& layout) REQUIRES(lock_);
  // Bytes of the file that is the frame, unpacked.
  Result<std::string> text_at(std::uint64_t offset, std::uint64_t length) REQUIRES(lock_);
  Result<Headers> headers(const FrameLayout& layout) REQUIRES(lock_);
  // Whether elements and texts do not suffice to make the file again.
  bool needs_original() const REQUIRES(lock_);
  // Puts all but the elements into the heap: what makes the file again with them, or the file
  // itself; or with `residue = drop` what makes a canonical file.
  Status store_texts(FrameRow& row, const Settings& settings) REQUIRES(lock_, cube_->commit_lock());
  Status store_canonical(FrameRow& row) REQUIRES(lock_, cube_->commit_lock());
  void refuse(const Error& error) REQUIRES(lock_);
  void note(const Error& error) REQUIRES(lock_);
  void end() REQUIRES(lock_);

  const std::shared_ptr<CubeOnDisk> cube_;
  mutable Mutex lock_;
  IngestRequest request_ GUARDED_BY(lock_);
  State state_ GUARDED_BY(lock_) = State::probing;
  std::optional<Error> refusal_ GUARDED_BY(lock_);
  std::string head_ GUARDED_BY(lock_);  // probing: all bytes; direct: those before the elements
  std::size_t next_look_ GUARDED_BY(lock_) = 0;  // probing: the length at which to look again, so
                                                 // that a long header is not read for each write
  std::optional<Reservation> reserved_ GUARDED_BY(lock_);
  std::string tail_ GUARDED_BY(lock_);  // direct: bytes behind the elements
  PosixFile staging_ GUARDED_BY(lock_);
  PosixFile unpacked_ GUARDED_BY(lock_);  // staged: what a packed file has in it, as of the last
  std::uint64_t unpacked_size_ GUARDED_BY(lock_) = 0;  // look; maybe only its begin is in the file
  std::uint64_t size_ GUARDED_BY(lock_) = 0;
  bool dirty_ GUARDED_BY(lock_) = false;   // since the last commit
  bool failed_ GUARDED_BY(lock_) = false;  // so did the last commit, of the file as it stands
  bool noted_ GUARDED_BY(lock_) = false;   // history knows that the file as it stands is refused
  std::optional<FrameId> committed_ GUARDED_BY(lock_);
  bool replaces_ GUARDED_BY(lock_) = false;    // a frame of its name
  bool owns_frame_ GUARDED_BY(lock_) = false;  // committed_ came from here, not from an equal file
  Checksummer digest_ GUARDED_BY(lock_){Checksummer::Width::bits128};
  std::uint64_t digested_ GUARDED_BY(lock_) = 0;
  std::optional<FitsSummer> data_sum_ GUARDED_BY(lock_);  // direct: where the header tells one, of
                                                          // what came in order
  bool digest_in_order_ GUARDED_BY(lock_) = true;
  std::int64_t mtime_ns_ GUARDED_BY(lock_) = 0;  // 0: not set by the writer
  bool ended_ GUARDED_BY(lock_) = false;

  // What const members say.
  std::atomic<std::uint64_t> told_size_ = 0;
  std::atomic<FrameId> told_committed_ = 0;
  std::atomic<bool> told_dirty_ = false, told_staged_ = false;
};

}  // namespace accrete
