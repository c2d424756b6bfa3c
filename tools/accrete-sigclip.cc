// accrete-sigclip: finds outliers along an axis of a mounted cube and replaces them by the median.
//
// It works as a script would, with ordinary files: one raw view of the whole cube in which the axis
// is the fastest, so that each line is contiguous, and the mask by the same name. Both stay open
// from the first read to the last poke: an open view shows the same elements at the same places
// whatever becomes of the cube, so nothing that happens meanwhile can send a poke astray.
#include <fcntl.h>
#include <getopt.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <future>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "core/dtype.h"
#include "core/result.h"
#include "core/with_type.h"
#include "tools/sigma_clip.h"

namespace accrete {
namespace {

constexpr char usage[] =
    R"(usage: accrete-sigclip [OPTION]... MNT/CUBE
Finds the outliers in each line of an axis of a cube by iterated sigma clipping,
replaces them in the cube by the median of the line, and prints what it changed.

  -s, --sigma K        drop values that are more than K standard deviations from
                       the median (default 5)
  -i, --iterations N   clip a line at most N times (default 10)
  -a, --axis LETTER    the axis that lines run along (default: the growth axis)
  -n, --dry-run        print what would be changed, and change nothing
  -m, --mask FILE      write a FITS image of the cube's shape, 1 for each outlier,
                       else 0
  -h, --help           print this and exit
      --version        print the version and exit
)";

struct Options {
  std::string cube;
  double sigma = 5;
  std::uint64_t iterations = 10;
  std::string axis;  // empty: the growth axis
  bool dry_run = false;
  std::string mask;  // empty: none
};

// ---- Files ----

class File {
 public:
  File() = default;
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)) {}
  File& operator=(File&& other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(path_, other.path_);
    return *this;
  }
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }

  static Result<File> open(const std::string& path, int flags) {
    const int fd = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
    const bool writes = (flags & O_ACCMODE) != O_RDONLY;
    if (fd < 0) return fail_errno(errno, "cannot open " + path + (writes ? " for writing" : ""));
    return File(fd, path);
  }

  const std::string& path() const { return path_; }

  Result<std::uint64_t> size() const {
    struct stat status {};
    if (::fstat(fd_, &status) != 0) return fail_errno(errno, "cannot look at " + path_);
    return static_cast<std::uint64_t>(status.st_size);
  }

  // Short only at the end of the file.
  Result<std::size_t> read(std::uint64_t offset, std::span<std::byte> target) const {
    std::size_t done = 0;
    while (done < target.size()) {
      const ssize_t n = ::pread(fd_, target.data() + done, target.size() - done,
                                static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail_errno(errno, "cannot read " + path_);
      if (n == 0) break;
      done += static_cast<std::size_t>(n);
    }
    return done;
  }

  Status write(std::uint64_t offset, std::span<const std::byte> bytes) const {
    while (!bytes.empty()) {
      const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail_errno(errno, "cannot write " + path_);
      offset += static_cast<std::uint64_t>(n);
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
    return {};
  }

  Status resize(std::uint64_t size) const {
    if (::ftruncate(fd_, static_cast<off_t>(size)) == 0) return {};
    return fail_errno(errno, "cannot extend " + path_);
  }

  // Also tells of writes that fail only now.
  Status close() {
    if (fd_ < 0 || ::close(std::exchange(fd_, -1)) == 0) return {};
    return fail_errno(errno, "cannot write " + path_);
  }

 private:
  File(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}

  int fd_ = -1;
  std::string path_;
};

// The text of a small file, without the newline at its end.
Result<std::string> read_text(const std::string& path) {
  ACCRETE_TRY(const File file, File::open(path, O_RDONLY));
  std::string text(4096, '\0');
  ACCRETE_TRY(const std::size_t n,
              file.read(0, std::as_writable_bytes(std::span(text.data(), text.size()))));
  text.resize(n);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

// ---- The cube ----

// A cube whose elements are numbered as in the views that are open: `axis` is the fastest, the
// other axes follow in their order.
struct Cube {
  std::string axes;
  std::vector<std::uint64_t> shape;
  DType type = DType::u8;
  std::size_t axis = 0;  // that lines run along
  std::uint64_t elements = 1;
  File values;
  File given;

  std::uint64_t length() const { return shape[axis]; }  // of a line
  std::uint64_t lines() const { return elements / length(); }
  // Indexes in the order of the axes.
  std::vector<std::uint64_t> indexes_of(std::uint64_t element) const {
    std::vector<std::uint64_t> indexes(shape.size());
    indexes[axis] = element % length();
    element /= length();
    for (std::size_t a = 0; a < shape.size(); ++a) {
      if (a == axis) continue;
      indexes[a] = element % shape[a];
      element /= shape[a];
    }
    return indexes;
  }
};

Result<std::vector<std::uint64_t>> parse_shape(const std::string& path, std::string_view text) {
  std::vector<std::uint64_t> shape;
  while (!text.empty()) {
    std::uint64_t extent = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), extent);
    if (error != std::errc{} || extent == 0)
      return fail(std::errc::invalid_argument, path + " is not the shape of a cube");
    shape.push_back(extent);
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  }
  return shape;
}

