// Steps launched before the one before is known, and blocks copied beside them: what requests yield
// is what they yield without either.
#include <gtest/gtest.h>

#include "engine/decoder/cuda/block_swap.h"
#include "engine/kernels/cuda/kv_pages.h"
#include "engine/kernels/cuda/random_fill.h"
#include "tests/kernels/cuda_fixture.h"
#include "tests/kernels/engine_cases.h"
#include "tests/testing/status_matchers.h"

namespace assay::engine {
namespace {

using testing::EngineCase;
using testing::Outputs;
using testing::RandomIds;

class LookAheadTest : public testing::EngineCaseTest {
 protected:
  static constexpr int kRequests = 48;

  // Prompts of 1 to 150 tokens, answers of up to 100, most of which stop early; budget forcing for
  // some.
  GenerationRequest Request(int64_t id) const {
    GenerationRequest request;
    request.id = id;
    request.prompt_ids = Prompt(id);
    request.max_new_tokens = 20 + id * 13 % 80;
    if (id % 4 != 0) request.stop_ids = {3, 77};
    request.sampling = {.temperature = 1.5f, .seed = static_cast<uint64_t>(id)};
    if (id % 6 == 5) {
      request.budget_forcing = {.max_thinking_tokens = 40,
                                .num_extensions = 2,
                                .extension_ids = {8, 9},
                                .end_of_thinking_ids = {static_cast<int32_t>(10 + id % 20)},
                                .forced_stop_ids = {6, 7}};
    }
    return request;
  }

  // Requests arrive while others run; those of `cancelled` are taken back when they have begun.
  Outputs Generate(EngineOptions options, bool cancels, EngineStats* stats = nullptr) const {
    options.device = "cuda";
    options.max_model_len = 256;
    const auto engine = Load(options);
    Outputs outputs;
    if (engine == nullptr) return outputs;
    int64_t next = 0;
    for (int step = 0; next < kRequests || !engine->idle(); ++step) {
      if (next < kRequests && step % 3 == 0) engine->Submit(Request(next++));
      if (cancels && step % 16 == 9) engine->Cancel(next - 2);
      auto finished = engine->Step();
      EXPECT_OK(finished);
      if (!finished.ok()) return outputs;
      for (GenerationResult& result : *finished) outputs[result.id] = std::move(result.output_ids);
    }
    if (stats != nullptr) *stats = engine->stats();
    return outputs;
  }

  // As many bytes as 6 blocks of 16-bit values take; a sequence of 256 tokens takes 4.
  int64_t SmallCache() const {
    const ModelConfig& config = GetParam().config;
    return int64_t{6} * 64 * config.num_layers * config.kv_size() * 2 * 2;
  }
};

TEST_P(LookAheadTest, YieldsWhatStepByStepYields) {
  const Outputs expected = Generate({.look_ahead = 0}, false);
  ASSERT_EQ(expected.size(), size_t{kRequests});
  EXPECT_EQ(Generate({.look_ahead = 1}, false), expected);
  for (const auto& [id, output] : Generate({.look_ahead = 1}, true)) {
    EXPECT_EQ(output, expected.at(id)) << "request " << id;
  }
}

TEST_P(LookAheadTest, HostMemoryDoesNotShow) {
  const Outputs expected = Generate({.look_ahead = 0}, false);
  for (const int look_ahead : {0, 1}) {
    EngineStats stats;
    EXPECT_EQ(Generate({.kv_cache_bytes = SmallCache(), .swap_bytes = 0, .look_ahead = look_ahead},
                       false, &stats),
              expected);
    EXPECT_EQ(stats.num_swaps, 0);
    const int64_t num_preemptions = stats.num_preemptions;
    if (GetParam().quantizes() && num_preemptions == 0) continue;  // more fits into the cache
    EXPECT_GT(num_preemptions, 0);
    // Host memory comes when it is pinned, which may be later than the first preemption.
    for (int attempt = 0; attempt < 10 && stats.num_swaps == 0; ++attempt) {
      EXPECT_EQ(Generate({.kv_cache_bytes = SmallCache(), .look_ahead = look_ahead}, false, &stats),
                expected);
    }
    EXPECT_GT(stats.num_swaps, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, LookAheadTest, ::testing::ValuesIn(testing::EngineCases()),
                         [](const auto& instance) { return instance.param.name; });

}  // namespace

namespace cuda {
namespace {

class BlockSwapTest : public CudaTest {};

TEST_F(BlockSwapTest, BlocksComeBackBitForBitAndPassesWaitForThem) {
  constexpr int kBlocks = 600;  // of 128 KiB: several groups of copies
  KvCache cache = {.num_blocks = kBlocks,
                   .num_layers = 4,
                   .num_kv_heads = 2,
                   .layout = {.head_dim = 64, .key = {}, .value = {}}};
  const auto memory = OnDevice<uint8_t>(cache.bytes());
  cache.base = memory.data();
  ASSERT_OK(FillRandomBytes(memory.data(), cache.bytes(), 5, stream()));
  const std::vector<uint8_t> before = ToHost(memory);
  ASSERT_OK_AND_ASSIGN(const auto swap, BlockSwap::Make(0, cache, cache.bytes(), stream()));
  // The first slab is pinned in milliseconds; without it there is nothing to be tested.
  while (swap->num_host_blocks() < kBlocks / 2) {
  }

  std::vector<BlockCopy> out, in;
  std::vector<int32_t> written, read;
  for (int32_t i = 0; i < kBlocks / 2; ++i) {
    out.push_back({.block = i, .host_block = kBlocks / 2 - 1 - i});
    in.push_back({.block = kBlocks / 2 + i, .host_block = kBlocks / 2 - 1 - i});
    written.push_back(i);
    read.push_back(kBlocks / 2 + i);
  }
  ASSERT_OK(swap->CopyToHost(out));
  CudaPass writes;  // a prompt over all blocks that were copied out
  writes.block_tables = {written};
  writes.prompt_runs = {{.num_rows = kBlocks / 2 * kKvPageTokens}};
  ASSERT_OK(swap->HoldBack(writes));
  for (int layer = 0; layer < cache.num_layers; ++layer) {
    ASSERT_EQ(
        cudaMemsetAsync(cache.base + cache.PageOffset(layer, 0, 0), 0,
                        static_cast<size_t>(kBlocks / 2 * cache.block_bytes_of_layer()), stream()),
        cudaSuccess);
  }
  ASSERT_OK(swap->CopyFromHost(in));
  CudaPass reads;
  reads.block_tables = {read};
  reads.decode_rows = {{.position = 0, .sequence = 0}};
  ASSERT_OK(swap->HoldBack(reads));
  const std::vector<uint8_t> after = ToHost(memory);
  const auto layer_half = static_cast<size_t>(kBlocks / 2 * cache.block_bytes_of_layer());
  for (size_t layer = 0; layer < 4; ++layer) {
    const uint8_t* old_half = before.data() + 2 * layer * layer_half;
    const uint8_t* new_half = after.data() + (2 * layer + 1) * layer_half;
    EXPECT_TRUE(std::equal(old_half, old_half + layer_half, new_half)) << "layer " << layer;
  }
}

}  // namespace
}  // namespace cuda
}  // namespace assay::engine
