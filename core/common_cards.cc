#include "core/common_cards.h"

#include <map>

#include "core/bytes.h"
#include "core/checksum.h"
#include "core/wcs.h"

namespace accrete {

namespace {

// Seeds that keep kinds of facts apart.
enum : std::uint64_t { alternate_fact = 1ull << 32, start_fact = 2ull << 32 };

// Frames of one run on each axis that begin at one coordinate have the same indexes as far as they
// reach. Where there are more runs, something stands between indexes that other frames may have as
// neighbours: only frames with the very same runs are alike then.
Fact start_of(const FrameRow& row, std::size_t axis) {
  ByteWriter out;
  out.put(row.first[axis]);
  if (row.runs.length > 0) out.put(row.runs.sum);
  return checksum(as_bytes(out.bytes()), start_fact + axis);
}

// One of each card, told by how often it came before.
std::vector<Fact> card_facts(const std::vector<std::string>& cards) {
  std::vector<Fact> facts;
  std::unordered_map<Fact, std::uint32_t> seen;
  for (const std::string& card : cards) {
    const Fact text = checksum(as_bytes(card));
    const std::uint32_t times = seen[text]++;
    facts.push_back(times == 0 ? text : checksum(as_bytes(card), times));
  }
  return facts;
}

std::map<char, Fact> alternate_facts(const std::vector<std::string>& cards) {
  std::map<char, std::string> texts;
  for (const std::string& card : cards)
    if (const auto alternate = alternate_of(card)) texts[*alternate] += card;
  std::map<char, Fact> facts;
  for (const auto& [alternate, text] : texts)
    facts[alternate] = checksum(as_bytes(text), alternate_fact);
  return facts;
}

}  // namespace

std::vector<Fact> facts_of(const std::vector<std::string>& cards, const FrameRow& row) {
  std::vector<Fact> facts = card_facts(cards);
  for (const auto& [alternate, fact] : alternate_facts(cards)) facts.push_back(fact);
  for (std::size_t axis = 0; axis < row.first.size(); ++axis) facts.push_back(start_of(row, axis));
  return facts;
}

void FactCounts::add(const std::vector<Fact>& facts) {
  ++frames_;
  for (const Fact fact : facts) ++counts_[fact];
}

void FactCounts::remove(const std::vector<Fact>& facts) {
  --frames_;
  for (const Fact fact : facts) {
    const auto found = counts_.find(fact);
    if (found != counts_.end() && --found->second == 0) counts_.erase(found);
  }
}

bool FactCounts::all_have(Fact fact) const {
  const auto found = counts_.find(fact);
  return found != counts_.end() && found->second == frames_;
}

CommonCards common_cards(const FactCounts& counts, const std::vector<std::string>& cards,
                         const FrameRow& frame) {
  CommonCards common;
  common.frame = frame;
  const std::vector<Fact> facts = card_facts(cards);
  const std::map<char, Fact> alternates = alternate_facts(cards);
  ByteWriter version;
  version.put(frame.id);
  for (std::size_t i = 0; i < cards.size(); ++i) {
    const auto alternate = alternate_of(cards[i]);
    const bool is_common =
        counts.all_have(facts[i]) && (!alternate || counts.all_have(alternates.at(*alternate)));
    if (!is_common) continue;
    common.cards.push_back(cards[i]);
    version.put(facts[i]);
  }
  for (std::size_t axis = 0; axis < frame.first.size(); ++axis) {
    const bool same = counts.all_have(start_of(frame, axis));
    common.same_start.push_back(same);
    version.put(same ? start_of(frame, axis) : Fact{0});
  }
  common.version = checksum(as_bytes(version.bytes()));
  return common;
}

}  // namespace accrete
