// What a lease promises: while its class has the same ground, its name means the same inode.

#include "fs/lease.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "core/fits_card.h"
#include "fs/directories.h"
#include "fs/tree.h"
#include "tests/core/store_fixture.h"

namespace accrete {
namespace {

using testing::TemporaryDirectory;

class LeaseTest : public ::testing::Test {
 protected:
  struct Believed {
    std::shared_ptr<Node> node;
    Lease lease;
  };

  void SetUp() override {
    testing::reopen(directory_.path(), store_, cube_);
    tree_ = std::make_unique<Tree>(*store_, *store_->attributes(), Caching::automatic);
  }

  // What a path below the cube means now.
  Result<std::shared_ptr<Node>> find(const std::string& path) {
    std::shared_ptr<Node> node = std::make_shared<CubeDirectory>(tree_->state_of(cube_));
    for (std::size_t at = 0; at <= path.size();) {
      const std::size_t end = std::min(path.find('/', at), path.size());
      ACCRETE_TRY(node, node->find(std::string_view(path).substr(at, end - at)));
      at = end + 1;
    }
    return node;
  }

  void believe(const std::string& path) {
    const auto found = find(path);
    if (!found.ok()) return;
    const auto lease = (*found)->lease();
    ASSERT_TRUE(lease) << path;
    believed_[path] = {tree_->nodes().enter(*found, 1, path), *lease};
  }

  // Counts the names that are still believed, which must mean what they did, and forgets others.
  std::size_t check(const std::string& after) {
    std::size_t kept = 0;
    for (auto at = believed_.begin(); at != believed_.end();) {
      const auto& [path, was] = *at;
      if (was.lease.names.ground(*cube_->pin().snapshot) == was.lease.ground) {
        ++kept;
        const auto now = find(path);
        EXPECT_TRUE(now.ok()) << path << " after " << after;
        if (!now.ok()) return kept;
        EXPECT_EQ(tree_->nodes().known(*now), was.node) << path << " after " << after;
        ++at;
      } else {
        tree_->nodes().forget(was.node->number(), 1);
        at = believed_.erase(at);
      }
    }
    return kept;
  }

  // A frame whose header says `filter`.
  bool put(const std::string& name, const Shape& shape, const std::string& filter,
           IngestRequest request = {}) {
    std::string card = "FILTER  = '" + filter + "'";
    card.resize(card_length, ' ');
    const FileFace face = format(FormatId::fits).face({DType::i16, shape, {card}, ""});
    return testing::put(*cube_, name,
                        face.header + std::string(face.data_bytes() + face.trailer, '\0'), request)
        .ok();
  }

