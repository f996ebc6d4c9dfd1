#include "storage/stores/control_store.h"

#include "tests/unit/storage/stores/store_fixture.h"

namespace assay::storage {
namespace {

using absl::StatusCode;
using assay::testing::IsError;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class ControlStoreTest : public StoreTest {};

TEST_F(ControlStoreTest, ASecondOwnerIsRefusedWithTheProcessOfTheFirst) {
  EXPECT_THAT(ControlStore::Open(path_),
              IsError(StatusCode::kFailedPrecondition, "process " + std::to_string(getpid())));
}

TEST_F(ControlStoreTest, ADatabaseInNoFolderSaysWhatToCheck) {
  EXPECT_THAT(ControlStore::Open(directory_ / "none/assay.db"),
              IsError(StatusCode::kUnavailable, "check that its folder exists"));
}

TEST_F(ControlStoreTest, EqualContentIsStoredOnce) {
  const int64_t baseline = baseline_;
  const int64_t cell = cell_;
  Do([&] {
    ASSERT_OK_AND_ASSIGN(const auto again,
                         store_->InsertSweep(MakeSweep("sweep-000000000001"), {}));
    EXPECT_FALSE(again.created);
    EXPECT_EQ(again.id, sweep_);
    ASSERT_OK_AND_ASSIGN(const int64_t model,
                         store_->UpsertModel({.name = "tiny", .content_hash = "model-hash"}));
    EXPECT_EQ(model, 1);
  });
  ASSERT_OK_AND_ASSIGN(const int64_t found, store_->FindCellByKey("key-bf16"));
  EXPECT_EQ(found, baseline);
  ASSERT_OK_AND_ASSIGN(const int64_t other, store_->FindCellByKey("key-rtn"));
  EXPECT_EQ(other, cell);
  ASSERT_OK_AND_ASSIGN(const int64_t none, store_->FindCellByKey("key"));
  EXPECT_EQ(none, 0);
}

TEST_F(ControlStoreTest, AModelIsWhereTheNewestSweepSaysIt) {
  for (const std::string path : {"/a/tiny", "/b/tiny"}) {
    Do([&] {
      ASSERT_OK_AND_ASSIGN(
          const int64_t model,
          store_->UpsertModel({.name = "tiny", .path = path, .content_hash = "model-hash"}));
      EXPECT_EQ(model, 1);
    });
  }
  const auto reader = OpenReader();
  ASSERT_OK_AND_ASSIGN(const CellSummary cell, reader->GetCell(cell_));
  EXPECT_EQ(cell.model.name, "tiny");
  EXPECT_EQ(cell.model.place(), "/b/tiny");
}

TEST_F(ControlStoreTest, ARowOfAnUnknownCellIsRefused) {
  ASSERT_OK(store_->Begin());
  EXPECT_THAT(store_->InsertSweep(MakeSweep("sweep-x"),
                                  std::vector<SweepCellRecord>{{.cell_id = 99, .num_items = 1}}),
              IsError(StatusCode::kFailedPrecondition, "FOREIGN KEY"));
}

TEST_F(ControlStoreTest, EachGrantRaisesTheEpoch) {
  const UnitId unit = {cell_, 0, 0};
  Do([&] {
    EXPECT_THAT(Grant("lease-a", {unit, {cell_, 0, 1}}), ElementsAre(1, 1));
    ASSERT_OK_AND_ASSIGN(const auto released,
                         store_->EndLease("lease-a", "expired", AttemptEnd::kExpired, 20));
    EXPECT_THAT(released, ElementsAre(unit, UnitId{cell_, 0, 1}));
    EXPECT_THAT(Grant("lease-b", {unit}), ElementsAre(2));
  });
}

TEST_F(ControlStoreTest, AUnitThatIsLeasedIsNotGranted) {
  Do([&] { Grant("lease-a", {{cell_, 0, 0}}); });
  ASSERT_OK(store_->Begin());
  EXPECT_THAT(store_->GrantUnits({.lease_id = "lease-b", .cell_id = cell_}, provenance_,
                                 std::vector<UnitId>{{cell_, 0, 0}}),
              IsError(StatusCode::kFailedPrecondition, "item 0, repeat 0) is not queued"));
}

TEST_F(ControlStoreTest, ASampleIsAcceptedOnceAndItsRepetitionIsADuplicate) {
  const UnitId unit = {cell_, 1, 1};
  Do([&] {
    Grant("lease-a", {unit});
    EXPECT_EQ(Insert(MakeSample(unit, "lease-a", 1)).outcome, InsertOutcome::kAccepted);
    EXPECT_EQ(Insert(MakeSample(unit, "lease-a", 1)).outcome, InsertOutcome::kDuplicate);
  });
  Do([&] { EXPECT_EQ(Insert(MakeSample(unit, "lease-a", 1)).outcome, InsertOutcome::kDuplicate); });
}

TEST_F(ControlStoreTest, AnAnswerUnderAnOlderEpochIsFenced) {
  const UnitId unit = {cell_, 1, 1};
  Do([&] {
    Grant("lease-slow", {unit});
    ASSERT_OK(store_->EndLease("lease-slow", "expired", AttemptEnd::kExpired, 20));
    Grant("lease-retry", {unit});
    EXPECT_EQ(Insert(MakeSample(unit, "lease-slow", 1)).outcome, InsertOutcome::kFenced);
    EXPECT_EQ(Insert(MakeSample(unit, "lease-retry", 2)).outcome, InsertOutcome::kAccepted);
    EXPECT_EQ(Insert(MakeSample(unit, "lease-slow", 1)).outcome, InsertOutcome::kFenced);
  });
}

TEST_F(ControlStoreTest, ALateAnswerToAUnitThatNobodyElseHasIsKept) {
  const UnitId unit = {cell_, 1, 1};
  Do([&] {
    Grant("lease-a", {unit});
    ASSERT_OK(store_->EndLease("lease-a", "expired", AttemptEnd::kExpired, 20));
    EXPECT_EQ(Insert(MakeSample(unit, "lease-a", 1)).outcome, InsertOutcome::kAccepted);
  });
}

TEST_F(ControlStoreTest, AnAnswerForAnotherLeaseOrUnitIsFenced) {
  Do([&] {
    Grant("lease-a", {{cell_, 0, 0}});
    Grant("lease-b", {{cell_, 0, 1}});
    EXPECT_EQ(Insert(MakeSample({cell_, 0, 0}, "lease-b", 1)).outcome, InsertOutcome::kFenced);
    EXPECT_EQ(Insert(MakeSample({cell_, 0, 0}, "lease-x", 1)).outcome, InsertOutcome::kFenced);
    EXPECT_EQ(Insert(MakeSample({cell_, 0, 0}, "lease-a", 2)).outcome, InsertOutcome::kFenced);
    EXPECT_EQ(Insert(MakeSample({cell_, 2, 0}, "lease-a", 1)).outcome, InsertOutcome::kFenced);
  });
}

TEST_F(ControlStoreTest, AnAnswerThatOnlyACancelledSweepWantedIsFenced) {
  const UnitId unit = {cell_, 0, 0};
  Do([&] {
    Grant("lease-a", {unit});
    ASSERT_OK(store_->SetSweepState(sweep_, SweepState::kCancelled, 30));
    EXPECT_EQ(Insert(MakeSample(unit, "lease-a", 1)).outcome, InsertOutcome::kFenced);
  });
  Do([&] {  // another sweep wants the cell, but only its first item
    std::vector<SweepCellRecord> places = MakePlaces();
    places[1].num_items = 1;
    places[1].num_repeats = 1;
    ASSERT_OK(store_->InsertSweep(MakeSweep("sweep-000000000002"), places));
    Grant("lease-b", {{cell_, 1, 0}});
    EXPECT_EQ(Insert(MakeSample({cell_, 1, 0}, "lease-b", 1)).outcome, InsertOutcome::kFenced);
    EXPECT_EQ(Insert(MakeSample(unit, "lease-a", 1)).outcome, InsertOutcome::kAccepted);
  });
}

TEST_F(ControlStoreTest, FailuresCountOncePerIncarnation) {
  const UnitId unit = {cell_, 0, 0};
  Do([&] {
    const auto fail = [&](const std::string& lease_id, const std::string& incarnation,
                          bool infrastructure) {
      const int64_t epoch = Grant(lease_id, {unit}, incarnation)[0];
      absl::StatusOr<int32_t> failures =
          store_->RecordUnitFailure(lease_id, unit, epoch, "killed", infrastructure, 20);
      EXPECT_OK(failures);
      return failures.value_or(-1);
    };
    EXPECT_EQ(fail("lease-1", "inc-1", false), 1);
    EXPECT_EQ(fail("lease-2", "inc-1", false), 1);
    EXPECT_EQ(fail("lease-3", "inc-2", true), 1);
    EXPECT_EQ(fail("lease-4", "inc-2", false), 2);
    EXPECT_THAT(store_->RecordUnitFailure("lease-4", unit, 4, "killed", false, 20),
                IsError(StatusCode::kFailedPrecondition, "under epoch 4"));
    ASSERT_OK(store_->QuarantineUnit(unit));
    EXPECT_THAT(store_->QuarantineUnit(unit), IsError(StatusCode::kFailedPrecondition, "item 0"));

    ASSERT_OK_AND_ASSIGN(const auto retried, store_->RetryQuarantined(sweep_));
    EXPECT_THAT(retried, ElementsAre(unit));
    EXPECT_EQ(fail("lease-5", "inc-3", false), 1) << "earlier failures are forgiven";
  });
}

TEST_F(ControlStoreTest, ALateAnswerToAQuarantinedUnitIsKept) {
  const UnitId unit = {cell_, 0, 0};
  Do([&] {
    Grant("lease-a", {unit});
    ASSERT_OK(store_->EndLease("lease-a", "worker_lost", AttemptEnd::kWorkerLost, 20));
    ASSERT_OK(store_->QuarantineUnit(unit));
    EXPECT_EQ(Insert(MakeSample(unit, "lease-a", 1)).outcome, InsertOutcome::kAccepted);
    ASSERT_OK_AND_ASSIGN(const auto retried, store_->RetryQuarantined(sweep_));
    EXPECT_THAT(retried, IsEmpty());
  });
}

TEST_F(ControlStoreTest, ReleasedUnitsAreGrantedAgainAndOthersStay) {
  Do([&] {
    Grant("lease-a", {{cell_, 0, 0}, {cell_, 0, 1}});
    ASSERT_OK(store_->ReleaseUnits("lease-a", std::vector<UnitId>{{cell_, 0, 1}, {cell_, 2, 0}},
                                   AttemptEnd::kRevoked, "paused", 20));
    EXPECT_THAT(Grant("lease-b", {{cell_, 0, 1}}), ElementsAre(2));
    EXPECT_EQ(Insert(MakeSample({cell_, 0, 0}, "lease-a", 1)).outcome, InsertOutcome::kAccepted);
    EXPECT_THAT(store_->EndLease("lease-x", "expired", AttemptEnd::kExpired, 20),
                IsError(StatusCode::kNotFound, "lease-x"));
  });
}

TEST_F(ControlStoreTest, ARequeuedSampleGoesToTheHistoryAndIsFencedAfterwards) {
  const UnitId unit = {cell_, 0, 0};
  int64_t first = 0;
  Do([&] {
    Grant("lease-a", {unit});
    first = Insert(MakeSample(unit, "lease-a", 1)).sample_id;
    ASSERT_OK_AND_ASSIGN(const UnitId requeued, store_->RequeueSample(first, 50));
    EXPECT_EQ(requeued, unit);
    EXPECT_THAT(store_->RequeueSample(first, 50), IsError(StatusCode::kNotFound, "requeued"));
    EXPECT_EQ(Insert(MakeSample(unit, "lease-a", 1)).outcome, InsertOutcome::kFenced);
    // The epoch that the requeue raised was granted to nobody (found by the simulation).
    EXPECT_EQ(Insert(MakeSample(unit, "lease-a", 2)).outcome, InsertOutcome::kFenced);
    EXPECT_THAT(Grant("lease-b", {unit}), ElementsAre(3));
    const auto second = Insert(MakeSample(unit, "lease-b", 3));
    EXPECT_EQ(second.outcome, InsertOutcome::kAccepted);
    EXPECT_GT(second.sample_id, first) << "ids are never given twice";
  });
}

TEST_F(ControlStoreTest, JobsAreGuardedByTheirEpoch) {
  Do([&] {
    ASSERT_OK_AND_ASSIGN(const JobRecord job, store_->InsertJob(JobKind::kQuantize, artifact_, 10));
    EXPECT_EQ(job.state, JobState::kQueued);
    ASSERT_OK_AND_ASSIGN(const JobRecord again,
                         store_->InsertJob(JobKind::kQuantize, artifact_, 11));
    EXPECT_EQ(again.id, job.id);

    ASSERT_OK_AND_ASSIGN(const int64_t first, store_->GrantJob(job.id, "worker", "inc-1"));
    EXPECT_THAT(store_->GrantJob(job.id, "other", "inc-2"),
                IsError(StatusCode::kFailedPrecondition, "not queued"));
    ASSERT_OK_AND_ASSIGN(const int32_t failures,
                         store_->FailJob(job.id, first, "no memory", false, false, 12));
    EXPECT_EQ(failures, 1);
    ASSERT_OK_AND_ASSIGN(const int64_t second, store_->GrantJob(job.id, "other", "inc-2"));
    EXPECT_THAT(store_->CompleteJob(job.id, first, 5, 13),
                IsError(StatusCode::kFailedPrecondition, "epoch 1"));
    EXPECT_THAT(store_->FailJob(job.id, first, "late", false, true, 13),
                IsError(StatusCode::kFailedPrecondition, "epoch 1"));
    ASSERT_OK(store_->ReleaseJob(job.id, second));
    EXPECT_THAT(store_->ReleaseJob(job.id, second),
                IsError(StatusCode::kFailedPrecondition, "epoch 2"));
    ASSERT_OK(store_->CompleteJob(job.id, second, 5, 14)) << "nobody else was given it";
    EXPECT_THAT(store_->CompleteJob(job.id, second, 5, 14),
                IsError(StatusCode::kFailedPrecondition, "epoch 2"));
    EXPECT_THAT(store_->LoadJob(99), IsError(StatusCode::kNotFound, "job 99"));
  });
}

TEST_F(ControlStoreTest, AFailedJobIsLoadedWithItsErrorAndCanBeRetried) {
  int64_t job_id = 0;
  Do([&] {
    ASSERT_OK_AND_ASSIGN(const JobRecord job, store_->InsertJob(JobKind::kQuantize, artifact_, 10));
    job_id = job.id;
    ASSERT_OK_AND_ASSIGN(const int64_t epoch, store_->GrantJob(job_id, "worker", "inc-1"));
    ASSERT_OK(store_->FailJob(job_id, epoch, "no such layer", false, true, 12));
  });
  ASSERT_OK_AND_ASSIGN(const ControlSnapshot snapshot, store_->LoadAll());
  ASSERT_THAT(snapshot.jobs, SizeIs(1));
  EXPECT_EQ(snapshot.jobs[0].state, JobState::kFailed);
  EXPECT_EQ(snapshot.jobs[0].error, "no such layer");
  ASSERT_OK_AND_ASSIGN(const CellSummary cell, OpenReader()->GetCell(cell_));
  EXPECT_EQ(cell.job_error, "no such layer");
  Do([&] { ASSERT_OK(store_->RetryJob(job_id)); });
  ASSERT_OK_AND_ASSIGN(const JobRecord job, store_->LoadJob(job_id));
  EXPECT_EQ(job.state, JobState::kQueued);
  EXPECT_EQ(job.num_failures, 0);
}

TEST_F(ControlStoreTest, AnswersAndSmallValuesOutliveARestart) {
  Do([&] {
    ASSERT_OK_AND_ASSIGN(const auto none, store_->FindAnswer("CancelSweep", "r-1"));
    EXPECT_FALSE(none.has_value());
    ASSERT_OK(store_->SaveAnswer("CancelSweep", "r-1", std::string("\0\x01", 2), 10));
    ASSERT_OK(store_->SetMeta("tokens_per_s", "15000"));
    ASSERT_OK(store_->SetMeta("tokens_per_s", "16000"));
    ASSERT_OK(store_->UpsertCalibration("hash", "{\"text\":\"x\"}\n"));
    ASSERT_OK(store_->SetArtifactState(artifact_, ArtifactState::kReady, "manifest"));
    EXPECT_THAT(store_->SetArtifactState(99, ArtifactState::kReady, ""),
                IsError(StatusCode::kNotFound, "artifact 99"));
  });
  Reopen();
  EXPECT_FALSE(store_->was_unclean());
  ASSERT_OK_AND_ASSIGN(const auto answer, store_->FindAnswer("CancelSweep", "r-1"));
  EXPECT_EQ(answer, std::string("\0\x01", 2));
  ASSERT_OK_AND_ASSIGN(const std::string value, store_->GetMeta("tokens_per_s"));
  EXPECT_EQ(value, "16000");
  ASSERT_OK_AND_ASSIGN(const std::string calibration, store_->LoadCalibration("hash"));
  EXPECT_EQ(calibration, "{\"text\":\"x\"}\n");
  EXPECT_THAT(store_->LoadCalibration("other"), IsError(StatusCode::kNotFound, "other"));
  ASSERT_OK_AND_ASSIGN(const auto artifact, store_->FindArtifactByKey(std::string(64, 'a')));
  ASSERT_TRUE(artifact.has_value());
  EXPECT_EQ(artifact->state, ArtifactState::kReady);
  EXPECT_EQ(artifact->manifest_sha256, "manifest");
  EXPECT_EQ(artifact->method.method, "rtn");
}

TEST_F(ControlStoreTest, LoadAllGivesWhatTheControlPlaneNeedsAndNothingOfSettledSweeps) {
  Do([&] {
    Grant("lease-a", {{cell_, 0, 0}, {cell_, 0, 1}, {cell_, 1, 0}});
    Insert(MakeSample({cell_, 0, 0}, "lease-a", 1, Verdict::kCorrect, 7));
    Insert(MakeSample({cell_, 0, 1}, "lease-a", 1, Verdict::kWrong, 5));
    ASSERT_OK(store_->UpsertWorker({.worker_id = "worker", .incarnation = "inc-1"}));
    ASSERT_OK(store_->SetWorkerDrain("worker", true));
    EXPECT_THAT(store_->SetWorkerDrain("other", true), IsError(StatusCode::kNotFound, "other"));
    ASSERT_OK_AND_ASSIGN(
        const auto settled,
        store_->InsertSweep(MakeSweep("sweep-000000000002"),
                            std::vector<SweepCellRecord>{{.cell_id = cell_, .num_items = 1}}));
    ASSERT_OK(store_->SetSweepState(settled.id, SweepState::kDone, 40));
    EXPECT_THAT(store_->SetSweepState(99, SweepState::kDone, 40),
                IsError(StatusCode::kNotFound, "sweep 99"));
  });
  Reopen();
  ASSERT_OK_AND_ASSIGN(const ControlSnapshot snapshot, store_->LoadAll());
  ASSERT_THAT(snapshot.sweeps, SizeIs(1));
  EXPECT_EQ(snapshot.sweeps[0].sweep.sweep_id, "sweep-000000000001");
  EXPECT_EQ(snapshot.sweeps[0].sweep.owner, "lena");
  ASSERT_THAT(snapshot.sweeps[0].cells, SizeIs(2));
  EXPECT_EQ(snapshot.sweeps[0].cells[1].baseline_cell_id, baseline_);
  ASSERT_THAT(snapshot.cells, SizeIs(2));
  const CellData& cell = snapshot.cells[1];
  EXPECT_EQ(cell.cell.key, "key-rtn");
  EXPECT_EQ(cell.cell.sampling.max_tokens, 512);
  EXPECT_EQ(cell.model.name, "tiny");
  ASSERT_TRUE(cell.artifact.has_value());
  EXPECT_THAT(cell.done, SizeIs(2));
  ASSERT_THAT(cell.open, SizeIs(1));
  EXPECT_EQ(cell.open[0].unit, (UnitId{cell_, 1, 0}));
  EXPECT_EQ(cell.open[0].state, UnitState::kLeased);
  EXPECT_EQ(cell.open[0].lease_id, "lease-a");
  EXPECT_EQ(cell.num_correct, 1);
  EXPECT_EQ(cell.completion_tokens, 12);
  EXPECT_EQ(snapshot.items.at(benchmark_)[2].user_text, "please: question 2");
  ASSERT_THAT(snapshot.open_leases, SizeIs(1));
  EXPECT_EQ(snapshot.open_leases[0].incarnation, "inc-1");
  ASSERT_THAT(snapshot.draining_workers, SizeIs(1));

  ASSERT_OK_AND_ASSIGN(const auto cells, store_->LoadCells(std::vector<int64_t>{baseline_}));
  EXPECT_FALSE(cells[0].artifact.has_value());
  EXPECT_THAT(store_->LoadCells(std::vector<int64_t>{99}),
              IsError(StatusCode::kNotFound, "cell 99"));
  EXPECT_THAT(store_->LoadSweep(99), IsError(StatusCode::kNotFound, "sweep 99"));
}

TEST_F(ControlStoreTest, NothingOfARolledBackTransactionStays) {
  ASSERT_OK(store_->Begin());
  Grant("lease-a", {{cell_, 0, 0}});
  store_->Rollback();
  EXPECT_FALSE(store_->in_transaction());
  ASSERT_OK_AND_ASSIGN(const ControlSnapshot snapshot, store_->LoadAll());
  EXPECT_THAT(snapshot.open_leases, IsEmpty());
  EXPECT_THAT(snapshot.cells[1].open, IsEmpty());
}

TEST_F(ControlStoreTest, ABackupIsADatabaseOfItsOwn) {
  Finish({cell_, 0, 0}, Verdict::kCorrect);
  const std::string copy = directory_ / "copy.db";
  ASSERT_OK(store_->BackupTo(copy));
  EXPECT_THAT(store_->BackupTo(copy), IsError(StatusCode::kAlreadyExists, "copy.db"));
  ASSERT_OK_AND_ASSIGN(const auto reader, ReadStore::Open(copy));
  ASSERT_OK_AND_ASSIGN(const int64_t num_samples, reader->NumSamples());
  EXPECT_EQ(num_samples, 1);
}

TEST_F(ControlStoreTest, CheckpointsLeaveTheDataAndEmptyTheWal) {
  Finish({cell_, 0, 0}, Verdict::kCorrect);
  ASSERT_OK(store_->CheckpointIfLarge());
  ASSERT_OK_AND_ASSIGN(const int64_t before, store_->DatabaseBytes());
  ASSERT_OK(store_->CheckpointWhenIdle());
  ASSERT_OK_AND_ASSIGN(const int64_t after, store_->DatabaseBytes());
  EXPECT_LT(after, before);
  ASSERT_OK_AND_ASSIGN(const int64_t num_samples, OpenReader()->NumSamples());
  EXPECT_EQ(num_samples, 1);
}

}  // namespace
}  // namespace assay::storage