// Reads shape, axes and type; chooses the axis.
Result<Cube> read_properties(const Options& options) {
  const std::string meta = options.cube + "/meta/";
  ACCRETE_TRY(const std::string shape, read_text(meta + "shape"));
  ACCRETE_TRY(const std::string type_name, read_text(meta + "dtype"));
  ACCRETE_TRY(const std::string axes, read_text(meta + "axes"));
  ACCRETE_TRY(std::string axis, read_text(meta + "grow"));
  if (shape.empty())
    return fail(std::errc::invalid_argument, options.cube + " has no frame yet, so no elements");
  Cube cube;
  ACCRETE_TRY(cube.shape, parse_shape(meta + "shape", shape));
  std::remove_copy(axes.begin(), axes.end(), std::back_inserter(cube.axes), ' ');
  const auto type = dtype_from_name(type_name);
  if (!type || cube.axes.size() != cube.shape.size())
    return fail(std::errc::invalid_argument, meta + " does not describe a cube");
  cube.type = *type;
  if (!options.axis.empty()) axis = options.axis;
  cube.axis = axis.size() == 1 ? cube.axes.find(axis) : std::string::npos;
  if (cube.axis == std::string::npos)
    return fail(std::errc::invalid_argument,
                options.cube + " has no axis " + axis + ", only " + axes);
  for (const std::uint64_t extent : cube.shape) {
    if (__builtin_mul_overflow(cube.elements, extent, &cube.elements))
      return fail(std::errc::value_too_large, meta + "shape is too large");
  }
  return cube;
}

Result<File> open_view(const std::string& path, int flags, std::uint64_t bytes) {
  ACCRETE_TRY(File view, File::open(path, flags));
  ACCRETE_TRY(const std::uint64_t size, view.size());
  if (size == bytes) return view;
  return fail(std::errc::io_error,
              path + " has " + std::to_string(size) + " bytes instead of " + std::to_string(bytes));
}

Result<Cube> open_views(const Options& options) {
  ACCRETE_TRY(Cube cube, read_properties(options));
  const std::string line(1, cube.axes[cube.axis]);
  std::string across = cube.axes;
  across.erase(cube.axis, 1);
  const std::string name =
      "/" + line + across + "/" + line + "0.." + std::to_string(cube.length()) + ".raw";
  ACCRETE_TRY(cube.values,
              open_view(options.cube + "/slices" + name, options.dry_run ? O_RDONLY : O_RDWR,
                        cube.elements * size_of(cube.type)));
  ACCRETE_TRY(cube.given, open_view(options.cube + "/mask" + name, O_RDONLY, cube.elements));
  return cube;
}

// Properties and views of one moment: of one generation of the cube.
Result<Cube> open_cube(const Options& options) {
  for (int attempt = 0; attempt < 100; ++attempt) {
    ACCRETE_TRY(const std::string before, read_text(options.cube + "/meta/generation"));
    Result<Cube> cube = open_views(options);
    ACCRETE_TRY(const std::string after, read_text(options.cube + "/meta/generation"));
    if (before == after) return cube;
  }
  return fail(std::errc::resource_unavailable_try_again,
              options.cube + " changes too fast to be opened at one moment");
}

// ---- The FITS image of outliers ----

