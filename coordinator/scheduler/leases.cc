// The scheduler's leases: how they come back after a restart, how they end, and with time.
#include <algorithm>

#include "base/status.h"
#include "coordinator/scheduler/failure_policy.h"
#include "coordinator/scheduler/lease_policy.h"
#include "coordinator/scheduler/scheduler.h"

namespace assay::coordinator {
namespace {

// A worker that was silent for so many heartbeats is shown as offline and gets nothing new.
constexpr int kOfflineHeartbeats = 3;
constexpr absl::Duration kForgetWorkerAfter = absl::Hours(24);

}  // namespace

// Restoring -------------------------------------------------------------------------------------

void Scheduler::RestoreLease(const RestoredLease& restored, MonotonicTime now) {
  LeaseState lease;
  lease.lease_id = restored.lease_id;
  lease.cell_id = restored.cell_id;
  lease.worker_id = restored.worker_id;
  lease.incarnation = restored.incarnation;
  lease.slot_index = restored.slot_index;
  lease.granted = now;
  lease.expires = now + 2 * options_.lease_ttl;
  const CellState& cell = cells_.at(restored.cell_id);
  for (const UnitId& unit : restored.units) {
    const int32_t index = cell.units.IndexOf(unit.item_index, unit.repeat);
    lease.units.insert(index);
    lease.alone = lease.alone || cell.suspects.contains(index);
  }
  WorkerEntry& worker = workers_[lease.worker_id];
  worker.worker_id = lease.worker_id;
  worker.incarnation = lease.incarnation;
  worker.last_seen = now;
  AddLease(std::move(lease));
}

void Scheduler::RestoreLeasedJob(const JobSpec& spec, const std::string& worker_id,
                                 const std::string& incarnation, MonotonicTime now) {
  jobs_.insert_or_assign(spec.job_id, JobEntry{.spec = spec,
                                               .status = JobStatus::kLeased,
                                               .worker_id = worker_id,
                                               .incarnation = incarnation,
                                               .last_active = now + options_.lease_ttl});
  WorkerEntry& worker = workers_[worker_id];
  if (worker.known) return;
  worker.worker_id = worker_id;
  worker.incarnation = incarnation;
  worker.last_seen = now;
}

void Scheduler::AdoptWorkers(const Scheduler& previous, const std::set<std::string>& except) {
  for (const auto& [worker_id, old] : previous.workers_) {
    if (except.contains(worker_id)) continue;
    WorkerEntry& worker = workers_[worker_id];
    const std::vector<SlotState> restored = std::move(worker.slots);
    worker = old;
    for (SlotState& slot : worker.slots) {
      slot.leases.clear();
      slot.num_committed = 0;
      slot.alone = false;
      slot.job_id = 0;
    }
    for (size_t i = 0; i < restored.size(); ++i) {
      SlotState& slot = SlotOf(worker_id, static_cast<int32_t>(i));
      slot.leases = restored[i].leases;
      slot.num_committed = restored[i].num_committed;
      slot.alone = restored[i].alone;
      if (!slot.leases.empty()) slot.load = restored[i].load;
    }
    roomy_workers_.insert(worker_id);
  }
  fleet_stale_ = true;
  for (auto& [number, lease] : leases_) {
    const int64_t before = previous.LeaseNumber(lease.lease_id);
    if (before == 0) continue;
    lease.tokens_generated = previous.leases_.at(before).tokens_generated;
    lease.expires = previous.leases_.at(before).expires;
  }
  for (auto& [job_id, job] : jobs_) {
    const auto before = previous.jobs_.find(job_id);
    if (before == previous.jobs_.end()) continue;
    job.num_infrastructure_failures = before->second.num_infrastructure_failures;
    if (job.status != JobStatus::kLeased) continue;
    if (before->second.owner) ChargeJob(job, *before->second.owner);
    if (before->second.slot_index < 0) continue;
    if (except.contains(job.worker_id)) continue;
    job.slot_index = before->second.slot_index;
    SlotOf(job.worker_id, job.slot_index).job_id = job_id;
  }
}

// Time ------------------------------------------------------------------------------------------

void Scheduler::Tick(MonotonicTime now, Actions* actions) {
  std::vector<int64_t> expired;
  for (const auto& [number, lease] : leases_) {
    if (lease.expires <= now) expired.push_back(number);
  }
  for (const int64_t number : expired) {
    const LeaseState& lease = leases_.at(number);
    actions->push_back(TellRevoke{lease.worker_id, lease.incarnation, lease.lease_id, {}});
    EndLeaseNow(number, LeaseEnd::kExpired, actions);
  }
  for (auto& [job_id, job] : jobs_) {
    if (job.status != JobStatus::kLeased) continue;
    const auto worker = workers_.find(job.worker_id);
    const bool silent =
        worker == workers_.end() || (now - worker->second.last_seen > options_.lease_ttl &&
                                     now > job.last_active + options_.lease_ttl);
    if (silent || now - job.last_active > kLongestUpload) ReleaseJobNow(job, actions);
  }
  std::vector<std::string> forgotten;
  for (auto& [worker_id, worker] : workers_) {
    const absl::Duration silence = now - worker.last_seen;
    if (worker.online && silence > kOfflineHeartbeats * options_.heartbeat_interval) {
      worker.online = false;
      fleet_stale_ = true;
      actions->push_back(WorkerPresence{worker_id, worker.incarnation, false});
    }
    const bool holds = std::any_of(worker.slots.begin(), worker.slots.end(), [](const auto& slot) {
      return !slot.leases.empty() || slot.job_id != 0;
    });
    if (silence > kForgetWorkerAfter && !holds) forgotten.push_back(worker_id);
  }
  for (const std::string& worker_id : forgotten) workers_.erase(worker_id);
  SettleDirty(actions);
}

// Leases ----------------------------------------------------------------------------------------

SlotState& Scheduler::SlotOf(const std::string& worker_id, int32_t slot_index) {
  WorkerEntry& worker = workers_.at(worker_id);
  while (worker.slots.size() <= static_cast<size_t>(slot_index)) {
    SlotState& slot = worker.slots.emplace_back();
    slot.info.index = static_cast<int32_t>(worker.slots.size()) - 1;
    slot.status.index = slot.info.index;
  }
  return worker.slots[static_cast<size_t>(slot_index)];
}

int64_t Scheduler::LeaseNumber(const std::string& lease_id) const {
  const auto it = lease_numbers_.find(lease_id);
  return it == lease_numbers_.end() ? 0 : it->second;
}

const LeaseState* Scheduler::FindLease(const std::string& lease_id) const {
  const int64_t number = LeaseNumber(lease_id);
  return number == 0 ? nullptr : &leases_.at(number);
}

void Scheduler::AddLease(LeaseState lease) {
  const int64_t number = next_lease_number_++;
  CellState& cell = cells_.at(lease.cell_id);
  for (const int32_t index : lease.units) {
    cell.holder[index] = number;
    MoveUnit(cell, index, UnitStatus::kLeased);
  }
  SlotState& slot = SlotOf(lease.worker_id, lease.slot_index);
  if (slot.leases.empty()) {
    if (slot.load != cell.spec.load) {
      slot.load = cell.spec.load;
      slot.load_since = lease.granted;
    }
    ++slots_on_load_[*slot.load];
  }
  slot.leases.insert(number);
  slot.num_committed += static_cast<int32_t>(lease.units.size());
  slot.alone = slot.alone || lease.alone;
  Charge(lease.sweep_id, static_cast<int64_t>(lease.units.size()));
  lease_numbers_[lease.lease_id] = number;
  leases_.emplace(number, std::move(lease));
}

void Scheduler::TakeUnit(CellState& cell, int32_t index, UnitStatus to, LeaseEnd reason,
                         Actions* actions) {
  const auto holder = cell.holder.find(index);
  if (holder == cell.holder.end()) {
    MoveUnit(cell, index, to);
    return;
  }
  const int64_t number = holder->second;
  cell.holder.erase(holder);
  LeaseState& lease = leases_.at(number);
  lease.units.erase(index);
  SlotOf(lease.worker_id, lease.slot_index).num_committed -= 1;
  Charge(lease.sweep_id, -1);
  roomy_workers_.insert(lease.worker_id);
  MoveUnit(cell, index, to);
  if (lease.units.empty()) {
    actions->push_back(EndLease{lease.lease_id, lease.worker_id, reason, 0});
    DetachLease(number);
  }
}

void Scheduler::EndLeaseNow(int64_t number, LeaseEnd reason, Actions* actions) {
  const LeaseState& lease = leases_.at(number);
  CellState& cell = cells_.at(lease.cell_id);
  for (const int32_t index : lease.units) {
    cell.holder.erase(index);
    MoveUnit(cell, index, UnitStatus::kQueued);
  }
  actions->push_back(
      EndLease{lease.lease_id, lease.worker_id, reason, static_cast<int32_t>(lease.units.size())});
  DetachLease(number);
}

void Scheduler::DetachLease(int64_t number) {
  const auto it = leases_.find(number);
  const LeaseState& lease = it->second;
  SlotState& slot = SlotOf(lease.worker_id, lease.slot_index);
  slot.leases.erase(number);
  slot.num_committed -= static_cast<int32_t>(lease.units.size());
  Charge(lease.sweep_id, -static_cast<int64_t>(lease.units.size()));
  if (slot.leases.empty()) {
    slot.alone = false;
    const auto on_load = slots_on_load_.find(*slot.load);
    if (--on_load->second == 0) slots_on_load_.erase(on_load);
  }
  roomy_workers_.insert(lease.worker_id);
  lease_numbers_.erase(lease.lease_id);
  leases_.erase(it);
}

void Scheduler::EndAllOf(const std::string& worker_id, Actions* actions) {
  std::vector<int64_t> numbers;
  for (const SlotState& slot : workers_.at(worker_id).slots) {
    numbers.insert(numbers.end(), slot.leases.begin(), slot.leases.end());
  }
  std::sort(numbers.begin(), numbers.end());
  for (const int64_t number : numbers) EndLeaseNow(number, LeaseEnd::kWorkerLost, actions);
  for (auto& [job_id, job] : jobs_) {
    if (job.status == JobStatus::kLeased && job.worker_id == worker_id) {
      ReleaseJobNow(job, actions);
    }
  }
}

void Scheduler::RevokeUnwanted(int64_t cell_id, Actions* actions) {
  CellState& cell = cells_.at(cell_id);
  std::map<int64_t, std::vector<int32_t>> unwanted;  // by lease number
  for (const auto& [index, number] : cell.holder) {
    if (!WantedByActive(cell, index)) unwanted[number].push_back(index);
  }
  for (const auto& [number, indices] : unwanted) {
    LeaseState& lease = leases_.at(number);
    TellRevoke revoke{lease.worker_id, lease.incarnation, lease.lease_id, {}};
    if (indices.size() == lease.units.size()) {
      actions->push_back(std::move(revoke));
      EndLeaseNow(number, LeaseEnd::kRevoked, actions);
      continue;
    }
    for (const int32_t index : indices) {
      revoke.units.push_back({cell_id, cell.units.ItemOf(index), cell.units.RepeatOf(index)});
    }
    actions->push_back(ReleaseUnits{lease.lease_id, revoke.units});
    actions->push_back(std::move(revoke));
    for (const int32_t index : indices) {
      TakeUnit(cell, index, UnitStatus::kQueued, LeaseEnd::kRevoked, actions);
    }
  }
  ChargeOrphans(cell);
}

void Scheduler::FreeJobSlot(const JobEntry& job) {
  if (job.slot_index < 0 || !workers_.contains(job.worker_id)) return;
  SlotState& slot = SlotOf(job.worker_id, job.slot_index);
  if (slot.job_id == job.spec.job_id) slot.job_id = 0;
  roomy_workers_.insert(job.worker_id);
}

void Scheduler::ReleaseJobNow(JobEntry& job, Actions* actions) {
  actions->push_back(ReleaseJob{job.spec.job_id, job.worker_id});
  FreeJobSlot(job);
  UnchargeJob(job);
  job.status = JobStatus::kQueued;
  job.worker_id.clear();
  job.incarnation.clear();
  job.slot_index = -1;
  job_queue_stale_ = true;
  work_arrived_ = true;
}

void Scheduler::Block(WorkerEntry& worker, const LoadId& load, MonotonicTime now) {
  BlockedLoad& blocked = worker.blocked[load];
  if (blocked.until > now) return;  // one crash fails many units at once
  ++blocked.num_failures;
  blocked.until = now + BlockFor(blocked.num_failures);
}

}  // namespace assay::coordinator
