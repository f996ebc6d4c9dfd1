// What workers tell the scheduler.
#include <algorithm>

#include "coordinator/scheduler/failure_policy.h"
#include "coordinator/scheduler/lease_policy.h"
#include "coordinator/scheduler/scheduler.h"

namespace assay::coordinator {
namespace {

// A grant that the worker does not list after so many heartbeats was lost on the way.
constexpr int kLostGrantHeartbeats = 2;
constexpr size_t kPastIncarnations = 8;
constexpr char kTakenOver[] = "a later start of this worker has taken over";

}  // namespace

bool Scheduler::OnHello(const WorkerHello& hello, MonotonicTime now, Actions* actions) {
  WorkerEntry& worker = workers_[hello.worker_id];
  worker.worker_id = hello.worker_id;
  if (worker.incarnation != hello.incarnation) {
    if (std::count(worker.past_incarnations.begin(), worker.past_incarnations.end(),
                   hello.incarnation) > 0) {
      actions->push_back(TellShutdown{hello.worker_id, hello.incarnation, kTakenOver});
      return false;
    }
    if (!worker.incarnation.empty()) {
      actions->push_back(TellShutdown{hello.worker_id, worker.incarnation, kTakenOver});
      EndAllOf(hello.worker_id, actions);
      worker.past_incarnations.push_back(worker.incarnation);
      if (worker.past_incarnations.size() > kPastIncarnations) {
        worker.past_incarnations.erase(worker.past_incarnations.begin());
      }
    }
    worker.incarnation = hello.incarnation;
    worker.slots.clear();
    worker.blocked.clear();
    worker.draining = false;
    worker.num_samples = 0;
    worker.online = false;
  }
  worker.known = true;
  worker.version = hello.version;
  worker.device = hello.device;
  worker.drain_ordered = hello.drain;
  for (const SlotInfo& info : hello.slots) SlotOf(hello.worker_id, info.index).info = info;
  fleet_stale_ = true;
  worker.last_seen = now;
  if (!worker.online) {
    worker.online = true;
    actions->push_back(WorkerPresence{hello.worker_id, hello.incarnation, true});
  }
  if (worker.drain_ordered) actions->push_back(TellDrain{hello.worker_id, hello.incarnation});
  SettleDirty(actions);
  return true;
}

bool Scheduler::OnHeartbeat(const WorkerHeartbeat& heartbeat, MonotonicTime now, Actions* actions) {
  const auto found = workers_.find(heartbeat.worker_id);
  if (found == workers_.end() || !found->second.known) return false;
  WorkerEntry& worker = found->second;
  if (worker.incarnation != heartbeat.incarnation) {
    actions->push_back(TellShutdown{heartbeat.worker_id, heartbeat.incarnation, kTakenOver});
    return false;
  }
  worker.last_seen = now;
  fleet_stale_ = fleet_stale_ || worker.draining != heartbeat.draining || !worker.online;
  worker.draining = heartbeat.draining;
  worker.num_spooled_samples = heartbeat.num_spooled_samples;
  if (worker.drain_ordered && !heartbeat.draining) {  // the order was lost: said until it is heard
    actions->push_back(TellDrain{worker.worker_id, worker.incarnation});
  }
  if (!worker.online) {
    worker.online = true;
    actions->push_back(WorkerPresence{worker.worker_id, worker.incarnation, true});
  }
  for (const SlotStatus& status : heartbeat.slots) {
    if (status.index < 0 || static_cast<size_t>(status.index) >= worker.slots.size()) continue;
    SlotState& slot = worker.slots[static_cast<size_t>(status.index)];
    slot.status = status;
    if (status.phase == SlotPhase::kIdle && slot.leases.empty()) slot.load.reset();
  }

  const std::set<int64_t> listed = RenewLeases(worker, heartbeat, now, actions);
  if (heartbeat.num_spooled_samples == 0) EndLostGrants(worker, listed, now, actions);
  RenewJobs(worker, now);
  roomy_workers_.insert(worker.worker_id);
  SettleDirty(actions);
  return true;
}

std::set<int64_t> Scheduler::RenewLeases(const WorkerEntry& worker,
                                         const WorkerHeartbeat& heartbeat, MonotonicTime now,
                                         Actions* actions) {
  // A lease waits while other leases of its slot run, so the slot's progress renews them all.
  std::set<int32_t> advanced;
  std::set<int64_t> listed;
  for (const LeaseProgress& progress : heartbeat.leases) {
    const int64_t number = LeaseNumber(progress.lease_id);
    if (number == 0 || leases_.at(number).worker_id != worker.worker_id) {
      actions->push_back(TellRevoke{worker.worker_id, worker.incarnation, progress.lease_id, {}});
      continue;
    }
    LeaseState& lease = leases_.at(number);
    listed.insert(number);
    if (progress.tokens_generated > lease.tokens_generated) {
      lease.tokens_generated = progress.tokens_generated;
      advanced.insert(lease.slot_index);
    }
  }
  for (const int64_t number : listed) {
    LeaseState& lease = leases_.at(number);
    const bool loading =
        SlotOf(worker.worker_id, lease.slot_index).status.phase == SlotPhase::kLoading &&
        now - lease.granted < kLongestLoad;
    if (loading || advanced.contains(lease.slot_index)) {
      lease.expires = std::max(lease.expires, now + options_.lease_ttl);
    }
  }
  return listed;
}

// The worker does not know a lease that it was granted a while ago: the grant was lost. (With
// samples in its spool it may have finished the lease, and the report is on its way: not asked
// then.)
void Scheduler::EndLostGrants(const WorkerEntry& worker, const std::set<int64_t>& listed,
                              MonotonicTime now, Actions* actions) {
  std::vector<int64_t> lost;
  for (const SlotState& slot : worker.slots) {
    for (const int64_t number : slot.leases) {
      if (!listed.contains(number) &&
          now - leases_.at(number).granted > kLostGrantHeartbeats * options_.heartbeat_interval) {
        lost.push_back(number);
      }
    }
  }
  for (const int64_t number : lost) EndLeaseNow(number, LeaseEnd::kExpired, actions);
}

void Scheduler::RenewJobs(const WorkerEntry& worker, MonotonicTime now) {
  for (auto& [job_id, job] : jobs_) {
    if (job.status != JobStatus::kLeased || job.worker_id != worker.worker_id ||
        job.incarnation != worker.incarnation) {
      continue;
    }
    const bool active =
        std::any_of(worker.slots.begin(), worker.slots.end(), [&job = job](const SlotState& slot) {
          return (job.slot_index < 0 || slot.info.index == job.slot_index) &&
                 (slot.status.phase == SlotPhase::kQuantizing ||
                  slot.status.phase == SlotPhase::kLoading);
        });
    if (active) job.last_active = std::max(job.last_active, now);
  }
}

void Scheduler::OnSampleStored(const StoredSample& sample, MonotonicTime now, Actions* actions) {
  const auto found = cells_.find(sample.unit.cell_id);
  if (found == cells_.end()) return;
  CellState& cell = found->second;
  if (!cell.units.Contains(sample.unit.item_index, sample.unit.repeat)) return;
  const int32_t index = cell.units.IndexOf(sample.unit.item_index, sample.unit.repeat);
  if (cell.units.Get(index) == UnitStatus::kDone) return;
  ++cell.num_samples;
  cell.num_correct += sample.correct ? 1 : 0;
  cell.completion_tokens += sample.completion_tokens;
  if (cell.spec.load.artifact_id == 0) {
    Lengths(cell).Record(sample.unit.item_index, sample.completion_tokens);
  }
  const auto holder = cell.holder.find(index);
  if (holder != cell.holder.end()) {
    LeaseState& lease = leases_.at(holder->second);
    lease.expires = std::max(lease.expires, now + options_.lease_ttl);
  }
  const auto worker = workers_.find(sample.worker_id);
  if (worker != workers_.end() && worker->second.incarnation == sample.incarnation) {
    ++worker->second.num_samples;
    worker->second.blocked.erase(cell.spec.load);
  }
  cell.suspects.erase(index);
  cell.failures_alone.erase(index);
  TakeUnit(cell, index, UnitStatus::kDone, LeaseEnd::kCompleted, actions);
  SettleDirty(actions);
}

void Scheduler::OnUnitFailed(const std::string& lease_id, const UnitId& unit, int32_t num_distinct,
                             bool infrastructure, const std::string& message, MonotonicTime now,
                             Actions* actions) {
  const int64_t number = LeaseNumber(lease_id);
  const auto found = cells_.find(unit.cell_id);
  if (number == 0 || found == cells_.end()) return;
  CellState& cell = found->second;
  if (!cell.units.Contains(unit.item_index, unit.repeat)) return;
  const int32_t index = cell.units.IndexOf(unit.item_index, unit.repeat);
  const auto holder = cell.holder.find(index);
  if (holder == cell.holder.end() || holder->second != number) return;
  const LeaseState& lease = leases_.at(number);
  cell.last_error = message;
  if (infrastructure) {
    Block(workers_.at(lease.worker_id), cell.spec.load, now);
    TakeUnit(cell, index, UnitStatus::kQueued, LeaseEnd::kFailed, actions);
  } else {
    const int32_t num_alone =
        lease.alone ? ++cell.failures_alone[index] : cell.failures_alone[index];
    cell.suspects.insert(index);
    if (IsPoison(num_distinct, num_alone)) {
      actions->push_back(QuarantineUnit{unit});
      TakeUnit(cell, index, UnitStatus::kQuarantined, LeaseEnd::kFailed, actions);
    } else {
      TakeUnit(cell, index, UnitStatus::kQueued, LeaseEnd::kFailed, actions);
    }
  }
  SettleDirty(actions);
}

void Scheduler::DrainWorker(const std::string& worker_id, Actions* actions) {
  const auto it = workers_.find(worker_id);
  if (it == workers_.end()) return;
  it->second.drain_ordered = true;
  fleet_stale_ = true;
  if (it->second.known) actions->push_back(TellDrain{worker_id, it->second.incarnation});
}

}  // namespace assay::coordinator
