// What is taken of pages that come back from mappings while changes are still being told.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "core/poke.h"
#include "core/posix_file.h"
#include "tests/core/store_fixture.h"

namespace accrete {
namespace {

using Values = std::vector<std::uint32_t>;
using Ticket = RecentValues::Ticket;

constexpr PokeOrigin a_write{};
constexpr PokeOrigin page_of_a{7};
constexpr PokeOrigin page_of_b{8};

// The elements of a range as a program has them, in the coding at rest.
class WholeEdit final : public ElementEdit {
 public:
  explicit WholeEdit(Values values) : values_(std::move(values)) {}
  Status apply(const std::byte*, std::byte* now) override {
    std::memcpy(now, values_.data(), values_.size() * sizeof(std::uint32_t));
    return {};
  }
  bool leaves(std::uint64_t i, const std::byte* element) const override {
    return std::memcmp(element, &values_[i], sizeof(std::uint32_t)) == 0;
  }

 private:
  Values values_;
};

class RecentValuesTest : public ::testing::Test {
 protected:
  RecentValuesTest() {
    store_ = *Store::open(directory_.path(), {});
    cube_ = *store_->create("c");
    const Values zeros(4, 0);
    const auto bytes = std::as_bytes(std::span(zeros));
    EXPECT_TRUE(testing::put(*cube_, "f.npy",
                             testing::frame_file(FormatId::npy, DType::u32, Shape{4, 1},
                                                 {bytes.begin(), bytes.end()}))
                    .ok());
    view_ = *View::whole(cube_->pin()->axes);
  }

  Ticket poke(const Values& values, PokeOrigin origin) {
    WholeEdit edit(values);
    Ticket former;
    EXPECT_TRUE(cube_->poke(cube_->pin(), *view_, {0, values.size()}, edit, origin, former).ok());
    return former;
  }
  Values shown() const {
    const std::vector<std::byte> bytes = testing::read_all(*cube_, *view_);
    Values values(bytes.size() / sizeof(std::uint32_t));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }

  testing::TemporaryDirectory directory_;
  std::unique_ptr<Store> store_;
  std::shared_ptr<Cube> cube_;
  std::optional<View> view_;
};

TEST_F(RecentValuesTest, StaleNeighboursInAPageAreNotTaken) {
  const Ticket told = poke({0, 1, 0, 0}, a_write);
  poke({5, 0, 0, 0}, page_of_a);
  EXPECT_EQ(shown(), (Values{5, 1, 0, 0}));
}

TEST_F(RecentValuesTest, WhenAllIsToldAPageBringsOnlyStores) {
  poke({0, 1, 0, 0}, a_write);
  poke({5, 0, 0, 0}, page_of_a);
  EXPECT_EQ(shown(), (Values{5, 0, 0, 0}));
}

TEST_F(RecentValuesTest, APageThatBroughtTheNewerValueMayBringTheFormerOneAgain) {
  const Ticket first = poke({1, 0, 0, 0}, page_of_a);
  const Ticket second = poke({0, 0, 0, 0}, page_of_a);
  EXPECT_EQ(shown(), (Values{0, 0, 0, 0}));
  poke({1, 0, 3, 0}, page_of_b);  // stale: from between the two
  EXPECT_EQ(shown(), (Values{0, 0, 3, 0}));
}

TEST_F(RecentValuesTest, OnlyWhatHasChangedIsRemembered) {
  const Ticket other = poke({9, 0, 0, 0}, page_of_b);
  poke({9, 1, 0, 0}, a_write);  // told at once
  poke({9, 0, 0, 0}, page_of_a);
  EXPECT_EQ(shown(), (Values{9, 0, 0, 0}));
}

TEST_F(RecentValuesTest, WhatChangesNothingIsToldAsLongAsAnythingIs) {
  EXPECT_EQ(poke({0, 0, 0, 0}, a_write), nullptr);
  Ticket told = poke({1, 0, 0, 0}, a_write);
  EXPECT_NE(poke({1, 0, 0, 0}, a_write), nullptr) << "others may still see what was before";
  EXPECT_NE(poke({0, 0, 0, 0}, page_of_a), nullptr) << "the page still shows what was dropped";
  EXPECT_EQ(shown(), (Values{1, 0, 0, 0}));
  told.reset();
  EXPECT_EQ(poke({1, 0, 0, 0}, a_write), nullptr);
}

TEST_F(RecentValuesTest, AReplacementThatChangesNothingIsToldAsLongAsAnythingIs) {
  const Values zeros(4, 0);
  const auto directory = PosixFile::open(directory_.path(), O_RDONLY | O_DIRECTORY);
  ASSERT_TRUE(directory.ok());
  const auto file = PosixFile::unnamed_in(*directory);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(file->write(0, std::as_bytes(std::span(zeros))).ok());
  const auto replace = [&] {
    Ticket former;
    EXPECT_TRUE(cube_->replace(cube_->pin(), *view_, *file, former).ok());
    return former;
  };
  EXPECT_EQ(replace(), nullptr);
  const Ticket told = poke({0, 1, 0, 0}, page_of_b);
  EXPECT_NE(replace(), nullptr);
  EXPECT_NE(replace(), nullptr);
  EXPECT_EQ(shown(), zeros);
}

}  // namespace
}  // namespace accrete
