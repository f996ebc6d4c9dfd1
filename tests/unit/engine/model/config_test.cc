#include "engine/model/config.h"

#include "base/file.h"
#include "engine/model/linears.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::engine {
namespace {

using ::testing::ElementsAre;
using testing::IsError;
using testing::kNoShared;
using testing::SharedPath;
using testing::TemporaryDirectory;

// A small Llama, with `more` keys after the others.
std::string LlamaJson(const std::string& more = "") {
  return R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
             "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
             "vocab_size": 100, "max_position_embeddings": 512)" +
         (more.empty() ? "}" : ", " + more + "}");
}

class ConfigTest : public ::testing::Test {
 protected:
  absl::StatusOr<ModelConfig> Load(const std::string& json, const std::string& generation = "") {
    EXPECT_OK(WriteFileAtomically(folder_ / "config.json", json));
    if (!generation.empty()) {
      EXPECT_OK(WriteFileAtomically(folder_ / "generation_config.json", generation));
    }
    return LoadModelConfig(folder_.path());
  }

  TemporaryDirectory folder_;
};

TEST_F(ConfigTest, WhatIsNotSaidHasTheFamilysDefault) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Load(LlamaJson()));
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.rms_norm_eps, 1e-6f);
  EXPECT_EQ(config.rope_theta, 10000);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_FALSE(config.qkv_bias);
  EXPECT_FALSE(config.o_bias);
  EXPECT_FALSE(config.qk_norm);
  EXPECT_FALSE(config.rope_scaling.has_value());
  EXPECT_FALSE(config.bos_token_id.has_value());
  EXPECT_TRUE(config.eos_token_ids.empty());
}

TEST_F(ConfigTest, LlamasAttentionBiasIsOnAllFour) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Load(LlamaJson(R"("attention_bias": true)")));
  EXPECT_TRUE(config.qkv_bias);
  EXPECT_TRUE(config.o_bias);
}

TEST_F(ConfigTest, Qwen2IgnoresAttentionBias) {
  std::string json = LlamaJson(R"("attention_bias": false)");
  json.replace(json.find("Llama"), 5, "Qwen2");
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Load(json));
  EXPECT_EQ(config.family, Family::kQwen2);
  EXPECT_TRUE(config.qkv_bias);
  EXPECT_FALSE(config.o_bias);
}

TEST_F(ConfigTest, Qwen3NormalizesHeadsAndHasItsOwnHeadDim) {
  std::string json = LlamaJson(R"("layer_types": ["full_attention", "full_attention"])");
  json.replace(json.find("Llama"), 5, "Qwen3");
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, Load(json));
  EXPECT_TRUE(config.qk_norm);
  EXPECT_FALSE(config.qkv_bias);
  EXPECT_EQ(config.head_dim, 128);
}

TEST_F(ConfigTest, ScalingIsReadFromOldAndNewSpelling) {
  const std::string scaling =
      R"("factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 256, "rope_type": "llama3")";
  for (const std::string& json :
       {LlamaJson(R"("rope_theta": 5e5, "rope_scaling": {)" + scaling + "}"),
        LlamaJson(R"("rope_parameters": {"rope_theta": 5e5, )" + scaling + "}")}) {
    ASSERT_OK_AND_ASSIGN(const ModelConfig config, Load(json));
    EXPECT_EQ(config.rope_theta, 5e5);
    ASSERT_TRUE(config.rope_scaling.has_value());
    EXPECT_EQ(config.rope_scaling->factor, 8);
    EXPECT_EQ(config.rope_scaling->original_max_position_embeddings, 256);
  }
  EXPECT_OK(Load(LlamaJson(R"("rope_scaling": null)")));
  EXPECT_OK(Load(LlamaJson(R"("rope_parameters": {"rope_type": "default", "rope_theta": 1e4})")));
}

