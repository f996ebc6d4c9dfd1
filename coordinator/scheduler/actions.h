// What the scheduler decides. Its own memory has changed already; whoever owns it makes the same
// change durable, commits, and only then tells the worker.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "coordinator/scheduler/events.h"

namespace assay::coordinator {

// Durable changes -------------------------------------------------------------------------------

struct GrantUnits {
  std::string lease_id;
  std::string worker_id;
  std::string incarnation;
  int32_t slot_index = 0;
  int64_t cell_id = 0;
  std::vector<UnitId> units;  // in the order in which the worker should start them
};

enum class LeaseEnd : int8_t { kCompleted, kExpired, kWorkerLost, kRevoked, kFailed };

// The units that were left have gone back to the queue.
struct EndLease {
  std::string lease_id;
  std::string worker_id;
  LeaseEnd reason = LeaseEnd::kCompleted;
  int32_t num_units_left = 0;
};

// Some units of an open lease have gone back to the queue: no live sweep wants them now.
struct ReleaseUnits {
  std::string lease_id;
  std::vector<UnitId> units;
};

struct QuarantineUnit {
  UnitId unit;
};

struct GrantJob {
  int64_t job_id = 0;
  std::string worker_id;
  std::string incarnation;
  int32_t slot_index = 0;
};

// The job is queued again: its worker is lost or was silent about it.
struct ReleaseJob {
  int64_t job_id = 0;
  std::string worker_id;
};

// The sweep has ended; the scheduler has forgotten it.
struct SettleSweep {
  int64_t sweep_id = 0;
  bool failed = false;
};

// Every unit of the sweep in this cell is done, or none of the rest can be.
struct SettleCell {
  int64_t sweep_id = 0;
  int64_t cell_id = 0;
  bool failed = false;
};

// No slot that takes work now can hold some cells of the sweep. Said once for each need, and again
// when slots that could have come and gone.
struct CellsWait {
  int64_t sweep_id = 0;
  int64_t cell_id = 0;  // the first of them
  int32_t num_cells = 0;
  std::string reason;
};

// The worker is heard again, or has been silent too long. Its leases live on until they expire.
struct WorkerPresence {
  std::string worker_id;
  std::string incarnation;
  bool online = false;
};

// Messages to workers ---------------------------------------------------------------------------

struct TellRevoke {
  std::string worker_id;
  std::string incarnation;
  std::string lease_id;
  std::vector<UnitId> units;  // empty: all of the lease
};

struct TellDrain {
  std::string worker_id;
  std::string incarnation;
};

struct TellShutdown {
  std::string worker_id;
  std::string incarnation;
  std::string reason;
};

using Action = std::variant<GrantUnits, EndLease, ReleaseUnits, QuarantineUnit, GrantJob,
                            ReleaseJob, SettleSweep, SettleCell, CellsWait, WorkerPresence,
                            TellRevoke, TellDrain, TellShutdown>;
using Actions = std::vector<Action>;

}  // namespace assay::coordinator
