// A file that comes in through a door, as its writer sees it: an Ingest with the rules of close().
//
//   staging --close(), complete--> committed --write--> staging again, replaces its frame
//      |  \--close(), incomplete and somebody still has it open--> staging (success, deferred)
//      |  \--close(), incomplete--> the error; staging in case more follows
//      \--last descriptor gone, incomplete--> refused
//
// FLUSH answers close(), but comes for every descriptor that is closed: for those of dup() and
// fork(), before the first byte (redirections of shells) and in the middle (numpy's tofile). So a
// FLUSH without news repeats the answer; and one of an incomplete file is an error only where
// neither the caller nor an ancestor of it has the file open still.
//
// Temporary names of known patterns (rsync, GLib) commit when they are renamed. A temporary file of
// Python's stays while it is empty.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/ingest.h"
#include "core/mutex.h"
#include "fs/reply.h"
#include "fs/tree.h"

namespace accrete {

// Where a directory of doors leads.
struct Door {
  std::optional<std::size_t> axis;  // nothing: meta/grow
  Side side = Side::append;
  std::uint64_t at = 0;  // logical index, for insert
  std::string path;      // in the cube: "append", "insert/z/17"
};

// ".NAME.XXXXXX" and ".goutputstream-…".
bool is_temporary_name(std::string_view name);

// Thread-safe.
class DoorFile {
 public:
  static Result<std::shared_ptr<DoorFile>> begin(CubeState& state, const Door& door,
                                                 std::string_view name, std::uint32_t mode,
                                                 std::uint32_t uid, std::uint32_t gid);

  // What became of a close or a rename.
  struct Outcome {
    Status status;
    std::optional<FrameId> committed;  // by this call
    bool contents_changed = false;     // it was committed before
  };

  Ingest& ingest() { return *ingest_; }
  std::optional<FrameId> committed() const { return ingest_->committed(); }

  // Reads and writes of its bytes; a discarded file gives ECANCELED.
  Status write(std::uint64_t offset, std::span<const std::byte> bytes, bool append)
      EXCLUDES(mutex_);
  Result<std::size_t> read(std::uint64_t offset, std::span<std::byte> target) EXCLUDES(mutex_);
  Status truncate(std::uint64_t size) EXCLUDES(mutex_);

  // A descriptor was closed. `is_held`: is another one known; asked only when it matters.
  Outcome close(const std::function<bool()>& is_held) EXCLUDES(mutex_);
  // Open file descriptions come and go. When the last has gone, what is incomplete is discarded,
  // unless a rename is still to come.
  struct Departure {
    Outcome outcome;
    bool was_last = false;
    bool discarded = false;
  };
  void add_description() EXCLUDES(mutex_);
  Departure drop_description() EXCLUDES(mutex_);
  bool is_closed() const EXCLUDES(mutex_);
  // Gives it another name; one that was temporary is committed under a final one. A frame of that
  // name is replaced at the commit. When that fails it keeps the old name.
  Outcome rename(std::string_view to) EXCLUDES(mutex_);
  void discard(const std::string& why) EXCLUDES(mutex_);

  // Attributes until the commit. fill() does not wait for one that is under way.
  void set_mtime(std::int64_t ns) EXCLUDES(attributes_mutex_);
  void set_mode(std::optional<std::uint32_t> mode, std::optional<std::uint32_t> uid,
                std::optional<std::uint32_t> gid) EXCLUDES(attributes_mutex_);
  void fill(struct stat& attributes) const EXCLUDES(attributes_mutex_);

 private:
  DoorFile(std::shared_ptr<Ingest> ingest, bool can_be_mapped, std::string name, std::uint32_t mode,
           std::uint32_t uid, std::uint32_t gid);

  Outcome commit() REQUIRES(mutex_);
  // Is it not to be judged by what it is when it is closed?
  bool awaits_more() const REQUIRES(mutex_);
  Status alive() const REQUIRES(mutex_);

  const std::shared_ptr<Ingest> ingest_;
  const bool can_be_mapped_;  // for writing
  std::atomic<std::uint64_t> bytes_written_ = 0;
  mutable Mutex mutex_;
  std::string name_ GUARDED_BY(mutex_);
  std::optional<Status> answer_ GUARDED_BY(mutex_);  // of the last close that tried to commit
  std::size_t descriptions_ GUARDED_BY(mutex_) = 0;
  bool discarded_ GUARDED_BY(mutex_) = false;
  mutable Mutex attributes_mutex_;
  std::uint32_t mode_ GUARDED_BY(attributes_mutex_);
  std::uint32_t uid_ GUARDED_BY(attributes_mutex_);
  std::uint32_t gid_ GUARDED_BY(attributes_mutex_);
  std::int64_t mtime_ns_ GUARDED_BY(attributes_mutex_);
};

// What answers a request that changed the cube, when every view shows it: at once or, with
// durability = disk, when it is on disk.
std::function<void()> durable_answer(std::shared_ptr<CubeState> state,
                                     std::shared_ptr<Reply> reply);

// Answers a request that committed, once every view shows the commit and, with durability = disk,
// it is on disk. `former`: the values before it; nothing where it has only added some.
void answer_commit(const std::shared_ptr<CubeState>& state, RecentValues::Ticket former,
                   std::shared_ptr<Reply> reply, WaitsWith held = WaitsWith::lock);

std::int64_t wall_clock_ns();

}  // namespace accrete
