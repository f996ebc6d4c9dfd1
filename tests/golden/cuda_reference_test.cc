// The example models on the GPU, with plain and quantized caches, against Hugging Face transformers
// and the CPU backend.
//
// The GPU stores activations in bf16. How far that takes log-probabilities from float32's, the CPU
// shows when it rounds as the GPU does: it is the yardstick for each bound here. A quantized cache
// makes both lumpy: where a key's last bits differ, its code may, and all that attends to it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "engine/kernels/cuda/device.h"
#include "engine/runtime/engine.h"
#include "tests/golden/quantized_cells.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::engine {
namespace {

using testing::QuantizedCell;
using Ids = std::vector<int32_t>;

constexpr char kNoGpu[] = "no GPU on this machine";
// The CPU's results do not depend on its threads.
const int kThreads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
const EngineOptions kExact = {.num_threads = kThreads};
const EngineOptions kRounded = {.num_threads = kThreads, .round_activations_to_bf16 = true};
const EngineOptions kCuda = {.device = "cuda"};

struct Errors {
  double sum_of_squares = 0;
  double worst = 0;
  int64_t count = 0;

  void Add(const std::vector<double>& actual, const std::vector<double>& expected) {
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t i = 0; i < actual.size(); ++i) {
      const double error = std::abs(actual[i] - expected[i]);
      sum_of_squares += error * error;
      worst = std::max(worst, error);
      ++count;
    }
  }
  double rms() const { return std::sqrt(sum_of_squares / static_cast<double>(count)); }
};

std::unique_ptr<Engine> Load(const std::string& model_dir, const EngineOptions& options) {
  auto engine = Engine::Load(model_dir, options);
  EXPECT_OK(engine);
  return engine.ok() ? *std::move(engine) : nullptr;
}

// Greedy continuations of all prompts, decoded together.
std::vector<Ids> Continue(const std::string& model_dir, const EngineOptions& options,
                          const std::vector<Ids>& prompts, int64_t max_new_tokens,
                          const Ids& stop_ids) {
  std::vector<Ids> outputs(prompts.size());
  const auto engine = Load(model_dir, options);
  if (engine == nullptr) return outputs;
  for (size_t i = 0; i < prompts.size(); ++i) {
    GenerationRequest request;
    request.id = static_cast<int64_t>(i);
    request.prompt_ids = prompts[i];
    request.max_new_tokens = max_new_tokens;
    request.stop_ids = stop_ids;
    engine->Submit(std::move(request));
  }
  while (!engine->idle()) {
    auto finished = engine->Step();
    EXPECT_OK(finished);
    if (!finished.ok()) return outputs;
    for (GenerationResult& result : *finished) {
      outputs[static_cast<size_t>(result.id)] = std::move(result.output_ids);
    }
  }
  return outputs;
}

// How much less likely than the best token each chosen one is, by the judge's logits.
struct Regrets {
  double worst = 0;
  double sum = 0;
  int64_t not_best = 0;
  int64_t num_tokens = 0;

  void Add(const std::vector<float>& logits, const Ids& ids, size_t prompt_len) {
    const size_t vocab = logits.size() / ids.size();
    for (size_t i = prompt_len; i < ids.size(); ++i) {
      const float* row = logits.data() + (i - 1) * vocab;
      const double regret = *std::max_element(row, row + vocab) - row[ids[i]];
      worst = std::max(worst, regret);
      sum += regret;
      not_best += regret > 0;
      ++num_tokens;
    }
  }
};

void Record(const std::string& name, double value) {
  ::testing::Test::RecordProperty(name, std::to_string(value));
}

class CudaReferenceTest : public ::testing::TestWithParam<QuantizedCell> {
 protected:
  void SetUp() override {
    if (cuda::NumDevices() == 0) GTEST_SKIP() << kNoGpu;
    ASSERT_OK_AND_ASSIGN(model_dir_, testing::MakeCell(GetParam(), directory_.path()));
  }

  // The reference's sequences; their ids are those of every cell of the model.
  std::vector<testing::ReferenceSequence> Sequences() const {
    QuantizedCell cell = GetParam();
    if (cell.reference.empty()) cell.reference = "bf16";
    return testing::ReadReference(cell);
  }

