// Whole models on the GPU: against the CPU backend, and against themselves in other batches.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include "engine/decoder/cuda_memory_plan.h"
#include "engine/kernels/cuda/device.h"
#include "engine/quant/description.h"
#include "engine/runtime/engine.h"
#include "tests/kernels/cuda_fixture.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/engine/decoder/random_model.h"

namespace assay::engine {
namespace {

using assay::testing::IsError;
using assay::testing::SourcePath;
using assay::testing::TemporaryDirectory;
using testing::SmallConfig;
using testing::WriteRandomModel;
using Outputs = std::map<int64_t, std::vector<int32_t>>;

std::vector<int32_t> RandomIds(int count, int vocab, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % vocab);
  return ids;
}

struct Difference {
  double worst = 0;
  double mean_square = 0;
};

Difference Compare(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  Difference difference;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = double{a[i]} - b[i];
    difference.worst = std::max(difference.worst, std::abs(d));
    difference.mean_square += d * d / static_cast<double>(a.size());
  }
  return difference;
}

struct Model {
  std::string name;
  ModelConfig config;
  QuantDescription description;
};

// head_dim 128 is the fast kernels'; the others take the plain ones.
ModelConfig Config(Family family, int head_dim, int num_heads, int num_kv_heads) {
  ModelConfig config = SmallConfig(family);
  config.hidden_size = 256;
  config.intermediate_size = 320;
  config.vocab_size = 200;
  config.head_dim = head_dim;
  config.num_heads = num_heads;
  config.num_kv_heads = num_kv_heads;
  config.max_position_embeddings = 2048;
  return config;
}

std::vector<Model> Models() {
  using Transform = CacheSpec::Transform;
  using Position = CacheSpec::Position;
  const auto cache = [](int bits, Transform transform) {
    return CacheSpec{.code_type = CodeType::kUniform, .bit_width = bits, .transform = transform};
  };
  const auto quantized = [&](int bits, Transform transform) {
    QuantDescription description;
    description.k_cache = cache(bits, transform);
    description.v_cache = cache(bits, Transform::kNone);
    description.v_cache.position = Position::kAfterProjection;
    return description;
  };
  std::vector<Model> models = {
      {"qwen2", Config(Family::kQwen2, 128, 6, 2), {}},
      {"llama", Config(Family::kLlama, 128, 8, 1), {}},
      {"qwen3_tied", Config(Family::kQwen3, 128, 4, 4), {}},
      {"qwen2_head_dim_64", Config(Family::kQwen2, 64, 6, 2), {}},
      {"llama_head_dim_16", Config(Family::kLlama, 16, 4, 2), {}},
      {"qwen2_kv8", Config(Family::kQwen2, 128, 6, 2), quantized(8, Transform::kNone)},
      {"qwen2_kv4_hadamard", Config(Family::kQwen2, 128, 6, 2), quantized(4, Transform::kHadamard)},
      {"llama_kv3_hadamard", Config(Family::kLlama, 128, 8, 2), quantized(3, Transform::kHadamard)},
      {"llama_kv4_head_dim_64", Config(Family::kLlama, 64, 4, 2), quantized(4, Transform::kNone)},
  };
  models[2].config.tie_word_embeddings = true;
  return models;
}

class CudaEngineTest : public ::testing::TestWithParam<Model> {
 protected:
  void SetUp() override {
    if (cuda::NumDevices() == 0) GTEST_SKIP() << cuda::kNoGpu;
    WriteRandomModel(GetParam().config, dir_.path(), 7, DType::kBF16);
    if (GetParam().description.quantizes_anything()) {
      std::ofstream(dir_ / "assay_quant.json") << ToJson(GetParam().description);
    }
  }

  std::unique_ptr<Engine> Load(EngineOptions options) const {
    auto engine = Engine::Load(dir_.path(), options);
    EXPECT_OK(engine);
    return engine.ok() ? *std::move(engine) : nullptr;
  }

