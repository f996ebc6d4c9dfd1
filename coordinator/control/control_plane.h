// The control plane: the scheduler and the store as one thing that changes by transactions.
//
// A batch is one transaction. BeginBatch opens it, each Handle... call decides and writes within
// it, CommitBatch fills free slots and commits; only then may answers be given and messages leave
// (TakeMessages). When anything about the store fails, the whole batch fails: CommitBatch says
// UNAVAILABLE, nothing of the batch is true, and the memory is built again from the database before
// the next one.
//
//   BeginBatch -> Handle... (many) -> CommitBatch --OK--> answers, TakeMessages
//                                          +------error--> UNAVAILABLE to all; memory = database
//
// Every Handle... may be repeated: what a caller retries because its answer was lost is done once.
// An error from a Handle... other than the store's own (FAILED_PRECONDITION, NOT_FOUND,
// INVALID_ARGUMENT) is the answer to its caller, changes nothing and does not disturb the batch.
//
// Not thread-safe: one thread owns it (ControlLoop), or a test or simulation calls it directly.
// Time and randomness come in through the constructor, so that a simulation owns them.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "coordinator/control/live_snapshot.h"
#include "coordinator/control/messages.h"
#include "coordinator/control/meters.h"
#include "coordinator/planner/plan.h"
#include "coordinator/scheduler/scheduler.h"
#include "storage/stores/control_store.h"

namespace assay::coordinator {

struct HelloCommand {
  WorkerHello hello;  // `drain` is filled in here
  storage::ProvenanceRecord provenance;
  int32_t protocol_revision = 0;  // the worker's; said back to it
};

struct UnitFailureReport {
  std::string lease_id;
  storage::UnitId unit;
  int64_t epoch = 0;
  std::string message;
  bool infrastructure = false;
};

struct HeartbeatCommand {
  WorkerHeartbeat heartbeat;
  std::vector<UnitFailureReport> failures;
  int64_t sequence = 0;
};

struct ReportCommand {
  std::string worker_id;
  std::string incarnation;
  std::vector<storage::SampleRecord> samples;
};

struct JobReport {
  std::string worker_id;
  std::string incarnation;
  int64_t job_id = 0;
  int64_t epoch = 0;
  std::string error;  // empty: done, and the artifact is in the artifact store
  bool infrastructure = false;
  std::string artifact_key;
  std::string manifest_sha256;
  int64_t duration_us = 0;
};

struct SubmitCommand {
  PlannedSweep plan;
  std::string request_id;
  std::string owner;
  std::string spec_yaml;
};

struct RetryResult {
  int64_t num_units = 0;
  int32_t num_jobs = 0;
};

class ControlPlane {
 public:
  struct Options {
    absl::Duration heartbeat_interval = absl::Seconds(5);
    absl::Duration lease_ttl = absl::Seconds(60);
    int32_t max_unreported_samples = 256;
    // Names of sweeps and leases: a prefix gives prefix-<random>. A simulation gives its own.
    std::function<std::string(const std::string& prefix)> make_id;
  };

  // Reads the store. `store` and `clock` outlive the control plane. UNAVAILABLE or DATA_LOSS.
  static absl::StatusOr<std::unique_ptr<ControlPlane>> Open(storage::ControlStore* store,
                                                            const Clock* clock, Options options);

  // Batches ---------------------------------------------------------------------------------------

  // UNAVAILABLE when no transaction can begin, or the memory cannot be rebuilt yet.
  absl::Status BeginBatch();
  // Ends the batch either way.
  absl::Status CommitBatch();
  // What the committed batches say to workers, in order; each message once.
  std::vector<OutgoingMessage> TakeMessages();

  // Workers (control_workers.cc), within a batch
  // ----------------------------------------------------

  // False when this incarnation is not let in (it is told to shut down).
  absl::StatusOr<bool> HandleHello(const HelloCommand& command);
  absl::Status HandleHeartbeat(const HeartbeatCommand& command);
  // One outcome per sample. INVALID_ARGUMENT when a sample cannot be what it says (a unit outside
  // its cell, another seed, a lease of somebody else): nothing of the call is stored.
  absl::StatusOr<std::vector<storage::InsertOutcome>> HandleReport(const ReportCommand& command);
  // FAILED_PRECONDITION when the job's epoch has moved on.
  absl::Status HandleJobReport(const JobReport& report);

  // People (control_sweeps.cc), within a batch
  // ------------------------------------------------------

  // The sweep, stored or found by its request_id.
  absl::StatusOr<storage::ControlStore::InsertedSweep> HandleSubmit(const SubmitCommand& command);
  // Each takes the row id. FAILED_PRECONDITION when the sweep has ended otherwise.
  absl::Status HandleCancel(int64_t sweep_row_id);
  absl::Status HandlePause(int64_t sweep_row_id);
  absl::Status HandleResume(int64_t sweep_row_id);
  // FAILED_PRECONDITION for a cancelled sweep. Without a request_id every call retries.
  absl::StatusOr<RetryResult> HandleRetry(int64_t sweep_row_id, const std::string& request_id);
  // NOT_FOUND when there is no such sample. Sweeps that had it are active again.
  absl::StatusOr<storage::UnitId> HandleRequeue(int64_t sample_id, const std::string& request_id);
  // NOT_FOUND when no such worker was ever here.
  absl::Status HandleDrain(const std::string& worker_id);

  // Tokens (control_tokens.cc), within a batch
  // ----------------------------------------------------

  absl::Status HandleCreateToken(const storage::TokenRecord& token);
  absl::Status HandleRevokeToken(const std::string& token_id);  // NOT_FOUND
  absl::Status HandleTokenUse(const std::string& token_id, int64_t time_us);

