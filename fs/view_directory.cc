#include "fs/view_directory.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "fs/view_node.h"

namespace accrete {

namespace {

// Axes that the names in a directory still have to fix, slowest first.
std::vector<std::size_t> axes_left(std::size_t rank, const PerAxis<std::size_t>& spanned,
                                   const std::vector<AxisTerm>& terms) {
  std::vector<std::size_t> left;
  for (std::size_t axis = rank; axis-- > 0;) {
    const bool is_spanned = std::find(spanned.begin(), spanned.end(), axis) != spanned.end();
    const bool is_fixed = std::any_of(terms.begin(), terms.end(),
                                      [&](const AxisTerm& term) { return term.axis == axis; });
    if (!is_spanned && !is_fixed) left.push_back(axis);
  }
  return left;
}

// Both, sorted by axis; nothing when an axis occurs twice.
std::optional<std::vector<AxisTerm>> joined(std::vector<AxisTerm> terms,
                                            const std::vector<AxisTerm>& more) {
  terms.insert(terms.end(), more.begin(), more.end());
  const auto by_axis = [](const AxisTerm& a, const AxisTerm& b) { return a.axis < b.axis; };
  std::sort(terms.begin(), terms.end(), by_axis);
  const auto twice =
      std::adjacent_find(terms.begin(), terms.end(),
                         [](const AxisTerm& a, const AxisTerm& b) { return a.axis == b.axis; });
  if (twice != terms.end()) return std::nullopt;
  return terms;
}

AxisTerm index_term(std::size_t axis, std::uint64_t index) {
  AxisTerm term;
  term.axis = axis;
  term.index = index;
  return term;
}

// True when some element answers to the terms: indexes inside, ranges of what is spanned inside.
bool is_inside(const Snapshot& snapshot, const PerAxis<std::size_t>& spanned,
               const std::vector<AxisTerm>& terms) {
  std::vector<AxisTerm> complete = terms;
  for (const std::size_t axis : axes_left(snapshot.axes.size(), spanned, terms))
    complete.push_back(index_term(axis, 0));
  return resolve_view(snapshot.axes, spanned, complete).ok();
}

// Views with one index each, in each of the listed formats.
class PlaneListing : public Listing {
 public:
  PlaneListing(const CubeState& state, Shows shows, const PerAxis<std::size_t>& spanned,
               std::vector<AxisTerm> terms, std::size_t axis)
      : uid_(state.cube().uid()), pinned_(state.cube().pin()), axis_(axis) {
    terms.push_back(index_term(axis, 0));
    for (const Format* format : listed_formats(state.cube())) {
      Result<ViewMeaning> meaning =
          ViewMeaning::of(*pinned_.snapshot, shows, spanned, terms, *format);
      if (meaning.ok()) meanings_.push_back(*std::move(meaning));
    }
  }

  std::uint64_t size() const override {
    return meanings_.empty() ? 0 : pinned_->axes[axis_].extent() * meanings_.size();
  }
  DirectoryEntry entry(std::uint64_t position) const override {
    const std::uint64_t index = position / meanings_.size();
    const ViewMeaning& meaning = meanings_[position % meanings_.size()];
    Coords fixed = fixed_coordinates(meaning.view);
    fixed[axis_] = pinned_->axes[axis_].physical(index);
    return {format_index(pinned_->definition.letters[axis_], index) + '.' +
                std::string(meaning.file_format->extension()),
            view_ino(uid_, meaning, fixed), S_IFREG};
  }
  bool is_of_views() const override { return true; }

 private:
  const std::uint64_t uid_;
  const Pinned pinned_;
  const std::size_t axis_;
  std::vector<ViewMeaning> meanings_;
};

// Directories that fix one more axis.
class NestedListing : public Listing {
 public:
  NestedListing(const CubeState& state, Shows shows, const PerAxis<std::size_t>& spanned,
                const std::vector<AxisTerm>& terms, std::size_t axis)
      : uid_(state.cube().uid()),
        pinned_(state.cube().pin()),
        shows_(shows),
        spanned_(spanned),
        terms_(terms),
        axis_(axis) {}

