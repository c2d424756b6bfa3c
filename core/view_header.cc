#include "core/view_header.h"

#include <algorithm>
#include <set>

#include "core/bytes.h"
#include "core/checksum.h"
#include "core/common_cards.h"
#include "core/fits_card.h"
#include "core/own_cards.h"

namespace accrete {

namespace {

// ---- Where the axes of an image are in a view ----

// Where a frame's own index lies on an axis.
struct Places {
  // Logical index of its first element, where its indexes follow each other; else nothing.
  std::optional<std::int64_t> start;
  // Its index of a coordinate.
  std::int64_t index_of(std::int64_t coordinate) const {
    std::int64_t before = 0;
    for (const Run& run : runs) {
      if (coordinate >= run.first && coordinate < run.end()) return before + coordinate - run.first;
      before += static_cast<std::int64_t>(run.length);
    }
    return coordinate - (runs.empty() ? 0 : runs.front().first);
  }

  std::vector<Run> runs;
};

Places places_on(const Axis& axis, const std::vector<Run>& runs) {
  Places places;
  places.runs = runs;
  std::optional<std::int64_t> next;
  for (const Run& run : runs) {
    const auto first = axis.logical(run.first);
    const auto last = axis.logical(run.end() - 1);
    const bool follows = first && last && *last - *first == run.length - 1 &&
                         (!next || *next == static_cast<std::int64_t>(*first));
    if (!follows) {
      places.start.reset();
      return places;
    }
    if (!next) places.start = static_cast<std::int64_t>(*first);
    next = static_cast<std::int64_t>(*last) + 1;
  }
  return places;
}

// `places`: for the image's axes that the cube has, in order; `rank`: of the image.
PixelMap map_to(const View& view, const std::vector<Places>& places, std::size_t rank) {
  PixelMap map;
  for (std::size_t d = 0; d < view.rank(); ++d) {
    const ViewAxis& dimension = view.dimension(d);
    PixelMap::Axis axis;
    if (dimension.axis < std::min(rank, places.size())) {
      axis.source = dimension.axis;
      const auto& start = places[dimension.axis].start;
      axis.begin = static_cast<std::int64_t>(dimension.range.begin) - start.value_or(0);
      if (!start) map.broken.push_back(dimension.axis);
    }
    map.axes.push_back(axis);
  }
  for (std::size_t axis = 0; axis < rank; ++axis) {
    if (axis >= view.cube_rank() || axis >= places.size())
      map.fixed.push_back({axis, 0});
    else if (view.dimension_of(axis) == view.rank())
      map.fixed.push_back({axis, places[axis].index_of(view.fixed_coordinate(axis))});
  }
  return map;
}

std::vector<Places> places_of_frame(const Cube& cube, const FrameRow& row, const View& view) {
  std::vector<Places> places;
  const auto runs = cube.frame_runs(row);
  if (!runs.ok()) return places;
  for (std::size_t axis = 0; axis < std::min(runs->size(), view.cube_rank()); ++axis)
    places.push_back(places_on(view.axis(axis), (*runs)[axis]));
  return places;
}

// True when coordinates ascend from an index on: nothing was put between those that came later.
bool ascends_from(const Axis& axis, std::uint64_t index) {
  const std::vector<Run> runs = axis.runs({index, axis.extent()});
  return std::is_sorted(runs.begin(), runs.end(),
                        [](const Run& a, const Run& b) { return a.first < b.first; });
}

// meta/header speaks of the indexes that the axes had when it was set, and of those behind them.
std::vector<Places> places_of_header(const Settings& settings, const View& view) {
  std::vector<Places> places;
  for (std::size_t axis = 0; axis < view.cube_rank(); ++axis) {
    const Axis& now = view.axis(axis);
    const bool is_known = axis < settings.header_first.size();
    const std::int64_t first = is_known ? settings.header_first[axis] : 0;
    const std::int64_t last = is_known ? settings.header_last[axis] : first;
    Places place;
    const auto begin = now.logical(first);
    const auto end = now.logical(last);
    const std::uint64_t extent = is_known ? settings.header_extent[axis] : 1;
    if (begin && end && *end - *begin + 1 == extent && ascends_from(now, *end))
      place.start = static_cast<std::int64_t>(*begin);
    // A fixed index counts from there, too.
    if (view.dimension_of(axis) == view.rank()) {
      const std::int64_t at = view.fixed_coordinate(axis);
      const auto index = now.logical(at);
      const std::int64_t local =
          static_cast<std::int64_t>(index.value_or(0)) - place.start.value_or(0);
      place.runs = {{at - local, static_cast<std::uint64_t>(std::max<std::int64_t>(local, 0)) + 1}};
    }
    places.push_back(std::move(place));
  }
  return places;
}

// ---- Cards ----

bool is_section(std::string_view card) {
  if (keyword_of(card).find("SEC") == std::string_view::npos) return false;
  const auto text = string_of(card);
  return text && text->starts_with('[') && text->ends_with(']');
}

bool shows_whole_axes(const View& view) {
  for (std::size_t d = 0; d < view.rank(); ++d)
    if (view.dimension(d).range != Interval{0, view.axis(view.dimension(d).axis).extent()})
      return false;
  return true;
}

// Says of each axis what holds of it if nothing is said, where something is said of others.
void complete(std::vector<std::string>& cards, std::size_t axes) {
  std::set<std::string, std::less<>> said;
  std::size_t last = 0;  // behind the last card of the primary description
  for (std::size_t i = 0; i < cards.size(); ++i) {
    if (alternate_of(cards[i]) != ' ') continue;
    said.emplace(keyword_of(cards[i]));
    last = i + 1;
    if (keyword_of(cards[i]) == "WCSAXES")
      if (const auto count = integer_of(cards[i]); count && *count > 0 && *count <= 99)
        axes = std::max(axes, static_cast<std::size_t>(*count));
  }
  constexpr std::pair<std::string_view, std::string_view> defaults[] = {
      {"CTYPE", "'        '"}, {"CRPIX", "0.0"}, {"CRVAL", "0.0"}};
  const bool describes_axes =
      std::any_of(said.begin(), said.end(), [&](const std::string& keyword) {
        return std::any_of(std::begin(defaults), std::end(defaults),
                           [&](const auto& known) { return keyword.starts_with(known.first); });
      });
  if (!describes_axes) return;
  std::vector<std::string> more;
  for (std::size_t n = 1; n <= axes; ++n)
    for (const auto& [stem, value] : defaults)
      if (const std::string keyword = std::string(stem) + std::to_string(n);
          !said.contains(keyword))
        more.push_back(make_card(keyword, value, ""));
  cards.insert(cards.begin() + static_cast<std::ptrdiff_t>(last), more.begin(), more.end());
}

// The cards of an image as those of a view.
std::vector<std::string> mapped(const std::vector<std::string>& cards, const View& view,
                                const Shape& shape, const PixelMap& map) {
  std::vector<std::string> kept;
  PixelMap spanned = map;  // without axes of one index
  std::erase_if(spanned.fixed, [&](const PixelMap::Fixed& f) { return shape[f.source] == 1; });
  const bool is_whole = shows_whole_axes(view) && spanned.is_identity();
  for (const std::string& card : cards) {
    if (is_physical(card) || keyword_of(card) == frame_keyword) continue;
    if (is_section(card) && !is_whole) continue;
    kept.push_back(card);
  }
  std::vector<std::string> cards_then = map_wcs(kept, map);
  complete(cards_then, view.rank());
  return cards_then;
}

void add_physical(std::vector<std::string>& cards, const View& view) {
  for (std::size_t d = 0; d < view.rank(); ++d) {
    const std::string n = std::to_string(d + 1);
    const auto begin = static_cast<std::int64_t>(view.dimension(d).range.begin);
    cards.push_back(make_card("LTV" + n, std::to_string(1 - begin) + ".0", ""));
    cards.push_back(make_card("LTM" + n + "_" + n, "1.0", ""));
  }
}

// Older readers, and fitsverify, expect CONTINUE cards only after a card that tells of them.
void announce_long_strings(std::vector<std::string>& cards) {
  const auto first = std::find_if(cards.begin(), cards.end(), [](const std::string& card) {
    return card.size() > card_length;
  });
  if (first == cards.end()) return;
  if (std::any_of(cards.begin(), cards.end(),
                  [](const std::string& card) { return keyword_of(card) == "LONGSTRN"; }))
    return;
  cards.insert(first, make_string_card("LONGSTRN", "OGIP 1.0", "strings may go on in CONTINUE"));
}

void finish(std::vector<std::string>& cards, const View& view) {
  add_physical(cards, view);
  announce_long_strings(cards);
}

// Those that meta/header does not replace: a keyword, or a whole alternate WCS.
void add_unless_own(std::vector<std::string>& target, const std::vector<std::string>& cards,
                    const std::vector<std::string>& own) {
  const std::string alternates = alternates_in(own);
  for (const std::string& card : cards) {
    const std::string_view keyword = whole_keyword(card);
    const auto alternate = alternate_of(card);
    const bool is_replaced =
        alternate ? alternates.find(*alternate) != std::string::npos
                  : !is_commentary(keyword) &&
                        std::any_of(own.begin(), own.end(), [&](const std::string& other) {
                          return whole_keyword(other) == keyword;
                        });
    if (!is_replaced) target.push_back(card);
  }
}

std::vector<std::string> frame_cards_for(Cube& cube, const Snapshot& snapshot, const View& view,
                                         const FrameRow& row,
                                         const std::vector<std::string>& frame_cards) {
  std::vector<std::string> cards =
      mapped(frame_cards, view, row.layout.shape,
             map_to(view, places_of_frame(cube, row, view), row.layout.shape.size()));
  // World coordinates that the cube has and the frame does not.
  const Settings& settings = snapshot.definition.settings;
  const std::vector<std::string> own = split_cards(settings.header);
  const std::string of_frame = alternates_in(frame_cards);
  std::vector<std::string> wcs;
  for (const std::string& card : own)
    if (const auto alternate = alternate_of(card);
        alternate && of_frame.find(*alternate) == std::string::npos)
      wcs.push_back(card);
  for (std::string& card :
       map_wcs(wcs, map_to(view, places_of_header(settings, view), view.cube_rank())))
    cards.push_back(std::move(card));
  cards.push_back(make_string_card(frame_keyword, cube.frame_name(row), "the frame's name"));
  return cards;
}

std::vector<std::string> cube_cards_for(Cube& cube, const Snapshot& snapshot, const View& view) {
  const Settings& settings = snapshot.definition.settings;
  const std::vector<std::string> own = split_cards(settings.header);
  std::vector<std::string> cards;
  if (const auto common = cube.common_cards()) {
    std::vector<Places> places = places_of_frame(cube, common->frame, view);
    PixelMap map = map_to(view, places, common->frame.layout.shape.size());
    for (std::size_t axis = 0; axis < places.size(); ++axis) {
      const bool is_known =
          std::find(map.broken.begin(), map.broken.end(), axis) != map.broken.end();
      if (!common->same_start[axis] && !is_known) map.broken.push_back(axis);
    }
    std::erase_if(map.broken,
                  [&](std::size_t axis) { return axis >= common->frame.layout.shape.size(); });
    add_unless_own(cards, mapped(common->cards, view, common->frame.layout.shape, map), own);
  }
  Shape shape;
  for (std::size_t axis = 0; axis < view.cube_rank(); ++axis)
    shape.push_back(view.axis(axis).extent());
  for (std::string& card :
       mapped(own, view, shape, map_to(view, places_of_header(settings, view), view.cube_rank())))
    cards.push_back(std::move(card));
  return cards;
}

}  // namespace

std::optional<FrameRow> frame_of(const Cube& cube, const Snapshot& snapshot, const View& view) {
  std::vector<FrameRow> found;
  for (std::size_t axis = 0; axis < view.cube_rank(); ++axis) {
    if (view.dimension_of(axis) != view.rank()) continue;
    if (std::optional<FrameRow> row = snapshot.frame_at(axis, view.fixed_coordinate(axis)))
      found.push_back(*std::move(row));
  }
  if (found.empty()) return std::nullopt;
  if (found.size() == 1) return found.front();
  const auto has_all = [&](const FrameRow& row) {
    const auto runs = cube.frame_runs(row);
    for (std::size_t axis = 0; axis < view.cube_rank() && runs.ok(); ++axis) {
      if (view.dimension_of(axis) != view.rank() || axis >= runs->size()) continue;
      const std::int64_t at = view.fixed_coordinate(axis);
      const bool has_it = std::any_of((*runs)[axis].begin(), (*runs)[axis].end(),
                                      [at](Run run) { return run.first <= at && at < run.end(); });
      if (!has_it) return false;
    }
    return runs.ok();
  };
  return *std::max_element(found.begin(), found.end(), [&](const FrameRow& a, const FrameRow& b) {
    return std::pair(has_all(a), a.id) < std::pair(has_all(b), b.id);
  });
}

std::vector<std::string> view_cards(Cube& cube, const Snapshot& snapshot, const View& view) {
  if (const std::optional<FrameRow> row = frame_of(cube, snapshot, view))
    return view_cards_of(cube, snapshot, view, *row, cube.frame_cards(*row));
  std::vector<std::string> cards = cube_cards_for(cube, snapshot, view);
  finish(cards, view);
  return cards;
}

std::vector<std::string> view_cards_of(Cube& cube, const Snapshot& snapshot, const View& view,
                                       const FrameRow& row,
                                       const std::vector<std::string>& frame_cards) {
  std::vector<std::string> cards = frame_cards_for(cube, snapshot, view, row, frame_cards);
  finish(cards, view);
  return cards;
}

std::uint64_t view_cards_version(Cube& cube, const Snapshot& snapshot, const View& view) {
  const Settings& settings = snapshot.definition.settings;
  ByteWriter out;
  out.put_text(settings.header);
  for (const Coords& coordinates : {settings.header_first, settings.header_last})
    for (const std::int64_t at : coordinates) out.put(at);
  for (const std::uint64_t extent : settings.header_extent) out.put(extent);
  if (const std::optional<FrameRow> row = frame_of(cube, snapshot, view)) {
    for (const HeapRef& text : {row->prefix, row->cards, row->name}) {
      out.put(text.offset);
      out.put(text.sum);
    }
  } else {
    if (const auto common = cube.common_cards()) out.put(common->version);
    for (std::size_t axis = 0; axis < view.cube_rank(); ++axis)
      out.put(std::uint8_t{view.axis(axis).extent() == 1});
  }
  out.put(std::uint8_t{shows_whole_axes(view)});
  return checksum(as_bytes(out.bytes()));
}

Settings with_header(Settings settings, const PerAxis<Axis>& axes, std::string header) {
  settings.header = std::move(header);
  settings.header_first = settings.header_last = {};
  settings.header_extent = {};
  for (const Axis& axis : axes) {
    const std::uint64_t extent = axis.extent();
    settings.header_first.push_back(extent > 0 ? axis.physical(0) : 0);
    settings.header_last.push_back(extent > 0 ? axis.physical(extent - 1) : 0);
    settings.header_extent.push_back(std::max<std::uint64_t>(extent, 1));
  }
  return settings;
}

std::string header_as_of(const Snapshot& snapshot) {
  const Settings& settings = snapshot.definition.settings;
  const auto whole = View::whole(snapshot.axes);
  if (!whole.ok() || snapshot.axes.empty()) return settings.header;
  std::string header;
  for (const std::string& card :
       map_wcs(split_cards(settings.header),
               map_to(*whole, places_of_header(settings, *whole), whole->cube_rank())))
    header += card;
  return header;
}

}  // namespace accrete
