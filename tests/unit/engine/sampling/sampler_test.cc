#include "engine/sampling/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <vector>

#include "engine/kernels/philox.h"

namespace assay::engine {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> RandomLogits(int size, float deviation, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> logits(size);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// The definition of sampler.h with a full sort in double. `margin` gets the distance of the draw
// from the nearest boundary between tokens, below which float32 may decide otherwise.
int32_t Reference(const std::vector<float>& logits, const SamplingParams& params, uint64_t position,
                  double* margin) {
  std::vector<int32_t> ranks(logits.size());
  std::iota(ranks.begin(), ranks.end(), 0);
  std::stable_sort(ranks.begin(), ranks.end(),
                   [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  if (params.top_k > 0 && params.top_k < static_cast<int>(ranks.size())) {
    ranks.resize(params.top_k);
  }
  std::vector<double> masses;
  for (const int32_t id : ranks) {
    masses.push_back(std::exp((double{logits[id]} - logits[ranks[0]]) / params.temperature));
  }
  const double total = std::accumulate(masses.begin(), masses.end(), 0.0);
  double kept = 0;
  size_t num_kept = 0;
  *margin = 1;
  while (num_kept < masses.size() && (num_kept == 0 || kept < params.top_p * total)) {
    *margin = std::min(*margin, std::abs(kept / total - params.top_p));
    kept += masses[num_kept++];
  }
  *margin = std::min(*margin, params.top_p < 1 ? std::abs(kept / total - params.top_p) : 1.0);
  const double target = static_cast<double>(UniformWord(params.seed, position)) * 0x1p-64 * kept;
  double running = 0;
  int32_t chosen = ranks[num_kept - 1];
  bool found = false;
  for (size_t i = 0; i < num_kept; ++i) {
    running += masses[i];
    *margin = std::min(*margin, std::abs(running - target) / kept);
    if (!found && running > target) {
      chosen = ranks[i];
      found = true;
    }
  }
  return chosen;
}

TEST(SamplerTest, ChoosesWhatTheDefinitionChooses) {
  Sampler sampler;
  const SamplingParams cases[] = {
      {.temperature = 0.6f, .top_p = 0.95f},  {.temperature = 1.0f},
      {.temperature = 0.6f, .top_k = 30},     {.temperature = 0.6f, .top_p = 0.95f, .top_k = 30},
      {.temperature = 2.0f, .top_p = 0.999f}, {.temperature = 1.0f, .top_p = 0.3f, .top_k = 1000},
      {.temperature = 0.1f, .top_p = 1e-6f},
  };
  int num_compared = 0;
  for (const int size : {3, 96, 512, 5000}) {
    for (const float deviation : {0.1f, 2.0f, 8.0f}) {
      const std::vector<float> logits = RandomLogits(size, deviation, size);
      for (SamplingParams params : cases) {
        for (uint64_t position = 0; position < 20; ++position) {
          params.seed = position * 77;
          double margin = 0;
          const int32_t expected = Reference(logits, params, position, &margin);
          if (margin < 1e-5) continue;
          ++num_compared;
          EXPECT_EQ(sampler.Sample(logits, params, position), expected)
              << size << " " << deviation << " " << params.temperature << " " << params.top_p << " "
              << params.top_k;
        }
      }
    }
  }
  EXPECT_GT(num_compared, 1000);
}

TEST(SamplerTest, FrequenciesAreTheProbabilities) {
  Sampler sampler;
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.15f),
                                     std::log(0.05f)};
  constexpr int kDraws = 20000;
  std::map<int32_t, int> counts;
  for (int i = 0; i < kDraws; ++i) {
    ++counts[sampler.Sample(logits, {.temperature = 1, .seed = 42}, i)];
  }
  const double expected[] = {0.5, 0.3, 0.15, 0.05};
  double chi_square = 0;
  for (int id = 0; id < 4; ++id) {
    const double mean = kDraws * expected[id];
    chi_square += (counts[id] - mean) * (counts[id] - mean) / mean;
  }
  EXPECT_LT(chi_square, 16.3);  // 3 degrees of freedom, p = 0.001
}

// The mass of top_p counts within what top_k kept: of {4, 3} / 7, 4 / 7 reaches 0.5, though 0.4 of
// the whole does not.
TEST(SamplerTest, TopPRenormalizesOverTopK) {
  Sampler sampler;
  const std::vector<float> logits = {std::log(0.4f), std::log(0.3f), std::log(0.3f)};
  for (uint64_t i = 0; i < 200; ++i) {
    EXPECT_EQ(sampler.Sample(logits, {.temperature = 1, .top_p = 0.5f, .top_k = 2}, i), 0);
  }
}

TEST(SamplerTest, GreedyTakesTheLowestIdOfEquals) {
  Sampler sampler;
  EXPECT_EQ(sampler.Sample(std::vector<float>{1, 3, 2, 3}, {}, 0), 1);
  EXPECT_EQ(sampler.Sample(std::vector<float>{-kInfinity, kNan, -2}, {}, 0), 2);
}

TEST(SamplerTest, BrokenLogitsGiveAToken) {
  Sampler sampler;
  const SamplingParams params = {.temperature = 0.6f, .top_p = 0.95f};
  for (uint64_t i = 0; i < 50; ++i) {
    EXPECT_EQ(sampler.Sample(std::vector<float>(4, kNan), params, i), 0);
    EXPECT_EQ(sampler.Sample(std::vector<float>{1, kInfinity, kNan}, params, i), 1);
    EXPECT_EQ(sampler.Sample(std::vector<float>{kNan, -kInfinity, 3, kNan}, params, i), 2);
  }
}

TEST(SamplerTest, AVocabularyOf152kIsNoDifferent) {
  Sampler sampler;
  const std::vector<float> logits = RandomLogits(152064, 3, 1);
  for (uint64_t position = 0; position < 5; ++position) {
    const SamplingParams params = {.temperature = 1, .top_p = 0.9f, .top_k = 40, .seed = 5};
    double margin = 0;
    const int32_t expected = Reference(logits, params, position, &margin);
    ASSERT_GT(margin, 1e-6);
    EXPECT_EQ(sampler.Sample(logits, params, position), expected);
  }
}

}  // namespace
}  // namespace assay::engine