  std::uint64_t size() const override { return pinned_->axes[axis_].extent(); }
  DirectoryEntry entry(std::uint64_t index) const override {
    const auto terms = joined(terms_, {index_term(axis_, index)});
    return {format_index(pinned_->definition.letters[axis_], index),
            ViewDirectory::identity(uid_, shows_, spanned_, *terms).ino(), S_IFDIR};
  }

 private:
  const std::uint64_t uid_;
  const Pinned pinned_;
  const Shows shows_;
  const PerAxis<std::size_t> spanned_;
  const std::vector<AxisTerm> terms_;
  const std::size_t axis_;
};

}  // namespace

SlicesDirectory::SlicesDirectory(std::shared_ptr<CubeState> state, Shows shows)
    : CubeNode(identity(state->cube().uid(), shows), state), shows_(shows) {}

Result<std::shared_ptr<Node>> SlicesDirectory::find(std::string_view name) {
  const Pinned pinned = state_->cube().pin();
  if (!pinned->definition.defined) return no_such_name(name);
  const auto spanned = parse_axes(name, pinned->definition.letters);
  if (!spanned) return no_such_name(name);
  return std::shared_ptr<Node>(
      std::make_shared<ViewDirectory>(state_, shows_, *spanned, std::vector<AxisTerm>()));
}

Result<std::unique_ptr<Listing>> SlicesDirectory::list() {
  auto listing = std::make_unique<ShortListing>();
  const Pinned pinned = state_->cube().pin();
  if (pinned->definition.defined) {
    const std::string& letters = pinned->definition.letters;
    const std::size_t rank = pinned->axes.size();
    const std::size_t grow = pinned->grow_axis();
    const auto add = [&](const PerAxis<std::size_t>& spanned) {
      std::string name;
      for (const std::size_t axis : spanned) name += letters[axis];
      listing->add(std::move(name),
                   ViewDirectory::identity(state_->cube().uid(), shows_, spanned, {}), S_IFDIR);
    };
    for (std::size_t a = 0; a < rank; ++a)
      for (std::size_t b = a + 1; b < rank; ++b) add({a, b});
    for (std::size_t b = 0; b < grow; ++b) add({grow, b});
    for (std::size_t a = 0; a < rank; ++a) add({a});
  }
  return std::unique_ptr<Listing>(std::move(listing));
}

Identity ViewDirectory::identity(std::uint64_t cube_uid, Shows shows,
                                 const PerAxis<std::size_t>& spanned,
                                 const std::vector<AxisTerm>& terms) {
  Identity identity(NodeKind::axes);
  identity.add(cube_uid).add(static_cast<std::uint64_t>(shows));
  identity.add(std::uint64_t{spanned.size()});
  for (const std::size_t axis : spanned) identity.add(std::uint64_t{axis});
  for (const AxisTerm& term : terms) {
    identity.add(std::uint64_t{term.axis}).add(std::uint64_t{term.is_range});
    if (term.is_range)
      identity.add(term.begin).add(term.end.value_or(~std::uint64_t{0}));
    else
      identity.add(term.index);
  }
  return identity;
}

ViewDirectory::ViewDirectory(std::shared_ptr<CubeState> state, Shows shows,
                             PerAxis<std::size_t> spanned, std::vector<AxisTerm> terms)
    : CubeNode(identity(state->cube().uid(), shows, spanned, terms), state),
      shows_(shows),
      spanned_(spanned),
      terms_(std::move(terms)) {}

Result<std::shared_ptr<Node>> ViewDirectory::find(std::string_view name) {
  const Pinned pinned = state_->cube().pin();
  if (!pinned->definition.defined) return no_such_name(name);
  const std::string& letters = pinned->definition.letters;
  const std::size_t dot = name.rfind('.');
  const Format* format =
      dot == std::string_view::npos ? nullptr : format_by_extension(name.substr(dot + 1));
  const std::string_view stem = format == nullptr ? name : name.substr(0, dot);
  if (format != nullptr && (stem == "last" || stem == "newest")) return find_link(stem, *format);
  const auto more = parse_terms(stem, letters);
  if (!more) return no_such_name(name);
  std::optional<std::vector<AxisTerm>> terms = joined(terms_, *more);
  if (!terms) return no_such_name(name);
  if (format == nullptr) {
    if (!is_inside(*pinned.snapshot, spanned_, *terms)) return no_such_name(name);
    return std::shared_ptr<Node>(
        std::make_shared<ViewDirectory>(state_, shows_, spanned_, *std::move(terms)));
  }
  ACCRETE_TRY(const ViewMeaning meaning,
              ViewMeaning::of(*pinned.snapshot, shows_, spanned_, *terms, *format));
  return std::shared_ptr<Node>(ViewNode::make(state_, *pinned.snapshot, meaning));
}

Result<std::shared_ptr<Node>> ViewDirectory::find_link(std::string_view stem,
                                                       const Format& format) {
  const Pinned pinned = state_->cube().pin();
  const std::vector<std::size_t> left = axes_left(pinned->axes.size(), spanned_, terms_);
  if (left.size() != 1) return no_such_name(stem);
  auto link = std::make_shared<ViewLink>(
      state_, identity(state_->cube().uid(), shows_, spanned_, terms_),
      stem == "last" ? ViewLink::Kind::last : ViewLink::Kind::newest, left.front(), format);
  ACCRETE_TRY(const std::string target, link->link_target());
  return std::shared_ptr<Node>(std::move(link));
}

Result<std::unique_ptr<Listing>> ViewDirectory::list() {
  const Pinned pinned = state_->cube().pin();
  std::vector<std::size_t> left;
  if (pinned->definition.defined) left = axes_left(pinned->axes.size(), spanned_, terms_);
  if (left.empty()) return std::unique_ptr<Listing>(std::make_unique<ShortListing>());
  if (left.size() == 1)
    return std::unique_ptr<Listing>(
        std::make_unique<PlaneListing>(*state_, shows_, spanned_, terms_, left.front()));
  return std::unique_ptr<Listing>(
      std::make_unique<NestedListing>(*state_, shows_, spanned_, terms_, left.front()));
}

ViewLink::ViewLink(std::shared_ptr<CubeState> state, const Identity& directory, Kind kind,
                   std::size_t axis, const Format& format)
    : Node(Identity(NodeKind::link)
               .add(directory.key())
               .add(static_cast<std::uint64_t>(kind))
               .add(static_cast<std::uint64_t>(format.id()))),
      state_(std::move(state)),
      kind_(kind),
      axis_(axis),
      format_(format) {}

Result<struct stat> ViewLink::attributes() {
  ACCRETE_TRY(const std::string target, link_target());
  struct stat attributes =
      state_->tree().file_attributes(target.size(), state_->cube().changed_ns(), true);
  attributes.st_mode = S_IFLNK | 0777;
  return attributes;
}

Result<std::string> ViewLink::link_target() {
  const Pinned pinned = state_->cube().pin();
  const Error nothing = fail(std::errc::no_such_file_or_directory, "there is no such plane now");
  if (axis_ >= pinned->axes.size() || pinned->axes[axis_].extent() == 0) return nothing;
  std::uint64_t index = pinned->axes[axis_].extent() - 1;
  if (kind_ == Kind::newest) {
    // Of a frame with several planes the last one.
    const std::optional<FrameRow> row = pinned->frames.find(pinned->newest);
    if (!row || row->grow_axis != axis_) return nothing;
    const auto found = pinned->axes[axis_].logical(
        row->first[axis_] + static_cast<std::int64_t>(row->extent[axis_]) - 1);
    if (!found) return nothing;
    index = *found;
  }
  return format_index(pinned->definition.letters[axis_], index) + '.' +
         std::string(format_.extension());
}

}  // namespace accrete
