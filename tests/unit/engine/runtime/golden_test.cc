// The engine against what Hugging Face computed for the same models in float32.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/runtime/engine.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::engine {
namespace {

using assay::testing::kNoShared;
using assay::testing::SharedPath;
using Json = nlohmann::json;

class GoldenTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    model_dir_ = SharedPath("models/" + GetParam());
    const std::string reference = SharedPath("reference/model_" + GetParam() + ".jsonl");
    if (model_dir_.empty() || reference.empty()) GTEST_SKIP() << kNoShared;
    std::ifstream file(reference);
    for (std::string line; std::getline(file, line);) problems_.push_back(Json::parse(line));
    ASSERT_EQ(problems_.size(), 25u);
  }

  std::string model_dir_;
  std::vector<Json> problems_;
};

TEST_P(GoldenTest, TeacherForcedLogitsAreThoseOfTheReference) {
  ASSERT_OK_AND_ASSIGN(const auto engine, Engine::Load(model_dir_, {}));
  const int64_t vocab = engine->config().vocab_size;
  double worst_logprob = 0, worst_logit = 0;
  for (const Json& problem : problems_) {
    const auto ids = problem["full_ids"].get<std::vector<int32_t>>();
    const auto expected = problem["target_logprobs"].get<std::vector<double>>();
    const auto last_logits = problem["last_logits"].get<std::vector<double>>();
    ASSERT_OK_AND_ASSIGN(const std::vector<float> logits, engine->Forward(ids, nullptr));
    ASSERT_EQ(expected.size(), ids.size() - 1);
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const float* row = logits.data() + i * vocab;
      const double maximum = *std::max_element(row, row + vocab);
      double sum = 0;
      for (int64_t v = 0; v < vocab; ++v) sum += std::exp(row[v] - maximum);
      const double logprob = row[ids[i + 1]] - maximum - std::log(sum);
      worst_logprob = std::max(worst_logprob, std::abs(logprob - expected[i]));
    }
    for (int64_t v = 0; v < vocab; ++v) {
      const double logit = logits[(ids.size() - 1) * vocab + v];
      worst_logit = std::max(worst_logit, std::abs(logit - last_logits[v]));
    }
  }
  RecordProperty("worst_logprob_error", std::to_string(worst_logprob));
  RecordProperty("worst_logit_error", std::to_string(worst_logit));
  // Float32 against float32 in other orders of summation; the file has 5 decimals.
  EXPECT_LT(worst_logprob, 5e-4);
  EXPECT_LT(worst_logit, 5e-4);
}

TEST_P(GoldenTest, GreedyContinuationsAreThoseOfTheReference) {
  ASSERT_OK_AND_ASSIGN(const auto engine, Engine::Load(model_dir_, {}));
  for (size_t i = 0; i < problems_.size(); ++i) {
    GenerationRequest request;
    request.id = static_cast<int64_t>(i);
    request.prompt_ids = problems_[i]["prompt_ids"].get<std::vector<int32_t>>();
    request.max_new_tokens = 400;
    request.stop_ids = engine->config().eos_token_ids;
    engine->Submit(std::move(request));
  }
  std::map<int64_t, std::vector<int32_t>> outputs;
  while (!engine->idle()) {
    ASSERT_OK_AND_ASSIGN(const auto finished, engine->Step());
    for (const GenerationResult& result : finished) outputs[result.id] = result.output_ids;
  }
  for (size_t i = 0; i < problems_.size(); ++i) {
    EXPECT_EQ(outputs[static_cast<int64_t>(i)],
              problems_[i]["greedy_ids"].get<std::vector<int32_t>>())
        << problems_[i]["id"];
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenTest, ::testing::Values("tiny-qwen2-1m", "tiny-llama-5m"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace assay::engine