TEST_F(ConfigTest, EndTokensOfBothFilesAreTaken) {
  ASSERT_OK_AND_ASSIGN(
      const ModelConfig config,
      Load(LlamaJson(R"("eos_token_id": 7, "bos_token_id": 1)"), R"({"eos_token_id": [9, 7, 3]})"));
  EXPECT_THAT(config.eos_token_ids, ElementsAre(7, 9, 3));
  EXPECT_EQ(config.bos_token_id, 1);
}

TEST_F(ConfigTest, AWindowThatNoLayerUsesIsFine) {
  EXPECT_OK(Load(LlamaJson(R"("sliding_window": 4, "use_sliding_window": false)")));
  EXPECT_OK(Load(LlamaJson(R"("use_sliding_window": true, "max_window_layers": 2)")));
}

struct BadConfig {
  std::string json;
  const char* message;
};

TEST_F(ConfigTest, WhatIsNotSupportedIsRefusedByKeyAndValue) {
  const BadConfig kCases[] = {
      {"", "not JSON"},
      {"[]", "not a JSON object"},
      {R"({"architectures": ["LlamaForCausalLM"], "architectures": []})", "comes twice"},
      {R"({"architectures": ["MixtralForCausalLM"]})", "supported: LlamaForCausalLM"},
      {R"({"architectures": "LlamaForCausalLM"})", "'architectures' is \"LlamaForCausalLM\""},
      {R"({"architectures": ["LlamaForCausalLM"]})", "no 'hidden_size'"},
      {R"({"model_type": "gpt2"})", "'gpt2'"},
      {LlamaJson(R"("head_dim": 0)"), "'head_dim' is 0"},
      {LlamaJson(R"("head_dim": 15)"), "an even number"},
      {LlamaJson(R"("head_dim": "16")"), "'head_dim' is \"16\""},
      {LlamaJson(R"("hidden_act": "gelu")"), "'hidden_act' is \"gelu\"; needed: silu"},
      {LlamaJson(R"("mlp_bias": true)"), "mlp_bias"},
      {LlamaJson(R"("use_mrope": true)"), "use_mrope"},
      {LlamaJson(R"("use_sliding_window": true)"), "use_sliding_window"},
      {LlamaJson(R"("use_sliding_window": true, "max_window_layers": 1)"), "use_sliding_window"},
      {LlamaJson(R"("layer_types": ["full_attention", "sliding_attention"])"), "layer_types"},
      {LlamaJson(R"("quantization_config": {"quant_method": "awq"})"), "awq"},
      {LlamaJson(R"("rope_scaling": {"rope_type": "yarn", "factor": 4.0})"),
       "'yarn' is not supported; supported: default, llama3"},
      {LlamaJson(R"("rope_scaling": {"type": "linear", "factor": 4.0})"), "'linear'"},
      {LlamaJson(R"("rope_scaling": {"rope_type": "llama3"})"), "no 'factor'"},
      {LlamaJson(R"("rope_scaling": 4)"), "rope_scaling"},
      {LlamaJson(R"("rope_theta": -1)"), "'rope_theta' is -1"},
      {LlamaJson(R"("rms_norm_eps": "small")"), "rms_norm_eps"},
      {LlamaJson(R"("tie_word_embeddings": 1)"), "true or false"},
      {LlamaJson(R"("eos_token_id": -1)"), "eos_token_id"},
      {LlamaJson(R"("eos_token_id": 100)"), "below vocab_size 100"},
      {LlamaJson(R"("eos_token_id": [1, "2"])"), "eos_token_id"},
  };
  for (const BadConfig& bad : kCases) {
    EXPECT_THAT(Load(bad.json), IsError(absl::StatusCode::kInvalidArgument, bad.message))
        << bad.json;
  }
}

