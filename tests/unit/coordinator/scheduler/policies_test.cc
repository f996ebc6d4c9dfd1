#include <gtest/gtest.h>

#include "coordinator/scheduler/cell_policy.h"
#include "coordinator/scheduler/failure_policy.h"
#include "coordinator/scheduler/lease_policy.h"
#include "coordinator/scheduler/length_table.h"
#include "coordinator/scheduler/unit_policy.h"
#include "coordinator/scheduler/unit_table.h"

namespace assay::coordinator {
namespace {

TEST(UnitTableTest, GrowingKeepsWhatWasThere) {
  UnitTable units(5);
  units.Grow(2);
  units.Set(units.IndexOf(4, 1), UnitStatus::kDone);
  units.Set(units.IndexOf(0, 0), UnitStatus::kQuarantined);
  units.Set(units.IndexOf(1, 0), UnitStatus::kLeased);
  units.Grow(40);
  EXPECT_EQ(units.Get(units.IndexOf(4, 1)), UnitStatus::kDone);
  EXPECT_EQ(units.Get(units.IndexOf(0, 0)), UnitStatus::kQuarantined);
  EXPECT_EQ(units.Get(units.IndexOf(1, 0)), UnitStatus::kLeased);
  EXPECT_EQ(units.Get(units.IndexOf(4, 39)), UnitStatus::kQueued);
  EXPECT_FALSE(units.Contains(5, 0));
  EXPECT_FALSE(units.Contains(0, 40));
  EXPECT_FALSE(units.Contains(-1, 0));
}

TEST(CellPolicyTest, PriorityThenLoadedModelThenFewestInFlightThenAge) {
  const SweepCandidate low{1, 10, 0, 0, true};
  const SweepCandidate busy{2, 50, 40, 0, false};
  const SweepCandidate loaded{3, 50, 90, 0, true};
  const SweepCandidate idle{4, 50, 0, 0, false};
  const SweepCandidate all[] = {low, busy, loaded, idle};
  EXPECT_EQ(ChooseSweep(all, true), 2u);
  EXPECT_EQ(ChooseSweep(all, false), 3u);
  const SweepCandidate twins[] = {{8, 50, 0, 0, false}, {7, 50, 0, 0, false}};
  EXPECT_EQ(ChooseSweep(twins, false), 1u);
  EXPECT_EQ(ChooseSweep({}, true), std::nullopt);
}

TEST(LeasePolicyTest, AGrantNeverExceedsTheLanesAndOneChunk) {
  for (int lanes = 0; lanes <= 200; lanes += 7) {
    for (int committed = 0; committed <= 250; committed += 5) {
      for (const int64_t queued : {0, 1, 3, 17, 500, 100000}) {
        const int32_t size = LeaseSize(Allowance(lanes, committed), queued, 2);
        EXPECT_LE(size, kMaxLeaseUnits);
        EXPECT_LE(size, queued);
        if (size > 0) {
          EXPECT_LE(committed + size, std::max(lanes, kChunkUnits) + kChunkUnits);
        }
      }
    }
  }
}

TEST(LeasePolicyTest, LeasesShrinkTowardsTheEndOfACell) {
  EXPECT_EQ(LeaseSize(80, 1000, 4), 64);
  EXPECT_EQ(LeaseSize(80, 200, 4), 25);
  EXPECT_EQ(LeaseSize(80, 40, 4), 5);
  EXPECT_EQ(LeaseSize(80, 8, 4), 4);
  EXPECT_EQ(LeaseSize(80, 3, 4), 3);
  EXPECT_EQ(LeaseSize(5, 1000, 4), 0) << "a full slot waits for room instead of many tiny leases";
}

TEST(UnitPolicyTest, LongestFirstAndRepeatsOfAnItemTogether) {
  UnitTable units(4);
  units.Grow(2);
  LengthTable lengths(4);
  for (int i = 0; i < 8; ++i) {
    lengths.Record(0, 10);
    lengths.Record(1, 30);
    lengths.Record(2, 20);
  }
  const std::vector<int32_t>& order = lengths.Order();
  // Item 3 is unknown and takes the mean, 20: after item 2 by its number.
  EXPECT_EQ(order, (std::vector<int32_t>{1, 2, 3, 0}));
  PickCursor cursor;
  const auto first = PickUnits(units, order, lengths.version(), 4, 2, {}, 3, &cursor);
  EXPECT_EQ(first, (std::vector<int32_t>{1, 5, 2}));
  for (const int32_t index : first) units.Set(index, UnitStatus::kLeased);
  // Item 3 is not wanted here.
  EXPECT_EQ(PickUnits(units, order, lengths.version(), 3, 2, {}, 9, &cursor),
            (std::vector<int32_t>{6, 0, 4}));
}

TEST(UnitPolicyTest, SuspectsArePassedOverAndFoundAgain) {
  UnitTable units(4);
  units.Grow(1);
  LengthTable lengths(4);
  PickCursor cursor;
  const auto picked = PickUnits(units, lengths.Order(), lengths.version(), 4, 1, {1}, 9, &cursor);
  EXPECT_EQ(picked, (std::vector<int32_t>{0, 2, 3}));
  for (const int32_t index : picked) units.Set(index, UnitStatus::kDone);
  EXPECT_EQ(PickUnits(units, lengths.Order(), lengths.version(), 4, 1, {}, 9, &cursor),
            (std::vector<int32_t>{1}));
}

TEST(FailurePolicyTest, PoisonIsProvenAloneTwiceOnTwoWorkersOrThreeTimesOnOne) {
  EXPECT_FALSE(IsPoison(1, 0));
  EXPECT_FALSE(IsPoison(1, 2));
  EXPECT_FALSE(IsPoison(5, 0));
  EXPECT_FALSE(IsPoison(2, 1));
  EXPECT_TRUE(IsPoison(2, 2));
  EXPECT_TRUE(IsPoison(1, 3));
}

TEST(FailurePolicyTest, AJobsOwnErrorIsFinalAndTheMachinesIsRetriedThreeTimes) {
  EXPECT_TRUE(GiveUpJob(false, 1));
  EXPECT_FALSE(GiveUpJob(true, 3));
  EXPECT_TRUE(GiveUpJob(true, 4));
}

TEST(FailurePolicyTest, BlocksGrowToFiveMinutes) {
  EXPECT_EQ(BlockFor(1), absl::Seconds(1));
  EXPECT_EQ(BlockFor(4), absl::Seconds(8));
  EXPECT_EQ(BlockFor(1000), absl::Minutes(5));
}

}  // namespace
}  // namespace assay::coordinator
