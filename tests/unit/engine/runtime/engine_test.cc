// What a request yields is its own affair: not the batch's, the cache's, the chunks' or the
// threads'. And the limits of Load.
#include "engine/runtime/engine.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/engine/decoder/random_model.h"

namespace assay::engine {
namespace {

using assay::testing::IsError;
using assay::testing::TemporaryDirectory;

using Outputs = std::map<int64_t, std::vector<int32_t>>;

class EngineTest : public ::testing::Test {
 protected:
  void SetUp() override { testing::WriteRandomModel(config_, dir_.path(), 5); }

  std::unique_ptr<Engine> Load(const EngineOptions& options = {}) const {
    auto engine = Engine::Load(dir_.path(), options);
    EXPECT_OK(engine);
    return *std::move(engine);
  }

  // Request i of a workload with prompts of 1 to 90 tokens, some of them shared, 1 to 120 tokens of
  // output, every kind of sampling, and budget forcing for some.
  GenerationRequest Request(int64_t i) const {
    std::mt19937_64 random(i % 5 == 0 ? 1000 : i);
    GenerationRequest request;
    request.id = i;
    const int prompt_len = i % 5 == 0 ? 60 : 1 + static_cast<int>(random() % 90);
    for (int t = 0; t < prompt_len; ++t) {
      request.prompt_ids.push_back(static_cast<int32_t>(random() % config_.vocab_size));
    }
    request.max_new_tokens = 1 + (i * 37) % 120;
    request.stop_ids = {0};
    request.sampling.seed = static_cast<uint64_t>(i);
    if (i % 4 != 0) request.sampling.temperature = 0.9f;
    if (i % 4 == 1) request.sampling.top_p = 0.95f;
    if (i % 4 == 2) request.sampling.top_k = 20;
    request.expected_tokens = (i * 13) % 7;
    if (i % 6 == 5) {
      request.budget_forcing = {.max_thinking_tokens = 40,
                                .num_extensions = 2,
                                .extension_ids = {8, 9},
                                .end_of_thinking_ids = {static_cast<int32_t>(10 + i % 20)},
                                .forced_stop_ids = {6, 7}};
    }
    return request;
  }

  Outputs Generate(const EngineOptions& options, int num_requests,
                   EngineStats* stats = nullptr) const {
    const std::unique_ptr<Engine> engine = Load(options);
    for (int64_t i = 0; i < num_requests; ++i) engine->Submit(Request(i));
    Outputs outputs = Drain(engine.get());
    if (stats != nullptr) *stats = engine->stats();
    return outputs;
  }

  static Outputs Drain(Engine* engine) {
    Outputs outputs;
    for (int steps = 0; !engine->idle() && steps < 100000; ++steps) {
      auto finished = engine->Step();
      EXPECT_OK(finished);
      for (const GenerationResult& result : *finished) {
        EXPECT_NE(result.finish_reason, FinishReason::kRejected) << result.error;
        outputs[result.id] = result.output_ids;
      }
    }
    EXPECT_TRUE(engine->idle());
    return outputs;
  }

  static constexpr int kRequests = 64;

