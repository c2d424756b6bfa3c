#include "core/coverage.h"

#include <algorithm>

namespace accrete {

Coverage::Coverage(const std::vector<Run>& runs) {
  std::vector<Change> changes;
  for (const Run& run : runs) {
    changes.push_back({run.first, 1});
    changes.push_back({run.end(), -1});
  }
  std::sort(changes.begin(), changes.end(),
            [](const Change& a, const Change& b) { return a.at < b.at; });
  std::vector<Change> sums;
  for (const Change& change : changes) {
    if (!sums.empty() && sums.back().at == change.at)
      sums.back().by += change.by;
    else
      sums.push_back(change);
  }
  std::erase_if(sums, [](const Change& c) { return c.by == 0; });
  changes_ = decltype(changes_)::from_vector(std::move(sums));
}

Coverage Coverage::change(std::int64_t at, std::int64_t by) const {
  Coverage next;
  const std::size_t i = changes_.partition_point([at](const Change& c) { return c.at < at; });
  if (i == changes_.size() || changes_.at(i).at != at)
    next.changes_ = changes_.insert(i, {at, by});
  else if (const std::int64_t sum = changes_.at(i).by + by; sum != 0)
    next.changes_ = changes_.replace(i, {at, sum});
  else
    next.changes_ = changes_.erase(i);
  return next;
}

std::vector<Run> Coverage::uncovered(Run run) const {
  const std::size_t begin =
      changes_.partition_point([&](const Change& c) { return c.at <= run.first; });
  const std::size_t end =
      changes_.partition_point([&](const Change& c) { return c.at < run.end(); });
  std::int64_t count = changes_.prefix(begin).total;
  std::int64_t from = run.first;
  std::vector<Run> found;
  const auto close = [&](std::int64_t to) {
    if (count == 0 && from < to) found.push_back({from, static_cast<std::uint64_t>(to - from)});
    from = to;
  };
  changes_.for_range(begin, end, [&](const Change& change) {
    close(change.at);
    count += change.by;
  });
  close(run.end());
  return found;
}

CubeCoverage CubeCoverage::of(const Snapshot& snapshot,
                              const std::function<FrameRuns(const FrameRow&)>& runs_of) {
  PerAxis<std::vector<Run>> live(snapshot.axes.size());
  PerAxis<std::vector<Run>> held(snapshot.axes.size());
  snapshot.places.for_range(0, snapshot.places.size(), [&](const Snapshot::Place& place) {
    const auto row = snapshot.frames.find(place.id);
    if (!row) return;
    const FrameRuns runs = runs_of(*row);
    for (std::size_t a = 0; a < runs.size(); ++a) {
      held[a].insert(held[a].end(), runs[a].begin(), runs[a].end());
      if (!place.removed) live[a].insert(live[a].end(), runs[a].begin(), runs[a].end());
    }
  });
  CubeCoverage coverage;
  for (std::size_t a = 0; a < live.size(); ++a) {
    coverage.live.push_back(Coverage(live[a]));
    coverage.held.push_back(Coverage(held[a]));
  }
  return coverage;
}

CubeCoverage CubeCoverage::moved(const FrameRuns& runs, FrameState from, FrameState to) const {
  CubeCoverage next = *this;
  const auto update = [&](PerAxis<Coverage>& coverage, bool before, bool after) {
    if (before == after) return;
    if (coverage.size() != runs.size()) coverage = PerAxis<Coverage>(runs.size());
    for (std::size_t a = 0; a < runs.size(); ++a)
      for (const Run& run : runs[a])
        coverage[a] = after ? coverage[a].add(run) : coverage[a].remove(run);
  };
  update(next.live, from == FrameState::live, to == FrameState::live);
  update(next.held, from != FrameState::gone, to != FrameState::gone);
  return next;
}

}  // namespace accrete
