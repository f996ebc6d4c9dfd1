// The scheduler: who runs what, decided in memory.
//
// A pure state machine: events go in, actions come out. It does no I/O and reads no clock, and
// equal events give equal actions, so that a simulation can replay a year of faults from one
// number. The database is the truth and this is its index: whatever a failed commit undoes is
// undone here by building a new scheduler from the database.
//
//              Assign             OnSampleStored
//   queued ------------> leased ------------------> done
//     ^  ^                 |                          |
//     |  +-----------------+  expiry, lost worker,    |  RequeueUnit
//     |                    |  revoke, failure         |
//     |  RetryQuarantined  v                          |
//     +------------- quarantined                      |
//     +-----------------------------------------------+
//
// A lease belongs to one slot of one worker incarnation. It lives while tokens advance on its slot
// (or the slot loads), and ends when its units are gone, its time has run out or a new incarnation
// of the worker appears. Units of an ended lease are queued at once; a late sample of such a unit
// still counts as long as nobody else was granted it: the store's epochs decide that, not this
// class, which learns of accepted samples only.
//
// A cell that no slot can hold waits, and people are told why; it holds nobody else up.
//
// Live sweeps (active or paused) and their cells are in memory; a sweep that settles is forgotten.
// A cell is shared by all live sweeps that want it.
//
// Not thread-safe. Every method with `actions` appends what must now be made durable and sent.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "coordinator/scheduler/actions.h"
#include "coordinator/scheduler/cell_policy.h"
#include "coordinator/scheduler/events.h"
#include "coordinator/scheduler/state.h"

namespace assay::coordinator {

class Scheduler {
 public:
  struct Options {
    absl::Duration lease_ttl = absl::Seconds(60);
    absl::Duration heartbeat_interval = absl::Seconds(5);
    // A worker with more unreported samples gets nothing new.
    int32_t max_unreported_samples = 256;
    // Lease ids are this and a number: random per start, so that no two starts share one.
    std::string lease_prefix = "lease";
  };

  explicit Scheduler(Options options) : options_(std::move(options)) {}

  // What exists -----------------------------------------------------------------------------------
  // Cells first, then their units, leases and jobs, then the sweeps; each call is for something
  // that the scheduler does not know yet.

  bool HasCell(int64_t cell_id) const { return cells_.contains(cell_id); }
  void AddCell(const CellSpec& spec);
  void RestoreUnit(const UnitId& unit, UnitStatus status, int32_t num_failures);
  void RestoreCellTotals(int64_t cell_id, int64_t num_samples, int64_t num_correct,
                         int64_t completion_tokens, int64_t num_rerolls);
  bool HasLengths(int64_t model_id, int64_t benchmark_id) const {
    return lengths_.contains({model_id, benchmark_id});
  }
  void SeedLengths(int64_t model_id, int64_t benchmark_id, int32_t num_items,
                   const std::vector<double>& mean_tokens);
  // Lives until `now` + 2 TTL, or longer when its worker comes back and goes on.
  void RestoreLease(const RestoredLease& lease, MonotonicTime now);
  void AddJob(const JobSpec& spec);  // queued; fine when it is known
  void RestoreLeasedJob(const JobSpec& spec, const std::string& worker_id,
                        const std::string& incarnation, MonotonicTime now);
  // May settle at once, when the store has every sample already.
  void AddSweep(const ScheduledSweep& spec, Actions* actions);
  // Takes over what `previous` knew of the workers: who is there and what their slots report. Used
  // after a failed commit, when the rest is rebuilt from the database. Those in `except` are not
  // known: what made them known is undone.
  void AdoptWorkers(const Scheduler& previous, const std::set<std::string>& except);

  // People ----------------------------------------------------------------------------------------

  void PauseSweep(int64_t sweep_id, Actions* actions);
  void ResumeSweep(int64_t sweep_id, Actions* actions);
  void CancelSweep(int64_t sweep_id, Actions* actions);
  // The unit, done or quarantined before, is queued and trusted again; the cell's totals are the
  // caller's to restore. Unknown cells are ignored.
  void RequeueUnit(const UnitId& unit);
  // The artifact's cells wait for it again; its job is added apart.
  void ForgiveArtifact(int64_t artifact_id);
  void DrainWorker(const std::string& worker_id, Actions* actions);

  // Workers ---------------------------------------------------------------------------------------