  assay::testing::TemporaryDirectory directory_;
  std::string model_dir_;
};

TEST_P(CudaReferenceTest, LogProbabilitiesAreAsNearToFloat32AsBf16Allows) {
  const auto exact = Load(model_dir_, kExact);
  const auto rounded = Load(model_dir_, kRounded);
  const auto cuda = Load(model_dir_, kCuda);
  Errors of_cuda;
  Errors of_rounded;
  for (const testing::ReferenceSequence& sequence : Sequences()) {
    const auto score = [&](Engine& engine) {
      const auto logits = engine.Forward(sequence.ids, nullptr);
      EXPECT_OK(logits);
      return testing::TargetLogprobs(*logits, sequence.ids);
    };
    const std::vector<double> expected =
        GetParam().reference.empty() ? score(*exact) : sequence.target_logprobs;
    of_cuda.Add(score(*cuda), expected);
    of_rounded.Add(score(*rounded), expected);
  }
  Record("cuda_rms", of_cuda.rms());
  Record("cuda_worst", of_cuda.worst);
  Record("cpu_bf16_rms", of_rounded.rms());
  Record("cpu_bf16_worst", of_rounded.worst);
  EXPECT_LE(of_cuda.rms(), 1.5 * of_rounded.rms());
  EXPECT_LE(of_cuda.worst, 2 * of_rounded.worst);
}

// 320 tokens through the decode kernels, over several pages, of which the model was to write only
// the first hundred or so.
TEST_P(CudaReferenceTest, EveryTokenOfALongAnswerIsTheBestUpToRounding) {
  constexpr size_t kPromptLen = 30;
  constexpr int64_t kNewTokens = 320;
  std::vector<Ids> prompts;
  for (const testing::ReferenceSequence& sequence : Sequences()) {
    prompts.emplace_back(sequence.ids.begin(), sequence.ids.begin() + kPromptLen);
  }
  const auto exact = Load(model_dir_, kExact);
  const auto rounded = Load(model_dir_, kRounded);
  Regrets of[2];
  double worst_logit_error = 0;
  const EngineOptions* const options[] = {&kCuda, &kRounded};
  for (int side = 0; side < 2; ++side) {
    const std::vector<Ids> outputs = Continue(model_dir_, *options[side], prompts, kNewTokens, {});
    for (size_t i = 0; i < prompts.size(); ++i) {
      ASSERT_EQ(outputs[i].size(), size_t{kNewTokens});
      Ids ids = prompts[i];
      ids.insert(ids.end(), outputs[i].begin(), outputs[i].end());
      ASSERT_OK_AND_ASSIGN(const std::vector<float> logits, exact->Forward(ids, nullptr));
      of[side].Add(logits, ids, kPromptLen);
      ASSERT_OK_AND_ASSIGN(const std::vector<float> other, rounded->Forward(ids, nullptr));
      for (size_t l = 0; l < logits.size(); ++l) {
        worst_logit_error = std::max<double>(worst_logit_error, std::abs(logits[l] - other[l]));
      }
    }
  }
  const auto mean = [](const Regrets& r) { return r.sum / static_cast<double>(r.num_tokens); };
  Record("cuda_not_best", static_cast<double>(of[0].not_best));
  Record("cuda_worst_regret", of[0].worst);
  Record("cuda_mean_regret", mean(of[0]));
  Record("cpu_bf16_not_best", static_cast<double>(of[1].not_best));
  Record("cpu_bf16_worst_regret", of[1].worst);
  Record("cpu_bf16_mean_regret", mean(of[1]));
  Record("worst_logit_error", worst_logit_error);
  EXPECT_LE(of[0].worst, 2 * worst_logit_error);
}

