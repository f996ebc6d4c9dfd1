#include "engine/quant/uniform.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace assay::engine {
namespace {

// Rounds to nearest, ties to even, without a call or a branch: adding 1.5 * 2^23 leaves no bits
// for a fraction. Exact for |x| < 2^22; ours is clamped to the codes before.
inline float RoundToEven(float x) {
  constexpr float kMagic = 12582912.0f;
  return (x + kMagic) - kMagic;
}

// "a < b ? a : b" is one vector instruction and, unlike std::min on references, lets g++ vectorize.
inline float Smaller(float a, float b) { return a < b ? a : b; }
inline float Larger(float a, float b) { return a > b ? a : b; }

struct Range {
  float min = 0;
  float max = 0;
};

// The range of the values and zero. Sixteen independent lanes, since g++ may not reorder a
// floating-point reduction itself. A NaN is passed over.
Range RangeWithZero(std::span<const float> values) {
  constexpr size_t kLanes = 16;
  std::array<float, kLanes> min{};
  std::array<float, kLanes> max{};
  const size_t whole = values.size() / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      min[lane] = Smaller(values[i + lane], min[lane]);
      max[lane] = Larger(values[i + lane], max[lane]);
    }
  }
  for (size_t i = whole; i < values.size(); ++i) {
    min[0] = Smaller(values[i], min[0]);
    max[0] = Larger(values[i], max[0]);
  }
  Range range;
  for (size_t lane = 0; lane < kLanes; ++lane) {
    range.min = Smaller(min[lane], range.min);
    range.max = Larger(max[lane], range.max);
  }
  return range;
}

}  // namespace

int MaxCode(int bit_width, bool symmetric) {
  return symmetric ? (1 << (bit_width - 1)) - 1 : (1 << bit_width) - 1;
}

int MinCode(int bit_width, bool symmetric) { return symmetric ? -(1 << (bit_width - 1)) : 0; }

GridParams ChooseParams(std::span<const float> values, const GridSpec& spec) {
  const Range range = RangeWithZero(values);
  return ParamsOfRange(range.min, range.max, spec);
}

GridParams ParamsOfRange(float min, float max, const GridSpec& spec) {
  max = std::max(max, 0.0f) * spec.clip_max;
  min = std::min(min, 0.0f) * spec.clip_min;
  const auto max_code = static_cast<float>(MaxCode(spec.bit_width, spec.symmetric));
  // A range so small that the scale would be denormal decodes to zeros instead of dividing by zero;
  // an infinite one saturates.
  const auto scale_of = [&](float span) {
    return std::clamp(span / max_code, std::numeric_limits<float>::min(),
                      std::numeric_limits<float>::max());
  };
  GridParams params;
  if (spec.symmetric) {
    const float magnitude = std::max({-min, max, spec.min_range});
    params.scale = magnitude == 0 ? 1 : scale_of(magnitude);
    return params;
  }
  if (min == 0 && max == 0) {
    min = -1;
    max = 1;
  }
  params.scale = scale_of(std::max(max - min, spec.min_range));
  // Within the codes by construction, but for infinities.
  params.zero = static_cast<int>(std::clamp(std::nearbyint(-min / params.scale), 0.0f, max_code));
  return params;
}

int Encode(float x, const GridParams& params, int bit_width, bool symmetric) {
  const auto zero = static_cast<float>(params.zero);
  const float lowest = static_cast<float>(MinCode(bit_width, symmetric)) - zero;
  const float highest = static_cast<float>(MaxCode(bit_width, symmetric)) - zero;
  const float clamped = Smaller(Larger(x / params.scale, lowest), highest);
  return static_cast<int>(RoundToEven(clamped)) + params.zero;
}

void RoundToGrid(std::span<float> values, const GridParams& params, int bit_width, bool symmetric) {
  // clamp(rne(x / s) + z, lo, hi) - z = rne(clamp(x / s, lo - z, hi - z)): the bounds are integers
  // and rounding is monotone. So no integer is needed, and the clamp bounds what is rounded.
  const auto zero = static_cast<float>(params.zero);
  const float lowest = static_cast<float>(MinCode(bit_width, symmetric)) - zero;
  const float highest = static_cast<float>(MaxCode(bit_width, symmetric)) - zero;
  const float scale = params.scale;
  for (float& value : values) {
    value = scale * RoundToEven(Smaller(Larger(value / scale, lowest), highest));
  }
}

void RoundToOwnGrid(std::span<float> values, const GridSpec& spec) {
  RoundToGrid(values, ChooseParams(values, spec), spec.bit_width, spec.symmetric);
}

void RoundToStaticGrid(std::span<float> values, const float* scales, const float* lowest,
                       const float* highest) {
  for (size_t i = 0; i < values.size(); ++i) {
    const float clamped = Smaller(Larger(values[i] / scales[i], lowest[i]), highest[i]);
    values[i] = scales[i] * RoundToEven(clamped);
  }
}

}  // namespace assay::engine
