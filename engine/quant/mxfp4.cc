#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "base/status.h"
#include "engine/quant/uniform.h"

namespace assay::engine {
namespace {

constexpr int kLargestElementExponent = 2;  // 6 = 1.5 * 2^2

// floor(log2(x)) of a normal x >= 0; -127 for zero and denormals, which end at the smallest scale
// anyway.
int FloorLog2(float x) { return static_cast<int>(std::bit_cast<uint32_t>(x) >> 23 & 0xff) - 127; }

// |v| on the E2M1 grid: steps of 0.5 below 2, of 1 below 4, of 2 above; even multiples of the step
// are those with an even mantissa.
template <Ties kTies>
float RoundElement(float magnitude) {
  const float step = magnitude < 2 ? 0.5f : magnitude < 4 ? 1.0f : 2.0f;
  const float in_steps = magnitude / step;
  float rounded;
  if constexpr (kTies == Ties::kToEven) {
    constexpr float kMagic = 12582912.0f;  // as in uniform.cc
    rounded = (in_steps + kMagic) - kMagic;
  } else {
    const auto floor = static_cast<float>(static_cast<int>(in_steps));
    rounded = floor + (in_steps - floor >= 0.5f ? 1.0f : 0.0f);
  }
  const float value = rounded * step;
  return value < 6.0f ? value : 6.0f;
}

template <Ties kTies>
void RoundBlock(std::span<float> block) {
  const int exponent = Mxfp4Exponent(block);
  const float scale = std::ldexp(1.0f, exponent);
  const float inverse = std::ldexp(1.0f, -exponent);
  for (float& value : block) {
    // At most 8, but for infinities and NaN: saturating first keeps the conversions defined.
    const float scaled = std::fabs(value) * inverse;
    const float magnitude = scaled < 8.0f ? scaled : 8.0f;
    value = std::copysign(RoundElement<kTies>(magnitude) * scale, value);
  }
}

}  // namespace

int Mxfp4Exponent(std::span<const float> block) {
  float largest = 0;
  for (const float value : block) {
    const float magnitude = std::fabs(value);
    largest = magnitude > largest ? magnitude : largest;
  }
  largest = std::min(largest, std::numeric_limits<float>::max());
  return std::max(FloorLog2(largest) - kLargestElementExponent, -127);
}

uint8_t EncodeE2m1(float x, Ties ties) {
  const float magnitude = std::fabs(x) < 8.0f ? std::fabs(x) : 8.0f;
  const float rounded = ties == Ties::kToEven ? RoundElement<Ties::kToEven>(magnitude)
                                              : RoundElement<Ties::kAwayFromZero>(magnitude);
  uint8_t code = 0;
  while (DecodeE2m1(code) != rounded) ++code;
  return static_cast<uint8_t>(code | (std::signbit(x) ? 8 : 0));
}

float DecodeE2m1(uint8_t code) {
  static constexpr float kMagnitudes[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  const float magnitude = kMagnitudes[code & 7];
  return code & 8 ? -magnitude : magnitude;
}

void RoundToMxfp4(std::span<float> values, Ties ties) {
  ASSAY_CHECK(values.size() % kMxfp4Block == 0, "{} values", values.size());
  for (size_t i = 0; i < values.size(); i += kMxfp4Block) {
    const std::span<float> block = values.subspan(i, kMxfp4Block);
    if (ties == Ties::kToEven) {
      RoundBlock<Ties::kToEven>(block);
    } else {
      RoundBlock<Ties::kAwayFromZero>(block);
    }
  }
}

}  // namespace assay::engine
