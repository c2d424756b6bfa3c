#include "core/poke.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/fault_guard.h"
#include "core/linearize.h"

namespace accrete {

RecentValues::Ticket RecentValues::keep(Entry entry) {
  std::list<Entry> fresh;
  fresh.push_back(std::move(entry));
  const auto at = fresh.begin();
  {
    MutexLock lock(mutex_);
    entries_.splice(entries_.end(), fresh);
  }
  // Without the lock: where no memory is left for the ticket its end comes at once.
  return Ticket(&*at, [this, at](const void*) {
    std::list<Entry> last;  // destroyed after the lock
    MutexLock removing(mutex_);
    last.splice(last.begin(), entries_, at);
  });
}

RecentValues::Ticket RecentValues::remember(View view, Interval range, Change change) {
  return keep({std::move(view), range, std::move(change), {}});
}

RecentValues::Ticket RecentValues::remember(Pinned before) {
  return keep({std::nullopt, {}, {}, std::move(before)});
}

bool RecentValues::empty() const {
  MutexLock lock(mutex_);
  return entries_.empty();
}

namespace {

// The value of an element as of a snapshot: in a box, a patch, or pad.
bool had_as_of(const Pinned& before, const Coords& at,
               const std::function<bool(const std::byte*)>& is_such) {
  if (!before->definition.defined || before->axes.size() != at.size()) return false;
  const std::size_t size = size_of(before->definition.coding.type);
  bool is_held = false;
  bool found = false;
  for (const BoxIndex* boxes : {&before->boxes, &before->patches}) {
    if (is_held) break;
    boxes->for_overlapping(at, Shape(at.size(), 1), [&](const Box& box) {
      const auto layer =
          static_cast<std::uint64_t>(at[box.layer_axis] - box.origin[box.layer_axis]);
      if ((box.written >> (layer / box.slot_layers) & 1) == 0) return;
      is_held = true;
      std::array<std::byte, 8> element{};
      auto read = [&] {
        std::memcpy(element.data(), before.mapping.get() + box.offset_of(at, size), size);
      };
      found = run_guarded(read) && is_such(element.data());
    });
  }
  return is_held ? found : is_such(before->pad_at_rest().bytes.data());
}

}  // namespace

bool RecentValues::had(const Coords& at, PokeOrigin origin,
                       const std::function<bool(const std::byte*)>& is_such) const {
  MutexLock lock(mutex_);
  return std::any_of(entries_.begin(), entries_.end(), [&](const Entry& entry) {
    if (!entry.view) return had_as_of(entry.before, at, is_such);
    const Change& change = entry.change;
    if (origin.is_page() && origin.page_of == change.origin.page_of) return false;
    const std::optional<std::uint64_t> index = entry.view->index_of(at);
    if (!index || *index < entry.range.begin || *index >= entry.range.end) return false;
    const std::size_t size = change.element_size;
    const std::uint64_t offset = (*index - entry.range.begin) * size;
    const std::byte* const old = change.old.get() + offset;
    const bool has_changed =
        change.now == nullptr || std::memcmp(old, change.now.get() + offset, size) != 0;
    return has_changed && is_such(old);
  });
}

namespace {

template <class T>
std::uint64_t count_changes(const std::byte* old, const std::byte* now, std::uint64_t count) {
  constexpr std::uint64_t block = 128;  // a sum as narrow as an element holds so many
  std::uint64_t changes = 0;
  for (std::uint64_t done = 0; done < count; done += block) {
    const std::uint64_t end = std::min(count, done + block);
    T in_block = 0;
    for (std::uint64_t i = done; i < end; ++i) {
      T before;
      T value;
      __builtin_memcpy(&before, old + i * sizeof(T), sizeof(T));
      __builtin_memcpy(&value, now + i * sizeof(T), sizeof(T));
      in_block = static_cast<T>(in_block + static_cast<T>(before != value));
    }
    changes += in_block;
  }
  return changes;
}

}  // namespace

std::uint64_t count_changes(const std::byte* old, const std::byte* now, std::uint64_t count,
                            std::size_t element_size) {
  switch (element_size) {
    case 1:
      return count_changes<std::uint8_t>(old, now, count);
    case 2:
      return count_changes<std::uint16_t>(old, now, count);
    case 4:
      return count_changes<std::uint32_t>(old, now, count);
    default:
      return count_changes<std::uint64_t>(old, now, count);
  }
}

namespace {

// Readers look at the same bytes without a lock: an aligned element is never torn. The thread
// sanitizer does not know that.
template <class T>
__attribute__((no_sanitize("thread"), noinline)) void store_run(std::byte* target,
                                                                const std::byte* old,
                                                                const std::byte* now,
                                                                const std::byte* skip,
                                                                std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    T before;
    T value;
    __builtin_memcpy(&before, old + i * sizeof(T), sizeof(T));
    __builtin_memcpy(&value, now + i * sizeof(T), sizeof(T));
    if (before == value || (skip != nullptr && skip[i] != std::byte{0})) continue;
    __atomic_store_n(reinterpret_cast<T*>(target) + i, value, __ATOMIC_RELAXED);
  }
}

void store_run(std::byte* target, const std::byte* old, const std::byte* now, const std::byte* skip,
               std::uint64_t count, std::size_t element_size) {
  // Where none is skipped, as many as a word has by one store: what is as it was stays that.
  if (const bool is_aligned = reinterpret_cast<std::uintptr_t>(target) % sizeof(std::uint64_t) == 0;
      is_aligned && skip == nullptr && element_size < sizeof(std::uint64_t)) {
    const std::uint64_t words = count * element_size / sizeof(std::uint64_t);
    store_run<std::uint64_t>(target, old, now, nullptr, words);
    const std::uint64_t done = words * sizeof(std::uint64_t);
    target += done;
    old += done;
    now += done;
    count -= done / element_size;
  }
  switch (element_size) {
    case 1:
      return store_run<std::uint8_t>(target, old, now, skip, count);
    case 2:
      return store_run<std::uint16_t>(target, old, now, skip, count);
    case 4:
      return store_run<std::uint32_t>(target, old, now, skip, count);
    default:
      return store_run<std::uint64_t>(target, old, now, skip, count);
  }
}

}  // namespace

