#include "core/ingest_file.h"

#include <algorithm>

#include "core/bytes.h"
#include "core/definition.h"
#include "core/frame_name.h"
#include "core/frame_order.h"
#include "core/linearize.h"

namespace accrete {

namespace {

constexpr std::size_t copy_step = 1 << 20;
constexpr std::uint64_t largest_file = std::uint64_t{1} << 62;
constexpr std::size_t largest_tail = 4 << 20;  // bytes behind the elements that are kept in memory

void overwrite(std::string& text, std::uint64_t offset, std::span<const std::byte> bytes) {
  if (text.size() < offset + bytes.size()) text.resize(offset + bytes.size(), '\0');
  std::copy_n(reinterpret_cast<const char*>(bytes.data()), bytes.size(),
              text.begin() + static_cast<std::ptrdiff_t>(offset));
}

}  // namespace

IngestFile::IngestFile(std::shared_ptr<CubeOnDisk> cube, IngestRequest request)
    : cube_(std::move(cube)), request_(std::move(request)) {
  cube_->ingest_begins();
}

IngestFile::~IngestFile() {
  MutexLock lock(lock_);
  end();
}

// ---- Bytes in ----

Status IngestFile::write(std::uint64_t offset, std::span<const std::byte> bytes) {
  MutexLock lock(lock_);
  return write_locked(offset, bytes);
}

Status IngestFile::append(std::span<const std::byte> bytes) {
  MutexLock lock(lock_);
  return write_locked(size_, bytes);
}

void IngestFile::tell() {
  told_size_ = size_;
  told_committed_ = committed_.value_or(0);
  told_dirty_ = dirty_ && !failed_;
  told_staged_ = state_ == State::staged;
}

Status IngestFile::write_locked(std::uint64_t offset, std::span<const std::byte> bytes) {
  if (refusal_) return *refusal_;
  if (bytes.empty()) return {};
  if (offset > largest_file - bytes.size())
    return fail(std::errc::file_too_large, "the file would become too large");
  dirty_ = true;
  failed_ = false;
  noted_ = false;
  digest_in_order(offset, bytes);
  Status status;
  switch (state_) {
    case State::probing:
      status = write_probing(offset, bytes);
      break;
    case State::direct:
      status = write_direct(offset, bytes);
      break;
    case State::staged:
      status = write_staged(offset, bytes);
      break;
    case State::refused:
      break;
  }
  if (!status.ok()) {
    refuse(status.error());
    return status;
  }
  size_ = std::max(size_, offset + bytes.size());
  tell();
  return {};
}

Status IngestFile::write_probing(std::uint64_t offset, std::span<const std::byte> bytes) {
  if (offset > head_.size()) {
    ACCRETE_CHECK(stage());
    return write_staged(offset, bytes);
  }
  if (offset < head_.size()) next_look_ = 0;
  // Mostly the first bytes tell what it is: they are looked at where they are.
  const bool is_begin = head_.empty();
  if (!is_begin) keep_head(offset, bytes);
  const std::span<const std::byte> all = is_begin ? bytes : as_bytes(head_);
  if (!is_begin && all.size() < next_look_) return {};
  next_look_ = all.size() + all.size() / 8;
  ACCRETE_TRY(const Format::Look found, look(all, false, false));
  if (found.kind == Format::Look::Kind::layout) {
    if (is_begin) keep_head(0, bytes.first(found.layout.data_offset));
    ACCRETE_TRY(const bool is_direct, begin_direct(found.layout));
    if (is_direct) {
      const std::string kept = std::exchange(head_, {});
      return take_begin(is_begin ? bytes : as_bytes(kept));
    }
  }
  if (is_begin) keep_head(0, bytes);
  const bool is_known =
      found.kind == Format::Look::Kind::layout || found.kind == Format::Look::Kind::packed;
  return is_known || head_.size() > max_header ? stage() : Status();
}

void IngestFile::keep_head(std::uint64_t offset, std::span<const std::byte> bytes) {
  overwrite(head_, offset, bytes);
  size_ = head_.size();
}

Status IngestFile::write_direct(std::uint64_t offset, std::span<const std::byte> bytes) {
  const std::uint64_t data_begin = reserved_->layout.data_offset;
  const std::uint64_t data_end = data_begin + reserved_->layout.data_bytes;
  const std::uint64_t end = offset + bytes.size();
  // The committed frame's elements stay as they are until the new ones are committed.
  const bool rewrites = owns_frame_ && offset < data_end && end > data_begin;
  const bool is_out_of_turn =
      offset > size_ ? !holes_are_zeros()
                     : offset < size_ && end > data_begin && reserved_->writer->converts();
  const bool has_long_tail = end > data_end && end - data_end > largest_tail;
  if (rewrites || is_out_of_turn || has_long_tail) {
    ACCRETE_CHECK(stage());
    return write_staged(offset, bytes);
  }
  if (offset < data_begin) {
    const auto part = bytes.first(std::min<std::uint64_t>(bytes.size(), data_begin - offset));
    overwrite(head_, offset, part);
  }
  const std::uint64_t first = std::max(offset, data_begin);
  const std::uint64_t last = std::min(end, data_end);
  if (first < last) {
    const auto elements = bytes.subspan(first - offset, last - first);
    if (data_sum_ && data_sum_->bytes() == first - data_begin)
      data_sum_->add(elements);
    else
      data_sum_.reset();
    ACCRETE_CHECK(cube_->step_making_room(
        [&]() REQUIRES(lock_) { return reserved_->writer->write(first - data_begin, elements); }));
    if (!reserved_->writer->invertible()) {
      ACCRETE_CHECK(stage());
      return write_staged(offset, bytes);
    }
  }
  if (end > data_end) {
    const std::uint64_t from = std::max(offset, data_end);
    return write_tail(from, bytes.subspan(from - offset));
  }
  return {};
}

// Fresh layers read as zeros at rest, which is another number where the sign bit is inverted.
bool IngestFile::holes_are_zeros() const {
  return !reserved_->writer->converts() &&
         reserved_->layout.coding.sign_flipped == reserved_->definition.coding.sign_flipped;
}

Status IngestFile::write_staged(std::uint64_t offset, std::span<const std::byte> bytes) {
  return cube_->step_making_room([&]() REQUIRES(lock_) { return staging_.write(offset, bytes); });
}

Status IngestFile::write_tail(std::uint64_t offset, std::span<const std::byte> bytes) {
  const std::uint64_t data_end = reserved_->layout.data_offset + reserved_->layout.data_bytes;
  if (offset + bytes.size() - data_end > largest_tail) {
    ACCRETE_CHECK(stage());
    return write_staged(offset, bytes);
  }
  overwrite(tail_, offset - data_end, bytes);
  return {};
}

void IngestFile::digest_in_order(std::uint64_t offset, std::span<const std::byte> bytes) {
  digest_in_order_ = digest_in_order_ && offset == digested_;
  if (!digest_in_order_) return;
  digest_.add(bytes);
  digested_ += bytes.size();
}

Status IngestFile::truncate(std::uint64_t size) {
  MutexLock lock(lock_);
  if (refusal_) return *refusal_;
  if (size == size_) return {};
  if (size > largest_file)
    return fail(std::errc::file_too_large, "the file would become too large");
  dirty_ = true;
  failed_ = false;
  noted_ = false;
  if (Status status = truncate_locked(size); !status.ok()) {
    refuse(status.error());
    return status;
  }
  return {};
}

Status IngestFile::truncate_locked(std::uint64_t size) {
  if (size < digested_) digest_in_order_ = false;
  if (size < size_) data_sum_.reset();
  if (state_ == State::probing && size < size_) {
    head_.resize(size);
  } else if (state_ == State::direct && size > size_ && holes_are_zeros() &&
             size <= reserved_->layout.data_offset + reserved_->layout.data_bytes + largest_tail) {
    // What lies between reads as zeros: layers are fresh, the tail is filled up when it is stored.
  } else {
    if (state_ != State::staged) ACCRETE_CHECK(stage());
    ACCRETE_CHECK(staging_.truncate(size));
  }
  size_ = size;
  tell();
  return {};
}

// ---- Bytes back ----

Result<std::size_t> IngestFile::read(std::uint64_t offset, std::span<std::byte> target) {
  MutexLock lock(lock_);
  if (refusal_) return *refusal_;
  if (offset >= size_) return std::size_t{0};
  const auto part = target.first(std::min<std::uint64_t>(target.size(), size_ - offset));
  if (state_ == State::staged) {
    ACCRETE_TRY(const std::size_t n, staging_.read(offset, part));
    std::fill(part.begin() + static_cast<std::ptrdiff_t>(n), part.end(), std::byte{0});
  } else {
    ACCRETE_CHECK(read_locked(offset, part));
  }
  return part.size();
}

// REQUIRES: probing or direct, and the range lies within size_.
Status IngestFile::read_locked(std::uint64_t offset, std::span<std::byte> target) {
  std::fill(target.begin(), target.end(), std::byte{0});
  const auto copy = [&](std::string_view from, std::uint64_t base) {
    const std::uint64_t first = std::max(offset, base);
    const std::uint64_t last = std::min(offset + target.size(), base + from.size());
    if (first < last)
      std::copy_n(as_bytes(from).begin() + static_cast<std::ptrdiff_t>(first - base), last - first,
                  target.begin() + static_cast<std::ptrdiff_t>(first - offset));
  };
  copy(head_, 0);
  if (state_ != State::direct) return {};
  const std::uint64_t data_begin = reserved_->layout.data_offset;
  const std::uint64_t data_end = data_begin + reserved_->layout.data_bytes;
  copy(tail_, data_end);
  const std::uint64_t first = std::max(offset, data_begin);
  const std::uint64_t last = std::min(offset + target.size(), data_end);
  if (first >= last) return {};
  ACCRETE_CHECK(
      cube_->step_making_room([&]() REQUIRES(lock_) { return reserved_->writer->flush(); }));
  return reserved_->writer->read(first - data_begin, target.subspan(first - offset, last - first));
}

// ---- What it is, and where it goes ----

Result<Format::Look> IngestFile::look(std::span<const std::byte> head, bool at_end, bool is_image) {
  using Kind = Format::Look::Kind;
  const std::shared_ptr<const Snapshot> now = cube_->snapshot();
  const ImageChoice choice = is_image ? ImageChoice{} : image_choice(now->definition.settings);
  if (!now->definition.defined || now->newest == 0) return look_at(head, at_end, choice);
  ACCRETE_TRY(Format::Look found, try_formats(head, at_end, choice));
  if (found.kind != Kind::not_mine) return found;
  // Exactly one frame like the last.
  const FrameRow last = *now->frames.find(now->newest);
  FrameLayout& layout = found.layout;
  layout.format = FormatId::raw;
  layout.coding = native(now->definition.coding.type);
  layout.shape = last.extent;
  ACCRETE_TRY(const std::uint64_t elements,
              checked_product({layout.shape.begin(), layout.shape.end()}));
  layout.data_bytes = elements * size_of(layout.coding.type);
  layout.least_bytes = layout.full_bytes = layout.data_bytes;
  found.kind = Kind::layout;
  return found;
}

Result<bool> IngestFile::reserve(const FrameLayout& layout, bool insist) {
  ACCRETE_CHECK(cube_->writable());
  ACCRETE_CHECK(check_frame_size(layout));
  const std::shared_ptr<const Snapshot> now = cube_->snapshot();
  Reservation r;
  r.layout = layout;
  r.defines = !now->definition.defined;
  r.definition = now->definition;
  Snapshot base = *now;
  if (r.defines) {
    ACCRETE_TRY(r.definition, define_by(now->definition.settings, layout));
    base.definition = r.definition;
    base.axes = PerAxis<Axis>(r.definition.rank);
  }
  ACCRETE_TRY(const Shape extent, fit(r.definition, layout));
  const std::size_t axis = axis_to_grow(base);
  if (axis >= r.definition.rank)
    return fail(std::errc::invalid_argument, "the cube has no such axis");
  ACCRETE_CHECK(find_namesake(nullptr));
  ACCRETE_CHECK(check_ragged(r.definition, base.shape(), extent, axis));
  ACCRETE_CHECK(sort_key_in(base, layout));

  bool widens = false;
  for (std::size_t a = 0; a < extent.size(); ++a)
    widens = widens || (a != axis && extent[a] > base.axes[a].extent());
  if (widens && !insist && cube_->growth().widening()) return false;
  const std::size_t size = size_of(r.definition.coding.type);
  ACCRETE_CHECK(check_cube_size(base.axes, axis, extent, size));

  ACCRETE_TRY(r.slab, cube_->growth().reserve(base, axis, request_.side, extent, size));
  FrameRow row;
  row.layout = layout;
  row.extent = extent;
  auto view = frame_view(row, r.slab.runs);
  if (!view.ok()) {
    cube_->growth().give_back(r.slab);
    return std::move(view).error();
  }
  const Transfer transfer(layout, r.definition.coding, r.definition.settings.rounding,
                          r.definition.pad);
  r.writer.emplace(cube_->bricks(), r.slab.boxes, std::move(view).value(), transfer,
                   r.definition.coding);
  reserved_ = std::move(r);
  return true;
}

Result<bool> IngestFile::reserve_making_room(const FrameLayout& layout, bool insist) {
  for (bool again = false;; again = true) {
    const std::uint64_t since = cube_->room_made();
    Result<bool> has_layers = [&]() REQUIRES(lock_) {
      MutexLock lock(cube_->commit_lock());
      return reserve(layout, insist);
    }();
    if (has_layers.ok() || again || !says_full(has_layers.error()) ||
        !cube_->make_room(has_layers.error(), since))
      return has_layers;
  }
}

std::size_t IngestFile::axis_to_grow(const Snapshot& now) const {
  if (const auto namesake = find_namesake(nullptr); namesake.ok() && namesake->replaced)
    return namesake->replaced->grow_axis;
  return request_.axis.value_or(now.grow_axis());
}

Result<std::string> IngestFile::sort_key_in(const Snapshot& now, const FrameLayout& layout) {
  const std::string& order = now.definition.settings.order;
  if (order.empty() || axis_to_grow(now) != now.grow_axis()) return std::string();
  if (request_.side != Side::append && !owns_frame_)
    return fail(
        std::errc::invalid_argument,
        "the cube is sorted by " + order + " (meta/order): append is the only door to that axis");
  ACCRETE_TRY(const Headers texts, headers(layout));
  return sort_key(order, request_.name, texts, layout.format);
}

Result<std::string> IngestFile::text_at(std::uint64_t offset, std::uint64_t length) {
  std::string text(length, '\0');
  if (state_ != State::staged) {
    ACCRETE_CHECK(read_locked(offset, std::as_writable_bytes(std::span(text))));
    return text;
  }
  ACCRETE_TRY(const std::size_t n, source().read(offset, std::as_writable_bytes(std::span(text))));
  if (n != text.size()) return fail(std::errc::io_error, "the staging file ended early");
  return text;
}

Result<Headers> IngestFile::headers(const FrameLayout& layout) {
  Headers texts;
  ACCRETE_TRY(texts.image,
              text_at(layout.header_offset, layout.data_offset - layout.header_offset));
  ACCRETE_TRY(texts.primary, text_at(0, layout.primary_bytes));
  return texts;
}

Status IngestFile::check_frame_size(const FrameLayout& layout) const {
  if (layout.data_bytes <= cube_->limits().max_frame) return {};
  return fail(std::errc::file_too_large, "the frame's " + std::to_string(layout.data_bytes) +
                                             " bytes are more than max_frame");
}

Status IngestFile::check_cube_size(const PerAxis<Axis>& axes, std::size_t axis, const Shape& extent,
                                   std::size_t element_size) const {
  Shape grown;
  for (std::size_t a = 0; a < extent.size(); ++a) {
    const std::uint64_t old = axes[a].extent();
    grown.push_back(a == axis ? old + extent[a] : std::max(old, extent[a]));
  }
  const auto elements = checked_product({grown.begin(), grown.end()});
  if (elements.ok() && *elements <= cube_->limits().max_cube / element_size) return {};
  return fail(std::errc::file_too_large,
              "the cube would become " + to_string(grown) + ", which is more than max_cube");
}

// The staging file as a cube of its own, whose axes are the file's in reverse.
Status IngestFile::pump_transposed() {
  Reservation& r = *reserved_;
  const FrameLayout& layout = r.layout;
  const std::size_t size = size_of(layout.coding.type);
  const std::size_t rank = layout.shape.size();
  Box whole;
  PerAxis<Axis> axes;
  PerAxis<ViewAxis> reversed;
  whole.extent = whole.brick = layout.shape;
  whole.origin = Coords(rank);
  whole.layer_axis = rank - 1;
  whole.slot_layers = layout.shape[rank - 1];
  whole.written = 1;
  whole.layer_pitch = layout.data_bytes / layout.shape[rank - 1];
  for (std::size_t d = 0; d < rank; ++d) {
    const Run run{0, layout.shape[d]};
    ACCRETE_TRY(Axis axis, Axis::from_runs({&run, 1}));
    axes.push_back(std::move(axis));
    reversed.push_back({rank - 1 - d, {0, layout.shape[rank - 1 - d]}});
  }
  ACCRETE_TRY(const View source_view, View::make(axes, reversed, Shape(rank)));
  ACCRETE_TRY(const BoxIndex boxes, BoxIndex().put(whole));
  ACCRETE_TRY(const auto mapping, map_shared(source(), source_size()));

  ACCRETE_TRY(const View natural, r.writer->view_in_natural_order());
  const std::uint64_t count = natural.element_count();
  const std::uint64_t step = copy_step / size;
  std::vector<std::byte> piece(std::min(count, step) * size);
  for (std::uint64_t at = 0; at < count; at += step) {
    const Interval range{at, std::min(count, at + step)};
    if (!gather(source_view, boxes, mapping.get() + layout.data_offset, layout.coding, range,
                piece.data(), layout.coding, Element{}))
      return fail(std::errc::io_error, "the staging file cannot be read");
    ACCRETE_CHECK(
        r.writer->write_natural(natural, range, std::span(piece).first(range.length() * size)));
  }
  return {};
}

void IngestFile::give_back_slab() {
  if (reserved_) {
    reserved_->writer.reset();  // writes nothing to them any more
    cube_->growth().give_back(reserved_->slab);
  }
  reserved_.reset();
  cube_->undefine_if_empty();
}

Result<bool> IngestFile::begin_direct(const FrameLayout& layout) {
  ACCRETE_CHECK(check_frame_size(layout));
  if (layout.fortran_order) return false;
  ACCRETE_TRY(const bool has_layers, reserve_making_room(layout, false));
  if (has_layers) state_ = State::direct;
  return has_layers;
}

// All that came while probing.
Status IngestFile::take_begin(std::span<const std::byte> all) {
  const FrameLayout& layout = reserved_->layout;
  const auto head = all.first(layout.data_offset);
  head_ = as_text(head);
  data_sum_.reset();
  if (format(layout.format).says_sums(std::string_view(head_).substr(layout.header_offset)))
    data_sum_.emplace();
  size_ = head.size();
  if (all.size() == head.size()) return {};
  ACCRETE_CHECK(write_direct(size_, all.subspan(head.size())));
  size_ = all.size();
  return {};
}

Status IngestFile::stage() {
  if (state_ == State::staged) return {};
  if (!staging_.is_open()) {
    ACCRETE_TRY(staging_, PosixFile::unnamed_in(cube_->directory()));
  }
  std::vector<std::byte> piece(std::min<std::uint64_t>(copy_step, size_));
  for (std::uint64_t done = 0; done < size_; done += copy_step) {
    const auto part = std::span(piece).first(std::min<std::uint64_t>(copy_step, size_ - done));
    ACCRETE_CHECK(read_locked(done, part));
    ACCRETE_CHECK(write_staged(done, part));
  }
  ACCRETE_CHECK(staging_.truncate(size_));
  if (reserved_ && !owns_frame_) {
    MutexLock lock(cube_->commit_lock());
    give_back_slab();
  }
  reserved_.reset();
  head_.clear();
  tail_.clear();
  state_ = State::staged;
  return {};
}

Status IngestFile::pump() {
  Reservation& r = *reserved_;
  const FrameLayout& layout = r.layout;
  r.writer->begin_anew();
  if (layout.fortran_order) return pump_transposed();
  std::vector<std::byte> piece(std::min<std::uint64_t>(copy_step, layout.data_bytes));
  for (std::uint64_t done = 0; done < layout.data_bytes; done += copy_step) {
    const auto part =
        std::span(piece).first(std::min<std::uint64_t>(copy_step, layout.data_bytes - done));
    ACCRETE_TRY(const std::size_t n, source().read(layout.data_offset + done, part));
    if (n != part.size()) return fail(std::errc::io_error, "the staging file ended early");
    ACCRETE_CHECK(r.writer->write(done, part));
  }
  return r.writer->finish();
}

// ---- The rest ----

std::uint64_t IngestFile::size() const {
  return told_size_;
}

void IngestFile::set_mtime(std::int64_t ns) {
  MutexLock lock(lock_);
  mtime_ns_ = ns;
}

void IngestFile::set_mode(std::uint32_t mode, std::uint32_t uid, std::uint32_t gid) {
  MutexLock lock(lock_);
  request_.mode = mode;
  request_.uid = uid;
  request_.gid = gid;
}

Status IngestFile::set_name(std::string name, bool replaces) {
  ACCRETE_CHECK(check_frame_name(name, cube_->snapshot()->definition.letters));
  MutexLock lock(lock_);
  request_.name = std::move(name);
  replaces_ = replaces;
  return {};
}

bool IngestFile::takes_long() const {
  return told_staged_;
}

bool IngestFile::dirty() const {
  return told_dirty_;
}

bool IngestFile::empty() const {
  return told_size_ == 0;
}

std::optional<FrameId> IngestFile::committed() const {
  const FrameId id = told_committed_;
  return id == 0 ? std::nullopt : std::optional(id);
}

void IngestFile::note(const Error& error) {
  if (std::exchange(noted_, true)) return;
  cube_->record({"refuse", request_.name, std::nullopt, error.number(), error.sentence});
}

void IngestFile::refuse(const Error& error) {
  refusal_ = error;
  note(error);
  end();
}

void IngestFile::note_refusal(const Error& error) {
  MutexLock lock(lock_);
  note(error);
}

void IngestFile::abandon(const std::string& why) {
  MutexLock lock(lock_);
  const Error error = fail(std::errc::invalid_argument, why.empty() ? "abandoned" : why);
  if (!refusal_ && !why.empty()) note(error);
  if (!refusal_) refusal_ = error;
  end();
}

void IngestFile::end() {
  if (ended_) return;
  ended_ = true;
  // The layers of a frame that was committed from here are the cube's.
  if (reserved_ && !owns_frame_) {
    MutexLock lock(cube_->commit_lock());
    give_back_slab();
  }
  reserved_.reset();
  staging_ = PosixFile();
  unpacked_ = PosixFile();
  state_ = State::refused;
  head_.clear();
  head_.shrink_to_fit();
  tail_.clear();
  cube_->ingest_ends();
}

Result<std::shared_ptr<Ingest>> CubeOnDisk::begin_ingest(IngestRequest request) {
  MutexLock lock(commit_lock_);  // so that retire() sees it
  ACCRETE_CHECK(writable());
  ACCRETE_CHECK(check_frame_name(request.name, snapshot()->definition.letters));
  return std::shared_ptr<Ingest>(
      std::make_shared<IngestFile>(shared_from_this(), std::move(request)));
}

}  // namespace accrete
