// The matrix product: right, and the same for a row wherever it stands.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "engine/kernels/cpu/kernel_table.h"
#include "engine/kernels/cpu/packed_matrix.h"
#include "engine/kernels/cpu/thread_pool.h"

namespace assay::engine::cpu {
namespace {

std::vector<float> RandomFloats(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(size);
  for (float& value : values) value = normal(random);
  return values;
}

struct Shape {
  int out_features;
  int in_features;
};

class GemmTest : public ::testing::TestWithParam<Shape> {
 protected:
  static constexpr int kMaxRows = 70;

  const int out_ = GetParam().out_features;
  const int in_ = GetParam().in_features;
  const std::vector<float> weight_ = RandomFloats(size_t{1} * out_ * in_, 1);
  const std::vector<float> x_ = RandomFloats(size_t{kMaxRows} * in_, 2);
  const std::vector<float> bias_ = RandomFloats(out_, 3);
  const PackedMatrix matrix_{weight_, out_, in_};
  ThreadPool one_thread_{1};

  std::vector<float> Multiply(const float* x, int rows, ThreadPool* pool) const {
    std::vector<float> y(size_t{1} * rows * out_, NAN);
    matrix_.Multiply(x, in_, rows, bias_.data(), y.data(), out_, pool);
    return y;
  }
};

TEST_P(GemmTest, ProductsAreThoseOfTheDefinition) {
  const std::vector<float> y = Multiply(x_.data(), kMaxRows, &one_thread_);
  for (int row = 0; row < kMaxRows; ++row) {
    for (int i = 0; i < out_; ++i) {
      double sum = bias_[i], magnitude = std::abs(sum);
      for (int k = 0; k < in_; ++k) {
        const double product = double{x_[row * in_ + k]} * weight_[int64_t{i} * in_ + k];
        sum += product;
        magnitude += std::abs(product);
      }
      // A chain of in_features fused products: each rounds the sum once.
      EXPECT_NEAR(y[row * out_ + i], sum, 6e-8 * magnitude * std::sqrt(in_) + 1e-6);
    }
  }
}

TEST_P(GemmTest, ARowDependsOnNothingButItself) {
  const std::vector<float> all = Multiply(x_.data(), kMaxRows, &one_thread_);
  for (int rows = 1; rows < kMaxRows; rows += rows < 20 ? 1 : 13) {
    const int first = kMaxRows - rows;
    const std::vector<float> some = Multiply(x_.data() + first * in_, rows, &one_thread_);
    ASSERT_TRUE(std::equal(some.begin(), some.end(), all.begin() + first * out_))
        << rows << " rows";
  }
}

TEST_P(GemmTest, ThreadsDoNotShow) {
  ThreadPool pool(3);
  EXPECT_EQ(Multiply(x_.data(), kMaxRows, &pool), Multiply(x_.data(), kMaxRows, &one_thread_));
}

TEST_P(GemmTest, EveryInstructionSetGivesTheSameBits) {
  // The packing that PackedMatrix makes.
  const int num_panels = (out_ + kPanelColumns - 1) / kPanelColumns;
  std::vector<float> panels(size_t{1} * num_panels * in_ * kPanelColumns);
  for (int i = 0; i < out_; ++i) {
    for (int k = 0; k < in_; ++k) {
      panels[(int64_t{i / kPanelColumns} * in_ + k) * kPanelColumns + i % kPanelColumns] =
          weight_[int64_t{i} * in_ + k];
    }
  }
  const std::vector<float> expected = Multiply(x_.data(), kMaxRows, &one_thread_);
  for (auto kernels = AvailableKernels(); *kernels != nullptr; ++kernels) {
    std::vector<float> y(size_t{kMaxRows} * out_, NAN);
    GemmArgs args;
    args.x = x_.data();
    args.x_stride = in_;
    args.panels = panels.data();
    args.bias = bias_.data();
    args.y = y.data();
    args.y_stride = out_;
    args.rows = kMaxRows;
    args.depth = in_;
    args.columns = out_;
    args.last_panel = num_panels;
    (*kernels)->gemm(args);
    EXPECT_EQ(y, expected) << (*kernels)->name;
  }
}

// Whole panels; edges of every kind; more than one block of depth; one of everything.
INSTANTIATE_TEST_SUITE_P(Shapes, GemmTest,
                         ::testing::Values(Shape{128, 128}, Shape{70, 33}, Shape{200, 1300},
                                           Shape{32, 512}, Shape{1, 1}, Shape{17, 40}),
                         [](const auto& instance) {
                           return std::to_string(instance.param.out_features) + "x" +
                                  std::to_string(instance.param.in_features);
                         });

}  // namespace
}  // namespace assay::engine::cpu
