// The root, a cube's directory and meta/. Doors and frames/ are in door_directory.h, slices/ and
// mask/ in view_directory.h.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "fs/node.h"
#include "fs/tree.h"

namespace accrete {

// Directories that are always there.
inline constexpr double fixed_timeout = for_ever;
// What a directory shows of itself and may change is its mtime. The kernel checks permissions on
// every step of a path, and need not ask each time.
inline constexpr double directory_timeout = 1;

// A directory of a cube.
class CubeNode : public Node {
 public:
  CubeNode(const Identity& identity, std::shared_ptr<CubeState> state)
      : Node(identity), state_(std::move(state)) {}

  Result<struct stat> attributes() override {
    return state_->tree().directory_attributes(state_->cube().changed_ns());
  }
  AttributeBelief attribute_belief() const override { return {directory_timeout, {}}; }
  std::shared_ptr<Cube> cube() const override { return state_->shared_cube(); }
  const std::shared_ptr<CubeState>& state() const { return state_; }

 protected:
  const std::shared_ptr<CubeState> state_;
};

// Formats of which views are listed, in the order of meta/formats.
std::vector<const Format*> listed_formats(const Cube& cube);

class RootDirectory : public Node {
 public:
  explicit RootDirectory(Tree& tree) : Node(Identity(NodeKind::root)), tree_(tree) {}

  Result<struct stat> attributes() override;
  AttributeBelief attribute_belief() const override { return {directory_timeout, {}}; }
  Result<std::shared_ptr<Node>> find(std::string_view name) override;
  Result<std::unique_ptr<Listing>> list() override;
  Result<std::shared_ptr<Node>> make_directory(std::string_view name) override;
  Status remove_directory(std::string_view name) override;
  Status rename(std::shared_ptr<Reply> reply, std::string_view from, Node& directory,
                std::string_view to, bool no_replace) override;

 private:
  Tree& tree_;
};

class CubeDirectory : public CubeNode {
 public:
  explicit CubeDirectory(std::shared_ptr<CubeState> state);

  // Cubes come, go and change their names through the kernel only.
  double entry_timeout() const override { return directory_timeout; }
  static Identity identity(std::uint64_t cube_uid) {
    return Identity(NodeKind::cube).add(cube_uid);
  }
  Result<std::shared_ptr<Node>> find(std::string_view name) override;
  Result<std::unique_ptr<Listing>> list() override;
  ExtendedAttributes extended_attributes() override;
};

class MetaDirectory : public CubeNode {
 public:
  explicit MetaDirectory(std::shared_ptr<CubeState> state);

  static Identity identity(std::uint64_t cube_uid) {
    return Identity(NodeKind::meta).add(cube_uid);
  }
  double entry_timeout() const override { return fixed_timeout; }
  Result<std::shared_ptr<Node>> find(std::string_view name) override;
  Result<std::unique_ptr<Listing>> list() override;
};

Error no_such_name(std::string_view name);

}  // namespace accrete
