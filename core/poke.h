// Elements that are changed in place ("poked"), and what they were a moment ago.
//
// A page that a program has mapped may be older than the cube: it comes back with the program's own
// stores and with stale neighbours. So it is taken as the elements in which it differs from the
// cube, and among these one that has the value from before a change is stale and no store.
// RecentValues holds those values, from before a change is made until nobody has an older page any
// more (the argument is in fs/publish.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <vector>

#include "core/box.h"
#include "core/mutex.h"
#include "core/snapshot.h"
#include "core/view.h"

namespace accrete {

// A cube's data as a reader holds it: a snapshot and the mapping under it. While it lives, no space
// that it shows is reused.
struct Pinned {
  std::shared_ptr<const Snapshot> snapshot;
  std::shared_ptr<const std::byte> mapping;  // address of byte 0 of the brick file

  const Snapshot* operator->() const { return snapshot.get(); }
};

// What a write makes of a range of elements, in the coding at rest.
class ElementEdit {
 public:
  virtual ~ElementEdit() = default;
  // Writes to `now`, all of it, what the elements `old` shall be. On an error nothing changes.
  virtual Status apply(const std::byte* old, std::byte* now) = 0;
  // True when this element, as the writer is shown it, is what it left as element i of the range.
  // After apply(), while what that was given is there.
  virtual bool leaves(std::uint64_t i, const std::byte* element) const = 0;
};

// Who brings what is written.
struct PokeOrigin {
  // Whose page comes back: the number of a file, by which pages that share a cache are known. What
  // it brings may be stale where it differs. 0: a write, which brings only what was written.
  std::uint64_t page_of = 0;

  bool is_page() const { return page_of != 0; }
};

// Values before changes that are not known everywhere yet. Thread-safe.
class RecentValues {
 public:
  // While it lives, the values are remembered.
  using Ticket = std::shared_ptr<const void>;

  // Elements of a range of a view's stream, in the coding at rest, that become others by a poke.
  struct Change {
    std::shared_ptr<const std::byte> old;
    std::shared_ptr<const std::byte> now;  // what is as it was is not remembered; none: all is
    std::size_t element_size = 0;
    PokeOrigin origin;
  };
  Ticket remember(View view, Interval range, Change change) EXCLUDES(mutex_);
  // Those of all elements as of a snapshot.
  Ticket remember(Pinned before) EXCLUDES(mutex_);

  bool empty() const EXCLUDES(mutex_);
  // Whether one of the values that the element at these coordinates had is such, and may still be
  // in a page that comes from there. A page that has brought the newer value itself has it no more.
  bool had(const Coords& at, PokeOrigin origin,
           const std::function<bool(const std::byte*)>& is_such) const EXCLUDES(mutex_);

 private:
  struct Entry {
    std::optional<View> view;  // nothing: all of `before`
    Interval range;
    Change change;
    Pinned before;
  };
  Ticket keep(Entry entry) EXCLUDES(mutex_);

  mutable Mutex mutex_;
  std::list<Entry> entries_ GUARDED_BY(mutex_);
};

// Elements of so many bytes (1, 2, 4 or 8) in which two arrays differ.
std::uint64_t count_changes(const std::byte* old, const std::byte* now, std::uint64_t count,
                            std::size_t element_size);

// Stores the elements [range) of a view's stream in which `now` differs from `old`, where the slots
// of these boxes hold them; each by one store, maybe with neighbours. `skip` (may be none): a byte
// for each element, not 0 where it is left alone. False: the file could not be read or had no room
// there, and some were stored. Elements of one place must not be stored by two threads at once.
bool store_elements(const View& view, const BoxIndex& boxes, std::byte* mapping,
                    std::size_t element_size, Interval range, const std::byte* old,
                    const std::byte* now, const std::byte* skip);

// Cuboids of coordinates that hold exactly these elements of a view: element i of the range for
// which is_one(i). Neighbours are joined where they make a larger cuboid. More than `most` may be
// not all of them: it stops there.
struct ElementCuboid {
  Coords origin;
  Shape extent;
};
std::vector<ElementCuboid> cuboids_of(const View& view, Interval range,
                                      const std::function<bool(std::uint64_t)>& is_one,
                                      std::size_t most);

}  // namespace accrete
