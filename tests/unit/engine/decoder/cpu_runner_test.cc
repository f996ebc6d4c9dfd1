// The CPU backend against a second implementation, and against itself under other batches.
#include "engine/decoder/cpu/cpu_runner.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "engine/model/linears.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/engine/decoder/random_model.h"

namespace assay::engine {
namespace {

using assay::testing::IsError;
using assay::testing::TemporaryDirectory;
using testing::ReferenceLogits;
using testing::SmallConfig;
using testing::WriteRandomModel;

std::vector<int32_t> RandomIds(int count, int vocab, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % vocab);
  return ids;
}

std::unique_ptr<CpuRunner> LoadRunner(const std::string& dir, int num_threads = 1,
                                      bool round_to_bf16 = false) {
  auto model = LoadCpuModel(dir);
  EXPECT_OK(model);
  CpuRunner::Options options;
  options.num_threads = num_threads;
  options.cache_tokens = 1024;
  options.kv_cache_bytes = int64_t{64} << 20;
  options.round_activations_to_bf16 = round_to_bf16;
  options.clock = RealClock::Get();
  auto runner = CpuRunner::Load(*std::move(model), options);
  EXPECT_OK(runner);
  return *std::move(runner);
}

double WorstDifference(const std::vector<float>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}

struct Architecture {
  const char* name;
  ModelConfig config;
};

std::vector<Architecture> Architectures() {
  ModelConfig tied = SmallConfig(Family::kQwen3);
  tied.tie_word_embeddings = true;
  ModelConfig scaled = SmallConfig(Family::kLlama);
  scaled.rope_scaling = RopeScaling{.factor = 8,
                                    .low_freq_factor = 1,
                                    .high_freq_factor = 4,
                                    .original_max_position_embeddings = 64};
  ModelConfig one_head = SmallConfig(Family::kQwen2);
  one_head.num_heads = 7;
  one_head.num_kv_heads = 1;
  one_head.head_dim = 64;
  return {{"qwen2", SmallConfig(Family::kQwen2)},
          {"llama3_rope", scaled},
          {"qwen3_tied", tied},
          {"seven_heads_on_one", one_head}};
}

class ArchitectureTest : public ::testing::TestWithParam<Architecture> {
 protected:
  void SetUp() override { WriteRandomModel(GetParam().config, dir_.path(), 7); }
  TemporaryDirectory dir_;
};

TEST_P(ArchitectureTest, LogitsAreThoseOfTheDefinition) {
  const ModelConfig& config = GetParam().config;
  const std::vector<int32_t> ids = RandomIds(70, config.vocab_size, 1);
  ASSERT_OK_AND_ASSIGN(const std::vector<float> logits,
                       LoadRunner(dir_.path())->Forward(ids, nullptr));
  EXPECT_LT(WorstDifference(logits, ReferenceLogits(config, dir_.path(), ids)), 2e-4);
}

TEST_P(ArchitectureTest, ThreadsDoNotShowInTheLogits) {
  const std::vector<int32_t> ids = RandomIds(70, GetParam().config.vocab_size, 1);
  ASSERT_OK_AND_ASSIGN(const auto alone, LoadRunner(dir_.path(), 1)->Forward(ids, nullptr));
  ASSERT_OK_AND_ASSIGN(const auto together, LoadRunner(dir_.path(), 3)->Forward(ids, nullptr));
  EXPECT_EQ(alone, together);
}

TEST_P(ArchitectureTest, Bf16ActivationsStayNearFloat32) {
  const std::vector<int32_t> ids = RandomIds(40, GetParam().config.vocab_size, 1);
  ASSERT_OK_AND_ASSIGN(const auto exact, LoadRunner(dir_.path())->Forward(ids, nullptr));
  ASSERT_OK_AND_ASSIGN(const auto rounded, LoadRunner(dir_.path(), 1, true)->Forward(ids, nullptr));
  EXPECT_NE(exact, rounded);
  EXPECT_LT(WorstDifference(rounded, {exact.begin(), exact.end()}), 0.5);
}

INSTANTIATE_TEST_SUITE_P(Models, ArchitectureTest, ::testing::ValuesIn(Architectures()),
                         [](const auto& instance) { return std::string(instance.param.name); });

class CpuRunnerTest : public ::testing::Test {
 protected:
  void SetUp() override { WriteRandomModel(config_, dir_.path(), 3); }