  // Of 1 to 150 tokens, some of them with a common beginning.
  std::vector<int32_t> Prompt(int id) const {
    return RandomIds(1 + id * 37 % 150, GetParam().config.vocab_size, id % 5);
  }

  // Answers of 20 to 90 tokens.
  Outputs Generate(EngineOptions options, int num_requests, bool together, float temperature,
                   int64_t* num_preemptions = nullptr) const {
    options.device = "cuda";
    const auto engine = Load(options);
    Outputs outputs;
    if (engine == nullptr) return outputs;
    for (int id = 0; id < num_requests; ++id) {
      GenerationRequest request;
      request.id = id;
      request.prompt_ids = Prompt(id);
      request.max_new_tokens = 20 + id * 13 % 70;
      request.sampling = {.temperature = temperature, .top_p = 0.95f, .seed = 1000u + id};
      engine->Submit(std::move(request));
      while (!engine->idle() && (!together || id + 1 == num_requests)) {
        auto finished = engine->Step();
        EXPECT_OK(finished);
        if (!finished.ok()) return outputs;
        for (GenerationResult& result : *finished) {
          EXPECT_EQ(result.error, "");
          outputs[result.id] = std::move(result.output_ids);
        }
      }
    }
    if (num_preemptions != nullptr) *num_preemptions = engine->stats().num_preemptions;
    return outputs;
  }

  TemporaryDirectory dir_;
};

// The GPU stores activations in bf16; the CPU can do as if. Both are then as far from float32's
// logits as that rounding takes them. Twice that leaves room for chance: the two round at the same
// places, but attention's weights, which the GPU rounds too.
TEST_P(CudaEngineTest, LogitsAreAsNearToFloat32AsBf16Allows) {
  const std::vector<int32_t> ids = RandomIds(300, GetParam().config.vocab_size, 1);
  const auto logits = [&](const EngineOptions& options) {
    const auto engine = Load(options);
    return engine == nullptr ? std::vector<float>() : *engine->Forward(ids, nullptr);
  };
  const std::vector<float> exact = logits({});
  const Difference cpu = Compare(logits({.round_activations_to_bf16 = true}), exact);
  const Difference cuda = Compare(logits({.device = "cuda"}), exact);
  RecordProperty("cpu_root_mean_square", std::to_string(std::sqrt(cpu.mean_square)));
  RecordProperty("cuda_root_mean_square", std::to_string(std::sqrt(cuda.mean_square)));
  EXPECT_LT(std::sqrt(cuda.mean_square), 2 * std::sqrt(cpu.mean_square));
  EXPECT_LT(cuda.worst, 3 * cpu.worst);
}

// Every token of a greedy answer is the best one in float32, or misses it by no more than bf16's
// rounding makes of two logits.
TEST_P(CudaEngineTest, GreedyTokensAreTheBestUpToRounding) {
  const auto exact = Load({});
  const auto rounded = Load({.round_activations_to_bf16 = true});
  const int64_t vocab = GetParam().config.vocab_size;
  constexpr int kRequests = 6;
  Outputs outputs = Generate({.max_model_len = 512}, kRequests, true, 0);
  ASSERT_EQ(outputs.size(), static_cast<size_t>(kRequests));
  for (const auto& [id, output] : outputs) {
    std::vector<int32_t> ids = Prompt(static_cast<int>(id));
    const size_t prompt_len = ids.size();
    ids.insert(ids.end(), output.begin(), output.end());
    ASSERT_OK_AND_ASSIGN(const std::vector<float> logits, exact->Forward(ids, nullptr));
    ASSERT_OK_AND_ASSIGN(const std::vector<float> other, rounded->Forward(ids, nullptr));
    const double tolerance = 2 * 3 * Compare(logits, other).worst;
    for (size_t i = 0; i < output.size(); ++i) {
      const float* row = logits.data() + (prompt_len + i - 1) * vocab;
      const float best = *std::max_element(row, row + vocab);
      ASSERT_GE(row[output[i]], best - tolerance) << "request " << id << " token " << i;
    }
  }
}

