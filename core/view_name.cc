#include "core/view_name.h"

#include <algorithm>
#include <limits>

namespace accrete {

namespace {

constexpr std::uint64_t most_index =
    static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// Takes digits off the front; nothing when there are none or the number is over most_index.
std::optional<std::uint64_t> take_number(std::string_view& text) {
  if (text.empty() || !is_digit(text.front())) return std::nullopt;
  std::uint64_t number = 0;
  while (!text.empty() && is_digit(text.front())) {
    const auto digit = static_cast<std::uint64_t>(text.front() - '0');
    if (number > (most_index - digit) / 10) return std::nullopt;
    number = 10 * number + digit;
    text.remove_prefix(1);
  }
  return number;
}

std::optional<AxisTerm> parse_term(std::string_view text, std::string_view letters) {
  if (text.empty()) return std::nullopt;
  const std::size_t axis = letters.find(text.front());
  if (axis == std::string_view::npos) return std::nullopt;
  text.remove_prefix(1);

  AxisTerm term;
  term.axis = axis;
  const bool has_start = !text.empty() && is_digit(text.front());
  if (has_start) {
    const auto number = take_number(text);
    if (!number) return std::nullopt;
    if (text.empty()) {
      term.index = *number;
      return term;
    }
    term.begin = *number;
  }
  if (!text.starts_with("..")) return std::nullopt;
  text.remove_prefix(2);
  term.is_range = true;
  if (text.empty()) return has_start ? std::optional(term) : std::nullopt;
  term.end = take_number(text);
  if (!term.end || !text.empty() || *term.end <= term.begin) return std::nullopt;
  return term;
}

Error no_entry(std::string sentence) {
  return fail(std::errc::no_such_file_or_directory, std::move(sentence));
}

bool spans(const PerAxis<std::size_t>& spanned, std::size_t axis) {
  return std::find(spanned.begin(), spanned.end(), axis) != spanned.end();
}

}  // namespace

std::optional<PerAxis<std::size_t>> parse_axes(std::string_view text, std::string_view letters) {
  if (text.empty() || text.size() > letters.size() || text.size() > max_rank) return std::nullopt;
  PerAxis<std::size_t> axes;
  for (const char letter : text) {
    const std::size_t axis = letters.find(letter);
    if (axis == std::string_view::npos || spans(axes, axis)) return std::nullopt;
    axes.push_back(axis);
  }
  return axes;
}

std::optional<std::vector<AxisTerm>> parse_terms(std::string_view text, std::string_view letters) {
  std::vector<AxisTerm> terms;
  for (;;) {
    const std::size_t end = text.find('_');
    const auto term = parse_term(text.substr(0, end), letters);
    if (!term) return std::nullopt;
    for (const AxisTerm& other : terms)
      if (other.axis == term->axis) return std::nullopt;
    terms.push_back(*term);
    if (end == std::string_view::npos) return terms;
    text.remove_prefix(end + 1);
  }
}

std::string format_index(char letter, std::uint64_t index) {
  const std::string digits = std::to_string(index);
  std::string text(1, letter);
  if (digits.size() < 6) text.append(6 - digits.size(), '0');
  return text + digits;
}

std::string format_terms(const std::vector<AxisTerm>& terms, std::string_view letters) {
  std::string text;
  for (const AxisTerm& term : terms) {
    if (!text.empty()) text += '_';
    if (!term.is_range) {
      text += format_index(letters[term.axis], term.index);
      continue;
    }
    text += letters[term.axis] + std::to_string(term.begin) + "..";
    if (term.end) text += std::to_string(*term.end);
  }
  return text;
}

Result<View> resolve_view(const PerAxis<Axis>& axes, const PerAxis<std::size_t>& spanned,
                          const std::vector<AxisTerm>& terms) {
  PerAxis<const AxisTerm*> term_of(axes.size(), nullptr);
  for (const AxisTerm& term : terms) {
    if (term.axis >= axes.size())
      return no_entry("a view's name tells of axis " + std::to_string(term.axis) +
                      " of a cube with " + std::to_string(axes.size()) + " axes");
    if (term_of[term.axis] != nullptr)
      return fail(std::errc::invalid_argument,
                  "a view's name tells of axis " + std::to_string(term.axis) + " twice");
    term_of[term.axis] = &term;
  }

  Shape fixed(axes.size(), 0);
  for (std::size_t axis = 0; axis < axes.size(); ++axis) {
    if (spans(spanned, axis)) continue;
    const AxisTerm* term = term_of[axis];
    if (term == nullptr || term->is_range)
      return no_entry("axis " + std::to_string(axis) + " is not spanned and needs one index");
    fixed[axis] = term->index;
  }

  PerAxis<ViewAxis> dimensions;
  for (const std::size_t axis : spanned) {
    if (axis >= axes.size())
      return no_entry("a view spans axis " + std::to_string(axis) + " of a cube with " +
                      std::to_string(axes.size()) + " axes");
    Interval range{0, axes[axis].extent()};
    if (const AxisTerm* term = term_of[axis]; term != nullptr) {
      if (!term->is_range)
        return no_entry("axis " + std::to_string(axis) + " is spanned and takes a range only");
      range.begin = term->begin;
      if (term->end) range.end = *term->end;
    }
    dimensions.push_back({axis, range});
  }
  return View::make(axes, dimensions, fixed);
}

bool is_complete(std::size_t rank, const PerAxis<std::size_t>& spanned,
                 const std::vector<AxisTerm>& terms) {
  for (std::size_t axis = 0; axis < rank; ++axis) {
    if (spans(spanned, axis)) continue;
    const bool fixed = std::any_of(terms.begin(), terms.end(), [axis](const AxisTerm& term) {
      return term.axis == axis && !term.is_range;
    });
    if (!fixed) return false;
  }
  return true;
}

}  // namespace accrete
