#include "fs/content_edit.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/card_changes.h"
#include "core/fits_card.h"

namespace accrete {

namespace {

// Bytes of a file, from somewhere within its first element on, laid over the elements that it
// shows.
class FileEdit final : public ElementEdit {
 public:
  FileEdit(const Content& content, Coding at_rest, const Transfer* transfer,
           std::span<const std::byte> bytes, std::size_t skip, std::uint64_t count)
      : content_(content),
        at_rest_(at_rest),
        transfer_(transfer),
        bytes_(bytes),
        skip_(skip),
        count_(count),
        width_(content.bytes_per_element) {}

  Status apply(const std::byte* old, std::byte* now) override {
    if (!is_plain()) return apply_shown(old, now);
    const std::size_t size = size_of(at_rest_.type);
    const std::uint64_t first = skip_ == 0 ? 0 : 1;
    const std::uint64_t end = std::max(first, (skip_ + bytes_.size()) / width_);
    for (const std::uint64_t i : {std::uint64_t{0}, count_ - 1}) {
      if (i >= first && i < end) continue;
      const std::array<std::byte, 8> element = plain_element(old, i);
      recode(now + i * size, element.data(), 1, content_.coding, at_rest_);
    }
    if (first < end)
      recode(now + first * size, bytes_.data() + (first * width_ - skip_), end - first,
             content_.coding, at_rest_);
    old_ = old;
    return {};
  }

  bool leaves(std::uint64_t i, const std::byte* element) const override {
    std::array<std::byte, 64> shown;
    show(shown.data(), element, 1);
    if (is_plain()) return std::memcmp(shown.data(), plain_element(old_, i).data(), width_) == 0;
    return std::memcmp(shown.data(), after_.data() + i * width_, width_) == 0;
  }

 private:
  // The file has the elements themselves, by at most another coding.
  bool is_plain() const { return transfer_ == nullptr && content_.printer == nullptr; }

  // One of these as the file is to show it: what was written, over what was there where that has
  // only a part of it.
  std::array<std::byte, 8> plain_element(const std::byte* old, std::uint64_t i) const {
    std::array<std::byte, 8> element;
    show(element.data(), old + i * width_, 1);
    const std::uint64_t begin = std::max<std::uint64_t>(i * width_, skip_);
    const std::uint64_t end = std::min<std::uint64_t>((i + 1) * width_, skip_ + bytes_.size());
    if (begin < end)
      std::memcpy(element.data() + (begin - i * width_), bytes_.data() + (begin - skip_),
                  end - begin);
    return element;
  }

  Status apply_shown(const std::byte* old, std::byte* now) {
    const std::size_t size = size_of(at_rest_.type);
    std::vector<std::byte> before(count_ * width_);
    show(before.data(), old, count_);
    after_ = before;
    std::memcpy(after_.data() + skip_, bytes_.data(), bytes_.size());
    std::memcpy(now, old, count_ * size);
    // An element that shows as before stays as it is: the file may not show all of it.
    for (std::uint64_t i = 0; i < count_; ++i)
      if (std::memcmp(before.data() + i * width_, after_.data() + i * width_, width_) != 0)
        ACCRETE_CHECK(take(now + i * size, after_.data() + i * width_));
    return {};
  }

  void show(std::byte* target, const std::byte* elements, std::uint64_t count) const {
    if (transfer_ != nullptr) return transfer_->to_file(target, elements, count);
    if (content_.printer == nullptr)
      return recode(target, elements, count, at_rest_, content_.coding);
    const DType type = at_rest_.type;
    std::vector<std::byte> native_elements(count * size_of(type));
    recode(native_elements.data(), elements, count, at_rest_, native(type));
    content_.printer->print(native_elements.data(), count, type, reinterpret_cast<char*>(target));
  }

  Status take(std::byte* element, const std::byte* shown) const {
    if (transfer_ != nullptr) {
      if (transfer_->to_cube(element, shown, 1).count == 1) return {};
      return fail(std::errc::invalid_argument, "the value " + transfer_->value_text(shown) +
                                                   " is none of the cube's type " +
                                                   std::string(name_of(at_rest_.type)));
    }
    ACCRETE_TRY(const Element value,
                content_.printer->parse(as_text(std::span(shown, width_)), at_rest_.type));
    recode(element, value.bytes.data(), 1, native(at_rest_.type), at_rest_);
    return {};
  }