INSTANTIATE_TEST_SUITE_P(
    Cells, CudaReferenceTest,
    ::testing::Values(
        QuantizedCell{"tiny-qwen2-1m", "bf16", "bf16", "16-16-16"},
        QuantizedCell{"tiny-qwen2-1m", "kvquant-4-pre-bias", "kvquant_star", "16-16-4", true},
        QuantizedCell{"tiny-qwen2-1m", "kvquant-3-pre-bias", "kvquant_star", "16-16-3", true},
        QuantizedCell{"tiny-qwen2-1m", "kvquant-4", "kvquant_star", "16-16-4"},
        QuantizedCell{"tiny-qwen2-1m", "quarot-4", "quarot", "16-16-4"},
        QuantizedCell{"tiny-qwen2-1m", "", "quarot", "16-16-8"},
        QuantizedCell{"tiny-llama-5m", "bf16", "bf16", "16-16-16"},
        QuantizedCell{"tiny-llama-5m", "kvquant-4", "kvquant_star", "16-16-4"},
        QuantizedCell{"tiny-llama-5m", "", "kvquant_star", "16-16-3"},
        QuantizedCell{"tiny-llama-5m", "quarot-4", "quarot", "16-16-4"},
        QuantizedCell{"tiny-llama-5m", "", "quarot", "16-16-3"},
        QuantizedCell{"tiny-llama-5m", "", "quarot", "16-16-8"}),
    [](const auto& instance) { return instance.param.name(); });

// 25 problems a model, answered greedily by transformers in float32 until the model ends. The GPU
// gives the same answers but where two tokens are as good as equal: it may take the other then, and
// what follows is another answer.
class CudaGreedyTest : public ::testing::TestWithParam<const char*> {};

TEST_P(CudaGreedyTest, AnswersAreTransformersUpToNearTies) {
  if (cuda::NumDevices() == 0) GTEST_SKIP() << kNoGpu;
  const std::string model = GetParam();
  const std::string path = assay::testing::SharedPath("reference/model_" + model + ".jsonl");
  if (path.empty()) GTEST_SKIP() << assay::testing::kNoShared;
  std::vector<Ids> prompts;
  std::vector<Ids> expected;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const auto record = nlohmann::json::parse(line);
    prompts.push_back(record.at("prompt_ids").get<Ids>());
    expected.push_back(record.at("greedy_ids").get<Ids>());
  }
  ASSERT_EQ(prompts.size(), 25u);
  const std::string model_dir = assay::testing::SourcePath("examples/models/" + model);
  const auto exact = Load(model_dir, kExact);
  const auto rounded = Load(model_dir, kRounded);
  const std::vector<Ids> cuda = Continue(model_dir, kCuda, prompts, 400, {0});
  const std::vector<Ids> cpu = Continue(model_dir, kRounded, prompts, 400, {0});
  int cuda_equal = 0;
  int cpu_equal = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    SCOPED_TRACE(i);
    cpu_equal += cpu[i] == expected[i];
    const auto [theirs, ours] = std::ranges::mismatch(expected[i], cuda[i]);
    if (theirs == expected[i].end() && ours == cuda[i].end()) {
      ++cuda_equal;
      continue;
    }
    ASSERT_TRUE(theirs != expected[i].end() && ours != cuda[i].end());
    Ids ids = prompts[i];
    ids.insert(ids.end(), expected[i].begin(), theirs);
    ASSERT_OK_AND_ASSIGN(const std::vector<float> logits, exact->Forward(ids, nullptr));
    ASSERT_OK_AND_ASSIGN(const std::vector<float> other, rounded->Forward(ids, nullptr));
    double worst_logit_error = 0;
    for (size_t l = 0; l < logits.size(); ++l) {
      worst_logit_error = std::max<double>(worst_logit_error, std::abs(logits[l] - other[l]));
    }
    const float* const last = logits.data() + logits.size() - logits.size() / ids.size();
    const double margin = last[*theirs] - last[*ours];
    Record("margin_of_problem_" + std::to_string(i), margin);
    EXPECT_LE(margin, 2 * worst_logit_error);
  }
  Record("cuda_equal", cuda_equal);
  Record("cpu_bf16_equal", cpu_equal);
}

INSTANTIATE_TEST_SUITE_P(Models, CudaGreedyTest,
                         ::testing::Values("tiny-qwen2-1m", "tiny-llama-5m"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace assay::engine
