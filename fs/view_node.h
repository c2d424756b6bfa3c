// A view as a file: slices/AXES/…/NAME.FORMAT, the same below mask/, and cube.FORMAT.
//
// The map from bytes to elements of an inode never changes; it may only be extended at its end. So
// an identity is made of what the bytes mean (elements or mask, format, order of axes, physical
// coordinates) and not of a name: a name that means something else after a growth has a new
// identity and so a new inode, while the old one goes on showing what it showed. Raw and text views
// that reach to the end of their slowest axis leave its extent out of their identity: they are
// extended.
//
// Views are written in place. A view that is opened with O_TRUNC is not truncated: what is written
// is staged and takes the place of its elements, whole, at close() (core/replacement.h). Linux
// tells of O_TRUNC by a truncation after the open; its answer says the size that the file has, so
// that others who have it open or mapped notice nothing.
//
// FITS and NPY tell their extents in the header, so a growth makes another inode of them as well.
// But st_ino stays as long as only the end has moved: cp and others compare it between stat() and
// open(), and would give up a file that "was replaced" meanwhile.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/view_form.h"
#include "core/view_name.h"
#include "fs/content.h"
#include "fs/node.h"
#include "fs/page_holder.h"
#include "fs/tree.h"

namespace accrete {

// What a name means in a snapshot.
struct ViewMeaning {
  View view;
  Shows shows = Shows::elements;
  const Format* file_format = nullptr;
  bool reaches_end = false;  // of the slowest axis, wherever that will be
  bool extends = false;      // the inode does, too

  // ENOENT when the name does not resolve or the format cannot show it.
  static Result<ViewMeaning> of(const Snapshot& snapshot, Shows shows,
                                const PerAxis<std::size_t>& spanned,
                                const std::vector<AxisTerm>& terms, const Format& file_format);
};

Coords fixed_coordinates(const View& view);

// `fixed` stands for the view's own fixed coordinates (so that a listing needs one view only).
std::uint64_t view_ino(std::uint64_t cube_uid, const ViewMeaning& meaning, const Coords& fixed);

class OpenView;
class StagedView;

class ViewNode : public Node, public Watched {
 public:
  // Bytes that the cards of all take, some more.
  static std::size_t card_bytes() { return card_bytes_; }
  ~ViewNode() override;

  static std::shared_ptr<ViewNode> make(const std::shared_ptr<CubeState>& state,
                                        const Snapshot& snapshot, const ViewMeaning& meaning);

  Result<struct stat> attributes() override;
  AttributeBelief attribute_belief() const override;
  std::optional<Lease> lease() const override;
  Result<bool> change_attributes(const AttributeChange& change) override;
  ExtendedAttributes extended_attributes() override;
  std::shared_ptr<Cube> cube() const override { return state_->shared_cube(); }
  Result<std::unique_ptr<OpenFile>> open(int flags, const Caller& caller) override;
  bool trimmable() const override { return true; }

  std::optional<CacheNotice> after_commit(bool contents_changed) override;
  std::vector<CacheNotice> after_poke(const Poked& poked) override {
    return pages_.overlapping(number(), poked);
  }
  bool has_pages() const override { return pages_.any(); }

 private:
  friend class OpenView;

  // `frame`: that gave what the view shows (frame_of()).
  ViewNode(std::shared_ptr<CubeState> state, const Snapshot& snapshot, const ViewMeaning& meaning,
           const std::optional<FrameRow>& frame, std::uint64_t cards_version);

  // A snapshot and the view as far as it reaches there.
  struct Reach {
    Pinned pinned;
    View view;
  };

  // Follows growth up to that snapshot.
  void advance(const Pinned& newest) REQUIRES(mutex_);
  // For an open file that comes: from now on all that the node says of the view's end is kept.
  // ESTALE: what the view shows has gone since it was looked up. The kernel looks it up again.
  Result<Reach> begin() EXCLUDES(mutex_);
  void end() EXCLUDES(mutex_);
  // As far as the node has ever said, or may say now. REQUIRES: it extends, and is open.
  Reach reach(const Pinned& newest) EXCLUDES(mutex_);
  FileFace face(const Shape& shape) const;
  Shown show(Pinned pinned, View view) const;

  static inline std::atomic<std::size_t> card_bytes_ = 0;

  // Thousands of these are kept for the kernel, most of which nobody ever opens: so a closed one is
  // small.
  const std::shared_ptr<CubeState> state_;
  const Format& format_;
  const Shows shows_;
  const bool extends_;
  const bool rests_on_all_frames_;  // its cards do
  const std::uint64_t found_in_;    // generation
  // The cube may be another by now, if its last frame went while the view was open.
  const DType type_;
  const std::string letters_;
  const std::vector<std::string> cards_;  // of its FITS header, whose length so never changes
  const ViewForm form_;
  PageHolder pages_;
  mutable Mutex mutex_;
  std::vector<std::shared_ptr<StagedView>> writers_ GUARDED_BY(mutex_);
  std::uint64_t generation_ GUARDED_BY(mutex_);  // what follows is as of this one
  std::uint64_t end_ GUARDED_BY(mutex_);         // of the slowest axis
  std::uint64_t size_ GUARDED_BY(mutex_);        // of the file
  std::int64_t mtime_ns_ GUARDED_BY(mutex_);
  // The newest snapshot that has all that the node has said, while there are open files, if it
  // extends. They may be asked for what they were not before the cube changed again.
  std::unique_ptr<Reach> kept_ GUARDED_BY(mutex_);
  unsigned opens_ GUARDED_BY(mutex_) = 0;
  std::uint64_t told_elements_ GUARDED_BY(mutex_);  // as of the last notice
};

}  // namespace accrete
