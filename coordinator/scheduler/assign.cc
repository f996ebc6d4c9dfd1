// The scheduler's grants: fills the slots that have room, by the policies.
#include <algorithm>
#include <tuple>

#include "coordinator/scheduler/cell_policy.h"
#include "coordinator/scheduler/lease_policy.h"
#include "coordinator/scheduler/scheduler.h"

namespace assay::coordinator {
namespace {

bool IsBlocked(const WorkerEntry& worker, const LoadId& load, MonotonicTime now) {
  const auto it = worker.blocked.find(load);
  return it != worker.blocked.end() && it->second.until > now;
}

// Suspects of the cell that are queued and that the place wants, lowest index first.
std::vector<int32_t> QueuedSuspects(const CellState& cell, const PlaceState& place) {
  std::vector<int32_t> queued;
  for (const int32_t index : cell.suspects) {
    if (cell.units.Get(index) == UnitStatus::kQueued &&
        place.Wants(cell.units.ItemOf(index), cell.units.RepeatOf(index))) {
      queued.push_back(index);
    }
  }
  return queued;
}

int64_t NumQueued(const PlaceState& place) {
  return place.counts[static_cast<size_t>(UnitStatus::kQueued)];
}

}  // namespace

void Scheduler::Assign(MonotonicTime now, Actions* actions) {
  RefreshFleet();
  TellWaiting(actions);
  std::set<std::string> targets = std::move(roomy_workers_);
  roomy_workers_.clear();
  const bool all = std::exchange(work_arrived_, false);
  if (job_queue_stale_) RebuildJobQueue();
  const auto serve = [&](WorkerEntry& worker) {
    if (!TakesWork(worker) || worker.num_spooled_samples > options_.max_unreported_samples) return;
    // One grant a slot in turn, so that the slots of a worker share a short queue.
    bool granted = true;
    while (granted) {
      granted = false;
      for (SlotState& slot : worker.slots) {
        granted = AssignSlot(worker, slot, now, actions) || granted;
      }
    }
  };
  if (all) {
    for (auto& [worker_id, worker] : workers_) serve(worker);
  } else {
    for (const std::string& worker_id : targets) {
      const auto it = workers_.find(worker_id);
      if (it != workers_.end()) serve(it->second);
    }
  }
  // Granting moves units and so marks work as arrived and workers as roomy; nothing came of it.
  roomy_workers_.clear();
  work_arrived_ = false;
}

bool Scheduler::AssignSlot(WorkerEntry& worker, SlotState& slot, MonotonicTime now,
                           Actions* actions) {
  const SlotPhase phase = slot.status.phase;
  if (slot.job_id != 0 || slot.alone || phase == SlotPhase::kUnknown ||
      phase == SlotPhase::kQuantizing || phase == SlotPhase::kRestarting) {
    return false;
  }
  const std::optional<CellChoice> cell = ChooseCell(worker, slot, now);
  if (slot.leases.empty()) {
    const std::optional<JobChoice> job = ChooseJobFor(worker, slot, now);
    if (job && (!cell || JobGoesFirst(job->job, cell->priority,
                                      ShareOf(sweeps_.at(cell->sweep_id).owner)))) {
      GrantJobTo(worker, slot, *job, now, actions);
      return true;
    }
  }
  return cell && GrantCell(worker, slot, *cell, now, actions);
}

// Jobs ------------------------------------------------------------------------------------------

void Scheduler::RebuildJobQueue() {
  job_queue_.clear();
  job_queue_stale_ = false;
  for (const auto& [job_id, job] : jobs_) {
    const auto cells = cells_of_artifact_.find(job.spec.load.artifact_id);
    if (job.status != JobStatus::kQueued || cells == cells_of_artifact_.end() ||
        !WhyNoSlotFits(job.spec.need(), shapes_).empty()) {
      continue;
    }
    const SweepEntry* first = nullptr;  // of those that wait for it, highest priority, then oldest
    for (const int64_t cell_id : cells->second) {
      for (const auto& [sweep_id, position] : cells_.at(cell_id).places) {
        const SweepEntry& sweep = sweeps_.at(sweep_id);
        if (sweep.paused || NumQueued(sweep.places[static_cast<size_t>(position)]) == 0) continue;
        if (first == nullptr || std::tuple(-sweep.priority, sweep.sweep_id) <
                                    std::tuple(-first->priority, first->sweep_id)) {
          first = &sweep;
        }
      }
    }
    if (first != nullptr) job_queue_[-first->priority][first->owner].insert(job_id);
  }
}

std::optional<Scheduler::JobChoice> Scheduler::ChooseJobFor(const WorkerEntry& worker,
                                                            const SlotState& slot,
                                                            MonotonicTime now) {
  if (job_queue_stale_) RebuildJobQueue();
  for (const auto& [minus_priority, by_owner] : job_queue_) {
    std::vector<JobCandidate> candidates;
    std::vector<const std::string*> owners;
    for (const auto& [owner, jobs] : by_owner) {
      const auto job = std::ranges::find_if(jobs, [&](int64_t job_id) {
        const JobSpec& spec = jobs_.at(job_id).spec;
        return Fits(spec.need(), slot.info.shape()) && !IsBlocked(worker, spec.load, now);
      });
      if (job == jobs.end()) continue;
      candidates.push_back({*job, -minus_priority, ShareOf(owner)});
      owners.push_back(&owner);
    }
    if (const std::optional<size_t> best = ChooseJob(candidates)) {
      return JobChoice{candidates[*best], *owners[*best]};
    }
  }
  return std::nullopt;
}

void Scheduler::GrantJobTo(WorkerEntry& worker, SlotState& slot, const JobChoice& choice,
                           MonotonicTime now, Actions* actions) {
  const int64_t job_id = choice.job.job_id;
  JobEntry& job = jobs_.at(job_id);
  job.status = JobStatus::kLeased;
  job.worker_id = worker.worker_id;
  job.incarnation = worker.incarnation;
  job.slot_index = slot.info.index;
  job.last_active = now;
  slot.job_id = job_id;
  slot.load.reset();  // quantizing takes the place of what was loaded
  job_queue_.at(-choice.job.priority).at(choice.owner).erase(job_id);
  ChargeJob(job, choice.owner);
  owners_.at(choice.owner).last_served = ++num_turns_;
  actions->push_back(
      coordinator::GrantJob{job_id, worker.worker_id, worker.incarnation, slot.info.index});
}

// Cells -----------------------------------------------------------------------------------------

std::optional<Scheduler::CellChoice> Scheduler::ChooseCell(const WorkerEntry& worker,
                                                           const SlotState& slot,
                                                           MonotonicTime now) const {
  std::vector<SweepCandidate> candidates;
  for (const auto& [sweep_id, sweep] : sweeps_) {
    if (sweep.eligible.empty()) continue;
    candidates.push_back({sweep_id, sweep.priority, ShareOf(sweep.owner), sweep.num_charged,
                          sweep.last_served, HasLoaded(sweep, slot)});
  }
  const bool sticky = slot.load && now - slot.load_since < kStickinessCap;
  while (const std::optional<size_t> best = ChooseSweep(candidates, sticky)) {
    const SweepEntry& sweep = sweeps_.at(candidates[*best].sweep_id);
    const std::optional<int32_t> position = BestPosition(sweep, worker, slot, now);
    if (position) {
      const LoadId& load =
          cells_.at(sweep.places[static_cast<size_t>(*position)].cell_id).spec.load;
      // A slot finishes what it has before it loads another model.
      if (!slot.leases.empty() && load != *slot.load) return std::nullopt;
      return CellChoice{sweep.sweep_id, *position, sweep.priority};
    }
    candidates.erase(candidates.begin() + static_cast<std::ptrdiff_t>(*best));
  }
  return std::nullopt;
}

bool Scheduler::HasLoaded(const SweepEntry& sweep, const SlotState& slot) const {
  if (!slot.load) return false;
  const auto loaded = sweep.eligible_by_load.find(*slot.load);
  return loaded != sweep.eligible_by_load.end() &&
         std::ranges::any_of(loaded->second, [&](int32_t position) {
           const PlaceState& place = sweep.places[static_cast<size_t>(position)];
           return Fits(cells_.at(place.cell_id).need(), slot.info.shape());
         });
}

std::optional<int32_t> Scheduler::BestPosition(const SweepEntry& sweep, const WorkerEntry& worker,
                                               const SlotState& slot, MonotonicTime now) const {
  if (slot.load && !IsBlocked(worker, *slot.load, now)) {
    const auto loaded = sweep.eligible_by_load.find(*slot.load);
    if (loaded != sweep.eligible_by_load.end()) {
      for (const int32_t position : loaded->second) {
        const PlaceState& place = sweep.places[static_cast<size_t>(position)];
        if (!Fits(cells_.at(place.cell_id).need(), slot.info.shape())) continue;
        const auto num_suspects =
            static_cast<int64_t>(QueuedSuspects(cells_.at(place.cell_id), place).size());
        if (slot.leases.empty() || NumQueued(place) > num_suspects) return position;
      }
    }
  }
  std::optional<CellCandidate> best;
  for (const int32_t position : sweep.eligible) {
    const CellState& cell = cells_.at(sweep.places[static_cast<size_t>(position)].cell_id);
    const LoadId& load = cell.spec.load;
    if (slot.load == load || !Fits(cell.need(), slot.info.shape()) ||
        IsBlocked(worker, load, now)) {
      continue;
    }
    const CellCandidate candidate{position, NumSlotsOn(load)};
    if (!best || BetterCell(candidate, *best)) best = candidate;
    if (best->num_slots_on_load == 0) break;
  }
  if (!best) return std::nullopt;
  return best->position;
}

int32_t Scheduler::NumSlotsOn(const LoadId& load) const {
  const auto it = slots_on_load_.find(load);
  return it == slots_on_load_.end() ? 0 : it->second;
}

bool Scheduler::GrantCell(WorkerEntry& worker, SlotState& slot, const CellChoice& choice,
                          MonotonicTime now, Actions* actions) {
  SweepEntry& sweep = sweeps_.at(choice.sweep_id);
  PlaceState& place = sweep.places[static_cast<size_t>(choice.position)];
  CellState& cell = cells_.at(place.cell_id);
  LengthTable& lengths = Lengths(cell);

  std::vector<int32_t> picked;
  const std::vector<int32_t> suspects = QueuedSuspects(cell, place);
  const bool alone = slot.leases.empty() && !suspects.empty();
  if (alone) {
    picked = {suspects.front()};
  } else {
    const int32_t num_lanes = slot.status.num_running + slot.status.num_free_lanes;
    const int32_t num_others = NumSlotsOn(cell.spec.load) - (slot.leases.empty() ? 0 : 1);
    const int32_t size =
        LeaseSize(Allowance(num_lanes, slot.num_committed),
                  NumQueued(place) - static_cast<int64_t>(suspects.size()), num_others + 1);
    if (size == 0) return false;
    const std::vector<int32_t>& order = lengths.Order();
    picked = PickUnits(cell.units, order, lengths.version(), place.num_items, place.num_repeats,
                       cell.suspects, size, &place.cursor);
  }
  if (picked.empty()) return false;

  LeaseState lease;
  lease.lease_id = options_.lease_prefix + "-" + std::to_string(next_lease_number_);
  lease.cell_id = cell.spec.cell_id;
  lease.sweep_id = choice.sweep_id;
  sweep.last_served = next_lease_number_;
  owners_.at(sweep.owner).last_served = ++num_turns_;
  lease.worker_id = worker.worker_id;
  lease.incarnation = worker.incarnation;
  lease.slot_index = slot.info.index;
  lease.units.insert(picked.begin(), picked.end());
  lease.granted = now;
  lease.expires = now + options_.lease_ttl;
  lease.alone = alone;
  coordinator::GrantUnits grant{lease.lease_id,   lease.worker_id, lease.incarnation,
                                lease.slot_index, lease.cell_id,   {}};
  for (const int32_t index : picked) {
    grant.units.push_back({lease.cell_id, cell.units.ItemOf(index), cell.units.RepeatOf(index)});
  }
  actions->push_back(std::move(grant));
  AddLease(std::move(lease));
  return true;
}

}  // namespace assay::coordinator
