// The write side of the database, for the control plane: the one thread that owns the one writing
// connection (sqlite/connection.h). A failed call or Commit() leaves the caller with Rollback() and
// LoadAll(), which gives back the state of the last commit.
//
// Begin() ... any number of calls ... Commit(). Every method that writes needs an open transaction
// (ASSAY_CHECK). Nothing is durable, and nothing may be answered to anybody, before Commit() is OK.
// A call that returns an error may have done part of its work: roll back then, except where its
// comment says that nothing was changed. A full disk undoes the whole transaction by itself; later
// calls and Commit() then say UNAVAILABLE.
//
// Epochs: a unit's row appears with its first grant, and every grant raises its epoch. A sample or
// a failure report counts only under the current epoch. The end of a lease does not raise it, so a
// late answer to a unit that nobody else was given is kept.
//
//   (no row) --Grant--> leased --InsertSample--> done --RequeueSample--> queued (epoch raised)
//                        | ^                      ^
//        ReleaseUnits,   v | Grant                | InsertSample: a late answer
//   RecordUnitFailure  queued --------------------+
//                        | ^                      |
//         QuarantineUnit v | RetryQuarantined     |
//                      quarantined ---------------+
//
// Errors of every method: UNAVAILABLE when the disk is full or fails (the message names the file
// and what to do), DATA_LOSS when the file is damaged. Not thread-safe.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "storage/stores/records.h"
#include "storage/stores/snapshot.h"

namespace assay::storage {

namespace sqlite {
class Connection;
class DatabaseLock;
class Transaction;
}  // namespace sqlite

// How an attempt ended that did not bring the unit's sample.
enum class AttemptEnd : int32_t {
  kExpired = 1,         // its lease lapsed
  kFailed = 2,          // the worker reported a failure: a step towards quarantine
  kInfrastructure = 3,  // the machine failed, not the unit
  kWorkerLost = 4,      // the worker or its incarnation is gone
  kRevoked = 5,         // cancelled, paused, taken back
  kReturned = 6,        // the worker gave it back unstarted (drain)
  kFenced = 7,          // it brought an answer after another grant
};

class ControlStore {
 public:
  // Opens `path` for writing, makes or migrates it, and takes `path`.lock so that no second
  // coordinator owns it: FAILED_PRECONDITION names the process that does. When the last owner died
  // (was_unclean), quick_check runs first: DATA_LOSS when it finds damage. INVALID_ARGUMENT when
  // the file is not an Assay database or made by a newer version.
  static absl::StatusOr<std::unique_ptr<ControlStore>> Open(const std::string& path);
  ~ControlStore();
  ControlStore(const ControlStore&) = delete;
  ControlStore& operator=(const ControlStore&) = delete;

  const std::string& path() const { return path_; }
  bool was_unclean() const { return was_unclean_; }

  // Transactions. Commit() rolls back when it fails, so that none is open afterwards.
  absl::Status Begin();
  absl::Status Commit();
  void Rollback();
  bool in_transaction() const;

  // Reading, inside or outside a transaction ---------------------------------------------------

  // Everything the control plane holds in memory: see snapshot.h.
  absl::StatusOr<ControlSnapshot> LoadAll();
  // The same for some cells, for a sweep that wants cells not in memory. NOT_FOUND for a wrong id.
  absl::StatusOr<std::vector<CellData>> LoadCells(std::span<const int64_t> cell_ids);
  absl::StatusOr<std::vector<ItemRecord>> LoadItems(int64_t benchmark_id);
  absl::StatusOr<SweepData> LoadSweep(int64_t sweep_row_id);
  // Done and failed sweeps that want this unit, oldest first: active again when it is requeued.
  absl::StatusOr<std::vector<int64_t>> SettledSweepsOf(const UnitId& unit);
  absl::StatusOr<JobRecord> LoadJob(int64_t job_id);

  // 0 when there is none.
  absl::StatusOr<int64_t> FindCellByKey(const std::string& cell_key);
  absl::StatusOr<std::optional<ArtifactRecord>> FindArtifactByKey(const std::string& key);
  // Mean completion tokens per item index of the model's bf16 cells on the benchmark, 0 where none
  // is known; empty when nothing is.
  absl::StatusOr<std::vector<double>> MeanBaselineTokens(const std::string& model_content_hash,
                                                         const std::string& benchmark_version_hash);
  absl::StatusOr<std::string> LoadCalibration(const std::string& calibration_hash);  // JSON lines

