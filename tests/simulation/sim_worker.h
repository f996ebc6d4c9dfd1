// A worker agent as the protocol knows it: says hello, beats, runs leases on its slots, keeps
// samples in a spool until they are answered for, repeats failures until they are acknowledged,
// drains, crashes, stalls. Its runners crash, hang, and die of poison. It never lies; World does
// that in its name.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "coordinator/control/control_plane.h"
#include "tests/simulation/random.h"
#include "tests/simulation/virtual_time.h"
#include "tests/simulation/workload.h"

namespace assay::simulation {

// The worker's side of the wire. Calls are answered with what the coordinator said, once, twice or
// never.
class WorkerWire {
 public:
  using ReportAnswer =
      std::function<void(const absl::StatusOr<std::vector<storage::InsertOutcome>>&)>;
  virtual ~WorkerWire() = default;
  virtual void SendHello(const coordinator::HelloCommand& hello, int64_t stream) = 0;
  virtual void SendHeartbeat(const coordinator::HeartbeatCommand& heartbeat, int64_t stream) = 0;
  virtual void CallReport(const coordinator::ReportCommand& report, ReportAnswer answer) = 0;
  virtual void CallJobReport(const coordinator::JobReport& report,
                             std::function<void(const absl::Status&)> answer) = 0;
};

struct WorkerFaults {
  double hang = 0;          // per unit: it never ends
  double runner_crash = 0;  // per unit
  double job_failure = 0;   // per job: the machine's fault
  double lost_spool = 0;    // per crash: the newest sample had not reached the disk
};

struct WorkerCounts {
  int64_t starts = 0;
  int64_t crashes = 0;
  int64_t stalls = 0;
  int64_t hangs = 0;
  int64_t runner_crashes = 0;
  int64_t poisoned = 0;
  int64_t job_failures = 0;
  int64_t samples = 0;
  int64_t reports = 0;
};

class SimWorker {
 public:
  struct Options {
    std::string worker_id;
    std::vector<coordinator::SlotShape> slots;
    absl::Duration heartbeat_interval;
    absl::Duration clock_ahead;  // of the coordinator's
  };

  SimWorker(EventQueue* events, WorkerWire* wire, const Workload* workload, WorkerCounts* counts,
            uint64_t seed, Options options);

  void Start();
  void Crash();  // starts again after a while
  void Stall(absl::Duration length);
  void SetFaults(const WorkerFaults& faults) { faults_ = faults; }

  // The coordinator's side: of a message for this incarnation, and of a stream that broke.
  void Receive(const std::string& incarnation, const coordinator::OutgoingMessage& message);
  void OnStreamBroken(int64_t stream);

  const std::string& worker_id() const { return options_.worker_id; }
  const std::string& incarnation() const { return incarnation_; }
  absl::Duration clock_ahead() const { return options_.clock_ahead; }
  bool is_alive() const { return alive_; }

 private:
  struct Unit {
    coordinator::UnitGrant grant;
    enum class State { kWaiting, kRunning, kHanging, kEnded } state = State::kWaiting;
    Instant started;
    absl::Duration length;
    int64_t num_tokens = 0;
  };
  struct Lease {
    std::string lease_id;
    int32_t slot_index = 0;
    std::shared_ptr<const coordinator::CellContext> cell;
    std::map<storage::UnitId, Unit> units;
    int64_t settled_tokens = 0;
  };
  struct Slot {
    coordinator::SlotPhase phase = coordinator::SlotPhase::kIdle;
    std::string loaded;  // what it has loaded
    int64_t runner = 0;  // rises with every start of the runner
    int64_t job_id = 0;
  };

  // Runs unless the incarnation has ended; later when it is stalled.
  void Later(absl::Duration delay, std::function<void()> work);
  void Connect();
  void BeatForEver();
  void Beat();
  void OnGrant(const coordinator::GrantMessage& grant);
  void OnJob(const coordinator::JobMessage& job);
  void OnRevoke(const coordinator::RevokeMessage& revoke);
  void OnAcknowledge(int64_t sequence);
  void Drain();
  void Exit(absl::Duration start_again_after);
  void ExitIfDrained();

  Slot& SlotAt(int32_t index) { return slots_.at(static_cast<size_t>(index)); }
  Lease* FindLease(const std::string& lease_id);
  void FillSlot(int32_t slot_index);
  void StartUnit(int32_t slot_index, Lease* lease, Unit* unit);
  void EndUnit(int32_t slot_index, const std::string& lease_id, const storage::UnitId& unit);
  void CrashRunner(int32_t slot_index);
  void FinishJob(const coordinator::JobMessage& job);
  void SendJobReport(const coordinator::JobReport& report);
  void ReportSoon(absl::Duration delay);
  void Report();
  void Settle(const std::string& lease_id, const storage::UnitId& unit);
  int64_t Progress(const Lease& lease) const;

  EventQueue* const events_;
  WorkerWire* const wire_;
  const Workload* const workload_;
  WorkerCounts* const counts_;
  Random random_;
  const Options options_;
  WorkerFaults faults_;

  bool alive_ = false;
  int64_t life_ = 0;
  std::string incarnation_;
  Instant stalled_until_;
  int64_t stream_ = 0;
  bool connected_ = false;
  bool draining_ = false;
  std::vector<Slot> slots_;
  std::vector<Lease> leases_;  // oldest first
  int64_t sequence_ = 0;
  std::vector<std::pair<int64_t, coordinator::UnitFailureReport>> failures_;  // first sent with
  bool reporting_ = false;
  int64_t call_ = 0;
  bool report_scheduled_ = false;

  std::vector<storage::SampleRecord> spool_;  // survives the process
};

}  // namespace assay::simulation
