#include "fs/directories.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "fs/door_directory.h"
#include "fs/meta_file.h"
#include "fs/view_directory.h"
#include "fs/view_node.h"

namespace accrete {

namespace {

PerAxis<std::size_t> natural_order(std::size_t rank) {
  PerAxis<std::size_t> axes(rank);
  std::iota(axes.begin(), axes.end(), std::size_t{0});
  return axes;
}

// Directories of a cube that go by a fixed name.
std::shared_ptr<Node> fixed_directory(const std::shared_ptr<CubeState>& state,
                                      std::string_view name) {
  if (name == "append" || name == "prepend")
    return std::make_shared<DoorDirectory>(
        state, plain_door(name == "append" ? Side::append : Side::prepend));
  if (name == "insert") return std::make_shared<InsertDirectory>(state, std::nullopt);
  if (name == "removed") return std::make_shared<RemovedDirectory>(state);
  if (name == "frames") return std::make_shared<FramesDirectory>(state);
  if (name == "slices") return std::make_shared<SlicesDirectory>(state, Shows::elements);
  if (name == "mask") return std::make_shared<SlicesDirectory>(state, Shows::mask);
  if (name == "meta") return std::make_shared<MetaDirectory>(state);
  return nullptr;
}

// The whole cube as NAME.FORMAT.
Result<ViewMeaning> whole_cube(const Snapshot& snapshot, const Format& format) {
  if (!snapshot.definition.defined || snapshot.axes.empty())
    return fail(std::errc::no_such_file_or_directory, "the cube holds no frame");
  return ViewMeaning::of(snapshot, Shows::elements, natural_order(snapshot.axes.size()), {},
                         format);
}

}  // namespace

Error no_such_name(std::string_view name) {
  return fail(std::errc::no_such_file_or_directory, "no '" + std::string(name) + "' here");
}

std::vector<const Format*> listed_formats(const Cube& cube) {
  std::vector<const Format*> formats;
  const Result<std::string> text = cube.property("formats");
  if (!text.ok()) return formats;
  std::string_view rest = *text;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find_first_of(" \n"), rest.size());
    if (const Format* found = format_by_extension(rest.substr(0, end))) formats.push_back(found);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return formats;
}

Result<struct stat> RootDirectory::attributes() {
  ACCRETE_TRY(const struct stat store, tree_.store().attributes());
  return tree_.directory_attributes(std::int64_t{store.st_mtim.tv_sec} * 1'000'000'000 +
                                    store.st_mtim.tv_nsec);
}

Result<std::shared_ptr<Node>> RootDirectory::find(std::string_view name) {
  ACCRETE_TRY(std::shared_ptr<CubeState> state, tree_.find_cube(name));
  return std::shared_ptr<Node>(std::make_shared<CubeDirectory>(std::move(state)));
}

Result<std::unique_ptr<Listing>> RootDirectory::list() {
  auto listing = std::make_unique<ShortListing>();
  for (const std::string& name : tree_.store().names()) {
    // One that cannot be opened is listed all the same: looking it up tells why.
    const Result<std::shared_ptr<Cube>> cube = tree_.store().find(name);
    listing->add(name, CubeDirectory::identity(cube.ok() ? (*cube)->uid() : 0), S_IFDIR);
  }
  return std::unique_ptr<Listing>(std::move(listing));
}

Result<std::shared_ptr<Node>> RootDirectory::make_directory(std::string_view name) {
  ACCRETE_TRY(std::shared_ptr<Cube> cube, tree_.store().create(name));
  return std::shared_ptr<Node>(std::make_shared<CubeDirectory>(tree_.state_of(std::move(cube))));
}

Status RootDirectory::remove_directory(std::string_view name) {
  ACCRETE_TRY(const std::shared_ptr<Cube> cube, tree_.store().find(name));
  ACCRETE_CHECK(tree_.store().remove(name));
  tree_.drop_state(cube->uid());
  return {};
}

Status RootDirectory::rename(std::shared_ptr<Reply> reply, std::string_view from, Node& directory,
                             std::string_view to, bool) {
  if (&directory != this)
    return fail(std::errc::cross_device_link, "a cube stays at the top of the tree");
  ACCRETE_CHECK(tree_.store().rename(from, to));
  reply->ok();
  return {};
}