  const Content& content_;
  const Coding at_rest_;
  const Transfer* const transfer_;
  const std::span<const std::byte> bytes_;
  const std::size_t skip_;
  const std::uint64_t count_;
  const std::size_t width_;
  const std::byte* old_ = nullptr;  // plain: what apply() was given; outlives leaves()
  std::vector<std::byte> after_;    // others: the elements as the file is to show them
};

// The file's bytes of a range before its elements.
Result<std::string> text_of(const Cube& cube, const Content& content, Interval range) {
  std::string text =
      content.head.substr(std::min(range.begin, content.head.size()), range.length());
  text.resize(range.length());
  const std::span<std::byte> bytes = std::as_writable_bytes(std::span(text));
  if (content.head.empty()) ACCRETE_CHECK(cube.read_text(content.before, range.begin, bytes));
  content.changes.lay_over(range.begin, bytes);
  return text;
}

// Bytes of a header may change where its mandatory cards go on saying the same; `written` is what
// the file has from `begin` on then.
Status check_header(const Cube& cube, const Content& content, std::uint64_t begin,
                    std::span<const std::byte> written) {
  const std::uint64_t end = begin + written.size();
  const auto header =
      std::find_if(content.headers.begin(), content.headers.end(),
                   [&](const Interval& h) { return h.begin <= begin && end <= h.end; });
  if (header == content.headers.end())
    return fail(std::errc::operation_not_permitted,
                "only elements and the cards of an image's header are written in place here");
  const std::uint64_t cards = (end - header->begin + card_length - 1) / card_length;
  ACCRETE_TRY(const std::string before,
              text_of(cube, content, {header->begin, header->begin + cards * card_length}));
  std::string after = before;
  after.replace(begin - header->begin, written.size(), as_text(written));
  for (std::size_t at = 0; at < before.size(); at += card_length) {
    const std::string_view card = std::string_view(before).substr(at, card_length);
    if (!is_mandatory_card(card)) return {};
    if (!say_same(card, std::string_view(after).substr(at, card_length)))
      return fail(std::errc::operation_not_permitted,
                  std::string(keyword_of(card)) +
                      " says how the file is built, and is not written in place");
  }
  return {};
}

// What of these bytes is not what the file has there, besides elements.
Result<TextChanges> compare_texts(const Cube& cube, const Content& content, std::uint64_t offset,
                                  std::span<const std::byte> bytes) {
  TextChanges changes;
  const auto compare = [&](Interval part, bool is_before) -> Status {
    const Interval range{std::max(offset, part.begin), std::min(offset + bytes.size(), part.end)};
    if (range.begin >= range.end) return {};
    const auto written = bytes.subspan(range.begin - offset, range.length());
    std::string now(range.length(), content.tail_fill);
    const std::uint64_t tail_end = content.tail_offset() + content.tail_bytes;
    if (is_before) {
      ACCRETE_TRY(now, text_of(cube, content, range));
    } else if (range.end > tail_end) {
      const std::uint64_t first = std::max(range.begin, tail_end);
      ACCRETE_CHECK(
          cube.read_text(content.after, first - tail_end,
                         std::as_writable_bytes(std::span(now)).subspan(first - range.begin)));
    }
    const auto differs = [&](std::size_t i) { return as_bytes(now)[i] != written[i]; };
    std::size_t first = 0, last = written.size();
    while (first < last && !differs(first)) ++first;
    while (first < last && !differs(last - 1)) --last;
    if (first == last) return {};
    ACCRETE_CHECK(
        check_header(cube, content, range.begin + first, written.subspan(first, last - first)));
    changes.put(range.begin + first, written.subspan(first, last - first));
    return {};
  };
  ACCRETE_CHECK(compare({0, content.elements_offset()}, true));
  ACCRETE_CHECK(compare({content.tail_offset(), content.total()}, false));
  return changes;
}

}  // namespace

Status write_range(Cube& cube, const Shown& shown, std::uint64_t offset,
                   std::span<const std::byte> bytes, PokeOrigin origin, Written& written) {
  const Content& content = shown.content;
  const std::uint64_t total = content.total();
  if (offset > total || bytes.size() > total - offset)
    return fail(std::errc::file_too_large,
                "the file has " + std::to_string(total) + " bytes and stays so");
  // A page may have texts that are old; what differs in it is no edit.
  if (!origin.is_page()) {
    ACCRETE_TRY(written.texts, compare_texts(cube, content, offset, bytes));
  }
  const std::uint64_t start = content.elements_offset();
  const std::uint64_t first = std::max(offset, start);
  const std::uint64_t last = std::min(offset + bytes.size(), content.tail_offset());
  if (first >= last) return {};
  const std::uint64_t width = content.bytes_per_element;
  const Interval range{(first - start) / width, (last - start + width - 1) / width};
  const Definition& definition = shown.pinned->definition;
  std::optional<Transfer> transfer;
  if (content.transfer) transfer = content.transfer->exactly();
  FileEdit edit(content, definition.coding, transfer ? &*transfer : nullptr,
                bytes.subspan(first - offset, last - first),
                static_cast<std::size_t>((first - start) % width), range.length());
  RecentValues::Ticket former;
  Status status = cube.poke(shown.pinned, *content.view, range, edit, origin, former);
  if (former != nullptr) written.poked.push_back({std::move(former), *content.view, range});
  return status;
}

void answer_write(const std::shared_ptr<CubeState>& state, Reply reply, const Status& status,
                  std::size_t bytes, std::vector<Poked> poked, PokeOrigin origin) {
  const auto answer = [status, bytes](Reply& to) {
    if (status.ok())
      to.written(bytes);
    else
      to.error(status.error());
  };
  if (poked.empty()) return answer(reply);
  // Before the answer: an fsync() that follows it is to find them queued.
  Publisher& publisher = state->tree().publisher();
  for (Poked& each : poked) publisher.announce(state, std::move(each), nullptr);
  if (origin.is_page()) return answer(reply);
  const std::shared_ptr<Reply> later = state->tree().later(std::move(reply));
  publisher.after_pages([later, answer] { answer(*later); });
}

}  // namespace accrete
