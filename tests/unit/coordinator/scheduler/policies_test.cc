#include <gtest/gtest.h>

#include "coordinator/scheduler/cell_policy.h"
#include "coordinator/scheduler/failure_policy.h"
#include "coordinator/scheduler/lease_policy.h"
#include "coordinator/scheduler/length_table.h"
#include "coordinator/scheduler/slot_policy.h"
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
  const SweepCandidate low{1, 10, {}, 0, 0, true};
  const SweepCandidate busy{2, 50, {}, 40, 0, false};
  const SweepCandidate loaded{3, 50, {}, 90, 0, true};
  const SweepCandidate idle{4, 50, {}, 0, 0, false};
  const SweepCandidate all[] = {low, busy, loaded, idle};
  EXPECT_EQ(ChooseSweep(all, true), 2u);
  EXPECT_EQ(ChooseSweep(all, false), 3u);
  const SweepCandidate twins[] = {{8, 50, {}, 0, 0, false}, {7, 50, {}, 0, 0, false}};
  EXPECT_EQ(ChooseSweep(twins, false), 1u);
  EXPECT_EQ(ChooseSweep({}, true), std::nullopt);
}

TEST(CellPolicyTest, TheOwnerWithTheLeastGoesFirstAndThenHerSweepWithTheLeast) {
  const SweepCandidate rich{1, 50, {100, 7}, 0, 0, false};
  const SweepCandidate poor_busy{2, 50, {60, 9}, 50, 9, false};
  const SweepCandidate poor_idle{3, 50, {60, 9}, 10, 8, false};
  const SweepCandidate all[] = {rich, poor_busy, poor_idle};
  EXPECT_EQ(ChooseSweep(all, false), 2u);
  // Of equals the one who has waited longer, and priority before everything.
  const SweepCandidate twins[] = {{1, 50, {60, 9}, 5, 0, false}, {2, 50, {60, 4}, 55, 4, false}};
  EXPECT_EQ(ChooseSweep(twins, false), 1u);
  const SweepCandidate urgent[] = {{1, 51, {600, 9}, 600, 9, false}, {2, 50, {}, 0, 0, false}};
  EXPECT_EQ(ChooseSweep(urgent, false), 0u);
}

TEST(CellPolicyTest, AJobGoesBeforeCellsButNotBeforeAPoorerOwners) {
  const JobCandidate jobs[] = {{5, 50, {32, 0}}, {6, 50, {16, 0}}, {4, 40, {0, 0}}};
  EXPECT_EQ(ChooseJob(jobs), 1u);
  EXPECT_EQ(ChooseJob({}), std::nullopt);
  EXPECT_TRUE(JobGoesFirst(jobs[1], 50, {16, 9}));
  EXPECT_FALSE(JobGoesFirst(jobs[1], 50, {15, 9}));
  EXPECT_TRUE(JobGoesFirst(jobs[1], 49, {0, 0}));
  EXPECT_FALSE(JobGoesFirst(jobs[1], 51, {1000, 9}));
}

constexpr int64_t kGib = int64_t{1} << 30;

TEST(SlotPolicyTest, AGangIsExactAndMemoryIsOfTheWholeGang) {
  EXPECT_TRUE(Fits({1, 5 * kGib}, {1, 0})) << "a CPU slot says no memory";
  EXPECT_TRUE(Fits({1, 0}, {1, kGib})) << "nothing is known of the cell";
  EXPECT_TRUE(Fits({2, 100 * kGib}, {2, 100 * kGib}));
  EXPECT_FALSE(Fits({2, 100 * kGib + 1}, {2, 100 * kGib}));
  EXPECT_FALSE(Fits({2, 0}, {1, 0}));
  EXPECT_FALSE(Fits({1, 0}, {2, 0}));
  const SlotNeed need = {1, 5 * kGib, 9 * kGib};
  EXPECT_TRUE(Fits(need, {1, 8 * kGib, /*is_cpu=*/false}));
  EXPECT_FALSE(Fits(need, {1, 8 * kGib, /*is_cpu=*/true}));
}