  TemporaryDirectory directory_;
  std::unique_ptr<Store> store_;
  std::shared_ptr<Cube> cube_;
  std::unique_ptr<Tree> tree_;
  std::map<std::string, Believed> believed_;
};

const std::vector<std::string> paths = [] {
  std::vector<std::string> all;
  for (const std::string name :
       {"slices/xy/z0", "slices/xy/z2", "slices/xy/z5", "slices/xy/x1.._z1", "slices/xy/x0..2_z3",
        "slices/xz/y1", "slices/xz/y1_z0..2", "slices/zx/y0", "slices/yz/x1", "slices/z/x1/y0",
        "slices/z/x1_y2", "slices/x/y1_z1", "slices/xyz/z1..3", "slices/xyz/x0..2", "mask/xy/z1",
        "mask/z/x0/y0", "cube"})
    for (const std::string kind : {".fits", ".npy", ".raw", ".txt"}) all.push_back(name + kind);
  return all;
}();

TEST_F(LeaseTest, PlanesAreTheSameHoweverManyFollow) {
  ASSERT_TRUE(put("f0", {4, 3}, "red"));
  ASSERT_TRUE(put("f1", {4, 3}, "red"));
  for (const std::string& path : paths) believe(path);
  constexpr std::size_t planes = 3 * 4;   // z0, x1.._z1, that of mask/
  constexpr std::size_t columns = 3 * 2;  // raw and text ones are extended
  constexpr std::size_t rows = 4;
  ASSERT_TRUE(put("f2", {4, 3}, "red"));
  EXPECT_GE(check("an append"), planes + columns + rows);
  ASSERT_TRUE(cube_->set_frame_attributes(1, 5, 0600, 1, 1).ok());
  EXPECT_GE(check("a change of times"), planes + columns + rows);
}

TEST_F(LeaseTest, AFrameAtTheSideChangesWhatAllHaveInCommon) {
  ASSERT_TRUE(put("f0", {4, 3}, "red"));
  ASSERT_TRUE(put("f1", {4, 3}, "red"));
  for (const std::string name : {"slices/yz/x1.fits", "slices/yz/x1.npy"}) believe(name);
  IngestRequest east;
  east.axis = 0;
  ASSERT_TRUE(put("strip", {1, 3, 2}, "blue", east));
  EXPECT_EQ(check("a strip"), 1U) << "which has no cards";
}

TEST_F(LeaseTest, OnTheSameGroundANameMeansTheSameUnderRandomHistories) {
  std::mt19937_64 random(testing::seed());
  SCOPED_TRACE("seed " + std::to_string(testing::seed()));
  const auto any = [&](std::uint64_t below) { return random() % below; };
  const auto name = [&] { return "f" + std::to_string(any(12)); };
  const auto filter = [&] { return any(4) == 0 ? "blue" : "red"; };
  std::size_t kept = 0;
  for (int step = 0; step < 1500; ++step) {
    for (int i = 0; i < 12; ++i) believe(paths[any(paths.size())]);
    std::string what;
    IngestRequest request;
    switch (any(13)) {
      case 0:
      case 1:
      case 2:
        what = "append";
        put("a" + std::to_string(step), {4, 3}, filter());
        break;
      case 3:
        what = "append of another size";
        put(name(), {3 + any(3), 2 + any(3)}, filter());
        break;
      case 4:
        what = "prepend";
        request.side = Side::prepend;
        put(name(), {4, 3}, filter(), request);
        break;
      case 5:
        what = "insert";
        request.side = Side::insert;
        request.axis = any(3);
        request.at = any(3);
        put(name(), {2, 2, 2}, filter(), request);
        break;
      case 6:
        what = "strip";
        request.axis = any(2);
        put(name(), {2, 2, 3}, filter(), request);
        break;
      case 7: {
        what = "remove";
        const auto frames = cube_->pin()->frames_in_order(false);
        if (frames.empty()) break;
        const auto row = cube_->pin()->frames.find(frames[any(frames.size())]);
        const std::string gone = cube_->frame_name(*row);
        EXPECT_TRUE(cube_->remove_frame(gone, gone).ok());
        if (any(2) == 0) (void)cube_->discard_frame(gone).ok();
        break;
      }
      case 8: {
        what = "restore";
        const auto frames = cube_->pin()->frames_in_order(true);
        if (frames.empty()) break;
        const auto row = cube_->pin()->frames.find(frames[any(frames.size())]);
        EXPECT_TRUE(cube_->restore_frame(cube_->frame_name(*row), cube_->frame_name(*row)).ok());
        break;
      }
      case 9:
        what = "rename";
        (void)cube_->rename_frame(name(), name()).ok();
        break;
      case 10:
        what = "header";
        (void)cube_->set_property("header", "SEEN    = " + std::to_string(any(3)) + "\n").ok();
        break;
      case 11: {
        what = "cards";
        const auto frames = cube_->pin()->frames_in_order(false);
        if (frames.empty()) break;
        std::string card = "FILTER  = '" + std::string(filter()) + "'";
        card.resize(card_length, ' ');
        EXPECT_TRUE(cube_->set_frame_cards(frames[any(frames.size())], {card}).ok());
        break;
      }
      default:
        what = "settings";
        (void)cube_->set_property("grow", any(2) == 0 ? "z" : "y").ok();
        (void)cube_->set_property("samename", any(2) == 0 ? "replace" : "once").ok();
    }
    kept += check(what);
    if (HasFailure()) return;
  }
  EXPECT_GT(kept, 3000U);
}

}  // namespace
}  // namespace accrete
