// Packed weights: every code decodes to the 16 bits that engine/quant's decoding rounds to, where
// packed_weight.h says so, and to the same bits on both ways; products of few rows are right up to
// float32's rounding and the same in any batch.
#include "engine/kernels/cuda/packed_weight.h"

#include <cuda_fp16.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "engine/kernels/cuda/random_fill.h"
#include "engine/quant/format/codes.h"
#include "tests/kernels/cuda_fixture.h"

namespace assay::engine::cuda {
namespace {

struct Case {
  int bit_width = 4;
  bool symmetric = false;
  int64_t out_features = 0;
  int64_t in_features = 0;
  int64_t group_width = 128;
};

constexpr int kMaxRows = 300;

// A linear's tensors, drawn at random, as description.h lays them out.
struct Tensors {
  std::vector<uint8_t> codes;  // packed
  std::vector<float> scales;
  std::vector<uint8_t> zeros;
  int64_t row_bytes = 0;
  int64_t num_groups = 0;
  std::vector<float> weight;  // decoded as packed_linear.cc does
};

bool HasHalfScales(int64_t row) { return row % 2 == 0; }

Tensors RandomTensors(const Case& test, std::mt19937_64* random) {
  Tensors tensors;
  const auto columns = static_cast<size_t>(test.in_features);
  tensors.row_bytes = static_cast<int64_t>(PackedBytes(columns, test.bit_width));
  tensors.num_groups = (test.in_features + test.group_width - 1) / test.group_width;
  const int num_codes = 1 << test.bit_width;
  std::uniform_int_distribution<int> code(0, num_codes - 1);
  std::uniform_real_distribution<float> scale(0.001f, 0.02f);
  tensors.codes.resize(static_cast<size_t>(test.out_features * tensors.row_bytes));
  for (int64_t n = 0; n < test.out_features; ++n) {
    std::vector<uint8_t> row(columns);
    for (uint8_t& value : row) value = static_cast<uint8_t>(code(*random));
    PackCodes(row, test.bit_width,
              std::span(tensors.codes)
                  .subspan(static_cast<size_t>(n * tensors.row_bytes),
                           static_cast<size_t>(tensors.row_bytes)));
    for (int64_t group = 0; group < tensors.num_groups; ++group) {
      // Every other row has scales as float16 holds them.
      const float exact = scale(*random);
      tensors.scales.push_back(HasHalfScales(n) ? __half2float(__float2half_rn(exact)) : exact);
      tensors.zeros.push_back(static_cast<uint8_t>(test.symmetric ? 0 : code(*random)));
    }
    for (int64_t k = 0; k < test.in_features; ++k) {
      const auto grid = static_cast<size_t>(n * tensors.num_groups + k / test.group_width);
      const int q = row[static_cast<size_t>(k)];
      const int value = test.symmetric && q >= num_codes / 2 ? q - num_codes : q;
      tensors.weight.push_back(tensors.scales[grid] * (static_cast<float>(value) -
                                                       static_cast<float>(tensors.zeros[grid])));
    }
  }
  return tensors;
}

class PackedWeightTest : public CudaTest, public ::testing::WithParamInterface<Case> {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (IsSkipped()) return;
    std::mt19937_64 random(std::random_device{}());
    const Case& test = GetParam();
    tensors_ = RandomTensors(test, &random);
    tiles_ =
        OnDevice<uint8_t>(PackedWeightBytes(test.bit_width, test.out_features, test.in_features));
    ASSERT_EQ(cudaMemset(tiles_.data(), 0xA5, static_cast<size_t>(tiles_.bytes())), cudaSuccess);
    const auto codes = ToDevice(tensors_.codes);
    const auto scales = ToDevice(tensors_.scales);
    const auto zeros = ToDevice(tensors_.zeros);
    // In two parts, as q and k become one product.
    const int64_t first = std::min<int64_t>(64, test.out_features);
    for (const int64_t begin : {int64_t{0}, first}) {
      const int64_t end = begin == 0 ? first : test.out_features;
      if (begin == end) continue;
      ASSERT_OK(PackWeight(
          {.codes = codes.data() + begin * tensors_.row_bytes,
           .row_bytes = tensors_.row_bytes,
           .scales = scales.data() + begin * tensors_.num_groups,
           .zeros = test.symmetric ? nullptr : zeros.data() + begin * tensors_.num_groups,
           .num_groups = tensors_.num_groups,
           .group_width = test.group_width,
           .bit_width = test.bit_width,
           .num_features = end - begin,
           .first_feature = begin,
           .in_features = test.in_features,
           .tiles = tiles_.data()},
          stream()));
    }
    x_ = OnDevice<__nv_bfloat16>(kMaxRows * test.in_features);
    y_ = OnDevice<float>(kMaxRows * test.out_features);
    ASSERT_OK(FillRandom(x_.data(), x_.size(), 0, 1, random(), stream()));
    ASSERT_EQ(cudaStreamSynchronize(stream()), cudaSuccess);
  }