TEST_F(ConfigTest, SizesThatDoNotFitTogetherAreRefused) {
  const auto with = [](const std::string& from, const std::string& to) {
    std::string json = LlamaJson();
    return json.replace(json.find(from), from.size(), to);
  };
  EXPECT_THAT(Load(with("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3")),
              IsError(absl::StatusCode::kInvalidArgument, "a divisor of num_attention_heads 4"));
  EXPECT_THAT(Load(with("\"hidden_size\": 64", "\"hidden_size\": 66")),
              IsError(absl::StatusCode::kInvalidArgument, "head_dim"));
  EXPECT_THAT(Load(with("\"hidden_size\": 64", "\"hidden_size\": 1e9")),
              IsError(absl::StatusCode::kInvalidArgument, "hidden_size"));
  EXPECT_THAT(Load(with("\"vocab_size\": 100", "\"vocab_size\": 99999999999999999999")),
              IsError(absl::StatusCode::kInvalidArgument, "vocab_size"));
}

TEST_F(ConfigTest, AFolderWithoutConfigIsNotFound) {
  EXPECT_THAT(LoadModelConfig(folder_.path()), IsError(absl::StatusCode::kNotFound, "config.json"));
}

// What its publisher's config.json says.
struct PublishedModel {
  const char* folder;
  Family family;
  int hidden, layers, heads, kv_heads, intermediate, vocab;
  double theta;
  bool scaled;
  bool bias;
  float eps;
  int64_t parameters;
  int64_t linear_parameters;
};

int64_t NumLinearParameters(const ModelConfig& config) {
  int64_t sum = 0;
  for (const LinearInfo& linear : QuantizableLinears(config)) {
    sum += int64_t{linear.out_features} * linear.in_features;
  }
  return sum;
}

int64_t NumParameters(const ModelConfig& config) {
  int64_t sum = NumLinearParameters(config);
  for (const LinearInfo& linear : QuantizableLinears(config)) {
    if (linear.has_bias) sum += linear.out_features;
  }
  const int64_t norms = int64_t{config.hidden_size} * (2 * config.num_layers + 1);
  return sum + norms + int64_t{2} * config.vocab_size * config.hidden_size;
}

TEST(PublishedConfigTest, TheModelsOfTheStudyHaveTheirPublishedNumbers) {
  constexpr Family kQwen2 = Family::kQwen2;
  constexpr Family kLlama = Family::kLlama;
  const PublishedModel kModels[] = {
      {"DeepSeek-R1-Distill-Qwen-1.5B", kQwen2, 1536, 28, 12, 2, 8960, 151936, 1e4, false, true,
       1e-6f, 1'777'088'000, 1'310'195'712},
      {"DeepSeek-R1-Distill-Qwen-7B", kQwen2, 3584, 28, 28, 4, 18944, 152064, 1e4, false, true,
       1e-6f, 7'615'616'512, 6'525'288'448},
      {"base/Qwen2.5-14B", kQwen2, 5120, 48, 40, 8, 13824, 152064, 1e6, false, true, 1e-5f,
       14'770'033'664, 13'212'057'600},
      {"DeepSeek-R1-Distill-Qwen-32B", kQwen2, 5120, 64, 40, 8, 27648, 152064, 1e6, false, true,
       1e-5f, 32'763'876'352, 31'205'621'760},
      {"base/Qwen2.5-32B", kQwen2, 5120, 64, 40, 8, 27648, 152064, 1e6, false, true, 1e-5f,
       32'763'876'352, 31'205'621'760},
      {"DeepSeek-R1-Distill-Llama-8B", kLlama, 4096, 32, 32, 8, 14336, 128256, 5e5, true, false,
       1e-5f, 8'030'261'248, 6'979'321'856},
      {"base/Llama-3.1-8B", kLlama, 4096, 32, 32, 8, 14336, 128256, 5e5, true, false, 1e-5f,
       8'030'261'248, 6'979'321'856},
      {"base/Llama-3.3-70B-Instruct", kLlama, 8192, 80, 64, 8, 28672, 128256, 5e5, true, false,
       1e-5f, 70'553'706'496, 68'451'041'280},
      {"QwQ-32B", kQwen2, 5120, 64, 40, 8, 27648, 152064, 1e6, false, true, 1e-5f, 32'763'876'352,
       31'205'621'760},
  };
  for (const PublishedModel& model : kModels) {
    const std::string path = SharedPath(std::string("data/model_configs/") + model.folder);
    if (path.empty()) GTEST_SKIP() << kNoShared;
    SCOPED_TRACE(model.folder);
    ASSERT_OK_AND_ASSIGN(const ModelConfig config, LoadModelConfig(path));
    EXPECT_EQ(config.family, model.family);
    EXPECT_EQ(config.hidden_size, model.hidden);
    EXPECT_EQ(config.num_layers, model.layers);
    EXPECT_EQ(config.num_heads, model.heads);
    EXPECT_EQ(config.num_kv_heads, model.kv_heads);
    EXPECT_EQ(config.head_dim, 128);
    EXPECT_EQ(config.intermediate_size, model.intermediate);
    EXPECT_EQ(config.vocab_size, model.vocab);
    EXPECT_EQ(config.rope_theta, model.theta);
    EXPECT_EQ(config.rope_scaling.has_value(), model.scaled);
    EXPECT_EQ(config.qkv_bias, model.bias);
    EXPECT_EQ(config.rms_norm_eps, model.eps);
    EXPECT_EQ(config.max_position_embeddings, 131072);
    EXPECT_FALSE(config.tie_word_embeddings);
    EXPECT_EQ(NumParameters(config), model.parameters);
    EXPECT_EQ(NumLinearParameters(config), model.linear_parameters);
  }
}

TEST(PublishedConfigTest, Llama70BHasThreeEndTokensAndLlama3Scaling) {
  const std::string path = SharedPath("data/model_configs/base/Llama-3.3-70B-Instruct");
  if (path.empty()) GTEST_SKIP() << kNoShared;
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, LoadModelConfig(path));
  EXPECT_THAT(config.eos_token_ids, ElementsAre(128001, 128008, 128009));
  EXPECT_EQ(config.bos_token_id, 128000);
  EXPECT_EQ(config.rope_scaling->factor, 8);
  EXPECT_EQ(config.rope_scaling->low_freq_factor, 1);
  EXPECT_EQ(config.rope_scaling->high_freq_factor, 4);
  EXPECT_EQ(config.rope_scaling->original_max_position_embeddings, 8192);
}