CubeDirectory::CubeDirectory(std::shared_ptr<CubeState> state)
    : CubeNode(identity(state->cube().uid()), state) {}

Result<std::shared_ptr<Node>> CubeDirectory::find(std::string_view name) {
  if (std::shared_ptr<Node> directory = fixed_directory(state_, name)) return directory;
  if (name == "history") return std::shared_ptr<Node>(std::make_shared<HistoryNode>(state_));
  if (name == "last-error") return std::shared_ptr<Node>(std::make_shared<LastErrorNode>(state_));
  constexpr std::string_view stem = "cube.";
  const Format* format =
      name.starts_with(stem) ? format_by_extension(name.substr(stem.size())) : nullptr;
  if (format == nullptr) return no_such_name(name);
  const Pinned pinned = state_->cube().pin();
  ACCRETE_TRY(const ViewMeaning meaning, whole_cube(*pinned.snapshot, *format));
  return std::shared_ptr<Node>(ViewNode::make(state_, *pinned.snapshot, meaning));
}

Result<std::unique_ptr<Listing>> CubeDirectory::list() {
  auto listing = std::make_unique<ShortListing>();
  const std::uint64_t uid = state_->cube().uid();
  const auto add_directory = [&](std::string_view name, const Identity& identity) {
    listing->add(std::string(name), identity, S_IFDIR);
  };
  add_directory("append", DoorDirectory::identity(uid, plain_door(Side::append)));
  add_directory("prepend", DoorDirectory::identity(uid, plain_door(Side::prepend)));
  add_directory("insert", InsertDirectory::identity(uid, std::nullopt));
  add_directory("frames", FramesDirectory::identity(uid));
  add_directory("removed", RemovedDirectory::identity(uid));
  add_directory("slices", SlicesDirectory::identity(uid, Shows::elements));
  add_directory("mask", SlicesDirectory::identity(uid, Shows::mask));
  const Pinned pinned = state_->cube().pin();
  for (const Format* format : listed_formats(state_->cube())) {
    const Result<ViewMeaning> meaning = whole_cube(*pinned.snapshot, *format);
    if (!meaning.ok()) continue;
    listing->add("cube." + std::string(format->extension()),
                 view_ino(uid, *meaning, fixed_coordinates(meaning->view)), S_IFREG);
  }
  add_directory("meta", MetaDirectory::identity(uid));
  listing->add("history", HistoryNode::identity(uid), S_IFREG);
  listing->add("last-error", LastErrorNode::identity(uid), S_IFREG);
  return std::unique_ptr<Listing>(std::move(listing));
}

ExtendedAttributes CubeDirectory::extended_attributes() {
  ExtendedAttributes attributes;
  for (const std::string_view name : {"shape", "dtype", "axes", "grow", "frames"}) {
    // The number of frames, where meta/frames is their table.
    if (name == "frames") {
      attributes.emplace_back("user.accrete.frames",
                              std::to_string(state_->cube().pin()->live_frames()));
      continue;
    }
    Result<std::string> text = state_->cube().property(name);
    if (!text.ok()) continue;
    while (!text->empty() && text->back() == '\n') text->pop_back();
    attributes.emplace_back("user.accrete." + std::string(name), *std::move(text));
  }
  return attributes;
}

MetaDirectory::MetaDirectory(std::shared_ptr<CubeState> state)
    : CubeNode(identity(state->cube().uid()), state) {}

Result<std::shared_ptr<Node>> MetaDirectory::find(std::string_view name) {
  const auto names = Cube::property_names();
  if (std::find(names.begin(), names.end(), name) == names.end()) return no_such_name(name);
  return std::shared_ptr<Node>(std::make_shared<PropertyNode>(state_, name));
}

Result<std::unique_ptr<Listing>> MetaDirectory::list() {
  auto listing = std::make_unique<ShortListing>();
  for (const std::string_view name : Cube::property_names())
    listing->add(std::string(name), PropertyNode::identity(state_->cube().uid(), name), S_IFREG);
  return std::unique_ptr<Listing>(std::move(listing));
}

}  // namespace accrete