// Zeros are holes: only headers and outliers are written.
class OutlierImage {
 public:
  Status create(const std::string& path, const Cube& cube) {
    std::string header = card("SIMPLE", "T") + card("BITPIX", "8") +
                         card("NAXIS", std::to_string(cube.shape.size()));
    for (std::size_t a = 0; a < cube.shape.size(); ++a)
      header += card("NAXIS" + std::to_string(a + 1), std::to_string(cube.shape[a]));
    header += pad("COMMENT 1: an outlier that accrete-sigclip found", card_bytes) +
              pad("END", card_bytes);
    header = pad(header, round_up(header.size()));
    begin_ = header.size();
    ACCRETE_TRY(file_, File::open(path, O_WRONLY | O_CREAT | O_TRUNC));
    ACCRETE_CHECK(file_.write(0, std::as_bytes(std::span(header.data(), header.size()))));
    return file_.resize(begin_ + round_up(cube.elements));
  }

  Status mark(const Cube& cube, const std::vector<std::uint64_t>& indexes) const {
    std::uint64_t element = 0;
    for (std::size_t a = indexes.size(); a-- > 0;) element = element * cube.shape[a] + indexes[a];
    constexpr std::byte one[] = {std::byte{1}};
    return file_.write(begin_ + element, one);
  }

  Status close() { return file_.close(); }

 private:
  static constexpr std::size_t card_bytes = 80;

  static std::string pad(std::string text, std::size_t size) {
    text.resize(size, ' ');
    return text;
  }
  static std::string card(const std::string& keyword, const std::string& value) {
    constexpr std::size_t value_end = 30;
    const std::string start = pad(keyword, 8) + "= ";
    return pad(start + std::string(value_end - start.size() - value.size(), ' ') + value,
               card_bytes);
  }
  static std::uint64_t round_up(std::uint64_t bytes) { return (bytes + 2879) / 2880 * 2880; }

  File file_;
  std::uint64_t begin_ = 0;
};

// ---- The job ----

// One element that is an outlier; `element` as Cube numbers them.
struct Repair {
  std::uint64_t element;
  Element before, after;
};

template <class T>
Element element_of(T value) {
  Element element;
  std::memcpy(element.bytes.data(), &value, sizeof value);
  return element;
}

// A percentage on the terminal, if there is one.
class Progress {
 public:
  void show(std::uint64_t done, std::uint64_t all) {
    const auto percent =
        static_cast<unsigned>(100.0 * static_cast<double>(done) / static_cast<double>(all));
    if (!terminal_ || percent == shown_) return;
    shown_ = percent;
    std::fprintf(stderr, "\raccrete-sigclip: %3u %%", percent);
  }
  void hide() {
    if (shown_ != none) std::fputs("\r\033[K", stderr);
    shown_ = none;
  }
  ~Progress() { hide(); }

 private:
  static constexpr unsigned none = ~0U;
  const bool terminal_ = ::isatty(STDERR_FILENO) != 0;
  unsigned shown_ = none;
};

// Calls visit(first line, number of lines) with at most `most` lines that follow each other, until
// all lines were visited. Where rows of lines have to be cut, the same part of 64 rows comes
// together, which are not far from each other on the disk.
template <class F>
Status for_each_block(const Cube& cube, std::uint64_t most, F visit) {
  std::vector<std::uint64_t> across = cube.shape;
  across.erase(across.begin() + static_cast<std::ptrdiff_t>(cube.axis));
  across.resize(std::max<std::size_t>(across.size(), 2), 1);
  const std::uint64_t width = across[0];
  const std::uint64_t lines = cube.lines();
  if (width <= most) {
    for (std::uint64_t at = 0; at < lines; at += most)
      ACCRETE_CHECK(visit(at, std::min(most, lines - at)));
    return {};
  }
  const std::uint64_t plane = width * across[1];
  constexpr std::uint64_t rows = 64;
  for (std::uint64_t start = 0; start < lines; start += plane) {
    for (std::uint64_t y = 0; y < across[1]; y += rows) {
      for (std::uint64_t x = 0; x < width; x += most) {
        for (std::uint64_t row = y; row < std::min(y + rows, across[1]); ++row)
          ACCRETE_CHECK(visit(start + row * width + x, std::min(most, width - x)));
      }
    }
  }
  return {};
}

// Goes through the lines block by block. T: type of the cube's elements.
template <class T>
class Job {
 public:
  Job(const Options& options, Cube cube)
      : options_(options),
        cube_(std::move(cube)),
        workers_(std::max(1U, std::thread::hardware_concurrency()),
                 Worker{{options.sigma, options.iterations}, {}, {}}) {}

