// Every quantized cell of the demo against Hugging Face transformers with the same grids simulated
// on top (README.md): Assay makes the artifact, Assay's engine scores the reference's ids.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "engine/runtime/engine.h"
#include "tests/golden/quantized_cells.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::engine {
namespace {

using Cell = testing::QuantizedCell;

// Without a quantized cache both sides compute the same float32 function, in another order of
// summation: the 2e-3 that the unquantized model is held to. A quantized cache rounds values that
// differ in their last bits: about one key or value in fifty thousand falls on the other side of a
// boundary and moves by a whole step, and whatever attends to it moves too. So most positions agree
// as before, and a few do not.
constexpr double kTolerance = 2e-3;
constexpr double kShareWithin = 0.9;
constexpr double kMeanTolerance = 0.02;

class QuantizedReferenceTest : public ::testing::TestWithParam<Cell> {};

TEST_P(QuantizedReferenceTest, AgreesWithTransformers) {
  const Cell& cell = GetParam();
  const assay::testing::TemporaryDirectory directory;
  ASSERT_OK_AND_ASSIGN(const std::string run_dir, testing::MakeCell(cell, directory.path()));
  ASSERT_OK_AND_ASSIGN(const auto engine, Engine::Load(run_dir, {}));

  std::vector<double> differences;
  const auto sequences = testing::ReadReference(cell);
  ASSERT_EQ(sequences.size(), 10u);
  for (const testing::ReferenceSequence& sequence : sequences) {
    ASSERT_OK_AND_ASSIGN(const std::vector<float> logits, engine->Forward(sequence.ids, nullptr));
    const std::vector<double> actual = testing::TargetLogprobs(logits, sequence.ids);
    ASSERT_EQ(actual.size(), sequence.target_logprobs.size());
    for (size_t i = 0; i < actual.size(); ++i) {
      differences.push_back(std::abs(actual[i] - sequence.target_logprobs[i]));
    }
  }
  std::sort(differences.begin(), differences.end());
  double sum = 0;
  for (const double d : differences) sum += d;
  const double mean = sum / static_cast<double>(differences.size());
  const double at_share =
      differences[static_cast<size_t>(kShareWithin * static_cast<double>(differences.size()))];
  RecordProperty("mean_difference", std::to_string(mean));
  RecordProperty("largest_difference", std::to_string(differences.back()));
  if (cell.quantizes_cache()) {
    EXPECT_LE(at_share, kTolerance) << "mean " << mean << ", largest " << differences.back();
    EXPECT_LE(mean, kMeanTolerance) << "largest " << differences.back();
  } else {
    EXPECT_LE(differences.back(), kTolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cells, QuantizedReferenceTest,
    ::testing::Values(Cell{"tiny-qwen2-1m", "bf16", "bf16", "16-16-16"},
                      Cell{"tiny-qwen2-1m", "rtn-4", "rtn", "4-16-16"},
                      Cell{"tiny-qwen2-1m", "rtn-3", "rtn", "3-16-16"},
                      Cell{"tiny-qwen2-1m", "rtn-2", "rtn", "2-16-16"},
                      Cell{"tiny-qwen2-1m", "kvquant-4-pre-bias", "kvquant_star", "16-16-4", true},
                      Cell{"tiny-qwen2-1m", "kvquant-3-pre-bias", "kvquant_star", "16-16-3", true},
                      Cell{"tiny-qwen2-1m", "kvquant-4", "kvquant_star", "16-16-4"},
                      Cell{"tiny-qwen2-1m", "quarot-4", "quarot", "16-16-4"},
                      Cell{"tiny-llama-5m", "bf16", "bf16", "16-16-16"},
                      Cell{"tiny-llama-5m", "rtn-4", "rtn", "4-16-16"},
                      Cell{"tiny-llama-5m", "rtn-3", "rtn", "3-16-16"},
                      Cell{"tiny-llama-5m", "rtn-2", "rtn", "2-16-16"},
                      Cell{"tiny-llama-5m", "kvquant-4", "kvquant_star", "16-16-4"},
                      Cell{"tiny-llama-5m", "quarot-4", "quarot", "16-16-4"}),
    [](const auto& instance) { return instance.param.name(); });

}  // namespace
}  // namespace assay::engine