TEST(PublishedConfigTest, TheTinyModelsLoad) {
  for (const char* name : {"tiny-qwen2-1m", "tiny-qwen2-5m", "tiny-llama-5m"}) {
    const std::string path = SharedPath(std::string("models/") + name);
    if (path.empty()) GTEST_SKIP() << kNoShared;
    ASSERT_OK_AND_ASSIGN(const ModelConfig config, LoadModelConfig(path));
    EXPECT_EQ(config.head_dim, 128);
    EXPECT_EQ(config.vocab_size, 512);
    EXPECT_EQ(config.qkv_bias, config.family == Family::kQwen2);
    EXPECT_THAT(config.eos_token_ids, ElementsAre(0));
  }
}

TEST(LinearsTest, NamesAndShapesAreThoseOfTheCheckpoint) {
  ModelConfig config;
  config.hidden_size = 64;
  config.intermediate_size = 96;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 32;
  config.qkv_bias = true;
  const std::vector<LinearInfo> linears = QuantizableLinears(config);
  ASSERT_EQ(linears.size(), 14u);
  EXPECT_EQ(linears[8].name, "model.layers.1.self_attn.k_proj");
  EXPECT_EQ(linears[8].out_features, 64);
  EXPECT_EQ(linears[8].in_features, 64);
  EXPECT_TRUE(linears[8].has_bias);
  EXPECT_EQ(linears[3].name, "model.layers.0.self_attn.o_proj");
  EXPECT_EQ(linears[3].in_features, 128);
  EXPECT_TRUE(linears[3].row_parallel());
  EXPECT_FALSE(linears[3].has_bias);
  EXPECT_EQ(linears[13].name, "model.layers.1.mlp.down_proj");
  EXPECT_EQ(linears[13].in_features, 96);
}

}  // namespace
}  // namespace assay::engine