  // A new incarnation ends the leases of the old one. A superseded incarnation is told to shut
  // down. False when it is not let in.
  bool OnHello(const WorkerHello& hello, MonotonicTime now, Actions* actions);
  // Renews leases, revokes those that are not the worker's, ends grants that got lost. False, with
  // TellShutdown or nothing, when the incarnation is not the current one.
  bool OnHeartbeat(const WorkerHeartbeat& heartbeat, MonotonicTime now, Actions* actions);
  void OnSampleStored(const StoredSample& sample, MonotonicTime now, Actions* actions);
  // A failure that the store has recorded; the unit was under the lease. `num_distinct`
  // incarnations have failed it so far.
  void OnUnitFailed(const std::string& lease_id, const UnitId& unit, int32_t num_distinct,
                    bool infrastructure, const std::string& message, MonotonicTime now,
                    Actions* actions);
  void OnJobDone(int64_t job_id, int64_t artifact_id, Actions* actions);
  // Whether the next failure of this kind ends the job.
  bool WouldGiveUp(int64_t job_id, bool infrastructure) const;
  void OnJobFailed(int64_t job_id, int64_t artifact_id, bool give_up, const std::string& error,
                   MonotonicTime now, Actions* actions);
  // A unit was granted for the second time.
  void CountReroll(int64_t cell_id);

  // Time ------------------------------------------------------------------------------------------

  // Expires leases and jobs, notices silent workers.
  void Tick(MonotonicTime now, Actions* actions);
  // Fills the slots that have room. Call after events, before the commit.
  void Assign(MonotonicTime now, Actions* actions);
  // Whether Assign could have something to do.
  bool assignment_pending() const { return work_arrived_ || !roomy_workers_.empty(); }

  // Reading ---------------------------------------------------------------------------------------

  const Options& options() const { return options_; }
  const std::map<int64_t, CellState>& cells() const { return cells_; }
  const std::map<int64_t, SweepEntry>& sweeps() const { return sweeps_; }
  const std::map<int64_t, LeaseState>& leases() const { return leases_; }
  const std::map<int64_t, JobEntry>& jobs() const { return jobs_; }
  const LeaseState* FindLease(const std::string& lease_id) const;  // null when it is not open
  const std::map<std::string, WorkerEntry>& workers() const { return workers_; }
  int64_t ExpectedTokens(const UnitId& unit) const;  // 0 when nothing is known
  double MeanTokens(int64_t cell_id) const;          // of one sample, as estimated now
  // Why no slot that takes work can hold the cell or make its artifact, as of the last Assign;
  // empty when one can.
  std::string WhyNoSlot(int64_t cell_id) const;
  const std::map<std::string, OwnerEntry>& owners() const { return owners_; }

  // Checks every counter and link against the units themselves; the first disagreement in words,
  // empty when there is none. For tests and the simulation: it visits everything.
  std::string CheckInvariants() const;

 private:
  using LengthKey = std::pair<int64_t, int64_t>;  // model, benchmark

  // Units and sweeps (scheduler.cc).
  void MoveUnit(CellState& cell, int32_t index, UnitStatus to);
  void RefreshPlace(SweepEntry& sweep, int32_t position);
  void RefreshCell(CellState& cell);
  void SettleDirty(Actions* actions);
  void ForgetSweep(int64_t sweep_id, Actions* actions);
  void DropCellIfUnused(int64_t cell_id);
  bool WantedByActive(const CellState& cell, int32_t index) const;
  // Leases whose sweep is gone go on, on the account of another one that wants the cell.
  void ChargeOrphans(const CellState& cell);
  void RevokeUnwanted(int64_t cell_id, Actions* actions);
  void SetArtifact(int64_t artifact_id, ArtifactStatus status, const std::string& error);
  LengthTable& Lengths(const CellState& cell);
  // Units in flight on the sweep's and its owner's account; nothing when the sweep is gone.
  void Charge(int64_t sweep_id, int64_t num_units);
  void ChargeJob(JobEntry& job, const std::string& owner);
  void UnchargeJob(JobEntry& job);
  void DropOwnerIfUnused(const std::string& owner);
  OwnerShare ShareOf(const std::string& owner) const;

