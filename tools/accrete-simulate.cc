// accrete-simulate: writes the frames of an imagined night at a CCD camera as FITS files.
//
// A frame is bias + sky + stars, each with its photon noise, + read noise + cosmic rays. It depends
// only on the options, the seed and the frame's number, so a series can be made in pieces.
#include <fcntl.h>
#include <fitsio.h>
#include <getopt.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <limits>
#include <memory>
#include <numbers>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "core/result.h"

namespace accrete {
namespace {

constexpr char usage[] =
    R"(usage: accrete-simulate [OPTION]... OUTDIR
Writes simulated CCD frames OUTDIR/frame-000000.fits, OUTDIR/frame-000001.fits, ...

  -n, --frames N       number of frames (default 100)
  -s, --size WxH       width and height in pixels (default 512x512)
  -t, --type TYPE      element type: uint8 int8 uint16 int16 uint32 int32 uint64
                       int64 float32 float64 (default float32)
      --stars N        stars in the field (default 200)
      --hits N         cosmic rays in each frame (default 20)
      --drift PIXELS   drift of the field from frame to frame (default 0.01)
      --start N        number of the first frame (default 0)
      --prefix TEXT    file names start so (default frame-)
      --seed N         seed of all that is random (default 1)
      --truth FILE     write a line "frame x y value" for each pixel that a
                       cosmic ray hit, indexes 0-based
  -h, --help           print this and exit
      --version        print the version and exit
)";

struct Options {
  std::string directory;
  std::uint64_t frames = 100;
  std::uint64_t width = 512;
  std::uint64_t height = 512;
  DType type = DType::f32;
  std::uint64_t stars = 200;
  std::uint64_t hits = 20;
  double drift = 0.01;
  std::uint64_t start = 0;
  std::string prefix = "frame-";
  std::uint64_t seed = 1;
  std::string truth;
};

// ---- Chance ----

// splitmix64: also good enough to derive one seed from another.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t bits() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }  // [0, 1)
  std::uint64_t below(std::uint64_t n) { return bits() % n; }

 private:
  std::uint64_t state_;
};

// The quantiles of the normal distribution at (i + ½) / 2¹⁶: an entry picked at random is a normal
// deviate (up to 4.3 σ), four for each 64 random bits.
std::vector<float> normal_quantiles() {
  constexpr std::size_t count = 65536;
  std::vector<float> table(count);
  double x = 0;
  for (std::size_t i = count / 2; i < count; ++i) {
    // Newton's method from the neighbour's quantile.
    const double p = (static_cast<double>(i) + 0.5) / count;
    for (int step = 0; step < 8; ++step) {
      const double beyond = 0.5 * std::erfc(x / std::numbers::sqrt2);  // 1 - Φ(x)
      const double density = std::exp(-0.5 * x * x) / std::sqrt(2 * std::numbers::pi);
      x += (beyond - (1 - p)) / density;
    }
    table[i] = static_cast<float>(x);
    table[count - 1 - i] = static_cast<float>(-x);
  }
  return table;
}

// ---- The camera and the sky ----

struct Camera {
  double bias = 300;      // ADU
  double gain = 1.5;      // electrons an ADU
  double read_noise = 5;  // electrons
  double sky = 400;       // electrons a pixel
  double saturation = 65535;
  double exposure = 60;  // seconds
  double readout = 5;
};

// A converter with fewer bits has a lower bias and more electrons to each count.
Camera camera_for(DType type) {
  Camera camera;
  if (type == DType::u8) camera.bias = 16, camera.gain = 8, camera.saturation = 255;
  if (type == DType::i8) camera.bias = -112, camera.gain = 8, camera.saturation = 127;
  if (type == DType::i16) camera.saturation = 32767;
  return camera;
}

struct Star {
  double x, y;       // pixels, 0-based, in frame 0
  double electrons;  // in one exposure
};

