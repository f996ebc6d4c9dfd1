// The arithmetic of drawing a token, in integers, so that every backend draws the same id from the
// same logits: sums of integers do not depend on their order, and the CPU sums in rank order while
// a GPU adds histograms.
//
// With d = (maximum - logit) / temperature in float32, the larger the less likely,
//   level = d in steps of 2^-26, the token's rank together with its id (the lower first)
//   mass  = e^-d in steps of 2^-40: below d = 27.7 nothing is left, less than 2^-22 of all mass
//           over a vocabulary of 2^18
// e^-d itself is the backend's, by the one polynomial of engine/kernels/cpu/simd.h.
#pragma once

#include <cstdint>

namespace assay::engine {

// Of tokens from d = 32 on, and of NaN: they are tied, and have no mass.
inline constexpr uint32_t kLastLevel = uint32_t{1} << 31;

constexpr uint32_t TokenLevel(float maximum, float logit, float inverse_temperature) {
  const float distance = (maximum - logit) * inverse_temperature;
  return distance < 32.0f ? static_cast<uint32_t>(distance * 0x1.0p26f) : kLastLevel;
}

// Of e^-d in [0, 1]. The sum over a vocabulary below 2^23 fits.
constexpr uint64_t TokenMass(float exponential) {
  return static_cast<uint64_t>(exponential * 0x1.0p40f);
}

// The mass that the fewest first ranks must reach for top_p of `total`.
constexpr uint64_t NucleusMass(float top_p, uint64_t total) {
  const double wanted = static_cast<double>(top_p) * static_cast<double>(total);
  return wanted > 0 ? static_cast<uint64_t>(wanted) : 0;
}

}  // namespace assay::engine
