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
  has_incoming_ = false;
  return any_.exchange(false);
}

void PageHolder::note(const Content& content, const std::function<void()>& watch) {
  MutexLock lock(mutex_);
  if (!any_.exchange(true)) watch();
  if (!content.view) return;
  // A view that is extended shows more by and by.
  if (view_ && view_->element_count() >= content.elements) return;
  view_ = std::make_unique<const View>(*content.view);
  elements_offset_ = content.elements_offset();
  bytes_per_element_ = content.bytes_per_element;
}

void PageHolder::note_incoming(const std::function<void()>& watch) {
  MutexLock lock(mutex_);
  if (!any_.exchange(true)) watch();
  has_incoming_ = true;
}

std::vector<CacheNotice> PageHolder::overlapping(std::uint64_t node, const Poked& poked) const {
  std::vector<CacheNotice> notices;
  MutexLock lock(mutex_);
  if (has_incoming_) notices.push_back({node, 0, 0});
  if (has_incoming_ || !view_) return notices;
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