  // Whether the worker has work now that needs this artifact: units of a cell that loads it, or the
  // job that makes it.
  bool NeedsArtifact(const std::string& worker_id, const std::string& artifact_key) const;
  bool MakesArtifact(const std::string& worker_id, const std::string& artifact_key) const;

  // Time, within a batch: expires leases, notices silent workers. About every second.
  absl::Status HandleTick();

  // Reading ---------------------------------------------------------------------------------------

  LiveSnapshot TakeSnapshot();
  const Scheduler& scheduler() const { return *scheduler_; }
  const ControlCounters& counters() const { return counters_; }
  // Whether a batch would do more than what is asked of it: slots wait to be filled.
  bool has_pending_work() const { return scheduler_->assignment_pending(); }

 private:
  using Items = std::shared_ptr<const std::vector<storage::ItemRecord>>;

  ControlPlane(storage::ControlStore* store, const Clock* clock, Options options);

  // Memory from the database (control_plane.cc).
  absl::Status Rebuild();
  void RestoreCell(const storage::CellData& data, Scheduler* scheduler,
                   std::map<std::string, std::vector<storage::UnitId>>* leased);
  absl::Status SeedLengths(const CellContext& cell, Scheduler* scheduler);
  absl::Status LoadIntoMemory(const storage::SweepData& sweep);  // and schedules it
  absl::StatusOr<Items> ItemsOf(int64_t benchmark_id);
  void ForgetUnused();

  // Remembers the first error of the store: the batch is lost then.
  absl::Status Guard(absl::Status status);
  template <typename T>
  absl::StatusOr<T> Guard(absl::StatusOr<T> result) {
    if (!result.ok()) (void)Guard(result.status());
    return result;
  }
  absl::Status CheckInBatch() const;
  absl::StatusOr<storage::SweepData> FindSweep(int64_t sweep_row_id);  // NOT_FOUND loses no batch

  // Actions to rows and messages (apply_actions.cc).
  absl::Status Apply(const Actions& actions);
  absl::Status ApplyOne(const GrantUnits& grant);
  absl::Status ApplyOne(const EndLease& end);
  absl::Status ApplyOne(const ReleaseUnits& release);
  absl::Status ApplyOne(const QuarantineUnit& quarantine);
  absl::Status ApplyOne(const GrantJob& grant);
  absl::Status ApplyOne(const ReleaseJob& release);
  absl::Status ApplyOne(const SettleSweep& settle);
  absl::Status ApplyOne(const SettleCell& settle);
  absl::Status ApplyOne(const CellsWait& wait);
  absl::Status ApplyOne(const WorkerPresence& presence);
  absl::Status ApplyOne(const TellRevoke& revoke);
  absl::Status ApplyOne(const TellDrain& drain);
  absl::Status ApplyOne(const TellShutdown& shutdown);
  template <typename Body>
  void Tell(const std::string& worker_id, const std::string& incarnation, Body body);
  absl::Status RecordEvent(storage::EventRecord event);
  void LogEvents();  // of the committed batch

  // The rest of the handlers' work.
  absl::Status EndOrphans(const std::vector<std::string>& lease_ids);
  absl::Status CheckReport(const ReportCommand& command);
  absl::Status CheckSample(const storage::SampleRecord& sample, const CellContext& cell,
                           const std::vector<storage::ItemRecord>& items) const;
  absl::StatusOr<std::shared_ptr<const CellContext>> FindContext(int64_t cell_id);
  absl::Status SetState(const storage::SweepRecord& sweep, storage::SweepState state,
                        int64_t finished_time_us);
  absl::Status EnsureJob(const std::string& artifact_key, int64_t artifact_id);
  // Gives the scheduler the queued jobs of the sweep's artifacts that it does not know.
  absl::Status ScheduleJobs(const storage::SweepData& sweep);
  absl::StatusOr<std::set<int64_t>> FailedArtifacts(const storage::SweepData& sweep);
  // What a mutation with this request_id answered before; without an id nothing is remembered.
  absl::StatusOr<std::optional<std::string>> FindAnswer(const std::string& method,
                                                        const std::string& request_id);
  absl::Status SaveAnswer(const std::string& method, const std::string& request_id,
                          const std::string& answer);

  storage::ControlStore* const store_;
  const Clock* const clock_;
  const Options options_;

  std::unique_ptr<Scheduler> scheduler_;
  std::map<int64_t, std::shared_ptr<const CellContext>> contexts_;  // by cell id
  std::map<int64_t, Items> items_;                                  // by benchmark id
  std::map<int64_t, std::string> sweep_names_;                      // row id -> "sweep-..."
  std::map<int64_t, int64_t> job_epochs_;
  std::map<std::string, int64_t> worker_provenance_;
  std::map<std::string, std::string> drained_;  // worker id -> the incarnation to drain

  // The present batch.
  absl::Status batch_status_;
  MonotonicTime now_;
  int64_t now_us_ = 0;
  std::vector<OutgoingMessage> batch_messages_;
  std::vector<storage::EventRecord> batch_events_;  // logged once they are true
  std::set<std::string> batch_hellos_;
  ControlCounters batch_counters_;  // as they will be when it commits
  bool needs_rebuild_ = false;

  std::vector<OutgoingMessage> messages_;  // committed, not taken
  ControlCounters counters_;
  RateMeter sample_rate_;
  LatencyMeter commit_latency_;
  Histogram commit_seconds_ = MakeCommitHistogram();
  MonotonicTime speed_saved_;
};

}  // namespace assay::coordinator
