// Whole models over gangs of two ranks and of four: each on a GPU of its own, or sharing what GPUs
// there are.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <map>

#include "base/log.h"
#include "engine/decoder/cuda/cuda_gang.h"
#include "engine/decoder/cuda/cuda_runner.h"
#include "engine/kernels/cuda/device.h"
#include "engine/quant/quantize.h"
#include "engine/runtime/engine.h"
#include "tests/kernels/cuda_fixture.h"
#include "tests/kernels/engine_cases.h"
#include "tests/kernels/gang_devices.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/engine/decoder/random_model.h"

namespace assay::engine {
namespace {

using assay::testing::IsError;
using assay::testing::SourcePath;
using assay::testing::TemporaryDirectory;
using testing::EngineCase;
using testing::EngineCaseConfig;
using testing::EngineCases;
using testing::EngineCaseTest;
using testing::Outputs;
using testing::RandomIds;
using testing::Requests;
using testing::WriteRandomModel;

// Ranks that share a GPU share its context too: a kernel that is loaded when it is first launched
// would wait for one that waits for it. Before anything asks CUDA.
[[maybe_unused]] const int kEagerLoading = setenv("CUDA_MODULE_LOADING", "EAGER", 1);

std::string GangName(int num_ranks = 2) {
  return fmt::format("cuda:{}", fmt::join(cuda::GangDevices(num_ranks), ","));
}

double RootMeanSquare(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
  return std::sqrt(sum / static_cast<double>(a.size()));
}

// How many rows are further apart than all together are, and the furthest: where to look.
std::string RowsApart(const std::vector<float>& a, const std::vector<float>& b, size_t vocab) {
  const double all = RootMeanSquare(a, b);
  double furthest = 0;
  size_t furthest_row = 0;
  int num_apart = 0;
  for (size_t row = 0; (row + 1) * vocab <= std::min(a.size(), b.size()); ++row) {
    const auto of = [&](const std::vector<float>& logits) {
      return std::vector<float>(logits.begin() + static_cast<std::ptrdiff_t>(row * vocab),
                                logits.begin() + static_cast<std::ptrdiff_t>((row + 1) * vocab));
    };
    const double apart = RootMeanSquare(of(a), of(b));
    num_apart += apart > all;
    if (apart <= furthest) continue;
    furthest = apart;
    furthest_row = row;
  }
  return fmt::format("{} rows further than {:.3f}, row {} {:.3f}", num_apart, all, furthest_row,
                     furthest);
}

std::vector<float> Logits(const std::string& dir, const EngineOptions& options,
                          const std::vector<int32_t>& ids) {
  const auto engine = Engine::Load(dir, options);
  EXPECT_OK(engine);
  if (!engine.ok()) return {};
  auto logits = (*engine)->Forward(ids, nullptr);
  EXPECT_OK(logits);
  return logits.ok() ? *std::move(logits) : std::vector<float>();
}

// Those of one GPU and what only a gang has: a KV head that both ranks hold, a vocabulary that does
// not divide, a bias that is added once.
std::vector<EngineCase> GangCases() {
  std::vector<EngineCase> cases;
  for (const EngineCase& one : EngineCases()) {
    // The plain kernels of small heads have caches of their own, but nothing else to divide.
    if (one.config.head_dim == 128 || one.quantizes()) cases.push_back(one);
  }
  EngineCase tied = {.name = "qwen3_tied_odd_vocabulary",
                     .config = EngineCaseConfig(Family::kQwen3, 128, 4, 4)};
  tied.config.tie_word_embeddings = true;
  tied.config.vocab_size = 203;
  EngineCase untied = {.name = "qwen2_odd_vocabulary",
                       .config = EngineCaseConfig(Family::kQwen2, 64, 12, 4)};
  untied.config.vocab_size = 203;
  EngineCase biased = {.name = "llama_output_bias",
                       .config = EngineCaseConfig(Family::kLlama, 128, 4, 2)};
  biased.config.qkv_bias = biased.config.o_bias = true;
  cases.insert(cases.end(), {tied, untied, biased});
  const size_t num_pairs = cases.size();
  for (size_t i = 0; i < num_pairs; ++i) {
    if (cases[i].config.num_heads % 4 != 0) continue;
    cases.push_back(cases[i]);
    cases.back().num_ranks = 4;
    cases.back().name += "_on_4";
  }
  return cases;
}

class GangEngineTest : public EngineCaseTest {
 protected:
  std::string Gang() const { return GangName(GetParam().num_ranks); }
};

// What a gang does more than one GPU is round each rank's part of an update to bf16 before they are
// summed. The n parts of a sum of random terms have an n-th of its variance each: together they add
// as much rounding as the update's own, and all other roundings stay. So the distance from float32
// grows by sqrt(2) at most, and 1.5 leaves room for chance.
TEST_P(GangEngineTest, LogitsAreAsNearToFloat32AsOneGpusUpToTheRoundingOfParts) {
  const std::vector<int32_t> ids = RandomIds(300, GetParam().config.vocab_size, 1);
  const std::vector<float> exact = Logits(model_dir(), {}, ids);
  const std::vector<float> of_one = Logits(model_dir(), {.device = "cuda"}, ids);
  const std::vector<float> of_gang = Logits(model_dir(), {.device = Gang()}, ids);
  const double alone = RootMeanSquare(of_one, exact);
  const double gang = RootMeanSquare(of_gang, exact);
  const auto vocab = static_cast<size_t>(GetParam().config.vocab_size);
  RecordProperty("one_gpu_root_mean_square", std::to_string(alone));
  RecordProperty("gang_root_mean_square", std::to_string(gang));
  EXPECT_GT(alone, 0);
  EXPECT_LT(gang / alone, 1.5) << "one GPU " << alone << ": " << RowsApart(of_one, exact, vocab)
                               << "; the gang " << gang << ": "
                               << RowsApart(of_gang, exact, vocab);
}

TEST_P(GangEngineTest, ARequestsTokensDependNeitherOnItsCompanyNorOnTheRun) {
  EngineOptions options = {.device = Gang(), .max_model_len = 512};
  const Outputs together = Generate(options, {.ids = Requests(64), .temperature = 1.5f});
  ASSERT_EQ(together.size(), 64u);
  EXPECT_EQ(Generate(options, {.ids = Requests(64), .temperature = 1.5f}), together);
  for (const auto& [id, tokens] :
       Generate(options, {.ids = {5, 17, 40}, .together = false, .temperature = 1.5f})) {
    EXPECT_EQ(tokens, together.at(id)) << "request " << id << " alone";
  }
  options.max_num_seqs = 7;
  options.prefill_chunk = 33;
  EXPECT_EQ(Generate(options, {.ids = Requests(64), .temperature = 1.5f}), together);
}

TEST_P(GangEngineTest, PreemptionDoesNotShow) {
  const EngineOptions options = {.device = Gang(), .max_model_len = 256};
  const Outputs expected = Generate(options, {.ids = Requests(24), .temperature = 1.5f});
  // As many bytes as 5 blocks of 16-bit values take, of 64 tokens each: one sequence needs 4. Where
  // several ranks hold the same KV head, as much more.
  const ModelConfig& config = GetParam().config;
  EngineOptions tight = options;
  tight.kv_cache_bytes = int64_t{5} * 64 * config.num_layers * config.kv_size() * 2 * 2 *
                         std::max(1, GetParam().num_ranks / config.num_kv_heads);
  int64_t num_preemptions = 0;
  EXPECT_EQ(Generate(tight, {.ids = Requests(24), .temperature = 1.5f}, &num_preemptions),
            expected);
  if (!GetParam().quantizes()) {
    EXPECT_GT(num_preemptions, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GangEngineTest, ::testing::ValuesIn(GangCases()),
                         [](const auto& instance) { return instance.param.name; });

class GangTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda::NumDevices() == 0) GTEST_SKIP() << cuda::kNoGpu;
  }
  TemporaryDirectory dir_;
};

// The models of the repository: one KV head for two ranks, and two.
TEST_F(GangTest, TheExampleModelsLogitsAreOneGpus) {
  for (const char* name : {"tiny-qwen2-1m", "tiny-llama-5m"}) {
    const std::string dir = SourcePath(std::string("examples/models/") + name);
    const std::vector<int32_t> ids = RandomIds(400, 512, 3);
    const std::vector<float> exact = Logits(dir, {}, ids);
    const double alone = RootMeanSquare(Logits(dir, {.device = "cuda"}, ids), exact);
    const double gang = RootMeanSquare(Logits(dir, {.device = GangName()}, ids), exact);
    EXPECT_LT(gang / alone, 1.5) << name;
  }
}

// Codes, scales and zero points are divided like the weights that they stand for.
TEST_F(GangTest, PackedWeightsAreDividedToo) {
  ModelConfig config = EngineCaseConfig(Family::kLlama, 128, 4, 2);
  config.intermediate_size = 512;
  WriteRandomModel(config, dir_.path(), 5, DType::kBF16);
  for (const char* bits : {"4-16-16", "3-16-16", "8-16-16"}) {
    QuantizeRequest request;
    request.model_dir = dir_.path();
    request.output_dir = dir_ / bits;
    ASSERT_OK_AND_ASSIGN(request.method, ResolveMethod({.method = "rtn", .bits = bits}));
    ASSERT_OK(Quantize(request));
    const std::vector<int32_t> ids = RandomIds(300, config.vocab_size, 1);
    const std::vector<float> exact = Logits(request.output_dir, {}, ids);
    const double alone = RootMeanSquare(Logits(request.output_dir, {.device = "cuda"}, ids), exact);
    const double gang =
        RootMeanSquare(Logits(request.output_dir, {.device = GangName()}, ids), exact);
    EXPECT_GT(alone, 0);
    EXPECT_LT(gang / alone, 1.5) << bits;
  }
}

// Slices of drawn weights are slices of one model: with others the logits would have nothing in
// common. Two sets of logits that each carry bf16's rounding through two layers, some ten roundings
// of 2^-9 a layer, are a percent or two apart.
TEST_F(GangTest, RandomWeightsAreTheSameModelForAnyNumberOfRanks) {
  WriteRandomModel(EngineCaseConfig(Family::kQwen2, 128, 8, 2), dir_.path(), 1);
  std::filesystem::remove(dir_ / "model.safetensors");
  const std::vector<int32_t> ids = RandomIds(100, 200, 1);
  EngineOptions options = {.device = "cuda", .max_model_len = 256, .random_weights = true};
  const std::vector<float> alone = Logits(dir_.path(), options, ids);
  options.device = GangName();
  const std::vector<float> gang = Logits(dir_.path(), options, ids);
  const double size = RootMeanSquare(alone, std::vector<float>(alone.size(), 0));
  EXPECT_GT(size, 0);
  EXPECT_LT(RootMeanSquare(gang, alone), 0.05 * size);
}

TEST_F(GangTest, TheWayOfTheBytesDoesNotShow) {
  if (cuda::NumPeers(2) < 2) GTEST_SKIP() << "NCCL needs two GPUs";
  WriteRandomModel(EngineCaseConfig(Family::kQwen2, 128, 6, 2), dir_.path(), 1, DType::kBF16);
  const std::vector<int32_t> ids = RandomIds(300, 200, 1);
  std::map<GangTransport, std::vector<float>> logits;
  for (const GangTransport transport : {GangTransport::kPeer, GangTransport::kNccl}) {
    const auto runner = LoadCudaRunner(
        dir_.path(),
        {.devices = cuda::GangDevices(2), .max_model_len = 512, .transport = transport});
    if (absl::IsFailedPrecondition(runner.status())) GTEST_SKIP() << runner.status();
    ASSERT_OK(runner);
    ASSERT_OK_AND_ASSIGN(logits[transport], (*runner)->Forward(ids, nullptr));
  }
  EXPECT_EQ(logits[GangTransport::kPeer], logits[GangTransport::kNccl]);
}

TEST_F(GangTest, AModelThatDoesNotDivideIsRefused) {
  WriteRandomModel(EngineCaseConfig(Family::kLlama, 128, 8, 2), dir_.path(), 1);
  EXPECT_THAT(Engine::Load(dir_.path(), {.device = "cuda:0,0,0"}),
              IsError(absl::StatusCode::kInvalidArgument, "8 heads, 2 KV heads"));
}

// By the way of the bytes.
class BrokenGangTest : public ::testing::TestWithParam<GangTransport> {
 protected:
  void SetUp() override {
    if (cuda::NumDevices() == 0) GTEST_SKIP() << cuda::kNoGpu;
    if (GetParam() == GangTransport::kNccl && cuda::NumPeers(2) < 2) {
      GTEST_SKIP() << "NCCL needs two GPUs";
    }
  }

