#include "fs/node_table.h"

#include <gtest/gtest.h>

#include <algorithm>
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

// A snapshot of two axes, as far as names look at it.
Snapshot grown_to(std::uint64_t x, std::uint64_t y, std::uint64_t revision = 0) {
  Snapshot snapshot;
  snapshot.revision = revision;
  for (const std::uint64_t extent : {x, y})
    snapshot.axes.push_back(*Axis::from_runs(std::vector<Run>{{0, extent}}));
  return snapshot;
}

// Of a name of cube 1 that reaches to the ends of these axes (bits).
Lease lease_of(std::uint64_t axes, const Snapshot& snapshot) {
  Lease::Class names{1};
  names.axes = axes;
  return {names, names.ground(snapshot)};
}

Lease attribute_lease_of(std::uint64_t axes, const Snapshot& snapshot) {
  Lease::Class attributes = lease_of(axes, snapshot).of;
  attributes.of_attributes = true;
  return {attributes, attributes.ground(snapshot)};
}

std::vector<std::string> revoked(NodeTable& table, const Snapshot& now, std::uint64_t cube = 1) {
  const bool must = table.must_revoke(cube, now);
  std::vector<std::string> names;
  for (const NodeTable::Name& name : table.revoke(cube, now).names) names.push_back(name.name);
  EXPECT_EQ(must, !names.empty());
  EXPECT_FALSE(table.must_revoke(cube, now));
  return names;
}

using Names = std::vector<std::string>;

TEST(NodeTable, NamesAreRevokedOnceTheGroundTheyRestOnIsAnother) {
  NodeTable table = table_with_root();
  const Snapshot before = grown_to(3, 5);
  const auto in_x = table.enter(plain(1), 1, "in x");
  const auto in_y = table.enter(plain(2), 1, "in y");
  EXPECT_TRUE(table.grant_name(*in_x, 1, "in x", lease_of(1, before)));
  EXPECT_TRUE(table.grant_name(*in_y, 1, "in y", lease_of(2, before)));
  EXPECT_TRUE(table.grant_name(*in_y, 1, "in y", lease_of(2, before))) << "it was looked up again";
  EXPECT_EQ(revoked(table, before), Names());
  EXPECT_EQ(revoked(table, grown_to(3, 6)), Names{"in y"});
  EXPECT_EQ(revoked(table, grown_to(3, 6)), Names());
  EXPECT_EQ(revoked(table, grown_to(3, 6, 1), 2), Names()) << "another cube";
  EXPECT_EQ(revoked(table, grown_to(3, 6, 1)), Names{"in x"});
}

TEST(NodeTable, NoNameIsBelievedOnTheGroundOfBeforeOrAfterThoseThatAreStillToBeRevoked) {
  NodeTable table = table_with_root();
  const auto a = table.enter(plain(1), 1, "a");
  const auto b = table.enter(plain(2), 1, "b");
  EXPECT_TRUE(table.grant_name(*a, 1, "a", lease_of(1, grown_to(3, 5))));
  EXPECT_FALSE(table.grant_name(*b, 1, "b", lease_of(1, grown_to(4, 5))));
  EXPECT_FALSE(table.grant_name(*a, 1, "a", lease_of(1, grown_to(4, 5))));
  EXPECT_EQ(revoked(table, grown_to(4, 5)), Names{"a"});
  EXPECT_TRUE(table.grant_name(*b, 1, "b", lease_of(1, grown_to(4, 5))));
  EXPECT_FALSE(table.grant_name(*a, 1, "a", lease_of(1, grown_to(3, 5))));
}

TEST(NodeTable, ANodeIsBelievedByOneNameWhichItsAliasesDoNotTakeFromIt) {
  NodeTable table = table_with_root();
  const Snapshot before = grown_to(3, 5);
  const auto node = table.enter(std::make_shared<PlainNode>(1, true), 1, "name");
  EXPECT_TRUE(table.grant_name(*node, 1, "name", lease_of(1, before)));
  table.enter(std::make_shared<PlainNode>(1, true), 1, "alias");
  EXPECT_FALSE(table.grant_name(*node, 1, "alias", lease_of(1, before)));
  ASSERT_EQ(table.idle_names(10).size(), 1u);
  EXPECT_EQ(revoked(table, grown_to(4, 5)), Names{"name"})
      << "also when the kernel was asked to let go of it, which takes its time";
}

TEST(NodeTable, WhatIsForgottenIsNotRevoked) {
  NodeTable table = table_with_root();
  const Snapshot before = grown_to(3, 5);
  std::vector<std::uint64_t> numbers;
  for (std::uint64_t word = 0; word < 5; ++word) {
    const std::string name = std::to_string(word);
    const auto node = table.enter(plain(word), 1, name);
    EXPECT_TRUE(table.grant_name(*node, 1, name, lease_of(1, before)));
    numbers.push_back(node->number());
  }
  for (const std::size_t gone : {4u, 1u, 0u}) table.forget(numbers[gone], 1);
  const auto other = table.enter(plain(10), 1, "other");
  EXPECT_TRUE(table.grant_name(*other, 1, "other", lease_of(2, before)));
  Names names = revoked(table, grown_to(4, 5));
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, (Names{"2", "3"}));
  EXPECT_EQ(revoked(table, grown_to(4, 6)), Names{"other"});
}

