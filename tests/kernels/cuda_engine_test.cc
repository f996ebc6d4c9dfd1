// Whole models on the GPU against the CPU backend, and what is refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "engine/decoder/cuda/memory_plan.h"
#include "engine/kernels/cuda/device.h"
#include "tests/kernels/cuda_fixture.h"
#include "tests/kernels/engine_cases.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/engine/decoder/random_model.h"

namespace assay::engine {
namespace {

using assay::testing::IsError;
using assay::testing::SourcePath;
using assay::testing::TemporaryDirectory;
using testing::EngineCase;
using testing::EngineCaseConfig;
using testing::Outputs;
using testing::RandomIds;
using testing::WriteRandomModel;

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

class CudaEngineTest : public testing::EngineCaseTest {};

// What an engine allocates next is likely to hold such bytes: blocks of all sizes, and more of them
// than these models take.
void FillFreeMemory(int byte) {
  std::vector<cuda::DeviceBuffer<uint8_t>> blocks;
  for (int64_t size = int64_t{1} << 10; size <= int64_t{1} << 29; size *= 2) {
    for (int copy = 0; copy < 2; ++copy) {
      auto block = cuda::DeviceBuffer<uint8_t>::Allocate(size);
      if (!block.ok()) return;  // other tests share the GPU
      ASSERT_OK(cuda::SetBytes(block->data(), byte, size));
      blocks.push_back(*std::move(block));
    }
  }
}

// The GPU stores activations in bf16; the CPU can do as if. Both are then as far from float32's
// logits as that rounding takes them: on an H100 the two errors' ratio was 0.99..1.01 for each
// model. The largest errors scatter more.
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
  EXPECT_LT(std::sqrt(cuda.mean_square), 1.25 * std::sqrt(cpu.mean_square));
  EXPECT_LT(cuda.worst, 3 * cpu.worst);
}

// Whatever is read was written before: engines that get memory full of NaN, of large numbers and of
// zeros compute the same bits, as does one engine that is asked again.
TEST_P(CudaEngineTest, WhatMemoryHeldBeforeDoesNotShow) {
  const std::vector<int32_t> ids = RandomIds(300, GetParam().config.vocab_size, 1);
  std::vector<float> expected;
  for (const int byte : {0xFF, 0x7E, 0}) {
    FillFreeMemory(byte);
    const auto engine = Load({.device = "cuda", .max_model_len = 512});
    ASSERT_NE(engine, nullptr);
    for (const char* when : {"first", "again"}) {
      ASSERT_OK_AND_ASSIGN(const std::vector<float> logits, engine->Forward(ids, nullptr));
      if (expected.empty()) expected = logits;
      EXPECT_EQ(std::memcmp(logits.data(), expected.data(), expected.size() * sizeof(float)), 0)
          << when << " in memory of bytes " << byte;
    }
  }
}

// Every token of a greedy answer is the best one in float32, or misses it by no more than bf16's
// rounding makes of two logits.
TEST_P(CudaEngineTest, GreedyTokensAreTheBestUpToRounding) {
  const auto exact = Load({});
  const auto rounded = Load({.round_activations_to_bf16 = true});
  const int64_t vocab = GetParam().config.vocab_size;
  constexpr int kRequests = 6;
  const Outputs outputs = Generate({.max_model_len = 512}, {.ids = testing::Requests(kRequests)});
  ASSERT_EQ(outputs.size(), static_cast<size_t>(kRequests));
  for (const auto& [id, output] : outputs) {
    std::vector<int32_t> ids = Prompt(id);
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

INSTANTIATE_TEST_SUITE_P(Models, CudaEngineTest, ::testing::ValuesIn(testing::EngineCases()),
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
  WriteRandomModel(EngineCaseConfig(Family::kQwen2, 128, 6, 2), dir_.path(), 1);
  std::filesystem::remove(dir_ / "model.safetensors");
  const EngineOptions options = {.device = "cuda", .max_model_len = 256, .random_weights = true};
  ASSERT_OK_AND_ASSIGN(const auto engine, Engine::Load(dir_.path(), options));
  ASSERT_OK_AND_ASSIGN(const std::vector<float> logits,
                       engine->Forward(RandomIds(10, 200, 1), nullptr));
  for (const float logit : logits) ASSERT_TRUE(std::isfinite(logit));
}

TEST_F(CudaModelTest, WhatOnlyTheCpuRunsIsRefused) {
  const ModelConfig config = EngineCaseConfig(Family::kLlama, 128, 2, 2);
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
  WriteRandomModel(EngineCaseConfig(Family::kLlama, 128, 2, 2), dir.path(), 1);
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

TEST(MemoryPlanTest, ScoringHasItsRoomBesideTheCache) {
  cuda::MemoryDemand demand = EightGibModel();
  demand.scoring_bytes = 2 * kGib;
  ASSERT_OK_AND_ASSIGN(const cuda::MemoryPlan plan, cuda::PlanMemory(demand));
  EXPECT_EQ(plan.cache_bytes, 7 * kGib);
  EXPECT_EQ(plan.total_bytes, 17 * kGib);
  EXPECT_THAT(plan.summary, ::testing::HasSubstr("scoring 2.00"));
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