  const ModelConfig config_ = SmallConfig(Family::kQwen2);
  TemporaryDirectory dir_;
};

TEST_F(CpuRunnerTest, AChunkedPromptGivesTheTokensOfAWholeOne) {
  const auto runner = LoadRunner(dir_.path());
  const std::vector<int32_t> ids = RandomIds(100, config_.vocab_size, 2);
  std::vector<int32_t> blocks(7);
  std::iota(blocks.begin(), blocks.end(), 3);
  const SamplingParams hot = {.temperature = 2.0f, .seed = 11};
  std::set<int32_t> drawn;
  for (const size_t chunk_len : {100, 1, 16, 37}) {
    int32_t token = -1;
    for (size_t begin = 0; begin < ids.size(); begin += chunk_len) {
      const size_t len = std::min(chunk_len, ids.size() - begin);
      const BatchChunk chunk = {.tokens = std::span(ids).subspan(begin, len),
                                .first_position = static_cast<int64_t>(begin),
                                .block_table = blocks,
                                .samples = begin + len == ids.size(),
                                .sampling = hot};
      ASSERT_OK_AND_ASSIGN(const auto sampled, runner->Step({&chunk, 1}));
      if (!sampled.empty()) token = sampled[0];
    }
    drawn.insert(token);
  }
  EXPECT_EQ(drawn.size(), 1u);
}

TEST_F(CpuRunnerTest, ForwardLeavesTheCacheOfRunningSequencesAlone) {
  const auto runner = LoadRunner(dir_.path());
  const std::vector<int32_t> ids = RandomIds(33, config_.vocab_size, 2);
  const std::vector<int32_t> blocks = {0, 1, 2};
  const auto next_token = [&](bool forward_between) {
    const BatchChunk prompt = {.tokens = std::span(ids).first(32), .block_table = blocks};
    EXPECT_OK(runner->Step({&prompt, 1}));
    if (forward_between) {
      EXPECT_OK(runner->Forward(RandomIds(50, config_.vocab_size, 9), nullptr));
    }
    const BatchChunk last = {.tokens = std::span(ids).last(1),
                             .first_position = 32,
                             .block_table = blocks,
                             .samples = true};
    auto sampled = runner->Step({&last, 1});
    EXPECT_OK(sampled);
    return (*sampled)[0];
  };
  EXPECT_EQ(next_token(false), next_token(true));
}

// Collects what a forward pass shows.
class Recorder : public ForwardObserver {
 public:
  void OnLinearInput(std::string_view linear, int num_tokens,
                     std::span<const float> input) override {
    sizes[std::string(linear)] = {num_tokens, input.size()};
    order.push_back(std::string(linear));
  }
  void OnKeysBeforeRope(int layer, int num_tokens, std::span<const float> values) override {
    EXPECT_EQ(layer, num_key_calls++);
    EXPECT_EQ(values.size() % num_tokens, 0u);
    keys.assign(values.begin(), values.end());
  }

