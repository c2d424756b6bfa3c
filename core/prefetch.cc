#include "core/prefetch.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

namespace accrete {

namespace {

constexpr std::size_t page = 4096;
constexpr std::size_t least_run = page;  // a shorter one is read with what lies around it
constexpr std::size_t ahead = 32;        // runs, of a reader who goes on
constexpr std::size_t most_ahead = 512 << 10;
constexpr std::size_t most_pages = 256;  // looked at in one call
constexpr std::size_t samples = 16;      // of many runs, that tell whether all are in memory
constexpr std::uint64_t widest_gap = 4;  // between pages that are read in one piece

bool is_in_memory(std::byte* begin, std::size_t length) {
  std::array<unsigned char, most_pages> resident;
  for (std::size_t done = 0; done < length; done += most_pages * page) {
    const std::size_t piece = std::min(length - done, most_pages * page);
    if (::mincore(begin + done, piece, resident.data()) != 0) return true;  // then it is not known
    const auto end = resident.begin() + static_cast<std::ptrdiff_t>((piece + page - 1) / page);
    if (std::any_of(resident.begin(), end, [](unsigned char each) { return (each & 1) == 0; }))
      return false;
  }
  return true;
}

void begin_to_read(std::byte* begin, std::size_t length) {
  (void)::madvise(begin, length, MADV_WILLNEED);
}

}  // namespace

void prefetch(const std::byte* mapping, std::span<const StreamRun> runs, std::size_t element_size) {
  const auto pages_of = [&](const StreamRun& run) -> std::span<std::byte> {
    const std::uint64_t bytes = run.length * element_size;
    if (run.is_pad || bytes < least_run) return {};
    const std::uint64_t first = run.file_offset / page * page;
    return {const_cast<std::byte*>(mapping) + first,
            static_cast<std::size_t>(run.file_offset + bytes - first)};
  };
  const auto is_there = [&](const StreamRun& run) {
    const std::span<std::byte> pages = pages_of(run);
    return pages.empty() || is_in_memory(pages.data(), pages.size());
  };
  if (const std::size_t step = runs.size() / samples; step > 1) {
    std::size_t at = 0;
    while (at < runs.size() && is_there(runs[at])) at += step;
    if (at >= runs.size()) return;
  }
  for (const StreamRun& run : runs) {
    if (is_there(run)) continue;
    const std::span<std::byte> pages = pages_of(run);
    // Before it lies what is before it along the axis of growth.
    const bool goes_on = pages.data() != mapping && is_in_memory(pages.data() - page, page);
    begin_to_read(pages.data(),
                  goes_on ? std::max(pages.size(), std::min(ahead * pages.size(), most_ahead))
                          : pages.size());
  }
}

void prefetch_scattered(const std::byte* mapping, const View& view, const BoxIndex& boxes,
                        std::size_t element_size, Interval range) {
  constexpr std::uint64_t least_elements = 16;
  constexpr std::uint64_t most_bytes = 128 << 10;
  constexpr std::uint64_t lookups = 3;
  if (range.length() < least_elements || range.length() * element_size > most_bytes) return;
  const auto for_pages = [&](Interval part, const auto& visit) {
    for_runs_in_boxes(view, boxes, element_size, Slots::written, part,
                      [&](std::uint64_t, std::uint64_t count, std::uint64_t offset, const Box&) {
                        for (std::uint64_t at = offset / page;
                             at * page < offset + count * element_size; ++at)
                          visit(at);
                      });
  };
  std::byte* const bytes = const_cast<std::byte*>(mapping);
  bool is_cold = false;
  for (std::uint64_t i = 0; i < lookups && !is_cold; ++i) {
    const std::uint64_t at = range.begin + range.length() * i / lookups;
    for_pages({at, at + 1}, [&](std::uint64_t number) {
      is_cold = is_cold || !is_in_memory(bytes + number * page, page);
    });
  }
  if (!is_cold) return;
  std::vector<std::uint64_t> pages;
  for_pages(range, [&](std::uint64_t number) {
    if (pages.empty() || pages.back() != number) pages.push_back(number);
  });
  std::sort(pages.begin(), pages.end());
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
  for (std::size_t i = 0; i < pages.size();) {
    std::size_t end = i + 1;
    while (end < pages.size() && pages[end] - pages[end - 1] <= widest_gap) ++end;
    begin_to_read(bytes + pages[i] * page, (pages[end - 1] + 1 - pages[i]) * page);
    i = end;
  }
}

}  // namespace accrete
