#include "coordinator/control/control_plane.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <set>

#include "tests/unit/coordinator/control/control_harness.h"

namespace assay::coordinator {
namespace {

using assay::testing::IsError;
using storage::InsertOutcome;
using storage::SweepState;
using ::testing::Contains;
using ::testing::Each;
using testing::MakePlan;
using ::testing::Not;

class ControlPlaneTest : public ::testing::Test, protected testing::ControlHarness {
 protected:
  GrantMessage FirstGrant() {
    const auto grants = Messages<GrantMessage>();
    EXPECT_FALSE(grants.empty());
    return grants.empty() ? GrantMessage{} : grants.front();
  }
  absl::Status Pause(int64_t id) {
    absl::Status outcome;
    EXPECT_OK(Batch([&](ControlPlane& plane) { outcome = plane.HandlePause(id); }));
    return outcome;
  }
  absl::Status Resume(int64_t id) {
    absl::Status outcome;
    EXPECT_OK(Batch([&](ControlPlane& plane) { outcome = plane.HandleResume(id); }));
    return outcome;
  }
  absl::Status Cancel(int64_t id) {
    absl::Status outcome;
    EXPECT_OK(Batch([&](ControlPlane& plane) { outcome = plane.HandleCancel(id); }));
    return outcome;
  }
  absl::StatusOr<RetryResult> Retry(int64_t id, const std::string& request_id = "") {
    absl::StatusOr<RetryResult> outcome;
    EXPECT_OK(Batch([&](ControlPlane& plane) { outcome = plane.HandleRetry(id, request_id); }));
    return outcome;
  }
};

TEST_F(ControlPlaneTest, ASweepRunsFromSubmissionToItsEnd) {
  const int64_t sweep = Submit(MakePlan(3, 40, 2));
  Join("w1", "a", 2);
  RunAll();
  EXPECT_EQ(StateOf(sweep), SweepState::kDone);
  EXPECT_EQ(NumSamples(), 3 * 40 * 2);
  EXPECT_EQ(plane().counters().num_accepted, 240);
  const auto kinds = EventKinds();
  for (const char* kind :
       {"sweep_submitted", "worker_online", "job_done", "cell_done", "sweep_done"}) {
    EXPECT_THAT(kinds, Contains(kind));
  }
}

TEST_F(ControlPlaneTest, AGrantSaysEverythingThatARunnerNeeds) {
  Submit(MakePlan(1, 4));
  Join("w1", "a");
  const GrantMessage grant = FirstGrant();
  EXPECT_EQ(grant.cell->model.name, "tiny");
  EXPECT_EQ(grant.cell->benchmark.grader, "boxed_number");
  ASSERT_EQ(grant.units.size(), 4u);
  const UnitGrant& unit = grant.units[0];
  EXPECT_EQ(unit.epoch, 1);
  EXPECT_EQ(unit.user_text, "How much is 0 + 1? Box it.");
  EXPECT_EQ(unit.gold, "1");
  EXPECT_EQ(unit.seed, Hash64({"assay-unit-seed-1", "42", "arith", "item-0", "0"}));
}

TEST_F(ControlPlaneTest, TheSameSweepAgainFinishesFromTheStore) {
  Submit(MakePlan(2, 10));
  Join("w1", "a");
  RunAll();
  const int64_t again = Submit(MakePlan(2, 10));
  EXPECT_EQ(StateOf(again), SweepState::kDone);
  EXPECT_EQ(NumSamples(), 20);
  EXPECT_TRUE(Messages<GrantMessage>().empty());
}

TEST_F(ControlPlaneTest, ASubmissionIsRepeatedByItsRequestId) {
  const int64_t first = Submit(MakePlan(1, 4), "request-1");
  EXPECT_EQ(Submit(MakePlan(1, 4), "request-1"), first);
  EXPECT_NE(Submit(MakePlan(1, 4), "request-2"), first);
  Crash();
  EXPECT_EQ(Submit(MakePlan(1, 4), "request-1"), first);
}

TEST_F(ControlPlaneTest, AReportRepeatedIsADuplicate) {
  Submit(MakePlan(1, 4));
  Join("w1", "a");
  const GrantMessage grant = FirstGrant();
  const auto sample = MakeSample(grant, grant.units[0]);
  EXPECT_THAT(*Report({sample}), Each(InsertOutcome::kAccepted));
  EXPECT_THAT(*Report({sample}), Each(InsertOutcome::kDuplicate));
  EXPECT_EQ(plane().counters().num_duplicates, 1);
}

TEST_F(ControlPlaneTest, ACrashBetweenCommitAndAnswerLosesAndDoublesNothing) {
  Submit(MakePlan(1, 4));
  Join("w1", "a");
  const GrantMessage grant = FirstGrant();
  const auto sample = MakeSample(grant, grant.units[0]);
  ASSERT_OK(Report({sample}));
  Crash();  // the answer never left
  EXPECT_THAT(*Report({sample}), Each(InsertOutcome::kDuplicate));
  EXPECT_EQ(NumSamples(), 1);
}

TEST_F(ControlPlaneTest, ACrashBeforeTheCommitLosesOnlyWhatNobodyWasTold) {
  Submit(MakePlan(1, 4));
  Join("w1", "a");
  const GrantMessage grant = FirstGrant();
  const auto sample = MakeSample(grant, grant.units[0]);
  ASSERT_OK(plane().BeginBatch());
  ASSERT_OK(plane().HandleReport({"w1", "a", {sample}}));
  Crash();
  EXPECT_EQ(NumSamples(), 0);
  EXPECT_THAT(*Report({sample}), Each(InsertOutcome::kAccepted));
}

TEST_F(ControlPlaneTest, ALateSampleCountsUntilTheUnitIsGrantedAgain) {
  Submit(MakePlan(1, 2));
  Join("w1", "a");
  const GrantMessage grant = FirstGrant();
  clock().Advance(absl::Seconds(61));
  Tick();
  EXPECT_THAT(EventKinds(), Contains("lease_expired"));
  EXPECT_THAT(*Report({MakeSample(grant, grant.units[0])}), Each(InsertOutcome::kAccepted));
  ClearMessages();
  Join("w2", "b");
  const GrantMessage again = FirstGrant();
  ASSERT_EQ(again.units.size(), 1u);
  EXPECT_EQ(again.units[0].epoch, 2);
  EXPECT_EQ(again.units[0].seed, grant.units[1].seed);
  EXPECT_THAT(*Report({MakeSample(grant, grant.units[1])}), Each(InsertOutcome::kFenced));
  EXPECT_THAT(*Report({MakeSample(again, again.units[0])}, "w2", "b"),
              Each(InsertOutcome::kAccepted));
  EXPECT_EQ(plane().counters().num_fenced, 1);
}

TEST_F(ControlPlaneTest, SamplesThatCannotBeTrueAreRefusedAndNothingOfTheCallIsStored) {
  Submit(MakePlan(1, 4));
  Join("w1", "a");
  const GrantMessage grant = FirstGrant();
  const auto good = MakeSample(grant, grant.units[0]);
  const auto refused = [&](const char* piece, auto change) {
    auto bad = MakeSample(grant, grant.units[1]);
    change(&bad);
    EXPECT_THAT(Report({good, bad}), IsError(absl::StatusCode::kInvalidArgument, piece));
  };
  refused("items", [](auto* sample) { sample->unit.item_index = 4; });
  refused("seed", [](auto* sample) { sample->seed ^= 1; });
  refused("limit", [](auto* sample) { sample->completion_tokens = 1'000'000; });
  EXPECT_THAT(Report({good}, "w2", "b"),
              IsError(absl::StatusCode::kInvalidArgument, "not of worker"));
  EXPECT_EQ(NumSamples(), 0);
}

TEST_F(ControlPlaneTest, ARestartKeepsLeasesForTheirWorker) {
  const int64_t sweep = Submit(MakePlan(1, 40));
  Join("w1", "a");
  const auto grants = Messages<GrantMessage>();
  Crash();
  EXPECT_EQ(plane().scheduler().leases().size(), grants.size());
  Hello("w1", "a");
  // The worker goes on: its leases stay, and are not given to another.
  for (int i = 1; i <= 40; ++i) {
    clock().Advance(absl::Seconds(5));
    HeartbeatCommand heartbeat = MakeHeartbeat("w1", "a");
    for (LeaseProgress& lease : heartbeat.heartbeat.leases) lease.tokens_generated = 10 * i;
    Beat(heartbeat);
    Tick();
  }
  EXPECT_EQ(plane().scheduler().leases().size(), grants.size());
  EXPECT_THAT(EventKinds(), Not(Contains("lease_expired")));
  for (const GrantMessage& grant : grants) FinishLease(grant);
  EXPECT_EQ(StateOf(sweep), SweepState::kDone);
  EXPECT_EQ(plane().counters().num_accepted, 40);
}

TEST_F(ControlPlaneTest, AfterARestartSilentLeasesExpireAfterTwoTtls) {
  Submit(MakePlan(1, 4));
  Join("w1", "a");
  Crash();
  clock().Advance(absl::Seconds(119));
  Tick();
  EXPECT_EQ(plane().scheduler().leases().size(), 1u);
  clock().Advance(absl::Seconds(2));
  Tick();
  EXPECT_TRUE(plane().scheduler().leases().empty());
}

TEST_F(ControlPlaneTest, ANewIncarnationTakesOverAndOldSamplesStillCount) {
  Submit(MakePlan(1, 4));
  Join("w1", "a");
  const GrantMessage grant = FirstGrant();
  ClearMessages();
  Hello("w1", "b");
  EXPECT_EQ(Messages<ShutdownMessage>().size(), 1u);
  EXPECT_THAT(EventKinds(), Contains("lease_lost"));
  // From the spool of the old start.
  EXPECT_THAT(*Report({MakeSample(grant, grant.units[0])}, "w1", "b"),
              Each(InsertOutcome::kAccepted));
}

TEST_F(ControlPlaneTest, PauseResumeAndCancel) {
  const int64_t sweep = Submit(MakePlan(1, 4));
  Join("w1", "a");
  ClearMessages();
  EXPECT_OK(Pause(sweep));
  EXPECT_OK(Pause(sweep));
  EXPECT_EQ(StateOf(sweep), SweepState::kPaused);
  EXPECT_EQ(Messages<RevokeMessage>().size(), 1u);
  Crash();
  Join("w1", "a");
  EXPECT_TRUE(Messages<GrantMessage>().empty()) << "a restart does not forget the pause";
  EXPECT_OK(Resume(sweep));
  EXPECT_OK(Resume(sweep));
  EXPECT_EQ(Messages<GrantMessage>().size(), 1u);
  EXPECT_OK(Cancel(sweep));
  EXPECT_OK(Cancel(sweep));
  EXPECT_EQ(StateOf(sweep), SweepState::kCancelled);
  EXPECT_THAT(Pause(sweep), IsError(absl::StatusCode::kFailedPrecondition, "cancelled"));
  EXPECT_THAT(Resume(sweep), IsError(absl::StatusCode::kFailedPrecondition, "cancelled"));
  EXPECT_THAT(Retry(sweep), IsError(absl::StatusCode::kFailedPrecondition, "cancelled"));
}

TEST_F(ControlPlaneTest, SamplesOfACancelledSweepAreFenced) {
  const int64_t sweep = Submit(MakePlan(1, 4));
  Join("w1", "a");
  const GrantMessage grant = FirstGrant();
  ASSERT_OK(Cancel(sweep));
  EXPECT_THAT(*Report({MakeSample(grant, grant.units[0])}), Each(InsertOutcome::kFenced));
  EXPECT_EQ(NumSamples(), 0);
}

TEST_F(ControlPlaneTest, APoisonUnitIsQuarantinedAndRetried) {
  const int64_t sweep = Submit(MakePlan(1, 1));
  for (const std::string worker : {"w1", "w2", "w3"}) {
    ClearMessages();
    Join(worker, "a");
    const GrantMessage grant = FirstGrant();
    HeartbeatCommand heartbeat = MakeHeartbeat(worker, "a");
    heartbeat.heartbeat.draining = true;  // the next try is another's
    heartbeat.failures = {{grant.lease_id, grant.units[0].unit, grant.units[0].epoch, "boom"}};
    heartbeat.sequence = 7;
    Beat(heartbeat);
    ASSERT_EQ(Messages<AcknowledgeMessage>().size(), 1u);
    EXPECT_EQ(Messages<AcknowledgeMessage>()[0].sequence, 7);
    Beat(heartbeat);  // repeated until it is acknowledged: counted once
  }
  EXPECT_EQ(StateOf(sweep), SweepState::kFailed);
  EXPECT_THAT(EventKinds(), Contains("unit_quarantined"));
  ASSERT_OK_AND_ASSIGN(const RetryResult result, Retry(sweep, "again-1"));
  EXPECT_EQ(result.num_units, 1);
  EXPECT_EQ(StateOf(sweep), SweepState::kActive);
  ASSERT_OK_AND_ASSIGN(const RetryResult repeated, Retry(sweep, "again-1"));
  EXPECT_EQ(repeated.num_units, 1);
  ClearMessages();
  Join("w1", "c");
  RunAll();
  EXPECT_EQ(StateOf(sweep), SweepState::kDone);
}

// The simulation's seed 217: a wrong seed came through for a cell that was no longer in memory.
TEST_F(ControlPlaneTest, ALateSampleOfASettledSweepStillNeedsItsSeed) {
  const int64_t sweep = Submit(MakePlan(1, 1));
  GrantMessage last;
  for (const std::string worker : {"w1", "w2", "w3"}) {
    ClearMessages();
    Join(worker, "a");
    last = FirstGrant();
    HeartbeatCommand heartbeat = MakeHeartbeat(worker, "a");
    heartbeat.heartbeat.draining = true;
    heartbeat.failures = {{last.lease_id, last.units[0].unit, last.units[0].epoch, "boom"}};
    heartbeat.sequence = 1;
    Beat(heartbeat);
  }
  ASSERT_EQ(StateOf(sweep), SweepState::kFailed);
  storage::SampleRecord lie = MakeSample(last, last.units[0]);
  ++lie.seed;
  EXPECT_THAT(Report({lie}, "w3", "a"),
              IsError(absl::StatusCode::kInvalidArgument, "is not its seed"));
  EXPECT_EQ(NumSamples(), 0);
  EXPECT_THAT(*Report({MakeSample(last, last.units[0])}, "w3", "a"),
              Each(InsertOutcome::kAccepted));
}

TEST_F(ControlPlaneTest, ASweepThatDoesNotExistLosesNoBatch) {
  const int64_t sweep = Submit(MakePlan(1, 2));
  EXPECT_THAT(Pause(sweep + 100), IsError(absl::StatusCode::kNotFound, ""));
  EXPECT_OK(Pause(sweep));
}

TEST_F(ControlPlaneTest, AFailedJobFailsItsCellsAndRetryPutsThemBack) {
  const int64_t sweep = Submit(MakePlan(2, 4));
  Join("w1", "a");
  const auto jobs = Messages<JobMessage>();
  ASSERT_EQ(jobs.size(), 1u);
  EXPECT_OK(CompleteJob(jobs[0], "group_size 128 does not divide 100"));
  Beat(MakeHeartbeat("w1", "a"));
  RunAll();
  EXPECT_EQ(StateOf(sweep), SweepState::kFailed);
  EXPECT_EQ(NumSamples(), 4) << "the other cell ran";
  ASSERT_OK_AND_ASSIGN(const RetryResult result, Retry(sweep));
  EXPECT_EQ(result.num_jobs, 1);
  Beat(MakeHeartbeat("w1", "a"));
  EXPECT_THAT(CompleteJob(jobs[0], ""), IsError(absl::StatusCode::kFailedPrecondition, "epoch"));
  RunAll();
  EXPECT_EQ(StateOf(sweep), SweepState::kDone);
}

TEST_F(ControlPlaneTest, AJobOfTheMachinesFaultIsTriedAgain) {
  const int64_t sweep = Submit(MakePlan(2, 4));
  Join("w1", "a");
  for (int i = 0; i < 3; ++i) {
    const auto jobs = Messages<JobMessage>();
    ASSERT_EQ(jobs.size(), 1u) << i;
    ClearMessages();
    EXPECT_OK(CompleteJob(jobs[0], "no space left on device", true));
    RunAll();
    clock().Advance(absl::Seconds(10));
    Beat(MakeHeartbeat("w1", "a"));
  }
  RunAll();
  EXPECT_EQ(StateOf(sweep), SweepState::kDone);
}

TEST_F(ControlPlaneTest, ACompletedJobMayBeReportedAgain) {
  Submit(MakePlan(2, 4));
  Join("w1", "a");
  const JobMessage job = Messages<JobMessage>().at(0);
  EXPECT_OK(CompleteJob(job, ""));
  EXPECT_OK(CompleteJob(job, ""));
  Crash();
  EXPECT_OK(CompleteJob(job, ""));
}

TEST_F(ControlPlaneTest, ARequeuedSampleRunsAgainAndItsSweepIsActive) {
  const int64_t sweep = Submit(MakePlan(1, 4));
  Join("w1", "a");
  RunAll();
  ASSERT_EQ(StateOf(sweep), SweepState::kDone);
  absl::StatusOr<storage::UnitId> unit;
  ASSERT_OK(Batch([&](ControlPlane& plane) { unit = plane.HandleRequeue(1, "r1"); }));
  ASSERT_OK(unit);
  EXPECT_EQ(StateOf(sweep), SweepState::kActive);
  EXPECT_EQ(NumSamples(), 3);
  ASSERT_OK(Batch([&](ControlPlane& plane) { unit = plane.HandleRequeue(1, "r1"); }));
  EXPECT_OK(unit) << "the same request";
  ASSERT_OK(Batch([&](ControlPlane& plane) { unit = plane.HandleRequeue(1, "r2"); }));
  EXPECT_THAT(unit, IsError(absl::StatusCode::kNotFound, "no sample"));
  RunAll();
  EXPECT_EQ(StateOf(sweep), SweepState::kDone);
  EXPECT_EQ(NumSamples(), 4);
}

TEST_F(ControlPlaneTest, ADrainOutlivesARestartOfTheCoordinatorButNotOfTheWorker) {
  Submit(MakePlan(1, 400));
  Join("w1", "a");
  ASSERT_OK(Batch([](ControlPlane& plane) { EXPECT_OK(plane.HandleDrain("w1")); }));
  EXPECT_EQ(Messages<DrainMessage>().size(), 1u);
  Crash();
  Join("w1", "a");
  EXPECT_FALSE(Messages<DrainMessage>().empty()) << "said again";
  HeartbeatCommand heard = MakeHeartbeat("w1", "a");
  heard.heartbeat.draining = true;
  const size_t num_orders = Messages<DrainMessage>().size();
  Beat(heard);
  EXPECT_EQ(Messages<DrainMessage>().size(), num_orders) << "it is heard: said no more";
  EXPECT_TRUE(Messages<GrantMessage>().empty());
  Join("w1", "b");
  EXPECT_FALSE(Messages<GrantMessage>().empty());
  absl::Status unknown;
  ASSERT_OK(Batch([&](ControlPlane& plane) { unknown = plane.HandleDrain("nobody"); }));
  EXPECT_THAT(unknown, IsError(absl::StatusCode::kNotFound, "nobody"));
}

TEST_F(ControlPlaneTest, TheSnapshotCountsWhatTheDatabaseHolds) {
  const int64_t sweep = Submit(MakePlan(1, 40, 2));
  Join("w1", "a");
  FinishLease(FirstGrant());
  const LiveSnapshot snapshot = plane().TakeSnapshot();
  const LiveSweep& live = snapshot.sweeps.at(sweep);
  EXPECT_EQ(live.num_units, 80);
  EXPECT_EQ(live.num_done, NumSamples());
  EXPECT_EQ(live.num_done + live.num_running + live.num_queued, 80);
  EXPECT_EQ(live.tokens_done, 100 * live.num_done);
  EXPECT_EQ(live.cells.at(0).num_correct, live.num_done);
  EXPECT_EQ(live.tokens_expected, 8000);
  Crash();
  const LiveSnapshot after = plane().TakeSnapshot();
  EXPECT_EQ(after.sweeps.at(sweep).num_done, live.num_done);
  EXPECT_EQ(after.sweeps.at(sweep).num_running, live.num_running);
  EXPECT_EQ(after.sweeps.at(sweep).tokens_done, live.tokens_done);
}

// A disk without room: no file may grow beyond what it is now.
class FullDisk {
 public:
  explicit FullDisk(int64_t max_file_bytes) {
    before_ = signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &limit_);
    rlimit full = limit_;
    full.rlim_cur = static_cast<rlim_t>(max_file_bytes);
    setrlimit(RLIMIT_FSIZE, &full);
  }
  ~FullDisk() {
    setrlimit(RLIMIT_FSIZE, &limit_);
    signal(SIGXFSZ, before_);
  }

