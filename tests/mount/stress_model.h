// What the processes of coherence-stress share, and the argument.
//
// Every element of every frame has an id, and its value is made of the id, a version
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
// goes each index must have the frame that it is said to have. Rows that a short frame lacks are
// its elements, too: pad, which is 0, until somebody pokes it.
#pragma once

#include <sys/mman.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <optional>
#include <string>
#include <vector>

namespace stress {

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
  bool cached = false;  // a writable shared mapping may be refused
  std::string save;
  Fault inject = Fault::none;
};

// ---- Elements as values and as bytes ----

enum class Format : unsigned { raw, npy, fits, txt };
constexpr unsigned formats = 4;
constexpr std::array<const char*, formats> extensions{"raw", "npy", "fits", "txt"};

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

  // The same of whatever a file has, which may be text: a value, by its bytes in the file.
  unsigned width(Format format) const {
    return format == Format::txt ? (bytes_ == 8 ? 21 : 11) : bytes_;
  }
  std::uint64_t read(const unsigned char* at, Format format) const {
    if (format != Format::txt) return from_file(get(at), format);
    const std::string line(at, at + width(format) - 1);
    errno = 0;
    char* end = nullptr;
    const std::uint64_t value =
        is_signed_ ? static_cast<std::uint64_t>(std::strtoll(line.c_str(), &end, 10))
                   : std::strtoull(line.c_str(), &end, 10);
    const bool is_number = errno == 0 && *end == '\0' && at[width(format) - 1] == '\n';
    return is_number ? value : no_value();
  }
  void write(unsigned char* at, std::uint64_t value, Format format) const {
    if (format != Format::txt) return put(at, to_file(value, format));
    std::array<char, 32> line;
    const int digits = static_cast<int>(width(format)) - 1;
    if (is_signed_)
      std::snprintf(line.data(), line.size(), "%*lld\n", digits, static_cast<long long>(value));
    else
      std::snprintf(line.data(), line.size(), "%*llu\n", digits,
                    static_cast<unsigned long long>(value));
    std::memcpy(at, line.data(), width(format));
  }

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
  std::uint64_t no_value() const { return pack({0, 1, 0}); }  // there is no frame 0

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
  poke_whole,
  poke_pad,
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
                                                      "pokes: whole views written over",
                                                      "pokes: elements that were pad",
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
  std::atomic<bool> pad_pokes;                             // what no frame gave may be poked by now
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

__attribute__((format(printf, 1, 2))) inline std::string text(const char* format, ...) {
  std::array<char, 1024> buffer;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(buffer.data(), buffer.size(), format, arguments);
  va_end(arguments);
  return buffer.data();
}

}  // namespace stress
