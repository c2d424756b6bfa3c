// Why the piece table is right.
//
// Meaning. Write m for the sequence of all coordinates, dormant ones included: the concatenation of
// the runs. insert(p, fresh) is m[0, p) + fresh + m[p, …); drop removes a part of m, move is a
// removal and an insertion of the same coordinates, hide and show leave m as it is. None changes
// any coordinate in what it keeps, and m stays injective because insert refuses coordinates in use.
// The map from logical indexes is m without its dormant coordinates. So an element, once stored at
// a coordinate, is found there under whatever index it has by then; and as m is not changed by hide
// and show, what comes back takes its old place among all that stayed, came or moved meanwhile.
//
// Maximality. Pieces a, b that follow each other are merged exactly when a.end() == b.first and
// both are dormant or both are not. An edit makes new pairs of neighbours only at the ends of the
// pieces it puts in, takes out or changes; only those need a look:
//   - insertion between two pieces: fresh may continue the one before it, the one after it, or
//   both;
//   - insertion within a piece: it cuts it at coordinates c-1 | c. Fresh continues the left part
//   only
//     if it starts at c, the right part only if it ends at c; both are in use. No merge;
//   - removal: what is left of the first and of the last piece concerned become neighbours. They
//     continue each other when, for example, what is removed was once inserted there; the pieces
//     are then those from before that insertion. Maximal pieces of one map are unique: undo is
//     exact;
//   - a change of state: each changed part against the piece before and the one behind it.
//
// Epochs. An epoch names a chain of versions (a Lineage), each of which is a prefix of the next.
// A version joins its predecessor's chain only if it is an append *and* moves the chain's extent
// from the predecessor's to its own by compare-and-swap. Extents in a chain are hence strictly
// increasing and each value belongs to one version: of two appends to the same version one stays in
// the chain, the other founds its own. Thus "same chain, extent not greater" implies prefix, also
// when versions are made on several threads or thrown away. Edits that leave the map from indexes
// alone (of dormant coordinates only) keep version and chain.
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
template <class Pieces>
Pieces merged_at(const Pieces& pieces, std::size_t index) {
  if (index == 0 || index >= pieces.size()) return pieces;
  const Axis::Piece before = pieces.at(index - 1);
  const Axis::Piece after = pieces.at(index);
  if (before.run.end() != after.run.first || before.dormant != after.dormant) return pieces;
  const Run both{before.run.first, before.run.length + after.run.length};
  return pieces.erase(index).replace(index - 1, {both, before.dormant});
}

// The same pieces, those merged that continue each other.
std::vector<Axis::Piece> maximal(std::span<const Axis::Piece> pieces) {
  std::vector<Axis::Piece> merged;
  for (const Axis::Piece& piece : pieces) {
    if (!merged.empty() && merged.back().run.end() == piece.run.first &&
        merged.back().dormant == piece.dormant)
      merged.back().run.length += piece.run.length;
    else
      merged.push_back(piece);
  }
  return merged;
}

// The part of `run` that lies within `limits`; length 0 when none does.
Run common(const Run& run, const Run& limits) {
  const std::int64_t first = std::max(run.first, limits.first);
  const std::int64_t end = std::min(run.end(), limits.end());
  return {first, first < end ? static_cast<std::uint64_t>(end - first) : 0};
}

Run hull(const Run& a, const Run& b) {
  if (a.length == 0) return b;
  if (b.length == 0) return a;
  const std::int64_t first = std::min(a.first, b.first);
  return {first, static_cast<std::uint64_t>(std::max(a.end(), b.end()) - first)};
}

}  // namespace

Axis Axis::with_fresh_epoch(Pieces pieces, Run used) {
  static std::atomic<std::uint64_t> last_epoch{0};
  const Measure total = pieces.total();
  if (total.length > 0)
    used = hull(used, {total.lowest, static_cast<std::uint64_t>(total.highest - total.lowest)});
  if (total.shown == 0) return Axis(std::move(pieces), nullptr, used);
  auto lineage = std::make_shared<Lineage>();
  lineage->epoch = last_epoch.fetch_add(1, std::memory_order_relaxed) + 1;
  lineage->extent = total.shown;
  return Axis(std::move(pieces), std::move(lineage), used);
}

