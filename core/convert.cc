// Loops over blocks that fit the innermost cache: first all values are converted as if to nearest
// and tested, without a branch, so that the compiler makes vector code of it; only where a test
// fails the block is looked at again, value by value.
#include "core/convert.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "core/with_type.h"

namespace accrete {

namespace {

constexpr std::size_t block = 512;

// 2^digits: the first value above an integer type's range, exact in any floating type.
template <class Float, class Integer>
constexpr Float above = static_cast<Float>(std::numeric_limits<Integer>::max() / 2 + 1) * 2;

// v as To; `fits`: To has exactly this value.
template <class To, class From>
[[gnu::always_inline]] inline To nearest(From v, To nan, bool& fits) {
  if constexpr (std::is_same_v<To, From>) {
    fits = true;
    return v;
  } else if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
    const From whole = std::nearbyint(v);
    const bool too_small = whole < static_cast<From>(std::numeric_limits<To>::min());
    const bool too_large = whole >= above<From, To>;
    const bool is_nan = std::isnan(v);
    fits = whole == v && !too_small && !too_large;
    const To inside = static_cast<To>(too_small || too_large || is_nan ? From{0} : whole);
    return is_nan      ? nan
           : too_small ? std::numeric_limits<To>::min()
           : too_large ? std::numeric_limits<To>::max()
                       : inside;
  } else if constexpr (std::is_integral_v<From> && std::is_floating_point_v<To>) {
    const To t = static_cast<To>(v);
    const bool back_is_defined = t < above<To, From>;
    fits = back_is_defined && static_cast<From>(back_is_defined ? t : To{0}) == v;
    return t;
  } else if constexpr (std::is_integral_v<From>) {
    const bool too_small = std::cmp_less(v, std::numeric_limits<To>::min());
    const bool too_large = std::cmp_greater(v, std::numeric_limits<To>::max());
    fits = !too_small && !too_large;
    return too_small   ? std::numeric_limits<To>::min()
           : too_large ? std::numeric_limits<To>::max()
                       : static_cast<To>(v);
  } else {
    constexpr From most = static_cast<From>(std::numeric_limits<To>::max());
    const bool is_finite = std::abs(v) <= std::numeric_limits<From>::max();
    const From inside = is_finite && v > most ? most : is_finite && v < -most ? -most : v;
    const To t = static_cast<To>(inside);
    fits = static_cast<From>(t) == v || std::isnan(v);
    return t;
  }
}

template <class To, class From>
[[gnu::always_inline]] inline bool same_bits_back(To t, From v) {
  bool fits = true;
  const From back = nearest<From>(t, From{}, fits);
  using Bits = std::conditional_t<
      sizeof v == 1, std::uint8_t,
      std::conditional_t<sizeof v == 2, std::uint16_t,
                         std::conditional_t<sizeof v == 4, std::uint32_t, std::uint64_t>>>;
  return static_cast<unsigned>(fits) &
         static_cast<unsigned>(std::bit_cast<Bits>(back) == std::bit_cast<Bits>(v));
}

template <class To, class From>
[[gnu::always_inline]] inline Converted convert_as(std::byte* target, const std::byte* source,
                                                   std::size_t n, Rounding rounding, To nan) {
  Converted result;
  std::array<From, block> from;
  std::array<To, block> to;
  for (std::size_t done = 0; done < n; done += block) {
    const std::size_t count = std::min(block, n - done);
    std::memcpy(from.data(), source + done * sizeof(From), count * sizeof(From));
    unsigned unfit = 0;
    unsigned other = 0;
    for (std::size_t i = 0; i < count; ++i) {
      bool fits = true;
      to[i] = nearest<To>(from[i], nan, fits);
      unfit |= fits ? 0u : 1u;
    }
    std::size_t good = count;
    if (unfit != 0) {
      for (std::size_t i = 0; i < count && good == count; ++i) {
        bool fits = true;
        nearest<To>(from[i], nan, fits);
        if (fits) continue;
        if (rounding == Rounding::exact)
          good = i;
        else
          ++result.changed;
      }
    }
    for (std::size_t i = 0; i < good; ++i) other |= same_bits_back(to[i], from[i]) ? 0u : 1u;
    result.invertible = result.invertible && other == 0;
    std::memcpy(target + done * sizeof(To), to.data(), good * sizeof(To));
    result.count += good;
    if (good < count) break;
  }
  return result;
}

template <class To, class From>
[[gnu::always_inline]] inline void convert_nearest_as(std::byte* target, const std::byte* source,
                                                      std::size_t n, To nan) {
  std::array<From, block> from;
  std::array<To, block> to;
  for (std::size_t done = 0; done < n; done += block) {
    const std::size_t count = std::min(block, n - done);
    std::memcpy(from.data(), source + done * sizeof(From), count * sizeof(From));
    for (std::size_t i = 0; i < count; ++i) {
      bool fits = true;
      to[i] = nearest<To>(from[i], nan, fits);
    }
    std::memcpy(target + done * sizeof(To), to.data(), count * sizeof(To));
  }
}

// The baseline of x86-64 rounds and widens one value at a time, which nearly every machine does
// not.
#if defined(__x86_64__)
template <class To, class From>
[[gnu::target("avx2")]] Converted convert_avx2(std::byte* target, const std::byte* source,
                                               std::size_t n, Rounding rounding, To nan) {
  return convert_as<To, From>(target, source, n, rounding, nan);
}

template <class To, class From>
[[gnu::target("avx2")]] void convert_nearest_avx2(std::byte* target, const std::byte* source,
                                                  std::size_t n, To nan) {
  convert_nearest_as<To, From>(target, source, n, nan);
}

const bool has_avx2 = __builtin_cpu_supports("avx2");
#endif

template <class To, class From>
Converted convert_fast(std::byte* target, const std::byte* source, std::size_t n, Rounding rounding,
                       To nan) {
#if defined(__x86_64__)
  if (has_avx2) return convert_avx2<To, From>(target, source, n, rounding, nan);
#endif
  return convert_as<To, From>(target, source, n, rounding, nan);
}

template <class To, class From>
void convert_nearest_fast(std::byte* target, const std::byte* source, std::size_t n, To nan) {
#if defined(__x86_64__)
  if (has_avx2) return convert_nearest_avx2<To, From>(target, source, n, nan);
#endif
  convert_nearest_as<To, From>(target, source, n, nan);
}

}  // namespace

Converted convert(std::byte* target, DType to, const std::byte* source, DType from, std::size_t n,
                  Rounding rounding, const Element& nan) {
  if (to == from) {
    std::memcpy(target, source, n * size_of(to));
    return {n, 0, true};
  }
  return with_type(to, [&](auto value) {
    return with_type(from, [&, value](auto source_value) mutable {
      using To = decltype(value);
      using From = decltype(source_value);
      std::memcpy(&value, nan.bytes.data(), sizeof value);
      return convert_fast<To, From>(target, source, n, rounding, value);
    });
  });
}

void convert_nearest(std::byte* target, DType to, const std::byte* source, DType from,
                     std::size_t n, const Element& nan) {
  if (to == from) {
    std::memcpy(target, source, n * size_of(to));
    return;
  }
  with_type(to, [&](auto value) {
    with_type(from, [&, value](auto source_value) mutable {
      using To = decltype(value);
      using From = decltype(source_value);
      std::memcpy(&value, nan.bytes.data(), sizeof value);
      convert_nearest_fast<To, From>(target, source, n, value);
    });
  });
}

}  // namespace accrete
