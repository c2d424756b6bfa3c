// What the fuzz targets share. A target is a file with LLVMFuzzerTestOneInput(); it ends the
// program when something does not hold, and says what.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace accrete::fuzzing {

[[noreturn]] inline void broken(const char* what, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
  std::abort();
}

// In every build.
#define ACCRETE_HOLDS(condition)                                                  \
  do {                                                                            \
    if (!(condition)) ::accrete::fuzzing::broken(#condition, __FILE__, __LINE__); \
  } while (false)

// Takes values off the front of an input; when that is used up, zeros or less than was asked for.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size)
      : rest_(reinterpret_cast<const char*>(data), size) {}

  bool empty() const { return rest_.empty(); }
  std::string_view rest() const { return rest_; }

  template <class T>
  T take() {
    static_assert(std::is_integral_v<T>);
    T value{};
    const std::string_view bytes = take_bytes(sizeof value);
    if (!bytes.empty()) std::memcpy(&value, bytes.data(), bytes.size());
    return value;
  }
  std::string_view take_bytes(std::size_t most) {
    const std::string_view bytes = rest_.substr(0, most);
    rest_.remove_prefix(bytes.size());
    return bytes;
  }
  // Up to a delimiter, which is taken, too.
  std::string_view take_until(char delimiter) {
    const std::string_view text = take_bytes(std::min(rest_.find(delimiter), rest_.size()));
    take_bytes(1);
    return text;
  }

 private:
  std::string_view rest_;
};

}  // namespace accrete::fuzzing