// Few bright and many faint ones: numbers above a flux fall as 1 / flux.
std::vector<Star> make_stars(const Options& options) {
  Random random(options.seed * 2 + 1);
  std::vector<Star> stars;
  for (std::uint64_t i = 0; i < options.stars; ++i) {
    const double x = random.uniform() * static_cast<double>(options.width);
    const double y = random.uniform() * static_cast<double>(options.height);
    stars.push_back({x, y, std::min(2000 / (1 - random.uniform()), 2e6)});
  }
  return stars;
}

struct Hit {
  std::uint64_t x, y;
};

// One exposure, in electrons and then in counts.
class Exposure {
 public:
  Exposure(const Options& options, const Camera& camera)
      : options_(options),
        camera_(camera),
        stars_(make_stars(options)),
        pixels_(options.width * options.height) {}

  void take(std::uint64_t number) {
    Random random(Random(options_.seed ^ (number << 20)).bits());
    std::fill(pixels_.begin(), pixels_.end(), static_cast<float>(camera_.sky));
    const double fwhm = 2.6 + 0.8 * random.uniform();  // the seeing changes
    for (const Star& star : stars_) add_star(star, number, fwhm);
    add_noise(random);
    hits_.clear();
    for (std::uint64_t i = 0; i < options_.hits; ++i) add_hit(random);
    read_out();
  }

  const std::vector<float>& pixels() const { return pixels_; }
  const std::vector<Hit>& hits() const { return hits_; }
  double drift(std::uint64_t number) const { return options_.drift * static_cast<double>(number); }

 private:
  // A Moffat profile with β = 3, out to 4 FWHM.
  void add_star(const Star& star, std::uint64_t number, double fwhm) {
    const double alpha2 = fwhm * fwhm / (4 * (std::cbrt(2.0) - 1));
    const double peak = star.electrons * 2 / (std::numbers::pi * alpha2);
    const double cx = star.x + drift(number);
    const double cy = star.y + drift(number) / 2;
    const auto pixel_range = [&](double center, std::uint64_t extent) {
      const auto clip = [&](double v) {
        return static_cast<std::uint64_t>(std::clamp(v, 0.0, static_cast<double>(extent)));
      };
      return std::pair(clip(std::ceil(center - 4 * fwhm)), clip(std::floor(center + 4 * fwhm) + 1));
    };
    const auto [x0, x1] = pixel_range(cx, options_.width);
    const auto [y0, y1] = pixel_range(cy, options_.height);
    for (std::uint64_t y = y0; y < y1; ++y) {
      for (std::uint64_t x = x0; x < x1; ++x) {
        const double dx = static_cast<double>(x) - cx;
        const double dy = static_cast<double>(y) - cy;
        const double q = 1 + (dx * dx + dy * dy) / alpha2;
        pixels_[y * options_.width + x] += static_cast<float>(peak / (q * q * q));
      }
    }
  }

  // Photon noise as a normal deviate: with hundreds of electrons a pixel, nobody sees that it
  // should be Poisson's. Read noise is added in quadrature.
  void add_noise(Random& random) {
    const auto read_variance = static_cast<float>(camera_.read_noise * camera_.read_noise);
    std::uint64_t bits = 0;
    for (std::size_t i = 0; i < pixels_.size(); ++i) {
      bits = i % 4 == 0 ? random.bits() : bits >> 16;
      pixels_[i] += normal_[bits & 0xffff] * std::sqrt(pixels_[i] + read_variance);
    }
  }

  // A particle leaves a short straight track.
  void add_hit(Random& random) {
    const double angle = 2 * std::numbers::pi * random.uniform();
    const std::uint64_t length = 1 + random.below(4);
    auto x = static_cast<double>(random.below(options_.width));
    auto y = static_cast<double>(random.below(options_.height));
    const double electrons = 3000 + 20000 * random.uniform();
    for (std::uint64_t i = 0; i < length; ++i) {
      const double px = std::round(x);
      const double py = std::round(y);
      if (px < 0 || py < 0 || px >= static_cast<double>(options_.width) ||
          py >= static_cast<double>(options_.height))
        break;
      const Hit hit{static_cast<std::uint64_t>(px), static_cast<std::uint64_t>(py)};
      pixels_[hit.y * options_.width + hit.x] += static_cast<float>(electrons);
      hits_.push_back(hit);
      x += std::cos(angle);
      y += std::sin(angle);
    }
  }

