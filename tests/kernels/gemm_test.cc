// bf16 linears: right up to float32's rounding, and the same bits for a row in any batch.
#include "engine/kernels/cuda/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "engine/kernels/cuda/random_fill.h"
#include "engine/kernels/cuda/row_hash.h"
#include "tests/kernels/cuda_fixture.h"

namespace assay::engine::cuda {
namespace {

class GemmTest : public CudaTest, public ::testing::WithParamInterface<GemmShape> {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (IsSkipped()) return;
    const GemmShape& shape = GetParam();
    ASSERT_OK_AND_ASSIGN(lt_, MakeCublasLt());
    x_ = OnDevice<__nv_bfloat16>(kMaxRows * shape.in_features);
    weight_ = OnDevice<__nv_bfloat16>(shape.out_features * shape.in_features);
    bias_ = OnDevice<__nv_bfloat16>(shape.out_features);
    y_ = OnDevice<uint8_t>(kMaxRows * row_bytes());
    const uint64_t seed = std::random_device{}();
    ASSERT_OK(FillRandom(x_.data(), x_.size(), 0, 1, seed, stream()));
    ASSERT_OK(FillRandom(weight_.data(), weight_.size(), 0, 0.05f, seed + 1, stream()));
    ASSERT_OK(FillRandom(bias_.data(), bias_.size(), 0, 1, seed + 2, stream()));
  }

  int64_t row_bytes() const { return GetParam().out_features * (GetParam().float_output ? 4 : 2); }

  absl::StatusOr<Gemm> Choose() {
    const __nv_bfloat16* weights[] = {weight_.data()};
    return Gemm::Choose(lt_.get(), GetParam(), kMaxRows, weights, stream());
  }

  // Hashes of the results of rows [first, first + count), computed as a batch.
  std::vector<uint64_t> HashesOf(const Gemm& gemm, int first, int count) {
    const auto hashes = OnDevice<uint64_t>(count);
    EXPECT_OK(gemm.Run(x_.data() + first * GetParam().in_features, weight_.data(), bias_.data(),
                       y_.data(), count, stream()));
    EXPECT_OK(HashRows(
        {.matrix = y_.data(), .hashes = hashes.data(), .num_rows = count, .row_bytes = row_bytes()},
        stream()));
    return ToHost(hashes);
  }

  static constexpr int kMaxRows = 2304;
  CublasLt lt_;
  DeviceBuffer<__nv_bfloat16> x_;
  DeviceBuffer<__nv_bfloat16> weight_;
  DeviceBuffer<__nv_bfloat16> bias_;
  DeviceBuffer<uint8_t> y_;
};

TEST_P(GemmTest, ResultsAreSumsInDoubleUpToRounding) {
  const GemmShape& shape = GetParam();
  ASSERT_OK_AND_ASSIGN(const Gemm gemm, Choose());
  constexpr int kRows = 3;
  ASSERT_OK(gemm.Run(x_.data(), weight_.data(), bias_.data(), y_.data(), kRows, stream()));
  const std::vector<float> x = Floats(ToHost(x_));
  const std::vector<float> weight = Floats(ToHost(weight_));
  const std::vector<float> bias = Floats(ToHost(bias_));
  const std::vector<uint8_t> bytes = ToHost(y_);
  // Every 7th feature: the CPU's time.
  for (int row = 0; row < kRows; ++row) {
    for (int64_t n = 0; n < shape.out_features; n += 7) {
      double sum = shape.has_bias ? bias[n] : 0.0;
      double magnitude = std::abs(sum);
      for (int64_t k = 0; k < shape.in_features; ++k) {
        const double product =
            double{x[row * shape.in_features + k]} * double{weight[n * shape.in_features + k]};
        sum += product;
        magnitude += std::abs(product);
      }
      const int64_t at = row * shape.out_features + n;
      const float y =
          shape.float_output
              ? reinterpret_cast<const float*>(bytes.data())[at]
              : __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(bytes.data())[at]);
      // Tensor cores cut what they add to 24 bits or a little less per step of 16 products.
      const double summing = magnitude * 0x1.0p-22 * static_cast<double>(shape.in_features) / 16;
      const double rounding = shape.float_output ? 0 : 0x1.0p-8 * std::abs(sum);
      ASSERT_NEAR(y, sum, summing + rounding + 1e-6) << "row " << row << " feature " << n;
    }
  }
}

TEST_P(GemmTest, ARowsBitsDoNotDependOnTheNumberOfRows) {
  ASSERT_OK_AND_ASSIGN(const Gemm gemm, Choose());
  const std::vector<uint64_t> expected = HashesOf(gemm, 0, kMaxRows);
  std::vector<int> counts(256);
  for (int i = 0; i < 256; ++i) counts[i] = i + 1;
  counts.insert(counts.end(), {257, 300, 511, 512, 777, 1024, 1500, 2047, 2048, 2049});
  for (const int count : counts) {
    const std::vector<uint64_t> hashes = HashesOf(gemm, 0, count);
    ASSERT_TRUE(std::equal(hashes.begin(), hashes.end(), expected.begin())) << count << " rows";
  }
}

TEST_P(GemmTest, ARowsBitsDoNotDependOnItsPlace) {
  ASSERT_OK_AND_ASSIGN(const Gemm gemm, Choose());
  const std::vector<uint64_t> expected = HashesOf(gemm, 0, kMaxRows);
  for (const int count : {1, 7, 64, 100, 256}) {
    for (const int first : {1, 13, 500, 2000}) {
      const std::vector<uint64_t> hashes = HashesOf(gemm, first, count);
      ASSERT_TRUE(std::equal(hashes.begin(), hashes.end(), expected.begin() + first))
          << count << " rows from " << first;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, GemmTest,
    ::testing::Values(GemmShape{.out_features = 4608, .in_features = 3584, .has_bias = true},
                      GemmShape{.out_features = 3584, .in_features = 3584},
                      GemmShape{.out_features = 3584, .in_features = 18944},
                      GemmShape{.out_features = 2048, .in_features = 1536, .has_bias = true},
                      GemmShape{.out_features = 17920, .in_features = 1536},
                      GemmShape{.out_features = 32064, .in_features = 1536, .float_output = true},
                      GemmShape{.out_features = 512, .in_features = 128, .has_bias = true},
                      GemmShape{.out_features = 96, .in_features = 40, .float_output = true},
                      GemmShape{.out_features = 144, .in_features = 72}),
    [](const auto& instance) {
      const GemmShape& shape = instance.param;
      return std::to_string(shape.out_features) + "x" + std::to_string(shape.in_features) +
             (shape.float_output ? "_float" : "") + (shape.has_bias ? "_bias" : "");
    });

}  // namespace
}  // namespace assay::engine::cuda
