#include "engine/quant/cache_quantizer.h"

#include "engine/quant/uniform.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/engine/quant/memory_checkpoint.h"
#include "tests/unit/engine/quant/numbers.h"

namespace assay::engine {
namespace {

using testing::IsError;
using Granularity = CacheSpec::Granularity;
using Transform = CacheSpec::Transform;
using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::Pointwise;

constexpr char kKeys[] = "model.layers.3.self_attn.k_cache";

TEST(CacheQuantizerTest, TheDefaultLeavesEveryBitAsItIs) {
  const std::vector<float> x = RandomValues(64, 1);
  std::vector<float> values = x;
  ASSERT_OK_AND_ASSIGN(const CacheQuantizer quantizer,
                       CacheQuantizer::Load(MemoryCheckpoint(), 3, {}, 2, 32, true));
  EXPECT_TRUE(quantizer.is_identity());
  EXPECT_FALSE(quantizer.transforms_queries());
  quantizer.Apply(values.data());
  quantizer.TransformQuery(values.data());
  EXPECT_EQ(values, x);
}

TEST(CacheQuantizerTest, EveryHeadOfATokenHasItsOwnGrid) {
  const CacheSpec spec = {.code_type = CodeType::kUniform, .bit_width = 4, .clip_ratio = 0.95f};
  const std::vector<float> x = RandomValues(64, 1);
  ASSERT_OK_AND_ASSIGN(const CacheQuantizer quantizer,
                       CacheQuantizer::Load(MemoryCheckpoint(), 3, spec, 2, 32, true));
  std::vector<float> values = x;
  quantizer.Apply(values.data());
  std::vector<float> expected = x;
  for (const size_t at : {0u, 32u}) {
    RoundToOwnGrid(std::span(expected).subspan(at, 32),
                   {.bit_width = 4, .clip_max = 0.95f, .clip_min = 0.95f});
  }
  EXPECT_EQ(values, expected);
}

TEST(CacheQuantizerTest, GroupsDivideAHead) {
  const CacheSpec spec = {.code_type = CodeType::kUniform, .bit_width = 4, .group_size = 2};
  ASSERT_OK_AND_ASSIGN(const CacheQuantizer quantizer,
                       CacheQuantizer::Load(MemoryCheckpoint(), 3, spec, 1, 4, true));
  std::vector<float> values = {100, 40, 0.01f, 0.0033f};
  quantizer.Apply(values.data());
  EXPECT_THAT(values, Pointwise(FloatNear(1e-4f), std::vector<float>{100, 40, 0.01f, 0.00333f}));
}

TEST(CacheQuantizerTest, StaticTablesSaturateWhatTheyDidNotSee) {
  MemoryCheckpoint checkpoint;
  checkpoint.AddFloats(std::string(kKeys) + ".scale", {1, 4}, {0.5f, 1, 2, 1});
  checkpoint.Add({.name = std::string(kKeys) + ".zero",
                  .dtype = DType::kU8,
                  .shape = {1, 4},
                  .bytes = std::string("\0\x05\x0f\x05", 4)});
  const CacheSpec spec = {.code_type = CodeType::kUniform,
                          .bit_width = 4,
                          .granularity = Granularity::kPerChannelStatic,
                          .position = CacheSpec::Position::kBeforeRope};
  ASSERT_OK_AND_ASSIGN(const CacheQuantizer quantizer,
                       CacheQuantizer::Load(checkpoint, 3, spec, 1, 4, true));
  std::vector<float> values = {0.8f, 1.4f, -31, 99};
  quantizer.Apply(values.data());
  EXPECT_THAT(values, ElementsAre(1, 1, -30, 10));
}

TEST(CacheQuantizerTest, LearnedClippingIsEachLayersOwn) {
  MemoryCheckpoint checkpoint;
  checkpoint.AddFloats(std::string(kKeys) + ".clip", {2}, {0.5f, 0.25f});
  const CacheSpec spec = {.code_type = CodeType::kUniform, .bit_width = 4, .learned_clip = true};
  ASSERT_OK_AND_ASSIGN(const CacheQuantizer quantizer,
                       CacheQuantizer::Load(checkpoint, 3, spec, 1, 32, true));
  std::vector<float> values = RandomValues(32, 4);
  std::vector<float> expected = values;
  RoundToOwnGrid(expected, {.bit_width = 4, .clip_max = 0.5f, .clip_min = 0.25f});
  quantizer.Apply(values.data());
  EXPECT_EQ(values, expected);
  checkpoint.AddFloats(std::string(kKeys) + ".clip", {2}, {0.5f, 0});
  EXPECT_THAT(CacheQuantizer::Load(checkpoint, 3, spec, 1, 32, true),
              IsError(absl::StatusCode::kInvalidArgument, "k_cache.clip"));
}

TEST(CacheQuantizerTest, MxfpRoundsBlocksOfAHead) {
  const CacheSpec spec = {.code_type = CodeType::kMxfp4, .bit_width = 4};
  ASSERT_OK_AND_ASSIGN(const CacheQuantizer quantizer,
                       CacheQuantizer::Load(MemoryCheckpoint(), 3, spec, 2, 64, false));
  std::vector<float> values = RandomValues(128, 4);
  std::vector<float> expected = values;
  RoundToMxfp4(expected);
  quantizer.Apply(values.data());
  EXPECT_EQ(values, expected);
}

// (q P^-T)(k P) = q k, for a rotation and for a learned matrix.
TEST(CacheQuantizerTest, TransformsOfQueriesAndKeysKeepTheirProduct) {
  constexpr size_t kDim = 64;
  std::vector<float> matrix = RandomValues(kDim * kDim, 1);
  for (size_t i = 0; i < kDim; ++i) matrix[i * kDim + i] += 20;  // far from singular
  const Matrix p = ToMatrix(matrix, kDim, kDim);
  MemoryCheckpoint checkpoint;
  checkpoint.AddFloats(std::string(kKeys) + ".matrix", {kDim, kDim}, matrix);
  checkpoint.AddFloats(std::string(kKeys) + ".query_matrix", {kDim, kDim},
                       ToFloats(Transpose(Inverse(p))));
  for (const Transform transform : {Transform::kHadamard, Transform::kMatrix}) {
    const CacheSpec spec = {.transform = transform};
    ASSERT_OK_AND_ASSIGN(const CacheQuantizer quantizer,
                         CacheQuantizer::Load(checkpoint, 3, spec, 2, kDim, true));
    EXPECT_TRUE(quantizer.transforms_queries());
    std::vector<float> query = RandomValues(kDim, 2);
    std::vector<float> keys = RandomValues(2 * kDim, 3);
    const std::vector<double> before = Project(query, keys);
    const std::vector<float> original = keys;
    quantizer.Apply(keys.data());
    quantizer.TransformQuery(query.data());
    EXPECT_NE(keys, original);
    const std::vector<double> after = Project(query, keys);
    EXPECT_NEAR(after[0], before[0], 1e-3);
    EXPECT_NEAR(after[1], before[1], 1e-3);
  }
}

TEST(CacheQuantizerTest, OnlyKeysTouchQueries) {
  const CacheSpec spec = {.position = CacheSpec::Position::kAfterProjection,
                          .transform = Transform::kHadamard};
  ASSERT_OK_AND_ASSIGN(const CacheQuantizer quantizer,
                       CacheQuantizer::Load(MemoryCheckpoint(), 3, spec, 1, 32, false));
  EXPECT_FALSE(quantizer.transforms_queries());
}

TEST(CacheQuantizerTest, HostileTablesAreRefusedByName) {
  const CacheSpec spec = {.code_type = CodeType::kUniform,
                          .bit_width = 3,
                          .granularity = Granularity::kPerChannelStatic,
                          .position = CacheSpec::Position::kBeforeBias};
  MemoryCheckpoint checkpoint;
  const auto expect_refused = [&](absl::StatusCode code, const std::string& message) {
    EXPECT_THAT(CacheQuantizer::Load(checkpoint, 3, spec, 1, 2, true), IsError(code, message));
  };
  expect_refused(absl::StatusCode::kNotFound, "model.layers.3.self_attn.k_cache.scale");
  checkpoint.AddFloats(std::string(kKeys) + ".scale", {2, 1}, {1, 1});
  expect_refused(absl::StatusCode::kInvalidArgument, "k_cache.scale: F32 [2, 1]");
  checkpoint.AddFloats(std::string(kKeys) + ".scale", {1, 2}, {1, -1});
  expect_refused(absl::StatusCode::kInvalidArgument, "k_cache.scale: a scale is not positive");
  checkpoint.AddFloats(std::string(kKeys) + ".scale", {1, 2}, {1, 1});
  expect_refused(absl::StatusCode::kNotFound, "k_cache.zero");
  checkpoint.Add({.name = std::string(kKeys) + ".zero",
                  .dtype = DType::kU8,
                  .shape = {1, 2},
                  .bytes = "\x07\x08"});
  expect_refused(absl::StatusCode::kInvalidArgument, "k_cache.zero: zero point 1 is 8");
}

TEST(CacheQuantizerTest, SizesThatDoNotFitAHeadAreRefused) {
  const auto load = [](const CacheSpec& spec, int head_dim) {
    return CacheQuantizer::Load(MemoryCheckpoint(), 0, spec, 1, head_dim, true).status();
  };
  EXPECT_THAT(load({.code_type = CodeType::kMxfp4, .bit_width = 4}, 48),
              IsError(absl::StatusCode::kInvalidArgument, "block of 32"));
  EXPECT_THAT(load({.code_type = CodeType::kUniform, .bit_width = 4, .group_size = 5}, 48),
              IsError(absl::StatusCode::kInvalidArgument, "group_size 5"));
  EXPECT_THAT(load({.transform = Transform::kHadamard}, 44),
              IsError(absl::StatusCode::kInvalidArgument, "order head_dim 44"));
}

}  // namespace
}  // namespace assay::engine
