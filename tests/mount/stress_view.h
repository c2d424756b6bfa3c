// The files of a cube under coherence-stress: their names, and one that is open.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "stress_model.h"

namespace stress {

constexpr std::uint32_t to_the_end = ~std::uint32_t{0};

struct Range {
  std::uint32_t begin = 0, end = to_the_end;
};

enum class Axis : unsigned { x, y, z };

struct Spec {
  std::string path;
  std::string axes;               // that it spans, fastest first
  std::array<Range, 3> ranges{};  // of x, y, z; one index of those that it does not span
  Format format = Format::raw;
  unsigned frame = 0;  // of a file below frames/ or removed/
  bool spans(Axis axis) const { return axes.find("xyz"[static_cast<unsigned>(axis)]) != axes.npos; }
};

inline std::string frame_name(const Options& options, unsigned frame) {
  return text("f%04u.%s", frame, options.fits_frames ? "fits" : "npy");
}

inline void name_view(Spec& spec) {
  std::string terms;
  for (unsigned axis = 3; axis-- > 0;) {
    const auto& [begin, end] = spec.ranges[axis];
    std::string term;
    if (!spec.spans(Axis{axis}))
      term = text("%c%06u", "xyz"[axis], begin);
    else if (end != to_the_end)
      term = text("%c%u..%u", "xyz"[axis], begin, end);
    else if (begin > 0)
      term = text("%c%u..", "xyz"[axis], begin);
    if (!term.empty()) terms += (terms.empty() ? "" : "_") + term;
  }
  const std::string extension = extensions[static_cast<unsigned>(spec.format)];
  if (terms.empty() && spec.axes == "xyz")
    spec.path = "cube." + extension;
  else
    spec.path = "slices/" + spec.axes + "/" + (terms.empty() ? "x0.." : terms) + "." + extension;
}

// Of the one file of --plain.
constexpr std::array<const char*, 4> plain_names{"cube.raw", "cube1.raw", "cube2.raw", "cube3.raw"};

enum class Access { descriptor, writing, shared, private_mapping, writable };
constexpr std::array<const char*, 5> access_names{
    "an open descriptor", "a descriptor open for writing", "a shared mapping", "a private mapping",
    "a writable mapping"};

struct Place {
  std::uint32_t x, y, layer;
};

class View {
 public:
  View(Spec spec, Access access, Structure structure)
      : spec(std::move(spec)), access(access), structure(std::move(structure)) {}
  View(const View&) = delete;
  View& operator=(const View&) = delete;
  ~View() { close(); }

  // 0, or the errno of what `failed`.
  int open(const Options& options, const Board& board, const Coding& coding);
  int close() {
    int result = 0;
    if (map != nullptr && munmap(map, size) != 0) result = errno;
    if (fd >= 0 && ::close(fd) != 0) result = errno;
    map = nullptr;
    fd = -1;
    return result;
  }

  bool can_write() const { return access == Access::writing || access == Access::writable; }
  // Whether growth makes the file longer.
  bool can_grow() const {
    return (spec.format == Format::raw || spec.format == Format::txt) && spec.spans(Axis::z) &&
           spec.ranges[2].end == to_the_end;
  }
  std::uint64_t elements() const { return std::uint64_t{extents[0]} * extents[1] * extents[2]; }
  Place place(std::uint64_t position) const {
    std::array<std::uint32_t, 3> at{spec.ranges[0].begin, spec.ranges[1].begin, 0};
    for (const char letter : spec.axes) {
      const auto axis = static_cast<unsigned>(letter - 'x');
      at[axis] += static_cast<std::uint32_t>(position % extents[axis]);
      position /= extents[axis];
    }
    return {at[0], at[1], at[2]};
  }
  // Where the element is in this view, as far as is known.
  std::optional<std::uint64_t> find(unsigned frame, std::uint32_t x, std::uint32_t y) const {
    const auto layer = std::find(frames.begin(), frames.end(), frame);
    const std::array<std::uint32_t, 3> at{x - spec.ranges[0].begin, y - spec.ranges[1].begin,
                                          static_cast<std::uint32_t>(layer - frames.begin())};
    for (unsigned axis = 0; axis < 3; ++axis)
      if (at[axis] >= extents[axis]) return std::nullopt;
    std::uint64_t position = 0;
    for (auto letter = spec.axes.rbegin(); letter != spec.axes.rend(); ++letter) {
      const auto axis = static_cast<unsigned>(*letter - 'x');
      position = position * extents[axis] + at[axis];
    }
    return position;
  }

  const Spec spec;
  const Access access;
  const Structure structure;  // when it was named
  const char* failed = "";
  int fd = -1;
  unsigned char* map = nullptr;
  std::size_t size = 0, head = 0;
  std::array<std::uint32_t, 3> extents{1, 1, 1};
  // By layer: the frame as its elements told, and as it was said to be there; 0 where unknown.
  std::vector<std::uint16_t> frames, guesses;