Axis Axis::with(Pieces pieces, bool appends) const {
  std::uint64_t expected = extent();
  const std::uint64_t grown = pieces.total().shown;
  Axis fresh = with_fresh_epoch(std::move(pieces), used_);
  if (appends && lineage_ && lineage_->extent.compare_exchange_strong(expected, grown))
    fresh.lineage_ = lineage_;
  return fresh;
}

Result<Axis> Axis::from_pieces(std::span<const Piece> pieces, Run used) {
  if (used.length > 0) ACCRETE_CHECK(check(used));
  std::vector<Run> by_place;
  for (const Piece& piece : pieces) {
    ACCRETE_CHECK(check(piece.run));
    by_place.push_back(piece.run);
  }
  std::sort(by_place.begin(), by_place.end(),
            [](const Run& a, const Run& b) { return a.first < b.first; });
  for (std::size_t i = 1; i < by_place.size(); ++i)
    if (by_place[i].first < by_place[i - 1].end())
      return fail(std::errc::invalid_argument, "the runs " + to_string(by_place[i - 1]) + " and " +
                                                   to_string(by_place[i]) + " of an axis overlap");
  return with_fresh_epoch(Pieces::from_vector(maximal(pieces)), used);
}

Result<Axis> Axis::from_runs(std::span<const Run> runs) {
  std::vector<Piece> pieces;
  for (const Run& run : runs) pieces.push_back({run, false});
  return from_pieces(pieces);
}

std::uint64_t Axis::extent() const {
  return pieces_.total().shown;
}

std::uint64_t Axis::positions() const {
  return pieces_.total().length;
}

std::size_t Axis::run_count() const {
  return pieces_.size();
}

Axis::Found Axis::find_index(std::uint64_t logical) const {
  const std::size_t index =
      pieces_.find([logical](const Measure& prefix) { return prefix.shown > logical; });
  return {index, pieces_.prefix(index).shown};
}

Axis::Found Axis::find_position(std::uint64_t position) const {
  const std::size_t index =
      pieces_.find([position](const Measure& prefix) { return prefix.length > position; });
  return {index, pieces_.prefix(index).length};
}

std::optional<Axis::Found> Axis::find_coordinate(std::int64_t physical) const {
  std::optional<Found> found;
  pieces_.for_where(
      [&](const Measure& m) { return !found && m.lowest <= physical && physical < m.highest; },
      [&](std::size_t index, const Piece&) {
        found = Found{index, pieces_.prefix(index).length};
      });
  return found;
}

bool Axis::uses(const Run& coordinates) const {
  bool found = false;
  pieces_.for_where(
      [&](const Measure& m) {
        return !found && m.lowest < coordinates.end() && m.highest > coordinates.first;
      },
      [&](std::size_t, const Piece&) { found = true; });
  return found;
}

std::int64_t Axis::physical(std::uint64_t logical) const {
  const Found found = find_index(logical);
  return pieces_.at(found.index).run.first + static_cast<std::int64_t>(logical - found.before);
}

std::optional<std::uint64_t> Axis::logical(std::int64_t physical) const {
  const std::optional<Found> found = find_coordinate(physical);
  if (!found) return std::nullopt;
  const Piece& piece = pieces_.at(found->index);
  if (piece.dormant) return std::nullopt;
  return pieces_.prefix(found->index).shown +
         static_cast<std::uint64_t>(physical - piece.run.first);
}

std::uint64_t Axis::position_of_index(std::uint64_t logical) const {
  if (logical == extent()) return positions();
  const Found found = find_index(logical);
  return pieces_.prefix(found.index).length + (logical - found.before);
}

std::optional<std::uint64_t> Axis::position_of(std::int64_t physical) const {
  const std::optional<Found> found = find_coordinate(physical);
  if (!found) return std::nullopt;
  return found->before + static_cast<std::uint64_t>(physical - pieces_.at(found->index).run.first);
}

std::uint64_t Axis::indexes_before(std::uint64_t position) const {
  const Found found = find_position(position);
  const std::uint64_t shown = pieces_.prefix(found.index).shown;
  if (found.index == pieces_.size() || pieces_.at(found.index).dormant) return shown;
  return shown + (position - found.before);
}

