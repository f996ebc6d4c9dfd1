// Paged attention on the GPU against plain loops in float64, and against itself: alone and in a
// batch, whole prompts and cut ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <optional>

#include "tests/kernels/kv_problem.h"
#include "tests/testing/status_matchers.h"

namespace assay::engine::cuda {
namespace {

using Position = CacheSpec::Position;

KvCase With(KvCase kv_case, int num_heads, int num_kv_heads, int head_dim = 128) {
  kv_case.num_heads = num_heads;
  kv_case.num_kv_heads = num_kv_heads;
  kv_case.head_dim = head_dim;
  kv_case.name += fmt::format("Heads{}Of{}Dim{}", num_heads, num_kv_heads, head_dim);
  return kv_case;
}

// K and V of different widths, which only the plain kernel takes.
KvCase MixedCase() {
  KvCase kv_case = PerTokenCase(4, false, 1);
  kv_case.key.bit_width = 8;
  kv_case.name = "8BitKeys4BitValues";
  return kv_case;
}

// Both sides of the pages' and chunks' ends, and several chunks.
const std::vector<int> kContexts = {1, 2, 63, 64, 65, 130, 511, 512, 513, 1100, 1730};

using Outputs = std::vector<uint16_t>;  // bf16

class AttentionTest : public ::testing::TestWithParam<KvCase> {
 protected:
  void SetUp() override {
    if (NumDevices() == 0) GTEST_SKIP() << "no GPU";
  }

  int64_t q_size() const { return GetParam().num_heads * GetParam().head_dim; }

  void Prepare(std::vector<int> contexts, uint32_t seed) {
    const int longest = *std::ranges::max_element(contexts);
    problem_.emplace(GetParam(), std::move(contexts), seed);
    ASSERT_OK(problem_->Upload());
    ASSERT_OK(problem_->Write());
    ASSERT_OK_AND_ASSIGN(queries_, problem_->DownloadQueries());
    ASSERT_OK_AND_ASSIGN(workspace_,
                         DecodeWorkspace::Make({.max_rows = problem_->num_sequences() + 1,
                                                .max_context_len = longest + 100,
                                                .num_heads = GetParam().num_heads,
                                                .num_kv_heads = GetParam().num_kv_heads,
                                                .head_dim = GetParam().head_dim}));
  }

  // NaNs before every run.
  absl::StatusOr<Outputs> RunPoisoned(
      int64_t num_rows, const std::function<absl::Status(__nv_bfloat16*)>& run) const {
    ASSAY_ASSIGN_OR_RETURN(const auto buffer,
                           DeviceBuffer<__nv_bfloat16>::Allocate(num_rows * q_size()));
    ASSAY_RETURN_IF_CUDA_ERROR(
        cudaMemset(buffer.data(), 0xFF, static_cast<size_t>(buffer.bytes())));
    ASSAY_RETURN_IF_ERROR(run(buffer.data()));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaDeviceSynchronize());
    Outputs outputs(static_cast<size_t>(buffer.size()));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaMemcpy(outputs.data(), buffer.data(),
                                          static_cast<size_t>(buffer.bytes()),
                                          cudaMemcpyDeviceToHost));
    return outputs;
  }

  // The last rows of sequences [first, first + count).
  absl::StatusOr<Outputs> Decode(int first, int count, bool fetches_early = false) const {
    return RunPoisoned(count, [&](__nv_bfloat16* output) -> absl::Status {
      const StepRows rows = problem_->LastRows(first, count);
      ASSAY_RETURN_IF_ERROR(PlanDecode(rows, problem_->layout(), *workspace_, nullptr));
      AttentionArgs args =
          problem_->Attention(rows, problem_->last_queries() + first * q_size(), output);
      args.fetches_early = fetches_early;
      if (fetches_early) ASSAY_RETURN_IF_CUDA_ERROR(cudaDeviceSynchronize());
      return DecodeAttention(args, *workspace_, nullptr);
    });
  }