TEST_P(CudaEngineTest, ARequestsTokensDoNotDependOnItsCompany) {
  constexpr int kRequests = 40;
  const EngineOptions options = {.max_model_len = 512};
  const Outputs alone = Generate(options, kRequests, /*together=*/false, 1.5f);
  ASSERT_EQ(alone.size(), static_cast<size_t>(kRequests));
  EXPECT_EQ(Generate(options, kRequests, true, 1.5f), alone);
  EXPECT_EQ(Generate({.max_num_seqs = 7, .max_model_len = 512, .prefill_chunk = 33}, kRequests,
                     true, 1.5f),
            alone);
  EXPECT_EQ(Generate({.max_num_seqs = 256, .max_model_len = 512, .prefill_chunk = 1}, kRequests,
                     true, 1.5f),
            alone);
}

TEST_P(CudaEngineTest, PreemptionDoesNotShow) {
  constexpr int kRequests = 24;
  const Outputs expected = Generate({.max_model_len = 256}, kRequests, true, 1.5f);
  const ModelConfig& config = GetParam().config;
  // As many bytes as 5 blocks of 16-bit values take, of 64 tokens each: one sequence needs 4.
  const int64_t cache_bytes = int64_t{5} * 64 * config.num_layers * config.kv_size() * 2 * 2;
  int64_t num_preemptions = 0;
  EXPECT_EQ(Generate({.max_model_len = 256, .kv_cache_bytes = cache_bytes}, kRequests, true, 1.5f,
                     &num_preemptions),
            expected);
  if (!GetParam().description.quantizes_anything()) {
    EXPECT_GT(num_preemptions, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, CudaEngineTest, ::testing::ValuesIn(Models()),
                         [](const auto& instance) { return instance.param.name; });

class CudaModelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda::NumDevices() == 0) GTEST_SKIP() << cuda::kNoGpu;
  }
  TemporaryDirectory dir_;
};

// The models of the repository, trained: their logits are the CPU's up to bf16.
TEST_F(CudaModelTest, TheExampleModelsLogitsAreTheCpus) {
  for (const char* name : {"tiny-qwen2-1m", "tiny-llama-5m"}) {
    const std::string dir = SourcePath(std::string("examples/models/") + name);
    const auto logits = [&](const EngineOptions& options, const std::vector<int32_t>& ids) {
      auto engine = Engine::Load(dir, options);
      EXPECT_OK(engine);
      return *(*engine)->Forward(ids, nullptr);
    };
    const std::vector<int32_t> ids = RandomIds(500, 512, 3);
    const std::vector<float> exact = logits({}, ids);
    const Difference cpu = Compare(logits({.round_activations_to_bf16 = true}, ids), exact);
    const Difference cuda = Compare(logits({.device = "cuda"}, ids), exact);
    EXPECT_LT(std::sqrt(cuda.mean_square), 2 * std::sqrt(cpu.mean_square)) << name;
    EXPECT_LT(cuda.worst, 3 * cpu.worst) << name;
  }
}

TEST_F(CudaModelTest, RandomWeightsNeedNoCheckpoint) {
  WriteRandomModel(Config(Family::kQwen2, 128, 6, 2), dir_.path(), 1);
  std::filesystem::remove(dir_ / "model.safetensors");
  const EngineOptions options = {.device = "cuda", .max_model_len = 256, .random_weights = true};
  ASSERT_OK_AND_ASSIGN(const auto engine, Engine::Load(dir_.path(), options));
  ASSERT_OK_AND_ASSIGN(const std::vector<float> logits,
                       engine->Forward(RandomIds(10, 200, 1), nullptr));
  for (const float logit : logits) ASSERT_TRUE(std::isfinite(logit));
}

