// A unit's tokens are its own: alone, in a batch of 256, in another graph bucket, beside prompts
// that are cut into chunks, and after it lost its place in the cache.
//
// Sampling at a high temperature is the measure: a target falls into one of many tokens' intervals,
// so that a change of the logits' last bits somewhere shows in some token of some request.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <string>

#include "engine/kernels/cuda/kv_pages.h"
#include "tests/kernels/cuda_fixture.h"
#include "tests/kernels/engine_cases.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/engine/decoder/random_model.h"

namespace assay::engine {
namespace {

using testing::EngineCase;
using testing::Outputs;
using testing::RandomIds;
using testing::Requests;

class CudaInvarianceTest : public testing::EngineCaseTest {
 protected:
  static constexpr float kTemperature = 1.5f;
  static constexpr int kRequests = 40;

  // The same for every test of a case, so generated once.
  const Outputs& alone() const {
    static std::map<std::string, Outputs> of_cases;
    Outputs& outputs = of_cases[GetParam().name];
    if (outputs.empty()) {
      outputs = Generate({.max_model_len = 512}, {Requests(kRequests), false, kTemperature});
    }
    return outputs;
  }

  Outputs Together(EngineOptions options, int num_requests) const {
    options.max_model_len = 512;
    return Generate(options, {Requests(num_requests), true, kTemperature});
  }

  // The part of `outputs` that alone() has too.
  static Outputs FirstOf(const Outputs& outputs) {
    return {outputs.begin(), outputs.lower_bound(kRequests)};
  }
};

TEST_P(CudaInvarianceTest, InABatchOf256) {
  ASSERT_EQ(alone().size(), size_t{kRequests});
  const Outputs outputs = Together({.max_num_seqs = 256}, 256);
  EXPECT_EQ(outputs.size(), 256u);
  EXPECT_EQ(FirstOf(outputs), alone());
}

// 7, 33 and 100 rows run in graphs of 8, 48 and 112, the last rows idle.
TEST_P(CudaInvarianceTest, InOtherGraphBuckets) {
  for (const int lanes : {7, 33, 100}) {
    SCOPED_TRACE(lanes);
    EXPECT_EQ(FirstOf(Together({.max_num_seqs = lanes}, lanes + kRequests)), alone());
  }
}

// Chunks of 1 and 33 tokens run beside the decode rows of others, without a graph.
TEST_P(CudaInvarianceTest, BesideChunksOfPrompts) {
  for (const int chunk : {1, 33}) {
    SCOPED_TRACE(chunk);
    EXPECT_EQ(Together({.max_num_seqs = 24, .prefill_chunk = chunk}, kRequests), alone());
  }
}

TEST_P(CudaInvarianceTest, AfterPreemption) {
  ASSERT_OK_AND_ASSIGN(const QuantDescription description, LoadDescription(model_dir()));
  const ModelConfig& config = GetParam().config;
  ASSERT_OK_AND_ASSIGN(
      const cuda::KvPageLayout layout,
      cuda::MakeKvPageLayout(description.k_cache, description.v_cache, config.head_dim));
  const cuda::KvCache cache = {
      .num_layers = config.num_layers, .num_kv_heads = config.num_kv_heads, .layout = layout};
  // A sequence of 256 tokens takes 4 blocks; 5 let others start and then be sent away.
  const EngineOptions options = {.max_model_len = 256, .kv_cache_bytes = 5 * cache.block_bytes()};
  int64_t num_preemptions = 0;
  EXPECT_EQ(Generate(options, {Requests(kRequests), true, kTemperature}, &num_preemptions),
            alone());
  EXPECT_GT(num_preemptions, 0);
}

// Angles are there for a whole page of positions, which a model of fewer tokens does not have.
TEST_P(CudaInvarianceTest, InAModelShorterThanAPage) {
  Outputs outputs[2];
  for (const int64_t max_model_len : {40, 512}) {
    const auto engine = Load(
        {.device = "cuda", .max_num_seqs = 4, .max_model_len = max_model_len, .prefill_chunk = 16});
    ASSERT_NE(engine, nullptr);
    GenerationRequest request;
    request.prompt_ids = RandomIds(10, GetParam().config.vocab_size, 3);
    request.max_new_tokens = 30;
    request.sampling = {.temperature = kTemperature, .seed = 5};
    engine->Submit(std::move(request));
    while (!engine->idle()) {
      ASSERT_OK_AND_ASSIGN(const std::vector<GenerationResult> finished, engine->Step());
      for (const GenerationResult& result : finished) {
        outputs[max_model_len == 40][result.id] = result.output_ids;
      }
    }
  }
  EXPECT_EQ(outputs[1][0].size(), 30u);
  EXPECT_EQ(outputs[1], outputs[0]);
}

INSTANTIATE_TEST_SUITE_P(Models, CudaInvarianceTest, ::testing::ValuesIn(testing::EngineCases()),
                         [](const auto& instance) { return instance.param.name; });

// The true shapes have matrices of their own, whose products are chosen among other kernels: two
// layers of each with weights drawn on the device and the whole vocabulary. Near-uniform sampling
// over 150,000 tokens tells logits apart that differ by a hundred-thousandth.
struct TrueShape {
  std::string name;
  Family family;
  int hidden_size;
  int num_heads;
  int num_kv_heads;
  int intermediate_size;
  int vocab_size;
  int kv_bits;
};

class CudaTrueShapeTest : public ::testing::TestWithParam<TrueShape> {
 protected:
  void SetUp() override {
    if (cuda::NumDevices() == 0) GTEST_SKIP() << cuda::kNoGpu;
    const TrueShape& shape = GetParam();
    ModelConfig config =
        testing::EngineCaseConfig(shape.family, 128, shape.num_heads, shape.num_kv_heads);
    config.hidden_size = shape.hidden_size;
    config.intermediate_size = shape.intermediate_size;
    config.vocab_size = shape.vocab_size;
    testing::WriteModelConfig(config, dir_.path());
    if (shape.kv_bits < 16) {
      std::ofstream(dir_ / kDescriptionFile)
          << ToJson(testing::PerTokenCache(shape.kv_bits, CacheSpec::Transform::kHadamard));
    }
  }

