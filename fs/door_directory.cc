#include "fs/door_directory.h"

#include <fcntl.h>

#include <charconv>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/definition.h"
#include "fs/frame_file.h"
#include "fs/frame_node.h"

namespace accrete {

namespace {

bool came_through(const FrameRow& row, const Door& door) {
  return row.side == door.side && row.names_axis == door.axis.has_value() &&
         (!door.axis || row.grow_axis == *door.axis) &&
         (door.side != Side::insert || row.at == door.at);
}

// Frames in order of place along the growth axis, then along others; of a door those that came
// through it, and what comes in.
class FrameListing : public Listing {
 public:
  FrameListing(std::shared_ptr<CubeState> state, const Door* door, bool removed)
      : state_(std::move(state)), pinned_(state_->cube().pin()) {
    frames_ = pinned_->frames_in_order(removed);
    if (door == nullptr) return;
    std::erase_if(frames_, [&](FrameId id) {
      const std::optional<FrameRow> row = pinned_->frames.find(id);
      return !row || !came_through(*row, *door);
    });
    for (const auto& [name, node] : state_->stagings(door->path))
      if (!state_->cube().find_frame(name)) stagings_.push_back({name, node->ino(), S_IFREG});
  }

  std::uint64_t size() const override { return frames_.size() + stagings_.size(); }
  DirectoryEntry entry(std::uint64_t index) const override {
    if (index >= frames_.size()) return stagings_[index - frames_.size()];
    const FrameId id = frames_[index];
    const std::optional<FrameRow> row = pinned_->frames.find(id);
    return {row ? state_->cube().frame_name(*row) : std::string(),
            frame_identity(state_->cube().uid(), id).ino(), S_IFREG};
  }

