#include "coordinator/reports/build_results.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/testing/status_matchers.h"
#include "tests/unit/storage/stores/store_fixture.h"

namespace assay::coordinator {
namespace {

using assay::testing::IsError;
using storage::Verdict;
using ::testing::ElementsAre;

// Three items (levels 1, 1, 2), two repeats, a bf16 cell and an rtn cell.
class BuildResultsTest : public storage::StoreTest {
 protected:
  void FinishAll() {
    for (int32_t item = 0; item < kNumItems; ++item) {
      for (int32_t repeat = 0; repeat < kNumRepeats; ++repeat) {
        Finish({baseline_, item, repeat}, Verdict::kCorrect, /*num_tokens=*/10 + item);
        // The last item goes wrong, and is cut in its second repeat.
        const bool wrong = item == 2;
        Finish({cell_, item, repeat}, wrong ? Verdict::kWrong : Verdict::kCorrect,
               wrong ? 512 : 10 + item, wrong && repeat == 1 ? storage::kFinishLength : /*stop*/ 1);
      }
    }
  }
};

TEST_F(BuildResultsTest, MakesARowPerCellAndLevelInPlanOrder) {
  FinishAll();
  const auto reader = OpenReader();
  ASSERT_OK_AND_ASSIGN(const SweepResults results, BuildResults(*reader, "0000", "level"));
  EXPECT_EQ(results.sweep_name, "first");
  EXPECT_TRUE(results.complete);
  std::vector<std::string> rows;
  for (const ResultRow& row : results.rows) {
    rows.push_back(row.method + " " + row.bits + " " + row.group + " " + row.label);
  }
  EXPECT_THAT(rows, ElementsAre("bf16 16-16-16 all baseline", "bf16 16-16-16 1 baseline",
                                "bf16 16-16-16 2 baseline", "rtn 3-16-16 all undecided",
                                "rtn 3-16-16 1 undecided", "rtn 3-16-16 2 undecided"));
  const ResultRow& cell = results.rows[3];
  EXPECT_EQ(cell.model, "tiny");
  EXPECT_EQ(cell.benchmark, "arith");
  EXPECT_EQ(cell.cell_id, cell_);
  EXPECT_EQ(cell.num_samples, 6);
  EXPECT_EQ(cell.num_correct, 4);
  EXPECT_EQ(cell.num_truncated, 1);
  EXPECT_DOUBLE_EQ(cell.drop, 1.0 / 3);
  EXPECT_DOUBLE_EQ(cell.mean_output_tokens, (10 + 10 + 11 + 11 + 512 + 512) / 6.0);
  EXPECT_DOUBLE_EQ(results.rows[5].drop, 1);
}

TEST_F(BuildResultsTest, ASweepUnderWayIsPartial) {
  Finish({baseline_, 0, 0}, Verdict::kCorrect);
  Finish({cell_, 0, 0}, Verdict::kCorrect);
  const auto reader = OpenReader();
  ASSERT_OK_AND_ASSIGN(const SweepResults results, BuildResults(*reader, "sweep-000000000001", ""));
  EXPECT_FALSE(results.complete);
  ASSERT_EQ(results.rows.size(), 2u);
  EXPECT_EQ(results.rows[0].label, "partial");
  EXPECT_EQ(results.rows[1].label, "partial");
  EXPECT_TRUE(results.rows[1].has_drop);
  EXPECT_EQ(results.rows[1].num_units, 6);
}

TEST_F(BuildResultsTest, GroupsByTheBaselinesLengths) {
  FinishAll();
  const auto reader = OpenReader();
  ASSERT_OK_AND_ASSIGN(const SweepResults results, BuildResults(*reader, "sweep-0", "length"));
  std::vector<std::string> groups;
  for (const ResultRow& row : results.rows) groups.push_back(row.group);
  EXPECT_THAT(groups, ElementsAre("all", "q1 10-10", "q2 11-11", "q3 12-12", "all", "q1 10-10",
                                  "q2 11-11", "q3 12-12"));
}

TEST_F(BuildResultsTest, SaysWhatIsWrongWithTheQuestion) {
  const auto reader = OpenReader();
  EXPECT_THAT(BuildResults(*reader, "sweep-1", ""),
              IsError(absl::StatusCode::kNotFound, "sweep-1"));
  EXPECT_THAT(BuildResults(*reader, "sweep-0", "colour"),
              IsError(absl::StatusCode::kInvalidArgument, "level, subject and length"));
  EXPECT_THAT(BuildComparison(*reader, baseline_, 999),
              IsError(absl::StatusCode::kNotFound, "999"));
}

TEST_F(BuildResultsTest, ComparesTwoCellsUnitByUnit) {
  FinishAll();
  const auto reader = OpenReader();
  ASSERT_OK_AND_ASSIGN(const Comparison comparison, BuildComparison(*reader, baseline_, cell_));
  EXPECT_EQ(comparison.baseline.method, "bf16");
  EXPECT_EQ(comparison.cell.method, "rtn");
  EXPECT_EQ(comparison.num_pairs, 6);
  EXPECT_EQ(comparison.harmful_flips, 2);
  EXPECT_EQ(comparison.flips.size(), 2u);
  ASSERT_OK_AND_ASSIGN(const int64_t sample, reader->FindSample(cell_, 2, 0));
  EXPECT_EQ(comparison.flips[0].sample_id, sample);
}

TEST_F(BuildResultsTest, RefusesToPairDifferentBenchmarkVersions) {
  int64_t other_cell = 0;
  Do([&] {
    ASSERT_OK_AND_ASSIGN(const int64_t other,
                         store_->UpsertBenchmark({.name = "arith",
                                                  .version_hash = "another-hash",
                                                  .prompt_version = "1",
                                                  .grader = "boxed_number",
                                                  .num_items = kNumItems},
                                                 MakeItems()));
    ASSERT_OK_AND_ASSIGN(const int64_t model,
                         store_->UpsertModel({.name = "tiny", .content_hash = "model-hash"}));
    storage::CellRecord cell = {.key = "key-other",
                                .model_id = model,
                                .benchmark_id = other,
                                .engine_numerics_version = "cpu-1"};
    cell.method = {.method = "bf16", .bits = "16-16-16", .label = "bf16"};
    cell.sampling.max_tokens = 512;
    ASSERT_OK_AND_ASSIGN(other_cell, store_->UpsertCell(cell));
  });
  const auto reader = OpenReader();
  EXPECT_THAT(BuildComparison(*reader, baseline_, other_cell),
              IsError(absl::StatusCode::kInvalidArgument,
                      "is on arith version another-hash prompt 1: only cells on the same items"));
}

}  // namespace
}  // namespace assay::coordinator