  // Slots as places for cells (slots.cc).
  static bool TakesWork(const WorkerEntry& worker);
  void AddNeed(CellState& cell);
  void DropNeed(const CellState& cell);
  bool IsPlaceable(const NeedEntry& need) const;
  void RefreshFleet();
  void TellWaiting(Actions* actions);

  // Heartbeats (workers.cc).
  // Renews what advances and revokes what is not the worker's; the numbers of its leases it lists.
  std::set<int64_t> RenewLeases(const WorkerEntry& worker, const WorkerHeartbeat& heartbeat,
                                MonotonicTime now, Actions* actions);
  void EndLostGrants(const WorkerEntry& worker, const std::set<int64_t>& listed, MonotonicTime now,
                     Actions* actions);
  void RenewJobs(const WorkerEntry& worker, MonotonicTime now);

  // Leases (leases.cc).
  SlotState& SlotOf(const std::string& worker_id, int32_t slot_index);
  int64_t LeaseNumber(const std::string& lease_id) const;  // 0 when it is not open
  void AddLease(LeaseState lease);
  // Takes the unit off its lease and moves it; ends the lease when it was the last.
  void TakeUnit(CellState& cell, int32_t index, UnitStatus to, LeaseEnd reason, Actions* actions);
  void EndLeaseNow(int64_t number, LeaseEnd reason, Actions* actions);
  void DetachLease(int64_t number);
  void EndAllOf(const std::string& worker_id, Actions* actions);
  void FreeJobSlot(const JobEntry& job);
  void ReleaseJobNow(JobEntry& job, Actions* actions);
  void Block(WorkerEntry& worker, const LoadId& load, MonotonicTime now);

  // Grants (assign.cc).
  bool AssignSlot(WorkerEntry& worker, SlotState& slot, MonotonicTime now, Actions* actions);
  struct JobChoice {
    JobCandidate job;
    std::string owner;
  };
  std::optional<JobChoice> ChooseJobFor(const WorkerEntry& worker, const SlotState& slot,
                                        MonotonicTime now);
  struct CellChoice {
    int64_t sweep_id = 0;
    int32_t position = 0;
    int32_t priority = 0;
  };
  std::optional<CellChoice> ChooseCell(const WorkerEntry& worker, const SlotState& slot,
                                       MonotonicTime now) const;
  std::optional<int32_t> BestPosition(const SweepEntry& sweep, const WorkerEntry& worker,
                                      const SlotState& slot, MonotonicTime now) const;
  bool GrantCell(WorkerEntry& worker, SlotState& slot, const CellChoice& choice, MonotonicTime now,
                 Actions* actions);
  bool HasLoaded(const SweepEntry& sweep, const SlotState& slot) const;
  void GrantJobTo(WorkerEntry& worker, SlotState& slot, const JobChoice& choice, MonotonicTime now,
                  Actions* actions);
  int32_t NumSlotsOn(const LoadId& load) const;
  void RebuildJobQueue();

  const Options options_;
  std::map<int64_t, CellState> cells_;
  std::map<int64_t, SweepEntry> sweeps_;
  std::map<std::string, OwnerEntry> owners_;
  int64_t num_turns_ = 0;  // grants so far, for OwnerEntry::last_served
  std::map<LengthKey, LengthTable> lengths_;
  std::map<int64_t, std::set<int64_t>> cells_of_artifact_;

  int64_t next_lease_number_ = 1;
  std::map<int64_t, LeaseState> leases_;  // by number
  std::map<std::string, int64_t> lease_numbers_;

  std::map<int64_t, JobEntry> jobs_;
  // Queued jobs that an active sweep wants, by -priority and by the owner who waits for them.
  std::map<int32_t, std::map<std::string, std::set<int64_t>>> job_queue_;
  bool job_queue_stale_ = true;

  std::map<std::string, WorkerEntry> workers_;
  std::map<LoadId, int32_t> slots_on_load_;  // slots with leases of it
  std::set<SlotShape> shapes_;               // of the slots that take work
  std::map<SlotNeed, NeedEntry> needs_;
  bool fleet_stale_ = false;    // shapes_ may have changed
  bool waiting_stale_ = false;  // somebody may have to be told that cells wait

  std::set<int64_t> dirty_sweeps_;         // a place closed since the last SettleDirty
  std::vector<SettleCell> settled_cells_;  // since then
  bool work_arrived_ = false;
  std::set<std::string> roomy_workers_;
};

}  // namespace assay::coordinator
