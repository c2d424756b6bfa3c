// The headers of frames: as they came, as they were changed in place since, and what all of them
// have in common.
//
// A frame's cards are those of its image's header in `prefix`. Where changed ones do not fit there,
// so that the file would become longer, or where the file has no cards (NPY, raw) or is kept as it
// came, they lie beside it in `cards`, and views show those.

#include <algorithm>

#include "core/bytes.h"
#include "core/card_changes.h"
#include "core/cube_on_disk.h"
#include "core/fits_card.h"
#include "core/frame_order.h"
#include "core/own_cards.h"

namespace accrete {

namespace {

bool has_same_cards(const FrameRow& a, const FrameRow& b) {
  return a.prefix == b.prefix && a.cards == b.cards;
}

}  // namespace

Result<Headers> CubeOnDisk::frame_headers(const FrameRow& row) const {
  const FrameLayout& layout = row.layout;
  Headers headers;
  if (row.cards.length > 0) {
    ACCRETE_TRY(headers.image, heap_->read(row.cards));
  } else if (layout.header_offset == 0) {
    ACCRETE_TRY(headers.image, heap_->read(row.prefix));
  } else {
    // Before the image's header other HDUs may lie, of any size.
    headers.image.resize(layout.data_offset - layout.header_offset);
    ACCRETE_CHECK(read_text(row.prefix, layout.header_offset,
                            std::as_writable_bytes(std::span(headers.image))));
  }
  headers.primary.resize(layout.primary_bytes);
  ACCRETE_CHECK(read_text(row.prefix, 0, std::as_writable_bytes(std::span(headers.primary))));
  return headers;
}

std::vector<std::string> CubeOnDisk::frame_cards(const FrameRow& row) const {
  const auto headers = frame_headers(row);
  if (!headers.ok()) return {};
  if (row.cards.length > 0) return split_cards(headers->image);
  return format(row.layout.format).cards(headers->image);
}

// ---- Changed in place ----

// The row with other texts, at the place that its keywords ask for now.
Status CubeOnDisk::put_headers(Draft& draft, const FrameRow& row, const Headers& headers) {
  const Definition& definition = draft.base().definition;
  const std::string& order = definition.settings.order;
  if (!order.empty() && order != "name" && row.state == FrameState::live) {
    ACCRETE_TRY(const std::string key,
                sort_key(order, frame_name(row), headers, row.cards_format()));
    ACCRETE_CHECK(resort_in(draft, row, key));
  }
  draft.put(row);
  return {};
}

Result<FrameRow> CubeOnDisk::row_to_change(FrameId id) const {
  auto row = snapshot()->frames.find(id);
  if (row && row->state == FrameState::live) return *std::move(row);
  return fail(std::errc::no_such_file_or_directory, "there is no such frame in the cube");
}

Status CubeOnDisk::set_frame_prefix(FrameId id, const HeapRef& base, const TextChanges& changes) {
  return step_making_room([&] { return try_set_frame_prefix(id, base, changes); });
}

Status CubeOnDisk::try_set_frame_prefix(FrameId id, const HeapRef& base,
                                        const TextChanges& changes) {
  ACCRETE_CHECK(writable());
  // Other HDUs before the image may be of any size.
  constexpr std::uint64_t step = 1 << 20;
  ACCRETE_TRY(const PosixFile file, temporary_file());
  std::vector<std::byte> bytes;
  for (std::uint64_t done = 0; done < base.length; done += bytes.size()) {
    bytes.resize(std::min(step, base.length - done));
    ACCRETE_CHECK(read_text(base, done, bytes));
    changes.lay_over(done, bytes);
    ACCRETE_CHECK(file.write(done, bytes));
  }
  MutexLock lock(commit_lock_);
  ACCRETE_TRY(FrameRow row, row_to_change(id));
  if (row.original.length > 0 || row.prefix.length != base.length)
    return fail(std::errc::resource_unavailable_try_again, "the frame was replaced meanwhile");
  const FrameLayout& layout = row.layout;
  Headers headers;
  const auto take = [&](std::string& header, std::uint64_t begin,
                        std::uint64_t end) -> Result<CardChanges> {
    std::string before(end - begin, '\0');
    header = before;
    ACCRETE_CHECK(read_text(base, begin, std::as_writable_bytes(std::span(before))));
    ACCRETE_TRY(const std::size_t n, file.read(begin, std::as_writable_bytes(std::span(header))));
    if (n < header.size()) return fail(std::errc::io_error, "the new header is cut off");
    return changes_between(before, header);
  };
  if (layout.primary_bytes > 0) ACCRETE_CHECK(take(headers.primary, 0, layout.primary_bytes));
  ACCRETE_TRY(const CardChanges changed,
              take(headers.image, layout.header_offset, layout.data_offset));
  if (row.cards.length > 0) {
    ACCRETE_TRY(const std::string cards, heap_->read(row.cards));
    headers.image.clear();
    for (const std::string& card : with_changes(split_cards(cards), changed)) headers.image += card;
    if (headers.image.empty()) headers.image.resize(card_length, ' ');  // not the file's own
  }
  return change([&](Draft& draft) REQUIRES(commit_lock_) -> Status {
    draft.freed.texts.push_back(row.prefix);
    ACCRETE_TRY(row.prefix, heap_->append(file, 0, base.length));
    if (row.cards.length > 0 && !changed.empty()) {
      draft.freed.texts.push_back(row.cards);
      ACCRETE_TRY(row.cards, heap_->append(as_bytes(headers.image)));
    }
    return put_headers(draft, row, headers);
  });
}

Status CubeOnDisk::set_frame_cards(FrameId id, const std::vector<std::string>& cards) {
  return step_making_room([&] { return try_set_frame_cards(id, cards); });
}

Status CubeOnDisk::try_set_frame_cards(FrameId id, const std::vector<std::string>& cards) {
  ACCRETE_CHECK(writable());
  MutexLock lock(commit_lock_);
  ACCRETE_TRY(FrameRow row, row_to_change(id));
  const FrameLayout& layout = row.layout;
  ACCRETE_TRY(Headers headers, frame_headers(row));
  std::string prefix;
  if (layout.format == FormatId::fits && row.original.length == 0) {
    ACCRETE_TRY(prefix, heap_->read(row.prefix));
    const std::uint64_t length = layout.data_offset - layout.header_offset;
    headers.image =
        header_with(std::string_view(prefix).substr(layout.header_offset, length), cards);
    if (headers.image.empty())
      prefix.clear();
    else
      prefix.replace(layout.header_offset, length, headers.image);
  }
  if (prefix.empty()) {
    headers.image.clear();
    for (const std::string& card : cards) headers.image += card;
    if (headers.image.empty()) headers.image.resize(card_length, ' ');  // not the file's own
  }
  return change([&](Draft& draft) REQUIRES(commit_lock_) -> Status {
    const auto replace = [&](HeapRef& text, std::string_view by) -> Status {
      if (text.length > 0) draft.freed.texts.push_back(text);
      ACCRETE_TRY(text, heap_->append(as_bytes(by)));
      return {};
    };
    ACCRETE_CHECK(replace(row.cards, prefix.empty() ? headers.image : ""));
    if (!prefix.empty()) ACCRETE_CHECK(replace(row.prefix, prefix));
    return put_headers(draft, row, headers);
  });
}

// ---- What they have in common ----

std::shared_ptr<const CommonCards> CubeOnDisk::common_cards() {
  {
    MutexLock lock(publish_lock_);
    if (common_ != nullptr) return common_;
  }
  MutexLock lock(commit_lock_);
  const std::shared_ptr<const Snapshot> now = snapshot();
  // Live frames in order of place, from [begin, end) of all.
  const auto live_among = [&now](std::size_t begin, std::size_t end) {
    std::vector<FrameId> live;
    now->places.for_range(begin, end, [&](const Snapshot::Place& place) {
      if (!place.removed) live.push_back(place.id);
    });
    return live;
  };
  const std::size_t all = now->places.size();
  if (!fact_counts_) {
    fact_counts_.emplace();
    for (const FrameId id : live_among(0, all))
      if (const auto row = now->frames.find(id))
        fact_counts_->add(facts_of(frame_cards(*row), *row));
  }
  std::vector<FrameId> live;
  for (std::size_t at = 0; at < all && live.empty(); ++at) live = live_among(at, at + 1);
  if (live.empty()) return nullptr;
  const auto first = now->frames.find(live.front());
  if (!first) return nullptr;
  auto common = std::make_shared<const CommonCards>(
      accrete::common_cards(*fact_counts_, frame_cards(*first), *first));
  MutexLock publishing(publish_lock_);
  return common_ = std::move(common);
}

void CubeOnDisk::count_facts(const Snapshot& before, const FrameRow& row) {
  const auto old = before.frames.find(row.id);
  const bool was_live = old && old->state == FrameState::live;
  const bool is_live = row.state == FrameState::live;
  if (was_live == is_live && (!is_live || has_same_cards(*old, row))) return;
  {
    MutexLock lock(publish_lock_);
    common_.reset();
  }
  if (!fact_counts_) return;
  if (was_live) fact_counts_->remove(facts_of(frame_cards(*old), *old));
  if (is_live) fact_counts_->add(facts_of(frame_cards(row), row));
}

}  // namespace accrete