  std::map<std::string, std::pair<int, size_t>> sizes;
  std::vector<std::string> order;
  std::vector<float> keys;
  int num_key_calls = 0;
};

TEST_F(CpuRunnerTest, AnObserverSeesEveryLinearInputAndTheKeysOfEveryLayer) {
  const std::vector<int32_t> ids = RandomIds(5, config_.vocab_size, 2);
  Recorder recorder;
  ASSERT_OK(LoadRunner(dir_.path())->Forward(ids, &recorder));
  const std::vector<LinearInfo> linears = QuantizableLinears(config_);
  ASSERT_EQ(recorder.order.size(), linears.size());
  for (size_t i = 0; i < linears.size(); ++i) {
    EXPECT_EQ(recorder.order[i], linears[i].name);
    const auto& [num_tokens, size] = recorder.sizes[linears[i].name];
    EXPECT_EQ(num_tokens, 5);
    EXPECT_EQ(size, 5u * linears[i].in_features);
  }
  EXPECT_EQ(recorder.num_key_calls, config_.num_layers);
  EXPECT_EQ(recorder.keys.size(), 5u * config_.kv_size());
}

TEST_F(CpuRunnerTest, KeysShownToAnObserverContainTheBiasWhereverTheCacheIsQuantized) {
  const std::vector<int32_t> ids = RandomIds(5, config_.vocab_size, 2);
  Recorder plain, before_bias;
  ASSERT_OK(LoadRunner(dir_.path())->Forward(ids, &plain));
  std::ofstream(dir_ / "assay_quant.json")
      << ToJson({.k_cache = {.position = CacheSpec::Position::kBeforeBias}});
  ASSERT_OK_AND_ASSIGN(const auto moved, LoadRunner(dir_.path())->Forward(ids, &before_bias));
  EXPECT_EQ(plain.keys, before_bias.keys);
  // Nothing is rounded, so adding the bias later changes nothing.
  ASSERT_OK_AND_ASSIGN(const auto logits, LoadRunner(dir_.path())->Forward(ids, nullptr));
  EXPECT_EQ(logits, moved);
}

TEST_F(CpuRunnerTest, AHadamardOnTheKeyCacheLeavesTheLogitsWhereTheyWere) {
  ModelConfig config = config_;
  config.head_dim = 16;
  WriteRandomModel(config, dir_.path(), 3);
  const std::vector<int32_t> ids = RandomIds(40, config.vocab_size, 2);
  ASSERT_OK_AND_ASSIGN(const auto plain, LoadRunner(dir_.path())->Forward(ids, nullptr));
  std::ofstream(dir_ / "assay_quant.json")
      << ToJson({.k_cache = {.transform = CacheSpec::Transform::kHadamard}});
  ASSERT_OK_AND_ASSIGN(const auto rotated, LoadRunner(dir_.path())->Forward(ids, nullptr));
  EXPECT_NE(plain, rotated);
  EXPECT_LT(WorstDifference(rotated, {plain.begin(), plain.end()}), 1e-4);
}

TEST_F(CpuRunnerTest, ATensorOfAnotherShapeIsNamedWithBothShapes) {
  ModelConfig wider = config_;
  wider.intermediate_size = 80;
  TemporaryDirectory other;
  WriteRandomModel(wider, other.path(), 3);
  std::filesystem::copy_file(dir_ / "config.json", other / "config.json",
                             std::filesystem::copy_options::overwrite_existing);
  const auto model = LoadCpuModel(other.path());
  EXPECT_THAT(model, IsError(absl::StatusCode::kInvalidArgument, "mlp.gate_proj"));
  EXPECT_THAT(model, IsError(absl::StatusCode::kInvalidArgument, "[80, 40]"));
  EXPECT_THAT(model, IsError(absl::StatusCode::kInvalidArgument, "[72, 40]"));
}

TEST_F(CpuRunnerTest, AMissingTensorIsNamed) {
  ModelConfig shorter = config_;
  shorter.num_layers = 1;
  TemporaryDirectory other;
  WriteRandomModel(shorter, other.path(), 3);
  std::filesystem::copy_file(dir_ / "config.json", other / "config.json",
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_THAT(LoadCpuModel(other.path()),
              IsError(absl::StatusCode::kNotFound, "model.layers.1.input_layernorm.weight"));
}

TEST_F(CpuRunnerTest, ADescriptionForAnotherModelIsRefused) {
  QuantDescription description;
  description.linears["model.layers.9.mlp.up_proj"] = {};
  std::ofstream(dir_ / "assay_quant.json") << ToJson(description);
  EXPECT_THAT(LoadCpuModel(dir_.path()),
              IsError(absl::StatusCode::kInvalidArgument, "model.layers.9.mlp.up_proj"));
}

TEST_F(CpuRunnerTest, ABlockSizeThatIsNotAMultipleOfAPageIsRefused) {
  ASSERT_OK_AND_ASSIGN(auto model, LoadCpuModel(dir_.path()));
  CpuRunner::Options options;
  options.block_size = 24;
  EXPECT_THAT(CpuRunner::Load(std::move(model), options),
              IsError(absl::StatusCode::kInvalidArgument, "multiple of 16"));
}

TEST_F(CpuRunnerTest, AnIdBeyondTheVocabularyIsRefused) {
  const std::vector<int32_t> ids = {1, config_.vocab_size};
  EXPECT_THAT(LoadRunner(dir_.path())->Forward(ids, nullptr),
              IsError(absl::StatusCode::kInvalidArgument, "96"));
}

}  // namespace
}  // namespace assay::engine