  // All rows, prompts cut after every `chunk_tokens`.
  absl::StatusOr<Outputs> Prefill(int chunk_tokens) const {
    std::vector<PrefillChunk> chunks;
    for (int sequence = 0; sequence < problem_->num_sequences(); ++sequence) {
      const int length = problem_->context_len(sequence);
      for (int at = 0; at < length; at += chunk_tokens) {
        chunks.push_back({.first_row = problem_->RowOf(sequence, at),
                          .num_rows = std::min(chunk_tokens, length - at),
                          .first_position = at,
                          .sequence = sequence});
      }
    }
    const std::vector<PrefillChunk> tiles =
        MakePrefillTiles(chunks, GetParam().num_heads, GetParam().num_kv_heads);
    ASSAY_ASSIGN_OR_RETURN(const auto buffer, DeviceBuffer<PrefillChunk>::Allocate(
                                                  static_cast<int64_t>(tiles.size())));
    ASSAY_RETURN_IF_ERROR(buffer.CopyFrom(tiles, nullptr));
    return RunPoisoned(problem_->num_rows(), [&](__nv_bfloat16* output) {
      return PrefillAttention(problem_->Attention(problem_->AllRows(), problem_->queries(), output),
                              buffer.data(), static_cast<int>(tiles.size()), nullptr);
    });
  }

  // Compares output row `out_row` with the reference of a sequence's position.
  void ExpectRow(const Outputs& outputs, int out_row, int sequence, int position,
                 bool rounds_static_keys) {
    for (int head = 0; head < GetParam().num_heads; ++head) {
      const KvProblem::Expected expected =
          problem_->ExpectedAttention(sequence, position, head, rounds_static_keys, queries_);
      for (size_t d = 0; d < expected.output.size(); ++d) {
        const size_t at = static_cast<size_t>(out_row * q_size() + head * GetParam().head_dim) + d;
        const double found = FromBf16(outputs[at]);
        const double error = found - expected.output[d];
        ASSERT_LE(std::abs(error), expected.tolerance[d])  // false for a NaN
            << "sequence " << sequence << " position " << position << " head " << head << " dim "
            << d << ": " << found << " for " << expected.output[d];
        error_squares_ += error * error;
        output_squares_ += expected.output[d] * expected.output[d];
      }
    }
  }

  // The bound on each element is a worst case; errors of a sum over many mostly cancel.
  void ExpectSmallErrorOverall() {
    const bool is_static = GetParam().key.granularity == CacheSpec::Granularity::kPerChannelStatic;
    const double relative = std::sqrt(error_squares_ / output_squares_);
    RecordProperty("relative_error", fmt::format("{:.2e}", relative));
    EXPECT_LE(relative, is_static ? 8e-3 : 4e-3);
  }

  std::optional<KvProblem> problem_;
  std::optional<DecodeWorkspace> workspace_;
  std::vector<float> queries_;
  double error_squares_ = 0;
  double output_squares_ = 0;
};

TEST_P(AttentionTest, DecodeIsSoftmaxAttentionOverTheCachesValues) {
  Prepare(kContexts, 11);
  ASSERT_OK_AND_ASSIGN(const Outputs outputs, Decode(0, problem_->num_sequences()));
  for (int i = 0; i < problem_->num_sequences(); ++i) {
    ASSERT_NO_FATAL_FAILURE(ExpectRow(outputs, i, i, problem_->context_len(i) - 1,
                                      /*rounds_static_keys=*/GetParam().head_dim != 128));
  }
  ExpectSmallErrorOverall();
}

TEST_P(AttentionTest, PrefillIsCausalSoftmaxAttentionOverTheCachesValues) {
  Prepare({1, 64, 150, 300}, 12);
  ASSERT_OK_AND_ASSIGN(const Outputs outputs, Prefill(1 << 20));
  for (int sequence = 0; sequence < problem_->num_sequences(); ++sequence) {
    const int length = problem_->context_len(sequence);
    for (int position = 0; position < length; position += position < length - 20 ? 13 : 1) {
      ASSERT_NO_FATAL_FAILURE(ExpectRow(outputs, problem_->RowOf(sequence, position), sequence,
                                        position,
                                        /*rounds_static_keys=*/true));
    }
  }
  ExpectSmallErrorOverall();
}

