#include "engine/quant/description.h"

#include "base/file.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::engine {
namespace {

using testing::IsError;
using testing::TemporaryDirectory;

constexpr char kQ[] = "model.layers.0.self_attn.q_proj";
constexpr char kDown[] = "model.layers.1.mlp.down_proj";

ModelConfig SmallConfig() {
  ModelConfig config;
  config.hidden_size = 64;
  config.intermediate_size = 96;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 32;
  config.vocab_size = 100;
  return config;
}

// Something other than the default everywhere.
QuantDescription FullDescription() {
  QuantDescription description;
  description.method = "made up";
  description.bits = "4-4-4";
  description.parameters = {{"a", "1"}, {"b", "ü"}};
  description.provenance = {{"git_commit", "123"}};
  description.virtual_shards = 2;
  description.k_cache = {.code_type = CodeType::kUniform,
                         .bit_width = 3,
                         .symmetric = true,
                         .group_size = 16,
                         .clip_ratio = 0.95f,
                         .learned_clip = true,
                         .transform = CacheSpec::Transform::kMatrix};
  description.v_cache = {.code_type = CodeType::kMxfp4,
                         .bit_width = 4,
                         .position = CacheSpec::Position::kAfterProjection,
                         .ties = Ties::kAwayFromZero};
  description.linears[kQ] = {
      .code_type = CodeType::kUniform,
      .bit_width = 4,
      .symmetric = false,
      .group_size = 32,
      .with_permutation = true,
      .input_transform = {.kind = TransformSpec::Kind::kKronecker,
                          .with_diagonal = true,
                          .left = 8,
                          .right = 8,
                          .owner = kQ},
      .input_quantizer = {.code_type = CodeType::kUniform, .bit_width = 4, .clip_ratio = 0.9f}};
  description.linears[kDown] = {
      .code_type = CodeType::kUniform,
      .bit_width = 4,
      .num_shards = 2,
      .input_transform = {.kind = TransformSpec::Kind::kHeadMix, .left = 3, .right = 16},
      .input_quantizer = {.code_type = CodeType::kUniform,
                          .bit_width = 4,
                          .clip_max = {0.5f, 0.982f},
                          .clip_min = {0.7f, 0.1f}}};
  return description;
}

TEST(DescriptionTest, ComesBackFromItsJson) {
  for (const QuantDescription& description : {QuantDescription(), FullDescription()}) {
    ASSERT_OK_AND_ASSIGN(const QuantDescription read, DescriptionFromJson(ToJson(description)));
    EXPECT_EQ(read, description);
    EXPECT_EQ(ToJson(read), ToJson(description));
  }
}

TEST(DescriptionTest, FloatsAreWrittenAsPeopleWriteThem) {
  EXPECT_NE(ToJson(FullDescription()).find("\"clip_ratio\": 0.95,"), std::string::npos);
}

TEST(DescriptionTest, AbsentKeysHaveTheirDefault) {
  ASSERT_OK_AND_ASSIGN(const QuantDescription read, DescriptionFromJson(R"({"format_version":1})"));
  EXPECT_EQ(read, QuantDescription());
  EXPECT_FALSE(read.quantizes_anything());
  EXPECT_TRUE(FullDescription().quantizes_anything());
}

TEST(DescriptionTest, AFolderWithoutOneHasTheDefault) {
  const TemporaryDirectory folder;
  ASSERT_OK_AND_ASSIGN(const QuantDescription none, LoadDescription(folder.path()));
  EXPECT_EQ(none, QuantDescription());
  ASSERT_OK(WriteFileAtomically(folder / "assay_quant.json", ToJson(FullDescription())));
  ASSERT_OK_AND_ASSIGN(const QuantDescription full, LoadDescription(folder.path()));
  EXPECT_EQ(full, FullDescription());
  ASSERT_OK(WriteFileAtomically(folder / "assay_quant.json", "{"));
  EXPECT_THAT(LoadDescription(folder.path()),
              IsError(absl::StatusCode::kInvalidArgument, folder.path()));
}

struct BadJson {
  std::string json;
  const char* message;
};

std::string Linear(const std::string& keys) {
  return R"({"format_version":1,"linears":{"L":{)" + keys + "}}}";
}
std::string KCache(const std::string& keys) {
  return R"({"format_version":1,"k_cache":{)" + keys + "}}";
}

TEST(DescriptionTest, WhatDoesNotHoldIsRefusedByKeyAndValue) {
  const BadJson kCases[] = {
      {"", "not JSON"},
      {"7", "not an object"},
      {"{}", "format_version is missing"},
      {R"({"format_version":2,"new":1})", "format_version is 2; this build reads 1"},
      {R"({"format_version":1,"format_version":1})", "comes twice"},
      {R"({"format_version":1,"linear":{}})", "unknown key 'linear' (did you mean 'linears'?)"},
      {R"({"format_version":1,"linears":[]})", "'linears' is no object"},
      {R"({"format_version":1,"method":7})", "'method' is 7"},
      {R"({"format_version":1,"parameters":{"a":1}})", "'parameters'"},
      {R"({"format_version":1,"virtual_shards":0})", "'virtual_shards' is 0"},
      {Linear(R"("code_type":"int4")"), "linear L: 'code_type' is \"int4\"; needed: one of 'none'"},
      {Linear(R"("code_type":"uniform","bit_width":1)"), "'bit_width' is 1"},
      {Linear(R"("code_type":"uniform","bit_width":9)"), "L: uniform codes of 9 bits"},
      {Linear(R"("code_type":"mxfp4","bit_width":8)"), "only 4"},
      {Linear(R"("bit_width":18446744073709551615)"), "bit_width"},
      {Linear(R"("bit_width":"4")"), "'bit_width' is \"4\""},
      {Linear(R"("group_size":0)"), "L: group_size 0"},
      {Linear(R"("group_size":-2)"), "'group_size' is -2"},
      {Linear(R"("num_shards":0)"), "'num_shards' is 0"},
      {Linear(R"("symmetric":1)"), "'symmetric' is 1; needed: true or false"},
      {Linear(R"("input_transform":{"kind":"rotation"})"), "input_transform: 'kind'"},
      {Linear(R"("input_transform":{"kind":"kronecker","left":8})"), "positive left and right"},
      {Linear(R"("input_transform":[])"), "input_transform: not an object"},
      {Linear(R"("input_quantizer":{"clip_ratio":0})"), "'clip_ratio' is 0"},
      {Linear(R"("input_quantizer":{"clip_ratio":1.5})"), "'clip_ratio' is 1.5"},
      {Linear(R"("input_quantizer":{"clip_max":[0.5]})"), "1 and 0 factors for 1 shards"},
      {Linear(R"("input_quantizer":{"clip_max":[0.5,"x"]})"), "'clip_max'"},
      {KCache(R"("position":"after_projection")"), "k_cache: position"},
      {KCache(R"("position":"before_rope","transform":"hadamard")"), "needs position after_rope"},
      {KCache(R"("granularity":"per_channel_static","code_type":"mxfp4","bit_width":4)"),
       "per_channel_static"},
      {R"({"format_version":1,"v_cache":{"position":"after_rope"}})", "v_cache: position"},
  };
  for (const BadJson& bad : kCases) {
    EXPECT_THAT(DescriptionFromJson(bad.json),
                IsError(absl::StatusCode::kInvalidArgument, bad.message))
        << bad.json;
  }
}

TEST(DescriptionTest, WhatDoesNotFitTheModelIsRefusedByName) {
  const ModelConfig config = SmallConfig();
  ASSERT_OK(CheckFits(FullDescription(), config));
  const auto expect_refused = [&](const QuantDescription& description, const char* message) {
    EXPECT_THAT(CheckFits(description, config),
                IsError(absl::StatusCode::kInvalidArgument, message));
  };
  QuantDescription description;
  description.linears["model.layers.2.self_attn.q_proj"] = {};
  expect_refused(description, "model.layers.2.self_attn.q_proj");

  description = QuantDescription();
  description.virtual_shards = 2;
  description.linears[kQ] = {.num_shards = 2};
  expect_refused(description, "only o_proj and down_proj are split");

  description = QuantDescription();
  description.virtual_shards = 5;
  description.linears[kDown] = {.num_shards = 5};
  expect_refused(description, "96 inputs do not divide over 5 shards");

  description = QuantDescription();
  description.virtual_shards = 2;
  description.linears[kDown] = {.code_type = CodeType::kMxfp4, .bit_width = 4, .num_shards = 2};
  expect_refused(description, "48 inputs a shard are no multiple of MXFP4's block of 32");

  description = QuantDescription();
  description.linears[kDown] = {
      .input_transform = {.kind = TransformSpec::Kind::kKronecker, .left = 5, .right = 5}};
  expect_refused(description, "5 x 5 does not fit 96");

  description = QuantDescription();
  description.linears[kDown] = {
      .input_transform = {.kind = TransformSpec::Kind::kHadamard, .owner = "nobody"}};
  expect_refused(description, "its owner nobody");

  description = QuantDescription();
  description.k_cache.group_size = 5;
  expect_refused(description, "k_cache: group_size 5 does not divide head_dim 32");
}

TEST(DescriptionTest, AnOrderWithoutHadamardMatrixIsRefused) {
  ModelConfig config = SmallConfig();
  config.intermediate_size = 44;
  QuantDescription description;
  description.linears[kDown] = {.input_transform = {.kind = TransformSpec::Kind::kHadamard}};
  EXPECT_THAT(CheckFits(description, config),
              IsError(absl::StatusCode::kInvalidArgument, "no Hadamard matrix of order 44"));
}

TEST(DescriptionTest, BiasesThatAreNormalizedWithTheirKeysCannotBeTakenOut) {
  ModelConfig config = SmallConfig();
  config.qk_norm = config.qkv_bias = true;
  QuantDescription description;
  description.k_cache.position = CacheSpec::Position::kBeforeBias;
  EXPECT_THAT(CheckFits(description, config),
              IsError(absl::StatusCode::kInvalidArgument, "before_bias"));
}

}  // namespace
}  // namespace assay::engine
