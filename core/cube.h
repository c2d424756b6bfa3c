// A cube: an array that grows, in a directory of its own.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/common_cards.h"
#include "core/ingest.h"
#include "core/poke.h"
#include "core/posix_file.h"
#include "core/snapshot.h"
#include "core/stillness.h"
#include "core/text_changes.h"
#include "core/view.h"

namespace accrete {

struct Limits {
  std::uint64_t max_frame = std::uint64_t{1} << 50;  // bytes of a frame's elements
  std::uint64_t max_cube = std::uint64_t{1} << 56;   // bytes of the cube's logical elements
};

// Called when a sync is done; may run on another thread, holds no lock.
using SyncDone = std::function<void(const Status&)>;

// An event for `history`. `place`: logical index along the growth axis.
struct Event {
  std::string what;  // "append", "refuse", "set", …
  std::string name;
  std::optional<std::uint64_t> place;
  int error = 0;  // errno, 0 for success
  std::string sentence;
};

// Thread-safe throughout. Readers take no lock but a short one to get the snapshot.
class Cube {
 public:
  virtual ~Cube() = default;

  virtual std::string name() const = 0;
  // Unique in the store, also across renames and remounts.
  virtual std::uint64_t uid() const = 0;
  virtual Pinned pin() const = 0;

  // ---- Growing ----
  // EINVAL: control character, empty, '.', '..', '/', or an axis letter alone; ENAMETOOLONG: over
  // 255 bytes; EROFS: fenced.
  virtual Result<std::shared_ptr<Ingest>> begin_ingest(IngestRequest request) = 0;

  // ---- Frames ----
  // Live and removed frames share one namespace.
  virtual std::optional<FrameId> find_frame(std::string_view name) const = 0;  // live ones
  virtual std::optional<FrameId> find_removed(std::string_view name) const = 0;
  virtual std::string frame_name(const FrameRow& row) const = 0;
  // What the file that came in says of its elements. EIO.
  virtual Result<Headers> frame_headers(const FrameRow& row) const = 0;
  // Bytes of a row's text (prefix, suffix, original) from `offset` on. EIO.
  // REQUIRES: the range lies within the text.
  virtual Status read_text(const HeapRef& text, std::uint64_t offset,
                           std::span<std::byte> target) const = 0;
  virtual Result<View> frame_view(const FrameRow& row) const = 0;
  virtual Result<FrameRuns> frame_runs(const FrameRow& row) const = 0;
  // The same data with the elements of a removed frame shown. EIO.
  virtual Result<Pinned> show_removed(const Pinned& pinned, const FrameRow& row) const = 0;
  // The cards of a frame's image: as they came, or as they were changed since.
  virtual std::vector<std::string> frame_cards(const FrameRow& row) const = 0;
  // The headers of a live frame become what these changes make of `base`, which is its file up to
  // the elements, or was. EINVAL: they are no headers then; EPERM: they would say that the file is
  // built otherwise; EINVAL: meta/order needs a keyword that is gone; EAGAIN, ENOENT, EROFS.
  virtual Status set_frame_prefix(FrameId id, const HeapRef& base, const TextChanges& changes) = 0;
  // A live frame's image has these cards from now on, which its file shows as far as they fit into
  // the length of its header. Only views show them otherwise. Errors as above.
  virtual Status set_frame_cards(FrameId id, const std::vector<std::string>& cards) = 0;
  // What all live frames have in common; nothing when there is none. The first call reads the
  // headers of all frames; from then on it is kept up by what changes.
  virtual std::shared_ptr<const CommonCards> common_cards() = 0;
  // mtime, mode, owner of a committed frame; by nothing: unchanged.
  virtual Status set_frame_attributes(FrameId id, std::optional<std::int64_t> mtime_ns,
                                      std::optional<std::uint32_t> mode,
                                      std::optional<std::uint32_t> uid,
                                      std::optional<std::uint32_t> gid) = 0;
  // Gives a live or removed frame another name. A frame of that name goes for good, and a live one
  // takes its place. ENOENT; EPERM when the two grew different axes or `from` is removed and `to`
  // in use; begin_ingest's errors.
  virtual Status rename_frame(std::string_view from, std::string_view to) = 0;
  // Takes a live frame out: indexes that no other live frame covers are no more, and its elements
  // are pad elsewhere. It gets another name if `to` is one. ENOENT, EEXIST, begin_ingest's errors.
  virtual Status remove_frame(std::string_view name, std::string_view to) = 0;
  // Undoes that, under another name if `to` is one. ENOENT, EEXIST, begin_ingest's errors.
  virtual Status restore_frame(std::string_view name, std::string_view to) = 0;
  // A removed frame goes for good; its space is reused when that is durable and nobody looks at it.
  // With the last frame, live or removed, the cube's definition goes. ENOENT.
  virtual Status discard_frame(std::string_view name) = 0;