TEST(SlotPolicyTest, ASlotRunsCellsOfItsOwnArithmeticAlone) {
  const SlotShape cpu = {1, 0, /*is_cpu=*/true, "cpu-2"};
  const SlotShape gpu = {1, 78 * kGib, /*is_cpu=*/false, "cuda-1"};
  const SlotNeed cuda_cell = {1, kGib, kGib, "cuda-1"};
  EXPECT_FALSE(Fits(cuda_cell, cpu));
  EXPECT_TRUE(Fits(cuda_cell, gpu));
  EXPECT_FALSE(Fits({1, kGib, kGib, "cpu-2"}, gpu));
  EXPECT_TRUE(Fits({1, kGib, kGib, ""}, gpu)) << "a job, which is no sample";
  EXPECT_TRUE(Fits(cuda_cell, {1, 0})) << "its runner refuses what is not its own";
  EXPECT_EQ(WhyNoSlotFits(cuda_cell, {cpu}), "needs a slot with cuda-1; workers offer cpu-2");
  EXPECT_EQ(WhyNoSlotFits({1, 0, 0, "cuda-2"}, {cpu, gpu}),
            "needs a slot with cuda-2; workers offer cpu-2, cuda-1");
  // The memory of slots that could never take it says nothing.
  EXPECT_EQ(WhyNoSlotFits({1, 79 * kGib, 0, "cuda-1"}, {{1, 900 * kGib, true, "cpu-2"}, gpu}),
            "needs 79.0 GiB; the largest slot has 78.0 GiB");
}

TEST(SlotPolicyTest, TheReasonNamesNeedAndLargestSlot) {
  EXPECT_EQ(WhyNoSlotFits({1, kGib}, {{1, 0}}), "");
  EXPECT_EQ(WhyNoSlotFits({1, kGib}, {}), "no worker takes work now");
  EXPECT_EQ(WhyNoSlotFits({2, 148 * kGib}, {{1, 78 * kGib}, {1, 40 * kGib}}),
            "needs 2 GPUs of 74.0 GiB; the largest slot has 1 GPU of 78.0 GiB");
  EXPECT_EQ(WhyNoSlotFits({2, 0}, {{1, 0}}), "needs 2 GPUs; the largest slot has 1 GPU");
  EXPECT_EQ(WhyNoSlotFits({1, 79 * kGib}, {{1, 78 * kGib}}),
            "needs 79.0 GiB; the largest slot has 78.0 GiB");
  EXPECT_EQ(WhyNoSlotFits({1, 5 << 20, 19 << 20}, {{1, 8 << 20, /*is_cpu=*/true}}),
            "needs 19.0 MiB; the largest slot has 8.0 MiB");
  // Neither side rounds into looking enough.
  EXPECT_EQ(WhyNoSlotFits({1, 78 * kGib + 1}, {{1, 78 * kGib - 1}}),
            "needs 78.1 GiB; the largest slot has 77.9 GiB");
  EXPECT_EQ(
      WhyNoSlotFits({1, 10 * kGib}, {{2, 160 * kGib}}),
      "needs 1 GPU of 10.0 GiB; the largest slot has 2 GPUs of 80.0 GiB, and a slot runs only "
      "cells of its own number");
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

TEST(FailurePolicyTest, AJobsOwnErrorIsFinalAndTheMachinesIsRetriedEightTimes) {
  EXPECT_TRUE(GiveUpJob(false, 1));
  EXPECT_FALSE(GiveUpJob(true, 8));
  EXPECT_TRUE(GiveUpJob(true, 9));
}

TEST(FailurePolicyTest, BlocksGrowToFiveMinutes) {
  EXPECT_EQ(BlockFor(1), absl::Seconds(1));
  EXPECT_EQ(BlockFor(4), absl::Seconds(8));
  EXPECT_EQ(BlockFor(1000), absl::Minutes(5));
}

}  // namespace
}  // namespace assay::coordinator
