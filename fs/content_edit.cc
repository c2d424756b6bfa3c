#include "fs/content_edit.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "core/bytes.h"

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

  Status apply(std::byte* now) override {
    const std::size_t size = size_of(at_rest_.type);
    std::vector<std::byte> before(count_ * width_);
    show(before.data(), now, count_);
    after_ = before;
    std::memcpy(after_.data() + skip_, bytes_.data(), bytes_.size());
    if (transfer_ == nullptr && content_.printer == nullptr) {
      recode(now, after_.data(), count_, content_.coding, at_rest_);
      return {};
    }
    // An element that shows as before stays as it is: the file may not show all of it.
    for (std::uint64_t i = 0; i < count_; ++i)
      if (std::memcmp(before.data() + i * width_, after_.data() + i * width_, width_) != 0)
        ACCRETE_CHECK(take(now + i * size, after_.data() + i * width_));
    return {};
  }

  bool leaves(std::uint64_t i, const std::byte* element) const override {
    std::array<std::byte, 64> shown;
    show(shown.data(), element, 1);
    return std::memcmp(shown.data(), after_.data() + i * width_, width_) == 0;
  }

 private:
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
  std::vector<std::byte> after_;  // the elements as the file is to show them
};

// What the file has in [offset, offset + bytes) besides elements must be what it is.
Status check_texts(const Cube& cube, const Content& content, std::uint64_t offset,
                   std::span<const std::byte> bytes) {
  std::uint64_t part = 0;
  const auto compare = [&](std::uint64_t length, const auto& is_same) -> Status {
    const std::uint64_t begin = std::exchange(part, part + length);
    const std::uint64_t first = std::max(offset, begin);
    const std::uint64_t last = std::min(offset + bytes.size(), begin + length);
    if (first >= last) return {};
    ACCRETE_TRY(const bool same,
                is_same(first - begin, bytes.subspan(first - offset, last - first)));
    if (same) return {};
    return fail(std::errc::operation_not_permitted,
                "only elements are written in place here, not what is around them");
  };
  const auto text = [&](const HeapRef& ref) {
    return [&](std::uint64_t at, std::span<const std::byte> now) -> Result<bool> {
      std::vector<std::byte> is(now.size());
      ACCRETE_CHECK(cube.read_text(ref, at, is));
      return std::memcmp(is.data(), now.data(), now.size()) == 0;
    };
  };
  const auto head = [&](std::uint64_t at, std::span<const std::byte> now) -> Result<bool> {
    return std::memcmp(content.head.data() + at, now.data(), now.size()) == 0;
  };
  const auto fill = [&](std::uint64_t, std::span<const std::byte> now) -> Result<bool> {
    const auto byte = static_cast<std::byte>(content.tail_fill);
    return std::all_of(now.begin(), now.end(), [byte](std::byte b) { return b == byte; });
  };
  ACCRETE_CHECK(compare(content.head.size(), head));
  ACCRETE_CHECK(compare(content.before.length, text(content.before)));
  part += content.elements * content.bytes_per_element;
  ACCRETE_CHECK(compare(content.tail_bytes, fill));
  return compare(content.after.length, text(content.after));
}

}  // namespace

Result<std::optional<Poked>> write_range(Cube& cube, const Shown& shown, std::uint64_t offset,
                                         std::span<const std::byte> bytes, PokeOrigin origin) {
  const Content& content = shown.content;
  const std::uint64_t total = content.total();
  if (offset > total || bytes.size() > total - offset)
    return fail(std::errc::file_too_large,
                "the file has " + std::to_string(total) + " bytes and stays so");
  if (content.shows == Shows::mask)
    return fail(std::errc::read_only_file_system, "a mask is computed and cannot be written");
  ACCRETE_CHECK(check_texts(cube, content, offset, bytes));
  const std::uint64_t start = content.elements_offset();
  const std::uint64_t first = std::max(offset, start);
  const std::uint64_t last = std::min(offset + bytes.size(), content.tail_offset());
  if (first >= last) return std::optional<Poked>();
  const std::uint64_t width = content.bytes_per_element;
  const Interval range{(first - start) / width, (last - start + width - 1) / width};
  const Definition& definition = shown.pinned->definition;
  std::optional<Transfer> transfer;
  if (content.transfer) transfer = content.transfer->exactly();
  FileEdit edit(content, definition.coding, transfer ? &*transfer : nullptr,
                bytes.subspan(first - offset, last - first),
                static_cast<std::size_t>((first - start) % width), range.length());
  ACCRETE_TRY(RecentValues::Ticket ticket,
              cube.poke(shown.pinned, *content.view, range, edit, origin));
  if (ticket == nullptr) return std::optional<Poked>();
  return std::optional(Poked{std::move(ticket), *content.view, range});
}

void answer_write(const std::shared_ptr<CubeState>& state, Reply reply, std::size_t bytes,
                  std::optional<Poked> poked, PokeOrigin origin) {
  if (!poked || origin == PokeOrigin::page) reply.written(bytes);
  if (!poked) return;
  Publisher& publisher = state->tree().publisher();
  if (origin == PokeOrigin::page) return publisher.announce(state, *std::move(poked), nullptr);
  const std::shared_ptr<Reply> later = state->tree().later(std::move(reply));
  publisher.announce(state, *std::move(poked), [later, bytes] { later->written(bytes); });
}

}  // namespace accrete
