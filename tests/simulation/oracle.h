// What must be true, kept apart from the code that is tested: who was granted what, which samples
// were accepted and acknowledged, until when each lease lives. The database and the scheduler's
// memory are compared with it after every batch; the first disagreement ends the simulation.
//
// The oracle hears of a batch as it is handled (On...), and then that it committed or was lost.
// What was lost by a failing disk or a crash may still turn up at the next start, once: SQLite
// promises all or nothing, not which.
#pragma once

#include <absl/status/status.h>

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/control/control_plane.h"
#include "storage/sqlite/connection.h"
#include "tests/simulation/virtual_time.h"

namespace assay::simulation {

class Oracle {
 public:
  struct Options {
    absl::Duration lease_ttl;
    absl::Duration heartbeat_interval;
    // Everything is read and compared after so many batches.
    int full_check_interval = 64;
  };

  Oracle(const EventQueue* events, const Options& options) : events_(events), options_(options) {}

  void AddWorker(const std::string& worker_id, std::vector<coordinator::SlotShape> slots) {
    slots_[worker_id] = std::move(slots);
  }

  const std::string& violation() const { return violation_; }
  void Fail(std::string what);

  // The life of a coordinator process.
  void OnStart(const std::string& database, coordinator::ControlPlane& plane);
  void OnStop();     // it is gone; a batch in progress may or may not have happened
  void OnRebuilt();  // its memory was built again after a lost batch

  // A batch.
  void OnReport(const coordinator::ReportCommand& command,
                const absl::StatusOr<std::vector<storage::InsertOutcome>>& outcomes, bool honest);
  void OnHeartbeat(const coordinator::ControlPlane& plane,
                   const coordinator::HeartbeatCommand& command);
  // With its outcome: a heartbeat that a failing disk kept from being heard renews nothing.
  void OnHeartbeatHandled(const absl::Status& status);
  void OnJobReport(const coordinator::JobReport& report, const absl::Status& status);
  void OnSweepsChanged() { sweeps_changed_ = true; }  // submitted, cancelled, ...
  void OnSubmit(const std::string& request_id, int64_t sweep_row_id);
  void OnRequeue(int64_t sample_id, const storage::UnitId& unit);
  void OnCommitted(coordinator::ControlPlane& plane,
                   const std::vector<coordinator::OutgoingMessage>& messages, bool ticked);
  void OnLost();

  // An answer leaves for the worker: from now on it counts on these samples.
  void OnAcknowledged(const coordinator::ReportCommand& command,
                      const std::vector<storage::InsertOutcome>& outcomes);

  // Whether a sample of this grant can be anything but stale.
  bool IsStale(const storage::UnitId& unit, int64_t epoch) const;
  // A stored sample by its row id; 0 when there is none.
  int64_t AnySampleId(uint64_t choice);
  // Everything at once: also SQLite's own integrity check.
  void CheckEverything(coordinator::ControlPlane& plane);

  // Stored sweeps by the request that made them.
  const std::map<std::string, int64_t>& sweeps() const { return submitted_; }

  int64_t num_samples() const { return static_cast<int64_t>(samples_.size()); }
  int64_t num_checks() const { return num_checks_; }
  int64_t num_accepted() const { return num_accepted_; }
  int64_t num_duplicates() const { return num_duplicates_; }
  int64_t num_fenced() const { return num_fenced_; }
  int64_t num_quarantined() const { return static_cast<int64_t>(quarantined_.size()); }

 private:
  struct Sample {
    int64_t epoch = 0;
    std::string lease_id;
    uint64_t fingerprint = 0;
    bool operator==(const Sample&) const = default;
  };
  struct Holder {
    int64_t epoch = 0;
    std::string lease_id;
  };
  struct Lease {
    std::string worker_id;
    int32_t slot_index = 0;
    Instant granted_first, granted_last;  // a rebuilt memory counts from anew
    Instant lives_until, ends_by;         // it may not expire before, nor live beyond
    int64_t tokens = 0;
  };
  struct Place {
    int32_t num_items = 0;
    int32_t num_repeats = 0;
    bool cancelled = false;
    bool paused = false;
  };
  using Samples = std::map<storage::UnitId, Sample>;

