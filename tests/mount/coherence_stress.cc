// Processes that poke and read one cube through many views while it grows: none may ever see an
// old, torn or foreign element.
//
//   coherence-stress [OPTIONS] CUBE         a cube in a mount, new and empty
//   coherence-stress [OPTIONS] --plain DIR  one ordinary file under several names instead
//
// The argument. Every element of every frame has an id, and its value is made of the id, a version
// and the writer, scrambled so that a mixture of two values is no value. In memory that all
// processes share, an element has the highest version whose write was begun (`started`) and the
// highest whose write had returned (`acknowledged`). At any time one process at most owns an
// element and pokes it. A reader notes what is acknowledged, reads by whatever way, and then
// demands
//
//   acknowledged before the read  <=  version  <=  started after the read.
//
// Less is stale (lost, if it stays so), more or no value at all is torn. Which frame is at which
// index moves while frames come and go, so the bookkeeping goes by frame and not by index: the
// value tells its frame. But the map of an open view must never change, and while no frame comes or
// goes each index must have the frame that it is said to have.
//
// Ends with 0 when all was coherent, 1 when not, 2 on wrong use, 3 when a process hung.
#include <fcntl.h>
#include <getopt.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;
using Bytes = std::vector<unsigned char>;

enum class Fault : unsigned { none, stale, torn, lost, hang };

struct Options {
  std::string root;  // the cube, or the directory of the plain file
  bool plain = false;
  unsigned processes = 8;
  double seconds = 10;
  double patience = 60;  // of the watchdog
  std::uint64_t seed = 20240115;
  unsigned width = 48, height = 32;
  unsigned first_frames = 16, most_frames = 96;
  unsigned element_bytes = 8;
  bool is_signed = false;
  bool fits_frames = false;
  bool pokes = true;
  bool frame_pokes = true;
  bool cached = false;  // a writable shared mapping may be refused
  std::string save;
  Fault inject = Fault::none;
};

// ---- Elements as values and as bytes ----

enum class Format : unsigned { raw, npy, fits };
constexpr std::array<const char*, 3> extensions{"raw", "npy", "fits"};

struct Value {
  std::uint32_t element, version, writer;
};

class Coding {
 public:
  Coding(unsigned bytes, bool is_signed)
      : bytes_(bytes), is_signed_(is_signed), mask_(~std::uint64_t{0} >> (64 - 8 * bytes)) {}

  unsigned bytes() const { return bytes_; }
  std::uint32_t last_version() const { return bytes_ == 8 ? 0xffffff : 0x7ff; }
  std::uint32_t element_limit() const { return bytes_ == 8 ? 1U << 24 : 1U << 18; }

  std::uint64_t pack(const Value& v) const {
    const std::uint64_t e = v.element, n = v.version, w = v.writer;
    return bytes_ == 8 ? scramble(check << 56 | (w & 0xff) << 48 | n << 24 | e)
                       : scramble((w & 7) << 29 | n << 18 | e);
  }

  std::optional<Value> unpack(std::uint64_t value) const {
    const std::uint64_t v = unscramble(value);
    const auto cut = [v](unsigned from, unsigned bits) {
      return static_cast<std::uint32_t>(v >> from & ((1U << bits) - 1));
    };
    if (bytes_ == 4) return Value{cut(0, 18), cut(18, 11), cut(29, 3)};
    if (v >> 56 != check) return std::nullopt;
    return Value{cut(0, 24), cut(24, 24), cut(48, 8)};
  }

  // Between a value and the number whose bytes are in a file: FITS is big-endian, and unsigned by
  // BZERO.
  std::uint64_t to_file(std::uint64_t value, Format format) const {
    return format == Format::fits ? swap(value ^ zero()) : value;
  }
  std::uint64_t from_file(std::uint64_t bits, Format format) const {
    return format == Format::fits ? swap(bits) ^ zero() : bits;
  }

  std::uint64_t get(const unsigned char* at) const {
    std::uint64_t bits = 0;
    std::memcpy(&bits, at, bytes_);
    return bits;
  }
  void put(unsigned char* at, std::uint64_t bits) const { std::memcpy(at, &bits, bytes_); }

  // One access, as the processor makes it, to an aligned element of a mapping.
  std::uint64_t load(void* at) const {
    if (bytes_ == 8) return std::atomic_ref(*static_cast<std::uint64_t*>(at)).load();
    return std::atomic_ref(*static_cast<std::uint32_t*>(at)).load();
  }
  void store(void* at, std::uint64_t bits) const {
    if (bytes_ == 8)
      std::atomic_ref(*static_cast<std::uint64_t*>(at)).store(bits);
    else
      std::atomic_ref(*static_cast<std::uint32_t*>(at)).store(static_cast<std::uint32_t>(bits));
  }

  const char* npy_type() const { return bytes_ == 4 ? "<u4" : is_signed_ ? "<i8" : "<u8"; }
  // The value of BZERO; none where it is 0.
  const char* fits_zero() const {
    return is_signed_ ? nullptr : bytes_ == 4 ? "2147483648" : "9223372036854775808";
  }

 private:
  static constexpr std::uint64_t check = 0xa5;
  static constexpr std::uint64_t factor = 0x9e3779b97f4a7c15;
  static constexpr std::uint64_t inverse() {
    std::uint64_t x = factor;
    for (int i = 0; i < 6; ++i) x *= 2 - factor * x;
    return x;
  }

  std::uint64_t fold(std::uint64_t v) const { return v ^ (v & mask_) >> (4 * bytes_); }
  std::uint64_t scramble(std::uint64_t v) const {
    return fold(v * factor & mask_) * factor & mask_;
  }
  std::uint64_t unscramble(std::uint64_t v) const {
    return fold(v * inverse() & mask_) * inverse() & mask_;
  }
  std::uint64_t swap(std::uint64_t v) const { return __builtin_bswap64(v) >> (64 - 8 * bytes_); }
  std::uint64_t zero() const { return is_signed_ ? 0 : std::uint64_t{1} << (8 * bytes_ - 1); }

  unsigned bytes_;
  bool is_signed_;
  std::uint64_t mask_;
};

// ---- What all processes share ----

constexpr unsigned most_processes = 64;
constexpr unsigned most_frames = 1000;
constexpr unsigned ring_size = 256;

