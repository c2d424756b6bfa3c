// Why the piece table is right.
//
// Meaning. Write m for the map from logical indexes to coordinates: the concatenation of the runs.
// insert(at, fresh) is m[0, at) + fresh + m[at, …); erase drops a part of m. Neither changes any
// coordinate in what it keeps, and m stays injective because insert refuses coordinates in use. So
// an element, once stored at a coordinate, is found there under whatever index it has by then.
//
// Maximality. Runs a, b that follow each other are merged exactly when a.end() == b.first. An edit
// makes at most one new pair of neighbours at each end of what it puts in or takes out; only those
// need a look:
//   - insertion between two runs: fresh may continue the run before it, the one after it, or both;
//   - insertion within a run: it cuts the run at coordinates c-1 | c. Fresh continues the left part
//     only if it starts at c, the right part only if it ends at c; both are in use. No merge;
//   - removal: what is left of the first and of the last run concerned become neighbours. They
//     continue each other when, for example, what is removed was once inserted there; the runs are
//     then those from before that insertion. Maximal runs of one map are unique: undo is exact.
//
// Epochs. An epoch names a chain of versions (a Lineage), each of which is a prefix of the next.
// A version joins its predecessor's chain only if it is an append *and* moves the chain's extent
// from the predecessor's to its own by compare-and-swap. Extents in a chain are hence strictly
// increasing and each value belongs to one version: of two appends to the same version one stays in
// the chain, the other founds its own. Thus "same chain, extent not greater" implies prefix, also
// when versions are made on several threads or thrown away.
#include "core/axis.h"

#include <string>

