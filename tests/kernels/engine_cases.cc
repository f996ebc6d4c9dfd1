#include "tests/kernels/engine_cases.h"

#include <fstream>
#include <numeric>
#include <random>
#include <utility>

#include "engine/kernels/cuda/device.h"
#include "engine/quant/quantize.h"
#include "tests/kernels/cuda_fixture.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/engine/decoder/random_model.h"

namespace assay::engine::testing {

std::vector<int32_t> RandomIds(int count, int vocab, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<uint64_t>(vocab));
  return ids;
}

std::vector<int64_t> Requests(int count) {
  std::vector<int64_t> ids(static_cast<size_t>(count));
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

ModelConfig EngineCaseConfig(Family family, int head_dim, int num_heads, int num_kv_heads) {
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

QuantDescription PerTokenCache(int bits, CacheSpec::Transform key_transform) {
  QuantDescription description;
  description.k_cache = {
      .code_type = CodeType::kUniform, .bit_width = bits, .transform = key_transform};
  description.v_cache = {.code_type = CodeType::kUniform,
                         .bit_width = bits,
                         .position = CacheSpec::Position::kAfterProjection};
  return description;
}

std::vector<EngineCase> EngineCases() {
  using Transform = CacheSpec::Transform;
  const ModelConfig qwen2 = EngineCaseConfig(Family::kQwen2, 128, 6, 2);
  const ModelConfig llama = EngineCaseConfig(Family::kLlama, 128, 8, 2);
  ModelConfig qwen3 = EngineCaseConfig(Family::kQwen3, 128, 4, 4);
  qwen3.tie_word_embeddings = true;
  const ModelConfig llama64 = EngineCaseConfig(Family::kLlama, 64, 4, 2);
  return {
      {.name = "qwen2", .config = qwen2},
      {.name = "llama", .config = EngineCaseConfig(Family::kLlama, 128, 8, 1)},
      {.name = "qwen3_tied", .config = qwen3},
      {.name = "qwen2_head_dim_64", .config = EngineCaseConfig(Family::kQwen2, 64, 6, 2)},
      {.name = "llama_head_dim_16", .config = EngineCaseConfig(Family::kLlama, 16, 4, 2)},
      {.name = "qwen2_kv8", .config = qwen2, .description = PerTokenCache(8, Transform::kNone)},
      {.name = "qwen2_kv4_hadamard",
       .config = qwen2,
       .description = PerTokenCache(4, Transform::kHadamard)},
      {.name = "llama_kv3_hadamard",
       .config = llama,
       .description = PerTokenCache(3, Transform::kHadamard)},
      {.name = "llama_kv4_head_dim_64",
       .config = llama64,
       .description = PerTokenCache(4, Transform::kNone)},
      {.name = "qwen2_static_k4_before_bias",
       .config = qwen2,
       .static_keys = "16-16-4",
       .pre_bias = true},
      {.name = "llama_static_k3", .config = llama, .static_keys = "16-16-3"},
      {.name = "qwen3_tied_static_k4", .config = qwen3, .static_keys = "16-16-4"},
      {.name = "llama_static_k4_head_dim_64", .config = llama64, .static_keys = "16-16-4"},
  };
}

void EngineCaseTest::SetUp() {
  if (cuda::NumDevices() == 0) GTEST_SKIP() << cuda::kNoGpu;
  const EngineCase& model = GetParam();
  model_dir_ = dir_.path();
  WriteRandomModel(model.config, model_dir_, 7, DType::kBF16);
  if (model.description.quantizes_anything()) {
    std::ofstream(dir_ / kDescriptionFile) << ToJson(model.description);
  }
  if (model.static_keys.empty()) return;
  ASSERT_OK_AND_ASSIGN(const auto plain, Engine::Load(model_dir_, {}));
  QuantizeRequest request;
  request.model_dir = model_dir_;
  request.output_dir = model_dir_ = dir_ / "static_keys";
  ASSERT_OK_AND_ASSIGN(request.method, ResolveMethod({.method = "kvquant_star",
                                                      .bits = model.static_keys,
                                                      .pre_bias = model.pre_bias}));
  for (uint64_t seed = 0; seed < 4; ++seed) {
    request.calibration_ids.push_back(RandomIds(200, model.config.vocab_size, 100 + seed));
  }
  request.forward = [&](const std::vector<int32_t>& ids, ForwardObserver* observer) {
    return plain->Forward(ids, observer).status();
  };
  ASSERT_OK(Quantize(request));
}

std::unique_ptr<Engine> EngineCaseTest::Load(const EngineOptions& options) const {
  auto engine = Engine::Load(model_dir_, options);
  EXPECT_OK(engine);
  return engine.ok() ? *std::move(engine) : nullptr;
}

std::vector<int32_t> EngineCaseTest::Prompt(int64_t id) const {
  return RandomIds(static_cast<int>(1 + id * 37 % 150), GetParam().config.vocab_size,
                   static_cast<uint64_t>(id % 5));
}

Outputs EngineCaseTest::Generate(EngineOptions options, const Company& company,
                                 int64_t* num_preemptions) const {
  if (options.device == "cpu") options.device = "cuda";
  const auto engine = Load(options);
  Outputs outputs;
  if (engine == nullptr) return outputs;
  for (const int64_t id : company.ids) {
    GenerationRequest request;
    request.id = id;
    request.prompt_ids = Prompt(id);
    request.max_new_tokens = 20 + id * 13 % 70;
    request.sampling = {.temperature = company.temperature,
                        .top_p = 0.95f,
                        .seed = 1000 + static_cast<uint64_t>(id)};
    engine->Submit(std::move(request));
    while (!engine->idle() && (!company.together || id == company.ids.back())) {
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

}  // namespace assay::engine::testing
