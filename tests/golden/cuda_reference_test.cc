// The example models on the GPU, with plain and quantized caches, against Hugging Face transformers
// and the CPU backend.
//
// The GPU stores activations in bf16, and decodes packed weights to it. How far that takes
// log-probabilities from float32's, the CPU shows when it rounds as the GPU does: it is the
// yardstick for each bound here. A quantized cache makes both lumpy: where a key's last bits
// differ, its code may, and all that attends to it.
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
std::vector<Ids> Continue(Engine& engine, const std::vector<Ids>& prompts, int64_t max_new_tokens,
                          const Ids& stop_ids) {
  std::vector<Ids> outputs(prompts.size());
  for (size_t i = 0; i < prompts.size(); ++i) {
    GenerationRequest request;
    request.id = static_cast<int64_t>(i);
    request.prompt_ids = prompts[i];
    request.max_new_tokens = max_new_tokens;
    request.stop_ids = stop_ids;
    engine.Submit(std::move(request));
  }
  while (!engine.idle()) {
    auto finished = engine.Step();
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

double LargestDifference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(double{a[i]} - b[i]));
  }
  return largest;
}

void Record(const std::string& name, double value) {
  ::testing::Test::RecordProperty(name, std::to_string(value));
}

class CudaReferenceTest : public ::testing::TestWithParam<QuantizedCell> {
 protected:
  void SetUp() override {
    if (cuda::NumDevices() == 0) GTEST_SKIP() << kNoGpu;
    ASSERT_OK_AND_ASSIGN(const std::string model_dir,
                         testing::MakeCell(GetParam(), directory_.path()));
    exact_ = Load(model_dir, kExact);
    std::string rounded_dir = model_dir;
    if (GetParam().method == "rtn") {
      ASSERT_OK_AND_ASSIGN(rounded_dir, testing::DecodeToBf16(model_dir, directory_.path()));
    }
    rounded_ = Load(rounded_dir, kRounded);
    cuda_ = Load(model_dir, kCuda);
    ASSERT_TRUE(exact_ && rounded_ && cuda_);
    // Their ids are those of every cell of the model.
    QuantizedCell cell = GetParam();
    if (cell.reference.empty()) cell.reference = "bf16";
    sequences_ = testing::ReadReference(cell);
  }

  void CompareLogprobs() {
    Errors of_cuda;
    Errors of_rounded;
    for (const testing::ReferenceSequence& sequence : sequences_) {
      const auto score = [&](Engine& engine) {
        const auto logits = engine.Forward(sequence.ids, nullptr);
        EXPECT_OK(logits);
        return testing::TargetLogprobs(*logits, sequence.ids);
      };
      const std::vector<double> expected =
          GetParam().reference.empty() ? score(*exact_) : sequence.target_logprobs;
      of_cuda.Add(score(*cuda_), expected);
      of_rounded.Add(score(*rounded_), expected);
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
  void CompareLongAnswers() {
    constexpr size_t kPromptLen = 30;
    constexpr int64_t kNewTokens = 320;
    std::vector<Ids> prompts;
    for (const testing::ReferenceSequence& sequence : sequences_) {
      prompts.emplace_back(sequence.ids.begin(), sequence.ids.begin() + kPromptLen);
    }
    double worst_logit_error = 0;
    double worst_regret_of_cuda = 0;
    for (const auto& [name, engine] :
         {std::pair{"cuda", cuda_.get()}, {"cpu_bf16", rounded_.get()}}) {
      Regrets regrets;
      const std::vector<Ids> outputs = Continue(*engine, prompts, kNewTokens, {});
      for (size_t i = 0; i < prompts.size(); ++i) {
        ASSERT_EQ(outputs[i].size(), size_t{kNewTokens});
        Ids ids = prompts[i];
        ids.insert(ids.end(), outputs[i].begin(), outputs[i].end());
        ASSERT_OK_AND_ASSIGN(const std::vector<float> logits, exact_->Forward(ids, nullptr));
        regrets.Add(logits, ids, kPromptLen);
        ASSERT_OK_AND_ASSIGN(const std::vector<float> other, rounded_->Forward(ids, nullptr));
        worst_logit_error = std::max(worst_logit_error, LargestDifference(logits, other));
      }
      if (engine == cuda_.get()) worst_regret_of_cuda = regrets.worst;
      Record(std::string(name) + "_tokens", static_cast<double>(regrets.num_tokens));
      Record(std::string(name) + "_not_best", static_cast<double>(regrets.not_best));
      Record(std::string(name) + "_worst_regret", regrets.worst);
      Record(std::string(name) + "_mean_regret",
             regrets.sum / static_cast<double>(regrets.num_tokens));
    }
    Record("worst_logit_error", worst_logit_error);
    EXPECT_LE(worst_regret_of_cuda, 2 * worst_logit_error);
  }

  assay::testing::TemporaryDirectory directory_;
  std::unique_ptr<Engine> exact_;
  std::unique_ptr<Engine> rounded_;
  std::unique_ptr<Engine> cuda_;
  std::vector<testing::ReferenceSequence> sequences_;
};

TEST_P(CudaReferenceTest, IsAsNearToFloat32AsBf16Allows) {
  ASSERT_NO_FATAL_FAILURE(CompareLogprobs());
  ASSERT_NO_FATAL_FAILURE(CompareLongAnswers());
}

INSTANTIATE_TEST_SUITE_P(
    Cells, CudaReferenceTest,
    ::testing::Values(
        QuantizedCell{"tiny-qwen2-1m", "bf16", "bf16", "16-16-16"},
        QuantizedCell{"tiny-qwen2-1m", "rtn-4", "rtn", "4-16-16"},
        QuantizedCell{"tiny-qwen2-1m", "rtn-3", "rtn", "3-16-16"},
        QuantizedCell{"tiny-qwen2-1m", "kvquant-4-pre-bias", "kvquant_star", "16-16-4", true},
        QuantizedCell{"tiny-qwen2-1m", "kvquant-3-pre-bias", "kvquant_star", "16-16-3", true},
        QuantizedCell{"tiny-qwen2-1m", "kvquant-4", "kvquant_star", "16-16-4"},
        QuantizedCell{"tiny-qwen2-1m", "quarot-4", "quarot", "16-16-4"},
        QuantizedCell{"tiny-qwen2-1m", "", "quarot", "16-16-8"},
        QuantizedCell{"tiny-llama-5m", "bf16", "bf16", "16-16-16"},
        QuantizedCell{"tiny-llama-5m", "rtn-4", "rtn", "4-16-16"},
        QuantizedCell{"tiny-llama-5m", "rtn-3", "rtn", "3-16-16"},
        QuantizedCell{"tiny-llama-5m", "rtn-2", "rtn", "2-16-16"},
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
  const std::vector<Ids> cuda = Continue(*Load(model_dir, kCuda), prompts, 400, {0});
  const std::vector<Ids> cpu = Continue(*rounded, prompts, 400, {0});
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
    const float* const last = logits.data() + logits.size() - logits.size() / ids.size();
    const double margin = last[*theirs] - last[*ours];
    Record("margin_of_problem_" + std::to_string(i), margin);
    EXPECT_LE(margin, 2 * LargestDifference(logits, other));
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
