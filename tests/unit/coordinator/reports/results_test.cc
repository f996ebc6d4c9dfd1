#include "coordinator/reports/results.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "coordinator/statistics/statistics.h"
#include "tests/testing/status_matchers.h"

namespace assay::coordinator {
namespace {

using assay::testing::IsError;
using storage::UnitOutcome;
using storage::Verdict;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// One character per unit, item after item, repeats together:
//   + correct   - wrong   0 no answer   ! grader error   ? not graded   T wrong and cut   . no
//   sample
UnitGrid Grid(const std::string& units, int32_t num_repeats = 1, int64_t tokens = 10) {
  std::vector<UnitOutcome> outcomes;
  for (size_t i = 0; i < units.size(); ++i) {
    if (units[i] == '.') continue;
    UnitOutcome outcome;
    outcome.sample_id = static_cast<int64_t>(100 + i);
    outcome.item_index = static_cast<int32_t>(i) / num_repeats;
    outcome.repeat = static_cast<int32_t>(i) % num_repeats;
    outcome.verdict = units[i] == '+'   ? Verdict::kCorrect
                      : units[i] == '0' ? Verdict::kNoAnswer
                      : units[i] == '!' ? Verdict::kGraderError
                      : units[i] == '?' ? Verdict::kNone
                                        : Verdict::kWrong;
    outcome.truncated = units[i] == 'T';
    outcome.completion_tokens = tokens;
    outcomes.push_back(outcome);
  }
  return UnitGrid(static_cast<int32_t>(units.size()) / num_repeats, num_repeats, outcomes);
}

ResultRow Row(const UnitGrid& cell) {
  return ComputeRow({}, cell, nullptr, /*is_baseline=*/true, AllItems(cell.num_items()));
}

ResultRow Row(const UnitGrid& cell, const UnitGrid& baseline) {
  return ComputeRow({}, cell, &baseline, /*is_baseline=*/false, AllItems(cell.num_items()));
}

std::string Repeat(const std::string& text, int count) {
  std::string repeated;
  for (int i = 0; i < count; ++i) repeated += text;
  return repeated;
}

TEST(ResultRowTest, CountsOneArm) {
  const ResultRow row = Row(Grid("++-0T", 1, 20));
  EXPECT_EQ(row.num_units, 5);
  EXPECT_EQ(row.num_samples, 5);
  EXPECT_EQ(row.num_correct, 2);
  EXPECT_DOUBLE_EQ(row.accuracy, 0.4);
  EXPECT_DOUBLE_EQ(row.ci_low, statistics::Wilson(2, 5).low);
  EXPECT_DOUBLE_EQ(row.ci_high, statistics::Wilson(2, 5).high);
  EXPECT_EQ(row.num_truncated, 1);
  EXPECT_EQ(row.num_ungradable, 0);
  EXPECT_DOUBLE_EQ(row.mean_output_tokens, 20);
  EXPECT_EQ(row.label, "baseline");
  EXPECT_FALSE(row.has_drop);
  EXPECT_EQ(row.mcnemar_p, -1);
}

TEST(ResultRowTest, RerolledSamplesAreCountedBesideTheStored) {
  std::vector<UnitOutcome> outcomes;
  for (int32_t item = 0; item < 3; ++item) {
    outcomes.push_back({.sample_id = item + 1, .item_index = item, .rerolled = item == 1});
  }
  const ResultRow row = Row(UnitGrid(4, 1, outcomes));
  EXPECT_EQ(row.num_stored, 3);
  EXPECT_EQ(row.num_rerolled, 1);
  EXPECT_EQ(row.num_units, 4);
}

TEST(ResultRowTest, GraderErrorsAreNeverWrongAnswers) {
  const ResultRow row = Row(Grid("++-!?"));
  EXPECT_EQ(row.num_samples, 3);
  EXPECT_DOUBLE_EQ(row.accuracy, 2.0 / 3);
  EXPECT_EQ(row.num_ungradable, 1);
  EXPECT_EQ(row.label, "partial");
}

TEST(ResultRowTest, AccuracyIsTheMeanOverItemsOfTheMeanOverRepeats) {
  // 4 of 4, and 0 of the 2 that are there: the item counts, not the number of its repeats.
  const ResultRow row = Row(Grid("++++--..", 4));
  EXPECT_DOUBLE_EQ(row.accuracy, 0.5);
  EXPECT_EQ(row.num_samples, 6);
  EXPECT_EQ(row.num_units, 8);
  EXPECT_EQ(row.label, "partial");
}

TEST(ResultRowTest, DropIsPositiveWhenWorse) {
  const ResultRow row = Row(Grid("+---"), Grid("++--"));
  EXPECT_TRUE(row.has_drop);
  EXPECT_DOUBLE_EQ(row.drop, 0.25);
  EXPECT_LE(row.drop_ci_low, row.drop);
  EXPECT_GE(row.drop_ci_high, row.drop);
  EXPECT_EQ(row.mcnemar_p, 1);
  EXPECT_EQ(row.label, "undecided");
}

TEST(ResultRowTest, LabelsFollowThePairedInterval) {
  const UnitGrid baseline = Grid(Repeat("+", 1000));
  EXPECT_EQ(Row(Grid(Repeat("+", 1000)), baseline).label, "lossless");
  EXPECT_EQ(Row(Grid(Repeat("+", 500) + Repeat("-", 500)), baseline).label, "risky");
  EXPECT_EQ(Row(Grid(Repeat("+", 990) + Repeat("-", 10)), baseline).label, "undecided");
  // 2 points in 8000 units.
  const std::string item = "++++++++";
  const std::string worse = "+++++++-";
  EXPECT_EQ(Row(Grid(Repeat(item, 840) + Repeat(worse, 160), 8), Grid(Repeat(item, 1000), 8)).label,
            "fair");
}

TEST(ResultRowTest, OnlyCompletePairsMakeADrop) {
  // Pairs: items 0, 1 and 4. The unfinished ones would all be harmful.
  const ResultRow row = Row(Grid("+-..+!"), Grid("++++.+"));
  EXPECT_EQ(row.label, "partial");
  EXPECT_DOUBLE_EQ(row.drop, 0.5);
}

TEST(ResultRowTest, WithoutAnyPairThereIsNoDrop) {
  const ResultRow row = Row(Grid("..++"), Grid("++.."));
  EXPECT_FALSE(row.has_drop);
  EXPECT_EQ(row.label, "partial");
  const ResultRow nothing = Row(Grid("...."), Grid("...."));
  EXPECT_EQ(nothing.num_samples, 0);
  EXPECT_EQ(nothing.ci_low, 0);
  EXPECT_EQ(nothing.ci_high, 1);
  EXPECT_EQ(nothing.mean_output_tokens, 0);
}

TEST(ResultRowTest, ARowWithoutBaselineHasNoLabel) {
  const ResultRow row = ComputeRow({}, Grid("++"), nullptr, /*is_baseline=*/false, AllItems(2));
  EXPECT_EQ(row.label, "");
  EXPECT_FALSE(row.has_drop);
}

TEST(ResultRowTest, UsesOnlyTheItemsOfItsGroup) {
  const ResultRow row =
      ComputeRow({}, Grid("+-+-"), nullptr, /*is_baseline=*/true, ItemGroup{"2", {0, 2}});
  EXPECT_EQ(row.group, "2");
  EXPECT_EQ(row.num_units, 2);
  EXPECT_DOUBLE_EQ(row.accuracy, 1);
}

TEST(UnitGridTest, LeavesOutWhatTheSweepDoesNotWant) {
  std::vector<UnitOutcome> outcomes(4);
  outcomes[1].item_index = 7;
  outcomes[2].repeat = 3;
  outcomes[3].item_index = -1;
  const UnitGrid grid(2, 1, outcomes);
  EXPECT_EQ(grid.num_stored(), 1);
  EXPECT_TRUE(grid.unit(0, 0).stored);
  EXPECT_FALSE(grid.unit(1, 0).stored);
}

std::vector<storage::ItemRecord> Items(const std::vector<std::string>& levels) {
  std::vector<storage::ItemRecord> items;
  for (const std::string& level : levels) {
    storage::ItemRecord item;
    item.item_index = static_cast<int32_t>(items.size());
    item.level = level;
    item.subject = level;
    items.push_back(item);
  }
  return items;
}

std::vector<std::string> Names(const std::vector<ItemGroup>& groups) {
  std::vector<std::string> names;
  for (const ItemGroup& group : groups) names.push_back(group.name);
  return names;
}

TEST(GroupTest, LevelsComeInNumericOrderAndTheUnlevelledLast) {
  const std::vector<ItemGroup> groups = GroupByLevel(Items({"10", "2", "", "hard", "2"}));
  EXPECT_THAT(Names(groups), ElementsAre("2", "10", "hard", "none"));
  EXPECT_THAT(groups[0].items, ElementsAre(1, 4));
  EXPECT_THAT(GroupByLevel(Items({"", ""})), IsEmpty());
  EXPECT_THAT(Names(GroupBySubject(Items({"b", "a"}))), ElementsAre("a", "b"));
}

TEST(GroupTest, LengthQuartersAreTheBaselines) {
  std::vector<UnitOutcome> outcomes;
  for (const int32_t tokens : {50, 10, 40, 20, 30, 80, 70, 60}) {
    UnitOutcome outcome;
    outcome.item_index = static_cast<int32_t>(outcomes.size());
    outcome.completion_tokens = tokens;
    outcomes.push_back(outcome);
  }
  const std::vector<ItemGroup> groups = GroupByLength(UnitGrid(9, 1, outcomes));
  EXPECT_THAT(Names(groups), ElementsAre("q1 10-20", "q2 30-40", "q3 50-60", "q4 70-80"));
  EXPECT_THAT(groups[0].items, ElementsAre(1, 3));
  EXPECT_THAT(GroupByLength(UnitGrid(9, 1, {})), IsEmpty());
  EXPECT_EQ(GroupByLength(UnitGrid(9, 1, {outcomes[0]})).size(), 1u);
}

TEST(GroupTest, UnknownGroupingSaysWhatThereIs) {
  EXPECT_OK(ParseGrouping("length"));
  EXPECT_THAT(ParseGrouping("levels"),
              IsError(absl::StatusCode::kInvalidArgument, "(did you mean 'level'?)"));
}

TEST(ComparisonTest, CountsPairsAndFlips) {
  const Comparison comparison =
      ComputeComparison({}, Grid("+++--+", 1, 10), {}, Grid("+--+-.", 1, 20));
  EXPECT_EQ(comparison.num_pairs, 5);
  EXPECT_EQ(comparison.both_correct, 1);
  EXPECT_EQ(comparison.both_wrong, 1);
  EXPECT_EQ(comparison.harmful_flips, 2);
  EXPECT_EQ(comparison.beneficial_flips, 1);
  EXPECT_DOUBLE_EQ(comparison.cell.drop, 0.2);
  EXPECT_EQ(comparison.cell.label, "partial");
  EXPECT_EQ(comparison.baseline.label, "baseline");
  EXPECT_DOUBLE_EQ(comparison.cell.mcnemar_p, 1);
  EXPECT_DOUBLE_EQ(comparison.permutation_p, 1);
  EXPECT_DOUBLE_EQ(comparison.mean_length_log_ratio, std::log(2.0));
  ASSERT_EQ(comparison.flips.size(), 3u);
  EXPECT_TRUE(comparison.flips[0].harmful);
  EXPECT_EQ(comparison.flips[0].item_index, 1);
  EXPECT_EQ(comparison.flips[0].sample_id, 101);
  EXPECT_FALSE(comparison.flips[2].harmful);
  EXPECT_EQ(comparison.flips[2].item_index, 3);
}

TEST(ComparisonTest, FurtherRepeatsOfOneArmAreNoGaps) {
  const Comparison comparison =
      ComputeComparison({}, Grid(Repeat("++", 20), 2), {}, Grid(Repeat("-", 20), 1));
  EXPECT_EQ(comparison.num_pairs, 20);
  EXPECT_EQ(comparison.cell.label, "risky");
  EXPECT_EQ(comparison.baseline.num_units, 40);
}

TEST(ComparisonTest, ListsAHundredFlipsHarmfulFirst) {
  const Comparison comparison = ComputeComparison({}, Grid(Repeat("-", 90) + Repeat("+", 60)), {},
                                                  Grid(Repeat("+", 90) + Repeat("-", 60)));
  EXPECT_EQ(comparison.harmful_flips, 60);
  ASSERT_EQ(comparison.flips.size(), kMaxFlips);
  EXPECT_TRUE(comparison.flips[59].harmful);
  EXPECT_FALSE(comparison.flips[60].harmful);
  EXPECT_EQ(comparison.flips[0].item_index, 90);
}

}  // namespace
}  // namespace assay::coordinator