  // Plans ---------------------------------------------------------------------------------------

  // Each returns the id of the row with this content, inserting it when there is none.
  absl::StatusOr<int64_t> UpsertModel(const ModelRecord& model);
  absl::StatusOr<int64_t> UpsertBenchmark(const BenchmarkRecord& benchmark,
                                          std::span<const ItemRecord> items);
  absl::StatusOr<int64_t> UpsertArtifact(const ArtifactRecord& artifact);  // keeps a row's state
  absl::StatusOr<int64_t> UpsertCell(const CellRecord& cell);
  absl::Status UpsertCalibration(const std::string& calibration_hash, std::string_view jsonl);

  // Stores the sweep with its cells (their sweep_id is set here). With a request_id that a stored
  // sweep has, changes nothing and gives that sweep back, created = false.
  struct InsertedSweep {
    int64_t id = 0;
    std::string sweep_id;
    bool created = false;
  };
  absl::StatusOr<InsertedSweep> InsertSweep(const SweepRecord& sweep,
                                            std::span<const SweepCellRecord> cells);
  absl::Status SetSweepState(int64_t sweep_row_id, SweepState state, int64_t finished_time_us);

  // Units ---------------------------------------------------------------------------------------

  // Writes the lease and gives it the units; returns their new epochs, in order.
  // FAILED_PRECONDITION when one is not queued: roll back.
  absl::StatusOr<std::vector<int64_t>> GrantUnits(const LeaseRecord& lease, int64_t provenance_id,
                                                  std::span<const UnitId> units);

  // Ends the lease; units still under it go back to the queue with an attempt row each. Returns
  // those units. Fine when the lease has ended.
  absl::StatusOr<std::vector<UnitId>> EndLease(const std::string& lease_id,
                                               const std::string& reason, AttemptEnd end,
                                               int64_t time_us);
  // Takes some units off an open lease, with an attempt row each; those it no longer holds are
  // passed over.
  absl::Status ReleaseUnits(const std::string& lease_id, std::span<const UnitId> units,
                            AttemptEnd end, const std::string& message, int64_t time_us);

  // Puts the unit back into the queue with an attempt row. FAILED_PRECONDITION, with nothing
  // changed, when `epoch` is not current or the unit is not under this lease: the report is old.
  // Returns how many distinct incarnations have failed it (infrastructure failures not counted).
  absl::StatusOr<int32_t> RecordUnitFailure(const std::string& lease_id, const UnitId& unit,
                                            int64_t epoch, const std::string& message,
                                            bool infrastructure, int64_t time_us);
  absl::Status QuarantineUnit(const UnitId& unit);
  // The sweep's quarantined units, now queued, their failures forgiven.
  absl::StatusOr<std::vector<UnitId>> RetryQuarantined(int64_t sweep_row_id);

  // Samples -------------------------------------------------------------------------------------

  struct InsertedSample {
    InsertOutcome outcome = InsertOutcome::kFenced;
    int64_t sample_id = 0;  // when accepted
  };
  // One guarded INSERT decides: kAccepted when the epoch is current, the unit is not done and some
  // sweep that is not cancelled wants it (the unit is done then, whatever state it was in), and the
  // lease was given to the sample's worker (any, when its worker_id is empty);
  // kDuplicate when this very attempt's sample is stored; kFenced otherwise. Stores `grade` too.
  // Run CheckSample first (check_sample.h): a value out of range here is FAILED_PRECONDITION.
  absl::StatusOr<InsertedSample> InsertSample(const SampleRecord& sample, int64_t time_us);

  // A further grade of a stored sample; the newest is the one that counts. NOT_FOUND.
  absl::Status InsertGrade(int64_t sample_id, const GradeRecord& grade, int64_t time_us);

  // Moves sample, text and grades to the history and queues the unit under a raised epoch.
  // NOT_FOUND when there is no such sample (it may have been requeued before).
  absl::StatusOr<UnitId> RequeueSample(int64_t sample_id, int64_t time_us);

