// The device draws the CPU sampler's ids, all of them.
#include "engine/kernels/cuda/sample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/sampling/sampler.h"
#include "tests/kernels/cuda_fixture.h"

namespace assay::engine::cuda {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

class SampleTest : public CudaTest {
 protected:
  // Each row with each setting, at a few positions: device against CPU.
  void ExpectSameIds(const std::vector<std::vector<float>>& rows,
                     const std::vector<SamplingParams>& settings, int num_positions) {
    const size_t vocab = rows[0].size();
    std::vector<float> logits;
    std::vector<RowSampling> params;
    std::vector<int32_t> expected;
    for (const std::vector<float>& row : rows) {
      for (SamplingParams setting : settings) {
        for (int position = 0; position < num_positions; ++position) {
          setting.seed = random_();
          logits.insert(logits.end(), row.begin(), row.end());
          params.push_back({.temperature = setting.temperature,
                            .top_p = setting.top_p,
                            .top_k = setting.top_k,
                            .seed = setting.seed,
                            .position = static_cast<uint64_t>(position)});
          expected.push_back(sampler_.Sample(row, setting, static_cast<uint64_t>(position)));
        }
      }
    }
    const auto device_logits = ToDevice(logits);
    const auto device_params = ToDevice(params);
    const auto ids = OnDevice<int32_t>(std::ssize(expected));
    const int num_rows = static_cast<int>(expected.size());
    // The fewer rows, the more thread blocks share one.
    for (const int rows_at_once : {num_rows, 129, 65, 33, 17, 7}) {
      for (int first = 0; first < num_rows; first += rows_at_once) {
        ASSERT_OK(Sample({.logits = device_logits.data() + first * static_cast<int64_t>(vocab),
                          .params = device_params.data() + first,
                          .ids = ids.data() + first,
                          .num_rows = std::min(rows_at_once, num_rows - first),
                          .vocab_size = static_cast<int>(vocab)},
                         stream()));
      }
      ExpectIds(ToHost(ids), expected, params);
      ASSERT_EQ(cudaMemsetAsync(ids.data(), 0xFF, static_cast<size_t>(ids.bytes()), stream()),
                cudaSuccess);
    }
  }

  static void ExpectIds(const std::vector<int32_t>& actual, const std::vector<int32_t>& expected,
                        const std::vector<RowSampling>& params) {
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_EQ(actual[i], expected[i])
          << "row " << i << " temperature " << params[i].temperature << " top_p " << params[i].top_p
          << " top_k " << params[i].top_k << " seed " << params[i].seed << " position "
          << params[i].position;
    }
  }

  std::vector<float> Normal(size_t size, float deviation) {
    std::normal_distribution<float> normal(0, deviation);
    std::vector<float> row(size);
    for (float& logit : row) logit = normal(random_);
    return row;
  }

  const std::vector<SamplingParams> settings_ = {
      {},
      {.temperature = 0.6f, .top_p = 0.95f},
      {.temperature = 1.0f},
      {.temperature = 0.6f, .top_k = 30},
      {.temperature = 0.6f, .top_p = 0.95f, .top_k = 30},
      {.temperature = 1.0f, .top_p = 0.5f, .top_k = 1},
      {.temperature = 2.0f, .top_p = 0.999f, .top_k = 5000},
      {.temperature = 0.1f, .top_p = 1e-6f},
      {.temperature = 5.0f, .top_p = 0.0f},
      {.temperature = 1.0f, .top_k = 1 << 30},
  };
  Sampler sampler_;
  std::mt19937_64 random_{std::random_device{}()};
};

class SampleVocabularyTest : public SampleTest, public ::testing::WithParamInterface<size_t> {};

TEST_P(SampleVocabularyTest, IdsAreTheCpus) {
  const size_t vocab = GetParam();
  const int num_positions = vocab < 10000 ? 20 : 4;
  ExpectSameIds({Normal(vocab, 0.1f), Normal(vocab, 2), Normal(vocab, 8)}, settings_,
                num_positions);
}

// The last three are real models'; a slice of the last does not fit a block's memory.
INSTANTIATE_TEST_SUITE_P(Vocabularies, SampleVocabularyTest,
                         ::testing::Values(1, 3, 96, 512, 1001, 5000, 128256, 151936, 262144));

// Small enough for racecheck, which takes seconds a row; by blocks alone and by clusters of them.
TEST_F(SampleTest, OneDrawOfEachSettingIsTheCpus) {
  ExpectSameIds({Normal(64, 2), Normal(64, 8)}, settings_, 1);
}

// A bin of levels that holds more tokens than the list: it is split, in the end by id.
TEST_F(SampleTest, EqualLogitsAreDrawnInTheOrderOfIds) {
  std::vector<float> equal(20000, 1.5f);
  std::vector<float> two_values(20000, -1.0f);
  std::vector<float> close(20000);
  for (size_t i = 0; i < equal.size(); ++i) {
    if (i % 3 == 0) two_values[i] = 2.0f;
    close[i] = 1.0f + static_cast<float>(random_() % 2000) * 0x1.0p-23f;
  }
  ExpectSameIds({equal, two_values, close}, settings_, 4);
}

TEST_F(SampleTest, BrokenLogitsGiveTheCpusIds) {
  std::vector<float> some_nan = Normal(1000, 2);
  for (size_t i = 0; i < some_nan.size(); i += 3) some_nan[i] = kNan;
  std::vector<float> infinite = Normal(1000, 2);
  infinite[77] = infinite[500] = kInfinity;
  std::vector<float> mostly_impossible(1000, -kInfinity);
  mostly_impossible[123] = -5;
  mostly_impossible[900] = -5.5f;
  std::vector<float> zeros(1000, 0.0f);
  zeros[3] = -0.0f;
  ExpectSameIds({some_nan, infinite, mostly_impossible, zeros, std::vector<float>(1000, kNan),
                 std::vector<float>(1000, -kInfinity), std::vector<float>(1000, -1e30f)},
                settings_, 3);
}

TEST_F(SampleTest, NoRowsAreNoLaunch) { EXPECT_OK(Sample({}, stream())); }

}  // namespace
}  // namespace assay::engine::cuda