  const ModelConfig config_ = testing::SmallConfig(Family::kQwen2);
  TemporaryDirectory dir_;
};

TEST_F(EngineTest, ARequestAloneYieldsWhatItYieldsAmong64) {
  const Outputs together = Generate({}, kRequests);
  ASSERT_EQ(together.size(), size_t{kRequests});
  const std::unique_ptr<Engine> engine = Load();
  for (int64_t i = 0; i < kRequests; ++i) {
    engine->Submit(Request(i));
    EXPECT_EQ(Drain(engine.get())[i], together.at(i)) << "request " << i;
  }
}

TEST_F(EngineTest, PreemptionDoesNotShow) {
  EngineStats roomy, tight;
  const Outputs expected = Generate({.max_model_len = 256}, kRequests, &roomy);
  // 300 tokens of 2 layers, 2 heads, 18 + 32 floats.
  const EngineOptions options = {.max_model_len = 256,
                                 .kv_cache_bytes = 304 * 2 * 2 * (18 + 32) * 4};
  EXPECT_EQ(Generate(options, kRequests, &tight), expected);
  EXPECT_EQ(roomy.num_preemptions, 0);
  EXPECT_GT(tight.num_preemptions, 5);
  EXPECT_EQ(tight.kv_blocks_total, 19);
  EXPECT_EQ(tight.kv_blocks_used, 0);
}

TEST_F(EngineTest, LookAheadAndHostMemoryDoNotShow) {
  const Outputs expected = Generate({.max_model_len = 256}, kRequests);
  EXPECT_EQ(Generate({.max_model_len = 256, .look_ahead = 1}, kRequests), expected);
  EXPECT_EQ(Generate({.max_num_seqs = 9, .look_ahead = 1, .prompt_step_cost = 0.7}, kRequests),
            expected);
  constexpr int64_t kBlockBytes = 16 * 2 * 2 * (18 + 32) * 4;
  for (const int look_ahead : {0, 1}) {
    for (const int64_t num_host_blocks : {0, 4, 1000}) {
      EngineStats stats;
      const EngineOptions options = {.max_model_len = 256,
                                     .kv_cache_bytes = 19 * kBlockBytes,
                                     .swap_bytes = num_host_blocks * kBlockBytes,
                                     .look_ahead = look_ahead};
      EXPECT_EQ(Generate(options, kRequests, &stats), expected)
          << "look_ahead " << look_ahead << ", " << num_host_blocks << " host blocks";
      EXPECT_GT(stats.num_preemptions, 5);
      EXPECT_EQ(stats.num_swaps > 0, num_host_blocks > 0);
      EXPECT_EQ(stats.num_swaps == stats.num_preemptions, num_host_blocks == 1000);
      EXPECT_EQ(stats.kv_blocks_used, 0);
    }
  }
}

// Requests come and go while others are in flight.
TEST_F(EngineTest, LookAheadSurvivesCancelsAndLateRequests) {
  const Outputs expected = Generate({}, kRequests);
  const std::unique_ptr<Engine> engine = Load({.max_num_seqs = 8, .look_ahead = 1});
  Outputs outputs;
  std::mt19937_64 random(1);
  int64_t next = 0, num_cancelled = 0;
  while (next < kRequests || !engine->idle()) {
    if (next < kRequests && random() % 4 == 0) engine->Submit(Request(next++));
    if (random() % 32 == 0) num_cancelled += engine->Cancel(static_cast<int64_t>(random() % 64));
    if (random() % 64 == 0) {
      ASSERT_OK(engine->Forward(std::vector<int32_t>{1, 2, 3}, nullptr));
    }
    ASSERT_OK_AND_ASSIGN(const auto finished, engine->Step());
    for (const GenerationResult& result : finished) outputs[result.id] = result.output_ids;
  }
  EXPECT_GT(num_cancelled, 3);
  EXPECT_EQ(static_cast<int64_t>(outputs.size()), kRequests - num_cancelled);
  for (const auto& [id, ids] : outputs) EXPECT_EQ(ids, expected.at(id)) << "request " << id;
}

TEST_F(EngineTest, ChunksLanesBlocksAndThreadsDoNotShow) {
  const Outputs expected = Generate({}, kRequests);
  EXPECT_EQ(Generate({.prefill_chunk = 1}, kRequests), expected);
  EXPECT_EQ(Generate({.prefill_chunk = 23}, kRequests), expected);
  EXPECT_EQ(Generate({.max_num_seqs = 5, .prefill_chunk = 1000}, kRequests), expected);
  EXPECT_EQ(Generate({.block_size = 64}, kRequests), expected);
  EXPECT_EQ(Generate({.num_threads = 3}, kRequests), expected);
}

TEST_F(EngineTest, LogitsOfForwardAreThoseThatDecodingDrawsFrom) {
  const std::unique_ptr<Engine> engine = Load();
  GenerationRequest request = Request(0);
  request.max_new_tokens = 50;
  request.stop_ids = {};
  request.sampling = {};
  engine->Submit(request);
  std::vector<int32_t> ids = request.prompt_ids;
  const std::vector<int32_t> output = Drain(engine.get())[0];
  ids.insert(ids.end(), output.begin(), output.end());
  ASSERT_OK_AND_ASSIGN(const std::vector<float> logits, engine->Forward(ids, nullptr));
  for (size_t i = 0; i < output.size(); ++i) {
    const float* row = &logits[(request.prompt_ids.size() + i - 1) * config_.vocab_size];
    EXPECT_EQ(std::max_element(row, row + config_.vocab_size) - row, output[i]);
  }
}

TEST_F(EngineTest, SeedsDifferAndRepeat) {
  const std::unique_ptr<Engine> engine = Load();
  for (int64_t id = 0; id < 3; ++id) {
    GenerationRequest request = Request(5);
    request.id = id;
    request.max_new_tokens = 60;
    request.stop_ids = {};
    request.sampling = {.temperature = 1, .seed = static_cast<uint64_t>(id / 2)};
    engine->Submit(request);
  }
  const Outputs outputs = Drain(engine.get());
  EXPECT_EQ(outputs.at(0), outputs.at(1));
  EXPECT_NE(outputs.at(0), outputs.at(2));
}

TEST_F(EngineTest, StatsAndProgressCountWhatIsThere) {
  const std::unique_ptr<Engine> engine = Load({.max_num_seqs = 2});
  for (int64_t id = 0; id < 3; ++id) {
    GenerationRequest request = Request(1);
    request.id = id;
    request.prompt_ids.resize(10, 1);
    request.max_new_tokens = 4;
    request.stop_ids = {};
    engine->Submit(request);
  }
  ASSERT_OK(engine->Step());
  EXPECT_EQ(engine->stats().num_running, 2);
  EXPECT_EQ(engine->stats().num_waiting, 1);
  EXPECT_EQ(engine->stats().kv_blocks_used, 2);
  EXPECT_EQ(engine->progress().size(), 2u);
  EXPECT_EQ(engine->progress()[0], (std::pair<int64_t, int64_t>(0, 1)));
  Drain(engine.get());
  const EngineStats stats = engine->stats();
  EXPECT_EQ(stats.tokens_generated, 12);
  EXPECT_EQ(stats.prompt_tokens, 30);
  EXPECT_GT(stats.memory_bytes, 0);
  EXPECT_LE(stats.matmul_time + stats.attention_time + stats.sampling_time, stats.total_time);
}

TEST_F(EngineTest, ARejectedRequestComesBackFromTheNextStep) {
  const std::unique_ptr<Engine> engine = Load();
  GenerationRequest request = Request(1);
  request.prompt_ids = {config_.vocab_size};
  engine->Submit(request);
  EXPECT_FALSE(engine->idle());
  ASSERT_OK_AND_ASSIGN(const auto finished, engine->Step());
  ASSERT_EQ(finished.size(), 1u);
  EXPECT_EQ(finished[0].finish_reason, FinishReason::kRejected);
  EXPECT_NE(finished[0].error.find("96"), std::string::npos);
  EXPECT_TRUE(engine->idle());
}

TEST_F(EngineTest, OptionsThatCannotWorkAreRefused) {
  using absl::StatusCode::kInvalidArgument;
  using absl::StatusCode::kResourceExhausted;
  const auto load = [&](EngineOptions options) { return Engine::Load(dir_.path(), options); };
  EXPECT_THAT(load({.num_threads = 0}), IsError(kInvalidArgument, "num_threads is 0"));
  EXPECT_THAT(load({.max_num_seqs = 0}), IsError(kInvalidArgument, "max_num_seqs is 0"));
  EXPECT_THAT(load({.swap_bytes = -2}), IsError(kInvalidArgument, "swap_bytes -2"));
  EXPECT_THAT(load({.look_ahead = 2}), IsError(kInvalidArgument, "look_ahead is 2"));
  EXPECT_THAT(load({.max_model_len = 513}), IsError(kInvalidArgument, "512 positions"));
  EXPECT_THAT(load({.block_size = 8}), IsError(kInvalidArgument, "multiple of 16"));
  EXPECT_THAT(load({.kv_cache_bytes = 100'000}), IsError(kResourceExhausted, "raise kv_cache"));
  EXPECT_THAT(load({.kv_cache_bytes = 100}), IsError(kResourceExhausted, "one block"));
}

}  // namespace
}  // namespace assay::engine
