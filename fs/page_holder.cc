#include "fs/page_holder.h"

#include <algorithm>
#include <utility>

#include "core/overlap.h"
#include "fs/tree.h"

namespace accrete {

namespace {

constexpr std::uint64_t page = 4096;
// Pieces of a page or more that are told one by one; else all from the first to the last.
constexpr std::size_t most_pieces = 64;

}  // namespace

PageHolder::PageHolder(CubeState& state, bool shows_growth)
    : state_(state), changes_(shows_growth ? state.changes() : state.content_changes()) {}

void PageHolder::watch(const std::shared_ptr<Watched>& node) {
  if (!any_.exchange(true)) state_.watch(node);
}

void PageHolder::unwatch(const Watched& node) {
  if (any_.exchange(false)) state_.unwatch(node);
}

bool PageHolder::add_opener(const std::shared_ptr<Watched>& node, bool may_keep) {
  MutexLock lock(mutex_);
  if (openers_++ == 0) {
    const std::optional<std::uint64_t> kept_at = std::exchange(kept_at_, std::nullopt);
    if (may_keep && kept_at) {
      // A change either is counted by now, or will find the node watched.
      watch(node);
      if (changes_.begun() == *kept_at) return true;
      unwatch(*node);
    }
    noted_ = {};
  }
  // Whoever has noted pages has dropped, or could keep, those from before.
  return may_keep && any_ && noted_.lasts;
}

void PageHolder::drop_opener(const Watched& node) {
  MutexLock lock(mutex_);
  if (--openers_ != 0) return;
  // As long as the node is watched: what is done by now has found it.
  if (any_ && noted_.lasts)
    kept_at_ = changes_.done();
  else
    noted_ = {};
  unwatch(node);
}

void PageHolder::note(const Content& content, bool lasts, const std::shared_ptr<Watched>& node) {
  MutexLock lock(mutex_);
  watch(node);
  if (!lasts) noted_.lasts = false;
  if (!content.view) return;
  // A view that is extended shows more by and by.
  if (noted_.view && noted_.view->element_count() >= content.elements) return;
  noted_.view = std::make_unique<const View>(*content.view);
  noted_.elements_offset = content.elements_offset();
  noted_.bytes_per_element = content.bytes_per_element;
}

void PageHolder::note_incoming(const std::shared_ptr<Watched>& node) {
  MutexLock lock(mutex_);
  watch(node);
  noted_.lasts = false;
  noted_.has_incoming = true;
}

std::vector<CacheNotice> PageHolder::overlapping(std::uint64_t node, const Poked& poked) const {
  std::vector<CacheNotice> notices;
  MutexLock lock(mutex_);
  if (noted_.has_incoming) notices.push_back({node, 0, 0});
  if (noted_.has_incoming || !noted_.view) return notices;
  std::vector<Interval> pages = overlap(*noted_.view, poked.view, poked.range, most_pieces);
  for (Interval& range : pages)
    range = {(noted_.elements_offset + range.begin * noted_.bytes_per_element) / page,
             (noted_.elements_offset + range.end * noted_.bytes_per_element + page - 1) / page};
  std::sort(pages.begin(), pages.end(),
            [](const Interval& a, const Interval& b) { return a.begin < b.begin; });
  Interval joined;
  const auto tell = [&] {
    if (!joined.empty())
      notices.push_back({node, static_cast<std::int64_t>(joined.begin * page),
                         static_cast<std::int64_t>(joined.length() * page)});
  };
  for (const Interval& range : pages) {
    if (!joined.empty() && range.begin <= joined.end) {
      joined.end = std::max(joined.end, range.end);
      continue;
    }
    tell();
    joined = range;
  }
  tell();
  return notices;
}

}  // namespace accrete
