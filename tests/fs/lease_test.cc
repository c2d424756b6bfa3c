// What a lease promises: while its class has the same ground, its name means the same inode, and
// the attributes are the same.

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
  struct BelievedAttributes {
    std::shared_ptr<Node> node;
    Lease lease;
    bool is_frame;
    struct stat attributes;
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

  void believe_attributes(const std::string& path) {
    const auto found = find(path);
    if (!found.ok()) return;
    const std::shared_ptr<Node> node = tree_->nodes().enter(*found, 1, path);
    const Node::AttributeBelief belief = node->attribute_belief();
    const auto attributes = node->attributes();
    ASSERT_TRUE(attributes.ok()) << path;
    if (belief.lease)
      attributes_.push_back({node, *belief.lease, path.starts_with("frames/"), *attributes});
    else
      tree_->nodes().forget(node->number(), 1);
  }

  // The same for attributes. Of a view that is its size: its time is believed for a second.
  std::size_t check_attributes(const std::string& after) {
    std::size_t kept = 0;
    std::erase_if(attributes_, [&](const BelievedAttributes& was) {
      if (was.lease.of.ground(*cube_->pin().snapshot) != was.lease.ground) {
        tree_->nodes().forget(was.node->number(), 1);
        return true;
      }
      ++kept;
      const auto now = was.node->attributes();
      EXPECT_TRUE(now.ok()) << "after " << after;
      EXPECT_EQ(now->st_size, was.attributes.st_size) << "after " << after;
      EXPECT_EQ(now->st_mode, was.attributes.st_mode) << "after " << after;
      EXPECT_EQ(now->st_uid, was.attributes.st_uid) << "after " << after;
      EXPECT_EQ(now->st_nlink, was.attributes.st_nlink) << "after " << after;
      if (was.is_frame) {
        EXPECT_EQ(now->st_mtim.tv_sec, was.attributes.st_mtim.tv_sec) << "after " << after;
        EXPECT_EQ(now->st_mtim.tv_nsec, was.attributes.st_mtim.tv_nsec) << "after " << after;
      }
      return false;
    });
    return kept;
  }

  // Counts the names that are still believed, which must mean what they did, and forgets others.
  std::size_t check(const std::string& after) {
    std::size_t kept = 0;
    for (auto at = believed_.begin(); at != believed_.end();) {
      const auto& [path, was] = *at;
      if (was.lease.of.ground(*cube_->pin().snapshot) == was.lease.ground) {
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
  std::vector<BelievedAttributes> attributes_;
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

TEST_F(LeaseTest, AttributesOfFramesStayWhenOthersCome) {
  ASSERT_TRUE(put("f0", {4, 3}, "red"));
  ASSERT_TRUE(put("f1", {4, 3}, "red"));
  for (const std::string path : {"frames/f0", "frames/f1", "slices/z/x1_y2.raw"})
    believe_attributes(path);
  ASSERT_EQ(attributes_.size(), 3U);
  ASSERT_TRUE(put("f2", {4, 3}, "red"));
  EXPECT_EQ(check_attributes("an append"), 2U) << "the column grows";
  ASSERT_TRUE(cube_->set_frame_attributes(1, 5, 0600, 1, 1).ok());
  EXPECT_EQ(check_attributes("a change of mode"), 0U);
}

TEST_F(LeaseTest, OnTheSameGroundANameMeansTheSameUnderRandomHistories) {
  std::mt19937_64 random(testing::seed());
  SCOPED_TRACE("seed " + std::to_string(testing::seed()));
  const auto any = [&](std::uint64_t below) { return random() % below; };
  const auto name = [&] { return "f" + std::to_string(any(12)); };
  const auto filter = [&] { return any(4) == 0 ? "blue" : "red"; };
  std::size_t kept = 0;
  std::size_t kept_attributes = 0;
  for (int step = 0; step < 1500; ++step) {
    for (int i = 0; i < 12; ++i) believe(paths[any(paths.size())]);
    for (int i = 0; i < 4; ++i) believe_attributes(paths[any(paths.size())]);
    for (int i = 0; i < 4; ++i) believe_attributes("frames/" + name());
    for (int i = 0; i < 4 && step > 0; ++i)
      believe_attributes("frames/a" + std::to_string(any(step)));
    std::string what;
    IngestRequest request;
    switch (any(14)) {
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
      case 12: {
        what = "attributes";
        const auto frames = cube_->pin()->frames_in_order(any(4) == 0);
        if (frames.empty()) break;
        EXPECT_TRUE(cube_
                        ->set_frame_attributes(frames[any(frames.size())], any(3), 0600 + any(8),
                                               any(3), any(3))
                        .ok());
        break;
      }
      default:
        what = "settings";
        (void)cube_->set_property("grow", any(2) == 0 ? "z" : "y").ok();
        (void)cube_->set_property("samename", any(2) == 0 ? "replace" : "once").ok();
    }
    kept += check(what);
    kept_attributes += check_attributes(what);
    if (HasFailure()) return;
  }
  EXPECT_GT(kept, 3000U);
  EXPECT_GT(kept_attributes, 3000U);
}

}  // namespace
}  // namespace accrete
