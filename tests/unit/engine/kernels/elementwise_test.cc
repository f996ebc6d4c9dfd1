// The small operations, each on every instruction set of this machine.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "engine/kernels/cpu/kernel_table.h"

namespace assay::engine::cpu {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> RandomFloats(size_t size, float deviation) {
  std::mt19937_64 random(size);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(size);
  for (float& value : values) value = normal(random);
  return values;
}

class ElementwiseTest : public ::testing::TestWithParam<const KernelTable*> {
 protected:
  const KernelTable& kernels_ = *GetParam();
};

TEST_P(ElementwiseTest, ExponentialsAreWithinOnePartInTenMillion) {
  std::vector<float> x, y;
  constexpr int kNumValues = 6278;
  for (int i = 0; i < kNumValues; ++i) x.push_back(-86.0f + 0.0137f * static_cast<float>(i));
  y.resize(x.size());
  const float sum = kernels_.exponentials(x.data(), 0, 1, static_cast<int64_t>(x.size()), y.data());
  double expected_sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = std::exp(double{x[i]});
    expected_sum += expected;
    EXPECT_NEAR(y[i] / expected, 1, 1.2e-7) << x[i];
  }
  EXPECT_NEAR(sum / expected_sum, 1, 1e-6);
}

TEST_P(ElementwiseTest, ExponentialsTakeNanAndMinusInfinityForNothing) {
  const std::vector<float> x = {1, kNan, -kInfinity, 0};
  std::vector<float> y(4);
  EXPECT_FLOAT_EQ(kernels_.exponentials(x.data(), 1, 2, 4, y.data()), 1 + std::exp(-2.0f));
  EXPECT_EQ(y[0], 1);
  EXPECT_EQ(y[1], 0);
  EXPECT_LT(y[2], 1e-37f);
  EXPECT_FLOAT_EQ(y[3], std::exp(-2.0f));
}

TEST_P(ElementwiseTest, MaximumPassesOverNans) {
  for (const int64_t size : {1, 5, 16, 33}) {
    std::vector<float> x(size, kNan);
    EXPECT_EQ(kernels_.maximum(x.data(), size), -kInfinity);
    x[size - 1] = -3;
    EXPECT_EQ(kernels_.maximum(x.data(), size), -3);
    x[0] = 2;
    EXPECT_EQ(kernels_.maximum(x.data(), size), 2);
  }
}

TEST_P(ElementwiseTest, NormsAreThoseOfTheDefinition) {
  for (const int size : {1, 16, 40, 128, 1536}) {
    const std::vector<float> x = RandomFloats(size, 3), weight = RandomFloats(size + 1, 1);
    std::vector<float> y(size);
    kernels_.rms_norm(x.data(), weight.data(), 1e-6f, size, y.data());
    double sum = 0;
    for (const float value : x) sum += double{value} * value;
    for (int i = 0; i < size; ++i) {
      const double expected = x[i] / std::sqrt(sum / size + 1e-6) * weight[i];
      EXPECT_NEAR(y[i], expected, 1e-6 * std::abs(expected) + 1e-7);
    }
  }
}

TEST_P(ElementwiseTest, SwigluIsThatOfTheDefinitionAlsoFarOut) {
  std::vector<float> gate = RandomFloats(75, 4), up = RandomFloats(75, 2);
  gate[0] = 100;
  gate[1] = -100;
  gate[2] = -80;
  std::vector<float> y(75);
  kernels_.silu_multiply(gate.data(), up.data(), 75, y.data());
  for (int i = 0; i < 75; ++i) {
    const double expected = gate[i] / (1 + std::exp(-double{gate[i]})) * up[i];
    EXPECT_NEAR(y[i], expected, 1e-6 * std::abs(expected) + 1e-30) << gate[i];
  }
}

TEST_P(ElementwiseTest, RotationPairsTheHalves) {
  std::vector<float> x = {1, 2, 3, 4};
  const float cosines[] = {0, 0.6f}, sines[] = {1, 0.8f};
  kernels_.rotate_half(x.data(), cosines, sines, 2);
  EXPECT_FLOAT_EQ(x[0], -3);
  EXPECT_FLOAT_EQ(x[1], 2 * 0.6f - 4 * 0.8f);
  EXPECT_FLOAT_EQ(x[2], 1);
  EXPECT_FLOAT_EQ(x[3], 4 * 0.6f + 2 * 0.8f);
}

TEST_P(ElementwiseTest, Bf16RoundingIsToNearestEven) {
  const auto rounded = [&](uint32_t bits) {
    float x = std::bit_cast<float>(bits);
    kernels_.round_to_bf16(&x, 1);
    return std::bit_cast<uint32_t>(x);
  };
  EXPECT_EQ(rounded(0x3F808000), 0x3F800000u);  // tie, even below
  EXPECT_EQ(rounded(0x3F818000), 0x3F820000u);  // tie, even above
  EXPECT_EQ(rounded(0x3F808001), 0x3F810000u);
  EXPECT_EQ(rounded(0xBF807FFF), 0xBF800000u);
  EXPECT_EQ(rounded(0x7F7FFFFF), 0x7F800000u);  // overflows to infinity
  EXPECT_TRUE(std::isnan(std::bit_cast<float>(rounded(0x7F800001))));
}

TEST_P(ElementwiseTest, EveryInstructionSetGivesTheSameBits) {
  const KernelTable& best = Kernels();
  for (const int size : {7, 16, 100}) {
    const std::vector<float> x = RandomFloats(size, 2), weight = RandomFloats(size + 1, 1);
    std::vector<float> a(size), b(size);
    kernels_.rms_norm(x.data(), weight.data(), 1e-6f, size, a.data());
    best.rms_norm(x.data(), weight.data(), 1e-6f, size, b.data());
    EXPECT_EQ(a, b);
    kernels_.silu_multiply(x.data(), weight.data(), size, a.data());
    best.silu_multiply(x.data(), weight.data(), size, b.data());
    EXPECT_EQ(a, b);
    EXPECT_EQ(kernels_.exponentials(x.data(), 5, 1.7f, size, a.data()),
              best.exponentials(x.data(), 5, 1.7f, size, b.data()));
    EXPECT_EQ(a, b);
  }
}

std::vector<const KernelTable*> Available() {
  std::vector<const KernelTable*> all;
  for (auto kernels = AvailableKernels(); *kernels != nullptr; ++kernels) all.push_back(*kernels);
  return all;
}
INSTANTIATE_TEST_SUITE_P(InstructionSets, ElementwiseTest, ::testing::ValuesIn(Available()),
                         [](const auto& instance) { return std::string(instance.param->name); });

}  // namespace
}  // namespace assay::engine::cpu
