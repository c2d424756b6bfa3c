// Tells the kernel what it must no longer believe, on a thread of its own: the coherence of what
// programs have mapped or cached, and of the names that the kernel remembers, with the cube.
//
// The rules, and why they suffice.
//
// 1. Who can be wrong. A view has no data of its own, so a read that comes to us is right. Only
//    pages that the kernel keeps can be stale: those of a READ without an owner (a fault, or a
//    cached file). Such a READ notes its node (PageHolder), and all that it will show, before it
//    looks at the cube; a change is made before it asks who is noted. So either the change finds
//    the node, or the READ has found the change.
// 2. Publishing. A change is applied first, so that from then on no READ brings what was before.
//    Then the pages that overlap it are invalidated, in all nodes that are noted, that of the
//    writer included: a direct write drops its pages before it comes to us, and a fault may have
//    brought them back. Then the reply goes out. A page that was being filled meanwhile is locked
//    by the kernel from before its READ until its reply, and the invalidation waits for that lock.
//    Closed files need nothing: their pages are kept only by rule 6. A write that finds the
//    elements as it wants them is published as well while anything is: whoever made them so may not
//    be done.
// 3. Nobody waits for whom waits for him. An invalidation takes locks of pages, and first writes
//    back those that are dirty. So
//    - READs are answered without waiting for anything (the fault behind one holds such a lock),
//    - a page that comes back is answered at once; what it changes is queued before, so that an
//      fsync that follows finds it, and published afterwards,
//    - truncations are answered at once (the kernel holds back the pages of that file until then),
//    - no session thread waits for the notifier: whatever has to is continued by it, and no lock is
//      held while it notifies.
//    A direct write holds no lock of a page while it waits for its reply, and neither do FSYNC,
//    FLUSH, unlink and rename. So the notifier always goes on, even with one session thread.
// 4. Pages that come back hold stale neighbours of what was stored. They are taken as the elements
//    in which they differ from the cube (core/poke.h), but for those that have a value from before
//    a change that is still being published: RecentValues remembers those from before the change
//    is applied until all pages that could have them are gone, the dirty ones among them written
//    back (rule 2). So a page that comes back after that has nothing stale, and programs that store
//    to different elements of a page, through whatever views, lose nothing. What a page itself has
//    changed is no exception for a later one of the same node: the node's page had the newer value,
//    so the former one has been stored again. Of two that change the same element at the same time
//    one wins; a page whose store was not taken is invalidated again, since it shows it. Structural
//    changes (a frame that goes or comes back) remember the whole cube as it was.
// 5. Since a page that comes back is answered before it is published, fsync(), msync() and close()
//    wait until all that was queued before them is done. munmap() alone is not told to us: other
//    mappings follow it by the time of a notification.
// 6. From one open to the next. Nobody watches a closed node. An open lets the kernel keep the
//    pages that it has of the node only where they are certainly right. By every other open, also a
//    direct one, the kernel drops them before that file can be used, so that none comes back.
//    - A change counts as begun once it is made, before it asks who is noted; as done when its
//      notifications are sent, before its reply (ChangeCount). The last close remembers how many
//      are done while the node is still noted, so those have found it; RELEASE comes when all READs
//      of its file have been answered. The next open notes what was noted again, and then looks how
//      many have begun. If as many as were remembered, none was under way at that close and none
//      has begun since; one that begins from now on finds the node. Else the note is taken back.
//    - While others have it open, pages are kept if any were noted since the first of them opened
//      it: through a file whose own open had dropped those of before, or kept them rightly. Where
//      none were, an open that is to drop them may not have done so yet. So it is well, too, when a
//      RELEASE comes after the next OPEN.
//    - Growth counts for views that extend; others show it by another inode. Cards of a view belong
//      to its inode. Never kept are pages that change otherwise: those of a file that comes in, of
//      a frame (its cards change), and of a view of what the cube has no more (growth may bring the
//      indexes back, and pad there).
//    - A node that the kernel forgets takes its pages with it, and a new one has no note.
//
// Names and attributes. The kernel believes names of views for long, and attributes of frames and
// of views that grow (lease.h). None means what it meant before a commit whose committer has been
// answered:
// 7. Whose name may be wrong. A look-up finds its node in a snapshot, then enters its lease into
//    the table, then sees that the cube is still the same; else its answer is believed for no time.
//    A commit is applied before it asks for leases on other ground. So either the commit finds the
//    lease, or the look-up has found the commit. The names are invalidated before the reply goes
//    out. A commit that finds nothing to revoke still waits for what is being revoked: that of
//    another one, whose names may now mean what both have made.
// 8. An answer that is on its way. Linux (fs/fuse/dir.c, readdir.c) holds the
//    directory's lock for reading from before a LOOKUP of an unknown name, or a READDIRPLUS, until
//    it has taken in the answer; an invalidation of a name takes it for writing. So it comes after
//    an answer that was sent before it, and a look-up that comes after it finds the commit.
//    A LOOKUP that only confirms a name whose time is over holds no lock: its answer may set a new
//    time after the invalidation. But that has taken the name's dentry out of the hash, whence no
//    path finds it again (only those of directories are ever put back, and these have no lease), so
//    the time is of no use to anybody but the path walk that had asked, which began before the
//    commit was answered. This is why names are invalidated and not merely expired
//    (FUSE_EXPIRE_ONLY leaves the dentry in the hash), and why aliases of a node that has a lease
//    get none: each dentry with a time has its own entry in the table.
// 9. To revoke a name takes the lock of its directory, so it is done on a thread of its own
//    (name_revoker.h). Whoever holds that lock, of a directory of views or of a cube, does not wait
//    for it: look-ups and listings are answered at once, creating, removing, renaming there, and
//    changes of attributes, are refused at once, and FSYNCDIR waits for the disk alone. But before
//    unlink(), link() and rename() come to us to be refused, they take the locks of the file and of
//    the other directory; so who waits with one of those in hand must not wait for names either. A
//    direct WRITE of elements and fsync() of them do not: they wait for pages alone. Those that do
//    (removals and renames in doors, changes of a frame's attributes, what is written into meta/,
//    fsync() of edited headers) go on without after a while without progress, and their names are
//    revoked later: that comes about only beside such a call that is refused, or where a directory
//    is locked so long for other reasons. Closing a file holds nothing and waits.
// 10. Attributes. A look-up enters its lease into the table, and then looks at the attributes; so
//    rule 7 holds for them. A notification for them takes no lock that a caller can hold. Linux
//    counts the changes of an inode's attributes (attr_version, also by notifications since 5.8)
//    and drops of an answer what it says of them where they have changed since the request was
//    sent; so an answer that is on its way does no harm. That is not so
//    - where it does not have the inode yet. Then a notification fails, and the name by which the
//      inode is being looked up is revoked, which comes after the answer (rule 8), and the
//      attributes once more. Frames are in doors, whose locks rule 9 does not keep free; of these
//      nothing is believed that goes with a name, but what the kernel asks for by their number.
//    - for the answer to a change of attributes, which therefore has no lease.
//    - for that to CREATE, whose file nobody can know before the kernel lets go of its directory.
//    What is believed of a file that comes in is that it is empty. The kernel's own first write or
//    truncation ends that, and nothing of the file is committed before; from then on nothing is
//    believed of it until it is a frame. (But its st_ino, which becomes that of the frame, may be
//    remembered by who asks for nothing else.)
//
// What was tried in trials and failed: reads that wait for a writer (deadlock by the lock of rule
// 3); invalidating from a handler (the same, where it is of the same file); replying to pages that
// come back only when they are published (two nodes with dirty pages wait for each other); taking
// such pages whole (stale neighbours overwrite what others stored); ATOMIC_O_TRUNC (the kernel sets
// the size to 0, and whoever has the file mapped dies of SIGBUS).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "core/mutex.h"
#include "core/poke.h"
#include "fs/name_revoker.h"
#include "fs/node_table.h"