  static std::string Name(const storage::UnitId& unit);
  bool IsWanted(const storage::UnitId& unit) const;
  const Sample* FindSample(const storage::UnitId& unit) const;  // as the batch sees it
  Holder HolderOf(const storage::UnitId& unit) const;

  void ForgetSample(const storage::UnitId& unit);  // a requeue is in the database
  void TakeGrants(const std::vector<coordinator::OutgoingMessage>& messages);
  void CheckLeases(const coordinator::Scheduler& scheduler, bool ticked);
  void CheckSlots(const std::vector<coordinator::OutgoingMessage>& messages);
  bool HasWorkFor(const coordinator::Scheduler& scheduler, const coordinator::SweepEntry& sweep,
                  const coordinator::LeaseState& instead_of) const;
  void CheckShares(const coordinator::Scheduler& scheduler,
                   const std::vector<coordinator::OutgoingMessage>& messages);
  void CheckStopped(const coordinator::Scheduler& scheduler,
                    const std::vector<coordinator::OutgoingMessage>& messages);
  void CheckSweepsInMemory(const coordinator::Scheduler& scheduler);
  void CheckQuarantine(const coordinator::Scheduler& scheduler);
  void CheckUnitsInMemory(const coordinator::Scheduler& scheduler);
  void CheckAccepted();                      // the rows of the batch, and how many there are in all
  void CheckRows(const std::string& where);  // samples_ against the database
  void CheckCount(const char* what, const std::string& sql, int64_t expected = 0);
  absl::StatusOr<Samples> ReadSamples(const storage::UnitId* only = nullptr);
  void ReadUnits();
  void ReadSweeps();

  const EventQueue* const events_;
  const Options options_;
  std::map<std::string, std::vector<coordinator::SlotShape>> slots_;  // by worker
  std::string violation_;
  std::string database_;
  std::unique_ptr<storage::sqlite::Connection> reader_;

  // The world as committed.
  Samples samples_;
  std::map<storage::UnitId, uint64_t> acknowledged_;
  // The epoch of the unit's last sample that a person had moved to the history: an answer to its
  // report that arrives later acknowledges nothing any more.
  std::map<storage::UnitId, int64_t> requeued_epochs_;
  std::map<storage::UnitId, uint64_t> truth_;  // fingerprints, from the honest workers
  std::map<storage::UnitId, Holder> holders_;  // of the last grant
  std::map<int64_t, int64_t> job_epochs_;
  std::map<int64_t, std::vector<Place>> places_;  // by cell
  std::map<std::string, int64_t> submitted_;      // sweeps by request id
  std::map<std::string, Lease> leases_;
  std::set<storage::UnitId> quarantined_;
  // Failures by unit: epochs, and the incarnations that they were on.
  std::map<storage::UnitId, std::set<int64_t>> failed_epochs_;
  std::map<storage::UnitId, std::set<std::string>> failed_on_;

  // The present batch.
  Samples batch_samples_;
  std::set<storage::UnitId> batch_requeued_;
  std::vector<std::pair<std::string, Instant>> renewals_;  // of the heartbeat being handled
  // Leases that a worker lists and that are not its own any more, by worker.
  std::vector<std::pair<std::string, std::string>> batch_foreign_;
  std::set<std::string> batch_unlisting_;  // workers whose heartbeat may end a lost grant
  std::vector<storage::UnitId> batch_accepted_;
  std::map<std::string, int64_t> batch_submitted_;
  bool sweeps_changed_ = false;

  // Batches that were lost since the last start.
  std::vector<std::pair<storage::UnitId, Sample>> uncertain_samples_;
  std::set<storage::UnitId> uncertain_requeues_;
  bool uncertain_ = false;

  int64_t num_batches_ = 0;
  int64_t num_checks_ = 0;
  int64_t num_accepted_ = 0;
  int64_t num_duplicates_ = 0;
  int64_t num_fenced_ = 0;
};

}  // namespace assay::simulation
