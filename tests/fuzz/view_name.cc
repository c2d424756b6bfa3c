// Names of views: an input is a path below slices/, "AXES/TERMS/TERMS", behind a byte that chooses
// the cube's letters. What is parsed is written, and parsed again as the same; any spelling of the
// terms, nested or joined, in any order, resolves to the same view.
#include "core/view_name.h"

#include <numeric>
#include <optional>
#include <vector>

#include "tests/fuzz/fuzz.h"

namespace accrete::fuzzing {
namespace {

constexpr std::string_view letter_sets[] = {"xyz", "xyztsuvw", "x", "zyx", "fxys", "yx"};

// Axes of some runs each, out of order where they can be.
PerAxis<Axis> axes_of(std::size_t rank) {
  PerAxis<Axis> axes;
  for (std::size_t a = 0; a < rank; ++a) {
    const std::vector<Run> runs = {{static_cast<std::int64_t>(10 * a), a + 3},
                                   {-static_cast<std::int64_t>(7 * a) - 5, 2}};
    axes.push_back(*Axis::from_runs(runs));
  }
  return axes;
}

void check_same(const View& a, const View& b) {
  ACCRETE_HOLDS(a.shape() == b.shape());
  ACCRETE_HOLDS(a.is_prefix_of(b) && b.is_prefix_of(a));
  const std::uint64_t count = a.element_count();
  for (const std::uint64_t i : {std::uint64_t{0}, count / 3, count / 2, count - 1}) {
    ACCRETE_HOLDS(a.coordinates_of(i) == b.coordinates_of(i));
    ACCRETE_HOLDS(a.index_of(b.coordinates_of(i)) == i);
  }
}

void check_terms(const std::vector<AxisTerm>& terms, std::string_view letters) {
  const std::string text = format_terms(terms, letters);
  const auto again = parse_terms(text, letters);
  ACCRETE_HOLDS(again && *again == terms);
  ACCRETE_HOLDS(format_terms(*again, letters) == text);
  for (const AxisTerm& term : terms) {
    ACCRETE_HOLDS(term.axis < letters.size());
    ACCRETE_HOLDS(term.index <= INT64_MAX && term.begin <= INT64_MAX);
    if (term.end) ACCRETE_HOLDS(term.is_range && term.begin < *term.end && *term.end <= INT64_MAX);
  }
}

// The letters give the axes back.
void check_axes(const PerAxis<std::size_t>& axes, std::string_view text, std::string_view letters) {
  ACCRETE_HOLDS(axes.size() == text.size());
  for (std::size_t d = 0; d < axes.size(); ++d) {
    ACCRETE_HOLDS(letters[axes[d]] == text[d]);
    ACCRETE_HOLDS(text.find(text[d], d + 1) == std::string_view::npos);
  }
}

void check_path(Input input, std::string_view letters) {
  const std::string_view first = input.take_until('/');
  const auto spanned = parse_axes(first, letters);
  if (spanned) check_axes(*spanned, first, letters);

  std::vector<AxisTerm> terms;
  std::string joined;
  while (!input.empty()) {
    const std::string_view component = input.take_until('/');
    const auto parsed = parse_terms(component, letters);
    if (!parsed) return;
    check_terms(*parsed, letters);
    terms.insert(terms.end(), parsed->begin(), parsed->end());
    joined += (joined.empty() ? "" : "_") + std::string(component);
  }
  std::vector<bool> seen(letters.size(), false);
  bool repeats = false;
  for (const AxisTerm& term : terms) {
    repeats = repeats || seen[term.axis];
    seen[term.axis] = true;
  }
  const auto at_once = parse_terms(joined, letters);
  ACCRETE_HOLDS(at_once.has_value() == (!repeats && !terms.empty()));
  if (at_once) ACCRETE_HOLDS(*at_once == terms);
  if (!spanned) return;

  const PerAxis<Axis> axes = axes_of(letters.size());
  const auto view = resolve_view(axes, *spanned, terms);
  if (!view.ok()) {
    ACCRETE_HOLDS(view.error().code ==
                  (repeats ? std::errc::invalid_argument : std::errc::no_such_file_or_directory));
    return;
  }
  ACCRETE_HOLDS(!repeats && is_complete(letters.size(), *spanned, terms));
  ACCRETE_HOLDS(view->rank() == spanned->size());
  for (std::size_t d = 0; d < spanned->size(); ++d)
    ACCRETE_HOLDS(view->dimension(d).axis == (*spanned)[d]);
  const std::vector<AxisTerm> reversed(terms.rbegin(), terms.rend());
  const auto other = resolve_view(axes, *spanned, reversed);
  ACCRETE_HOLDS(other.ok());
  check_same(*view, *other);

  // Ranges written out, whatever they were.
  std::vector<AxisTerm> explicit_terms;
  for (std::size_t axis = 0; axis < letters.size(); ++axis) {
    const std::size_t d = view->dimension_of(axis);
    AxisTerm term;
    term.axis = axis;
    term.is_range = d < view->rank();
    if (term.is_range) {
      term.begin = view->dimension(d).range.begin;
      term.end = view->dimension(d).range.end;
    } else {
      term.index = *axes[axis].logical(view->fixed_coordinate(axis));
    }
    explicit_terms.push_back(term);
  }
  check_terms(explicit_terms, letters);
  const auto whole = resolve_view(axes, *spanned, explicit_terms);
  ACCRETE_HOLDS(whole.ok());
  check_same(*view, *whole);
}

}  // namespace
}  // namespace accrete::fuzzing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace accrete::fuzzing;
  Input input(data, size);
  const std::size_t set = input.take<std::uint8_t>() % std::size(letter_sets);
  check_path(input, letter_sets[set]);
  return 0;
}
