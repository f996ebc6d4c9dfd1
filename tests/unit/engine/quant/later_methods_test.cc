// The methods that come later must need no new mechanism. Each is made by hand here on small random
// linears, from the papers' formulas, and run through the description; the result must be
// what the formulas give when they are computed straight, in double.
#include <cmath>
#include <numeric>

#include "engine/quant/cache_quantizer.h"
#include "engine/quant/input_path.h"
#include "engine/quant/packed_linear.h"
#include "engine/quant/rtn.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/engine/quant/memory_checkpoint.h"
#include "tests/unit/engine/quant/numbers.h"

namespace assay::engine {
namespace {

using Kind = TransformSpec::Kind;
using ::testing::DoubleNear;
using ::testing::Pointwise;

constexpr int kOut = 24;

// W_hat applied to the input as the engine does it: transform, rounding, product.
std::vector<double> OutputOf(const Checkpoint& checkpoint, const LinearSpec& spec,
                             const std::vector<float>& x) {
  const auto in = static_cast<int>(x.size());
  const auto weight = DecodeLinearWeight(checkpoint, "L", spec, kOut, in);
  const auto transform = InputTransform::Load(checkpoint, "L", spec, in);
  EXPECT_OK(weight);
  EXPECT_OK(transform);
  std::vector<float> row = x;
  transform->Apply(row.data());
  QuantizeInput(row.data(), in, spec);
  return Project(row, *weight);
}

void AddWeight(const LinearSpec& spec, const LinearCodes& codes, int64_t in,
               MemoryCheckpoint* checkpoint) {
  std::vector<TensorToWrite> tensors;
  AppendLinearTensors("L", spec, codes, kOut, in, &tensors);
  for (TensorToWrite& tensor : tensors) checkpoint->Add(std::move(tensor));
}

// The grid of uniform.h in double, over `values` from `at` on.
void RoundStraight(std::vector<double>* values, size_t at, size_t size, int bits, bool symmetric,
                   double clip_max, double clip_min) {
  double max = 0;
  double min = 0;
  for (size_t i = at; i < at + size; ++i) {
    max = std::max(max, (*values)[i]);
    min = std::min(min, (*values)[i]);
  }
  max *= clip_max;
  min *= clip_min;
  const double top = symmetric ? (1 << (bits - 1)) - 1 : (1 << bits) - 1;
  const double bottom = symmetric ? -top - 1 : 0;
  const double scale = symmetric ? std::max(max, -min) / top : (max - min) / top;
  const double zero = symmetric ? 0 : std::nearbyint(-min / scale);
  for (size_t i = at; i < at + size; ++i) {
    const double code = std::clamp(std::nearbyint((*values)[i] / scale) + zero, bottom, top);
    (*values)[i] = scale * (code - zero);
  }
}

std::vector<double> ToDoubles(const std::vector<float>& values) {
  return {values.begin(), values.end()};
}

std::vector<double> ProjectDoubles(const std::vector<double>& x,
                                   const std::vector<double>& weight) {
  std::vector<double> y(weight.size() / x.size());
  for (size_t i = 0; i < weight.size(); ++i) y[i / x.size()] += weight[i] * x[i % x.size()];
  return y;
}

// AWQ: zero is not forced into the range, so z saturates when all weights share a sign.
TEST(LaterMethodsTest, AwqsSaturatedZeroPointsAreOnlyData) {
  const LinearSpec spec = {
      .code_type = CodeType::kUniform, .bit_width = 4, .symmetric = false, .group_size = 4};
  const std::vector<float> weight = {5, 6, 7, 8};
  const float scale = 3.0f / 15;
  LinearCodes codes = {.scales = std::vector<float>(kOut, scale),
                       .zeros = std::vector<uint8_t>(kOut, 0)};
  std::vector<float> expected;
  for (int row = 0; row < kOut; ++row) {
    for (const float w : weight) {
      const float code = std::clamp(std::nearbyint(w / scale), 0.0f, 15.0f);
      codes.codes.push_back(static_cast<uint8_t>(code));
      expected.push_back(code * scale);
    }
  }
  MemoryCheckpoint checkpoint;
  AddWeight(spec, codes, 4, &checkpoint);
  ASSERT_OK_AND_ASSIGN(const auto decoded, DecodeLinearWeight(checkpoint, "L", spec, kOut, 4));
  EXPECT_EQ(decoded, expected);
  EXPECT_EQ(decoded[0], 3);
}

// GPTQ with act-order and without static groups: groups run along the permuted columns.
TEST(LaterMethodsTest, GptqsActOrderIsAPermutation) {
  constexpr int kIn = 64;
  const std::vector<float> weight = RandomValues(kOut * kIn, 1);
  LinearSpec spec = {.code_type = CodeType::kUniform,
                     .bit_width = 4,
                     .symmetric = false,
                     .group_size = 16,
                     .with_permutation = true};
  std::vector<int32_t> permutation(kIn);
  for (int j = 0; j < kIn; ++j) permutation[static_cast<size_t>(j)] = (j * 37 + 5) % kIn;
  std::vector<float> permuted;
  for (size_t row = 0; row < kOut; ++row) {
    for (const int32_t column : permutation) {
      permuted.push_back(weight[row * kIn + static_cast<size_t>(column)]);
    }
  }
  LinearCodes codes = RoundWeight(permuted, spec, kOut, kIn);
  codes.permutation = permutation;
  MemoryCheckpoint checkpoint;
  AddWeight(spec, codes, kIn, &checkpoint);

  std::vector<double> straight = ToDoubles(permuted);
  for (size_t at = 0; at < straight.size(); at += 16) {
    RoundStraight(&straight, at, 16, 4, false, 1, 1);
  }
  const std::vector<float> x = RandomValues(kIn, 2);
  std::vector<double> permuted_x;
  for (const int32_t column : permutation) permuted_x.push_back(x[static_cast<size_t>(column)]);
  EXPECT_THAT(OutputOf(checkpoint, spec, x),
              Pointwise(DoubleNear(1e-3), ProjectDoubles(permuted_x, straight)));
}

// SmoothQuant 8-8-8, down_proj on four shards: symmetric weights per row and shard, asymmetric
// inputs per token and shard, no clipping.
TEST(LaterMethodsTest, SmoothQuantsShardsHaveTheirOwnScalesOnBothSides) {
  constexpr int kIn = 128;
  const LinearSpec spec = {.code_type = CodeType::kUniform,
                           .bit_width = 8,
                           .num_shards = 4,
                           .input_quantizer = {.code_type = CodeType::kUniform, .bit_width = 8}};
  const std::vector<float> weight = RandomValues(kOut * kIn, 1);
  MemoryCheckpoint checkpoint;
  AddWeight(spec, RoundWeight(weight, spec, kOut, kIn), kIn, &checkpoint);
  const std::vector<float> x = RandomValues(kIn, 2);
  std::vector<double> straight = ToDoubles(weight);
  for (size_t at = 0; at < straight.size(); at += 32) {
    RoundStraight(&straight, at, 32, 8, true, 1, 1);
  }
  std::vector<double> straight_x = ToDoubles(x);
  for (size_t at = 0; at < kIn; at += 32) RoundStraight(&straight_x, at, 32, 8, false, 1, 1);
  EXPECT_THAT(OutputOf(checkpoint, spec, x),
              Pointwise(DoubleNear(1e-3), ProjectDoubles(straight_x, straight)));
}

// H_n / sqrt(n) of order 4 * 2^m or smaller by Sylvester's construction, in double.
Matrix Sylvester(size_t n) {
  Matrix h = {{1}};
  while (h.size() < n) h = Kronecker({{1, 1}, {1, -1}}, h);
  for (auto& row : h) {
    for (double& entry : row) entry /= std::sqrt(static_cast<double>(n));
  }
  return h;
}

// QuaRot W-A, down_proj on two shards: weights are folded with the Hadamard of a shard's
// order, inputs are transformed online per shard, both are rounded per shard, inputs with clip
// ratio 0.9.
TEST(LaterMethodsTest, QuarotsRotatedDownProjection) {
  constexpr size_t kIn = 128;
  constexpr size_t kSlice = 64;
  LinearSpec spec = {
      .code_type = CodeType::kUniform,
      .bit_width = 4,
      .num_shards = 2,
      .input_transform = {.kind = Kind::kHadamard},
      .input_quantizer = {.code_type = CodeType::kUniform, .bit_width = 4, .clip_ratio = 0.9f}};
  const std::vector<float> weight = RandomValues(kOut * kIn, 1);
  std::vector<float> folded = weight;
  for (size_t at = 0; at < folded.size(); at += kSlice) {
    HadamardTransform(std::span(folded).subspan(at, kSlice));
  }
  const std::vector<float> x = RandomValues(kIn, 2);

  // Without rounding nothing changes.
  LinearSpec unrounded = spec;
  unrounded.code_type = CodeType::kNone;
  unrounded.input_quantizer = {};
  MemoryCheckpoint plain;
  plain.AddFloats("L.weight", {kOut, kIn}, folded);
  EXPECT_THAT(OutputOf(plain, unrounded, x), Pointwise(DoubleNear(1e-3), Project(x, weight)));

  MemoryCheckpoint checkpoint;
  AddWeight(spec, RoundWeight(folded, spec, kOut, kIn), kIn, &checkpoint);
  const Matrix h = Sylvester(kSlice);
  std::vector<double> straight_x;
  std::vector<double> straight_weight(weight.size());
  for (size_t shard = 0; shard < 2; ++shard) {
    Matrix slice(1, std::vector<double>(kSlice));
    for (size_t i = 0; i < kSlice; ++i) slice[0][i] = x[shard * kSlice + i];
    slice = Multiply(slice, h);
    straight_x.insert(straight_x.end(), slice[0].begin(), slice[0].end());
    RoundStraight(&straight_x, shard * kSlice, kSlice, 4, false, 0.9f, 0.9f);
    for (size_t row = 0; row < kOut; ++row) {
      const size_t at = row * kIn + shard * kSlice;
      for (size_t i = 0; i < kSlice; ++i) slice[0][i] = weight[at + i];
      const Matrix rotated = Multiply(slice, h);
      std::copy(rotated[0].begin(), rotated[0].end(),
                straight_weight.begin() + static_cast<ptrdiff_t>(at));
      RoundStraight(&straight_weight, at, kSlice, 4, true, 1, 1);
    }
  }
  EXPECT_THAT(OutputOf(checkpoint, spec, x),
              Pointwise(DoubleNear(1e-3), ProjectDoubles(straight_x, straight_weight)));
}

// QuaRot's values and outputs at T > 1: v_proj's rows and o_proj's columns carry the same Hadamard
// per head, so that they cancel without an online step.
TEST(LaterMethodsTest, QuarotsValueRotationCancelsInTheOutputProjection) {
  constexpr size_t kHeadDim = 32;
  const std::vector<float> value = RandomValues(kHeadDim, 1);
  std::vector<float> weight = RandomValues(kOut * kHeadDim, 2);
  const std::vector<double> expected = Project(value, weight);
  for (size_t row = 0; row < kOut; ++row) {
    HadamardTransform(std::span(weight).subspan(row * kHeadDim, kHeadDim));
  }
  std::vector<float> rotated = value;
  HadamardTransform(rotated);
  EXPECT_THAT(Project(rotated, weight), Pointwise(DoubleNear(1e-4), expected));
}

Matrix WellConditioned(size_t n, uint32_t seed) {
  Matrix matrix = ToMatrix(RandomValues(n * n, seed), n, n);
  for (size_t i = 0; i < n; ++i) matrix[i][i] += 12;
  return matrix;
}

// FlatQuant, q_proj: x' = (x * diag) P with P = P_L (x) P_R; W' = (W / diag) P^-T; learned
// clipping of the input; symmetric weights per row.
TEST(LaterMethodsTest, FlatQuantsKroneckerTransformWithLearnedClipping) {
  constexpr size_t kLeft = 6;
  constexpr size_t kRight = 8;
  constexpr size_t kIn = kLeft * kRight;
  const Matrix left = WellConditioned(kLeft, 1);
  const Matrix right = WellConditioned(kRight, 2);
  const Matrix whole = Kronecker(left, right);
  std::vector<float> diagonal(kIn);
  for (size_t i = 0; i < kIn; ++i) diagonal[i] = 0.5f + 0.03f * static_cast<float>(i);
  const std::vector<float> weight = RandomValues(kOut * kIn, 3);
  Matrix divided = ToMatrix(weight, kOut, kIn);
  for (auto& row : divided) {
    for (size_t i = 0; i < kIn; ++i) row[i] /= diagonal[i];
  }
  const Matrix folded = Multiply(divided, Transpose(Inverse(whole)));

  MemoryCheckpoint checkpoint;
  checkpoint.AddFloats("L.transform.left", {kLeft, kLeft}, ToFloats(left));
  checkpoint.AddFloats("L.transform.right", {kRight, kRight}, ToFloats(right));
  checkpoint.AddFloats("L.transform.diagonal", {kIn}, diagonal);
  checkpoint.AddFloats("L.weight", {kOut, kIn}, ToFloats(folded));
  LinearSpec spec = {
      .input_transform = {
          .kind = Kind::kKronecker, .with_diagonal = true, .left = kLeft, .right = kRight}};
  const std::vector<float> x = RandomValues(kIn, 4);
  EXPECT_THAT(OutputOf(checkpoint, spec, x), Pointwise(DoubleNear(2e-3), Project(x, weight)));

  spec.code_type = CodeType::kUniform;
  spec.bit_width = 4;
  spec.input_quantizer = {
      .code_type = CodeType::kUniform, .bit_width = 4, .clip_max = {0.982f}, .clip_min = {0.7f}};
  AddWeight(spec, RoundWeight(ToFloats(folded), spec, kOut, kIn), kIn, &checkpoint);
  Matrix scaled(1, std::vector<double>(kIn));
  for (size_t i = 0; i < kIn; ++i) scaled[0][i] = double{x[i]} * diagonal[i];
  std::vector<double> straight_x = Multiply(scaled, whole)[0];
  RoundStraight(&straight_x, 0, kIn, 4, false, 0.982f, 0.7f);
  std::vector<double> straight_weight;
  for (const auto& row : folded) {
    straight_weight.insert(straight_weight.end(), row.begin(), row.end());
  }
  for (size_t at = 0; at < straight_weight.size(); at += kIn) {
    RoundStraight(&straight_weight, at, kIn, 4, true, 1, 1);
  }
  EXPECT_THAT(OutputOf(checkpoint, spec, x),
              Pointwise(DoubleNear(2e-2), ProjectDoubles(straight_x, straight_weight)));
}

// FlatQuant's o_proj: heads of each rank are mixed online by O^T; the weight holds the inverse of
// O (x) V, where V is folded into v_proj. Without rounding the output is that of the plain layer.
TEST(LaterMethodsTest, FlatQuantsHeadMixIsUndoneByTheFoldedOutputWeight) {
  constexpr size_t kRanks = 2;
  constexpr size_t kHeads = 3;
  constexpr size_t kHeadDim = 8;
  constexpr size_t kSlice = kHeads * kHeadDim;
  constexpr size_t kIn = kRanks * kSlice;
  const Matrix value_transform = WellConditioned(kHeadDim, 1);
  const std::vector<float> weight = RandomValues(kOut * kIn, 2);
  const std::vector<float> x = RandomValues(kIn, 3);
  std::vector<float> mixes;
  std::vector<float> folded(weight.size());
  std::vector<float> transformed_x;
  for (size_t rank = 0; rank < kRanks; ++rank) {
    const Matrix mix = WellConditioned(kHeads, static_cast<uint32_t>(10 + rank));
    const std::vector<float> floats = ToFloats(mix);
    mixes.insert(mixes.end(), floats.begin(), floats.end());
    const Matrix unfold = Transpose(Inverse(Kronecker(mix, value_transform)));
    Matrix slice(kOut, std::vector<double>(kSlice));
    for (size_t i = 0; i < kOut * kSlice; ++i) {
      slice[i / kSlice][i % kSlice] = weight[i / kSlice * kIn + rank * kSlice + i % kSlice];
    }
    slice = Multiply(slice, unfold);
    for (size_t i = 0; i < kOut * kSlice; ++i) {
      folded[i / kSlice * kIn + rank * kSlice + i % kSlice] =
          static_cast<float>(slice[i / kSlice][i % kSlice]);
    }
    // What attention yields when v_proj carries V.
    const std::vector<float> heads(x.begin() + static_cast<ptrdiff_t>(rank * kSlice),
                                   x.begin() + static_cast<ptrdiff_t>((rank + 1) * kSlice));
    const std::vector<float> values =
        ToFloats(Multiply(ToMatrix(heads, kHeads, kHeadDim), value_transform));
    transformed_x.insert(transformed_x.end(), values.begin(), values.end());
  }
  MemoryCheckpoint checkpoint;
  checkpoint.AddFloats("L.transform.left", {kRanks, kHeads, kHeads}, mixes);
  checkpoint.AddFloats("L.weight", {kOut, kIn}, folded);
  const LinearSpec spec = {
      .num_shards = kRanks,
      .input_transform = {.kind = Kind::kHeadMix, .left = kHeads, .right = kHeadDim}};
  EXPECT_THAT(OutputOf(checkpoint, spec, transformed_x),
              Pointwise(DoubleNear(2e-3), Project(x, weight)));
}

// E2M1 and E8M0 straight from their definition: the nearest of all values, ties to the even code.
void RoundMxfp4Straight(std::vector<double>* values) {
  const double kGrid[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  for (size_t at = 0; at < values->size(); at += 32) {
    double largest = 0;
    for (size_t i = at; i < at + 32; ++i) largest = std::max(largest, std::fabs((*values)[i]));
    const double scale = std::exp2(std::floor(std::log2(largest)) - 2);
    for (size_t i = at; i < at + 32; ++i) {
      const double magnitude = std::min(std::fabs((*values)[i]) / scale, 6.0);
      size_t best = 0;
      for (size_t code = 1; code < 8; ++code) {
        const double now = std::fabs(kGrid[best] - magnitude);
        const double then = std::fabs(kGrid[code] - magnitude);
        if (then < now || (then == now && code % 2 == 0)) best = code;
      }
      (*values)[i] = std::copysign(kGrid[best] * scale, (*values)[i]);
    }
  }
}

TEST(LaterMethodsTest, Mxfp4OnWeightsInputsAndCache) {
  constexpr int kIn = 96;
  const LinearSpec spec = {.code_type = CodeType::kMxfp4,
                           .bit_width = 4,
                           .input_quantizer = {.code_type = CodeType::kMxfp4, .bit_width = 4}};
  const std::vector<float> weight = RandomValues(kOut * kIn, 1);
  MemoryCheckpoint checkpoint;
  AddWeight(spec, RoundWeight(weight, spec, kOut, kIn), kIn, &checkpoint);
  const std::vector<float> x = RandomValues(kIn, 2);
  std::vector<double> straight_weight = ToDoubles(weight);
  std::vector<double> straight_x = ToDoubles(x);
  RoundMxfp4Straight(&straight_weight);
  RoundMxfp4Straight(&straight_x);
  EXPECT_THAT(OutputOf(checkpoint, spec, x),
              Pointwise(DoubleNear(1e-3), ProjectDoubles(straight_x, straight_weight)));

  const CacheSpec cache = {.code_type = CodeType::kMxfp4, .bit_width = 4};
  ASSERT_OK_AND_ASSIGN(const CacheQuantizer quantizer,
                       CacheQuantizer::Load(checkpoint, 0, cache, 1, kIn, true));
  std::vector<float> keys = x;
  quantizer.Apply(keys.data());
  EXPECT_EQ(ToDoubles(keys), straight_x);
}

}  // namespace
}  // namespace assay::engine
