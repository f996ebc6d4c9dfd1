// Linears of few rows: right up to float32's rounding, the same bits for a row in any batch, and
// nothing written beside the result.
#include "engine/kernels/cuda/few_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "engine/kernels/cuda/gemm.h"
#include "engine/kernels/cuda/random_fill.h"
#include "tests/kernels/cuda_fixture.h"

namespace assay::engine::cuda {
namespace {

struct Shape {
  int64_t out_features = 0;
  int64_t in_features = 0;
  bool float_output = false;
  bool has_bias = false;
};

constexpr int kMaxRows = 150;  // more than two launches hold
constexpr uint8_t kPoison = 0xA5;

class FewRowsTest : public CudaTest, public ::testing::WithParamInterface<Shape> {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (IsSkipped()) return;
    const Shape& shape = GetParam();
    x_ = OnDevice<__nv_bfloat16>(kMaxRows * shape.in_features);
    weight_ = OnDevice<__nv_bfloat16>(shape.out_features * shape.in_features);
    bias_ = OnDevice<__nv_bfloat16>(shape.out_features);
    y_ = OnDevice<uint8_t>((kMaxRows + 1) * row_bytes());
    const uint64_t seed = std::random_device{}();
    ASSERT_OK(FillRandom(x_.data(), x_.size(), 0, 1, seed, stream()));
    ASSERT_OK(FillRandom(weight_.data(), weight_.size(), 0, 0.05f, seed + 1, stream()));
    ASSERT_OK(FillRandom(bias_.data(), bias_.size(), 0, 1, seed + 2, stream()));
  }

  int64_t row_bytes() const { return GetParam().out_features * (GetParam().float_output ? 4 : 2); }

  // The bytes of `count` rows of y, of x's rows from `first` on, after a poisoned start; and
  // whether the row behind them is still poison.
  std::vector<uint8_t> Multiply(int first, int count) {
    const Shape& shape = GetParam();
    EXPECT_EQ(cudaMemsetAsync(y_.data(), kPoison, static_cast<size_t>(y_.bytes()), stream()),
              cudaSuccess);
    EXPECT_OK(MultiplyFewRows({.x = x_.data() + first * shape.in_features,
                               .weight = weight_.data(),
                               .bias = shape.has_bias ? bias_.data() : nullptr,
                               .y = y_.data(),
                               .num_rows = count,
                               .out_features = shape.out_features,
                               .in_features = shape.in_features,
                               .float_output = shape.float_output},
                              stream()));
    std::vector<uint8_t> bytes(static_cast<size_t>((count + 1) * row_bytes()));
    EXPECT_OK(y_.CopyTo(std::span(bytes), stream()));
    EXPECT_EQ(cudaStreamSynchronize(stream()), cudaSuccess);
    const auto end = bytes.begin() + count * row_bytes();
    EXPECT_TRUE(std::all_of(end, bytes.end(), [](uint8_t byte) { return byte == kPoison; }))
        << count << " rows: written beyond them";
    bytes.erase(end, bytes.end());
    return bytes;
  }

  float ValueAt(const std::vector<uint8_t>& bytes, int64_t index) const {
    if (GetParam().float_output) {
      float value = 0;
      std::memcpy(&value, bytes.data() + index * 4, 4);
      return value;
    }
    __nv_bfloat16 value;
    std::memcpy(&value, bytes.data() + index * 2, 2);
    return __bfloat162float(value);
  }

