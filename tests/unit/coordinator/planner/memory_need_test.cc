#include "coordinator/planner/memory_need.h"

#include <gmock/gmock.h>

#include "coordinator/spec/method_rules.h"
#include "tests/testing/status_matchers.h"

namespace assay::coordinator {
namespace {

using assay::testing::IsError;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

// The dimensions of Hugging Face configurations, with the numbers of parameters that their model
// cards give.
struct KnownModel {
  const char* config;
  double num_parameters;
};
constexpr KnownModel kQwen1_5B = {
    R"({"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
        "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151936,
        "max_position_embeddings": 131072, "tie_word_embeddings": false})",
    1.777e9};
constexpr KnownModel kQwen32B = {
    R"({"hidden_size": 5120, "intermediate_size": 27648, "num_hidden_layers": 64,
        "num_attention_heads": 40, "num_key_value_heads": 8, "vocab_size": 152064,
        "max_position_embeddings": 131072, "tie_word_embeddings": false})",
    32.76e9};
constexpr KnownModel kLlama70B = {
    R"({"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
        "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256,
        "max_position_embeddings": 131072, "tie_word_embeddings": false})",
    70.55e9};

ModelDimensions Parse(const KnownModel& known) {
  const auto model = ParseModelDimensions(known.config, "config.json");
  EXPECT_OK(model);
  return *model;
}

storage::MethodRecord Method(const std::string& bits, int32_t group_size = 0) {
  storage::MethodRecord method = BaselineMethod();
  method.bits = bits;
  method.group_size = group_size;
  return method;
}

TEST(MemoryNeedTest, WeightsAreTheKnownNumberOfParameters) {
  for (const KnownModel& known : {kQwen1_5B, kQwen32B, kLlama70B}) {
    const auto bytes = static_cast<double>(WeightBytes(Parse(known), BaselineMethod()));
    EXPECT_NEAR(bytes / 2 / known.num_parameters, 1, 0.001);
  }
}

