// The journal under torn tails, flipped bits and lost marks, against the list of what was appended.

#include "core/journal.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <random>

#include "tests/core/store_fixture.h"

namespace accrete {
namespace {

using testing::TemporaryDirectory;

constexpr std::uint64_t cube = 77;

struct Written {
  RecordKind kind;
  std::string body;  // of a delta
  std::uint64_t end;
  std::uint64_t covers = 0;  // a mark: up to which place of the file
};

class JournalTest : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ = *PosixFile::open(temporary_.path(), O_RDONLY | O_DIRECTORY);
  }

  Journal create(std::uint64_t generation, std::uint64_t sequence, std::uint64_t chain) {
    return std::move(Journal::create(directory_, cube, generation, sequence, chain)).value();
  }

  void append_delta(Journal& journal, std::size_t most = 60) {
    std::string body(random_() % most, '\0');
    for (char& c : body) c = static_cast<char>(random_());
    ASSERT_TRUE(journal.append(RecordKind::delta, body).ok());
    written_.push_back({RecordKind::delta, body, journal.end()});
  }
  void append_mark(Journal& journal, std::uint64_t covers) {
    ASSERT_TRUE(journal.append_mark(covers).ok());
    written_.push_back({RecordKind::mark, "", journal.end(), covers});
  }

  std::vector<std::byte> bytes(std::uint64_t generation) const {
    const PosixFile file = *PosixFile::open_at(directory_, journal_name(generation), O_RDONLY);
    std::vector<std::byte> all(*file.size());
    EXPECT_EQ(*file.read(0, all), all.size());
    return all;
  }

  // What a scan of a file that is right up to `good` must say; `marks`: those of them that are
  // seen.
  void check(const JournalScan& scan, std::uint64_t good) const {
    ASSERT_TRUE(scan.header_good);
    std::size_t whole = 0;
    std::uint64_t covered = 0;
    for (const Written& w : written_)
      if (w.end <= good) {
        ++whole;
        covered = std::max(covered, w.covers);
      }
    ASSERT_EQ(scan.records.size(), whole);
    std::size_t marked = 0;
    for (std::size_t i = 0; i < whole; ++i) {
      ASSERT_EQ(scan.records[i].kind, written_[i].kind);
      ASSERT_EQ(scan.records[i].end, written_[i].end);
      ASSERT_EQ(scan.records[i].sequence, scan.start_sequence + i + 1);
      if (written_[i].kind == RecordKind::delta) {
        ASSERT_EQ(as_text(scan.records[i].body), written_[i].body);
      }
      if (written_[i].end <= covered) ++marked;
    }
    ASSERT_EQ(scan.marked, marked);
  }

  TemporaryDirectory temporary_;
  PosixFile directory_;
  std::mt19937_64 random_{testing::seed()};
  std::vector<Written> written_;
};

TEST_F(JournalTest, ATailTornAtAnyByteLeavesTheWholeRecordsBeforeIt) {
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(testing::seed()));
  Journal journal = create(1, 10, 20);
  std::uint64_t covers = 0;
  for (int n = 0; n < 40; ++n) {
    append_delta(journal);
    if (n % 7 == 3) covers = journal.end();
    if (n % 7 == 5) append_mark(journal, covers);
  }
  const std::vector<std::byte> all = bytes(1);
  ASSERT_EQ(all.size(), journal.end());
  check(scan_journal(all, cube, 1), all.size());
  for (std::size_t length = 0; length < all.size(); ++length) {
    SCOPED_TRACE(length);
    const std::span<const std::byte> cut(all.data(), length);
    const JournalScan scan = scan_journal(cut, cube, 1);
    if (length < 48) {
      ASSERT_FALSE(scan.header_good);
      continue;
    }
    check(scan, length);
    ASSERT_FALSE(scan.corrupt);
    // What stood there before the crash may be anything else.
    std::vector<std::byte> noise(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(length));
    for (int n = 0; n < 100; ++n) noise.push_back(static_cast<std::byte>(random_()));
    const JournalScan noisy = scan_journal(noise, cube, 1);
    ASSERT_GE(noisy.records.size(), scan.records.size());
    ASSERT_LE(noisy.records.size(), scan.records.size() + 1);  // only its padding was missing
    ASSERT_FALSE(noisy.corrupt);
    if (HasFatalFailure()) return;
  }
}

TEST_F(JournalTest, AFlippedBitIsCorruptionWhereAMarkVouchesForItAndElseTheEnd) {
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(testing::seed()));
  Journal journal = create(3, 0, 0);
  std::uint64_t place = 0, covered = 0;
  for (int n = 0; n < 25; ++n) {
    append_delta(journal);
    if (n % 10 == 4) place = journal.end();
    if (n % 10 == 7) append_mark(journal, covered = place);
  }
  const std::vector<std::byte> all = bytes(3);
  for (std::size_t at = 0; at < all.size(); ++at) {
    SCOPED_TRACE(at);
    std::vector<std::byte> flipped = all;
    flipped[at] ^= static_cast<std::byte>(1U << random_() % 8);
    const JournalScan scan = scan_journal(flipped, cube, 3);
    if (at < 48) {
      ASSERT_FALSE(scan.header_good);
      continue;
    }
    std::uint64_t start = 48;
    std::size_t record = 0;
    while (written_[record].end <= at) start = written_[record++].end;
    if (scan.records.size() > record) {  // padding, which no one reads
      ASSERT_EQ(written_[record].kind, RecordKind::delta);
      ASSERT_GE(at, start + 24 + written_[record].body.size());
      check(scan, all.size());
      continue;
    }
    check(scan, start);
    ASSERT_EQ(scan.corrupt, start < covered) << start << " " << covered;
    if (HasFatalFailure()) return;
  }
}

