// The cache that the CUDA kernel writes, byte for byte against the CPU's quantizer.
#include <gtest/gtest.h>

#include "tests/kernels/kv_problem.h"
#include "tests/testing/status_matchers.h"

namespace assay::engine::cuda {
namespace {

using Position = CacheSpec::Position;

KvCase Small(KvCase kv_case, int head_dim) {
  kv_case.head_dim = head_dim;
  kv_case.name += fmt::format("HeadDim{}", head_dim);
  return kv_case;
}

KvCase Symmetric(KvCase kv_case) {
  kv_case.key.symmetric = kv_case.value.symmetric = true;
  kv_case.name += "Symmetric";
  return kv_case;
}

KvCase Mxfp4Case() {
  KvCase kv_case = {.name = "Mxfp4"};
  kv_case.key = {.code_type = CodeType::kMxfp4, .bit_width = 4};
  kv_case.value = {.code_type = CodeType::kMxfp4,
                   .bit_width = 4,
                   .position = Position::kAfterProjection,
                   .ties = Ties::kAwayFromZero};
  return kv_case;
}

KvCase GroupedCase() {
  KvCase kv_case = PerTokenCase(4, false, 1);
  kv_case.name = "GroupsOf32";
  kv_case.key.group_size = kv_case.value.group_size = 32;
  return kv_case;
}

KvCase MatrixCase() {
  KvCase kv_case = PerTokenCase(4, false, 1);
  kv_case.name = "4BitMatrix";
  kv_case.key.transform = kv_case.value.transform = CacheSpec::Transform::kMatrix;
  return kv_case;
}

KvCase Normed(KvCase kv_case) {
  kv_case.qk_norm = true;
  kv_case.name += "Normed";
  return kv_case;
}

class KvWriteTest : public ::testing::TestWithParam<KvCase> {
 protected:
  void SetUp() override {
    if (NumDevices() == 0) GTEST_SKIP() << "no GPU";
  }
};

int CodeAt(const uint8_t* part, KvCodes codes, int token, int dim, int head_dim) {
  const CodePlace place = PlaceOfCode(codes, token, dim, head_dim);
  const int bits = codes == KvCodes::k3Bit ? 2 : BitsOf(codes);
  int code = part[place.byte] >> place.shift & ((1 << bits) - 1);
  if (codes == KvCodes::k3Bit) {
    const CodePlace third = PlaceOfThirdBit(token, dim, head_dim);
    code |= (part[third.byte] >> third.shift & 1) << 2;
  }
  return code;
}

void ExpectRow(const uint8_t* part, const KvPartLayout& layout, int token, int head_dim,
               const ExpectedRow& expected) {
  for (int d = 0; d < head_dim; ++d) {
    if (layout.codes == KvCodes::kBf16) {
      const CodePlace place = PlaceOfCode(layout.codes, token, d, head_dim);
      const auto bits = static_cast<uint16_t>(part[place.byte] | part[place.byte + 1] << 8);
      ASSERT_EQ(FromBf16(bits), expected.values[static_cast<size_t>(d)]) << "dim " << d;
    } else {
      ASSERT_EQ(CodeAt(part, layout.codes, token, d, head_dim),
                expected.codes[static_cast<size_t>(d)])
          << "dim " << d;
    }
  }
  if (layout.params != KvParams::kPerToken) return;
  const uint8_t* const at = part + layout.code_bytes(head_dim) + 4 * token;
  const uint32_t grid =
      at[0] | uint32_t{at[1]} << 8 | uint32_t{at[2]} << 16 | uint32_t{at[3]} << 24;
  ASSERT_EQ(grid, expected.grid);
}

TEST_P(KvWriteTest, CodesGridsAndQueriesAreThoseOfTheCpu) {
  KvProblem problem(GetParam(), {1, 63, 64, 65, 150}, 7);
  ASSERT_OK(problem.Upload());
  ASSERT_OK(problem.Write());
  ASSERT_OK_AND_ASSIGN(const std::vector<uint8_t> cache, problem.DownloadCache());
  ASSERT_OK_AND_ASSIGN(const std::vector<float> queries, problem.DownloadQueries());
  const KvPageLayout& layout = problem.layout();
  const int head_dim = layout.head_dim;
  for (int sequence = 0; sequence < problem.num_sequences(); ++sequence) {
    for (int position = 0; position < problem.context_len(sequence); ++position) {
      const int token = position % kKvPageTokens;
      SCOPED_TRACE(fmt::format("sequence {} position {}", sequence, position));
      for (int head = 0; head < GetParam().num_kv_heads; ++head) {
        const uint8_t* const page = problem.Page(cache, sequence, head, position);
        ASSERT_NO_FATAL_FAILURE(ExpectRow(page, layout.key, token, head_dim,
                                          problem.ExpectedKey(sequence, position, head)));
        ASSERT_NO_FATAL_FAILURE(ExpectRow(page + layout.value_offset(), layout.value, token,
                                          head_dim,
                                          problem.ExpectedValue(sequence, position, head)));
      }
      const int row = problem.RowOf(sequence, position);
      for (int head = 0; head < GetParam().num_heads; ++head) {
        const std::vector<float> expected = problem.ExpectedQuery(row, head);
        for (int d = 0; d < head_dim; ++d) {
          const auto i = static_cast<size_t>((row * GetParam().num_heads + head) * head_dim + d);
          ASSERT_EQ(queries[i], FromBf16(ToBf16(expected[static_cast<size_t>(d)])));
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, KvWriteTest,
    ::testing::Values(
        Bf16Case(), PerTokenCase(8, false, 1), PerTokenCase(8, true, 0.95f),
        PerTokenCase(4, false, 1), PerTokenCase(4, true, 0.95f), PerTokenCase(3, true, 0.95f),
        PerTokenCase(2, false, 1), PerTokenCase(6, false, 1), Symmetric(PerTokenCase(4, false, 1)),
        StaticKeyCase(4, Position::kBeforeRope), StaticKeyCase(4, Position::kBeforeBias),
        StaticKeyCase(3, Position::kBeforeBias), Mxfp4Case(), GroupedCase(), MatrixCase(),
        Normed(PerTokenCase(8, false, 1)), Normed(StaticKeyCase(4, Position::kBeforeRope)),
        Small(Normed(Bf16Case()), 96), Small(MatrixCase(), 64),
        Small(PerTokenCase(3, true, 0.95f), 16), Small(PerTokenCase(4, false, 1), 96),
        Small(Bf16Case(), 64), Small(StaticKeyCase(3, Position::kBeforeRope), 32)),
    ::testing::PrintToStringParamName());

// Refused before anything is launched: no GPU is needed.
TEST(KvWriteArgsTest, SpecsWithoutTheirTablesOrPagesAreRefused) {
  const auto write = [](const KvCase& kv_case, const KvCase& pages) {
    KvWriteArgs args = {.rows = {.num_rows = 1}, .num_heads = 2};
    args.cache.num_kv_heads = 1;
    args.cache.layout = MakeKvPageLayout(pages.key, pages.value, pages.head_dim).value();
    args.weights.key.spec = kv_case.key;
    args.weights.value.spec = kv_case.value;
    return WriteKv(args, nullptr);
  };
  using ::assay::testing::IsError;
  const KvCase static_keys = StaticKeyCase(4, Position::kBeforeRope);
  EXPECT_THAT(write(static_keys, static_keys),
              IsError(absl::StatusCode::kFailedPrecondition, "without its tables"));
  EXPECT_THAT(write(MatrixCase(), MatrixCase()),
              IsError(absl::StatusCode::kFailedPrecondition, "without its matrix"));
  EXPECT_THAT(write(Bf16Case(), PerTokenCase(4, false, 1)),
              IsError(absl::StatusCode::kFailedPrecondition, "another description"));
  const KvCase odd = Small(PerTokenCase(4, true, 1), 96);
  EXPECT_THAT(write(odd, odd), IsError(absl::StatusCode::kUnimplemented, "power of two"));
}

}  // namespace
}  // namespace assay::engine::cuda