struct fuse_session;

namespace accrete {

class CubeState;
class Tree;

// The kernel shall ask again for an inode's attributes and, from a byte on, for its pages.
struct CacheNotice {
  std::uint64_t node = 0;
  std::int64_t offset = -1;  // -1: attributes only
  std::int64_t length = 0;   // 0: to the end
};

// Elements that have changed in place, and what remembers how they were.
struct Poked {
  RecentValues::Ticket ticket;
  View view;
  Interval range;  // of its stream
};

// An open file whose attributes or pages may change by a commit. Thread-safe.
class Watched {
 public:
  virtual ~Watched() = default;
  // `contents_changed`: not only by growth.
  virtual std::optional<CacheNotice> after_commit(bool contents_changed) = 0;
  // Where it shows what was poked; nothing where the kernel has no pages of it.
  virtual std::vector<CacheNotice> after_poke(const Poked& poked) = 0;
  virtual bool has_pages() const = 0;
};

// What the kernel keeps locked for who waits for an answer: nothing, or a file or directory.
enum class WaitsWith : bool { nothing, lock };

// Thread-safe.
class Publisher {
 public:
  explicit Publisher(Tree& tree);
  ~Publisher() { stop(); }

  // Starts the thread. Not before daemonizing.
  void start(fuse_session* session) EXCLUDES(mutex_);
  // What is still queued is run, without notifications.
  void stop() EXCLUDES(mutex_);

