// What people see of the present: a copy of the scheduler's counters, made on the control thread
// and immutable from then on. Live sweeps (active, paused) are in it; settled ones are in the
// database.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/control/messages.h"
#include "coordinator/control/meters.h"
#include "coordinator/scheduler/events.h"

namespace assay::coordinator {

struct LiveCell {
  std::shared_ptr<const CellContext> context;
  int32_t num_repeats = 1;
  int32_t num_items = 0;
  int64_t num_queued = 0;
  int64_t num_running = 0;
  int64_t num_done = 0;
  int64_t num_quarantined = 0;
  // Of the whole cell, which other sweeps may want more of.
  int64_t num_correct = 0;
  int64_t tokens_done = 0;
  int64_t num_rerolls = 0;
  bool waits_for_artifact = false;
  bool artifact_failed = false;
  std::string waiting_reason;  // why no slot can take what is queued of it; empty: one can
  std::string error;
  int64_t num_units() const { return int64_t{num_items} * num_repeats; }
};

struct LiveSweep {
  int64_t row_id = 0;
  bool paused = false;
  std::vector<LiveCell> cells;  // in plan order
  int64_t num_units = 0;
  int64_t num_done = 0;
  int64_t num_running = 0;
  int64_t num_queued = 0;
  int64_t num_quarantined = 0;
  int64_t tokens_done = 0;
  int64_t tokens_expected = 0;
  double tokens_per_s = 0;
  int64_t eta_us = 0;  // 0: unknown
  int64_t num_rerolls = 0;
};

struct LiveWorker {
  std::string worker_id;
  std::string incarnation;
  std::string version;
  std::string device;
  bool online = false;
  bool draining = false;
  int64_t silent_us = 0;  // since it was last heard
  std::vector<SlotInfo> slots;
  std::vector<SlotStatus> slot_states;
  int32_t num_leases = 0;
  int32_t num_units = 0;
  double tokens_per_s = 0;
  int64_t num_samples = 0;
};

// Since this coordinator started.
struct ControlCounters {
  int64_t num_accepted = 0;
  int64_t num_duplicates = 0;
  int64_t num_fenced = 0;
  int64_t num_commits = 0;
  int64_t num_failed_commits = 0;
  int64_t num_leases_granted = 0;
  int64_t num_leases_expired = 0;  // or lost with their worker
  int64_t num_units_granted = 0;
  int64_t num_rerolls = 0;  // units granted a second time
  int64_t num_unit_failures = 0;
  int64_t num_quarantined = 0;
};

struct LiveSnapshot {
  MonotonicTime taken;
  std::map<int64_t, LiveSweep> sweeps;  // by row id
  std::vector<LiveWorker> workers;      // by id
  int64_t num_units_queued = 0;         // of active sweeps
  int64_t num_units_running = 0;
  int64_t num_cells_without_slot = 0;  // that no slot can take, or whose artifact none can make
  double tokens_per_s = 0;
  double samples_per_s = 0;  // stored, over the last ten seconds
  double commit_p99_ms = 0;
  ControlCounters counters;
  // Since this coordinator started.
  Histogram commit_seconds = MakeCommitHistogram();
  Histogram batch_sizes = MakeBatchHistogram();
  size_t num_commands_waiting = 0;  // for the control thread
};

}  // namespace assay::coordinator
