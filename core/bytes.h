// Little-endian fields written to and read from byte strings, for what lies at rest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace accrete {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "fields at rest are little-endian");

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
inline std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class ByteWriter {
 public:
  template <class T>
  void put(T value) {
    static_assert(std::is_integral_v<T>);
    char raw[sizeof(T)];
    std::memcpy(raw, &value, sizeof(T));
    bytes_.append(raw, sizeof(T));
  }
  void put_raw(std::string_view bytes) { bytes_.append(bytes); }
  // Length (32 bits) and bytes.
  void put_text(std::string_view text) {
    put(static_cast<std::uint32_t>(text.size()));
    bytes_.append(text);
  }
  void pad_to(std::size_t multiple) { bytes_.resize((bytes_.size() + multiple - 1) / multiple * multiple); }

  std::size_t size() const { return bytes_.size(); }
  const std::string& bytes() const { return bytes_; }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

// Reading past the end gives zeros and clears good(); check it once at the end.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : rest_(bytes) {}

  template <class T>
  T get() {
    static_assert(std::is_integral_v<T>);
    T value{};
    if (rest_.size() < sizeof(T)) {
      good_ = false;
      rest_ = {};
      return value;
    }
    std::memcpy(&value, rest_.data(), sizeof(T));
    rest_ = rest_.subspan(sizeof(T));
    return value;
  }
  std::span<const std::byte> get_raw(std::size_t length) {
    if (rest_.size() < length) {
      good_ = false;
      rest_ = {};
      return {};
    }
    const auto bytes = rest_.first(length);
    rest_ = rest_.subspan(length);
    return bytes;
  }
  std::string get_text() { return std::string(as_text(get_raw(get<std::uint32_t>()))); }

  bool good() const { return good_; }
  std::span<const std::byte> rest() const { return rest_; }
  std::size_t remaining() const { return rest_.size(); }

 private:
  std::span<const std::byte> rest_;
  bool good_ = true;
};

}  // namespace accrete
