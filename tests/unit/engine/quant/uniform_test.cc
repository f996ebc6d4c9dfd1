// Vectors worked by hand, then what they leave open.
#include "engine/quant/uniform.h"

#include <cmath>
#include <limits>
#include <vector>

#include "tests/testing/status_matchers.h"
#include "tests/unit/engine/quant/numbers.h"

namespace assay::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatEq;
using ::testing::FloatNear;
using ::testing::Pointwise;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Vector {
  const char* name;
  GridSpec spec;
  std::vector<float> values;
  float scale;
  int zero;
  std::vector<int> codes;
  std::vector<float> rounded;
};

const Vector kVectors[] = {
    {"asym 4", {.bit_width = 4}, {-1, 0, 0.5f, 2}, 0.2f, 5, {0, 5, 7, 15}, {-1, 0, 0.4f, 2}},
    {"asym 4, clip 0.95",
     {.bit_width = 4, .clip_max = 0.95f, .clip_min = 0.95f},
     {-1, 0, 0.5f, 2},
     0.19f,
     5,
     {0, 5, 8, 15},
     {-0.95f, 0, 0.57f, 1.9f}},
    // Times 7/4, since in float32 2 / (4/7) is not quite the tie that it is in real numbers.
    {"asym 3, all positive",
     {.bit_width = 3},
     {1.75f, 3.5f, 5.25f, 7},
     1,
     0,
     {2, 4, 5, 7},
     {2, 4, 5, 7}},
    {"asym 8, clip 0.9",
     {.bit_width = 8, .clip_max = 0.9f, .clip_min = 0.9f},
     {-3.2f, -0.4f, 0.1f, 1},
     0.0148235f,
     194,
     {0, 167, 201, 255},
     {-194 * 0.0148235f, -27 * 0.0148235f, 7 * 0.0148235f, 61 * 0.0148235f}},
    {"sym 4",
     {.bit_width = 4, .symmetric = true},
     {-0.7f, 0.1f, 0.35f, 0.7f},
     0.1f,
     0,
     {-7, 1, 4, 7},
     {-0.7f, 0.1f, 0.4f, 0.7f}},
};

TEST(UniformTest, ThePublishedVectorsHold) {
  for (const Vector& vector : kVectors) {
    SCOPED_TRACE(vector.name);
    const GridParams params = ChooseParams(vector.values, vector.spec);
    EXPECT_NEAR(params.scale, vector.scale, 1e-7);
    EXPECT_EQ(params.zero, vector.zero);
    for (size_t i = 0; i < vector.values.size(); ++i) {
      const int code =
          Encode(vector.values[i], params, vector.spec.bit_width, vector.spec.symmetric);
      EXPECT_EQ(code, vector.codes[i]) << i;
      EXPECT_NEAR(Decode(code, params), vector.rounded[i], 1e-5) << i;
    }
    std::vector<float> values = vector.values;
    RoundToOwnGrid(values, vector.spec);
    EXPECT_THAT(values, Pointwise(FloatNear(1e-5f), vector.rounded));
  }
}

TEST(UniformTest, CodesCoverExactlyTheirBits) {
  EXPECT_EQ(MaxCode(3, false), 7);
  EXPECT_EQ(MinCode(3, false), 0);
  EXPECT_EQ(MaxCode(3, true), 3);
  EXPECT_EQ(MinCode(3, true), -4);
  EXPECT_EQ(MaxCode(8, false), 255);
  EXPECT_EQ(MinCode(8, true), -128);
}

TEST(UniformTest, ZeroIsAlwaysOnTheGrid) {
  for (const std::vector<float>& values :
       {std::vector<float>{1, 2, 3}, {-1, -2, -3}, {-1, 7}, {1e-3f, 5}}) {
    for (int bits = 2; bits <= 8; ++bits) {
      const GridParams params = ChooseParams(values, {.bit_width = bits});
      EXPECT_GE(params.zero, 0);
      EXPECT_LE(params.zero, MaxCode(bits, false));
      EXPECT_EQ(Decode(Encode(0, params, bits, false), params), 0);
    }
  }
}