  DeviceBuffer<__nv_bfloat16> x_;
  DeviceBuffer<__nv_bfloat16> weight_;
  DeviceBuffer<__nv_bfloat16> bias_;
  DeviceBuffer<uint8_t> y_;
};

TEST_P(FewRowsTest, ResultsAreSumsInDoubleUpToRounding) {
  const Shape& shape = GetParam();
  const std::vector<float> x = Floats(ToHost(x_));
  const std::vector<float> weight = Floats(ToHost(weight_));
  const std::vector<float> bias = Floats(ToHost(bias_));
  // 5 and 40 rows, in boxes of 8 and 64; 70 rows, two launches. Every 7th feature of some rows: the
  // CPU's time.
  for (const int count : {5, 40, 70}) {
    const std::vector<uint8_t> bytes = Multiply(0, count);
    for (const int row : {0, 3, count - 1}) {
      for (int64_t n = row % 7; n < shape.out_features; n += 7) {
        double sum = shape.has_bias ? bias[static_cast<size_t>(n)] : 0.0;
        double magnitude = std::abs(sum);
        for (int64_t k = 0; k < shape.in_features; ++k) {
          const double product = double{x[static_cast<size_t>(row * shape.in_features + k)]} *
                                 double{weight[static_cast<size_t>(n * shape.in_features + k)]};
          sum += product;
          magnitude += std::abs(product);
        }
        // Tensor cores cut what they add to 24 bits or a little less per step of 16 products.
        const double summing = magnitude * 0x1.0p-22 * static_cast<double>(shape.in_features) / 16;
        const double rounding = shape.float_output ? 0 : 0x1.0p-8 * std::abs(sum);
        ASSERT_NEAR(ValueAt(bytes, row * shape.out_features + n), sum, summing + rounding + 1e-6)
            << count << " rows, row " << row << " feature " << n;
      }
    }
  }
}

TEST_P(FewRowsTest, ARowsBitsDoNotDependOnTheNumberOfRows) {
  const std::vector<uint8_t> expected = Multiply(0, kMaxRows);
  for (int count = 1; count < kMaxRows; ++count) {
    const std::vector<uint8_t> bytes = Multiply(0, count);
    ASSERT_TRUE(std::equal(bytes.begin(), bytes.end(), expected.begin())) << count << " rows";
  }
}

TEST_P(FewRowsTest, ARowsBitsDoNotDependOnItsPlace) {
  const std::vector<uint8_t> expected = Multiply(0, kMaxRows);
  for (const int count : {1, 7, 13, 30, 64, 100}) {
    for (const int first : {1, 13, 49}) {
      const std::vector<uint8_t> bytes = Multiply(first, count);
      ASSERT_TRUE(std::equal(bytes.begin(), bytes.end(), expected.begin() + first * row_bytes()))
          << count << " rows from " << first;
    }
  }
}

// What lets the number of rows choose between them.
TEST_P(FewRowsTest, BitsAreThoseOfCublasLt) {
  const Shape& shape = GetParam();
  if (shape.out_features % 8 != 0) GTEST_SKIP() << "cuBLASLt has no kernel of one sum";
  ASSERT_OK_AND_ASSIGN(const CublasLt lt, MakeCublasLt());
  const __nv_bfloat16* const weights[] = {weight_.data()};
  ASSERT_OK_AND_ASSIGN(const Gemm gemm, Gemm::Choose(lt.get(),
                                                     {.out_features = shape.out_features,
                                                      .in_features = shape.in_features,
                                                      .float_output = shape.float_output,
                                                      .has_bias = shape.has_bias},
                                                     kMaxRows, weights, stream()));
  for (const int count : {1, 16, 64, kMaxRows}) {
    const std::vector<uint8_t> own = Multiply(0, count);
    ASSERT_OK(gemm.Run(x_.data(), weight_.data(), bias_.data(), y_.data(), count, stream()));
    std::vector<uint8_t> peer(own.size());
    ASSERT_OK(y_.CopyTo(std::span(peer), stream()));
    ASSERT_EQ(cudaStreamSynchronize(stream()), cudaSuccess);
    EXPECT_TRUE(own == peer) << count << " rows";
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, FewRowsTest,
    ::testing::Values(Shape{.out_features = 4608, .in_features = 3584, .has_bias = true},
                      Shape{.out_features = 3584, .in_features = 3584},
                      Shape{.out_features = 3584, .in_features = 18944},
                      Shape{.out_features = 2048, .in_features = 1536, .has_bias = true},
                      Shape{.out_features = 1536, .in_features = 8960},
                      Shape{.out_features = 17920, .in_features = 1536},
                      Shape{.out_features = 32064, .in_features = 1536, .float_output = true},
                      // Every width of tiles, and a multiple of it that no whole wave is.
                      Shape{.out_features = 3000, .in_features = 960},
                      Shape{.out_features = 6144, .in_features = 192},
                      Shape{.out_features = 7168, .in_features = 192},
                      Shape{.out_features = 8192, .in_features = 192},
                      Shape{.out_features = 10240, .in_features = 64},
                      Shape{.out_features = 12672, .in_features = 64},
                      Shape{.out_features = 14784, .in_features = 64},
                      Shape{.out_features = 16888, .in_features = 64},
                      Shape{.out_features = 21112, .in_features = 64, .has_bias = true},
                      Shape{.out_features = 23200, .in_features = 64},
                      Shape{.out_features = 25336, .in_features = 64},
                      Shape{.out_features = 27448, .in_features = 64},
                      Shape{.out_features = 29560, .in_features = 64},
                      Shape{.out_features = 31672, .in_features = 64},
                      Shape{.out_features = 33792, .in_features = 64, .float_output = true},
                      Shape{.out_features = 63360, .in_features = 192, .float_output = true},
                      // Neither features nor inputs fill their tiles.
                      Shape{.out_features = 1000, .in_features = 960, .has_bias = true},
                      Shape{.out_features = 513, .in_features = 576, .has_bias = true},
                      Shape{.out_features = 321, .in_features = 192, .float_output = true},
                      Shape{.out_features = 96, .in_features = 320, .float_output = true},
                      Shape{.out_features = 144, .in_features = 128},
                      Shape{.out_features = 1, .in_features = 64}),
    [](const auto& instance) {
      const Shape& shape = instance.param;
      return std::to_string(shape.out_features) + "x" + std::to_string(shape.in_features) +
             (shape.float_output ? "_float" : "") + (shape.has_bias ? "_bias" : "");
    });

using FewRowsRefusalTest = CudaTest;

TEST_F(FewRowsRefusalTest, RowsOfBrokenSlabsAreRefused) {
  const auto x = OnDevice<__nv_bfloat16>(96);
  const auto weight = OnDevice<__nv_bfloat16>(64 * 96);
  const auto y = OnDevice<__nv_bfloat16>(64);
  EXPECT_FALSE(FewRowsSupports(96));
  EXPECT_EQ(MultiplyFewRows({.x = x.data(),
                             .weight = weight.data(),
                             .y = y.data(),
                             .num_rows = 1,
                             .out_features = 64,
                             .in_features = 96},
                            stream())
                .code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace assay::engine::cuda
