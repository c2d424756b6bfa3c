#include "fs/door_directory.h"

#include <fcntl.h>

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "fs/frame_file.h"
#include "fs/frame_node.h"

namespace accrete {

namespace {

// Live frames in order of place along the growth axis, then along others; then what comes in.
class FrameListing : public Listing {
 public:
  FrameListing(std::shared_ptr<CubeState> state, const std::string& door)
      : state_(std::move(state)), pinned_(state_->cube().pin()) {
    const Snapshot& snapshot = *pinned_.snapshot;
    frames_.reserve(snapshot.live_frames());
    if (snapshot.definition.defined) {
      struct Placed {
        bool elsewhere;
        std::uint8_t axis;
        std::uint64_t index;
        FrameId id;
      };
      std::vector<Placed> placed;
      placed.reserve(snapshot.live_frames());
      const std::size_t grow = snapshot.grow_axis();
      snapshot.places.for_range(0, snapshot.places.size(), [&](const Snapshot::Place& place) {
        placed.push_back({place.axis != grow, place.axis,
                          snapshot.axes[place.axis].logical(place.first).value_or(0), place.id});
      });
      std::stable_sort(placed.begin(), placed.end(), [](const Placed& a, const Placed& b) {
        return std::tie(a.elsewhere, a.axis, a.index) < std::tie(b.elsewhere, b.axis, b.index);
      });
      for (const Placed& frame : placed) frames_.push_back(frame.id);
    }
    if (door.empty()) return;
    for (const auto& [name, node] : state_->stagings(door))
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

}  // namespace

Door append_door() {
  Door door;
  door.path = "append";
  return door;
}

std::shared_ptr<FrameNode> FrameDirectory::find_frame(std::string_view name) const {
  const std::optional<FrameId> id = state_->cube().find_frame(name);
  if (!id) return nullptr;
  if (std::shared_ptr<FrameNode> node = state_->find_staging(*id)) return node;
  return std::make_shared<FrameNode>(state_, *id);
}

Result<std::shared_ptr<Node>> FrameDirectory::find(std::string_view name) {
  if (std::shared_ptr<FrameNode> node = find_frame(name)) return std::shared_ptr<Node>(node);
  return no_such_name(name);
}

Result<std::unique_ptr<Listing>> FrameDirectory::list() {
  return std::unique_ptr<Listing>(std::make_unique<FrameListing>(state_, door_path()));
}

Status FrameDirectory::unlink(std::string_view name) {
  if (!state_->cube().find_frame(name)) return no_such_name(name);
  return fail(std::errc::operation_not_permitted,
              "frame '" + std::string(name) + "' cannot be removed from the cube");
}

Status FrameDirectory::rename(std::shared_ptr<Reply> reply, std::string_view from, Node& directory,
                              std::string_view to, bool) {
  auto* target = dynamic_cast<FrameDirectory*>(&directory);
  if (target == nullptr || target->state_ != state_)
    return fail(std::errc::cross_device_link, "a frame stays in the doors of its cube");
  if (from == to && target == this) {
    reply->ok();
    return {};
  }
  if (state_->cube().find_frame(to) || state_->find_staging({target->door_path(), std::string(to)}))
    return fail(std::errc::file_exists, "there is a frame '" + std::string(to) + "' already");
  const CubeState::StagingName old_name{door_path(), std::string(from)};
  const std::shared_ptr<FrameNode> node = state_->find_staging(old_name);
  const std::shared_ptr<DoorFile> file = node == nullptr ? nullptr : node->incoming();
  if (file == nullptr || file->committed()) {
    ACCRETE_CHECK(state_->cube().rename_frame(from, to));
    reply->ok();
    return {};
  }
  if (target != this && target->door_path() != door_path())
    return fail(std::errc::cross_device_link, "a file that comes in stays in its door");
  const CubeState::StagingName new_name{door_path(), std::string(to)};
  if (!state_->add_staging(new_name, node))
    return fail(std::errc::file_exists, "there is a file '" + std::string(to) + "' already");
  const DoorFile::Outcome outcome = file->rename(to);
  if (!outcome.status.ok()) {
    state_->remove_staging(new_name, *node);
    reply->error(outcome.status.error());  // core has recorded it
    return {};
  }
  state_->remove_staging(old_name, *node);
  node->set_staging_name(new_name);
  if (!outcome.committed) {
    reply->ok();
    return {};
  }
  node->finish(*outcome.committed);
  if (file->is_closed()) node->let_go(*file);
  answer_commit(state_, false, std::move(reply));
  return {};
}

FramesDirectory::FramesDirectory(std::shared_ptr<CubeState> state)
    : FrameDirectory(identity(state->cube().uid()), state) {}

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
  if (!door_.axis && name.size() == 1) {
    const Pinned pinned = state_->cube().pin();
    const std::size_t axis = pinned->definition.letters.find(name);
    if (pinned->definition.defined && axis == pinned->grow_axis()) {
      Door door = door_;
      door.axis = axis;
      door.path += '/';
      door.path += name;
      return std::shared_ptr<Node>(std::make_shared<DoorDirectory>(state_, std::move(door)));
    }
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

Status DoorDirectory::unlink(std::string_view name) {
  const std::shared_ptr<FrameNode> node = state_->find_staging({door_.path, std::string(name)});
  const std::shared_ptr<DoorFile> file = node == nullptr ? nullptr : node->incoming();
  if (file == nullptr || file->committed()) return FrameDirectory::unlink(name);
  file->discard("");
  node->vanish();
  return {};
}

}  // namespace accrete