TEST(UniformTest, AGroupOfZerosStaysZero) {
  for (const bool symmetric : {false, true}) {
    for (const float min_range : {0.0f, 1e-5f}) {
      std::vector<float> values(20, 0.0f);
      const GridSpec spec = {.bit_width = 4, .symmetric = symmetric, .min_range = min_range};
      RoundToOwnGrid(values, spec);
      EXPECT_EQ(values, std::vector<float>(20, 0.0f));
    }
  }
  // Range -1..1 for activations, K and V; scale 1 when symmetric.
  const std::vector<float> zeros(4);
  EXPECT_FLOAT_EQ(ChooseParams(zeros, {.bit_width = 4}).scale, 2.0f / 15);
  EXPECT_EQ(ChooseParams(zeros, {.bit_width = 4, .symmetric = true}).scale, 1);
}

TEST(UniformTest, WeightsHaveALeastRange) {
  const std::vector<float> tiny = {1e-9f, -1e-9f};
  const GridSpec asymmetric = {.bit_width = 4, .min_range = 1e-5f};
  const GridSpec symmetric = {.bit_width = 4, .symmetric = true, .min_range = 1e-5f};
  EXPECT_FLOAT_EQ(ChooseParams(tiny, asymmetric).scale, 1e-5f / 15);
  EXPECT_FLOAT_EQ(ChooseParams(tiny, symmetric).scale, 1e-5f / 7);
}

TEST(UniformTest, TheExtraNegativeCodeIsReachedOnlyByClipping) {
  const GridSpec spec = {.bit_width = 4, .symmetric = true, .clip_max = 0.5f, .clip_min = 0.5f};
  const std::vector<float> values = {-7, 3};
  const GridParams params = ChooseParams(values, spec);
  EXPECT_FLOAT_EQ(params.scale, 0.5f);
  EXPECT_EQ(Encode(-7, params, 4, true), -8);
}

TEST(UniformTest, MaximumAndMinimumMayBeClippedDifferently) {
  const std::vector<float> values = {-1, 2};
  const GridParams params =
      ChooseParams(values, {.bit_width = 4, .clip_max = 0.5f, .clip_min = 0.25f});
  EXPECT_FLOAT_EQ(params.scale, 1.25f / 15);
  EXPECT_EQ(params.zero, 3);
}

// Whole vectors of 16 and the rest of a span go different ways through the loops.
TEST(UniformTest, EveryLengthRoundsAsItsElementsDo) {
  for (const size_t size : {1u, 15u, 16u, 17u, 128u, 131u}) {
    for (const bool symmetric : {false, true}) {
      const std::vector<float> values = RandomValues(size, 7);
      const GridSpec spec = {.bit_width = 4, .symmetric = symmetric, .clip_max = 0.9f};
      const GridParams params = ChooseParams(values, spec);
      std::vector<float> rounded = values;
      RoundToOwnGrid(rounded, spec);
      for (size_t i = 0; i < size; ++i) {
        const int code = Encode(values[i], params, 4, symmetric);
        EXPECT_EQ(rounded[i], Decode(code, params));
        // Straight from the definition, in the other order of rounding and clamping.
        const float direct = std::nearbyint(values[i] / params.scale) + float(params.zero);
        EXPECT_EQ(float(code),
                  std::clamp(direct, float(MinCode(4, symmetric)), float(MaxCode(4, symmetric))));
      }
    }
  }
}

TEST(UniformTest, StaticGridsSaturateAndEachValueHasItsOwn) {
  std::vector<float> values = {0.26f, 9, -9, 0.26f};
  const std::vector<float> scales = {0.1f, 1, 1, 0.5f};
  const std::vector<float> lowest = {0, -3, -3, -7};
  const std::vector<float> highest = {15, 12, 4, 8};
  values[1] = 100;
  RoundToStaticGrid(values, scales.data(), lowest.data(), highest.data());
  EXPECT_THAT(values, ElementsAre(FloatEq(0.3f), 12, -3, 0.5f));
}