std::int64_t Axis::coordinate_at(std::uint64_t position) const {
  const Found found = find_position(position);
  return pieces_.at(found.index).run.first + static_cast<std::int64_t>(position - found.before);
}

std::uint64_t Axis::end_position() const {
  return extent() == 0 ? 0 : position_of_index(extent() - 1) + 1;
}

void Axis::for_runs(Interval range,
                    const std::function<void(std::uint64_t logical, Run run)>& visit) const {
  if (range.empty()) return;
  const Found first = find_index(range.begin);
  const std::size_t last = find_index(range.end - 1).index;
  std::uint64_t start = first.before;
  pieces_.for_range(first.index, last + 1, [&](const Piece& piece) {
    if (piece.dormant) return;
    const Run& run = piece.run;
    const std::uint64_t from = std::max(start, range.begin);
    const std::uint64_t to = std::min(start + run.length, range.end);
    visit(from, {run.first + static_cast<std::int64_t>(from - start), to - from});
    start += run.length;
  });
}

std::vector<Run> Axis::runs(Interval range) const {
  std::vector<Run> found;
  for_runs(range, [&](std::uint64_t, Run run) {
    // Dormant coordinates may have parted what continues.
    if (!found.empty() && found.back().end() == run.first)
      found.back().length += run.length;
    else
      found.push_back(run);
  });
  return found;
}

std::span<const Axis::Placed> Axis::runs_by_place() const {
  if (!by_place_) return {};
  std::call_once(by_place_->found, [this] {
    std::vector<Placed>& runs = by_place_->runs;
    for_runs({0, extent()}, [&](std::uint64_t logical, Run run) {
      runs.push_back({run, logical});
    });
    std::sort(runs.begin(), runs.end(),
              [](const Placed& a, const Placed& b) { return a.run.first < b.run.first; });
  });
  return by_place_->runs;
}

std::vector<Axis::Piece> Axis::pieces(Interval positions) const {
  std::vector<Piece> found;
  if (positions.empty()) return found;
  const Found first = find_position(positions.begin);
  const std::size_t last = find_position(positions.end - 1).index;
  std::uint64_t start = first.before;
  pieces_.for_range(first.index, last + 1, [&](const Piece& piece) {
    const std::uint64_t from = std::max(start, positions.begin);
    const std::uint64_t to = std::min(start + piece.run.length, positions.end);
    found.push_back(
        {{piece.run.first + static_cast<std::int64_t>(from - start), to - from}, piece.dormant});
    start += piece.run.length;
  });
  return found;
}

Axis::Pieces Axis::inserted(const Pieces& pieces, std::uint64_t position, const Piece& piece) {
  const std::size_t index =
      pieces.find([position](const Measure& prefix) { return prefix.length > position; });
  const std::uint64_t left = position - pieces.prefix(index).length;
  if (left > 0) {
    const Piece cut = pieces.at(index);
    const Run rest{cut.run.first + static_cast<std::int64_t>(left), cut.run.length - left};
    const Pieces parts = pieces.replace(index, {{cut.run.first, left}, cut.dormant})
                             .insert(index + 1, piece)
                             .insert(index + 2, {rest, cut.dormant});
    return merged_at(merged_at(parts, index + 2), index + 1);
  }
  // Behind first: that does not move what stands before.
  return merged_at(merged_at(pieces.insert(index, piece), index + 1), index);
}

Result<Axis> Axis::insert(std::uint64_t position, Run fresh) const {
  if (position > positions())
    return fail(std::errc::invalid_argument, "the position " + std::to_string(position) +
                                                 " lies beyond the " + std::to_string(positions()) +
                                                 " of an axis");
  ACCRETE_CHECK(check(fresh));
  if (uses(fresh))
    return fail(std::errc::invalid_argument,
                "coordinates " + to_string(fresh) + " of an axis are in use");
  return with(inserted(pieces_, position, {fresh, false}), position >= end_position());
}