 private:
  // Finds where the elements begin; the extents, fastest first, where the header tells them.
  bool read_head(std::vector<std::uint32_t>& shape);
  bool find_extents(const std::vector<std::uint32_t>& shape, const Board& board,
                    const Coding& coding);
};

inline int View::open(const Options& options, const Board& board, const Coding& coding) {
  const auto fail = [this](const char* what) {
    failed = what;
    return errno;
  };
  const std::string path = options.root + "/" + spec.path;
  fd = ::open(path.c_str(), (can_write() ? O_RDWR : O_RDONLY) | O_CLOEXEC);
  if (fd < 0) return fail("open");
  struct stat status {};
  if (fstat(fd, &status) != 0) return fail("fstat");
  size = static_cast<std::size_t>(status.st_size);
  std::vector<std::uint32_t> shape;
  errno = EINVAL;
  if (!read_head(shape)) return fail("reading the header");
  if (!find_extents(shape, board, coding)) {
    errno = ERANGE;
    return fail("comparing the shape with the expected one");
  }
  frames.resize(extents[2]);
  guesses.resize(extents[2]);
  if (spec.frame != 0) {
    frames[0] = guesses[0] = static_cast<std::uint16_t>(spec.frame);
  } else {
    for (std::size_t i = 0; i < guesses.size(); ++i)
      if (const std::size_t z = spec.ranges[2].begin + i; z < structure.order.size())
        guesses[i] = structure.order[z];
  }
  if (access == Access::descriptor || access == Access::writing) return 0;
  const int protection = access == Access::writable ? PROT_READ | PROT_WRITE : PROT_READ;
  const int kind = access == Access::private_mapping ? MAP_PRIVATE : MAP_SHARED;
  void* const memory = mmap(nullptr, size, protection, kind, fd, 0);
  if (memory == MAP_FAILED) return fail("mmap");
  map = static_cast<unsigned char*>(memory);
  return 0;
}

inline bool View::read_head(std::vector<std::uint32_t>& shape) {
  if (spec.format == Format::raw || spec.format == Format::txt) return true;
  std::string header;
  const auto read_more = [&](std::size_t bytes) {
    const std::size_t before = header.size();
    header.resize(before + bytes);
    return pread(fd, header.data() + before, bytes, static_cast<off_t>(before)) ==
           static_cast<ssize_t>(bytes);
  };
  if (spec.format == Format::npy) {
    if (!read_more(10)) return false;
    const auto length = static_cast<unsigned char>(header[8]) |
                        static_cast<unsigned>(static_cast<unsigned char>(header[9])) << 8;
    if (!read_more(length)) return false;
    const std::size_t begin = header.find("'shape': (");
    if (begin == header.npos) return false;
    std::istringstream numbers(header.substr(begin + 10));
    for (std::uint32_t number = 0; numbers >> number; numbers.ignore(1))
      shape.insert(shape.begin(), number);
  } else {
    for (bool ended = false; !ended;) {
      const std::size_t block = header.size();
      if (!read_more(2880)) return false;
      for (std::size_t card = block; card < header.size() && !ended; card += 80) {
        const std::string_view keyword = std::string_view(header).substr(card, 8);
        ended = keyword == "END     ";
        if (keyword.starts_with("NAXIS") && keyword[5] != ' ')
          shape.push_back(static_cast<std::uint32_t>(std::stoul(header.substr(card + 10, 20))));
      }
    }
  }
  head = header.size();
  return true;
}

inline bool View::find_extents(const std::vector<std::uint32_t>& shape, const Board& board,
                               const Coding& coding) {
  const std::array<std::uint32_t, 3> whole{
      board.width, spec.frame ? board.frame(spec.frame).rows.load() : board.height,
      static_cast<std::uint32_t>(structure.order.size())};
  for (unsigned axis = 0; axis < 3; ++axis) {
    const auto& [begin, end] = spec.ranges[axis];
    extents[axis] = (end == to_the_end ? std::max(whole[axis], begin) : end) - begin;
  }
  // How far the slowest axis reaches at the moment, the file says; by its size where it has no
  // more.
  const bool z_is_open = spec.spans(Axis::z) && spec.ranges[2].end == to_the_end;
  const std::uint32_t z_extent = extents[2];
  if (z_is_open) {
    extents[2] = 1;
    extents[2] = shape.empty()
                     ? static_cast<std::uint32_t>(size / coding.width(spec.format) / elements())
                     : shape[spec.axes.find('z')];
  }
  if (extents[2] != z_extent && board.is_unchanged(structure)) return false;
  if (!shape.empty()) {
    if (shape.size() != spec.axes.size()) return false;
    for (std::size_t i = 0; i < shape.size(); ++i)
      if (shape[i] != extents[static_cast<unsigned>(spec.axes[i] - 'x')]) return false;
  }
  return head % coding.bytes() == 0 && size >= head + elements() * coding.width(spec.format);
}

}  // namespace stress
