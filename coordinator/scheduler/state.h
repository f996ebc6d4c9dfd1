// The scheduler's memory: plain data, ordered containers, numbers and names instead of pointers, so
// that equal histories give equal states.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/scheduler/events.h"
#include "coordinator/scheduler/length_table.h"
#include "coordinator/scheduler/slot_policy.h"
#include "coordinator/scheduler/unit_policy.h"
#include "coordinator/scheduler/unit_table.h"

namespace assay::coordinator {

using UnitCounts = std::array<int64_t, kNumUnitStatuses>;  // indexed by UnitStatus

struct CellState {
  CellSpec spec;
  UnitTable units;
  std::vector<std::pair<int64_t, int32_t>> places;  // (sweep_id, position) of live sweeps
  std::map<int32_t, int64_t> holder;                // leased unit index -> lease number
  std::set<int32_t> suspects;                       // granted alone from now on
  std::map<int32_t, int32_t> failures_alone;
  int64_t num_samples = 0;  // stored, with those totals
  int64_t num_correct = 0;
  int64_t completion_tokens = 0;
  int64_t num_rerolls = 0;
  std::string last_error;
  bool placeable = true;  // some slot that takes work can hold it, or there is none at all

  bool runnable() const {
    return spec.artifact == ArtifactStatus::kNone || spec.artifact == ArtifactStatus::kReady;
  }
  bool failed() const { return spec.artifact == ArtifactStatus::kFailed; }
  SlotNeed need() const { return spec.need(); }
};

// A cell's place in a sweep.
struct PlaceState {
  int64_t cell_id = 0;
  int32_t num_repeats = 1;
  int32_t num_items = 0;
  UnitCounts counts{};
  PickCursor cursor;
  bool open = true;  // units are queued or leased, and can still be done

  bool Wants(int32_t item, int32_t repeat) const {
    return item < num_items && repeat < num_repeats;
  }
  int64_t num_units() const { return int64_t{num_items} * num_repeats; }
};

struct SweepEntry {
  int64_t sweep_id = 0;
  int32_t priority = 50;
  bool paused = false;
  std::string owner;
  std::vector<PlaceState> places;
  UnitCounts counts{};
  int64_t num_open_places = 0;
  int64_t num_charged = 0;     // units in flight on this sweep's account
  int64_t last_served = 0;     // number of the last lease granted on its account
  std::set<int32_t> eligible;  // positions with something to grant
  std::map<LoadId, std::set<int32_t>> eligible_by_load;
  std::set<std::string> told_to_wait;  // why cells wait, as people were told
};

// Whose sweeps they are. Known while she has a live sweep or a job in progress.
struct OwnerEntry {
  int32_t num_sweeps = 0;
  int64_t num_charged = 0;  // units in flight on her sweeps' account
  int32_t num_jobs = 0;     // in progress on her account
  int64_t last_served = 0;
};

// Cells that need the same of a slot.
struct NeedEntry {
  std::set<int64_t> cells;
  std::string why_not;  // no slot holds them; empty: one does
};

struct LeaseState {
  std::string lease_id;
  int64_t cell_id = 0;
  int64_t sweep_id = 0;  // charged; 0 when no live sweep wants the cell any more
  std::string worker_id;
  std::string incarnation;
  int32_t slot_index = 0;
  std::set<int32_t> units;       // those left
  int64_t tokens_generated = 0;  // as last reported
  MonotonicTime expires;
  MonotonicTime granted;
  bool alone = false;  // of a suspect: nothing else runs on the slot
};

enum class JobStatus : int8_t { kQueued, kLeased };

struct JobEntry {
  JobSpec spec;
  JobStatus status = JobStatus::kQueued;
  int32_t num_infrastructure_failures = 0;
  std::string worker_id;  // while leased
  std::string incarnation;
  std::optional<std::string> owner;  // charged while it is leased; not known after a restart
  int32_t slot_index = -1;           // -1: not known after a restart
  MonotonicTime last_active;         // when its slot was last seen to work on it
};

struct SlotState {
  SlotInfo info;
  SlotStatus status;
  std::optional<LoadId> load;  // of the last grant
  MonotonicTime load_since;
  std::set<int64_t> leases;   // numbers
  int32_t num_committed = 0;  // units in them
  bool alone = false;         // a suspect runs here
  int64_t job_id = 0;         // 0: none
};

struct BlockedLoad {
  int32_t num_failures = 0;
  MonotonicTime until;
};

struct WorkerEntry {
  std::string worker_id;
  std::string incarnation;
  std::string version;
  std::string device;
  bool known = false;  // it has said hello since this scheduler was made
  bool online = false;
  bool draining = false;       // by its own word
  bool drain_ordered = false;  // by a person's
  int32_t num_spooled_samples = 0;
  MonotonicTime last_seen;
  std::vector<SlotState> slots;
  std::map<LoadId, BlockedLoad> blocked;
  std::vector<std::string> past_incarnations;  // the last few: they are not let in again
  int64_t num_samples = 0;                     // accepted from this incarnation
};

}  // namespace assay::coordinator