Result<std::vector<std::pair<std::size_t, Axis::Piece>>> Axis::covering(
    const Run& coordinates) const {
  ACCRETE_CHECK(check(coordinates));
  std::vector<std::pair<std::size_t, Piece>> found;
  std::uint64_t covered = 0;
  pieces_.for_where(
      [&](const Measure& m) {
        return m.lowest < coordinates.end() && m.highest > coordinates.first;
      },
      [&](std::size_t index, const Piece& piece) {
        found.emplace_back(index, Piece{common(piece.run, coordinates), piece.dormant});
        covered += found.back().second.run.length;
      });
  if (covered != coordinates.length)
    return fail(std::errc::invalid_argument,
                "an axis does not have all coordinates " + to_string(coordinates));
  return found;
}

Result<Axis> Axis::set_dormant(const Run& coordinates, bool dormant) const {
  ACCRETE_TRY(const auto parts, covering(coordinates));
  const std::uint64_t end = end_position();
  bool appends = !dormant;
  Pieces edited = pieces_;
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    const auto& [index, middle] = *part;
    if (middle.dormant == dormant)
      return fail(std::errc::invalid_argument, "coordinates " + to_string(middle.run) +
                                                   " of an axis are " +
                                                   (dormant ? "dormant already" : "not dormant"));
    appends = appends && pieces_.prefix(index).length >= end;
    const Run whole = edited.at(index).run;  // may have been merged with what follows
    const Run left{whole.first, static_cast<std::uint64_t>(middle.run.first - whole.first)};
    const Run right{middle.run.end(), static_cast<std::uint64_t>(whole.end() - middle.run.end())};
    edited = edited.replace(index, {middle.run, dormant});
    if (right.length > 0) edited = edited.insert(index + 1, {right, !dormant});
    if (left.length > 0) edited = edited.insert(index, {left, !dormant});
    const std::size_t at = left.length > 0 ? index + 1 : index;
    edited = merged_at(merged_at(edited, at + 1), at);
  }
  return with(std::move(edited), appends);
}

Result<Axis> Axis::hide(Run coordinates) const {
  return set_dormant(coordinates, true);
}

Result<Axis> Axis::show(Run coordinates) const {
  return set_dormant(coordinates, false);
}

Result<Axis::Pieces> Axis::without(const Run& coordinates) const {
  ACCRETE_TRY(const auto parts, covering(coordinates));
  Pieces edited = pieces_;
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    const auto& [index, middle] = *part;
    const Piece whole = edited.at(index);  // may have been merged with what follows
    const Run left{whole.run.first, static_cast<std::uint64_t>(middle.run.first - whole.run.first)};
    const Run right{middle.run.end(),
                    static_cast<std::uint64_t>(whole.run.end() - middle.run.end())};
    edited = edited.erase(index);
    if (right.length > 0) edited = edited.insert(index, {right, whole.dormant});
    if (left.length > 0) edited = edited.insert(index, {left, whole.dormant});
    edited = merged_at(edited, left.length > 0 ? index + 1 : index);
  }
  return edited;
}

Result<Axis> Axis::drop(Run coordinates) const {
  ACCRETE_TRY(Pieces edited, without(coordinates));
  if (edited.total().shown == extent()) return Axis(std::move(edited), lineage_, used_);
  return with(std::move(edited), false);
}

Result<Axis> Axis::move(Run coordinates, std::uint64_t position) const {
  ACCRETE_TRY(const auto parts, covering(coordinates));
  ACCRETE_TRY(Pieces edited, without(coordinates));
  if (position > edited.total().length)
    return fail(std::errc::invalid_argument,
                "the position " + std::to_string(position) + " lies beyond those of an axis");
  for (const auto& [index, part] : parts) {
    edited = inserted(edited, position, part);
    position += part.run.length;
  }
  return with(std::move(edited), false);
}

Result<Axis> Axis::arrange(std::span<const Piece> pieces) const {
  ACCRETE_TRY(Axis other, from_pieces(pieces, used_));
  const auto by_place = [](const Axis& axis) {
    std::vector<Piece> sorted = axis.pieces();
    std::sort(sorted.begin(), sorted.end(),
              [](const Piece& a, const Piece& b) { return a.run.first < b.run.first; });
    return maximal(sorted);
  };
  if (by_place(*this) != by_place(other))
    return fail(std::errc::invalid_argument, "an arrangement of an axis has other coordinates");
  return other;
}

bool Axis::is_prefix_of(const Axis& other) const {
  if (extent() == 0) return true;
  return lineage_ == other.lineage_ && extent() <= other.extent();
}

}  // namespace accrete
