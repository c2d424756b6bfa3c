#include "fs/page_holder.h"

#include <algorithm>

#include "core/overlap.h"

namespace accrete {

namespace {

constexpr std::uint64_t page = 4096;
// Pieces of a page or more that are told one by one; else all from the first to the last.
constexpr std::size_t most_pieces = 64;

}  // namespace

void PageHolder::add_opener() {
  MutexLock lock(mutex_);
  ++openers_;
}

bool PageHolder::drop_opener() {
  MutexLock lock(mutex_);
  if (--openers_ != 0) return false;
  view_.reset();
  return any_.exchange(false);
}

bool PageHolder::note(const Content& content) {
  MutexLock lock(mutex_);
  const bool is_first = !any_.exchange(true);
  if (!content.view) return is_first;
  // A view that is extended shows more by and by.
  if (view_ && view_->element_count() >= content.elements) return is_first;
  view_ = content.view;
  elements_offset_ = content.elements_offset();
  bytes_per_element_ = content.bytes_per_element;
  return is_first;
}

std::vector<CacheNotice> PageHolder::overlapping(std::uint64_t node, const Poked& poked) const {
  std::vector<CacheNotice> notices;
  MutexLock lock(mutex_);
  if (!view_) return notices;
  std::vector<Interval> pages = overlap(*view_, poked.view, poked.range, most_pieces);
  for (Interval& range : pages)
    range = {(elements_offset_ + range.begin * bytes_per_element_) / page,
             (elements_offset_ + range.end * bytes_per_element_ + page - 1) / page};
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