  void read_out() {
    const auto per_electron = static_cast<float>(1 / camera_.gain);
    const auto bias = static_cast<float>(camera_.bias);
    const auto saturation = static_cast<float>(camera_.saturation);
    const float floor = is_signed(options_.type) ? -128.0F : 0.0F;
    const bool whole = !is_float(options_.type);
    for (float& pixel : pixels_) {
      float counts = bias + pixel * per_electron;
      if (whole) counts = std::nearbyint(counts);
      pixel = std::clamp(counts, floor, saturation);
    }
  }

  const Options& options_;
  const Camera& camera_;
  const std::vector<Star> stars_;
  const std::vector<float> normal_ = normal_quantiles();
  std::vector<float> pixels_;
  std::vector<Hit> hits_;
};

// ---- Files ----

int bitpix_of(DType type) {
  switch (type) {
    case DType::u8:
      return BYTE_IMG;
    case DType::i8:
      return SBYTE_IMG;
    case DType::u16:
      return USHORT_IMG;
    case DType::i16:
      return SHORT_IMG;
    case DType::u32:
      return ULONG_IMG;
    case DType::i32:
      return LONG_IMG;
    case DType::u64:
      return ULONGLONG_IMG;
    case DType::i64:
      return LONGLONG_IMG;
    case DType::f32:
      return FLOAT_IMG;
    case DType::f64:
      return DOUBLE_IMG;
  }
  return 0;
}

// A FITS file in memory, used again for each frame. CFITSIO reads syntax into file names, so it is
// never given one.
class MemoryFits {
 public:
  MemoryFits() = default;
  MemoryFits(const MemoryFits&) = delete;
  MemoryFits& operator=(const MemoryFits&) = delete;
  ~MemoryFits() { std::free(buffer_); }

  // Makes the file; its bytes are data()[0, size()).
  Status make(const Options& options, const Camera& camera, const Exposure& exposure,
              std::uint64_t number) {
    fitsfile* file = nullptr;
    int status = 0;
    fits_create_memfile(&file, &buffer_, &capacity_, std::size_t{1} << 20, std::realloc, &status);
    if (status == 0) write_image(file, options, exposure, &status);
    if (status == 0) write_cards(file, options, camera, exposure.drift(number), number, &status);
    LONGLONG end = 0;
    fits_flush_file(file, &status);
    fits_get_hduaddrll(file, nullptr, nullptr, &end, &status);
    size_ = static_cast<std::size_t>(end);
    if (file != nullptr) fits_close_file(file, &status);
    if (status == 0) return {};
    char text[FLEN_STATUS] = {};
    fits_get_errstatus(status, text);
    return fail(std::errc::io_error, std::string("cfitsio cannot make the frame: ") + text);
  }

  const char* data() const { return static_cast<const char*>(buffer_); }
  std::size_t size() const { return size_; }

 private:
  static void write_image(fitsfile* file, const Options& options, const Exposure& exposure,
                          int* status) {
    long axes[] = {static_cast<long>(options.width), static_cast<long>(options.height)};
    fits_create_img(file, bitpix_of(options.type), 2, axes, status);
    // cfitsio only reads the pixels; its parameter lacks the const.
    fits_write_img(file, TFLOAT, 1, static_cast<LONGLONG>(exposure.pixels().size()),
                   const_cast<float*>(exposure.pixels().data()), status);
  }

