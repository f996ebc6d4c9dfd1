// What the control plane loads at start or when a sweep takes up older cells. Units that are done
// come as bare pairs of numbers: a million of them is 8 MB.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "storage/stores/records.h"

namespace assay::storage {

struct ItemRepeat {
  int32_t item_index = 0;
  int32_t repeat = 0;
};

// A cell with what a grant needs of it, and the state of its units. Units in neither list are
// queued and were never granted.
struct CellData {
  CellRecord cell;
  ModelRecord model;
  BenchmarkRecord benchmark;
  std::optional<ArtifactRecord> artifact;  // empty for the model as it is
  std::vector<ItemRepeat> done;            // in (item_index, repeat) order
  std::vector<UnitRecord> open;            // rows that are not done, in the same order
  int64_t num_correct = 0;                 // of all its samples, by their current grades
  int64_t completion_tokens = 0;           // of all its samples
  int64_t num_rerolls = 0;                 // units granted more than once
};

struct SweepData {
  SweepRecord sweep;
  std::vector<SweepCellRecord> cells;  // in position order
};

struct ControlSnapshot {
  std::vector<SweepData> sweeps;                     // active or paused, oldest first
  std::vector<CellData> cells;                       // of those sweeps, each once, by id
  std::map<int64_t, std::vector<ItemRecord>> items;  // by benchmark id, in item order
  std::vector<JobRecord> jobs;                       // of those cells' artifacts, not done
  std::vector<LeaseRecord> open_leases;              // all that have not ended, oldest first
  std::vector<WorkerRecord> draining_workers;
};

}  // namespace assay::storage
