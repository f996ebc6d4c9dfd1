// How much memory a model's weights will take, and which linears stay packed: known without a GPU.
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "engine/decoder/cuda/cuda_model.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::engine::cuda {
namespace {

// The shape of Llama 3.3 70B.
constexpr char kConfig[] = R"({
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
  "hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64,
  "num_key_value_heads": 8, "num_hidden_layers": 80, "head_dim": 128, "vocab_size": 128256,
  "max_position_embeddings": 131072, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
  "tie_word_embeddings": false, "bos_token_id": 128000, "eos_token_id": 128009})";
constexpr double kLinearParameters = 80.0 * 8192 * (2 * 8192 + 2 * 1024 + 3 * 28672);
constexpr double kGib = 1024.0 * 1024 * 1024;

class ModelPlanTest : public ::testing::Test {
 protected:
  ModelPlanTest() { std::ofstream(dir_ / "config.json") << kConfig; }

  absl::StatusOr<CudaModelPlan> Plan(int bit_width, int rank = 0, int size = 1) const {
    return PlanCudaModel(dir_.path(), RandomWeights{.bit_width = bit_width}, rank, size);
  }

 private:
  testing::TemporaryDirectory dir_;
};

TEST_F(ModelPlanTest, SeventyBillionWeightsOfFourBitsFitOneGpu) {
  ASSERT_OK_AND_ASSIGN(const CudaModelPlan bf16, Plan(16));
  EXPECT_DOUBLE_EQ(static_cast<double>(bf16.linear_bytes), 2 * kLinearParameters);
  ASSERT_OK_AND_ASSIGN(const CudaModelPlan packed, Plan(4));
  // A code, and 4 + 1 bytes of scale and zero point for 128 of them.
  EXPECT_DOUBLE_EQ(static_cast<double>(packed.linear_bytes), kLinearParameters * (0.5 + 5.0 / 128));
  EXPECT_LT(static_cast<double>(packed.weight_bytes), 40 * kGib);
}

TEST_F(ModelPlanTest, RanksHoldTheirPartsPacked) {
  for (const int bits : {8, 4, 3}) {
    ASSERT_OK_AND_ASSIGN(const CudaModelPlan whole, Plan(bits));
    ASSERT_OK_AND_ASSIGN(const CudaModelPlan half, Plan(bits, 1, 2));
    EXPECT_EQ(half.linear_bytes * 2, whole.linear_bytes) << bits << " bits";
  }
}

TEST_F(ModelPlanTest, AFewLayersTakeTheirShare) {
  ASSERT_OK_AND_ASSIGN(CudaModelPlan plan, Plan(16));
  const int64_t whole = plan.linear_bytes;
  ASSERT_OK(CutLayers(2, &plan));
  EXPECT_EQ(plan.linear_bytes * 40, whole);
}

}  // namespace
}  // namespace assay::engine::cuda