enum Count : unsigned {
  poke_write,
  poke_span,
  poke_unaligned,
  poke_msync,
  poke_close,
  pokes_refused,
  read_fresh,
  read_open,
  read_shared,
  read_private,
  read_writable,
  read_whole,
  opens,
  opens_failed,
  mappings_refused,
  moved,
  appended,
  inserted,
  removed,
  restored,
  stale,
  torn,
  lost,
  foreign,
  errors,
  counts
};
constexpr std::array<const char*, counts> count_names{"pokes: write of an element",
                                                      "pokes: write of several",
                                                      "pokes: unaligned write",
                                                      "pokes: stores and msync",
                                                      "pokes: stores, munmap and close",
                                                      "pokes refused: frame just removed",
                                                      "reads: just opened",
                                                      "reads: open descriptor",
                                                      "reads: shared mapping",
                                                      "reads: private mapping",
                                                      "reads: writable mapping",
                                                      "reads: whole view",
                                                      "opens",
                                                      "opens failed: name just moved",
                                                      "writable mappings refused",
                                                      "names just moved",
                                                      "frames appended",
                                                      "frames inserted",
                                                      "frames removed",
                                                      "frames restored",
                                                      "STALE",
                                                      "TORN",
                                                      "LOST",
                                                      "FOREIGN",
                                                      "ERRORS"};

struct Element {
  std::atomic<std::uint32_t> started, acknowledged;
  std::atomic<std::uint8_t> owner;   // number of a process and 1
  std::atomic<std::uint8_t> writer;  // of the version that was started
};

enum class State : std::uint8_t { unborn, live, changing, removed };

struct Frame {
  std::atomic<State> state;
  std::atomic<std::uint32_t> changes;  // how often it was removed or restored
  std::atomic<std::uint32_t> holders;  // processes that store into mappings of it
  std::atomic<std::uint32_t> rows;
};

struct Process {
  std::atomic<std::uint64_t> steps;
  std::array<std::atomic<std::uint64_t>, counts> counters;
  std::array<char, 240> doing;  // read by others only to tell what hangs
};

struct Shared {
  std::atomic<bool> stop;
  std::atomic<std::uint64_t> generation;                   // odd while the order of frames changes
  std::atomic<std::uint32_t> length;                       // of the order
  std::atomic<std::uint32_t> born;                         // frames are 1 … born
  std::atomic<std::uint32_t> poked;                        // pokes begun, for the ring
  std::array<std::atomic<std::uint32_t>, ring_size> ring;  // elements lately poked
  std::array<std::atomic<std::uint16_t>, most_frames> order;
  std::array<Frame, most_frames + 1> frames;
  std::array<Process, most_processes + 1> processes;  // the last one grows, and verifies
};

// Which frame is at which index, at some moment.
struct Structure {
  std::uint64_t generation = 1;
  std::vector<std::uint16_t> order;
};

class Board {
 public:
  explicit Board(const Options& options)
      : width(options.width),
        height(options.height),
        shared_(share<Shared>(1)),
        elements_(share<Element>(std::size_t{options.most_frames + 1} * width * height)) {}

  Shared& operator*() const { return *shared_; }
  Shared* operator->() const { return shared_; }

  std::uint32_t id(unsigned frame, unsigned x, unsigned y) const {
    return (frame * height + y) * width + x;
  }
  unsigned frame_of(std::uint32_t id) const { return id / (width * height); }
  unsigned y_of(std::uint32_t id) const { return id / width % height; }
  unsigned x_of(std::uint32_t id) const { return id % width; }

  Element& element(std::uint32_t id) const { return elements_[id]; }
  Frame& frame(unsigned number) const { return shared_->frames[number]; }

  bool is_live(unsigned frame) const { return shared_->frames[frame].state == State::live; }

  Structure structure() const {
    Structure found;
    for (int attempt = 0; attempt < 3; ++attempt) {
      found.generation = shared_->generation;
      found.order.resize(shared_->length);
      for (std::size_t i = 0; i < found.order.size(); ++i) found.order[i] = shared_->order[i];
      if (is_unchanged(found)) break;
    }
    return found;
  }
  bool is_unchanged(const Structure& since) const {
    return since.generation % 2 == 0 && shared_->generation == since.generation;
  }
  void set_order(const std::vector<std::uint16_t>& order) const {
    for (std::size_t i = 0; i < order.size(); ++i) shared_->order[i] = order[i];
    shared_->length = static_cast<std::uint32_t>(order.size());
  }

  std::uint64_t total(unsigned first, unsigned last) const {
    std::uint64_t sum = 0;
    for (const Process& process : shared_->processes)
      for (unsigned i = first; i <= last; ++i) sum += process.counters[i];
    return sum;
  }
  std::uint64_t faults() const { return total(stale, errors); }

  const unsigned width, height;

 private:
  template <class T>
  static T* share(std::size_t count) {
    void* memory =
        mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      std::perror("mmap");
      std::exit(2);
    }
    return new (memory) T[count]();
  }

  Shared* const shared_;
  Element* const elements_;
};

// ---- Names of views ----

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

__attribute__((format(printf, 1, 2))) std::string text(const char* format, ...) {
  std::array<char, 1024> buffer;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(buffer.data(), buffer.size(), format, arguments);
  va_end(arguments);
  return buffer.data();
}

std::string frame_name(const Options& options, unsigned frame) {
  return text("f%04u.%s", frame, options.fits_frames ? "fits" : "npy");
}