TEST_F(JournalTest, ALostPieceBeforeAMarkIsCorruption) {
  Journal journal = create(1, 0, 0);
  for (int n = 0; n < 10; ++n) append_delta(journal);
  append_mark(journal, journal.end());
  std::vector<std::byte> all = bytes(1);
  // A sector of zeros, the file's length as it was.
  std::fill(all.begin() + 100, all.begin() + 200, std::byte{0});
  EXPECT_TRUE(scan_journal(all, cube, 1).corrupt);
  // The same records in another cube or generation are none.
  EXPECT_FALSE(scan_journal(bytes(1), cube + 1, 1).header_good);
  EXPECT_FALSE(scan_journal(bytes(1), cube, 2).header_good);
}

TEST_F(JournalTest, RecordsOfAnEarlierLifeOfTheFileAreNotTakenForItsOwn) {
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(testing::seed()));
  for (int turn = 0; turn < 40; ++turn) {
    written_.clear();
    Journal first = create(1, 5, 6);
    for (int n = 0; n < 12; ++n) {
      append_delta(first);
      if (n == 4) append_mark(first, first.end());
    }
    const std::vector<std::byte> before = bytes(1);
    const JournalScan scan = scan_journal(before, cube, 1);
    const std::size_t kept = 6 + random_() % 7;
    auto again = Journal::resume(directory_, cube, 1, scan, kept);
    ASSERT_TRUE(again.ok());
    written_.resize(kept);
    for (std::uint64_t n = random_() % 4; n > 0; --n) append_delta(*again);
    const std::vector<std::byte> now = bytes(1);
    check(scan_journal(now, cube, 1), now.size());
    // The cut never reached the disk: the old bytes stand behind the new ones.
    std::vector<std::byte> mixed = before;
    if (mixed.size() < now.size()) mixed.resize(now.size());
    std::copy(now.begin(), now.end(), mixed.begin());
    const JournalScan mixed_scan = scan_journal(mixed, cube, 1);
    EXPECT_FALSE(mixed_scan.corrupt);
    if (written_.size() > kept) check(mixed_scan, now.size());
    if (HasFatalFailure()) return;
  }
}

TEST_F(JournalTest, AChainGoesOnAcrossGenerations) {
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(testing::seed()));
  std::uint64_t sequence = 0, chain = 0;
  for (std::uint64_t generation = 1; generation < 6; ++generation) {
    written_.clear();
    Journal journal = create(generation, sequence, chain);
    EXPECT_EQ(journal.start_sequence(), sequence);
    for (std::uint64_t n = random_() % 5; n > 0; --n) append_delta(journal);
    const auto all = bytes(generation);
    const JournalScan scan = scan_journal(all, cube, generation);
    EXPECT_EQ(scan.start_sequence, sequence);
    EXPECT_EQ(scan.start_chain, chain);
    check(scan, all.size());
    sequence = journal.sequence();
    chain = journal.chain();
    // The same bodies behind another chain are another journal's.
    if (!scan.records.empty()) {
      EXPECT_EQ(scan.records.back().chain, chain);
    }
  }
}

TEST_F(JournalTest, ADamagedHeaderIsDamageOnlyWhereAMarkVouchesForWhatIsBehindIt) {
  Journal journal = create(1, 0, 0);
  append_delta(journal);
  const auto without = bytes(1);
  append_mark(journal, journal.end());
  const auto with = bytes(1);
  for (std::size_t at = 0; at < 48; ++at) {
    SCOPED_TRACE(at);
    for (const auto& all : {without, with}) {
      std::vector<std::byte> damaged = all;
      damaged[at] ^= std::byte{4};
      const JournalScan scan = scan_journal(damaged, cube, 1);
      EXPECT_FALSE(scan.header_good);
      EXPECT_EQ(scan.corrupt, all.size() == with.size());
    }
  }
  EXPECT_FALSE(scan_journal(with, cube, 2).corrupt);  // not that journal's mark
}

TEST_F(JournalTest, LargeRecordsAndTheirMarksComeBack) {
  Journal journal = create(1, 0, 0);
  for (int n = 0; n < 5; ++n) {
    append_delta(journal, 300'000);
    append_mark(journal, journal.end());
  }
  const auto all = bytes(1);
  check(scan_journal(all, cube, 1), all.size());
  EXPECT_EQ(scan_journal(all, cube, 1).marked, written_.size() - 1);
}

TEST_F(JournalTest, RandomBytesAreNoJournalAndHarmNobody) {
  SCOPED_TRACE("ACCRETE_SEED=" + std::to_string(testing::seed()));
  Journal journal = create(1, 0, 0);
  for (int n = 0; n < 10; ++n) append_delta(journal);
  append_mark(journal, journal.end());
  const auto all = bytes(1);
  for (int turn = 0; turn < 3000; ++turn) {
    std::vector<std::byte> hostile = all;
    for (std::uint64_t n = 1 + random_() % 20; n > 0; --n)
      hostile[48 + random_() % (hostile.size() - 48)] = static_cast<std::byte>(random_());
    hostile.resize(random_() % (hostile.size() + 1));
    const JournalScan scan = scan_journal(hostile, cube, 1);
    for (std::size_t i = 0; i < scan.records.size(); ++i)
      ASSERT_EQ(scan.records[i].end, written_[i].end);
  }
}

}  // namespace
}  // namespace accrete