TEST(NodeTable, AttributesAreRevokedApartFromNames) {
  NodeTable table = table_with_root();
  const Snapshot before = grown_to(3, 5);
  const auto a = table.enter(plain(1), 1, "a");
  const auto b = table.enter(plain(2), 1, "b");
  const auto c = table.enter(plain(3), 1, "c");
  EXPECT_TRUE(table.grant_name(*a, 1, "a", lease_of(1, before)));
  for (const auto& node : {a, b, c})
    EXPECT_TRUE(table.grant_attributes(*node, attribute_lease_of(2, before)));
  EXPECT_TRUE(table.grant_attributes(*a, attribute_lease_of(2, before))) << "it was asked again";
  EXPECT_FALSE(table.must_revoke(1, before));
  table.forget(a->number(), 1);
  const Snapshot in_y = grown_to(3, 6);
  EXPECT_FALSE(table.grant_attributes(*b, attribute_lease_of(2, in_y)));
  EXPECT_TRUE(table.must_revoke(1, in_y));
  const NodeTable::Revoked revoked = table.revoke(1, in_y);
  EXPECT_TRUE(revoked.names.empty());
  std::set<std::uint64_t> numbers;
  for (const NodeTable::RevokedAttributes& each : revoked.attributes) numbers.insert(each.node);
  EXPECT_EQ(numbers, (std::set<std::uint64_t>{b->number(), c->number()}));
  EXPECT_EQ(revoked.attributes.size(), 2U);
  EXPECT_FALSE(table.must_revoke(1, in_y));
  EXPECT_TRUE(table.grant_attributes(*b, attribute_lease_of(2, in_y)));
}

std::uint64_t only_attributes(NodeTable& table, const Snapshot& snapshot) {
  const NodeTable::Revoked revoked = table.revoke(1, snapshot);
  return revoked.attributes.size() == 1 ? revoked.attributes[0].node : 0;
}

TEST(NodeTable, WhatIsNotedOfFramesIsGroundForTheirAttributes) {
  NodeTable table = table_with_root();
  Snapshot snapshot = grown_to(3, 5);
  const auto frame = table.enter(plain(1), 1, "frame");
  const auto view = table.enter(plain(2), 1, "view");
  Lease of_frame = attribute_lease_of(0, snapshot);
  of_frame.of.of_rows = true;
  EXPECT_TRUE(table.grant_attributes(*frame, of_frame));
  EXPECT_TRUE(table.grant_attributes(*view, attribute_lease_of(1, snapshot)));
  ++snapshot.row_changes;
  EXPECT_EQ(only_attributes(table, snapshot), frame->number());
  EXPECT_TRUE(table.grant_attributes(*frame, {of_frame.of, of_frame.of.ground(snapshot)}));
  ++snapshot.revision;
  EXPECT_EQ(only_attributes(table, snapshot), view->number());
}

TEST(NodeTable, AnAnswerOnItsWayGivesAttributesOnlyWhereTheyCanBeRevoked) {
  NodeTable table = table_with_root();
  Snapshot snapshot = grown_to(3, 5);
  const Lease of_view = attribute_lease_of(1, snapshot);
  Lease of_frame = attribute_lease_of(0, snapshot);
  of_frame.of.of_rows = true;
  // By the name that it is found as.
  const auto view = table.enter(plain(1), 1, "view");
  EXPECT_FALSE(table.grant_attributes(*view, 1, "alias", of_view));
  EXPECT_TRUE(table.grant_attributes(*view, 1, "view", of_view));
  table.enter(plain(1), 7, "view");
  EXPECT_FALSE(table.grant_attributes(*view, 7, "view", of_view));
  ++snapshot.revision;
  const NodeTable::Revoked revoked = table.revoke(1, snapshot);
  ASSERT_EQ(revoked.attributes.size(), 1U);
  EXPECT_EQ(revoked.attributes[0].name.parent, 1U);
  EXPECT_EQ(revoked.attributes[0].name.name, "view");
  // Nor does another name take that one's place.
  const auto other = table.enter(plain(3), 1, "other");
  EXPECT_TRUE(table.grant_attributes(*other, 1, "other", attribute_lease_of(1, snapshot)));
  EXPECT_FALSE(table.grant_name(*other, 1, "alias", lease_of(1, snapshot)));
  EXPECT_TRUE(table.grant_name(*other, 1, "other", lease_of(1, snapshot)));
  // Names of frames are not revoked.
  const auto frame = table.enter(plain(2), 1, "frame");
  EXPECT_FALSE(table.grant_attributes(*frame, 1, "frame", of_frame));
  EXPECT_TRUE(table.grant_attributes(*frame, of_frame));
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
