// Paged attention: right, and the same for a row however it was cut and placed.
#include "engine/kernels/cpu/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace assay::engine::cpu {
namespace {

// One sequence whose keys, values and queries are fixed by the seed.
class Sequence {
 public:
  Sequence(int num_heads, int num_kv_heads, int head_dim, int num_tokens)
      : num_heads_(num_heads),
        num_kv_heads_(num_kv_heads),
        head_dim_(head_dim),
        num_tokens_(num_tokens),
        queries_(size_t{1} * num_tokens * num_heads * head_dim),
        keys_(size_t{1} * num_tokens * num_kv_heads * head_dim),
        values_(keys_.size()) {
    std::mt19937_64 random(5);
    std::normal_distribution<float> normal;
    for (float& x : queries_) x = normal(random);
    for (float& x : keys_) x = normal(random);
    for (float& x : values_) x = normal(random);
  }

  // Attention in double, straight from the definition.
  double Expected(int token, int head, int d) const {
    const int kv_head = head / (num_heads_ / num_kv_heads_);
    double total = 0, output = 0;
    for (int t = 0; t <= token; ++t) {
      double score = 0;
      for (int i = 0; i < head_dim_; ++i) {
        score += double{Query(token, head)[i]} * Key(t, kv_head)[i];
      }
      const double weight = std::exp(score / std::sqrt(double(head_dim_)));
      total += weight;
      output += weight * Value(t, kv_head)[d];
    }
    return output / total;
  }

  // Runs the chunks one after the other, each after its keys were written; returns
  // [tokens, heads, head_dim]. Blocks are handed out backwards.
  std::vector<float> Run(int block_size, int chunk_len, int num_threads, float stale = 0.0f) const {
    const KvShape shape = {.num_layers = 2,
                           .num_kv_heads = num_kv_heads_,
                           .head_dim = head_dim_,
                           .block_size = block_size};
    const int num_blocks = (num_tokens_ + block_size - 1) / block_size + 1;
    PagedKv cache(shape, num_blocks);
    const std::vector<float> old(head_dim_, stale);
    for (int slot = 0; slot < num_blocks * block_size; ++slot) {
      for (int head = 0; head < num_kv_heads_; ++head) {
        cache.Write(1, slot / block_size, head, slot % block_size, old.data(), old.data());
      }
    }
    std::vector<int32_t> table;
    for (int block = num_blocks - 1; block > 0; --block) table.push_back(block);

    ThreadPool pool(num_threads);
    Attention attention(num_heads_, &cache, &pool);
    const int width = num_heads_ * head_dim_;
    std::vector<float> output(queries_.size());
    for (int begin = 0; begin < num_tokens_; begin += chunk_len) {
      const int rows = std::min(chunk_len, num_tokens_ - begin);
      for (int t = begin; t < begin + rows; ++t) {
        for (int head = 0; head < num_kv_heads_; ++head) {
          cache.Write(1, table[t / block_size], head, t % block_size, Key(t, head), Value(t, head));
        }
      }
      const AttentionChunk chunk = {
          .first_row = 0, .num_rows = rows, .first_position = begin, .block_table = table};
      attention.Run(1, {&chunk, 1}, queries_.data() + int64_t{begin} * width, width,
                    output.data() + int64_t{begin} * width, width);
    }
    return output;
  }

 private:
  const float* Query(int t, int head) const {
    return &queries_[(size_t{1} * t * num_heads_ + head) * head_dim_];
  }
  const float* Key(int t, int head) const {
    return &keys_[(size_t{1} * t * num_kv_heads_ + head) * head_dim_];
  }
  const float* Value(int t, int head) const {
    return &values_[(size_t{1} * t * num_kv_heads_ + head) * head_dim_];
  }