  // ---- Properties: the files of meta/ ----
  // Names in listing order.
  static std::span<const std::string_view> property_names();
  // Text as `cat` shows it, with a final newline. ENOENT for an unknown name.
  virtual Result<std::string> property(std::string_view name) const = 0;
  static bool is_settable(std::string_view name);
  // EINVAL with a sentence for a bad value, EPERM for one that cannot be set (now), EROFS.
  // `append`: adds to what there is, where the property is a list of cards.
  virtual Status set_property(std::string_view name, std::string_view text, bool append) = 0;
  Status set_property(std::string_view name, std::string_view text) {
    return set_property(name, text, false);
  }

  // ---- Reading elements ----
  // Copies elements [range) of the view's stream in `coding`. EIO.
  virtual Status read(const Pinned& pinned, const View& view, Interval range, std::byte* target,
                      Coding coding) const = 0;
  // The same of its mask: 1 where there is data, else 0 (pad).
  virtual void read_mask(const Pinned& pinned, const View& view, Interval range,
                         std::byte* target) const = 0;
  // Whether there is data beside the boxes of the snapshot, so that read() alone finds all.
  virtual bool has_patches(const Pinned& pinned) const = 0;
  // For who copies elements out of the mapping other than one by one. Null while some change.
  virtual Stillness::Hold hold_still() const = 0;

  // ---- Changing elements in place ----
  // Elements [range) of the view's stream become what `edit` makes of them, each by itself; on an
  // error none. Where no frame gave one it becomes data. `former` becomes what remembers the values
  // that others may have been shown until it is dropped, when all know the present ones; nothing
  // where all know them already. Also on an error, since some may have been stored and taken back.
  // The edit's errors; EROFS; ENOSPC; EIO; ENOENT: no frame gave the element, and its index is no
  // more.
  virtual Status poke(const Pinned& pinned, const View& view, Interval range, ElementEdit& edit,
                      PokeOrigin origin, RecentValues::Ticket& former) = 0;
  // Replaces all elements of the view by those of a file (the view's stream in the coding at rest):
  // all or none, also when the daemon ends meanwhile (unless frames that the view shows went, or
  // others came back, since the snapshot). Readers may see some of them before others. `former` and
  // errors as with poke().
  virtual Status replace(const Pinned& pinned, const View& view, const PosixFile& elements,
                         RecentValues::Ticket& former) = 0;
  // Remembers all elements as they are, for a change of structure that is about to be made.
  virtual RecentValues::Ticket remember_values() = 0;
  // When elements were last changed in place; 0: never.
  virtual std::int64_t poked_ns() const = 0;
  // For files that come in by other ways than an ingest.
  virtual Result<PosixFile> temporary_file() const = 0;
  // Takes a step, and takes it anew where the disk was full but space of frames that are gone could
  // be made free.
  virtual Status step_making_room(const std::function<Status()>& step) = 0;

  // ---- History ----
  virtual void record(const Event& event) = 0;
  virtual std::uint64_t history_size() const = 0;
  virtual Result<std::size_t> read_history(std::uint64_t offset,
                                           std::span<std::byte> target) const = 0;
  virtual std::string last_error() const = 0;  // with a newline; empty when there was none

  // ---- Durability ----
  // Everything committed before the call is on disk when `done` is called (data, journal,
  // mark). Concurrent calls share one sync.
  virtual void sync(SyncDone done) = 0;
  virtual bool read_only() const = 0;
  virtual std::int64_t created_ns() const = 0;
  virtual std::int64_t changed_ns() const = 0;  // of the last published snapshot
};

}  // namespace accrete
