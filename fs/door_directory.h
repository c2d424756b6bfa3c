// Directories that hold frames: doors, through which they come, and frames/.
#pragma once

#include <memory>
#include <string_view>

#include "fs/directories.h"
#include "fs/door_file.h"

namespace accrete {

Door append_door();

// What doors and frames/ have in common: frames by name, in order of place.
class FrameDirectory : public CubeNode {
 public:
  using CubeNode::CubeNode;
  Result<std::shared_ptr<Node>> find(std::string_view name) override;
  Result<std::unique_ptr<Listing>> list() override;
  Status unlink(std::string_view name) override;
  Status rename(std::shared_ptr<Reply> reply, std::string_view from, Node& directory,
                std::string_view to, bool no_replace) override;

 protected:
  // The path of the door, empty for frames/.
  virtual std::string door_path() const { return {}; }
  std::shared_ptr<FrameNode> find_frame(std::string_view name) const;
};

class FramesDirectory : public FrameDirectory {
 public:
  explicit FramesDirectory(std::shared_ptr<CubeState> state);

  static Identity identity(std::uint64_t cube_uid) {
    return Identity(NodeKind::frames).add(cube_uid);
  }
  double entry_timeout() const override { return fixed_timeout; }
};

// A door; its directories of axes resolve and are not listed.
class DoorDirectory : public FrameDirectory {
 public:
  DoorDirectory(std::shared_ptr<CubeState> state, Door door);

  static Identity identity(std::uint64_t cube_uid, const Door& door) {
    return Identity(NodeKind::door).add(cube_uid).add(door.path);
  }
  double entry_timeout() const override { return door_.axis ? 0 : fixed_timeout; }
  // Tools that copy trees set mode, owner and times of directories too: taken, without effect.
  Status change_attributes(const AttributeChange&) override { return {}; }
  Result<std::shared_ptr<Node>> find(std::string_view name) override;
  Result<Created> create(std::string_view name, mode_t mode, bool exclusive,
                         const Caller& caller) override;
  Status unlink(std::string_view name) override;

 protected:
  std::string door_path() const override { return door_.path; }

 private:
  const Door door_;
};

}  // namespace accrete