  // A commit of the cube was published. `then` (may be empty) runs as soon as the kernel's caches
  // and names are right: at once where none can be wrong, else on a thread of ours. `former`: the
  // values before it, where contents have changed.
  void announce(std::shared_ptr<CubeState> cube, RecentValues::Ticket former,
                std::function<void()> then, WaitsWith held = WaitsWith::lock) EXCLUDES(mutex_);
  // The same for elements that were changed in place.
  void announce(std::shared_ptr<CubeState> cube, Poked poked, std::function<void()> then)
      EXCLUDES(mutex_);
  // Runs `then` when what was announced before is done: what is told of pages and attributes, or of
  // names as well.
  void after_pages(std::function<void()> then) { after(std::move(then), false, WaitsWith::lock); }
  void after(std::function<void()> then, bool names, WaitsWith held) EXCLUDES(mutex_);

  // Asks the kernel to let go of names that nobody uses, when it holds too many.
  void trim_if_large() EXCLUDES(mutex_);
  // It still holds so many that it is not to be told of more than it asks for. (While a directory
  // is read, names in it are let go of slowly: both take its lock.)
  bool is_crowded() const;

 private:
  struct Item {
    std::shared_ptr<CubeState> cube;  // none: nothing has changed
    RecentValues::Ticket former;
    std::optional<Poked> poked;
    std::function<void()> then;
    bool waits_for_names = false;
    WaitsWith held = WaitsWith::lock;

    bool changes_contents() const { return former != nullptr || poked; }
  };

  // The two ends of a change: before anybody looks whom it concerns, and when no page is wrong any
  // more.
  static void begin(const Item& item);
  static void end(Item& item);
  static void finish(Item& item);  // ends, and goes on
  // False where it is to be done at once: that of a stopped thread, and of one with nothing to do
  // where the item gives it nothing either.
  bool queue(Item& item, bool is_work) EXCLUDES(mutex_);
  void run() EXCLUDES(mutex_);
  // On a thread of its own: letting go of a name takes the lock of its directory, which whoever
  // removes or renames there holds while his reply waits.
  void run_trimmer() EXCLUDES(mutex_);
  // Names are left to be revoked.
  void notify(const std::vector<Item>& items, std::vector<NodeTable::RevokedName>& names);
  bool send(const CacheNotice& notice);  // false: the kernel has no such node
  void revoke(const CubeState& cube, std::vector<NodeTable::RevokedName>& names);
  void trim();

  Tree& tree_;
  fuse_session* session_ = nullptr;
  NameRevoker names_;
  std::thread thread_;
  std::thread trimmer_;
  Mutex mutex_;
  CondVar wake_;
  CondVar wake_trimmer_;
  std::vector<Item> queue_ GUARDED_BY(mutex_);
  bool busy_ GUARDED_BY(mutex_) = false;  // with what it has taken from the queue
  bool trim_wanted_ GUARDED_BY(mutex_) = false;
  std::atomic<std::size_t> trim_above_;  // number of nodes
  bool running_ GUARDED_BY(mutex_) = false;
};

}  // namespace accrete
