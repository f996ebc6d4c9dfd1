// One decoder block computed by a gang of threads, each with its slice of every weight, against the
// same block computed whole: plain float loops, no backend.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "engine/parallel/in_process/in_process_communicator.h"
#include "engine/parallel/sharding.h"
#include "tests/testing/status_matchers.h"

namespace assay::engine {
namespace {

using assay::testing::IsError;
using Values = std::vector<float>;

constexpr int kNumTokens = 5;

ModelConfig Config(int num_heads, int num_kv_heads) {
  ModelConfig config;
  config.hidden_size = 24;
  config.intermediate_size = 32;
  config.num_layers = 1;
  config.num_heads = num_heads;
  config.num_kv_heads = num_kv_heads;
  config.head_dim = 8;
  config.vocab_size = 37;
  return config;
}

struct Weights {
  std::vector<LinearInfo> infos;
  std::map<LinearKind, Values> of;
  Values lm_head;  // [vocab, hidden]
};

Weights RandomWeights(const ModelConfig& config) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0, 0.3f);
  const auto draw = [&](int64_t size) {
    Values values(static_cast<size_t>(size));
    for (float& value : values) value = normal(random);
    return values;
  };
  Weights weights = {.infos = QuantizableLinears(config), .of = {}, .lm_head = {}};
  for (const LinearInfo& info : weights.infos) {
    weights.of[info.kind] = draw(int64_t{info.out_features} * info.in_features);
  }
  weights.lm_head = draw(int64_t{config.vocab_size} * config.hidden_size);
  return weights;
}

// y [tokens, slice rows] = x [tokens, slice columns] times the slice of a matrix.
Values Multiply(const Values& x, const Values& matrix, int64_t columns, const MatrixSlice& slice) {
  Values y;
  for (int64_t token = 0; token < kNumTokens; ++token) {
    for (int64_t row = slice.rows.begin; row < slice.rows.end; ++row) {
      float sum = 0;
      for (int64_t i = 0; i < slice.columns.size(); ++i) {
        sum += x[static_cast<size_t>(token * slice.columns.size() + i)] *
               matrix[static_cast<size_t>(row * columns + slice.columns.begin + i)];
      }
      y.push_back(sum);
    }
  }
  return y;
}

// Causal attention with the heads of `config`.
Values Attend(const ModelConfig& config, const Values& q, const Values& k, const Values& v) {
  const int dim = config.head_dim;
  const int group = config.num_heads / config.num_kv_heads;
  Values out(static_cast<size_t>(kNumTokens * config.q_size()));
  for (int token = 0; token < kNumTokens; ++token) {
    for (int head = 0; head < config.num_heads; ++head) {
      Values weights;
      float total = 0;
      for (int other = 0; other <= token; ++other) {
        float score = 0;
        for (int i = 0; i < dim; ++i) {
          score += q[token * config.q_size() + head * dim + i] *
                   k[other * config.kv_size() + head / group * dim + i];
        }
        weights.push_back(std::exp(score));
        total += weights.back();
      }
      for (int other = 0; other <= token; ++other) {
        for (int i = 0; i < dim; ++i) {
          out[token * config.q_size() + head * dim + i] +=
              weights[other] / total * v[other * config.kv_size() + head / group * dim + i];
        }
      }
    }
  }
  return out;
}

// The logits of x [tokens, hidden] after one block. sum(window, part): over the ranks.
Values RunBlock(const ShardPlan& shard, const Weights& weights, Values x,
                const std::function<Values(int, const Values&)>& sum) {
  const auto linear = [&](LinearKind kind, const Values& input) {
    const LinearInfo& info = weights.infos[static_cast<size_t>(kind)];
    return Multiply(input, weights.of.at(kind), info.in_features, shard.SliceOf(info));
  };
  const auto add = [&](const Values& update) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += update[i];
  };
  add(sum(0, linear(LinearKind::kO, Attend(shard.local, linear(LinearKind::kQ, x),
                                           linear(LinearKind::kK, x), linear(LinearKind::kV, x)))));
  Values activated = linear(LinearKind::kGate, x);
  const Values up = linear(LinearKind::kUp, x);
  for (size_t i = 0; i < up.size(); ++i) activated[i] = std::tanh(activated[i]) * up[i];
  add(sum(1, linear(LinearKind::kDown, activated)));
  return Multiply(x, weights.lm_head, shard.whole.hidden_size,
                  {.rows = shard.vocab, .columns = {0, shard.whole.hidden_size}});
}

