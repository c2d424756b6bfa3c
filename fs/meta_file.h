// The text files of a cube: meta/NAME, history and last-error.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "fs/node.h"
#include "fs/tree.h"

namespace accrete {

// meta/NAME. Reading shows the text as of the open; each write() is one setting, and its error.
class PropertyNode : public Node {
 public:
  PropertyNode(std::shared_ptr<CubeState> state, std::string_view name);

  static Identity identity(std::uint64_t cube_uid, std::string_view name) {
    return Identity(NodeKind::property).add(cube_uid).add(name);
  }
  Result<struct stat> attributes() override;
  // A truncation to nothing (as of `>`) does nothing.
  Result<bool> change_attributes(const AttributeChange& change) override;
  Result<std::unique_ptr<OpenFile>> open(int flags, const Caller& caller) override;
  std::shared_ptr<Cube> cube() const override { return state_->shared_cube(); }

 private:
  const std::shared_ptr<CubeState> state_;
  const std::string name_;
};

// Grows while it is read.
class HistoryNode : public Node {
 public:
  explicit HistoryNode(std::shared_ptr<CubeState> state);

  static Identity identity(std::uint64_t cube_uid) {
    return Identity(NodeKind::history).add(cube_uid);
  }
  Result<struct stat> attributes() override;
  Result<std::unique_ptr<OpenFile>> open(int flags, const Caller& caller) override;
  std::shared_ptr<Cube> cube() const override { return state_->shared_cube(); }

 private:
  const std::shared_ptr<CubeState> state_;
};

// The newest sentence of history, as of the open.
class LastErrorNode : public Node {
 public:
  explicit LastErrorNode(std::shared_ptr<CubeState> state);

  static Identity identity(std::uint64_t cube_uid) {
    return Identity(NodeKind::last_error).add(cube_uid);
  }
  Result<struct stat> attributes() override;
  Result<std::unique_ptr<OpenFile>> open(int flags, const Caller& caller) override;
  std::shared_ptr<Cube> cube() const override { return state_->shared_cube(); }

 private:
  const std::shared_ptr<CubeState> state_;
};

}  // namespace accrete