  static void write_cards(fitsfile* file, const Options& options, const Camera& camera,
                          double drift, std::uint64_t number, int* status) {
    const auto text = [&](const char* key, const std::string& value, const char* comment) {
      fits_update_key_str(file, key, value.c_str(), comment, status);
    };
    const auto real = [&](const char* key, double value, const char* comment) {
      fits_update_key_dbl(file, key, value, -12, comment, status);
    };
    text("OBJECT", "M42", "field");
    text("INSTRUME", "accrete-simulate", "imagined camera");
    text("FILTER", "R", "");
    text("DATE-OBS", date_of(camera, number), "start of the exposure, UTC");
    real("EXPTIME", camera.exposure, "[s] exposure time");
    real("GAIN", camera.gain, "[electron/adu]");
    real("RDNOISE", camera.read_noise, "[electron]");
    fits_update_key_lng(file, "FRAMENO", static_cast<LONGLONG>(number), "number in the series",
                        status);
    text("CTYPE1", "RA---TAN", "");
    text("CTYPE2", "DEC--TAN", "");
    real("CRVAL1", 83.8221, "[deg] right ascension");
    real("CRVAL2", -5.3911, "[deg] declination");
    real("CRPIX1", (static_cast<double>(options.width) + 1) / 2 + drift, "");
    real("CRPIX2", (static_cast<double>(options.height) + 1) / 2 + drift / 2, "");
    constexpr double scale = 0.4 / 3600;
    real("CD1_1", -scale, "[deg/pixel]");
    real("CD1_2", 0, "");
    real("CD2_1", 0, "");
    real("CD2_2", scale, "[deg/pixel]");
    text("CUNIT1", "deg", "");
    text("CUNIT2", "deg", "");
    text("RADESYS", "ICRS", "");
  }

  static std::string date_of(const Camera& camera, std::uint64_t number) {
    constexpr std::time_t evening = 1705348800;  // 2024-01-15T20:00:00
    const double since = static_cast<double>(number) * (camera.exposure + camera.readout);
    const std::time_t when = evening + static_cast<std::time_t>(since);
    std::tm utc{};
    gmtime_r(&when, &utc);
    char text[32];
    std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    return text;
  }

  void* buffer_ = nullptr;
  std::size_t capacity_ = 0;
  std::size_t size_ = 0;
};

Status write_file(const std::string& path, const char* data, std::size_t size) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file < 0) return fail_errno(errno, "cannot create " + path);
  Status status;
  while (size > 0 && status.ok()) {
    const ssize_t n = ::write(file, data, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      status = fail_errno(errno, "cannot write " + path);
      break;
    }
    data += n;
    size -= static_cast<std::size_t>(n);
  }
  if (::close(file) != 0 && status.ok()) status = fail_errno(errno, "cannot write " + path);
  return status;
}

// ---- Options ----

template <class T>
Result<T> parse_number(const char* option, std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size())
    return fail(std::errc::invalid_argument,
                std::string("--") + option + " takes a number, not '" + std::string(text) + "'");
  return value;
}

Status parse_size(std::string_view text, Options& options) {
  const std::size_t by = text.find('x');
  const auto width = parse_number<std::uint64_t>("size", text.substr(0, by));
  const auto height = parse_number<std::uint64_t>(
      "size", by == text.npos ? std::string_view() : text.substr(by + 1));
  constexpr std::uint64_t most = 65536;
  if (!width.ok() || !height.ok() || *width == 0 || *height == 0 || *width > most || *height > most)
    return fail(std::errc::invalid_argument,
                "--size takes WIDTHxHEIGHT, each from 1 to 65536, not '" + std::string(text) + "'");
  options.width = *width;
  options.height = *height;
  return {};
}

enum LongOnly { stars = 256, hits, drift, start, prefix, seed, truth, version };

constexpr option long_options[] = {{"frames", required_argument, nullptr, 'n'},
                                   {"size", required_argument, nullptr, 's'},
                                   {"type", required_argument, nullptr, 't'},
                                   {"stars", required_argument, nullptr, stars},
                                   {"hits", required_argument, nullptr, hits},
                                   {"drift", required_argument, nullptr, drift},
                                   {"start", required_argument, nullptr, start},
                                   {"prefix", required_argument, nullptr, prefix},
                                   {"seed", required_argument, nullptr, seed},
                                   {"truth", required_argument, nullptr, truth},
                                   {"help", no_argument, nullptr, 'h'},
                                   {"version", no_argument, nullptr, version},
                                   {nullptr, 0, nullptr, 0}};