  // Jobs and artifacts --------------------------------------------------------------------------

  // The job that makes this artifact, inserted as queued when there is none.
  absl::StatusOr<JobRecord> InsertJob(JobKind kind, int64_t artifact_id, int64_t time_us);
  // Returns the new epoch. FAILED_PRECONDITION when it is not queued.
  absl::StatusOr<int64_t> GrantJob(int64_t job_id, const std::string& worker_id,
                                   const std::string& incarnation);
  // The next three return FAILED_PRECONDITION, with nothing changed, when the job's epoch has moved
  // on or it is done.
  absl::Status CompleteJob(int64_t job_id, int64_t epoch, int64_t duration_us, int64_t time_us);
  // `give_up` makes it failed for good, else it is queued again; counts a failure unless
  // `infrastructure`. Returns num_failures.
  absl::StatusOr<int32_t> FailJob(int64_t job_id, int64_t epoch, const std::string& error,
                                  bool infrastructure, bool give_up, int64_t time_us);
  absl::Status ReleaseJob(int64_t job_id, int64_t epoch);
  // A failed or done job is queued again (done: its artifact is lost), its failures forgiven. Fine
  // when it is queued or leased.
  absl::Status RetryJob(int64_t job_id);
  absl::Status SetArtifactState(int64_t artifact_id, ArtifactState state,
                                const std::string& manifest_sha256);

  // The rest ------------------------------------------------------------------------------------

  absl::StatusOr<int64_t> InsertEvent(const EventRecord& event);  // the new id
  absl::Status UpsertWorker(const WorkerRecord& worker);          // leaves first_seen, draining
  absl::Status SetWorkerDrain(const std::string& worker_id, bool draining);
  absl::StatusOr<int64_t> UpsertProvenance(const ProvenanceRecord& provenance);

  // Tokens of people, oldest first, with the revoked ones.
  absl::StatusOr<std::vector<TokenRecord>> LoadTokens();
  absl::Status InsertToken(const TokenRecord& token);
  // NOT_FOUND, with nothing changed. Fine when it is revoked: the first time stays.
  absl::Status RevokeToken(const std::string& token_id, int64_t time_us);
  absl::Status NoteTokenUse(const std::string& token_id, int64_t time_us);

  // What a mutation with this request_id answered before: serialized bytes.
  absl::StatusOr<std::optional<std::string>> FindAnswer(const std::string& method,
                                                        const std::string& request_id);
  absl::Status SaveAnswer(const std::string& method, const std::string& request_id,
                          std::string_view answer, int64_t time_us);

  // Small named values that outlive a restart ("tokens_per_s"). Absent is empty.
  absl::Status SetMeta(const std::string& key, const std::string& value);
  absl::StatusOr<std::string> GetMeta(const std::string& key);

  // Upkeep, outside a transaction ---------------------------------------------------------------

  // After commits: a PASSIVE checkpoint when 64 MB of WAL have gathered. Cheap otherwise.
  absl::Status CheckpointIfLarge();
  // When nothing is going on: empties the WAL file as far as readers allow.
  absl::Status CheckpointWhenIdle();
  // A copy of the database as it is now, in a new file. ALREADY_EXISTS when there is one.
  absl::Status BackupTo(const std::string& target_path);
  absl::StatusOr<int64_t> DatabaseBytes();

 private:
  ControlStore(std::string path, std::unique_ptr<sqlite::DatabaseLock> lock,
               std::unique_ptr<sqlite::Connection> connection, bool was_unclean);

  // The connection, for a method that writes: UNAVAILABLE when an error undid the transaction.
  absl::StatusOr<sqlite::Connection*> Writable();
  absl::StatusOr<CellData> LoadCellData(int64_t cell_id);
  absl::Status StoreGrade(int64_t sample_id, const GradeRecord& grade, int64_t time_us);

  const std::string path_;
  const std::unique_ptr<sqlite::DatabaseLock> lock_;  // outlives the connection
  const std::unique_ptr<sqlite::Connection> connection_;
  const bool was_unclean_;
  std::unique_ptr<sqlite::Transaction> transaction_;  // null when none is open
};

}  // namespace assay::storage