TEST_P(AttentionTest, ADecodedRowDoesNotDependOnItsBatch) {
  std::vector<int> contexts = kContexts;
  for (int i = 0; contexts.size() < 256; ++i) contexts.push_back(1 + i * 37 % 200);
  Prepare(contexts, 13);
  ASSERT_OK_AND_ASSIGN(const Outputs together, Decode(0, problem_->num_sequences()));
  const auto expect_same = [&](const Outputs& few, int first) {
    EXPECT_EQ(std::memcmp(few.data(), together.data() + first * q_size(), few.size() * 2), 0)
        << few.size() / static_cast<size_t>(q_size()) << " rows from " << first;
  };
  for (const int row : {0, 2, 5, 7, 8, 9, 10, 100, 255}) {
    ASSERT_OK_AND_ASSIGN(const Outputs alone, Decode(row, 1));
    expect_same(alone, row);
    ASSERT_OK_AND_ASSIGN(const Outputs early, Decode(row, 1, /*fetches_early=*/true));
    expect_same(early, row);
  }
  // Parts are work items up to some number of rows, chunks beyond.
  for (const int count : {2, 4, 8, 11, 16, 17}) {
    ASSERT_OK_AND_ASSIGN(const Outputs few, Decode(0, count, /*fetches_early=*/count % 2 == 0));
    expect_same(few, 0);
  }
  ASSERT_OK_AND_ASSIGN(const Outputs early, Decode(0, problem_->num_sequences(), true));
  EXPECT_EQ(early, together);
  // What a launch leaves behind does not reach the next.
  ASSERT_OK_AND_ASSIGN(const Outputs again, Decode(0, problem_->num_sequences()));
  EXPECT_EQ(again, together);
}

