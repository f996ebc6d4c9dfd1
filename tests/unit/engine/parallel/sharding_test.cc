#include "engine/parallel/sharding.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "tests/testing/status_matchers.h"

namespace assay::engine {
namespace {

using assay::testing::IsError;

ModelConfig Config(int num_heads, int num_kv_heads, int intermediate_size, int vocab_size) {
  ModelConfig config;
  config.hidden_size = 64;
  config.intermediate_size = intermediate_size;
  config.num_layers = 1;
  config.num_heads = num_heads;
  config.num_kv_heads = num_kv_heads;
  config.head_dim = 16;
  config.vocab_size = vocab_size;
  return config;
}

// How many ranks hold each element of a linear.
std::vector<int> Holders(const ModelConfig& config, const LinearInfo& linear, int size) {
  std::vector<int> holders(static_cast<size_t>(linear.out_features) * linear.in_features);
  for (int rank = 0; rank < size; ++rank) {
    const auto plan = PlanShard(config, rank, size);
    EXPECT_OK(plan);
    const MatrixSlice slice = plan->SliceOf(linear);
    for (int64_t row = slice.rows.begin; row < slice.rows.end; ++row) {
      for (int64_t column = slice.columns.begin; column < slice.columns.end; ++column) {
        ++holders.at(static_cast<size_t>(row * linear.in_features + column));
      }
    }
  }
  return holders;
}

TEST(ShardingTest, EveryWeightIsHeldOnce) {
  const ModelConfig config = Config(8, 4, 96, 100);
  for (const int size : {1, 2, 4}) {
    for (const LinearInfo& linear : QuantizableLinears(config)) {
      for (const int holders : Holders(config, linear, size)) {
        ASSERT_EQ(holders, 1) << linear.name << " over " << size;
      }
    }
  }
}

TEST(ShardingTest, RanksBeyondTheKvHeadsShareThem) {
  const ModelConfig config = Config(8, 2, 96, 100);
  for (const LinearInfo& linear : QuantizableLinears(config)) {
    const bool is_kv = linear.kind == LinearKind::kK || linear.kind == LinearKind::kV;
    for (const int holders : Holders(config, linear, 8)) {
      ASSERT_EQ(holders, is_kv ? 4 : 1) << linear.name;
    }
  }
}

TEST(ShardingTest, ARanksQueryHeadsReadItsOwnKvHeads) {
  for (const auto& [heads, kv_heads, size] :
       std::vector<std::array<int, 3>>{{8, 4, 2}, {8, 2, 4}, {28, 4, 4}, {64, 8, 8}, {2, 1, 2}}) {
    const ModelConfig config = Config(heads, kv_heads, 840, 100);
    for (int rank = 0; rank < size; ++rank) {
      ASSERT_OK_AND_ASSIGN(const ShardPlan plan, PlanShard(config, rank, size));
      const int whole_group = heads / kv_heads;
      const int local_group = plan.local.num_heads / plan.local.num_kv_heads;
      for (int head = 0; head < plan.local.num_heads; ++head) {
        ASSERT_EQ(plan.kv_heads.begin + head / local_group, (plan.heads.begin + head) / whole_group)
            << heads << " heads, rank " << rank << " of " << size << ", its head " << head;
      }
    }
  }
}

TEST(ShardingTest, TheVocabularyIsCoveredInRowsOfWholeVectors) {
  const ModelConfig config = Config(8, 8, 96, 101);
  int64_t next = 0;
  for (int rank = 0; rank < 8; ++rank) {
    ASSERT_OK_AND_ASSIGN(const ShardPlan plan, PlanShard(config, rank, 8));
    EXPECT_EQ(plan.vocab.begin, next);
    EXPECT_LE(plan.vocab.size(), plan.lm_head_rows);
    EXPECT_EQ(plan.lm_head_rows % 8, 0);
    next = plan.vocab.end;
  }
  EXPECT_EQ(next, 101);
}

TEST(ShardingTest, OneGpuHoldsTheWholeModel) {
  const ModelConfig config = Config(6, 3, 90, 101);
  ASSERT_OK_AND_ASSIGN(const ShardPlan plan, PlanShard(config, 0, 1));
  EXPECT_EQ(plan.lm_head_rows, 101);
  EXPECT_EQ(plan.local.num_heads, 6);
  EXPECT_EQ(plan.local.num_kv_heads, 3);
  EXPECT_EQ(plan.local.intermediate_size, 90);
}

TEST(ShardingTest, ASizeThatDoesNotDivideIsRefusedWithThoseThatDo) {
  const auto heads = PlanShard(Config(28, 4, 18944, 152064), 0, 8);
  EXPECT_THAT(heads, IsError(absl::StatusCode::kInvalidArgument, "28 heads, 4 KV heads"));
  EXPECT_THAT(heads, IsError(absl::StatusCode::kInvalidArgument, "over 8 GPUs"));
  EXPECT_THAT(heads, IsError(absl::StatusCode::kInvalidArgument, "possible are 1, 2, 4"));
  // Six KV heads over four ranks: neither divides the other.
  EXPECT_THAT(PlanShard(Config(12, 6, 96, 100), 0, 4),
              IsError(absl::StatusCode::kInvalidArgument, "6 KV heads"));
  EXPECT_THAT(PlanShard(Config(8, 8, 90, 100), 0, 4),
              IsError(absl::StatusCode::kInvalidArgument, "intermediate size of 90"));
  EXPECT_THAT(PlanShard(Config(32, 32, 96, 100), 0, 16),
              IsError(absl::StatusCode::kInvalidArgument, "1 to 8"));
}

}  // namespace
}  // namespace assay::engine
