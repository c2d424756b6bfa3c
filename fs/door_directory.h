// Directories that hold frames: doors, through which they come, frames/ and removed/.
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "fs/directories.h"
#include "fs/door_file.h"

namespace accrete {

// append/ or prepend/.
Door plain_door(Side side);

// What they have in common: frames by name, in order of place. What is unlinked from doors and
// frames/ goes to removed/.
class FrameDirectory : public CubeNode {
 public:
  using CubeNode::CubeNode;
  Result<std::shared_ptr<Node>> find(std::string_view name) override;
  Result<std::unique_ptr<Listing>> list() override;
  Status unlink(std::shared_ptr<Reply> reply, std::string_view name) override;
  Status rename(std::shared_ptr<Reply> reply, std::string_view from, Node& directory,
                std::string_view to, bool no_replace) override;

 protected:
  virtual const Door* door() const { return nullptr; }
  virtual bool holds_removed() const { return false; }
  std::shared_ptr<FrameNode> find_frame(std::string_view name) const;

 private:
  Status rename_incoming(std::shared_ptr<Reply> reply, const std::shared_ptr<FrameNode>& node,
                         std::string_view from, const FrameDirectory& target, std::string_view to);
  Status rename_frame(std::string_view from, const FrameDirectory& target, std::string_view to);
};

class FramesDirectory : public FrameDirectory {
 public:
  explicit FramesDirectory(std::shared_ptr<CubeState> state);

  static Identity identity(std::uint64_t cube_uid) {
    return Identity(NodeKind::frames).add(cube_uid);
  }
  double entry_timeout() const override { return fixed_timeout; }
};

class RemovedDirectory : public FrameDirectory {
 public:
  explicit RemovedDirectory(std::shared_ptr<CubeState> state);

  static Identity identity(std::uint64_t cube_uid) {
    return Identity(NodeKind::removed).add(cube_uid);
  }
  double entry_timeout() const override { return fixed_timeout; }
  // Frees what the frame holds.
  Status unlink(std::shared_ptr<Reply> reply, std::string_view name) override;

 protected:
  bool holds_removed() const override { return true; }
};

// insert/ and insert/AXIS/: lead to doors by letter and index, which resolve and are not listed.
class InsertDirectory : public CubeNode {
 public:
  InsertDirectory(std::shared_ptr<CubeState> state, std::optional<std::size_t> axis);

  static Identity identity(std::uint64_t cube_uid, std::optional<std::size_t> axis) {
    return Identity(NodeKind::insert).add(cube_uid).add(std::uint64_t{axis ? *axis + 1 : 0});
  }
  double entry_timeout() const override { return axis_ ? 0 : fixed_timeout; }
  Result<std::shared_ptr<Node>> find(std::string_view name) override;
  Result<std::unique_ptr<Listing>> list() override;

 private:
  const std::optional<std::size_t> axis_;
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
  Result<bool> change_attributes(const AttributeChange&) override { return false; }
  Result<std::shared_ptr<Node>> find(std::string_view name) override;
  Result<Created> create(std::string_view name, mode_t mode, bool exclusive,
                         const Caller& caller) override;
  Status unlink(std::shared_ptr<Reply> reply, std::string_view name) override;

 protected:
  const Door* door() const override { return &door_; }

 private:
  const Door door_;
};

}  // namespace accrete