bool store_elements(const View& view, const BoxIndex& boxes, std::byte* mapping,
                    std::size_t element_size, Interval range, const std::byte* old,
                    const std::byte* now, const std::byte* skip) {
  bool good = true;
  for_runs_in_boxes(
      view, boxes, element_size, Slots::written, range,
      [&](std::uint64_t stream, std::uint64_t length, std::uint64_t file, const Box&) {
        const std::uint64_t at = stream * element_size;
        if (std::memcmp(old + at, now + at, length * element_size) == 0) return;
        auto store = [&] {
          store_run(mapping + file, old + at, now + at, skip == nullptr ? nullptr : skip + stream,
                    length, element_size);
        };
        good = run_guarded(store) && good;
      });
  return good;
}

namespace {

// Joins cuboids that differ in nothing but their place on one axis, where they follow each other
// there. They come out in another order.
std::vector<ElementCuboid> joined_along(std::size_t axis, std::vector<ElementCuboid> cuboids) {
  // The same for all that can be joined, and those by their place.
  const auto compare = [axis](const ElementCuboid& a, const ElementCuboid& b) {
    for (std::size_t i = 0; i < a.origin.size(); ++i)
      if (i != axis) {
        if (a.origin[i] != b.origin[i]) return a.origin[i] < b.origin[i] ? -1 : 1;
        if (a.extent[i] != b.extent[i]) return a.extent[i] < b.extent[i] ? -1 : 1;
      }
    return 0;
  };
  std::sort(cuboids.begin(), cuboids.end(), [&](const ElementCuboid& a, const ElementCuboid& b) {
    const int order = compare(a, b);
    return order != 0 ? order < 0 : a.origin[axis] < b.origin[axis];
  });
  std::vector<ElementCuboid> joined;
  for (ElementCuboid& cuboid : cuboids) {
    if (!joined.empty() && compare(joined.back(), cuboid) == 0) {
      ElementCuboid& last = joined.back();
      if (cuboid.origin[axis] == last.origin[axis] + static_cast<std::int64_t>(last.extent[axis])) {
        last.extent[axis] += cuboid.extent[axis];
        continue;
      }
    }
    joined.push_back(std::move(cuboid));
  }
  return joined;
}

}  // namespace

std::vector<ElementCuboid> cuboids_of(const View& view, Interval range,
                                      const std::function<bool(std::uint64_t)>& is_one,
                                      std::size_t most) {
  std::vector<ElementCuboid> cuboids;
  const auto join = [&] {
    for (std::size_t d = 1; d < view.rank(); ++d)
      cuboids = joined_along(view.dimension(d).axis, std::move(cuboids));
  };
  // Runs along the view's fastest dimension first. Of a block there may be far more of them than
  // cuboids; so they are joined whenever they have become many.
  const std::size_t fastest = view.dimension(0).axis;
  std::uint64_t next = ~std::uint64_t{0};  // the element that may go on with the last run
  for (std::uint64_t i = 0; i < range.length(); ++i) {
    if (!is_one(i)) continue;
    Coords at = view.coordinates_of(range.begin + i);
    if (next == i) {
      ElementCuboid& last = cuboids.back();
      Coords end = last.origin;
      end[fastest] += static_cast<std::int64_t>(last.extent[fastest]);
      if (at == end) {
        ++last.extent[fastest];
        next = i + 1;
        continue;
      }
    }
    if (cuboids.size() > 2 * most) {
      join();
      if (cuboids.size() > most) return cuboids;
    }
    cuboids.push_back({std::move(at), Shape(view.cube_rank(), 1)});
    next = i + 1;
  }
  join();
  return cuboids;
}

}  // namespace accrete