  // Request i is of 1 + 29 i % 200 tokens and asks for 24.
  Outputs Generate(int first, int last, int prefill_chunk) {
    Outputs outputs;
    const auto engine = Engine::Load(dir_.path(), {.device = "cuda",
                                                   .max_num_seqs = 256,
                                                   .max_model_len = 256,
                                                   .prefill_chunk = prefill_chunk,
                                                   .random_weights = true});
    EXPECT_OK(engine);
    if (!engine.ok()) return outputs;
    for (int id = first; id < last; ++id) {
      GenerationRequest request;
      request.id = id;
      request.prompt_ids =
          RandomIds(1 + 29 * id % 200, GetParam().vocab_size, static_cast<uint64_t>(id));
      request.max_new_tokens = 24;
      request.sampling = {.temperature = 20, .seed = static_cast<uint64_t>(id)};
      (*engine)->Submit(std::move(request));
    }
    while (!(*engine)->idle()) {
      auto finished = (*engine)->Step();
      EXPECT_OK(finished);
      if (!finished.ok()) return outputs;
      for (GenerationResult& result : *finished) outputs[result.id] = std::move(result.output_ids);
    }
    return outputs;
  }

  assay::testing::TemporaryDirectory dir_;
};

TEST_P(CudaTrueShapeTest, TokensDoNotDependOnTheBatch) {
  const Outputs all = Generate(0, 256, 2048);
  ASSERT_EQ(all.size(), 256u);
  for (const auto& [first, last] : {std::pair{5, 6}, {100, 107}, {180, 230}}) {
    SCOPED_TRACE(fmt::format("requests {} to {}", first, last));
    const Outputs some = Generate(first, last, 37);
    EXPECT_EQ(some, Outputs(all.lower_bound(first), all.lower_bound(last)));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, CudaTrueShapeTest,
    ::testing::Values(TrueShape{"qwen_1_5b", Family::kQwen2, 1536, 12, 2, 8960, 151936, 16},
                      TrueShape{"qwen_7b", Family::kQwen2, 3584, 28, 4, 18944, 152064, 16},
                      TrueShape{"qwen_7b_kv4", Family::kQwen2, 3584, 28, 4, 18944, 152064, 4},
                      TrueShape{"llama_8b", Family::kLlama, 4096, 32, 8, 14336, 128256, 16},
                      TrueShape{"qwen_32b", Family::kQwen2, 5120, 40, 8, 27648, 152064, 16}),
    [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace assay::engine