  Status run() {
    if (!options_.mask.empty()) ACCRETE_CHECK(image_.emplace().create(options_.mask, cube_));
    print_title();
    constexpr std::uint64_t block_bytes = 8 << 20;
    const std::uint64_t line_bytes = cube_.length() * (sizeof(T) + 1);
    Status status = for_each_block(
        cube_, std::max<std::uint64_t>(1, block_bytes / line_bytes),
        [&](std::uint64_t first, std::uint64_t lines) { return do_block(first, lines); });
    if (status.ok()) ACCRETE_CHECK(cube_.values.close());
    if (status.ok() && image_) ACCRETE_CHECK(image_->close());
    progress_.hide();
    print_summary();
    ACCRETE_CHECK(flush());
    return status;
  }

 private:
  // What is to be changed is told before it is changed: old values are never lost.
  Status do_block(std::uint64_t first, std::uint64_t lines) {
    ACCRETE_CHECK(read(first * cube_.length(), lines * cube_.length()));
    find(first, lines);
    ACCRETE_CHECK(tell());
    if (!options_.dry_run) ACCRETE_CHECK(poke());
    progress_.show(lines_ += lines, cube_.lines());
    return {};
  }

  Status read(std::uint64_t element, std::uint64_t count) {
    values_.resize(count);
    given_.resize(count);
    ACCRETE_CHECK(
        read_all(cube_.values, element * sizeof(T), std::as_writable_bytes(std::span(values_))));
    return read_all(cube_.given, element, std::as_writable_bytes(std::span(given_)));
  }

  static Status read_all(const File& file, std::uint64_t offset, std::span<std::byte> target) {
    ACCRETE_TRY(const std::size_t n, file.read(offset, target));
    if (n == target.size()) return {};
    return fail(std::errc::io_error, file.path() + " has become shorter");
  }

  // What one thread needs, and what it finds.
  struct Worker {
    SigmaClip<T> clip;
    std::vector<std::size_t> outliers;
    std::vector<Repair> repairs;
  };

  // Each worker takes lines that follow each other, so all that is found is in order.
  void find(std::uint64_t first, std::uint64_t lines) {
    const std::uint64_t count = workers_.size();
    std::vector<std::future<void>> others;
    for (std::uint64_t i = count; i-- > 0;) {
      const auto work = [=, this] {
        find(workers_[i], first, lines * i / count, lines * (i + 1) / count);
      };
      if (i > 0)
        others.push_back(std::async(work));
      else
        work();
    }
    for (std::future<void>& other : others) other.get();
    repairs_.clear();
    for (const Worker& worker : workers_)
      repairs_.insert(repairs_.end(), worker.repairs.begin(), worker.repairs.end());
  }

  void find(Worker& worker, std::uint64_t first, std::uint64_t begin, std::uint64_t end) const {
    const std::uint64_t length = cube_.length();
    worker.repairs.clear();
    for (std::uint64_t line = begin; line < end; ++line) {
      const std::span values = std::span<const T>(values_).subspan(line * length, length);
      const std::span given = std::span<const std::uint8_t>(given_).subspan(line * length, length);
      const T median = worker.clip.clip(values, given, worker.outliers);
      for (const std::size_t at : worker.outliers)
        worker.repairs.push_back(
            {(first + line) * length + at, element_of(values[at]), element_of(median)});
    }
  }

  Status tell() {
    if (repairs_.empty()) return {};
    progress_.hide();
    for (const Repair& repair : repairs_) {
      const std::vector<std::uint64_t> indexes = cube_.indexes_of(repair.element);
      std::string line;
      for (const std::uint64_t index : indexes) line += std::to_string(index) + " ";
      line += format_element(repair.before, cube_.type) + " " +
              format_element(repair.after, cube_.type) + "\n";
      std::fputs(line.c_str(), stdout);
      if (image_) ACCRETE_CHECK(image_->mark(cube_, indexes));
    }
    found_ += repairs_.size();
    return flush();
  }

  // Neighbours are written at once.
  Status poke() {
    std::vector<std::byte> run;
    for (std::size_t i = 0; i < repairs_.size();) {
      const std::size_t begin = i;
      run.clear();
      do {
        const auto& bytes = repairs_[i].after.bytes;
        run.insert(run.end(), bytes.begin(), bytes.begin() + sizeof(T));
        ++i;
      } while (i < repairs_.size() && repairs_[i].element == repairs_[i - 1].element + 1);
      ACCRETE_CHECK(cube_.values.write(repairs_[begin].element * sizeof(T), run));
      changed_ += i - begin;
    }
    return {};
  }