void name_view(Spec& spec) {
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

// ---- An open view ----

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

int View::open(const Options& options, const Board& board, const Coding& coding) {
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

bool View::read_head(std::vector<std::uint32_t>& shape) {
  if (spec.format == Format::raw) return true;
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

bool View::find_extents(const std::vector<std::uint32_t>& shape, const Board& board,
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
    extents[2] = shape.empty() ? static_cast<std::uint32_t>(size / coding.bytes() / elements())
                               : shape[spec.axes.find('z')];
  }
  if (extents[2] != z_extent && board.is_unchanged(structure)) return false;
  if (!shape.empty()) {
    if (shape.size() != spec.axes.size()) return false;
    for (std::size_t i = 0; i < shape.size(); ++i)
      if (shape[i] != extents[static_cast<unsigned>(spec.axes[i] - 'x')]) return false;
  }
  return head % coding.bytes() == 0 && size >= head + elements() * coding.bytes();
}

// ---- Processes ----

class Actor {
 public:
  Actor(const Options& options, const Board& board, unsigned number)
      : options_(options),
        board_(board),
        coding_(options.element_bytes, options.is_signed),
        number_(number),
        self_(board->processes[number]),
        random_(options.seed * 1000 + number) {}

 protected:
  // Publishes what is done next. Also the sign of life that the watchdog looks for.
  __attribute__((format(printf, 2, 3))) void doing(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(self_.doing.data(), self_.doing.size(), format, arguments);
    va_end(arguments);
    ++self_.steps;
  }

  void count(Count what, std::uint64_t more = 1) { self_.counters[what] += more; }

  // Tells of a fault. The first few end the run.
  void report(Count kind, const std::string& what) {
    count(kind);
    if (self_.counters[kind] <= 5) {
      const std::string line = text("process %u: %s: ", number_, count_names[kind]) + what + "\n";
      (void)!write(STDERR_FILENO, line.data(), line.size());
    }
    if (board_.faults() > 20) board_->stop = true;
  }
  void report_errno(const std::string& what, int error) {
    report(errors, what + ": " + std::strerror(error));
  }

  // Below `limit`.
  std::uint32_t below(std::uint64_t limit) {
    return static_cast<std::uint32_t>(random_() % std::max<std::uint64_t>(limit, 1));
  }
  bool one_in(unsigned n) { return below(n) == 0; }

  const Options& options_;
  const Board& board_;
  const Coding coding_;
  const unsigned number_;
  Process& self_;
  std::mt19937_64 random_;
};

// Makes frames come and go.
class Grower : public Actor {
 public:
  using Actor::Actor;

  void start() {
    for (unsigned i = 0; i < options_.first_frames; ++i) add("append", std::nullopt);
  }

  // One ordinary file of the first frames.
  void start_plain() {
    Bytes content;
    std::vector<std::uint16_t> order;
    for (unsigned i = 0; i < options_.first_frames; ++i) {
      const unsigned frame = ++board_->born;
      board_.frame(frame).rows = options_.height;
      begin(frame);
      append_elements(content, frame, Format::raw);
      acknowledge(frame);
      order.push_back(static_cast<std::uint16_t>(frame));
    }
    put_file(plain_names[0], content);
    for (std::size_t i = 1; i < plain_names.size(); ++i)
      if (link(at(plain_names[0]).c_str(), at(plain_names[i]).c_str()) != 0)
        report_errno(plain_names[i], errno);
    board_.set_order(order);
    board_->generation = 2;
  }

  void run() {
    const auto begin = Clock::now();
    while (!board_->stop) {
      doing("a pause between growths");
      std::this_thread::sleep_for(std::chrono::milliseconds(5 + below(60)));
      const std::chrono::duration<double> passed = Clock::now() - begin;
      const double allowed =
          options_.first_frames +
          (options_.most_frames - options_.first_frames) * passed / (options_.seconds * 1s);
      if (board_->born < options_.most_frames && board_->born < allowed && one_in(2)) {
        if (one_in(2))
          add("append", std::nullopt);
        else
          add("", below(board_->length + 1));
      } else if (!removed_.empty() && (one_in(2) || removed_.size() > board_->length)) {
        restore(below(removed_.size()));
      } else {
        remove();
      }
    }
  }

  void restore_all() {
    while (!removed_.empty()) restore(removed_.size() - 1);
  }

  // What is in removed/ now, by what all know.
  void find_removed() {
    for (unsigned frame = 1; frame <= board_->born; ++frame)
      if (board_.frame(frame).state == State::removed) removed_.push_back(frame);
  }

 private:
  // Another frame at the end, or at an index. Some have half the rows: pad is beyond.
  void add(const std::string& door, std::optional<std::uint32_t> index) {
    const unsigned frame = board_->born + 1;
    const bool is_short = frame > options_.first_frames && one_in(5);
    board_.frame(frame).rows = is_short ? options_.height / 2 : options_.height;
    begin(frame);
    board_->born = frame;
    Bytes content = head(frame);
    append_elements(content, frame, options_.fits_frames ? Format::fits : Format::npy);
    if (options_.fits_frames) content.resize((content.size() + 2879) / 2880 * 2880);
    const std::string directory = index ? text("insert/z/%u", *index) : door;
    doing("copying frame %u into %s", frame, directory.c_str());
    const std::vector<std::uint16_t> before = board_.structure().order;
    put_file(directory + "/" + frame_name(options_, frame), content, [&](int file) {
      change([&] {
        if (close(file) != 0) return report_errno("close() of a new frame", errno);
        acknowledge(frame);
      });
    });
    const std::vector<std::uint16_t> after = board_.structure().order;
    const std::size_t place = index.value_or(static_cast<std::uint32_t>(before.size()));
    if (place >= after.size() || after[place] != frame || without(after, frame) != before)
      report(foreign, text("frame %u is not at the index %zu", frame, place));
    count(index ? inserted : appended);
  }

  void remove() {
    const unsigned frame = board_.structure().order[below(board_->length)];
    if (frame == 1) return;  // is always there, so that the cube keeps its shape
    withdraw(frame);
    const std::vector<std::uint16_t> before = board_.structure().order;
    doing("removing frame %u", frame);
    change([&] {
      if (unlink(path("frames", frame).c_str()) != 0) report_errno("rm of a frame", errno);
    });
    board_.frame(frame).state = State::removed;
    removed_.push_back(frame);
    if (without(before, frame) != board_.structure().order)
      report(foreign, text("more has changed than the removal of frame %u", frame));
    count(removed);
  }

  void restore(std::size_t which) {
    const unsigned frame = removed_[which];
    removed_.erase(removed_.begin() + static_cast<std::ptrdiff_t>(which));
    withdraw(frame);
    const std::vector<std::uint16_t> before = board_.structure().order;
    doing("restoring frame %u", frame);
    change([&] {
      if (rename(path("removed", frame).c_str(), path("frames", frame).c_str()) != 0)
        report_errno("mv of a removed frame", errno);
    });
    board_.frame(frame).state = State::live;
    if (before != without(board_.structure().order, frame))
      report(foreign, text("more has changed than the restoration of frame %u", frame));
    count(restored);
  }

  // From now on nobody begins to store into its mappings: the error that a page would come back
  // with reaches whoever syncs that file next.
  void withdraw(unsigned frame) {
    board_.frame(frame).state = State::changing;
    ++board_.frame(frame).changes;
    doing("waiting until nobody stores into frame %u", frame);
    while (board_.frame(frame).holders != 0 && !board_->stop) std::this_thread::yield();
  }

  template <class Body>
  void change(const Body& body) {
    ++board_->generation;
    body();
    board_.set_order(read_order());
    ++board_->generation;
  }

  void begin(unsigned frame) {
    for (unsigned i = 0; i < board_.width * board_.frame(frame).rows; ++i) {
      Element& element = board_.element(board_.id(frame, 0, 0) + i);
      element.writer = static_cast<std::uint8_t>(number_);
      element.started = 1;
    }
  }
  void acknowledge(unsigned frame) {
    for (unsigned i = 0; i < board_.width * board_.frame(frame).rows; ++i)
      board_.element(board_.id(frame, 0, 0) + i).acknowledged = 1;
    board_.frame(frame).state = State::live;
  }

  void append_elements(Bytes& content, unsigned frame, Format format) {
    std::size_t at = content.size();
    const std::size_t elements = std::size_t{board_.width} * board_.frame(frame).rows;
    content.resize(at + elements * coding_.bytes());
    for (std::uint32_t i = 0; i < elements; ++i, at += coding_.bytes()) {
      const std::uint64_t value = coding_.pack({board_.id(frame, 0, 0) + i, 1, number_});
      coding_.put(content.data() + at, coding_.to_file(value, format));
    }
  }

  Bytes head(unsigned frame) {
    const unsigned rows = board_.frame(frame).rows;
    std::string header;
    if (options_.fits_frames) {
      const auto card = [&](const char* keyword, const std::string& value) {
        header += text("%-8s= %20s%50s", keyword, value.c_str(), "");
      };
      card("SIMPLE", "T");
      card("BITPIX", std::to_string(8 * coding_.bytes()));
      card("NAXIS", "2");
      card("NAXIS1", std::to_string(board_.width));
      card("NAXIS2", std::to_string(rows));
      if (coding_.fits_zero() != nullptr) card("BZERO", coding_.fits_zero());
      header += "END";
      header.resize(2880, ' ');
    } else {
      header = std::string("\x93NUMPY\x01\0v\0", 10) +
               text("{'descr': '%s', 'fortran_order': False, 'shape': (%u, %u), }",
                    coding_.npy_type(), rows, board_.width);
      header.resize(127, ' ');
      header += '\n';
    }
    return {header.begin(), header.end()};
  }

  void put_file(
      const std::string& name, const Bytes& content,
      const std::function<void(int)>& finish = [](int file) { close(file); }) {
    const int file = open(at(name).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (file < 0) return report_errno("creating " + name, errno);
    for (std::size_t at = 0; at < content.size();) {
      const std::size_t some = std::min<std::size_t>(content.size() - at, 1 + below(16384));
      const ssize_t put = write(file, content.data() + at, some);
      if (put <= 0) {
        report_errno("writing " + name, errno);
        break;
      }
      at += static_cast<std::size_t>(put);
    }
    finish(file);
  }

  // As meta/frames has it.
  std::vector<std::uint16_t> read_order() {
    std::ifstream table(at("meta/frames"));
    const auto cells = [](const std::string& line) {
      std::vector<std::string> found;
      std::istringstream stream(line);
      for (std::string cell; std::getline(stream, cell, '\t');) found.push_back(cell);
      return found;
    };
    std::string line;
    std::getline(table, line);
    const std::vector<std::string> titles = cells(line);
    const auto name = std::find(titles.begin(), titles.end(), "name") - titles.begin();
    const auto index = std::find(titles.begin(), titles.end(), "index") - titles.begin();
    std::vector<std::uint16_t> order;
    while (std::getline(table, line)) {
      const std::vector<std::string> row = cells(line);
      const std::size_t z = std::stoul(row.at(static_cast<std::size_t>(index)));
      if (order.size() <= z) order.resize(z + 1);
      order[z] =
          static_cast<std::uint16_t>(std::stoul(row.at(static_cast<std::size_t>(name)).substr(1)));
    }
    return order;
  }

  static std::vector<std::uint16_t> without(std::vector<std::uint16_t> order, unsigned frame) {
    std::erase(order, frame);
    return order;
  }
  std::string at(const std::string& name) { return options_.root + "/" + name; }
  std::string path(const char* directory, unsigned frame) {
    return at(directory) + "/" + frame_name(options_, frame);
  }

  std::vector<unsigned> removed_;
};

// Pokes and reads.
class Worker : public Actor {
 public:
  using Actor::Actor;

  void run() {
    while (!board_->stop) {
      const bool fresh = views_.size() < most_views || one_in(4);
      const std::uint32_t target = choose_target();
      if (!fresh) {
        std::unique_ptr<View>& view = views_[below(views_.size())];
        act(*view, target, false);
        if (view->fd < 0 && view->map == nullptr)
          view = std::move(views_.back()), views_.pop_back();
        continue;
      }
      std::unique_ptr<View> view = open(random_spec(target), random_access(), structure_);
      if (view == nullptr) continue;
      act(*view, target, true);
      keep(std::move(view));
    }
    for (const std::unique_ptr<View>& view : views_) put_away(*view);
  }

  // Whether every kind of view has the last version of every element.
  void verify() {
    final_ = true;
    if (options_.plain) {
      for (const char* name : plain_names) verify(plain_spec(name));
      return;
    }
    structure_ = board_.structure();
    const auto depth = static_cast<std::uint32_t>(structure_.order.size());
    verify(spec_of("xyz", {}, Format::raw));
    for (const Format format : {Format::raw, Format::npy, Format::fits}) {
      verify(spec_of("xyz", {}, format));
      for (const char* axes : {"xzy", "yxz", "yzx", "zxy", "zyx"})
        verify(spec_of(axes, {}, format));
      for (const char* axes : {"xy", "yx", "xz", "zx", "yz", "zy"}) {
        const unsigned fixed = axes[0] + axes[1] == 'x' + 'y'   ? 2
                               : axes[0] + axes[1] == 'x' + 'z' ? 1
                                                                : 0;
        const std::array<std::uint32_t, 3> extents{board_.width, board_.height, depth};
        for (std::uint32_t i = 0; i < extents[fixed]; ++i) {
          std::array<Range, 3> ranges;
          ranges[fixed] = {i, i + 1};
          verify(spec_of(axes, ranges, format));
        }
      }
    }
    for (int i = 0; i < 300; ++i) {
      const std::uint32_t x = below(board_.width), y = below(board_.height), z = below(depth);
      const auto format = Format{below(3)};
      verify(spec_of("x", {Range{}, {y, y + 1}, {z, z + 1}}, format));
      verify(spec_of("y", {Range{x, x + 1}, {}, {z, z + 1}}, format));
      verify(spec_of("z", {Range{x, x + 1}, {y, y + 1}, {}}, format));
    }
    for (const std::uint16_t frame : structure_.order) verify(frame_spec(frame));
  }

  // The cube's elements, for whoever compares them after the end of the mount.
  void save() {
    std::ifstream cube(options_.root + "/cube.raw", std::ios::binary);
    std::ofstream(options_.save, std::ios::binary) << cube.rdbuf();
  }

 private:
  static constexpr std::size_t most_views = 12;
  static constexpr std::uint32_t whole = 8192;  // most elements of a read

  // What a reader knows of an element before it reads.
  struct Expected {
    std::uint16_t frame;  // 0: nothing
    std::uint32_t acknowledged;
  };
  // An element that is this process's to poke.
  struct Claim {
    Element* element;
    std::uint32_t id;
    unsigned frame;
    std::uint32_t changes;  // of the frame, before
  };

  // ---- Choices ----

  // An element near one that was poked lately, or any.
  std::uint32_t choose_target() {
    std::uint32_t id = board_->ring[below(ring_size)];
    if (id == 0 || one_in(3))
      id = board_.id(1 + below(board_->born), below(options_.width), below(options_.height));
    if (one_in(3)) return id;
    const std::uint32_t x = std::min(board_.x_of(id) / 8 * 8 + below(8), options_.width - 1);
    return board_.id(board_.frame_of(id), x, board_.y_of(id));
  }

  Access random_access() {
    const bool may_poke = options_.pokes && one_in(2);
    if (may_poke) return one_in(2) ? Access::writing : Access::writable;
    return one_in(3) ? Access::descriptor : one_in(3) ? Access::private_mapping : Access::shared;
  }

  Range around(std::uint32_t at, std::uint32_t extent) {
    const std::uint32_t begin = at - std::min(at, below(20));
    return {begin, one_in(3) ? to_the_end : std::min(at + 1 + below(20), extent)};
  }

  static Spec spec_of(const std::string& axes, const std::array<Range, 3>& ranges, Format format) {
    Spec spec{"", axes, ranges, format, 0};
    name_view(spec);
    return spec;
  }
  Spec frame_spec(unsigned frame) {
    const bool is_removed = board_.frame(frame).state == State::removed;
    return {std::string(is_removed ? "removed/" : "frames/") + frame_name(options_, frame),
            "xy",
            {Range{}, {}, {0, 1}},
            options_.fits_frames ? Format::fits : Format::npy,
            frame};
  }
  static Spec plain_spec(const char* name) { return {name, "xyz", {}, Format::raw, 0}; }

  // A view that has the element if its frame is in the cube, as it was last seen (`structure_`).
  Spec random_spec(std::uint32_t target) {
    structure_ = board_.structure();
    if (options_.plain) return plain_spec(plain_names[below(plain_names.size())]);
    const auto& order = structure_.order;
    const unsigned frame = board_.frame_of(target);
    if (one_in(8)) return frame_spec(frame);
    const auto found = std::find(order.begin(), order.end(), frame);
    const auto depth = static_cast<std::uint32_t>(order.size());
    const std::array<std::uint32_t, 3> extents{options_.width, options_.height, depth};
    const std::array<std::uint32_t, 3> at{
        board_.x_of(target), board_.y_of(target),
        found == order.end() ? below(depth) : static_cast<std::uint32_t>(found - order.begin())};
    std::string axes = "xyz";
    std::shuffle(axes.begin(), axes.end(), random_);
    const std::uint32_t rank = std::array{1U, 2U, 2U, 2U, 2U, 3U}[below(6)];
    axes.resize(rank);
    if (one_in(8)) axes = "xyz";  // most often all of it
    std::array<Range, 3> ranges;
    const bool is_cut = axes.size() == 3 ? axes != "xyz" : one_in(4);
    for (unsigned axis = 0; axis < 3; ++axis) {
      if (axes.find("xyz"[axis]) == axes.npos)
        ranges[axis] = {at[axis], at[axis] + 1};
      else if (is_cut && one_in(2))
        ranges[axis] = around(at[axis], extents[axis]);
    }
    return spec_of(axes, ranges, Format{below(3)});
  }

  // ---- Opening and closing ----

  std::unique_ptr<View> open(Spec spec, Access access, const Structure& structure) {
    if (spec.path.starts_with("removed/")) access = Access::descriptor;
    if (spec.frame != 0 && !options_.frame_pokes && access > Access::descriptor &&
        access != Access::shared)
      access = Access::private_mapping;
    doing("open %s for %s", spec.path.c_str(), access_names[static_cast<unsigned>(access)]);
    auto view = std::make_unique<View>(std::move(spec), access, structure);
    count(opens);
    const int error = view->open(options_, board_, coding_);
    if (error == 0) {
      // A mapping outlives its descriptor.
      if (view->map != nullptr && !view->can_write() && one_in(2)) {
        ::close(view->fd);
        view->fd = -1;
      }
      return view;
    }
    if (error == ENODEV && options_.cached && access == Access::writable) {
      count(mappings_refused);
    } else if ((error == ENOENT || error == ESTALE) && !is_settled(*view)) {
      count(opens_failed);
    } else {
      report_errno(text("%s, of %s for %s", view->failed, view->spec.path.c_str(),
                        access_names[static_cast<unsigned>(access)]),
                   error);
    }
    return nullptr;
  }

  // Whether what its name means has not changed since it was chosen.
  bool is_settled(const View& view) {
    if (view.spec.frame == 0) return board_.is_unchanged(view.structure);
    return board_.is_unchanged(view.structure) && board_.is_live(view.spec.frame);
  }

  void keep(std::unique_ptr<View> view) {
    if (view->fd < 0 && view->map == nullptr) return;
    if (views_.size() < most_views) return views_.push_back(std::move(view));
    if (one_in(3)) views_[below(views_.size())].swap(view);
    put_away(*view);
  }

  void put_away(View& view) {
    doing("close %s", view.spec.path.c_str());
    if (const int error = view.close()) report_errno("closing " + view.spec.path, error);
  }

  // ---- Reading ----

  void act(View& view, std::uint32_t target, bool fresh) {
    if (view.elements() == 0) return;
    const std::optional<std::uint64_t> found =
        view.find(board_.frame_of(target), board_.x_of(target), board_.y_of(target));
    std::uint64_t position = found.value_or(below(view.elements()));
    if (fresh && !found) {
      // Which frame is where is known by now only as it was said.
      std::swap(view.frames, view.guesses);
      position = view.find(board_.frame_of(target), board_.x_of(target), board_.y_of(target))
                     .value_or(position);
      std::swap(view.frames, view.guesses);
    }
    if (view.can_write() && one_in(2)) return poke(view, position);
    std::uint64_t length = one_in(3) ? 1 + below(64) : 1;
    if (one_in(20)) {
      position = 0;
      length = whole;
      count(read_whole);
    }
    count(fresh                                    ? read_fresh
          : view.map == nullptr                    ? read_open
          : view.access == Access::shared          ? read_shared
          : view.access == Access::private_mapping ? read_private
                                                   : read_writable);
    read(view, position, length);
  }

  // Reads elements and checks them.
  void read(View& view, std::uint64_t first, std::uint64_t length) {
    length = std::min(length, view.elements() - first);
    std::vector<Expected> before(length);
    for (std::uint64_t i = 0; i < length; ++i) before[i] = expect(view, first + i);
    std::vector<std::uint64_t> bits(length);
    if (!fetch(view, first, bits)) return;
    for (std::uint64_t i = 0; i < length; ++i)
      if (!check(view, first + i, bits[i], before[i])) return;
  }

  Expected expect(const View& view, std::uint64_t position) {
    const Place at = view.place(position);
    std::uint16_t frame = view.frames[at.layer];
    if (frame == 0) frame = view.guesses[at.layer];
    if (frame == 0) return {0, 0};
    return {frame, board_.element(board_.id(frame, at.x, at.y)).acknowledged};
  }

  bool fetch(View& view, std::uint64_t first, std::vector<std::uint64_t>& bits) {
    const std::size_t width = coding_.bytes();
    const std::size_t begin = view.head + first * width;
    if (view.map != nullptr && (view.fd < 0 || !one_in(8))) {
      doing("load %zu elements at byte %zu of %s", bits.size(), begin, view.spec.path.c_str());
      for (std::size_t i = 0; i < bits.size(); ++i)
        bits[i] = coding_.load(view.map + begin + i * width);
      return true;
    }
    // Often a few bytes more, so that it begins and ends within elements.
    const std::size_t more = one_in(3) ? std::min<std::size_t>(begin, below(width)) : 0;
    Bytes bytes(more + bits.size() * width);
    doing("pread %zu bytes at %zu of %s", bytes.size(), begin - more, view.spec.path.c_str());
    for (std::size_t got = 0; got < bytes.size();) {
      const ssize_t some = pread(view.fd, bytes.data() + got, bytes.size() - got,
                                 static_cast<off_t>(begin - more + got));
      if (some <= 0) {
        report_errno(self_.doing.data() + text(", at %zu", got), some < 0 ? errno : ENODATA);
        return false;
      }
      got += static_cast<std::size_t>(some);
    }
    for (std::size_t i = 0; i < bits.size(); ++i) bits[i] = coding_.get(&bytes[more + i * width]);
    return true;
  }

  bool check(View& view, std::uint64_t position, std::uint64_t bits, const Expected& before) {
    const Place at = view.place(position);
    const std::uint16_t known = view.frames[at.layer];
    const std::uint64_t value = coding_.from_file(bits, view.spec.format);
    const std::optional<Value> found = coding_.unpack(value);
    const unsigned frame = found ? board_.frame_of(found->element) : 0;
    const auto wrong = [&](Count kind, const std::string& what) {
      report(kind,
             describe(view, position, value) + "; " + what + "; " + look_again(view, position));
      return false;
    };
    if (value == 0) {  // pad, beyond the rows of a short frame
      const unsigned there = known != 0 ? known : before.frame;
      if (there != 0 && at.y >= board_.frame(there).rows) return true;
      if (known == 0 && !board_.is_unchanged(view.structure)) return true;
      return wrong(foreign, text("frame %u should be there", there));
    }
    if (frame == 0 || frame > board_->born) return wrong(torn, "there is no such element");
    if (board_.x_of(found->element) != at.x || board_.y_of(found->element) != at.y)
      return wrong(foreign, "it has another place");
    if (known != 0 && known != frame) return wrong(foreign, text("frame %u was there", known));
    if (known == 0) {
      if (before.frame != frame) {
        if (board_.is_unchanged(view.structure))
          return wrong(foreign, text("frame %u is there", before.frame));
        count(moved);
      }
      view.frames[at.layer] = static_cast<std::uint16_t>(frame);
    }
    Element& element = board_.element(found->element);
    const std::uint32_t least = before.frame == frame ? before.acknowledged : 0;
    const std::uint32_t most = element.started;
    if (found->version < least || found->version == 0 || found->version > most)
      return wrong(found->version >= least ? torn
                   : final_                ? lost
                                           : stale,
                   text("acknowledged were %u, started are %u", least, most));
    // Whether a poke took place that was refused is settled by who looks first.
    if (final_) {
      element.acknowledged = found->version;
      element.started = found->version;
    }
    return true;
  }

  std::string describe(const View& view, std::uint64_t position, std::uint64_t value) {
    const Place at = view.place(position);
    const std::string where =
        text("%s by %s%s: x %u y %u layer %u, at byte %zu, has %#llx, ", view.spec.path.c_str(),
             access_names[static_cast<unsigned>(view.access)], view.fd < 0 ? " (closed)" : "", at.x,
             at.y, at.layer, view.head + position * coding_.bytes(),
             static_cast<unsigned long long>(value));
    if (value == 0) return where + "pad";
    const std::optional<Value> found = coding_.unpack(value);
    if (!found) return where + "which is no value";
    return where + text("version %u by process %u of frame %u x %u y %u", found->version,
                        found->writer, board_.frame_of(found->element), board_.x_of(found->element),
                        board_.y_of(found->element));
  }

  // What the element is a moment later, to tell what is late from what is lost.
  std::string look_again(View& view, std::uint64_t position) {
    const std::string was = self_.doing.data();
    std::this_thread::sleep_for(100ms);
    std::vector<std::uint64_t> bits(1);
    std::string seen = "later it cannot be read";
    if (fetch(view, position, bits)) {
      const std::uint64_t value = coding_.from_file(bits[0], view.spec.format);
      const std::optional<Value> found = coding_.unpack(value);
      seen = found ? text("later it has version %u", found->version)
                   : text("later it has %#llx", static_cast<unsigned long long>(value));
    }
    doing("%s", was.c_str());
    return seen;
  }

  // ---- Poking ----

  void poke(View& view, std::uint64_t position) {
    if (view.frames[view.place(position).layer] == 0) {
      read(view, position, 1);
      count(read_open);
    }
    const bool by_store = view.map != nullptr && !one_in(4);
    const std::uint32_t wanted = one_in(3) ? 2 + below(30) : 1;
    std::vector<Claim> claims;
    while (claims.size() < wanted && claim(view, position + claims.size(), claims)) continue;
    if (claims.empty()) return;
    if (by_store) {
      if (hold(claims)) store(view, position, claims);
    } else {
      write(view, position, claims);
    }
    for (const Claim& claim : claims) claim.element->owner = 0;
  }

  bool claim(const View& view, std::uint64_t position, std::vector<Claim>& claims) {
    if (position >= view.elements()) return false;
    const Place at = view.place(position);
    const unsigned frame = view.frames[at.layer];
    if (frame == 0 || at.y >= board_.frame(frame).rows) return false;
    const std::uint32_t id = board_.id(frame, at.x, at.y);
    Element& element = board_.element(id);
    std::uint8_t nobody = 0;
    if (!element.owner.compare_exchange_strong(nobody, static_cast<std::uint8_t>(number_ + 1)))
      return false;
    claims.push_back({&element, id, frame, board_.frame(frame).changes});
    if (element.started < coding_.last_version() && board_.is_live(frame)) return true;
    element.owner = 0;
    claims.pop_back();
    return false;
  }

  // Keeps the frames from being removed while stores are on the way.
  bool hold(const std::vector<Claim>& claims) {
    for (const Claim& claim : claims) ++board_.frame(claim.frame).holders;
    const bool all = std::all_of(claims.begin(), claims.end(),
                                 [&](const Claim& claim) { return board_.is_live(claim.frame); });
    if (!all) let_go(claims);
    return all;
  }
  void let_go(const std::vector<Claim>& claims) {
    for (const Claim& claim : claims) --board_.frame(claim.frame).holders;
  }

  // The element's next value, as its bytes are in the file.
  std::uint64_t next(const View& view, const Claim& claim) {
    const std::uint32_t version = claim.element->started + 1;
    claim.element->writer = static_cast<std::uint8_t>(number_);
    claim.element->started = version;
    board_->ring[board_->poked++ % ring_size] = claim.id;
    return coding_.to_file(coding_.pack({claim.id, version, number_}), view.spec.format);
  }

  void acknowledge(const std::vector<Claim>& claims) {
    for (const Claim& claim : claims) claim.element->acknowledged = claim.element->started.load();
  }

  // By stores into the mapping, which count when msync(), or the close, has returned.
  void store(View& view, std::uint64_t position, const std::vector<Claim>& claims) {
    const std::size_t width = coding_.bytes();
    const std::size_t begin = view.head + position * width;
    const std::size_t end = begin + claims.size() * width;
    doing("store %zu elements at byte %zu of %s", claims.size(), begin, view.spec.path.c_str());
    for (std::size_t i = 0; i < claims.size(); ++i)
      coding_.store(view.map + begin + i * width, next(view, claims[i]));
    int error = 0;
    if (one_in(10)) {
      doing("munmap and close of %s after a store at byte %zu", view.spec.path.c_str(), begin);
      count(poke_close);
      error = view.close();
    } else {
      const std::size_t page = begin / 4096 * 4096;
      doing("msync of bytes %zu to %zu of %s", begin, end, view.spec.path.c_str());
      count(poke_msync);
      if (msync(view.map + page, end - page, MS_SYNC) != 0) error = errno;
    }
    if (error == 0)
      acknowledge(claims);
    else
      report_errno(self_.doing.data(), error);
    let_go(claims);
  }

  // By a write. It may begin and end within a neighbour whose bytes stay as they are.
  void write(View& view, std::uint64_t position, std::vector<Claim>& claims) {
    const std::size_t width = coding_.bytes();
    std::size_t begin = view.head + position * width;
    Bytes bytes(claims.size() * width);
    std::vector<Claim> neighbours;
    Bytes neighbour(width);
    const auto borrow = [&](std::uint64_t at) {
      if (!one_in(3) || !claim(view, at, neighbours)) return std::size_t{0};
      const Claim& claim = neighbours.back();
      const std::uint32_t version = claim.element->acknowledged;
      if (claim.element->started != version) return std::size_t{0};  // one was refused: unknown
      const Value value{claim.id, version, claim.element->writer};
      coding_.put(neighbour.data(), coding_.to_file(coding_.pack(value), view.spec.format));
      return std::size_t{1} + below(width - 1);
    };
    for (std::size_t i = 0; i < claims.size(); ++i)
      coding_.put(&bytes[i * width], next(view, claims[i]));
    if (const std::size_t some = position > 0 ? borrow(position - 1) : 0) {
      bytes.insert(bytes.begin(), neighbour.end() - static_cast<std::ptrdiff_t>(some),
                   neighbour.end());
      begin -= some;
    }
    if (const std::size_t some = borrow(position + claims.size()))
      bytes.insert(bytes.end(), neighbour.begin(),
                   neighbour.begin() + static_cast<std::ptrdiff_t>(some));
    count(!neighbours.empty() ? poke_unaligned : claims.size() > 1 ? poke_span : poke_write);
    doing("pwrite %zu bytes at %zu of %s", bytes.size(), begin, view.spec.path.c_str());
    const int error = put(view, begin, bytes, claims);
    for (const Claim& claim : neighbours) claim.element->owner = 0;
    if (error == 0) return acknowledge(claims);
    const bool is_removed = std::any_of(claims.begin(), claims.end(), [&](const Claim& claim) {
      return !board_.is_live(claim.frame) || board_.frame(claim.frame).changes != claim.changes;
    });
    if (is_removed && (error == EROFS || error == ESTALE)) return count(pokes_refused);
    report_errno(self_.doing.data(), error);
  }

  int put(View& view, std::size_t begin, const Bytes& bytes, const std::vector<Claim>& claims) {
    if (options_.inject != Fault::none && one_in(20)) {
      if (options_.inject == Fault::lost) return 0;
      if (options_.inject == Fault::stale) acknowledge(claims);
      if (options_.inject == Fault::torn)
        (void)!pwrite(view.fd, bytes.data(), bytes.size() - coding_.bytes() / 2,
                      static_cast<off_t>(begin));
      if (options_.inject == Fault::hang) pause();
      std::this_thread::sleep_for(5ms);
    }
    for (std::size_t done = 0; done < bytes.size();) {
      const ssize_t some = pwrite(view.fd, bytes.data() + done, bytes.size() - done,
                                  static_cast<off_t>(begin + done));
      if (some <= 0) return some < 0 ? errno : EIO;
      done += static_cast<std::size_t>(some);
    }
    return 0;
  }

  // ---- The end ----

  void verify(const Spec& spec) {
    for (const Access access : {Access::descriptor, Access::shared, Access::private_mapping}) {
      const std::unique_ptr<View> view = open(spec, access, board_.structure());
      if (view == nullptr) continue;
      for (std::uint64_t at = 0; at < view->elements(); at += whole) read(*view, at, whole);
    }
  }

  std::vector<std::unique_ptr<View>> views_;
  Structure structure_;
  bool final_ = false;
};

// ---- The parent ----

// Starts the processes and looks after them. It never touches the mount itself, so it cannot hang.
class Parent {
 public:
  explicit Parent(const Options& options) : options_(options), board_(options) {
    struct stat status {};
    if (stat(options.root.c_str(), &status) == 0) device_ = status.st_dev;
  }

  int run() {
    const unsigned last = most_processes;
    start(last, [&] {
      Grower grower(options_, board_, last);
      options_.plain ? grower.start_plain() : grower.start();
    });
    bool well = watch(std::nullopt);
    if (well && board_.faults() == 0) {
      for (unsigned i = 0; i < options_.processes; ++i)
        start(i, [&, i] { Worker(options_, board_, i).run(); });
      if (!options_.plain) start(last, [&] { Grower(options_, board_, last).run(); });
      well = watch(options_.seconds);
    }
    if (well) {
      start(last, [&] {
        Grower grower(options_, board_, last);
        grower.find_removed();
        grower.restore_all();
        Worker worker(options_, board_, last);
        worker.verify();
        if (!options_.save.empty()) worker.save();
      });
      well = watch(std::nullopt);
    }
    print();
    if (hung_) return 3;
    const bool opened = board_.total(opens, opens) >= 50 * board_.total(opens_failed, opens_failed);
    if (!opened) std::puts("too many opens failed");
    return well && opened && board_.faults() == 0 ? 0 : 1;
  }

 private:
  struct Child {
    unsigned number;
    pid_t pid;
    std::uint64_t steps;
    Clock::time_point moved;
  };

  template <class Body>
  void start(unsigned number, const Body& body) {
    std::fflush(nullptr);
    const pid_t parent = getpid();
    const pid_t pid = fork();
    if (pid < 0) {
      std::perror("fork");
      std::exit(2);
    }
    if (pid > 0) return children_.push_back({number, pid, 0, Clock::now()});
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    dies_doing = board_->processes[number].doing.data();
    for (const int signal : {SIGBUS, SIGSEGV}) {
      struct sigaction action {};
      action.sa_handler = die;
      sigaction(signal, &action, nullptr);
    }
    body();
    std::fflush(nullptr);
    _exit(0);
  }

  static void die(int signal) {
    constexpr std::string_view what = "a signal (SIGBUS, SIGSEGV) came in: ";
    (void)!write(STDERR_FILENO, what.data(), what.size());
    (void)!write(STDERR_FILENO, dies_doing, std::strlen(dies_doing));
    (void)!write(STDERR_FILENO, "\n", 1);
    _exit(128 + signal);
  }

  // Waits for all, and tells them to end after some time. False if one failed or hung.
  bool watch(std::optional<double> seconds) {
    const auto begin = Clock::now();
    bool well = true;
    while (!children_.empty()) {
      std::this_thread::sleep_for(20ms);
      const auto now = Clock::now();
      if (seconds && now - begin > *seconds * 1s) board_->stop = true;
      for (auto child = children_.begin(); child != children_.end();) {
        int status = 0;
        if (waitpid(child->pid, &status, WNOHANG) == 0) {
          const std::uint64_t steps = board_->processes[child->number].steps;
          if (std::exchange(child->steps, steps) != steps) child->moved = now;
          if (now - child->moved > options_.patience * 1s) return give_up(), false;
          ++child;
          continue;
        }
        if (status != 0) {
          std::fprintf(stderr, "process %u ended with status %#x in: %s\n", child->number,
                       static_cast<unsigned>(status),
                       board_->processes[child->number].doing.data());
          board_->stop = true;
          well = false;
        }
        child = children_.erase(child);
      }
    }
    return well;
  }

  void give_up() {
    hung_ = true;
    std::fprintf(stderr, "no progress for %g s:\n", options_.patience);
    for (const Child& child : children_) {
      std::string where;
      std::ifstream("/proc/" + std::to_string(child.pid) + "/wchan") >> where;
      const std::chrono::duration<double> since = Clock::now() - child.moved;
      std::fprintf(stderr, "process %u (pid %d), for %.1f s in %s: %s\n", child.number, child.pid,
                   since.count(), where.c_str(), board_->processes[child.number].doing.data());
    }
    if (!options_.plain)
      std::ofstream(text("/sys/fs/fuse/connections/%u/abort", minor(device_))) << 1;
    for (const Child& child : children_) kill(child.pid, SIGKILL);
  }

  void print() {
    for (unsigned i = 0; i < counts; ++i)
      std::printf("%-40s %10llu\n", count_names[i],
                  static_cast<unsigned long long>(board_.total(i, i)));
    std::fflush(stdout);
  }

  static inline const char* dies_doing = "";

  const Options& options_;
  const Board board_;
  dev_t device_ = 0;
  std::vector<Child> children_;
  bool hung_ = false;
};

[[noreturn]] void usage() {
  std::fputs(
      "usage: coherence-stress [OPTIONS] CUBE | --plain DIR\n"
      "  --processes N       that poke and read; one more lets frames come and go\n"
      "  --seconds S         how long\n"
      "  --patience S        how long a process may take for one operation\n"
      "  --seed N            of all choices\n"
      "  --type T            of elements: uint64, int64, uint32\n"
      "  --frames npy|fits   what is copied in\n"
      "  --most-frames N     how many, at the end\n"
      "  --no-pokes          only read, while frames come and go\n"
      "  --no-frame-pokes    poke views, but not the files in frames/\n"
      "  --cached            of -o io=cached: writable shared mappings may be refused\n"
      "  --save FILE         write the cube's elements there at the end\n"
      "  --plain DIR         names of one ordinary file instead of a cube\n"
      "  --inject FAULT      stale, torn, lost or hang: do it, to see whether it is found\n",
      stderr);
  std::exit(2);
}

Options parse(int argc, char** argv) {
  Options options;
  enum {
    processes,
    seconds,
    patience,
    seed,
    type,
    frames,
    most,
    no_pokes,
    no_frame_pokes,
    cached,
    save,
    plain,
    inject
  };
  const std::array<option, 14> known{{{"processes", required_argument, nullptr, processes},
                                      {"seconds", required_argument, nullptr, seconds},
                                      {"patience", required_argument, nullptr, patience},
                                      {"seed", required_argument, nullptr, seed},
                                      {"type", required_argument, nullptr, type},
                                      {"frames", required_argument, nullptr, frames},
                                      {"most-frames", required_argument, nullptr, most},
                                      {"no-pokes", no_argument, nullptr, no_pokes},
                                      {"no-frame-pokes", no_argument, nullptr, no_frame_pokes},
                                      {"cached", no_argument, nullptr, cached},
                                      {"save", required_argument, nullptr, save},
                                      {"plain", no_argument, nullptr, plain},
                                      {"inject", required_argument, nullptr, inject},
                                      {nullptr, 0, nullptr, 0}}};
  const auto choose = [](const std::string& name, std::initializer_list<const char*> names) {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) usage();
    return static_cast<unsigned>(found - names.begin());
  };
  for (int which = 0; (which = getopt_long(argc, argv, "", known.data(), nullptr)) != -1;) {
    switch (which) {
      case processes:
        options.processes = static_cast<unsigned>(std::atoi(optarg));
        break;
      case seconds:
        options.seconds = std::atof(optarg);
        break;
      case patience:
        options.patience = std::atof(optarg);
        break;
      case seed:
        options.seed = std::strtoull(optarg, nullptr, 10);
        break;
      case type: {
        const unsigned chosen = choose(optarg, {"uint64", "int64", "uint32"});
        options.element_bytes = chosen == 2 ? 4 : 8;
        options.is_signed = chosen == 1;
        break;
      }
      case frames:
        options.fits_frames = choose(optarg, {"npy", "fits"}) == 1;
        break;
      case most:
        options.most_frames = static_cast<unsigned>(std::atoi(optarg));
        break;
      case no_pokes:
        options.pokes = false;
        break;
      case no_frame_pokes:
        options.frame_pokes = false;
        break;
      case cached:
        options.cached = true;
        break;
      case save:
        options.save = optarg;
        break;
      case plain:
        options.plain = true;
        break;
      case inject:
        options.inject = Fault{choose(optarg, {"none", "stale", "torn", "lost", "hang"})};
        break;
      default:
        usage();
    }
  }
  if (optind + 1 != argc || options.processes < 1 || options.processes > most_processes ||
      options.most_frames < options.first_frames || options.most_frames > most_frames)
    usage();
  options.root = argv[optind];
  const Coding coding(options.element_bytes, options.is_signed);
  if ((options.most_frames + 1) * options.width * options.height > coding.element_limit()) usage();
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  return Parent(options).run();
}