Values SumOfParts(Communicator* communicator, int window, const Values& part) {
  float* const own = reinterpret_cast<float*>(communicator->window(window));
  std::copy(part.begin(), part.end(), own);
  const auto gang =
      communicator->Share(window, static_cast<int64_t>(part.size() * sizeof(float)), nullptr);
  Values total(part.size());
  if (!gang.ok()) return total;
  for (int rank = 0; rank < gang->num_ranks; ++rank) {
    for (size_t i = 0; i < total.size(); ++i) {
      total[i] += static_cast<const float*>(gang->parts[rank])[i];
    }
  }
  return total;
}

class ShardedBlockTest : public ::testing::TestWithParam<std::array<int, 3>> {};

TEST_P(ShardedBlockTest, AGangComputesTheWholeBlock) {
  const auto [num_heads, num_kv_heads, size] = GetParam();
  const ModelConfig config = Config(num_heads, num_kv_heads);
  const Weights weights = RandomWeights(config);
  Values input;
  for (int i = 0; i < kNumTokens * config.hidden_size; ++i) {
    input.push_back(0.1f * static_cast<float>(i * 7 % 23 - 11));
  }
  ASSERT_OK_AND_ASSIGN(const ShardPlan whole, PlanShard(config, 0, 1));
  const Values expected =
      RunBlock(whole, weights, input, [](int, const Values& part) { return part; });

  const int64_t bytes = int64_t{kNumTokens} * config.hidden_size * int64_t{sizeof(float)};
  const Communicators communicators = MakeInProcessCommunicators(size, {bytes, bytes});
  std::vector<ShardPlan> plans;
  std::vector<Values> logits(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    ASSERT_OK_AND_ASSIGN(plans.emplace_back(), PlanShard(config, rank, size));
  }
  for (size_t rank = 0; rank < plans.size(); ++rank) {
    threads.emplace_back([&, rank] {
      logits[rank] = RunBlock(plans[rank], weights, input, [&](int window, const Values& part) {
        return SumOfParts(communicators[rank].get(), window, part);
      });
    });
  }
  for (std::thread& thread : threads) thread.join();

  for (size_t rank = 0; rank < plans.size(); ++rank) {
    const IndexRange& vocab = plans[rank].vocab;
    for (int64_t token = 0; token < kNumTokens; ++token) {
      for (int64_t id = vocab.begin; id < vocab.end; ++id) {
        const float exact = expected[static_cast<size_t>(token * config.vocab_size + id)];
        const float own =
            logits[rank][static_cast<size_t>(token * vocab.size() + id - vocab.begin)];
        // Sums of a few dozen products of order one, added in another order in float32.
        ASSERT_NEAR(own, exact, 1e-4f) << "rank " << rank << ", id " << id;
      }
    }
  }
}

// Heads, KV heads, ranks: divided KV heads, one each, shared ones.
INSTANTIATE_TEST_SUITE_P(Gangs, ShardedBlockTest,
                         ::testing::Values(std::array{4, 4, 2}, std::array{8, 4, 4},
                                           std::array{8, 2, 4}, std::array{4, 1, 4},
                                           std::array{8, 2, 8}));

TEST(InProcessCommunicatorTest, ARankThatGivesUpFreesTheOthers) {
  const Communicators communicators = MakeInProcessCommunicators(3, {16});
  std::vector<absl::Status> results(2);
  std::vector<std::thread> waiting;
  for (size_t rank = 0; rank < results.size(); ++rank) {
    waiting.emplace_back(
        [&, rank] { results[rank] = communicators[rank]->Share(0, 16, nullptr).status(); });
  }
  communicators[2]->Abort();
  for (std::thread& thread : waiting) thread.join();
  for (const absl::Status& result : results) {
    EXPECT_THAT(result, IsError(absl::StatusCode::kAborted, "given up"));
  }
}

}  // namespace
}  // namespace assay::engine
