#include "engine/quant/input_path.h"

#include <cmath>

#include "engine/quant/uniform.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/engine/quant/memory_checkpoint.h"
#include "tests/unit/engine/quant/numbers.h"

namespace assay::engine {
namespace {

using testing::IsError;
using Kind = TransformSpec::Kind;
using ::testing::FloatNear;
using ::testing::Pointwise;

std::vector<float> Slice(const std::vector<float>& values, size_t at, size_t size) {
  return {values.begin() + static_cast<ptrdiff_t>(at),
          values.begin() + static_cast<ptrdiff_t>(at + size)};
}

TEST(InputTransformTest, TheDefaultLeavesEveryBitAsItIs) {
  const std::vector<float> x = RandomValues(48, 1);
  std::vector<float> row = x;
  ASSERT_OK_AND_ASSIGN(const InputTransform transform,
                       InputTransform::Load(MemoryCheckpoint(), "L", {}, 48));
  EXPECT_TRUE(transform.is_identity());
  transform.Apply(row.data());
  QuantizeInput(row.data(), 48, {});
  EXPECT_EQ(row, x);
}

TEST(InputTransformTest, HadamardWorksOnEachShardByItself) {
  const std::vector<float> x = RandomValues(96, 1);
  const LinearSpec spec = {.num_shards = 4, .input_transform = {.kind = Kind::kHadamard}};
  ASSERT_OK_AND_ASSIGN(const InputTransform transform,
                       InputTransform::Load(MemoryCheckpoint(), "L", spec, 96));
  std::vector<float> row = x;
  transform.Apply(row.data());
  for (size_t shard = 0; shard < 4; ++shard) {
    std::vector<float> slice = Slice(x, shard * 24, 24);
    HadamardTransform(slice);
    EXPECT_EQ(Slice(row, shard * 24, 24), slice);
  }
}

// x (P_L (x) P_R) with the Kronecker product written out.
TEST(InputTransformTest, KroneckerIsTheProductWithTheWholeMatrix) {
  for (const size_t shards : {1u, 2u}) {
    const std::vector<float> x = RandomValues(24 * shards, 1);
    const std::vector<float> left = RandomValues(16 * shards, 2);
    const std::vector<float> right = RandomValues(36 * shards, 3);
    const std::vector<float> diagonal = RandomValues(24 * shards, 4);
    MemoryCheckpoint checkpoint;
    const auto count = static_cast<int64_t>(shards);
    const auto shape = [&](int64_t n) {
      return shards == 1 ? std::vector<int64_t>{n, n} : std::vector<int64_t>{count, n, n};
    };
    checkpoint.AddFloats("L.transform.left", shape(4), left);
    checkpoint.AddFloats("L.transform.right", shape(6), right);
    checkpoint.AddFloats("L.transform.diagonal", {24 * count}, diagonal);
    const LinearSpec spec = {
        .num_shards = static_cast<int>(shards),
        .input_transform = {
            .kind = Kind::kKronecker, .with_diagonal = true, .left = 4, .right = 6}};
    ASSERT_OK_AND_ASSIGN(
        const InputTransform transform,
        InputTransform::Load(checkpoint, "L", spec, static_cast<int>(24 * shards)));
    std::vector<float> row = x;
    transform.Apply(row.data());
    for (size_t shard = 0; shard < shards; ++shard) {
      Matrix scaled(1, std::vector<double>(24));
      for (size_t i = 0; i < 24; ++i) {
        scaled[0][i] = double{x[shard * 24 + i]} * diagonal[shard * 24 + i];
      }
      const Matrix whole = Kronecker(ToMatrix(Slice(left, shard * 16, 16), 4, 4),
                                     ToMatrix(Slice(right, shard * 36, 36), 6, 6));
      EXPECT_THAT(Slice(row, shard * 24, 24),
                  Pointwise(FloatNear(2e-3f), ToFloats(Multiply(scaled, whole))));
    }
  }
}

TEST(InputTransformTest, AMatrixMultipliesRowVectors) {
  const std::vector<float> x = RandomValues(10, 1);
  const std::vector<float> matrix = RandomValues(100, 2);
  MemoryCheckpoint checkpoint;
  checkpoint.AddFloats("L.transform.matrix", {10, 10}, matrix);
  const LinearSpec spec = {.input_transform = {.kind = Kind::kMatrix}};
  ASSERT_OK_AND_ASSIGN(const InputTransform transform,
                       InputTransform::Load(checkpoint, "L", spec, 10));
  std::vector<float> row = x;
  transform.Apply(row.data());
  EXPECT_THAT(row, Pointwise(FloatNear(1e-4f),
                             ToFloats(Multiply(ToMatrix(x, 1, 10), ToMatrix(matrix, 10, 10)))));
}

// Heads of a shard become O^T X.
TEST(InputTransformTest, AHeadMixIsTheTransposeFromTheLeft) {
  const std::vector<float> x = RandomValues(2 * 3 * 8, 1);
  const std::vector<float> mix = RandomValues(2 * 9, 2);
  MemoryCheckpoint checkpoint;
  checkpoint.AddFloats("L.transform.left", {2, 3, 3}, mix);
  const LinearSpec spec = {.num_shards = 2,
                           .input_transform = {.kind = Kind::kHeadMix, .left = 3, .right = 8}};
  ASSERT_OK_AND_ASSIGN(const InputTransform transform,
                       InputTransform::Load(checkpoint, "L", spec, 48));
  std::vector<float> row = x;
  transform.Apply(row.data());
  for (size_t shard = 0; shard < 2; ++shard) {
    const Matrix expected = Multiply(Transpose(ToMatrix(Slice(mix, shard * 9, 9), 3, 3)),
                                     ToMatrix(Slice(x, shard * 24, 24), 3, 8));
    EXPECT_THAT(Slice(row, shard * 24, 24), Pointwise(FloatNear(1e-4f), ToFloats(expected)));
  }
}

TEST(InputTransformTest, TensorsMayBeAnotherLinears) {
  MemoryCheckpoint checkpoint;
  checkpoint.AddFloats("q.transform.diagonal", {2}, {2, 3});
  const LinearSpec spec = {.input_transform = {.with_diagonal = true, .owner = "q"}};
  ASSERT_OK_AND_ASSIGN(const InputTransform transform,
                       InputTransform::Load(checkpoint, "k", spec, 2));
  std::vector<float> row = {1, 1};
  transform.Apply(row.data());
  EXPECT_THAT(row, ::testing::ElementsAre(2, 3));
}

TEST(InputTransformTest, MissingAndMisshapenTensorsAreNamed) {
  MemoryCheckpoint checkpoint;
  LinearSpec spec = {.input_transform = {.kind = Kind::kKronecker, .left = 4, .right = 6}};
  EXPECT_THAT(InputTransform::Load(checkpoint, "L", spec, 24),
              IsError(absl::StatusCode::kNotFound, "L.transform.left"));
  checkpoint.AddFloats("L.transform.left", {4, 4}, std::vector<float>(16));
  checkpoint.AddFloats("L.transform.right", {6, 5}, std::vector<float>(30));
  EXPECT_THAT(InputTransform::Load(checkpoint, "L", spec, 24),
              IsError(absl::StatusCode::kInvalidArgument, "L.transform.right"));
  checkpoint.AddFloats("L.transform.right", {6, 6}, std::vector<float>(36, std::nanf("")));
  EXPECT_THAT(InputTransform::Load(checkpoint, "L", spec, 24),
              IsError(absl::StatusCode::kInvalidArgument, "L.transform.right: value 0"));
  EXPECT_THAT(InputTransform::Load(checkpoint, "L", spec, 25),
              IsError(absl::StatusCode::kInvalidArgument, "4 x 6 does not fit 25"));
  spec.input_transform = {.kind = Kind::kHadamard};
  EXPECT_THAT(InputTransform::Load(checkpoint, "L", spec, 22),
              IsError(absl::StatusCode::kInvalidArgument, "L: no Hadamard matrix of order 22"));
  spec.num_shards = 3;
  EXPECT_THAT(InputTransform::Load(checkpoint, "L", spec, 22),
              IsError(absl::StatusCode::kInvalidArgument, "3 shards"));
}

TEST(QuantizeInputTest, EveryShardHasItsOwnScaleAndClipFactors) {
  LinearSpec spec = {.num_shards = 2,
                     .input_quantizer = {.code_type = CodeType::kUniform,
                                         .bit_width = 4,
                                         .clip_max = {0.5f, 1},
                                         .clip_min = {1, 0.25f}}};
  const std::vector<float> x = {-1, 0.4f, 3, 1, -100, 50, 30, 7};
  std::vector<float> row = x;
  QuantizeInput(row.data(), 8, spec);
  std::vector<float> low = Slice(x, 0, 4);
  std::vector<float> high = Slice(x, 4, 4);
  RoundToOwnGrid(low, {.bit_width = 4, .clip_max = 0.5f, .clip_min = 1});
  RoundToOwnGrid(high, {.bit_width = 4, .clip_max = 1, .clip_min = 0.25f});
  EXPECT_EQ(Slice(row, 0, 4), low);
  EXPECT_EQ(Slice(row, 4, 4), high);

  spec.input_quantizer = {
      .code_type = CodeType::kUniform, .bit_width = 8, .symmetric = true, .clip_ratio = 0.9f};
  row = x;
  QuantizeInput(row.data(), 8, spec);
  EXPECT_NEAR(row[0], -1, 0.02);                // as one slice the step would be 0.7
  EXPECT_FLOAT_EQ(row[4], -90 * 128.0f / 127);  // clipped, down to the extra code
}

TEST(QuantizeInputTest, MxfpRoundsInBlocks) {
  const std::vector<float> x = RandomValues(128, 1);
  for (const Ties ties : {Ties::kToEven, Ties::kAwayFromZero}) {
    const LinearSpec spec = {
        .num_shards = 2,
        .input_quantizer = {.code_type = CodeType::kMxfp4, .bit_width = 4, .ties = ties}};
    std::vector<float> row = x;
    QuantizeInput(row.data(), 128, spec);
    std::vector<float> expected = x;
    RoundToMxfp4(expected, ties);
    EXPECT_EQ(row, expected);
  }
}

TEST(SharesInputPathTest, OnlyTheSameTensorsAndTheSameRoundingAreShared) {
  LinearSpec q;
  LinearSpec k;
  EXPECT_TRUE(SharesInputPath("q", q, "k", k));
  q.bit_width = 3;  // the weight's own affair
  EXPECT_TRUE(SharesInputPath("q", q, "k", k));
  q.input_transform.kind = k.input_transform.kind = Kind::kHadamard;
  EXPECT_TRUE(SharesInputPath("q", q, "k", k));
  q.input_transform.kind = k.input_transform.kind = Kind::kMatrix;
  EXPECT_FALSE(SharesInputPath("q", q, "k", k));
  k.input_transform.owner = "q";
  EXPECT_TRUE(SharesInputPath("q", q, "k", k));
  k.input_quantizer = {.code_type = CodeType::kUniform, .bit_width = 8};
  EXPECT_FALSE(SharesInputPath("q", q, "k", k));
}

}  // namespace
}  // namespace assay::engine
