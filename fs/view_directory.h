// slices/ and mask/: directories of views.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/view_name.h"
#include "fs/content.h"
#include "fs/directories.h"

namespace accrete {

// slices/ or mask/. Lists natural-order pairs, single axes, and the transposed pairs that begin
// with the growth axis; every other ordered subset of the axes resolves.
class SlicesDirectory : public CubeNode {
 public:
  SlicesDirectory(std::shared_ptr<CubeState> state, Shows shows);

  static Identity identity(std::uint64_t cube_uid, Shows shows) {
    return Identity(NodeKind::slices).add(cube_uid).add(static_cast<std::uint64_t>(shows));
  }
  double entry_timeout() const override { return fixed_timeout; }
  Result<std::shared_ptr<Node>> find(std::string_view name) override;
  Result<std::unique_ptr<Listing>> list() override;

 private:
  const Shows shows_;
};

// slices/AXES and directories below it that fix or cut some axes. Where one axis is left it lists
// files, with more it lists directories of the slowest of them.
class ViewDirectory : public CubeNode {
 public:
  // `terms`: sorted by axis.
  ViewDirectory(std::shared_ptr<CubeState> state, Shows shows, PerAxis<std::size_t> spanned,
                std::vector<AxisTerm> terms);

  static Identity identity(std::uint64_t cube_uid, Shows shows, const PerAxis<std::size_t>& spanned,
                           const std::vector<AxisTerm>& terms);
  // Letters go only with the cube's last frame; indexes are looked at each time.
  double entry_timeout() const override { return terms_.empty() ? directory_timeout : 0; }
  Result<std::shared_ptr<Node>> find(std::string_view name) override;
  Result<std::unique_ptr<Listing>> list() override;

 private:
  Result<std::shared_ptr<Node>> find_link(std::string_view stem, const Format& format);

  const Shows shows_;
  const PerAxis<std::size_t> spanned_;
  const std::vector<AxisTerm> terms_;
};

// last.FORMAT and newest.FORMAT: the name of a plane as of the moment when the link is read.
class ViewLink : public Node {
 public:
  enum class Kind : std::uint64_t { last, newest };

  // `axis`: the one that the names beside it fix.
  ViewLink(std::shared_ptr<CubeState> state, const Identity& directory, Kind kind, std::size_t axis,
           const Format& format);

  Result<struct stat> attributes() override;
  Result<std::string> link_target() override;
  std::shared_ptr<Cube> cube() const override { return state_->shared_cube(); }
  bool trimmable() const override { return true; }

 private:
  const std::shared_ptr<CubeState> state_;
  const Kind kind_;
  const std::size_t axis_;
  const Format& format_;
};

}  // namespace accrete