 private:
  sighandler_t before_;
  rlimit limit_{};
};

int64_t SizeOf(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 ? info.st_size : 0;
}

TEST_F(ControlPlaneTest, AFullDiskAnswersUnavailableAndTheMemoryEqualsTheDatabase) {
  const int64_t sweep = Submit(MakePlan(1, 200));
  Join("w1", "a");
  const GrantMessage grant = FirstGrant();
  const size_t num_grants = Messages<GrantMessage>().size();
  std::vector<storage::SampleRecord> samples;
  for (const UnitGrant& unit : grant.units) samples.push_back(MakeSample(grant, unit));
  const auto counts_before = plane().scheduler().sweeps().at(sweep).counts;
  {
    const FullDisk full(SizeOf(database() + "-wal"));
    EXPECT_THAT(Report(samples), IsError(absl::StatusCode::kUnavailable, ""));
    // And again, as the worker retries.
    EXPECT_THAT(Report(samples), IsError(absl::StatusCode::kUnavailable, ""));
  }
  EXPECT_EQ(Messages<GrantMessage>().size(), num_grants) << "nothing leaves that is not durable";
  EXPECT_EQ(NumSamples(), 0);
  EXPECT_EQ(plane().counters().num_accepted, 0);
  EXPECT_GE(plane().counters().num_failed_commits, 1);
  // The disk has room again: the same report is accepted, by the same lease, and the worker is
  // still known, so that the sweep goes on without a new hello.
  EXPECT_THAT(*Report(samples), Each(InsertOutcome::kAccepted));
  EXPECT_EQ(NumSamples(), static_cast<int64_t>(samples.size()));
  const auto counts = plane().scheduler().sweeps().at(sweep).counts;
  EXPECT_EQ(counts[static_cast<size_t>(UnitStatus::kDone)], static_cast<int64_t>(samples.size()));
  EXPECT_GE(counts_before[static_cast<size_t>(UnitStatus::kLeased)],
            static_cast<int64_t>(samples.size()));
  RunAll();
  EXPECT_EQ(StateOf(sweep), SweepState::kDone);
}

TEST_F(ControlPlaneTest, AHelloInALostBatchIsSaidAgain) {
  Submit(MakePlan(1, 200));
  HelloCommand command;
  command.hello.worker_id = "w1";
  command.hello.incarnation = "a";
  command.hello.slots.push_back({.index = 0});
  {
    const FullDisk full(SizeOf(database() + "-wal"));
    EXPECT_FALSE(Batch([&](ControlPlane& plane) { (void)plane.HandleHello(command); }).ok());
  }
  Beat(MakeHeartbeat("w1", "a"));
  EXPECT_TRUE(Messages<GrantMessage>().empty()) << "it is not known";
  Join("w1", "a");
  EXPECT_FALSE(Messages<GrantMessage>().empty());
}

TEST_F(ControlPlaneTest, TheWallClockMayStep) {
  Submit(MakePlan(1, 4));
  Join("w1", "a");
  clock().StepWall(absl::Hours(24 * 365));
  Tick();
  clock().StepWall(-absl::Hours(48 * 365));
  Tick();
  EXPECT_EQ(plane().scheduler().leases().size(), 1u);
}

}  // namespace
}  // namespace assay::coordinator