TEST_F(CudaModelTest, WhatOnlyTheCpuRunsIsRefused) {
  const ModelConfig config = Config(Family::kLlama, 128, 2, 2);
  WriteRandomModel(config, dir_.path(), 1);
  QuantDescription description;
  description.linears["model.layers.0.mlp.down_proj"] = {
      .input_quantizer = {.code_type = CodeType::kUniform, .bit_width = 8}};
  std::ofstream(dir_ / "assay_quant.json") << ToJson(description);
  EXPECT_THAT(Engine::Load(dir_.path(), {.device = "cuda"}),
              IsError(absl::StatusCode::kUnimplemented, "model.layers.0.mlp.down_proj"));
  EXPECT_THAT(Engine::Load(dir_.path(), {.device = "cuda:99"}),
              IsError(absl::StatusCode::kUnimplemented, "down_proj"));
}

TEST(CudaDeviceTest, ADeviceThatIsNotThereIsRefused) {
  TemporaryDirectory dir;
  WriteRandomModel(Config(Family::kLlama, 128, 2, 2), dir.path(), 1);
  EXPECT_THAT(Engine::Load(dir.path(), {.device = "cuda:99"}),
              IsError(absl::StatusCode::kNotFound, "cuda:99"));
  EXPECT_THAT(Engine::Load(dir.path(), {.device = "cuda:"}),
              IsError(absl::StatusCode::kInvalidArgument, "cuda:N"));
  EXPECT_THAT(Engine::Load(dir.path(), {.device = "tpu"}),
              IsError(absl::StatusCode::kInvalidArgument, "tpu"));
}

constexpr int64_t kGib = int64_t{1} << 30;

cuda::MemoryDemand EightGibModel() {
  return {.device = "cuda:0",
          .free_bytes = 20 * kGib,
          .weight_bytes = 8 * kGib,
          .activation_bytes = kGib,
          .workspace_bytes = kGib,
          .reserve_bytes = kGib,
          .block_bytes = kGib / 64,
          .wanted_blocks = 10000,
          .max_model_len = 1000,
          .block_size = 64};
}

TEST(MemoryPlanTest, TheCacheGetsWhatIsLeft) {
  ASSERT_OK_AND_ASSIGN(const cuda::MemoryPlan plan, cuda::PlanMemory(EightGibModel()));
  EXPECT_EQ(plan.num_blocks, 9 * 64);
  EXPECT_EQ(plan.cache_bytes, 9 * kGib);
  EXPECT_EQ(plan.total_bytes, 19 * kGib);
}

TEST(MemoryPlanTest, TheCacheTakesNoMoreThanAskedFor) {
  cuda::MemoryDemand demand = EightGibModel();
  demand.wanted_blocks = 100;
  ASSERT_OK_AND_ASSIGN(const cuda::MemoryPlan wanted, cuda::PlanMemory(demand));
  EXPECT_EQ(wanted.num_blocks, 100);
  demand.limit_bytes = kGib;
  ASSERT_OK_AND_ASSIGN(const cuda::MemoryPlan limited, cuda::PlanMemory(demand));
  EXPECT_EQ(limited.num_blocks, 64);
}

TEST(MemoryPlanTest, ARefusalNamesTheNumbers) {
  cuda::MemoryDemand demand = EightGibModel();
  demand.free_bytes = 11 * kGib;
  const auto plan = cuda::PlanMemory(demand);
  EXPECT_THAT(plan, IsError(absl::StatusCode::kResourceExhausted, "11.00 GiB free"));
  EXPECT_THAT(plan, IsError(absl::StatusCode::kResourceExhausted, "weights 8.00"));
  EXPECT_THAT(plan, IsError(absl::StatusCode::kResourceExhausted, "max_model_len 1000"));
  EXPECT_THAT(plan, IsError(absl::StatusCode::kResourceExhausted, "0.250 GiB"));
}

}  // namespace
}  // namespace assay::engine