namespace accrete {

namespace {

Status check(const Run& run) {
  constexpr std::int64_t most = coordinate_limit;
  if (run.length == 0) return fail(std::errc::invalid_argument, "a run of an axis is empty");
  if (run.first <= -most || run.first >= most ||
      run.length > static_cast<std::uint64_t>(most - run.first))
    return fail(std::errc::invalid_argument, "a run of " + std::to_string(run.length) +
                                                 " coordinates from " + std::to_string(run.first) +
                                                 " leaves the range of coordinates");
  return {};
}

std::string to_string(const Run& run) {
  return std::to_string(run.first) + ".." + std::to_string(run.end());
}

// Merges the elements index - 1 and index where they continue each other.
template <class Runs>
Runs merged_at(const Runs& runs, std::size_t index) {
  if (index == 0 || index >= runs.size()) return runs;
  const Run before = runs.at(index - 1);
  const Run after = runs.at(index);
  if (before.end() != after.first) return runs;
  return runs.erase(index).replace(index - 1, {before.first, before.length + after.length});
}

}  // namespace

Axis Axis::with_fresh_epoch(Runs runs) {
  static std::atomic<std::uint64_t> last_epoch{0};
  if (runs.empty()) return Axis();
  auto lineage = std::make_shared<Lineage>();
  lineage->epoch = last_epoch.fetch_add(1, std::memory_order_relaxed) + 1;
  lineage->extent = runs.total().length;
  return Axis(std::move(runs), std::move(lineage));
}

Result<Axis> Axis::from_runs(std::span<const Run> runs) {
  for (const Run& run : runs) ACCRETE_CHECK(check(run));
  std::vector<Run> by_place(runs.begin(), runs.end());
  std::sort(by_place.begin(), by_place.end(),
            [](const Run& a, const Run& b) { return a.first < b.first; });
  for (std::size_t i = 1; i < by_place.size(); ++i)
    if (by_place[i].first < by_place[i - 1].end())
      return fail(std::errc::invalid_argument, "the runs " + to_string(by_place[i - 1]) + " and " +
                                                   to_string(by_place[i]) + " of an axis overlap");
  std::vector<Run> maximal;
  for (const Run& run : runs) {
    if (!maximal.empty() && maximal.back().end() == run.first)
      maximal.back().length += run.length;
    else
      maximal.push_back(run);
  }
  return with_fresh_epoch(Runs::from_vector(std::move(maximal)));
}

std::uint64_t Axis::extent() const {
  return runs_.total().length;
}

std::size_t Axis::run_count() const {
  return runs_.size();
}

Run Axis::hull() const {
  const Measure total = runs_.total();
  if (total.length == 0) return {};
  return {total.lowest, static_cast<std::uint64_t>(total.highest - total.lowest)};
}

std::pair<std::size_t, std::uint64_t> Axis::locate(std::uint64_t logical) const {
  const std::size_t index =
      runs_.find([logical](const Measure& prefix) { return prefix.length > logical; });
  return {index, runs_.prefix(index).length};
}

bool Axis::uses(const Run& coordinates) const {
  bool found = false;
  runs_.for_where(
      [&](const Measure& m) {
        return !found && m.lowest < coordinates.end() && m.highest > coordinates.first;
      },
      [&](std::size_t, const Run&) { found = true; });
  return found;
}

std::int64_t Axis::physical(std::uint64_t logical) const {
  const auto [index, start] = locate(logical);
  return runs_.at(index).first + static_cast<std::int64_t>(logical - start);
}

std::optional<std::uint64_t> Axis::logical(std::int64_t physical) const {
  std::optional<std::uint64_t> found;
  runs_.for_where(
      [&](const Measure& m) { return !found && m.lowest <= physical && physical < m.highest; },
      [&](std::size_t index, const Run& run) {
        found = runs_.prefix(index).length + static_cast<std::uint64_t>(physical - run.first);
      });
  return found;
}

void Axis::for_runs(Interval range,
                    const std::function<void(std::uint64_t logical, Run run)>& visit) const {
  if (range.empty()) return;
  const auto [begin, first_start] = locate(range.begin);
  const std::size_t last = locate(range.end - 1).first;
  std::uint64_t start = first_start;
  runs_.for_range(begin, last + 1, [&](const Run& run) {
    const std::uint64_t from = std::max(start, range.begin);
    const std::uint64_t to = std::min(start + run.length, range.end);
    visit(from, Run{run.first + static_cast<std::int64_t>(from - start), to - from});
    start += run.length;
  });
}

std::vector<Run> Axis::runs(Interval range) const {
  std::vector<Run> result;
  for_runs(range, [&](std::uint64_t, Run run) { result.push_back(run); });
  return result;
}

Result<Axis> Axis::insert(std::uint64_t at, Run fresh) const {
  ACCRETE_CHECK(check(fresh));
  const std::uint64_t before = extent();
  if (at > before)
    return fail(std::errc::invalid_argument, "index " + std::to_string(at) +
                                                 " lies beyond the extent " +
                                                 std::to_string(before) + " of an axis");
  if (uses(fresh))
    return fail(std::errc::invalid_argument,
                "the coordinates " + to_string(fresh) + " of an axis are in use");

  const auto [index, start] = locate(at);
  if (at > start) {
    const Run cut = runs_.at(index);
    const std::uint64_t left = at - start;
    return with_fresh_epoch(
        runs_.replace(index, {cut.first, left})
            .insert(index + 1, fresh)
            .insert(index + 2, {cut.first + static_cast<std::int64_t>(left), cut.length - left}));
  }
  // Behind first: that does not move what stands before.
  Runs edited = merged_at(merged_at(runs_.insert(index, fresh), index + 1), index);
  std::uint64_t expected = before;
  if (at == before && lineage_ &&
      lineage_->extent.compare_exchange_strong(expected, before + fresh.length))
    return Axis(std::move(edited), lineage_);
  return with_fresh_epoch(std::move(edited));
}

Result<Axis> Axis::erase(Interval range) const {
  if (range.begin > range.end || range.end > extent())
    return fail(std::errc::invalid_argument,
                "the indexes " + std::to_string(range.begin) + ".." + std::to_string(range.end) +
                    " lie beyond the extent " + std::to_string(extent()) + " of an axis");
  if (range.empty()) return *this;

  const auto [first, first_start] = locate(range.begin);
  const auto [last, last_start] = locate(range.end - 1);
  const Run first_run = runs_.at(first);
  const Run last_run = runs_.at(last);
  const Run left{first_run.first, range.begin - first_start};
  const std::uint64_t dropped = range.end - last_start;
  const Run right{last_run.first + static_cast<std::int64_t>(dropped), last_run.length - dropped};

  Runs edited = runs_.erase(first, last + 1);
  if (right.length > 0) edited = edited.insert(first, right);
  if (left.length > 0) edited = edited.insert(first, left);
  return with_fresh_epoch(merged_at(edited, left.length > 0 ? first + 1 : first));
}

bool Axis::is_prefix_of(const Axis& other) const {
  if (extent() == 0) return true;
  return lineage_ == other.lineage_ && extent() <= other.extent();
}

}  // namespace accrete