TEST_P(AttentionTest, APromptsRowsDoNotDependOnWhereItWasCut) {
  Prepare({1, 100, 333, 700}, 14);
  ASSERT_OK_AND_ASSIGN(const Outputs whole, Prefill(1 << 20));
  for (const int chunk_tokens : {1, 37, 64, 256}) {
    ASSERT_OK_AND_ASSIGN(const Outputs cut, Prefill(chunk_tokens));
    EXPECT_EQ(cut, whole) << "cut every " << chunk_tokens;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, AttentionTest,
    ::testing::Values(Bf16Case(), With(Bf16Case(), 7, 1), PerTokenCase(8, false, 1),
                      With(PerTokenCase(8, true, 0.95f), 16, 2), PerTokenCase(4, false, 1),
                      With(PerTokenCase(4, true, 0.95f), 5, 1),
                      With(PerTokenCase(4, false, 1), 2, 2), PerTokenCase(3, true, 0.95f),
                      With(PerTokenCase(3, false, 1), 8, 1),
                      StaticKeyCase(4, Position::kBeforeRope),
                      With(StaticKeyCase(4, Position::kBeforeBias), 6, 1),
                      With(StaticKeyCase(3, Position::kBeforeBias), 8, 1)),
    ::testing::PrintToStringParamName());

// Chunks grow with the context, and there are more of them than a warp has lanes for their sums.
class LongContextTest : public AttentionTest {};

TEST_P(LongContextTest, DecodeIsSoftmaxAttentionOverTheCachesValues) {
  // A number of rows of which none has parts for work items.
  std::vector<int> contexts = {8192, 8193, 17000, 70000};
  contexts.resize(20, 1);
  Prepare(contexts, 16);
  ASSERT_OK_AND_ASSIGN(const Outputs outputs, Decode(0, problem_->num_sequences()));
  for (int i = 0; i < problem_->num_sequences(); ++i) {
    ASSERT_NO_FATAL_FAILURE(
        ExpectRow(outputs, i, i, problem_->context_len(i) - 1, /*rounds_static_keys=*/false));
    ASSERT_OK_AND_ASSIGN(const Outputs alone, Decode(i, 1));
    EXPECT_EQ(
        std::memcmp(alone.data(), outputs.data() + i * q_size(), static_cast<size_t>(q_size()) * 2),
        0);
  }
  ExpectSmallErrorOverall();
}

INSTANTIATE_TEST_SUITE_P(Cases, LongContextTest,
                         ::testing::Values(With(Bf16Case(), 2, 1),
                                           With(PerTokenCase(4, false, 1), 2, 1),
                                           With(StaticKeyCase(4, Position::kBeforeRope), 2, 1)),
                         ::testing::PrintToStringParamName());

// Small models and rare combinations.
INSTANTIATE_TEST_SUITE_P(PlainCases, AttentionTest,
                         ::testing::Values(With(Bf16Case(), 4, 2, 64),
                                           With(PerTokenCase(4, true, 0.95f), 2, 1, 16),
                                           With(PerTokenCase(8, false, 1), 3, 1, 96),
                                           With(StaticKeyCase(3, Position::kBeforeBias), 2, 2, 32),
                                           MixedCase()),
                         ::testing::PrintToStringParamName());

TEST(DecodeAttentionTest, PaddingRowsAreLeftAloneAndChangeNothing) {
  if (NumDevices() == 0) GTEST_SKIP() << "no GPU";
  KvProblem problem(PerTokenCase(4, false, 1), {600, 70}, 15);
  ASSERT_OK(problem.Upload());
  ASSERT_OK(problem.Write());
  ASSERT_OK_AND_ASSIGN(const DecodeWorkspace workspace,
                       DecodeWorkspace::Make({.max_rows = 8,
                                              .max_context_len = 1024,
                                              .num_heads = 4,
                                              .num_kv_heads = 2,
                                              .head_dim = 128}));
  const int64_t q_size = 4 * 128;
  ASSERT_OK_AND_ASSIGN(const auto output, DeviceBuffer<__nv_bfloat16>::Allocate(4 * q_size));
  ASSERT_OK_AND_ASSIGN(const auto query, DeviceBuffer<__nv_bfloat16>::Allocate(4 * q_size));
  ASSERT_OK_AND_ASSIGN(const auto positions, DeviceBuffer<int32_t>::Allocate(4));
  ASSERT_OK_AND_ASSIGN(const auto sequences, DeviceBuffer<int32_t>::Allocate(4));
  const std::vector<int32_t> padded_positions = {-1, 599, -1, 69};
  const std::vector<int32_t> padded_sequences = {0, 0, 1, 1};
  ASSERT_OK(positions.CopyFrom(padded_positions, nullptr));
  ASSERT_OK(sequences.CopyFrom(padded_sequences, nullptr));
  const size_t row_bytes = q_size * 2;
  ASSERT_EQ(cudaMemset(output.data(), 0xAB, 4 * row_bytes), cudaSuccess);
  for (const int row : {0, 1}) {
    ASSERT_EQ(cudaMemcpy(query.data() + (2 * row + 1) * q_size,
                         problem.last_queries() + row * q_size, row_bytes, cudaMemcpyDefault),
              cudaSuccess);
  }
  const auto run = [&](StepRows rows, const __nv_bfloat16* from, std::vector<uint16_t>* result) {
    ASSERT_OK(PlanDecode(rows, problem.layout(), workspace, nullptr));
    ASSERT_OK(DecodeAttention(problem.Attention(rows, from, output.data()), workspace, nullptr));
    result->resize(static_cast<size_t>(rows.num_rows * q_size));
    ASSERT_EQ(cudaMemcpy(result->data(), output.data(), result->size() * 2, cudaMemcpyDefault),
              cudaSuccess);
  };
  StepRows padded = problem.LastRows(0, 2);
  padded.num_rows = 4;
  padded.positions = positions.data();
  padded.sequences = sequences.data();
  std::vector<uint16_t> with_padding;
  run(padded, query.data(), &with_padding);
  std::vector<uint16_t> without;
  run(problem.LastRows(0, 2), problem.last_queries(), &without);
  for (int64_t i = 0; i < q_size; ++i) {
    const auto at = static_cast<size_t>(i);
    ASSERT_EQ(with_padding[at], 0xABAB);
    ASSERT_EQ(with_padding[at + 2 * q_size], 0xABAB);
    ASSERT_EQ(with_padding[at + q_size], without[at]);
    ASSERT_EQ(with_padding[at + 3 * q_size], without[at + q_size]);
  }
}

// A step's sizes come from device memory, so one captured step serves contexts of any length.
TEST(DecodeAttentionTest, ACapturedStepFollowsThePositions) {
  if (NumDevices() == 0) GTEST_SKIP() << "no GPU";
  KvProblem problem(PerTokenCase(4, false, 1), {1500, 900, 300}, 17);
  ASSERT_OK(problem.Upload());
  ASSERT_OK(problem.Write());
  ASSERT_OK_AND_ASSIGN(const Stream stream, MakeStream());
  ASSERT_OK_AND_ASSIGN(const DecodeWorkspace workspace,
                       DecodeWorkspace::Make({.max_rows = 3,
                                              .max_context_len = 2048,
                                              .num_heads = 4,
                                              .num_kv_heads = 2,
                                              .head_dim = 128}));
  const size_t size = 3 * 4 * 128;
  ASSERT_OK_AND_ASSIGN(const auto output, DeviceBuffer<__nv_bfloat16>::Allocate(size));
  ASSERT_OK_AND_ASSIGN(const auto positions, DeviceBuffer<int32_t>::Allocate(3));
  StepRows rows = problem.LastRows(0, 3);
  rows.positions = positions.data();
  const auto step = [&]() -> absl::Status {
    ASSAY_RETURN_IF_ERROR(PlanDecode(rows, problem.layout(), workspace, stream.get()));
    return DecodeAttention(problem.Attention(rows, problem.last_queries(), output.data()),
                           workspace, stream.get());
  };
  ASSERT_OK_AND_ASSIGN(const Graph graph, CaptureGraph(stream.get(), step));
  const auto result = [&](const std::vector<int32_t>& at, const auto& run) {
    EXPECT_OK(positions.CopyFrom(at, stream.get()));
    EXPECT_EQ(cudaMemsetAsync(output.data(), 0xFF, size * 2, stream.get()), cudaSuccess);
    EXPECT_OK(run());
    Outputs outputs(size);
    EXPECT_EQ(cudaMemcpyAsync(outputs.data(), output.data(), size * 2, cudaMemcpyDeviceToHost,
                              stream.get()),
              cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream.get()), cudaSuccess);
    return outputs;
  };
  const auto replay = [&] {
    return CudaStatus(cudaGraphLaunch(graph.get(), stream.get()), "cudaGraphLaunch");
  };
  for (const std::vector<int32_t>& at :
       {std::vector<int32_t>{1499, 899, 299}, {10, 511, 0}, {700, 63, 298}}) {
    EXPECT_EQ(result(at, replay), result(at, step)) << "positions from " << at[0];
  }
}