Status parse_option(int which, Options& options) {
  switch (which) {
    case 'n': {
      ACCRETE_TRY(options.frames, parse_number<std::uint64_t>("frames", optarg));
      return {};
    }
    case 's':
      return parse_size(optarg, options);
    case 't': {
      const auto type = dtype_from_name(optarg);
      if (!type)
        return fail(std::errc::invalid_argument,
                    std::string("--type takes a type such as float32, not '") + optarg + "'");
      options.type = *type;
      return {};
    }
    case stars: {
      ACCRETE_TRY(options.stars, parse_number<std::uint64_t>("stars", optarg));
      return {};
    }
    case hits: {
      ACCRETE_TRY(options.hits, parse_number<std::uint64_t>("hits", optarg));
      return {};
    }
    case drift: {
      ACCRETE_TRY(options.drift, parse_number<double>("drift", optarg));
      if (!std::isfinite(options.drift))
        return fail(std::errc::invalid_argument, "--drift takes a finite number");
      return {};
    }
    case start: {
      ACCRETE_TRY(options.start, parse_number<std::uint64_t>("start", optarg));
      return {};
    }
    case seed: {
      ACCRETE_TRY(options.seed, parse_number<std::uint64_t>("seed", optarg));
      return {};
    }
    case prefix:
      if (std::string_view(optarg).find('/') != std::string_view::npos)
        return fail(std::errc::invalid_argument, "--prefix takes a part of a file name, without /");
      options.prefix = optarg;
      return {};
    case truth:
      options.truth = optarg;
      return {};
    default:
      return fail(std::errc::invalid_argument, "see --help");
  }
}

// ---- The night ----

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

Status simulate(const Options& options) {
  if (::mkdir(options.directory.c_str(), 0777) != 0 && errno != EEXIST)
    return fail_errno(errno, "cannot make the directory " + options.directory);
  std::unique_ptr<std::FILE, CloseFile> table;
  if (!options.truth.empty()) {
    table.reset(std::fopen(options.truth.c_str(), "we"));
    if (!table) return fail_errno(errno, "cannot create " + options.truth);
  }
  const Camera camera = camera_for(options.type);
  Exposure exposure(options, camera);
  MemoryFits fits;
  for (std::uint64_t i = 0; i < options.frames; ++i) {
    const std::uint64_t number = options.start + i;
    exposure.take(number);
    ACCRETE_CHECK(fits.make(options, camera, exposure, number));
    char digits[24];
    std::snprintf(digits, sizeof digits, "%06ju", static_cast<std::uintmax_t>(number));
    ACCRETE_CHECK(write_file(options.directory + "/" + options.prefix + digits + ".fits",
                             fits.data(), fits.size()));
    if (!table) continue;
    for (const Hit& hit : exposure.hits())
      std::fprintf(table.get(), "%ju %ju %ju %.9g\n", static_cast<std::uintmax_t>(number),
                   static_cast<std::uintmax_t>(hit.x), static_cast<std::uintmax_t>(hit.y),
                   static_cast<double>(exposure.pixels()[hit.y * options.width + hit.x]));
  }
  if (table && std::fclose(table.release()) != 0)
    return fail_errno(errno, "cannot write " + options.truth);
  return {};
}

int complain(const Error& error) {
  std::fprintf(stderr, "accrete-simulate: %s\n", error.sentence.c_str());
  return 1;
}

int run(int argc, char** argv) {
  Options options;
  for (;;) {
    const int which = getopt_long(argc, argv, "n:s:t:h", long_options, nullptr);
    if (which == -1) break;
    if (which == '?') return 1;  // getopt_long has said why
    if (which == 'h') return std::fputs(usage, stdout) < 0;
    if (which == version) return std::puts("accrete-simulate " ACCRETE_VERSION) < 0;
    if (const Status status = parse_option(which, options); !status.ok())
      return complain(status.error());
  }
  if (argc - optind != 1)
    return complain(fail(std::errc::invalid_argument, "give one directory; see --help"));
  options.directory = argv[optind];
  const Status status = simulate(options);
  return status.ok() ? 0 : complain(status.error());
}

}  // namespace
}  // namespace accrete

int main(int argc, char** argv) {
  return accrete::run(argc, argv);
}
