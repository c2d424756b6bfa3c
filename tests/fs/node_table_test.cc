#include "fs/node_table.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <random>
#include <set>

namespace accrete {
namespace {

class PlainNode : public Node {
 public:
  explicit PlainNode(std::uint64_t word, bool trimmable = false)
      : Node(identity(word)), trimmable_(trimmable) {}
  static Identity identity(std::uint64_t word) { return Identity(NodeKind::property).add(word); }
  Result<struct stat> attributes() override {
    struct stat none {};
    return none;
  }
  bool trimmable() const override { return trimmable_; }

 private:
  const bool trimmable_;
};

std::shared_ptr<Node> plain(std::uint64_t word) {
  return std::make_shared<PlainNode>(word);
}

NodeTable table_with_root() {
  return NodeTable(plain(~std::uint64_t{0}));
}

unsigned seed() {
  const char* text = std::getenv("ACCRETE_SEED");
  return text == nullptr ? 20240607u : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
}

TEST(NodeTable, TheRootIsNumberOneAndStays) {
  NodeTable table = table_with_root();
  ASSERT_NE(table.find(1), nullptr);
  table.forget(1, 1000);
  EXPECT_NE(table.find(1), nullptr);
  EXPECT_EQ(table.size(), 1u);
}

TEST(NodeTable, EqualIdentitiesAreOneNode) {
  NodeTable table = table_with_root();
  const auto first = table.enter(plain(7), 1, "a");
  const auto again = table.enter(plain(7), 1, "alias");
  EXPECT_EQ(first, again);
  EXPECT_EQ(table.known(plain(7)), first);
  EXPECT_NE(table.enter(plain(8), 1, "b")->number(), first->number());
}

TEST(NodeTable, ANodeLeavesWithItsLastLookupAndItsNumberNeverComesBack) {
  NodeTable table = table_with_root();
  const std::uint64_t number = table.enter(plain(7), 1, "a")->number();
  table.enter(plain(7), 1, "a");
  table.forget(number, 1);
  EXPECT_NE(table.find(number), nullptr);
  table.forget(number, 1);
  EXPECT_EQ(table.find(number), nullptr);
  const std::uint64_t next = table.enter(plain(7), 1, "a")->number();
  EXPECT_NE(next, number);
  EXPECT_EQ(NodeNumber::from(next).slot, NodeNumber::from(number).slot) << "slots are used again";
  EXPECT_EQ(table.find(number), nullptr);
}

TEST(NodeTable, ForgettingTooOftenOrUnknownNumbersIsHarmless) {
  NodeTable table = table_with_root();
  const std::uint64_t number = table.enter(plain(7), 1, "a")->number();
  table.forget(number, 5);
  table.forget(number, 1);
  table.forget(999, 1);
  EXPECT_EQ(table.size(), 1u);
}

TEST(NodeTable, ARenamedNodeIsFoundByItsNewIdentityOnly) {
  NodeTable table = table_with_root();
  const auto node = table.enter(plain(7), 1, "a");
  table.rename(*node, PlainNode::identity(8));
  EXPECT_EQ(node->ino(), PlainNode::identity(8).ino());
  EXPECT_EQ(table.enter(plain(8), 1, "b"), node);
  EXPECT_NE(table.enter(plain(7), 1, "a"), node);
}

TEST(NodeTable, ARenameOntoATakenIdentityLeavesBothNodes) {
  NodeTable table = table_with_root();
  const auto a = table.enter(plain(7), 1, "a");
  const auto b = table.enter(plain(8), 1, "b");
  table.rename(*a, PlainNode::identity(8));
  EXPECT_EQ(table.find(a->number()), a);
  EXPECT_EQ(table.enter(plain(8), 1, "b"), b);
  table.forget(a->number(), 1);
  EXPECT_EQ(table.enter(plain(8), 1, "b"), b);
}

TEST(NodeTable, IdleNamesAreThoseOfTrimmableNodesThatAreNotOpen) {
  NodeTable table = table_with_root();
  table.enter(plain(1), 1, "kept");
  const auto open = table.enter(std::make_shared<PlainNode>(2, true), 1, "open");
  open->opens = 1;
  table.enter(std::make_shared<PlainNode>(3, true), 1, "idle");
  const auto names = table.idle_names(10);
  ASSERT_EQ(names.size(), 1u);
  EXPECT_EQ(names[0].name, "idle");
  EXPECT_EQ(names[0].parent, 1u);
  EXPECT_TRUE(table.idle_names(10).empty()) << "it was named already";
  table.enter(std::make_shared<PlainNode>(3, true), 1, "again");
  EXPECT_EQ(table.idle_names(10).size(), 1u);
}

TEST(NodeTable, BehavesAsAMapWithCounts) {
  std::mt19937 random(seed());
  SCOPED_TRACE("seed " + std::to_string(seed()));
  NodeTable table = table_with_root();
  struct Known {
    std::uint64_t number;
    std::uint64_t lookups;
  };
  std::map<std::uint64_t, Known> model;  // by identity
  std::set<std::uint64_t> used;
  for (int step = 0; step < 20000; ++step) {
    const std::uint64_t word = random() % 50;
    const auto at = model.find(word);
    if (random() % 2 == 0) {
      const std::uint64_t number = table.enter(plain(word), 1, "n")->number();
      if (at == model.end()) {
        ASSERT_TRUE(used.insert(number).second) << "number " << number << " was used before";
        model[word] = {number, 1};
      } else {
        ASSERT_EQ(number, at->second.number);
        ++at->second.lookups;
      }
    } else if (at != model.end()) {
      const std::uint64_t count = 1 + random() % at->second.lookups;
      table.forget(at->second.number, count);
      at->second.lookups -= count;
      ASSERT_EQ(table.find(at->second.number) != nullptr, at->second.lookups != 0);
      if (at->second.lookups == 0) model.erase(at);
    }
    ASSERT_EQ(table.size(), model.size() + 1);
  }
}

}  // namespace
}  // namespace accrete
