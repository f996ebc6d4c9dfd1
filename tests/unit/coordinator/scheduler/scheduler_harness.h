// A fleet and its scheduler in one place, for tests: builds cells and sweeps, plays workers that
// answer at once, and audits the scheduler after every event.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "coordinator/scheduler/scheduler.h"

namespace assay::coordinator::testing {

class SchedulerHarness {
 public:
  SchedulerHarness() : scheduler_({.lease_prefix = "lease"}) {}

  // `artifact_id` 0 is the model as it is; another one needs its job first.
  void AddCell(int64_t cell_id, int32_t num_items, int64_t artifact_id = 0, int64_t model_id = 1,
               const SlotNeed& need = {}) {
    CellSpec spec;
    spec.cell_id = cell_id;
    spec.load = {model_id, artifact_id, need.tensor_parallel_size};
    spec.memory_need_bytes = need.memory_bytes;
    spec.numerics_version = need.numerics_version;
    spec.artifact = artifact_id == 0 ? ArtifactStatus::kNone : ArtifactStatus::kMissing;
    spec.benchmark_id = num_items;  // equal benchmarks have equal items
    spec.num_items = num_items;
    spec.max_tokens = 512;
    scheduler_.AddCell(spec);
  }
  void AddSweep(int64_t sweep_id, std::vector<SweepPlace> cells, int32_t priority = 50,
                const std::string& owner = "") {
    Play([&](Actions* actions) {
      scheduler_.AddSweep({sweep_id, priority, false, std::move(cells), owner}, actions);
    });
  }

  void Hello(const std::string& worker, const std::string& incarnation, int num_slots = 1) {
    Hello(worker, incarnation, std::vector<SlotShape>(static_cast<size_t>(num_slots)));
  }
  void Hello(const std::string& worker, const std::string& incarnation,
             const std::vector<SlotShape>& shapes) {
    WorkerHello hello;
    hello.worker_id = worker;
    hello.incarnation = incarnation;
    for (const SlotShape& shape : shapes) {
      hello.slots.push_back({.index = static_cast<int32_t>(hello.slots.size()),
                             .tensor_parallel_size = shape.tensor_parallel_size,
                             .memory_bytes = shape.memory_bytes,
                             .is_cpu = shape.is_cpu,
                             .numerics_version = shape.numerics_version});
    }
    Play([&](Actions* actions) { scheduler_.OnHello(hello, now_, actions); });
  }
  WorkerHeartbeat MakeHeartbeat(const std::string& worker, int32_t num_lanes = 16) const {
    const WorkerEntry& entry = scheduler_.workers().at(worker);
    WorkerHeartbeat heartbeat;
    heartbeat.worker_id = worker;
    heartbeat.incarnation = entry.incarnation;
    for (const SlotState& slot : entry.slots) {
      SlotStatus status;
      status.index = slot.info.index;
      status.phase = slot.job_id != 0         ? SlotPhase::kQuantizing
                     : slot.num_committed > 0 ? SlotPhase::kRunning
                                              : SlotPhase::kIdle;
      status.num_running = std::min(slot.num_committed, num_lanes);
      status.num_free_lanes = num_lanes - status.num_running;
      heartbeat.slots.push_back(status);
      for (const int64_t number : slot.leases) {
        const LeaseState& lease = scheduler_.leases().at(number);
        heartbeat.leases.push_back({lease.lease_id, lease.tokens_generated});
      }
    }
    return heartbeat;
  }
  void Beat(const WorkerHeartbeat& heartbeat) {
    Play([&](Actions* actions) { scheduler_.OnHeartbeat(heartbeat, now_, actions); });
  }
  void Beat(const std::string& worker, int32_t num_lanes = 16) {
    Beat(MakeHeartbeat(worker, num_lanes));
  }
  // A worker that is there and ready.
  void Join(const std::string& worker, const std::string& incarnation, int num_slots = 1) {
    Hello(worker, incarnation, num_slots);
    Beat(worker);
  }

  void Join(const std::string& worker, const std::string& incarnation,
            const std::vector<SlotShape>& shapes) {
    Hello(worker, incarnation, shapes);
    Beat(worker);
  }

  void Store(const UnitId& unit, const std::string& worker = "w1", int64_t tokens = 100) {
    StoredSample sample;
    sample.unit = unit;
    sample.worker_id = worker;
    const auto it = scheduler_.workers().find(worker);
    if (it != scheduler_.workers().end()) sample.incarnation = it->second.incarnation;
    sample.completion_tokens = tokens;
    Play([&](Actions* actions) { scheduler_.OnSampleStored(sample, now_, actions); });
  }
  void FinishLease(const GrantUnits& grant) {
    for (const UnitId& unit : grant.units) Store(unit, grant.worker_id);
  }
  void Fail(const GrantUnits& grant, const UnitId& unit, int32_t num_distinct,
            bool infrastructure = false) {
    Play([&](Actions* actions) {
      scheduler_.OnUnitFailed(grant.lease_id, unit, num_distinct, infrastructure, "it broke", now_,
                              actions);
    });
  }
  void Advance(absl::Duration duration) {
    now_ += duration;
    Play([&](Actions* actions) { scheduler_.Tick(now_, actions); });
  }

  // Runs an event and then assigns, as the control plane does, and keeps what was decided.
  template <typename Event>
  void Play(Event&& event) {
    Actions actions;
    event(&actions);
    scheduler_.Assign(now_, &actions);
    const std::string complaint = scheduler_.CheckInvariants();
    EXPECT_EQ(complaint, "");
    last_ = actions;
    history_.insert(history_.end(), actions.begin(), actions.end());
  }

  template <typename T>
  static std::vector<T> Only(const Actions& actions) {
    std::vector<T> found;
    for (const Action& action : actions) {
      if (const T* match = std::get_if<T>(&action)) found.push_back(*match);
    }
    return found;
  }
  template <typename T>
  std::vector<T> Last() const {
    return Only<T>(last_);
  }
  template <typename T>
  std::vector<T> All() const {
    return Only<T>(history_);
  }
  // Settled sweeps with whether they failed.
  std::map<int64_t, bool> Settled() const {
    std::map<int64_t, bool> settled;
    for (const SettleSweep& sweep : All<SettleSweep>()) settled[sweep.sweep_id] = sweep.failed;
    return settled;
  }

  Scheduler& scheduler() { return scheduler_; }
  MonotonicTime now() const { return now_; }

 private:
  Scheduler scheduler_;
  MonotonicTime now_ = absl::Seconds(1000);
  Actions last_;
  Actions history_;
};

}  // namespace assay::coordinator::testing
