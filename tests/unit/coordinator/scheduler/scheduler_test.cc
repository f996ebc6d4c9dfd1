#include "coordinator/scheduler/scheduler.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/unit/coordinator/scheduler/scheduler_harness.h"

namespace assay::coordinator {
namespace {

class SchedulerTest : public ::testing::Test, protected testing::SchedulerHarness {
 protected:
  GrantUnits OnlyGrant() {
    const auto grants = Last<GrantUnits>();
    EXPECT_EQ(grants.size(), 1u);
    return grants.empty() ? GrantUnits{} : grants.front();
  }
};

TEST_F(SchedulerTest, ASweepRunsToItsEnd) {
  AddCell(1, 40);
  AddSweep(1, {{1, 1, 40}});
  Join("w1", "a");
  int num_samples = 0;
  while (!scheduler().leases().empty()) {
    const LeaseState lease = scheduler().leases().begin()->second;
    for (const int32_t index : lease.units) {
      Store({1, index, 0});
      ++num_samples;
    }
  }
  EXPECT_EQ(num_samples, 40);
  EXPECT_EQ(Settled(), (std::map<int64_t, bool>{{1, false}}));
  EXPECT_TRUE(scheduler().cells().empty()) << "a settled sweep's cells are forgotten";
  const auto settled = All<SettleCell>();
  ASSERT_EQ(settled.size(), 1u);
  EXPECT_FALSE(settled.front().failed);
}

TEST_F(SchedulerTest, ASweepWhoseSamplesAreAllStoredSettlesAtOnce) {
  AddCell(1, 2);
  for (int32_t item : {0, 1}) scheduler().RestoreUnit({1, item, 0}, UnitStatus::kDone, 0);
  AddSweep(7, {{1, 1, 2}});
  EXPECT_EQ(Settled(), (std::map<int64_t, bool>{{7, false}}));
}

TEST_F(SchedulerTest, LongestExpectedUnitsGoFirst) {
  AddCell(1, 64);
  std::vector<double> lengths(64, 10);
  lengths[50] = 500;
  lengths[3] = 300;
  scheduler().SeedLengths(1, 64, 64, lengths);
  AddSweep(1, {{1, 1, 64}});
  Join("w1", "a");
  const auto grants = All<GrantUnits>();
  ASSERT_FALSE(grants.empty());
  EXPECT_EQ(grants[0].units[0], (UnitId{1, 50, 0}));
  EXPECT_EQ(grants[0].units[1], (UnitId{1, 3, 0}));
  EXPECT_EQ(scheduler().ExpectedTokens({1, 50, 0}), 500);
}

TEST_F(SchedulerTest, ALeaseLivesWhileTokensAdvanceAndExpiresWithoutThem) {
  AddCell(1, 4);
  AddSweep(1, {{1, 1, 4}});
  Join("w1", "a");
  const GrantUnits grant = OnlyGrant();
  for (int i = 1; i <= 100; ++i) {
    Advance(absl::Seconds(5));
    WorkerHeartbeat heartbeat = MakeHeartbeat("w1");
    heartbeat.leases[0].tokens_generated = i;
    Beat(heartbeat);
  }
  EXPECT_EQ(scheduler().leases().size(), 1u);
  for (int i = 0; i < 11; ++i) {
    Advance(absl::Seconds(5));
    Beat(MakeHeartbeat("w1"));  // alive, and no token more
  }
  EXPECT_TRUE(All<EndLease>().empty());
  Advance(absl::Seconds(5));
  ASSERT_EQ(Last<EndLease>().size(), 1u);
  EXPECT_EQ(Last<EndLease>()[0].reason, LeaseEnd::kExpired);
  EXPECT_EQ(Last<EndLease>()[0].lease_id, grant.lease_id);
  EXPECT_EQ(Last<TellRevoke>().size(), 1u);
}

TEST_F(SchedulerTest, ASlotThatLoadsAModelKeepsItsLease) {
  AddCell(1, 4);
  AddSweep(1, {{1, 1, 4}});
  Join("w1", "a");
  for (int i = 0; i < 100; ++i) {
    Advance(absl::Seconds(5));
    WorkerHeartbeat heartbeat = MakeHeartbeat("w1");
    heartbeat.slots[0].phase = SlotPhase::kLoading;
    Beat(heartbeat);
  }
  EXPECT_TRUE(All<EndLease>().empty());
  for (int i = 0; i < 400; ++i) {
    Advance(absl::Seconds(5));
    WorkerHeartbeat heartbeat = MakeHeartbeat("w1");
    heartbeat.slots[0].phase = SlotPhase::kLoading;
    Beat(heartbeat);
  }
  EXPECT_FALSE(All<EndLease>().empty()) << "half an hour is the longest load";
}

TEST_F(SchedulerTest, AWaitingLeaseLivesByTheProgressOfItsSlot) {
  AddCell(1, 500);
  AddSweep(1, {{1, 1, 500}});
  Join("w1", "a");
  FinishLease(OnlyGrant());
  Beat("w1");
  ASSERT_GE(scheduler().leases().size(), 1u);
  Beat("w1", 32);
  ASSERT_GE(scheduler().leases().size(), 2u);
  const size_t num_leases = scheduler().leases().size();
  for (int i = 1; i < 50; ++i) {
    Advance(absl::Seconds(5));
    WorkerHeartbeat heartbeat = MakeHeartbeat("w1", 32);
    heartbeat.leases[0].tokens_generated = i;
    Beat(heartbeat);
  }
  EXPECT_EQ(scheduler().leases().size(), num_leases);
}

TEST_F(SchedulerTest, AnExpiredUnitGoesToAnotherWorker) {
  AddCell(1, 4);
  AddSweep(1, {{1, 1, 4}});
  Join("w1", "a");
  const GrantUnits first = OnlyGrant();
  Advance(absl::Seconds(30));
  Join("w2", "b");
  EXPECT_TRUE(Last<GrantUnits>().empty());
  Advance(absl::Seconds(31));
  Beat("w2");
  const GrantUnits second = OnlyGrant();
  EXPECT_EQ(second.worker_id, "w2");
  EXPECT_EQ(std::set(second.units.begin(), second.units.end()),
            std::set(first.units.begin(), first.units.end()));
  EXPECT_NE(second.lease_id, first.lease_id);
}

TEST_F(SchedulerTest, ALateSampleOfAnExpiredLeaseCountsWhileNobodyElseHasTheUnit) {
  AddCell(1, 4);
  AddSweep(1, {{1, 1, 4}});
  Join("w1", "a");
  const GrantUnits grant = OnlyGrant();
  Advance(absl::Seconds(61));
  EXPECT_EQ(Last<EndLease>().size(), 1u);
  for (const UnitId& unit : grant.units) Store(unit);
  EXPECT_EQ(Settled(), (std::map<int64_t, bool>{{1, false}}));
}

TEST_F(SchedulerTest, ANewIncarnationEndsTheLeasesOfTheOldAtOnce) {
  AddCell(1, 4);
  AddSweep(1, {{1, 1, 4}});
  Join("w1", "a");
  const GrantUnits old = OnlyGrant();
  Hello("w1", "b");
  ASSERT_EQ(Last<EndLease>().size(), 1u);
  EXPECT_EQ(Last<EndLease>()[0].reason, LeaseEnd::kWorkerLost);
  ASSERT_EQ(Last<TellShutdown>().size(), 1u);
  EXPECT_EQ(Last<TellShutdown>()[0].incarnation, "a");
  Beat("w1");
  EXPECT_EQ(OnlyGrant().incarnation, "b");
  // The old start comes back: it is not let in again.
  Hello("w1", "a");
  ASSERT_EQ(Last<TellShutdown>().size(), 1u);
  EXPECT_EQ(scheduler().workers().at("w1").incarnation, "b");
  EXPECT_EQ(scheduler().leases().size(), 1u);
}

TEST_F(SchedulerTest, TheSameIncarnationOnANewStreamKeepsItsLeases) {
  AddCell(1, 4);
  AddSweep(1, {{1, 1, 4}});
  Join("w1", "a");
  Join("w1", "a");
  EXPECT_EQ(scheduler().leases().size(), 1u);
  EXPECT_TRUE(All<EndLease>().empty());
}

TEST_F(SchedulerTest, AGrantThatGotLostIsGivenAgain) {
  AddCell(1, 4);
  AddSweep(1, {{1, 1, 4}});
  Join("w1", "a");
  const GrantUnits lost = OnlyGrant();
  WorkerHeartbeat unaware = MakeHeartbeat("w1");
  unaware.leases.clear();
  unaware.slots[0].num_running = 0;
  unaware.slots[0].num_free_lanes = 16;
  Advance(absl::Seconds(5));
  Beat(unaware);
  EXPECT_TRUE(All<EndLease>().empty()) << "it may be on its way";
  Advance(absl::Seconds(6));
  Beat(unaware);
  ASSERT_EQ(Last<EndLease>().size(), 1u);
  EXPECT_EQ(Last<EndLease>()[0].lease_id, lost.lease_id);
  EXPECT_EQ(OnlyGrant().units.size(), 4u);
}

TEST_F(SchedulerTest, ALeaseThatIsNotTheWorkersIsRevoked) {
  AddCell(1, 4);
  AddSweep(1, {{1, 1, 4}});
  Join("w1", "a");
  const GrantUnits grant = OnlyGrant();
  Join("w2", "b");
  WorkerHeartbeat heartbeat = MakeHeartbeat("w2");
  heartbeat.leases.push_back({grant.lease_id, 1'000'000});
  heartbeat.leases.push_back({"lease-unheard-of", 1});
  Beat(heartbeat);
  ASSERT_EQ(Last<TellRevoke>().size(), 2u);
  EXPECT_EQ(Last<TellRevoke>()[0].worker_id, "w2");
  EXPECT_EQ(scheduler().leases().size(), 1u);
  EXPECT_EQ(scheduler().leases().begin()->second.tokens_generated, 0);
}

TEST_F(SchedulerTest, ACrashedLeaseIsReissuedAsSinglesUntilTheCulpritIsAlone) {
  AddCell(1, 8);
  AddSweep(1, {{1, 1, 8}});
  Join("w1", "a");
  const UnitId culprit{1, 5, 0};
  for (const GrantUnits& grant : All<GrantUnits>()) {
    for (const UnitId& unit : grant.units) Fail(grant, unit, 1);
  }
  int num_failures = 1;
  bool quarantined = false;
  for (int round = 0; round < 40 && !scheduler().sweeps().empty(); ++round) {
    ASSERT_EQ(scheduler().leases().size(), 1u) << "nothing runs beside a suspect";
    const LeaseState lease = scheduler().leases().begin()->second;
    ASSERT_EQ(lease.units.size(), 1u);
    const UnitId unit{1, *lease.units.begin(), 0};
    if (unit == culprit) {
      GrantUnits grant;
      grant.lease_id = lease.lease_id;
      Fail(grant, unit, 1);  // one worker: never two incarnations
      ++num_failures;
      quarantined = quarantined || !Last<QuarantineUnit>().empty();
    } else {
      Store(unit);
    }
  }
  EXPECT_TRUE(quarantined);
  EXPECT_EQ(num_failures, 4);
  EXPECT_EQ(Settled(), (std::map<int64_t, bool>{{1, true}}));
}

// Killed by chance in company and then once more alone: that happens to healthy units too.
TEST_F(SchedulerTest, AUnitThatFailsAloneTwiceOnTwoIncarnationsIsQuarantined) {
  AddCell(1, 1);
  AddSweep(1, {{1, 1, 1}});
  Join("w1", "a");
  Fail(OnlyGrant(), {1, 0, 0}, 1);
  EXPECT_TRUE(Last<QuarantineUnit>().empty());
  Fail(OnlyGrant(), {1, 0, 0}, 2);
  EXPECT_TRUE(Last<QuarantineUnit>().empty());
  Fail(OnlyGrant(), {1, 0, 0}, 2);
  EXPECT_EQ(Last<QuarantineUnit>().size(), 1u);
  EXPECT_EQ(Settled(), (std::map<int64_t, bool>{{1, true}}));
}

TEST_F(SchedulerTest, TheMachinesFaultIsNoStepToQuarantineButSlowsTheNextTry) {
  AddCell(1, 4);
  AddSweep(1, {{1, 1, 4}});
  Join("w1", "a");
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(scheduler().leases().size(), 1u);
    const LeaseState lease = scheduler().leases().begin()->second;
    GrantUnits grant;
    grant.lease_id = lease.lease_id;
    for (const int32_t index : lease.units) Fail(grant, {1, index, 0}, 0, true);
    EXPECT_TRUE(scheduler().leases().empty()) << "not at once";
    Advance(absl::Minutes(5));
    Beat("w1");
  }
  EXPECT_TRUE(All<QuarantineUnit>().empty());
  EXPECT_EQ(scheduler().cells().at(1).last_error, "it broke");
}

TEST_F(SchedulerTest, AnotherWorkerTakesWhatOneCannotRun) {
  AddCell(1, 4);
  AddSweep(1, {{1, 1, 4}});
  Join("w1", "a");
  const GrantUnits grant = OnlyGrant();
  Join("w2", "b");
  for (const UnitId& unit : grant.units) Fail(grant, unit, 0, true);
  ASSERT_GE(scheduler().leases().size(), 1u);
  for (const auto& [number, lease] : scheduler().leases()) EXPECT_EQ(lease.worker_id, "w2");
}

TEST_F(SchedulerTest, AReportOfAnOldFailureChangesNothing) {
  AddCell(1, 1);
  AddSweep(1, {{1, 1, 1}});
  Join("w1", "a");
  const GrantUnits first = OnlyGrant();
  Fail(first, {1, 0, 0}, 1);
  const size_t num_leases = scheduler().leases().size();
  Fail(first, {1, 0, 0}, 2);
  EXPECT_EQ(scheduler().leases().size(), num_leases);
  EXPECT_TRUE(All<QuarantineUnit>().empty());
}

TEST_F(SchedulerTest, PauseRevokesAndResumeGoesOn) {
  AddCell(1, 4);
  AddSweep(1, {{1, 1, 4}});
  Join("w1", "a");
  Play([&](Actions* actions) { scheduler().PauseSweep(1, actions); });
  EXPECT_EQ(Last<TellRevoke>().size(), 1u);
  ASSERT_EQ(Last<EndLease>().size(), 1u);
  EXPECT_EQ(Last<EndLease>()[0].reason, LeaseEnd::kRevoked);
  Beat("w1");
  EXPECT_TRUE(Last<GrantUnits>().empty());
  Play([&](Actions* actions) { scheduler().ResumeSweep(1, actions); });
  EXPECT_EQ(OnlyGrant().units.size(), 4u);
}

TEST_F(SchedulerTest, CancelRevokesOnlyWhatNoOtherSweepWants) {
  AddCell(1, 8);
  AddCell(2, 4);
  AddSweep(1, {{1, 2, 8}, {2, 1, 4}});
  AddSweep(2, {{1, 1, 4}});
  Join("w1", "a", 4);
  int64_t num_leased = 0;
  for (const auto& [number, lease] : scheduler().leases()) {
    num_leased += static_cast<int64_t>(lease.units.size());
  }
  EXPECT_EQ(num_leased, 20);
  Play([&](Actions* actions) { scheduler().CancelSweep(1, actions); });
  std::set<UnitId> left;
  for (const auto& [number, lease] : scheduler().leases()) {
    for (const int32_t index : lease.units) left.insert({lease.cell_id, index % 8, index / 8});
  }
  EXPECT_EQ(left, (std::set<UnitId>{{1, 0, 0}, {1, 1, 0}, {1, 2, 0}, {1, 3, 0}}));
  EXPECT_FALSE(scheduler().HasCell(2));
  for (const UnitId& unit : left) Store(unit);
  EXPECT_EQ(Settled(), (std::map<int64_t, bool>{{2, false}}));
}

TEST_F(SchedulerTest, ASharedCellIsComputedOnce) {
  AddCell(1, 8);
  AddSweep(1, {{1, 1, 8}});
  AddSweep(2, {{1, 1, 8}});
  Join("w1", "a", 3);
  std::set<UnitId> granted;
  for (const GrantUnits& grant : All<GrantUnits>()) {
    for (const UnitId& unit : grant.units) EXPECT_TRUE(granted.insert(unit).second);
  }
  for (const UnitId& unit : granted) Store(unit);
  EXPECT_EQ(granted.size(), 8u);
  EXPECT_EQ(Settled(), (std::map<int64_t, bool>{{1, false}, {2, false}}));
}

TEST_F(SchedulerTest, ADrainingWorkerGetsNothingNew) {
  AddCell(1, 400);
  AddSweep(1, {{1, 1, 400}});
  Join("w1", "a");
  const GrantUnits grant = OnlyGrant();
  Play([&](Actions* actions) { scheduler().DrainWorker("w1", actions); });
  EXPECT_EQ(Last<TellDrain>().size(), 1u);
  FinishLease(grant);
  Beat("w1");
  EXPECT_TRUE(scheduler().leases().empty());
}

// Found by the simulation: an order that got lost left a worker that neither worked nor went.
TEST_F(SchedulerTest, AnOrderToDrainIsRepeatedUntilItIsHeard) {
  Join("w1", "a");
  Play([&](Actions* actions) { scheduler().DrainWorker("w1", actions); });
  Beat("w1");
  EXPECT_EQ(Last<TellDrain>().size(), 1u);
  WorkerHeartbeat heard = MakeHeartbeat("w1", 16);
  heard.draining = true;
  Beat(heard);
  EXPECT_TRUE(Last<TellDrain>().empty());
}

TEST_F(SchedulerTest, AWorkerWithAFullSpoolGetsNothingNew) {
  AddCell(1, 400);
  AddSweep(1, {{1, 1, 400}});
  Hello("w1", "a");
  WorkerHeartbeat heartbeat = MakeHeartbeat("w1");
  heartbeat.num_spooled_samples = 1000;
  Beat(heartbeat);
  EXPECT_TRUE(scheduler().leases().empty());
  Beat("w1");
  EXPECT_FALSE(scheduler().leases().empty());
}

TEST_F(SchedulerTest, CellsWaitForTheirArtifactsJob) {
  AddCell(1, 4, /*artifact_id=*/9);
  Play([&](Actions*) { scheduler().AddJob({5, {1, 9, 1}}); });
  AddSweep(1, {{1, 1, 4}});
  Join("w1", "a");
  ASSERT_EQ(Last<GrantJob>().size(), 1u);
  EXPECT_TRUE(Last<GrantUnits>().empty());
  Play([&](Actions* actions) { scheduler().OnJobDone(5, 9, actions); });
  Beat("w1");
  EXPECT_EQ(scheduler().leases().size(), 1u);
}

TEST_F(SchedulerTest, AFailedJobFailsItsCellsAndRetryPutsThemBack) {
  AddCell(1, 4, 9);
  AddCell(2, 4);
  Play([&](Actions*) { scheduler().AddJob({5, {1, 9, 1}}); });
  AddSweep(1, {{1, 1, 4}, {2, 1, 4}});
  Join("w1", "a");
  EXPECT_TRUE(scheduler().WouldGiveUp(5, false));
  Play([&](Actions* actions) { scheduler().OnJobFailed(5, 9, true, "no bits", now(), actions); });
  EXPECT_EQ(scheduler().cells().at(1).last_error, "no bits");
  EXPECT_TRUE(Settled().empty()) << "the other cell still runs";
  Play([&](Actions*) {
    scheduler().ForgiveArtifact(9);
    scheduler().AddJob({5, {1, 9, 1}});
  });
  EXPECT_EQ(scheduler().cells().at(1).spec.artifact, ArtifactStatus::kMissing);
  Beat("w1");
  for (int32_t item = 0; item < 4; ++item) Store({2, item, 0});
  Beat("w1");
  ASSERT_EQ(scheduler().jobs().at(5).status, JobStatus::kLeased);
  Play([&](Actions* actions) { scheduler().OnJobFailed(5, 9, true, "again", now(), actions); });
  EXPECT_EQ(Settled(), (std::map<int64_t, bool>{{1, true}}));
}

TEST_F(SchedulerTest, AJobOfTheMachinesFaultIsTriedForMinutesByAFleetOfOne) {
  AddCell(1, 4, 9);
  Play([&](Actions*) { scheduler().AddJob({5, {1, 9, 1}}); });
  AddSweep(1, {{1, 1, 4}});
  Join("w1", "a");
  const MonotonicTime start = now();
  while (!scheduler().WouldGiveUp(5, true)) {
    ASSERT_EQ(scheduler().jobs().at(5).status, JobStatus::kLeased);
    Play([&](Actions* actions) { scheduler().OnJobFailed(5, 9, false, "disk", now(), actions); });
    while (scheduler().jobs().at(5).status != JobStatus::kLeased) {
      Advance(absl::Seconds(1));
      Beat("w1");
    }
  }
  EXPECT_GE(now() - start, absl::Minutes(4));
  EXPECT_LT(now() - start, absl::Minutes(6));
}

TEST_F(SchedulerTest, AJobOfALostWorkerGoesToAnother) {
  AddCell(1, 4, 9);
  Play([&](Actions*) { scheduler().AddJob({5, {1, 9, 1}}); });
  AddSweep(1, {{1, 1, 4}});
  Join("w1", "a");
  ASSERT_EQ(scheduler().jobs().at(5).worker_id, "w1");
  Join("w2", "b");
  for (int i = 0; i < 100; ++i) {
    Advance(absl::Seconds(5));
    Beat("w1");
    Beat("w2");
  }
  ASSERT_EQ(scheduler().jobs().at(5).worker_id, "w1") << "it is at work";
  for (int i = 0; i < 13; ++i) {
    Advance(absl::Seconds(5));
    Beat("w2");
  }
  EXPECT_EQ(All<ReleaseJob>().size(), 1u);
  EXPECT_EQ(scheduler().jobs().at(5).worker_id, "w2");
}

TEST_F(SchedulerTest, HigherPriorityGoesFirstAndASlotDrainsBeforeItSwitches) {
  AddCell(1, 200, 0, /*model_id=*/1);
  AddCell(2, 4, 0, /*model_id=*/2);
  AddSweep(1, {{1, 1, 200}});
  Join("w1", "a");
  AddSweep(2, {{2, 1, 4}}, /*priority=*/90);
  Beat("w1");
  EXPECT_TRUE(Last<GrantUnits>().empty());
  while (!scheduler().leases().empty()) {
    const LeaseState lease = scheduler().leases().begin()->second;
    if (lease.cell_id == 2) break;
    Store({1, *lease.units.begin(), 0});
  }
  ASSERT_EQ(scheduler().leases().size(), 1u);
  EXPECT_EQ(scheduler().leases().begin()->second.cell_id, 2);
}

TEST_F(SchedulerTest, ASlotStaysWithItsModelForTenMinutesAndNoLonger) {
  AddCell(1, 5000, 0, 1);
  AddCell(2, 5000, 0, 2);
  AddSweep(1, {{1, 1, 5000}});
  Join("w1", "a");
  AddSweep(2, {{2, 1, 5000}});
  absl::Duration switched = absl::ZeroDuration();
  const MonotonicTime start = now();
  while (switched == absl::ZeroDuration() && now() - start < absl::Minutes(30)) {
    Advance(absl::Seconds(5));
    WorkerHeartbeat heartbeat = MakeHeartbeat("w1");
    for (LeaseProgress& lease : heartbeat.leases) lease.tokens_generated += 100;
    Beat(heartbeat);
    const LeaseState lease = scheduler().leases().begin()->second;
    if (lease.cell_id == 2) switched = now() - start;
    for (const int32_t index : lease.units) Store({lease.cell_id, index, 0});
  }
  EXPECT_GE(switched, absl::Minutes(10));
  EXPECT_LE(switched, absl::Minutes(11));
}

TEST_F(SchedulerTest, IdleSlotsSpreadOverTheCellsOfASweep) {
  for (int64_t cell = 1; cell <= 4; ++cell) AddCell(cell, 500, 0, /*model_id=*/cell);
  AddSweep(1, {{1, 1, 500}, {2, 1, 500}, {3, 1, 500}, {4, 1, 500}});
  Join("w1", "a", 2);
  Join("w2", "b", 2);
  std::set<int64_t> cells;
  for (const auto& [number, lease] : scheduler().leases()) cells.insert(lease.cell_id);
  EXPECT_EQ(cells, (std::set<int64_t>{1, 2, 3, 4}));
}

TEST_F(SchedulerTest, EqualSweepsShareTheFleet) {
  AddCell(1, 5000, 0, 1);
  AddCell(2, 5000, 0, 2);
  AddSweep(1, {{1, 1, 5000}});
  AddSweep(2, {{2, 1, 5000}});
  for (int i = 0; i < 10; ++i) Join("w" + std::to_string(i), "a");
  EXPECT_NEAR(static_cast<double>(scheduler().sweeps().at(1).num_charged),
              static_cast<double>(scheduler().sweeps().at(2).num_charged), 64);
}

TEST_F(SchedulerTest, RequeuedUnitsRunAgain) {
  AddCell(1, 4);
  AddSweep(1, {{1, 1, 4}});
  Join("w1", "a");
  Store({1, 2, 0});
  Play([&](Actions*) { scheduler().RequeueUnit({1, 2, 0}); });
  const GrantUnits grant = OnlyGrant();
  EXPECT_EQ(grant.units, (std::vector<UnitId>{{1, 2, 0}}));
}

TEST_F(SchedulerTest, RestoredLeasesLiveTwoTtlsAndGoOnWhenTheirWorkerReturns) {
  AddCell(1, 8);
  for (int32_t item = 0; item < 8; ++item) {
    scheduler().RestoreUnit({1, item, 0}, UnitStatus::kLeased, 0);
  }
  scheduler().RestoreLease({"old-1", 1, "w1", "a", 0, {{1, 0, 0}, {1, 1, 0}, {1, 2, 0}, {1, 3, 0}}},
                           now());
  scheduler().RestoreLease({"old-2", 1, "w2", "b", 0, {{1, 4, 0}, {1, 5, 0}, {1, 6, 0}, {1, 7, 0}}},
                           now());
  AddSweep(1, {{1, 1, 8}});
  Hello("w1", "a");
  for (int i = 1; i <= 23; ++i) {
    Advance(absl::Seconds(5));
    WorkerHeartbeat heartbeat = MakeHeartbeat("w1");
    heartbeat.leases = {{"old-1", i}};
    Beat(heartbeat);
  }
  EXPECT_TRUE(All<EndLease>().empty());
  Advance(absl::Seconds(6));
  ASSERT_EQ(Last<EndLease>().size(), 1u);
  EXPECT_EQ(Last<EndLease>()[0].lease_id, "old-2");
}

TEST_F(SchedulerTest, AWorkerThatFallsSilentIsOfflineAndThenBack) {
  Join("w1", "a");
  Advance(absl::Seconds(16));
  ASSERT_EQ(Last<WorkerPresence>().size(), 1u);
  EXPECT_FALSE(Last<WorkerPresence>()[0].online);
  Beat("w1");
  ASSERT_EQ(Last<WorkerPresence>().size(), 1u);
  EXPECT_TRUE(Last<WorkerPresence>()[0].online);
}

TEST_F(SchedulerTest, AWorkerAfterARebuildIsStillKnown) {
  AddCell(1, 4);
  AddSweep(1, {{1, 1, 4}});
  Join("w1", "a");
  Scheduler rebuilt({.lease_prefix = "again"});
  rebuilt.AddCell(scheduler().cells().at(1).spec);
  Actions actions;
  rebuilt.AddSweep({1, 50, false, {{1, 1, 4}}}, &actions);
  rebuilt.AdoptWorkers(scheduler(), {});
  rebuilt.Assign(now(), &actions);
  EXPECT_EQ(rebuilt.CheckInvariants(), "");
  ASSERT_EQ(rebuilt.leases().size(), 1u);
  EXPECT_EQ(rebuilt.leases().begin()->second.worker_id, "w1");
}

}  // namespace
}  // namespace assay::coordinator