  void print_title() const {
    std::fputc('#', stdout);
    for (const char axis : cube_.axes) std::fprintf(stdout, " %c", axis);
    std::fputs(" old new\n", stdout);
  }

  void print_summary() const {
    const auto number = [](std::uint64_t n) { return std::to_string(n); };
    const std::string text = "# " + number(found_) + " outliers in " +
                             number(lines_ * cube_.length()) + " elements of " + number(lines_) +
                             " lines along " + cube_.axes[cube_.axis] + ", " + number(changed_) +
                             " changed\n";
    std::fputs(text.c_str(), stdout);
  }

  static Status flush() {
    if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return {};
    return fail_errno(errno, "cannot write to standard output");
  }

  const Options& options_;
  Cube cube_;
  std::vector<Worker> workers_;
  std::optional<OutlierImage> image_;
  Progress progress_;
  std::vector<T> values_;
  std::vector<std::uint8_t> given_;
  std::vector<Repair> repairs_;
  std::uint64_t lines_ = 0;  // that are done
  std::uint64_t found_ = 0;
  std::uint64_t changed_ = 0;
};

Status clip_cube(const Options& options) {
  ACCRETE_TRY(Cube cube, open_cube(options));
  const DType type = cube.type;
  return with_type(
      type, [&](auto value) { return Job<decltype(value)>(options, std::move(cube)).run(); });
}

// ---- Options ----

template <class T>
std::optional<T> parse_number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Error misused(const std::string& sentence) {
  return fail(std::errc::invalid_argument, sentence);
}

enum LongOnly { version = 256 };

constexpr option long_options[] = {
    {"sigma", required_argument, nullptr, 's'}, {"iterations", required_argument, nullptr, 'i'},
    {"axis", required_argument, nullptr, 'a'},  {"dry-run", no_argument, nullptr, 'n'},
    {"mask", required_argument, nullptr, 'm'},  {"help", no_argument, nullptr, 'h'},
    {"version", no_argument, nullptr, version}, {nullptr, 0, nullptr, 0}};

Status parse_option(int which, Options& options) {
  switch (which) {
    case 's': {
      const auto sigma = parse_number<double>(optarg);
      if (!sigma || !std::isfinite(*sigma) || *sigma <= 0)
        return misused(std::string("--sigma takes a number above 0, not '") + optarg + "'");
      options.sigma = *sigma;
      return {};
    }
    case 'i': {
      const auto iterations = parse_number<std::uint64_t>(optarg);
      if (!iterations || *iterations == 0)
        return misused(std::string("--iterations takes a number from 1 on, not '") + optarg + "'");
      options.iterations = *iterations;
      return {};
    }
    case 'a':
      options.axis = optarg;
      if (options.axis.size() == 1) return {};
      return misused("--axis takes the letter of an axis, not '" + options.axis + "'");
    case 'm':
      options.mask = optarg;
      if (!options.mask.empty()) return {};
      return misused("--mask takes the name of a file");
    default:  // 'n'
      options.dry_run = true;
      return {};
  }
}

int complain(const Error& error, int exit_status) {
  std::fprintf(stderr, "accrete-sigclip: %s\n", error.sentence.c_str());
  return exit_status;
}

int run(int argc, char** argv) {
  constexpr int failed = 1;
  constexpr int wrong_usage = 2;
  Options options;
  for (;;) {
    const int which = getopt_long(argc, argv, "s:i:a:nm:h", long_options, nullptr);
    if (which == -1) break;
    if (which == '?') return wrong_usage;  // getopt_long has said why
    if (which == 'h') return std::fputs(usage, stdout) < 0;
    if (which == version) return std::puts("accrete-sigclip " ACCRETE_VERSION) < 0;
    if (const Status status = parse_option(which, options); !status.ok())
      return complain(status.error(), wrong_usage);
  }
  if (argc - optind != 1) return complain(misused("give one cube; see --help"), wrong_usage);
  options.cube = argv[optind];
  const Status status = clip_cube(options);
  return status.ok() ? 0 : complain(status.error(), failed);
}

}  // namespace
}  // namespace accrete

int main(int argc, char** argv) {
  return accrete::run(argc, argv);
}