TEST(UniformTest, ValuesThatAreNotNumbersDoNoHarm) {
  for (const float bad : {std::nanf(""), kInfinity, -kInfinity, 3e38f, 1e-45f}) {
    for (const bool symmetric : {false, true}) {
      std::vector<float> values(33, 1.0f);
      values[5] = bad;
      values[32] = -bad;
      const GridSpec spec = {.bit_width = 4, .symmetric = symmetric};
      const GridParams params = ChooseParams(values, spec);
      EXPECT_GE(params.zero, 0);
      EXPECT_LE(params.zero, 15);
      EXPECT_LE(Encode(bad, params, 4, symmetric), 15);
      RoundToOwnGrid(values, spec);
      RoundToMxfp4(std::span(values).first(32));
    }
  }
}

TEST(Mxfp4Test, ThePublishedVectorsHold) {
  std::vector<float> values = {5, 0.25f, 2.5f, -1.25f, 7.9f, 0.74f};
  values.resize(32);
  EXPECT_EQ(Mxfp4Exponent(values), 0);
  std::vector<float> even = values;
  RoundToMxfp4(even);
  EXPECT_THAT(std::vector(even.begin(), even.begin() + 6), ElementsAre(4, 0, 2, -1, 6, 0.5f));
  std::vector<float> away = values;
  RoundToMxfp4(away, Ties::kAwayFromZero);
  EXPECT_THAT(std::vector(away.begin(), away.begin() + 6), ElementsAre(6, 0.5f, 3, -1.5f, 6, 0.5f));

  values = {0.01f, -0.02f, 0.031f, 0.004f};
  values.resize(32);
  EXPECT_EQ(Mxfp4Exponent(values), -8);
  RoundToMxfp4(values);
  EXPECT_THAT(std::vector(values.begin(), values.begin() + 4),
              ElementsAre(0.01171875f, -0.0234375f, 0.0234375f, 0.00390625f));
}

TEST(Mxfp4Test, EveryCodeDecodesToItsOwnValueAndBack) {
  const float kGrid[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  for (uint8_t code = 0; code < 16; ++code) {
    const float value = DecodeE2m1(code);
    EXPECT_EQ(std::fabs(value), kGrid[code & 7]);
    EXPECT_EQ(std::signbit(value), (code & 8) != 0);
    EXPECT_EQ(EncodeE2m1(value), code);
    EXPECT_EQ(EncodeE2m1(value, Ties::kAwayFromZero), code);
  }
  EXPECT_EQ(DecodeE2m1(EncodeE2m1(7.99f)), 6);
}

// The nearest of the sixteen values, found by looking at all of them.
TEST(Mxfp4Test, RoundingFindsTheNearestOfAllValues) {
  std::vector<float> values = RandomValues(64 * 32, 3);
  const std::vector<float> original = values;
  RoundToMxfp4(values);
  for (size_t i = 0; i < values.size(); ++i) {
    const std::span block(original.data() + i / 32 * 32, 32);
    const float scale = std::ldexp(1.0f, Mxfp4Exponent(block));
    float best = kInfinity;
    for (uint8_t code = 0; code < 16; ++code) {
      best = std::min(best, std::fabs(DecodeE2m1(code) * scale - original[i]));
    }
    EXPECT_FLOAT_EQ(std::fabs(values[i] - original[i]), best) << original[i];
  }
}

TEST(Mxfp4Test, BlocksAreScaledApart) {
  std::vector<float> values(64, 0.0f);
  values[0] = 1000;
  values[40] = 0.001f;
  EXPECT_EQ(Mxfp4Exponent(std::span(values).last(32)), -12);
  RoundToMxfp4(values);
  EXPECT_EQ(values[0], 768);  // saturated: 1000 is 7.8 * 2^7
  EXPECT_NEAR(values[40], 0.001f, 0.0001f);
  EXPECT_EQ(values[1], 0);
}

TEST(Mxfp4Test, ABlockOfZerosHasTheSmallestScale) {
  EXPECT_EQ(Mxfp4Exponent(std::vector<float>(32)), -127);
}

}  // namespace
}  // namespace assay::engine