// By hand: 64 layers of 487,587,840 weights at 4 bits and 64 bits a group of 128, and 2 matrices of
// 152,064 x 5,120 at 16 bits.
TEST(MemoryNeedTest, WeightBitsCountForLinearLayersOnly) {
  const int64_t linear = int64_t{64} * 487'587'840;
  const int64_t embedding = int64_t{2} * 152'064 * 5'120;
  const int64_t vectors = int64_t{64} * (2 * 5'120 + 128 * (40 + 2 * 8 + 2)) + 5'120;
  EXPECT_EQ(WeightBytes(Parse(kQwen32B), Method("4-16-16", 128)),
            linear / 2 + linear / 128 * 8 + (embedding + vectors) * 2);
  EXPECT_EQ(WeightBytes(Parse(kQwen32B), Method("8-16-16", -1)),
            linear + (embedding + vectors) * 2);
  EXPECT_EQ(WeightBytes(Parse(kQwen32B), Method("16-16-4")),
            WeightBytes(Parse(kQwen32B), BaselineMethod()));
}

TEST(MemoryNeedTest, TheCacheIsOfOneFullSequenceAtItsBits) {
  const ModelDimensions model = Parse(kQwen32B);
  // 2 * 64 layers * 8 heads * 128 values of two bytes.
  EXPECT_EQ(CacheBytes(model, BaselineMethod(), 640, 2), int64_t{640} * 262'144);
  // 2 * 64 layers * 8 heads * 4 bytes of parameters beside the codes, whose bits are 3, 4 or 8.
  EXPECT_EQ(CacheBytes(model, Method("16-16-4"), 640, 2), int64_t{640} * (65'536 + 4'096));
  EXPECT_EQ(CacheBytes(model, Method("16-16-3"), 640, 2), int64_t{640} * (49'152 + 4'096));
  EXPECT_EQ(CacheBytes(model, Method("16-16-2"), 640, 2),
            CacheBytes(model, Method("16-16-3"), 640, 2));
  EXPECT_EQ(CacheBytes(model, Method("16-16-6"), 640, 2), int64_t{640} * (131'072 + 4'096));
  EXPECT_EQ(CacheBytes(model, BaselineMethod(), 1, 2), CacheBytes(model, BaselineMethod(), 64, 2))
      << "a block is the least";
  EXPECT_EQ(CacheBytes(model, BaselineMethod(), 640, 16),
            2 * CacheBytes(model, BaselineMethod(), 640, 8))
      << "sixteen GPUs hold copies of eight heads";
}

TEST(MemoryNeedTest, OnACpuTheCacheIsFloat32WhateverItsBits) {
  const ModelDimensions model = Parse(kQwen32B);
  storage::CellRecord cell;
  cell.sampling.max_model_len = 640;
  for (const char* bits : {"16-16-16", "16-16-3"}) {
    cell.method = Method(bits);
    EXPECT_EQ(CpuMemoryNeedBytes(model, cell) - WeightBytes(model, cell.method),
              int64_t{640} * 2 * 64 * 8 * 128 * 4);
  }
}

TEST(MemoryNeedTest, ASequenceIsAsLongAsTheEngineMakesRoomFor) {
  const ModelDimensions model = Parse(kQwen32B);
  storage::SamplingRecord sampling;
  EXPECT_EQ(SequenceLength(model, sampling), 131'072);
  sampling.max_model_len = 40'000;
  EXPECT_EQ(SequenceLength(model, sampling), 40'000);
  sampling.max_model_len = 200'000;
  EXPECT_EQ(SequenceLength(model, sampling), 131'072);
}

// What people know: 32 billion parameters at 16 bits run on one GPU of 80 GB with 32k tokens, 70
// billion need two, or one at 4 bits.
TEST(MemoryNeedTest, WhatIsKnownToFitFits) {
  constexpr int64_t kUsableOf80Gb = int64_t{76} << 30;
  storage::CellRecord cell;
  cell.method = BaselineMethod();
  cell.sampling.max_model_len = 33'792;
  EXPECT_LT(MemoryNeedBytes(Parse(kQwen32B), cell), kUsableOf80Gb);
  EXPECT_GT(MemoryNeedBytes(Parse(kLlama70B), cell), kUsableOf80Gb);
  EXPECT_GT(CalibrationNeedBytes(Parse(kLlama70B), 2), kUsableOf80Gb);
  cell.tensor_parallel_size = 2;
  EXPECT_LT(MemoryNeedBytes(Parse(kLlama70B), cell), 2 * kUsableOf80Gb);
  cell.tensor_parallel_size = 1;
  cell.method = Method("4-16-16", 128);
  EXPECT_LT(MemoryNeedBytes(Parse(kLlama70B), cell), kUsableOf80Gb);
}

TEST(MemoryNeedTest, AConfigurationThatSaysNothingOrNonsenseIsRefusedByKey) {
  EXPECT_THAT(ParseModelDimensions("{}", "m/config.json"),
              IsError(kInvalid, "m/config.json: hidden_size must be a number"));
  EXPECT_THAT(ParseModelDimensions("[", "m"), IsError(kInvalid, "not a JSON object"));
  for (const char* value : {"0", "-5", "1e300", "\"8\"", "null", "999999999999999999999", "[1]"}) {
    const std::string config = std::string(R"({"hidden_size": )") + value + "}";
    EXPECT_THAT(ParseModelDimensions(config, "m"), IsError(kInvalid, "hidden_size")) << value;
  }
}

TEST(MemoryNeedTest, TheLargestDimensionsDoNotOverflow) {
  ModelDimensions model;
  model.hidden_size = model.intermediate_size = model.num_heads = model.num_kv_heads =
      model.head_dim = model.vocab_size = model.max_position_embeddings = 1 << 24;
  model.num_layers = 10'000;
  storage::CellRecord cell;
  cell.method = BaselineMethod();
  cell.tensor_parallel_size = 1024;
  EXPECT_GT(MemoryNeedBytes(model, cell), int64_t{1} << 59);
}

}  // namespace
}  // namespace assay::coordinator
