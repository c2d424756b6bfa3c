#include "fs/view_node.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/view_header.h"
#include "fs/view_file.h"

namespace accrete {

namespace {

constexpr std::uint64_t to_the_end = ~std::uint64_t{0};
constexpr std::uint64_t page = 4096;
constexpr std::size_t card_room = 128;  // a card on the heap

DType type_of(const Definition& definition, Shows shows) {
  return shows == Shows::mask ? DType::u8 : definition.coding.type;
}

std::string letters_of(const View& view, const Definition& definition) {
  std::string letters;
  for (std::size_t d = 0; d < view.rank(); ++d)
    letters += definition.letters[view.dimension(d).axis];
  return letters;
}

Error not_a_mask() {
  return fail(std::errc::read_only_file_system, "a mask is computed and cannot be written");
}

Error stays_so(std::uint64_t size) {
  return fail(std::errc::operation_not_permitted,
              "a view has " + std::to_string(size) + " bytes and stays so");
}

}  // namespace

Result<ViewMeaning> ViewMeaning::of(const Snapshot& snapshot, Shows shows,
                                    const PerAxis<std::size_t>& spanned,
                                    const std::vector<AxisTerm>& terms, const Format& file_format) {
  ACCRETE_TRY(View view, resolve_view(snapshot.axes, spanned, terms));
  if (!file_format.can_show(type_of(snapshot.definition, shows), view.rank()))
    return fail(std::errc::no_such_file_or_directory,
                "the format cannot show this type or number of axes");
  bool reaches_end = true;
  for (const AxisTerm& term : terms)
    if (term.is_range && term.axis == spanned.back() && term.end) reaches_end = false;
  return ViewMeaning{std::move(view), shows, &file_format, reaches_end,
                     reaches_end && file_format.can_extend()};
}

Coords fixed_coordinates(const View& view) {
  Coords fixed(view.cube_rank());
  for (std::size_t axis = 0; axis < view.cube_rank(); ++axis)
    if (view.dimension_of(axis) == view.rank()) fixed[axis] = view.fixed_coordinate(axis);
  return fixed;
}

namespace {

// All but what the end of the slowest axis, when `is_open`, and the cube's header add.
Identity identity_to_the_end(std::uint64_t cube_uid, const ViewMeaning& meaning,
                             const Coords& fixed, bool is_open) {
  const View& view = meaning.view;
  Identity identity(NodeKind::view);
  identity.add(cube_uid).add(static_cast<std::uint64_t>(meaning.shows));
  identity.add(static_cast<std::uint64_t>(meaning.file_format->id()));
  identity.add(std::uint64_t{view.rank()});
  for (std::size_t d = 0; d < view.rank(); ++d) {
    const ViewAxis& dimension = view.dimension(d);
    identity.add(std::uint64_t{dimension.axis}).add(view.axis(dimension.axis).epoch());
    identity.add(dimension.range.begin);
    identity.add(is_open && d + 1 == view.rank() ? to_the_end : dimension.range.end);
  }
  for (std::size_t axis = 0; axis < view.cube_rank(); ++axis)
    if (view.dimension_of(axis) == view.rank())
      identity.add(static_cast<std::uint64_t>(fixed[axis]));
  return identity;
}

Identity view_identity(std::uint64_t cube_uid, const ViewMeaning& meaning,
                       std::uint64_t cards_version) {
  Identity identity =
      identity_to_the_end(cube_uid, meaning, fixed_coordinates(meaning.view), meaning.extends);
  return identity.add(cards_version);
}

// When what it shows was taken.
std::int64_t time_of(const Snapshot& snapshot, const std::optional<FrameRow>& frame) {
  if (frame) return frame->arrival_ns;
  const std::optional<FrameRow> newest = snapshot.frames.find(snapshot.newest);
  return newest ? newest->arrival_ns : 0;
}

}  // namespace

bool has_cards(const ViewMeaning& meaning) {
  return meaning.shows == Shows::elements && meaning.file_format->id() == FormatId::fits;
}

std::uint64_t view_ino(std::uint64_t cube_uid, const ViewMeaning& meaning, const Coords& fixed) {
  return identity_to_the_end(cube_uid, meaning, fixed, meaning.reaches_end).ino();
}

std::shared_ptr<ViewNode> ViewNode::make(const std::shared_ptr<CubeState>& state,
                                         const Snapshot& snapshot, const ViewMeaning& meaning) {
  const auto version = [&] {
    return has_cards(meaning) ? view_cards_version(state->cube(), snapshot, meaning.view) : 0;
  };
  const std::optional<FrameRow> frame = frame_of(state->cube(), snapshot, meaning.view);
  // What all frames have in common may become another between two looks at it.
  for (std::uint64_t before = version();;) {
    std::shared_ptr<ViewNode> node(new ViewNode(state, snapshot, meaning, frame, before));
    if (!node->rests_on_all_frames_) return node;
    const std::uint64_t after = version();
    if (after == before) return node;
    before = after;
  }
}

ViewNode::ViewNode(std::shared_ptr<CubeState> state, const Snapshot& snapshot,
                   const ViewMeaning& meaning, const std::optional<FrameRow>& frame,
                   std::uint64_t cards_version)
    : Node(view_identity(state->cube().uid(), meaning, cards_version),
           view_ino(state->cube().uid(), meaning, fixed_coordinates(meaning.view))),
      state_(std::move(state)),
      format_(*meaning.file_format),
      shows_(meaning.shows),
      extends_(meaning.extends),
      rests_on_all_frames_(has_cards(meaning) && !frame),
      found_in_(snapshot.generation),
      type_(type_of(snapshot.definition, shows_)),
      letters_(letters_of(meaning.view, snapshot.definition)),
      cards_(has_cards(meaning) ? view_cards(state_->cube(), snapshot, meaning.view)
                                : std::vector<std::string>()),
      form_(meaning.view, extends_),
      pages_(*state_, extends_),
      generation_(snapshot.generation),
      end_(meaning.view.dimension(meaning.view.rank() - 1).range.end),
      size_(face(meaning.view.shape()).total()),
      mtime_ns_(time_of(snapshot, frame)),
      told_elements_(meaning.view.element_count()) {
  card_bytes_ += cards_.size() * card_room;
}

ViewNode::~ViewNode() {
  card_bytes_ -= cards_.size() * card_room;
}

void ViewNode::advance(const Pinned& newest) {
  if (!extends_ || newest->generation <= generation_) return;
  generation_ = newest->generation;
  const Result<std::uint64_t> end = form_.end(newest->axes);
  if (!end.ok()) return;
  if (*end != end_) {
    mtime_ns_ = state_->cube().changed_ns();
    end_ = *end;
    size_ = face(form_.shape(end_)).total();
  }
  if (kept_ == nullptr) return;
  if (Result<View> view = form_.view(newest->axes); view.ok())
    *kept_ = Reach{newest, *std::move(view)};
}

Result<ViewNode::Reach> ViewNode::begin() {
  for (;;) {
    Pinned newest = state_->cube().pin();
    MutexLock lock(mutex_);
    if (newest->generation < generation_) continue;  // another thread was faster
    advance(newest);
    ACCRETE_TRY(View view, form_.view(newest->axes));
    Reach reach{std::move(newest), std::move(view)};
    ++opens_;
    if (extends_) kept_ = std::make_unique<Reach>(reach);
    return reach;
  }
}

void ViewNode::end() {
  std::unique_ptr<Reach> unused;
  MutexLock lock(mutex_);
  if (--opens_ == 0) unused.swap(kept_);
}

ViewNode::Reach ViewNode::reach(const Pinned& newest) {
  MutexLock lock(mutex_);
  advance(newest);
  return *kept_;
}

FileFace ViewNode::face(const Shape& shape) const {
  return format_.face({type_, shape, cards_, letters_});
}

Shown ViewNode::show(Pinned pinned, View view) const {
  Content content;
  FileFace face = this->face(view.shape());
  content.head = std::move(face.header);
  content.elements = face.elements;
  content.bytes_per_element = face.bytes_per_element;
  content.tail_bytes = face.trailer;
  content.tail_fill = face.trailer_fill;
  content.coding = format_.is_binary() ? format_.coding(type_) : native(type_);
  content.printer = format_.is_binary() ? nullptr : &format_;
  content.view = std::move(view);
  content.shows = shows_;
  if (format_.id() == FormatId::fits) content.headers = {{0, content.head.size()}};
  return {std::move(pinned), std::move(content)};
}

Result<struct stat> ViewNode::attributes() {
  const Pinned newest = state_->cube().pin();
  MutexLock lock(mutex_);
  advance(newest);
  const std::int64_t mtime_ns = std::max(mtime_ns_, state_->cube().poked_ns());
  return state_->tree().file_attributes(size_, mtime_ns, shows_ == Shows::elements);
}

Node::AttributeBelief ViewNode::attribute_belief() const {
  // What is written in place changes the mtime, which may be that late.
  constexpr double timeout = 1;
  if (!extends_) return {timeout, std::nullopt};
  const Pinned pinned = state_->cube().pin();
  Lease::Class attributes{state_->cube().uid()};
  attributes.of_attributes = true;
  attributes.axes = std::uint64_t{1} << form_.slowest_axis();
  return {timeout, Lease{attributes, attributes.ground(*pinned.snapshot)}};
}

std::optional<Lease> ViewNode::lease() const {
  const Pinned pinned = state_->cube().pin();
  if (pinned->generation != found_in_) return std::nullopt;
  Lease::Class names{state_->cube().uid()};
  for (std::size_t d = 0; d < form_.rank(); ++d) names.axes |= std::uint64_t{1} << form_.axis(d);
  // A file that extends goes on to be what the name means.
  if (extends_) names.axes &= ~(std::uint64_t{1} << form_.slowest_axis());
  names.of_all_frames = rests_on_all_frames_;
  return Lease{names, names.ground(*pinned.snapshot)};
}

ExtendedAttributes ViewNode::extended_attributes() {
  const Pinned pinned = state_->cube().pin();
  Shape shape;
  {
    MutexLock lock(mutex_);
    advance(pinned);
    shape = form_.shape(end_);
  }
  ExtendedAttributes attributes{{"user.accrete.shape", to_string(shape)},
                                {"user.accrete.dtype", std::string(name_of(type_))},
                                {"user.accrete.axes", letters_}};
  const Result<View> view = form_.view(pinned->axes);
  if (!view.ok()) return attributes;
  if (const std::optional<FrameRow> row = frame_of(state_->cube(), *pinned.snapshot, *view))
    attributes.emplace_back("user.accrete.frame", state_->cube().frame_name(*row));
  return attributes;
}

std::optional<CacheNotice> ViewNode::after_commit(bool contents_changed) {
  if (contents_changed && pages_.any()) return CacheNotice{number(), 0};
  if (!extends_) return std::nullopt;
  const Pinned newest = state_->cube().pin();
  MutexLock lock(mutex_);
  advance(newest);
  const FileFace now = face(form_.shape(end_));
  const std::uint64_t width = now.bytes_per_element;
  const std::uint64_t before = std::exchange(told_elements_, now.elements);
  if (before == told_elements_) return std::nullopt;
  const std::uint64_t tail_page = before * width / page * page;
  return CacheNotice{number(), pages_.any() ? static_cast<std::int64_t>(tail_page) : -1};
}

Result<bool> ViewNode::change_attributes(const AttributeChange& change) {
  if (!change.size)
    return fail(std::errc::operation_not_permitted,
                "a view has no mode, owner or times of its own");
  if (shows_ == Shows::mask) return not_a_mask();
  std::shared_ptr<StagedView> writer;
  {
    MutexLock lock(mutex_);
    for (auto staged = writers_.rbegin(); staged != writers_.rend() && writer == nullptr; ++staged)
      if ((*staged)->is_of(change)) writer = *staged;
  }
  if (const auto replacement = writer != nullptr ? writer->replacement() : nullptr) {
    ACCRETE_CHECK(replacement->truncate(*change.size));
    return false;
  }
  ACCRETE_TRY(const struct stat now, attributes());
  const auto size = static_cast<std::uint64_t>(now.st_size);
  if (*change.size == size) return false;
  if (writer == nullptr || *change.size != 0) return stays_so(size);
  ACCRETE_TRY(std::shared_ptr<Replacement> begun, Replacement::begin(state_->cube()));
  writer->begin(std::move(begun));
  return false;
}

Result<std::unique_ptr<OpenFile>> ViewNode::open(int flags, const Caller& caller) {
  const bool writes = opens_for_writing(flags);
  if (writes && shows_ == Shows::mask) return not_a_mask();
  ACCRETE_TRY(Reach reach, begin());
  return open_view(std::static_pointer_cast<ViewNode>(shared_from_this()),
                   show(std::move(reach.pinned), std::move(reach.view)), writes, caller);
}

}  // namespace accrete
