// What the scheduler is told. Times are Clock::Monotonic(): leases must not notice a wall clock
// that steps.
#pragma once

#include <absl/time/time.h>

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/scheduler/slot_policy.h"
#include "storage/stores/records.h"

namespace assay::coordinator {

using storage::UnitId;
using MonotonicTime = absl::Duration;

enum class ArtifactStatus : int8_t { kNone, kMissing, kReady, kFailed };

// What a runner must have loaded to run a cell. Two cells of one LoadId share a loaded model.
struct LoadId {
  int64_t model_id = 0;
  int64_t artifact_id = 0;  // 0: the model as it is
  int32_t tensor_parallel_size = 1;
  friend auto operator<=>(const LoadId&, const LoadId&) = default;
};

struct CellSpec {
  int64_t cell_id = 0;
  LoadId load;
  std::string artifact_key;  // empty for the model as it is
  ArtifactStatus artifact = ArtifactStatus::kNone;
  int64_t benchmark_id = 0;
  int32_t num_items = 0;   // of the benchmark
  int64_t max_tokens = 0;  // of one sample
  // Over all GPUs of the gang; 0: not known. Making the artifact runs the unquantized model.
  int64_t memory_need_bytes = 0;
  int64_t cpu_memory_need_bytes = 0;
  int64_t artifact_need_bytes = 0;
  std::string numerics_version;  // of the engine that its samples must come from
  SlotNeed need() const {
    return {load.tensor_parallel_size, memory_need_bytes, cpu_memory_need_bytes, numerics_version};
  }
};

struct SweepPlace {
  int64_t cell_id = 0;
  int32_t num_repeats = 1;
  int32_t num_items = 0;  // the first ones of the benchmark
};

struct ScheduledSweep {
  int64_t sweep_id = 0;  // row id: later sweeps have larger ones
  int32_t priority = 50;
  bool paused = false;
  std::vector<SweepPlace> cells;
  std::string owner;  // sweeps of one owner share what she gets
};

struct JobSpec {
  int64_t job_id = 0;
  LoadId load;  // of the artifact that it makes
  int64_t memory_need_bytes = 0;
  // On a CPU a quantizer's memory is not limited. It computes alike wherever it runs.
  SlotNeed need() const { return {load.tensor_parallel_size, memory_need_bytes, 0, {}}; }
};

struct SlotInfo {
  int32_t index = 0;
  int32_t tensor_parallel_size = 1;
  int64_t memory_bytes = 0;  // over all GPUs of the gang; 0: not limited
  std::string device;
  bool is_cpu = false;
  std::string numerics_version;  // of its runners; empty: not known
  SlotShape shape() const { return {tensor_parallel_size, memory_bytes, is_cpu, numerics_version}; }
};

enum class SlotPhase : int8_t { kUnknown, kIdle, kLoading, kRunning, kQuantizing, kRestarting };

struct SlotStatus {
  int32_t index = 0;
  SlotPhase phase = SlotPhase::kUnknown;
  std::string loaded_artifact_key;
  int32_t num_running = 0;
  int32_t num_waiting = 0;
  int32_t num_free_lanes = 0;
  double tokens_per_s = 0;
  int64_t memory_used_bytes = 0;
};

struct WorkerHello {
  std::string worker_id;
  std::string incarnation;
  std::string version;
  std::string device;
  std::vector<SlotInfo> slots;
  bool drain = false;  // a person asked for it before
};

struct LeaseProgress {
  std::string lease_id;
  int64_t tokens_generated = 0;
};

struct WorkerHeartbeat {
  std::string worker_id;
  std::string incarnation;
  std::vector<SlotStatus> slots;
  bool draining = false;
  int32_t num_spooled_samples = 0;
  std::vector<LeaseProgress> leases;
};

// A sample that the store accepted.
struct StoredSample {
  UnitId unit;
  std::string worker_id;
  std::string incarnation;
  int64_t completion_tokens = 0;
  bool correct = false;
};

struct RestoredLease {
  std::string lease_id;
  int64_t cell_id = 0;
  std::string worker_id;
  std::string incarnation;
  int32_t slot_index = 0;
  std::vector<UnitId> units;  // still leased
};

}  // namespace assay::coordinator