 private:
  const std::shared_ptr<CubeState> state_;
  const Pinned pinned_;
  std::vector<FrameId> frames_;
  std::vector<DirectoryEntry> stagings_;
};

std::string path_of(const Door* door) {
  return door == nullptr ? std::string() : door->path;
}

// The axis of a letter, of the cube or of one that a first frame would make.
std::optional<std::size_t> axis_named(const CubeState& state, std::string_view name) {
  const Pinned pinned = state.cube().pin();
  const std::size_t axis = letters_of(pinned->definition).find(name);
  if (name.size() != 1 || axis == std::string_view::npos) return std::nullopt;
  return axis;
}

}  // namespace

Door plain_door(Side side) {
  Door door;
  door.side = side;
  door.path = side == Side::prepend ? "prepend" : "append";
  return door;
}

std::shared_ptr<FrameNode> FrameDirectory::find_frame(std::string_view name) const {
  const Cube& cube = state_->cube();
  const std::optional<FrameId> id =
      holds_removed() ? cube.find_removed(name) : cube.find_frame(name);
  if (!id) return nullptr;
  if (std::shared_ptr<FrameNode> node = state_->find_staging(*id)) return node;
  return std::make_shared<FrameNode>(state_, *id);
}

Result<std::shared_ptr<Node>> FrameDirectory::find(std::string_view name) {
  if (std::shared_ptr<FrameNode> node = find_frame(name)) return std::shared_ptr<Node>(node);
  return no_such_name(name);
}

Result<std::unique_ptr<Listing>> FrameDirectory::list() {
  return std::unique_ptr<Listing>(std::make_unique<FrameListing>(state_, door(), holds_removed()));
}

Status FrameDirectory::unlink(std::shared_ptr<Reply> reply, std::string_view name) {
  RecentValues::Ticket former = state_->cube().remember_values();
  ACCRETE_CHECK(state_->cube().remove_frame(name, name));
  answer_commit(state_, std::move(former), std::move(reply));
  return {};
}

Status FrameDirectory::rename(std::shared_ptr<Reply> reply, std::string_view from, Node& directory,
                              std::string_view to, bool no_replace) {
  auto* target = dynamic_cast<FrameDirectory*>(&directory);
  if (target == nullptr || target->state_ != state_)
    return fail(std::errc::cross_device_link, "a frame stays in the doors of its cube");
  if (from == to && target == this) {
    reply->ok();
    return {};
  }
  if (no_replace && target->find_frame(to))
    return fail(std::errc::file_exists, "there is a frame '" + std::string(to) + "' already");
  if (state_->find_staging({path_of(target->door()), std::string(to)}))
    return fail(std::errc::file_exists, "a file '" + std::string(to) + "' comes in just now");
  const std::shared_ptr<FrameNode> node =
      state_->find_staging({path_of(door()), std::string(from)});
  const std::shared_ptr<DoorFile> file = node == nullptr ? nullptr : node->incoming();
  if (file != nullptr && !file->committed())
    return rename_incoming(std::move(reply), node, from, *target, to);
  RecentValues::Ticket former = state_->cube().remember_values();
  ACCRETE_CHECK(rename_frame(from, *target, to));
  answer_commit(state_, std::move(former), std::move(reply));
  return {};
}

Status FrameDirectory::rename_frame(std::string_view from, const FrameDirectory& target,
                                    std::string_view to) {
  Cube& cube = state_->cube();
  if (holds_removed() && !target.holds_removed()) return cube.restore_frame(from, to);
  if (!holds_removed() && target.holds_removed()) return cube.remove_frame(from, to);
  return from == to ? Status() : cube.rename_frame(from, to);
}

Status FrameDirectory::rename_incoming(std::shared_ptr<Reply> reply,
                                       const std::shared_ptr<FrameNode>& node,
                                       std::string_view from, const FrameDirectory& target,
                                       std::string_view to) {
  const std::string path = path_of(door());
  if (path_of(target.door()) != path)
    return fail(std::errc::cross_device_link, "a file that comes in stays in its door");
  const std::shared_ptr<DoorFile> file = node->incoming();
  const CubeState::StagingName new_name{path, std::string(to)};
  if (!state_->add_staging(new_name, node))
    return fail(std::errc::file_exists, "there is a file '" + std::string(to) + "' already");
  RecentValues::Ticket former = state_->cube().remember_values();
  const DoorFile::Outcome outcome = file->rename(to);
  if (!outcome.status.ok()) {
    state_->remove_staging(new_name, *node);
    reply->error(outcome.status.error());  // core has recorded it
    return {};
  }
  state_->remove_staging({path, std::string(from)}, *node);
  node->set_staging_name(new_name);
  if (!outcome.committed) {
    reply->ok();
    return {};
  }
  node->finish(*outcome.committed);
  if (file->is_closed()) node->let_go(*file);
  answer_commit(state_, std::move(former), std::move(reply));
  return {};
}

FramesDirectory::FramesDirectory(std::shared_ptr<CubeState> state)
    : FrameDirectory(identity(state->cube().uid()), state) {}

RemovedDirectory::RemovedDirectory(std::shared_ptr<CubeState> state)
    : FrameDirectory(identity(state->cube().uid()), state) {}

Status RemovedDirectory::unlink(std::shared_ptr<Reply> reply, std::string_view name) {
  RecentValues::Ticket former = state_->cube().remember_values();
  ACCRETE_CHECK(state_->cube().discard_frame(name));
  answer_commit(state_, std::move(former), std::move(reply));
  return {};
}

InsertDirectory::InsertDirectory(std::shared_ptr<CubeState> state, std::optional<std::size_t> axis)
    : CubeNode(identity(state->cube().uid(), axis), state), axis_(axis) {}

Result<std::shared_ptr<Node>> InsertDirectory::find(std::string_view name) {
  if (!axis_) {
    const std::optional<std::size_t> axis = axis_named(*state_, name);
    if (!axis) return no_such_name(name);
    return std::shared_ptr<Node>(std::make_shared<InsertDirectory>(state_, axis));
  }
  const Pinned pinned = state_->cube().pin();
  const std::string_view letters = letters_of(pinned->definition);
  Door door;
  const auto [end, problem] = std::from_chars(name.data(), name.data() + name.size(), door.at);
  const std::uint64_t extent = *axis_ < pinned->axes.size() ? pinned->axes[*axis_].extent() : 0;
  if (problem != std::errc() || end != name.data() + name.size() || door.at > extent ||
      *axis_ >= letters.size())
    return no_such_name(name);
  door.side = Side::insert;
  door.axis = axis_;
  door.path = std::string("insert/") + letters[*axis_] + '/' + std::to_string(door.at);
  return std::shared_ptr<Node>(std::make_shared<DoorDirectory>(state_, std::move(door)));
}

Result<std::unique_ptr<Listing>> InsertDirectory::list() {
  return std::unique_ptr<Listing>(std::make_unique<ShortListing>());
}

DoorDirectory::DoorDirectory(std::shared_ptr<CubeState> state, Door door)
    : FrameDirectory(identity(state->cube().uid(), door), state), door_(std::move(door)) {}

Result<std::shared_ptr<Node>> DoorDirectory::find(std::string_view name) {
  if (std::shared_ptr<FrameNode> node = state_->find_staging({door_.path, std::string(name)}))
    return std::shared_ptr<Node>(std::move(node));
  if (std::shared_ptr<FrameNode> node = find_frame(name)) {
    // The table may have one of this identity already; that one must hear of the door.
    const auto known = std::static_pointer_cast<FrameNode>(state_->tree().nodes().known(node));
    known->set_door(door_);
    return std::shared_ptr<Node>(known);
  }
  if (const auto axis = door_.axis ? std::nullopt : axis_named(*state_, name)) {
    Door door = door_;
    door.axis = axis;
    door.path += '/';
    door.path += name;
    return std::shared_ptr<Node>(std::make_shared<DoorDirectory>(state_, std::move(door)));
  }
  return no_such_name(name);
}

Result<Created> DoorDirectory::create(std::string_view name, mode_t mode, bool exclusive,
                                      const Caller& caller) {
  const CubeState::StagingName staging{door_.path, std::string(name)};
  std::shared_ptr<FrameNode> node = state_->find_staging(staging);
  if (exclusive && (node != nullptr || state_->cube().find_frame(name)))
    return fail(std::errc::file_exists, "there is a frame '" + std::string(name) + "' already");
  if (node == nullptr) {
    ACCRETE_TRY(std::shared_ptr<DoorFile> incoming,
                DoorFile::begin(*state_, door_, name, mode, caller.uid, caller.gid));
    node = std::make_shared<FrameNode>(state_, std::move(incoming), staging);
    if (!state_->add_staging(staging, node)) return create(name, mode, exclusive, caller);
  }
  ACCRETE_TRY(std::unique_ptr<OpenFile> file, node->open(O_RDWR, caller));
  return Created{std::move(node), std::move(file)};
}

Status DoorDirectory::unlink(std::shared_ptr<Reply> reply, std::string_view name) {
  const std::shared_ptr<FrameNode> node = state_->find_staging({door_.path, std::string(name)});
  const std::shared_ptr<DoorFile> file = node == nullptr ? nullptr : node->incoming();
  if (file == nullptr || file->committed()) return FrameDirectory::unlink(std::move(reply), name);
  file->discard("");
  node->vanish();
  reply->ok();
  return {};
}

}  // namespace accrete