// Rows of bf16 pages are rotated and written by the attention itself, few and many.
TEST(DecodeAttentionTest, RowsThatItWritesHaveTheBitsOfWriteKv) {
  if (NumDevices() == 0) GTEST_SKIP() << "no GPU";
  for (const KvCase& kv_case : {Bf16Case(), With(Bf16Case(), 7, 1), With(Bf16Case(), 16, 2)}) {
    SCOPED_TRACE(kv_case.name);
    std::vector<int> contexts = {1, 17, 64, 65, 600, 1025, 1700, 4500};
    for (int i = 0; contexts.size() < 300; ++i) contexts.push_back(1 + i * 7 % 150);
    KvProblem problem(kv_case, contexts, 18);
    ASSERT_OK(problem.Upload());
    ASSERT_OK(problem.Write());
    const int num_rows = kv_case.num_heads == 7 ? 8 : problem.num_sequences();
    const int64_t q_size = int64_t{kv_case.num_heads} * 128;
    const int64_t stride = problem.projection_size();
    ASSERT_OK_AND_ASSIGN(const auto workspace,
                         DecodeWorkspace::Make({.max_rows = num_rows,
                                                .max_context_len = 5000,
                                                .num_heads = kv_case.num_heads,
                                                .num_kv_heads = kv_case.num_kv_heads,
                                                .head_dim = 128}));
    using Halves = DeviceBuffer<__nv_bfloat16>;
    ASSERT_OK_AND_ASSIGN(const auto projected, Halves::Allocate(num_rows * stride));
    ASSERT_OK_AND_ASSIGN(const auto broken, Halves::Allocate(num_rows * stride));
    ASSERT_OK_AND_ASSIGN(const auto query, Halves::Allocate(num_rows * q_size));
    ASSERT_OK_AND_ASSIGN(const auto output, Halves::Allocate(num_rows * q_size));
    ASSERT_EQ(cudaMemset(broken.data(), 0xFF, static_cast<size_t>(broken.bytes())), cudaSuccess);
    for (int row = 0; row < num_rows; ++row) {
      const int from = problem.RowOf(row, problem.context_len(row) - 1);
      ASSERT_EQ(cudaMemcpy(projected.data() + row * stride, problem.projections() + from * stride,
                           static_cast<size_t>(stride) * 2, cudaMemcpyDefault),
                cudaSuccess);
    }
    StepRows rows = problem.LastRows(0, num_rows);
    rows.sequences = nullptr;  // row i has table i
    AttentionArgs args = problem.Attention(rows, query.data(), output.data());
    const auto write = [&](const Halves& projections) {
      return WriteKv({.rows = rows,
                      .num_heads = kv_case.num_heads,
                      .cache = args.cache,
                      .layer = args.layer,
                      .rope = args.rope,
                      .qkv = projections.data(),
                      .qkv_stride = stride,
                      .query = query.data(),
                      .query_stride = q_size},
                     nullptr);
    };
    const auto attend = [&] {
      EXPECT_EQ(cudaMemset(output.data(), 0xFF, static_cast<size_t>(output.bytes())), cudaSuccess);
      EXPECT_OK(PlanDecode(rows, problem.layout(), workspace, nullptr));
      EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
      EXPECT_OK(DecodeAttention(args, workspace, nullptr));
      Outputs outputs(static_cast<size_t>(output.size()));
      EXPECT_EQ(cudaMemcpy(outputs.data(), output.data(), outputs.size() * 2, cudaMemcpyDefault),
                cudaSuccess);
      return outputs;
    };
    ASSERT_OK(write(projected));
    const Outputs expected = attend();
    ASSERT_OK_AND_ASSIGN(const std::vector<uint8_t> expected_cache, problem.DownloadCache());

    ASSERT_TRUE(DecodeWritesRows(args, {}));
    args.query = projected.data();
    args.query_stride = stride;
    args.projected = true;
    for (const bool early : {false, true}) {
      ASSERT_OK(write(broken));
      args.fetches_early = early;
      EXPECT_EQ(attend(), expected);
      ASSERT_OK_AND_ASSIGN(const std::vector<uint8_t> cache, problem.DownloadCache());
      EXPECT_EQ(cache, expected_cache);
    }
  }
}

TEST(DecodeAttentionTest, RowsThatNeedMoreThanRotationAreLeftToWriteKv) {
  if (NumDevices() == 0) GTEST_SKIP() << "no GPU";
  KvProblem problem(Bf16Case(), {1, 2}, 19);
  ASSERT_OK(problem.Upload());
  StepRows rows = problem.LastRows(0, 2);
  rows.sequences = nullptr;
  AttentionArgs args = problem.Attention(rows, nullptr, nullptr);
  EXPECT_TRUE(DecodeWritesRows(args, {}));
  const float number = 1;
  EXPECT_FALSE(DecodeWritesRows(args, {.k_bias = &number}));
  EXPECT_FALSE(DecodeWritesRows(args, {.q_norm = &number, .k_norm = &number}));
  EXPECT_FALSE(DecodeWritesRows(args, {.key = {.spec = PerTokenCase(4, false, 1).key}}));
  const int32_t sequence = 0;
  args.rows.sequences = &sequence;
  EXPECT_FALSE(DecodeWritesRows(args, {}));
}

}  // namespace
}  // namespace assay::engine::cuda