  void Load(absl::Duration timeout) {
    WriteRandomModel(EngineCaseConfig(Family::kLlama, 128, 8, 2), dir_.path(), 1);
    auto gang = cuda::CudaGang::Load(
        dir_.path(),
        {.devices = cuda::GangDevices(2),
         .max_num_seqs = 4,
         .swap_bytes = 0,
         .transport = GetParam(),
         .pass_timeout = timeout},
        {.max_rows = 32, .max_decode_rows = 4, .max_sampled = 4, .max_model_len = 128});
    if (absl::IsFailedPrecondition(gang.status())) GTEST_SKIP() << gang.status();
    ASSERT_OK(gang);
    gang_ = *std::move(gang);
  }

  // The first rank's part of a pass, which waits for the second's.
  static absl::Status ForwardAlone(cuda::CudaRank& rank) {
    const std::vector<int32_t> ids = {1, 2, 3};
    ASSAY_RETURN_IF_ERROR(rank.PrepareForward(std::ssize(ids)));
    return rank.Forward(ids, {});
  }

  TemporaryDirectory dir_;
  std::unique_ptr<cuda::CudaGang> gang_;
};

TEST_P(BrokenGangTest, ARankThatFailsIsNamedAndFreesTheOther) {
  Load(absl::Seconds(60));
  if (gang_ == nullptr) return;
  const auto pass = [&] {
    return gang_->ForEach([](cuda::CudaRank& rank, int number) {
      return number == 0 ? ForwardAlone(rank) : absl::InternalError("the plug was pulled");
    });
  };
  const absl::Status failure = pass();
  EXPECT_EQ(failure.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(failure.message()), ::testing::HasSubstr("rank 1 of 2"));
  EXPECT_THAT(std::string(failure.message()), ::testing::HasSubstr("the plug was pulled"));
  EXPECT_EQ(pass(), failure);
}

TEST_P(BrokenGangTest, ARankThatHangsIsGivenUpInTime) {
  Load(absl::Milliseconds(500));
  if (gang_ == nullptr) return;
  const absl::Status failure = gang_->ForEach([](cuda::CudaRank& rank, int number) {
    return number == 0 ? ForwardAlone(rank) : absl::OkStatus();
  });
  EXPECT_EQ(failure.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(failure.message()), ::testing::HasSubstr("no answer within"));
  EXPECT_THAT(std::string(failure.message()), ::testing::HasSubstr("rank 0 of 2"));
}

// What a thread that never comes back holds cannot be freed under it.
TEST_P(BrokenGangTest, ARankThatNeverComesBackEndsTheProcess) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto lose_a_rank = [&] {
    InitLogging("test");  // to stderr, where the reason is looked for
    Load(absl::Milliseconds(500));
    if (gang_ == nullptr) return;
    const absl::Status failure = gang_->ForEach([](cuda::CudaRank&, int number) {
      if (number == 1) std::promise<void>().get_future().wait();
      return absl::OkStatus();
    });
    if (absl::IsInternal(failure)) gang_.reset();
  };
  EXPECT_EXIT(lose_a_rank(), ::testing::ExitedWithCode(EXIT_FAILURE), "does not come back");
}

INSTANTIATE_TEST_SUITE_P(Transports, BrokenGangTest,
                         ::testing::Values(GangTransport::kPeer, GangTransport::kNccl),
                         [](const auto& instance) {
                           return instance.param == GangTransport::kPeer ? "Peer" : "Nccl";
                         });

TEST(GangDeviceTest, AGangIsWrittenAsAListOfNumbers) {
  TemporaryDirectory dir;
  WriteRandomModel(EngineCaseConfig(Family::kLlama, 128, 8, 2), dir.path(), 1);
  for (const char* device : {"cuda:0,", "cuda:,1", "cuda:0,x", "cuda:0;1", "cuda:-1", "cuda,1"}) {
    EXPECT_THAT(Engine::Load(dir.path(), {.device = device}),
                IsError(absl::StatusCode::kInvalidArgument, "cuda:N,M"))
        << device;
  }
  EXPECT_THAT(Engine::Load(dir.path(), {.device = "cuda:98,99"}),
              IsError(absl::StatusCode::kNotFound, "cuda:98"));
}

}  // namespace
}  // namespace assay::engine
