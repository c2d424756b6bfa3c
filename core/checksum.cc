#include "core/checksum.h"

#if defined(__x86_64__) && __has_include(<xxh_x86dispatch.h>)
#include <xxh_x86dispatch.h>  // XXH3 by the widest vectors that the processor has
#else
#include <xxhash.h>
#endif

#include <new>

namespace accrete {

std::uint64_t checksum(std::span<const std::byte> bytes, std::uint64_t seed) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

struct Checksummer::State {
  XXH3_state_t* xxh = XXH3_createState();
  State() {
    if (xxh == nullptr) throw std::bad_alloc();
  }
  ~State() { XXH3_freeState(xxh); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
};

Checksummer::Checksummer(Width width) : state_(std::make_unique<State>()), width_(width) {
  reset();
}
Checksummer::~Checksummer() = default;
Checksummer::Checksummer(Checksummer&&) noexcept = default;
Checksummer& Checksummer::operator=(Checksummer&&) noexcept = default;

void Checksummer::reset() {
  if (width_ == Width::bits64)
    XXH3_64bits_reset(state_->xxh);
  else
    XXH3_128bits_reset(state_->xxh);
}

void Checksummer::add(std::span<const std::byte> bytes) {
  if (width_ == Width::bits64)
    XXH3_64bits_update(state_->xxh, bytes.data(), bytes.size());
  else
    XXH3_128bits_update(state_->xxh, bytes.data(), bytes.size());
}

std::uint64_t Checksummer::sum64() const {
  return XXH3_64bits_digest(state_->xxh);
}

std::array<std::uint64_t, 2> Checksummer::sum128() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_->xxh);
  return {hash.low64, hash.high64};
}

}  // namespace accrete