  PackedWeight packed() const { return {GetParam().bit_width, tiles_.data()}; }

  std::vector<float> Unpack() const {
    const Case& test = GetParam();
    const auto weight = OnDevice<__nv_bfloat16>(test.out_features * test.in_features);
    EXPECT_OK(UnpackWeight(packed(), test.out_features, test.in_features, weight.data(), stream()));
    return Floats(ToHost(weight));
  }

  std::vector<float> Multiply(int first, int count) {
    const Case& test = GetParam();
    EXPECT_OK(MultiplyPacked({.x = x_.data() + first * test.in_features,
                              .y = y_.data(),
                              .num_rows = count,
                              .out_features = test.out_features,
                              .in_features = test.in_features,
                              .float_output = true},
                             packed(), stream()));
    std::vector<float> values(static_cast<size_t>(count * test.out_features));
    EXPECT_OK(y_.CopyTo(std::span(values), stream()));
    EXPECT_EQ(cudaStreamSynchronize(stream()), cudaSuccess);
    return values;
  }

  Tensors tensors_;
  DeviceBuffer<uint8_t> tiles_;
  DeviceBuffer<__nv_bfloat16> x_;
  DeviceBuffer<float> y_;
};

TEST_P(PackedWeightTest, EveryWeightIsTheReferencesRounded) {
  const Case& test = GetParam();
  const std::vector<float> values = Unpack();
  for (size_t i = 0; i < values.size(); ++i) {
    const float exact = tensors_.weight[i];
    const auto row = static_cast<int64_t>(i) / test.in_features;
    const auto column = static_cast<int64_t>(i) % test.in_features;
    if (test.bit_width == 8 || HasHalfScales(row)) {
      ASSERT_EQ(values[i], Rounded(exact)) << "row " << row << " column " << column;
    } else {
      // Both roundings of packed_weight.h's low part, and that of the reference to float32.
      const float unit = std::ldexp(1.0f, std::ilogb(std::max(std::abs(exact), 1e-30f)) - 7);
      ASSERT_NEAR(values[i], exact, (0.5f + 0x1.0p-7f) * unit)
          << "row " << row << " column " << column;
    }
  }
}

// A row of x that is a unit vector makes a column of the weight.
TEST_P(PackedWeightTest, ProductsDecodeTheBitsThatUnpackingDoes) {
  const Case& test = GetParam();
  const std::vector<float> weight = Unpack();
  for (int64_t begin = 0; begin < test.in_features; begin += 256) {
    const auto count = static_cast<int>(std::min<int64_t>(256, test.in_features - begin));
    std::vector<float> units(static_cast<size_t>(count * test.in_features));
    for (int row = 0; row < count; ++row) {
      units[static_cast<size_t>(row * test.in_features + begin + row)] = 1;
    }
    const auto x = ToDevice(Halves(units));
    ASSERT_OK(MultiplyPacked({.x = x.data(),
                              .y = y_.data(),
                              .num_rows = count,
                              .out_features = test.out_features,
                              .in_features = test.in_features,
                              .float_output = true},
                             packed(), stream()));
    const std::vector<float> y = ToHost(y_);
    for (int row = 0; row < count; ++row) {
      for (int64_t n = 0; n < test.out_features; ++n) {
        ASSERT_EQ(y[static_cast<size_t>(row * test.out_features + n)],
                  weight[static_cast<size_t>(n * test.in_features + begin + row)])
            << "feature " << n << " column " << begin + row;
      }
    }
  }
}

TEST_P(PackedWeightTest, ResultsAreSumsInDoubleUpToRounding) {
  const Case& test = GetParam();
  const std::vector<float> x = Floats(ToHost(x_));
  const std::vector<float> weight = Unpack();
  for (const int count : {5, 70, 256}) {
    const std::vector<float> y = Multiply(0, count);
    for (const int row : {0, count - 1}) {
      for (int64_t n = 0; n < test.out_features; n += 3) {
        double sum = 0;
        double magnitude = 0;
        for (int64_t k = 0; k < test.in_features; ++k) {
          const double product = double{x[static_cast<size_t>(row * test.in_features + k)]} *
                                 double{weight[static_cast<size_t>(n * test.in_features + k)]};
          sum += product;
          magnitude += std::abs(product);
        }
        // As few_rows_test.cc.
        const double summing = magnitude * 0x1.0p-22 * static_cast<double>(test.in_features) / 16;
        ASSERT_NEAR(y[static_cast<size_t>(row * test.out_features + n)], sum, summing + 1e-6)
            << count << " rows, row " << row << " feature " << n;
      }
    }
  }
}

TEST_P(PackedWeightTest, ARowsBitsDoNotDependOnTheBatch) {
  const int64_t features = GetParam().out_features;
  const std::vector<float> expected = Multiply(0, kMaxRows);
  for (const int count : {1, 2, 7, 8, 9, 16, 17, 32, 33, 64, 65, 100, 128, 129, 200, 256, 257}) {
    for (const int first : {0, 1, 13}) {
      const std::vector<float> y = Multiply(first, count);
      ASSERT_EQ(std::memcmp(y.data(), expected.data() + first * features, y.size() * sizeof(float)),
                0)
          << count << " rows from " << first;
    }
  }
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const int bits : {8, 4, 3}) {
    for (const bool symmetric : {false, true}) {
      cases.push_back({bits, symmetric, 512, 1536, 128});
      cases.push_back({bits, symmetric, 200, 640, 640});   // a group a row; features fill no tile
      cases.push_back({bits, symmetric, 1536, 960, 256});  // inputs fill no tile
    }
    cases.push_back({bits, false, 17920, 256, 128});  // one chunk
    cases.push_back({bits, false, 1, 128, 128});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Cases, PackedWeightTest, ::testing::ValuesIn(Cases()),
                         [](const auto& instance) {
                           const Case& test = instance.param;
                           return "w" + std::to_string(test.bit_width) +
                                  (test.symmetric ? "_symmetric_" : "_") +
                                  std::to_string(test.out_features) + "x" +
                                  std::to_string(test.in_features) + "_g" +
                                  std::to_string(test.group_width);
                         });

using PackRefusalTest = CudaTest;

TEST_F(PackRefusalTest, WhatTheLayoutCannotHoldIsRefused) {
  const auto memory = OnDevice<uint8_t>(1 << 16);
  PackWeightArgs args = {.codes = memory.data(),
                         .row_bytes = 64,
                         .scales = reinterpret_cast<const float*>(memory.data()),
                         .num_groups = 1,
                         .group_width = 128,
                         .bit_width = 4,
                         .num_features = 64,
                         .in_features = 128,
                         .tiles = memory.data()};
  ASSERT_OK(PackWeight(args, stream()));
  PackWeightArgs bits = args;
  bits.bit_width = 5;
  EXPECT_EQ(PackWeight(bits, stream()).code(), absl::StatusCode::kInvalidArgument);
  PackWeightArgs groups = args;
  groups.group_width = 64;
  EXPECT_EQ(PackWeight(groups, stream()).code(), absl::StatusCode::kInvalidArgument);
  PackWeightArgs feature = args;
  feature.first_feature = 32;
  EXPECT_EQ(PackWeight(feature, stream()).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MultiplyPacked({.num_rows = 1}, {.bit_width = 5}, stream()).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace assay::engine::cuda