  int num_heads_, num_kv_heads_, head_dim_, num_tokens_;
  std::vector<float> queries_, keys_, values_;
};

struct Heads {
  int num_heads;
  int num_kv_heads;
  int head_dim;
};

class AttentionTest : public ::testing::TestWithParam<Heads> {
 protected:
  static constexpr int kTokens = 75;
  const Sequence sequence_{GetParam().num_heads, GetParam().num_kv_heads, GetParam().head_dim,
                           kTokens};
};

TEST_P(AttentionTest, OutputsAreThoseOfTheDefinition) {
  const std::vector<float> output = sequence_.Run(16, kTokens, 1);
  size_t index = 0;
  for (int t = 0; t < kTokens; ++t) {
    for (int head = 0; head < GetParam().num_heads; ++head) {
      for (int d = 0; d < GetParam().head_dim; ++d) {
        EXPECT_NEAR(output[index++], sequence_.Expected(t, head, d), 3e-6);
      }
    }
  }
}

TEST_P(AttentionTest, ChunksBlocksAndThreadsDoNotShow) {
  const std::vector<float> whole = sequence_.Run(16, kTokens, 1);
  EXPECT_EQ(whole, sequence_.Run(16, 1, 1)) << "token by token";
  EXPECT_EQ(whole, sequence_.Run(16, 7, 1)) << "chunks of 7";
  EXPECT_EQ(whole, sequence_.Run(48, 32, 1)) << "blocks of 48";
  EXPECT_EQ(whole, sequence_.Run(16, kTokens, 3)) << "three threads";
}

// A broken sequence may leave NaNs in the blocks it gives back.
TEST_P(AttentionTest, WhatABlockHeldBeforeIsNeverRead) {
  EXPECT_EQ(sequence_.Run(16, 9, 1),
            sequence_.Run(16, 9, 1, std::numeric_limits<float>::quiet_NaN()));
}

INSTANTIATE_TEST_SUITE_P(Shapes, AttentionTest,
                         ::testing::Values(Heads{2, 1, 128}, Heads{4, 2, 64}, Heads{7, 1, 128},
                                           Heads{3, 3, 18}, Heads{5, 1, 80}, Heads{1, 1, 2}),
                         [](const auto& instance) {
                           return std::to_string(instance.param.num_heads) + "over" +
                                  std::to_string(instance.param.num_kv_heads) + "of" +
                                  std::to_string(instance.param.head_dim);
                         });

TEST(AttendTest, EveryInstructionSetGivesTheSameBits) {
  constexpr int kHeadDim = 72, kStride = 80, kTokens = 50;
  std::mt19937_64 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> cache(4 * 16 * (kHeadDim + kStride)), queries(kMaxLanes * kHeadDim);
  for (float& x : cache) x = normal(random);
  for (float& x : queries) x = normal(random);
  const float* pages[4];
  for (int page = 0; page < 4; ++page) pages[page] = &cache[page * 16 * (kHeadDim + kStride)];

  std::vector<float> expected;
  for (auto kernels = AvailableKernels(); *kernels != nullptr; ++kernels) {
    std::vector<float> output(kMaxLanes * kHeadDim), scores(kMaxLanes * 64);
    std::vector<float> accumulators(kMaxLanes * kStride);
    AttendArgs args;
    args.pages = pages;
    args.head_dim = kHeadDim;
    args.value_stride = kStride;
    args.scale = 0.1f;
    args.num_lanes = kMaxLanes;
    for (int lane = 0; lane < kMaxLanes; ++lane) {
      args.query[lane] = &queries[lane * kHeadDim];
      args.output[lane] = &output[lane * kHeadDim];
      args.context_len[lane] = kTokens - kMaxLanes + 1 + lane;
    }
    args.scores = scores.data();
    args.scores_stride = 64;
    args.accumulators = accumulators.data();
    (*kernels)->attend(args);
    if (expected.empty()) expected = output;
    EXPECT_EQ(output, expected) << (*kernels)->name;
  }
}

}  // namespace
}  // namespace assay::engine::cpu
