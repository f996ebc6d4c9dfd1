// Cells, sweeps, units and jobs; leases are in leases.cc, grants in assign.cc.
#include "coordinator/scheduler/scheduler.h"

#include <algorithm>

#include "base/status.h"
#include "coordinator/scheduler/failure_policy.h"

namespace assay::coordinator {

// What exists -----------------------------------------------------------------------------------

void Scheduler::AddCell(const CellSpec& spec) {
  ASSAY_CHECK(spec.num_items > 0, "cell {} has no items", spec.cell_id);
  const auto [it, inserted] =
      cells_.try_emplace(spec.cell_id, CellState{.spec = spec, .units = UnitTable(spec.num_items)});
  ASSAY_CHECK(inserted, "cell {} is known already", spec.cell_id);
  AddNeed(it->second);
  if (spec.load.artifact_id != 0) cells_of_artifact_[spec.load.artifact_id].insert(spec.cell_id);
}

void Scheduler::RestoreUnit(const UnitId& unit, UnitStatus status, int32_t num_failures) {
  CellState& cell = cells_.at(unit.cell_id);
  cell.units.Grow(unit.repeat + 1);
  const int32_t index = cell.units.IndexOf(unit.item_index, unit.repeat);
  cell.units.Set(index, status);
  if (num_failures > 0 && status != UnitStatus::kDone) cell.suspects.insert(index);
}

void Scheduler::RestoreCellTotals(int64_t cell_id, int64_t num_samples, int64_t num_correct,
                                  int64_t completion_tokens, int64_t num_rerolls) {
  CellState& cell = cells_.at(cell_id);
  cell.num_samples = num_samples;
  cell.num_correct = num_correct;
  cell.completion_tokens = completion_tokens;
  cell.num_rerolls = num_rerolls;
}

void Scheduler::SeedLengths(int64_t model_id, int64_t benchmark_id, int32_t num_items,
                            const std::vector<double>& mean_tokens) {
  lengths_.try_emplace({model_id, benchmark_id}, num_items).first->second.Seed(mean_tokens);
}

void Scheduler::AddJob(const JobSpec& spec) {
  jobs_.try_emplace(spec.job_id, JobEntry{.spec = spec});
  job_queue_stale_ = true;
  work_arrived_ = true;
}

void Scheduler::AddSweep(const ScheduledSweep& spec, Actions* actions) {
  const auto [it, inserted] = sweeps_.try_emplace(spec.sweep_id);
  ASSAY_CHECK(inserted, "sweep {} is known already", spec.sweep_id);
  SweepEntry& sweep = it->second;
  sweep.sweep_id = spec.sweep_id;
  sweep.priority = spec.priority;
  sweep.paused = spec.paused;
  sweep.owner = spec.owner;
  ++owners_[spec.owner].num_sweeps;
  sweep.places.reserve(spec.cells.size());
  for (const SweepPlace& wanted : spec.cells) {
    CellState& cell = cells_.at(wanted.cell_id);
    cell.units.Grow(wanted.num_repeats);
    const auto position = static_cast<int32_t>(sweep.places.size());
    PlaceState& place = sweep.places.emplace_back();
    place.cell_id = wanted.cell_id;
    place.num_repeats = wanted.num_repeats;
    place.num_items = std::min(wanted.num_items, cell.spec.num_items);
    for (int32_t repeat = 0; repeat < place.num_repeats; ++repeat) {
      for (int32_t item = 0; item < place.num_items; ++item) {
        const UnitStatus status = cell.units.Get(cell.units.IndexOf(item, repeat));
        ++place.counts[static_cast<size_t>(status)];
      }
    }
    for (size_t i = 0; i < place.counts.size(); ++i) sweep.counts[i] += place.counts[i];
    ++sweep.num_open_places;
    cell.places.emplace_back(spec.sweep_id, position);
    RefreshPlace(sweep, position);
    ChargeOrphans(cell);
  }
  dirty_sweeps_.insert(spec.sweep_id);
  job_queue_stale_ = true;
  waiting_stale_ = true;
  work_arrived_ = true;
  SettleDirty(actions);
}

// People ----------------------------------------------------------------------------------------

void Scheduler::PauseSweep(int64_t sweep_id, Actions* actions) {
  const auto it = sweeps_.find(sweep_id);
  if (it == sweeps_.end() || it->second.paused) return;
  it->second.paused = true;
  for (size_t i = 0; i < it->second.places.size(); ++i) {
    RefreshPlace(it->second, static_cast<int32_t>(i));
  }
  for (const PlaceState& place : it->second.places) RevokeUnwanted(place.cell_id, actions);
  job_queue_stale_ = true;
  SettleDirty(actions);
}

void Scheduler::ResumeSweep(int64_t sweep_id, Actions* actions) {
  const auto it = sweeps_.find(sweep_id);
  if (it == sweeps_.end() || !it->second.paused) return;
  it->second.paused = false;
  for (size_t i = 0; i < it->second.places.size(); ++i) {
    RefreshPlace(it->second, static_cast<int32_t>(i));
  }
  job_queue_stale_ = true;
  waiting_stale_ = true;
  work_arrived_ = true;
  SettleDirty(actions);
}

void Scheduler::CancelSweep(int64_t sweep_id, Actions* actions) {
  if (!sweeps_.contains(sweep_id)) return;
  ForgetSweep(sweep_id, actions);
  SettleDirty(actions);
}

void Scheduler::RequeueUnit(const UnitId& unit) {
  const auto it = cells_.find(unit.cell_id);
  if (it == cells_.end() || !it->second.units.Contains(unit.item_index, unit.repeat)) return;
  CellState& cell = it->second;
  const int32_t index = cell.units.IndexOf(unit.item_index, unit.repeat);
  if (cell.holder.contains(index)) return;
  cell.suspects.erase(index);
  cell.failures_alone.erase(index);
  MoveUnit(cell, index, UnitStatus::kQueued);
}

void Scheduler::ForgiveArtifact(int64_t artifact_id) {
  SetArtifact(artifact_id, ArtifactStatus::kMissing, "");
  job_queue_stale_ = true;
}

// Jobs ------------------------------------------------------------------------------------------

void Scheduler::OnJobDone(int64_t job_id, int64_t artifact_id, Actions* actions) {
  const auto it = jobs_.find(job_id);
  if (it != jobs_.end()) {
    FreeJobSlot(it->second);
    UnchargeJob(it->second);
    jobs_.erase(it);
  }
  job_queue_stale_ = true;
  SetArtifact(artifact_id, ArtifactStatus::kReady, "");
  SettleDirty(actions);
}

bool Scheduler::WouldGiveUp(int64_t job_id, bool infrastructure) const {
  const auto it = jobs_.find(job_id);
  const int32_t num_before = it == jobs_.end() ? 0 : it->second.num_infrastructure_failures;
  return GiveUpJob(infrastructure, num_before + 1);
}

void Scheduler::OnJobFailed(int64_t job_id, int64_t artifact_id, bool give_up,
                            const std::string& error, MonotonicTime now, Actions* actions) {
  const auto it = jobs_.find(job_id);
  if (it != jobs_.end()) {
    FreeJobSlot(it->second);
    UnchargeJob(it->second);
  }
  if (give_up) {
    if (it != jobs_.end()) jobs_.erase(it);
    SetArtifact(artifact_id, ArtifactStatus::kFailed, error);
  } else if (it != jobs_.end()) {
    JobEntry& job = it->second;
    const auto worker = workers_.find(job.worker_id);
    if (worker != workers_.end()) Block(worker->second, job.spec.load, now);
    ++job.num_infrastructure_failures;
    job.status = JobStatus::kQueued;
    job.worker_id.clear();
    job.incarnation.clear();
    work_arrived_ = true;
  }
  job_queue_stale_ = true;
  SettleDirty(actions);
}

void Scheduler::CountReroll(int64_t cell_id) {
  const auto it = cells_.find(cell_id);
  if (it != cells_.end()) ++it->second.num_rerolls;
}

// Reading ---------------------------------------------------------------------------------------

int64_t Scheduler::ExpectedTokens(const UnitId& unit) const {
  const auto cell = cells_.find(unit.cell_id);
  if (cell == cells_.end()) return 0;
  const auto lengths =
      lengths_.find({cell->second.spec.load.model_id, cell->second.spec.benchmark_id});
  return lengths == lengths_.end() ? 0 : lengths->second.Expected(unit.item_index);
}

double Scheduler::MeanTokens(int64_t cell_id) const {
  const CellState& cell = cells_.at(cell_id);
  // A cell that collapses runs to the limit and has little in common with its baseline: its own
  // first samples say more.
  constexpr int64_t kEnough = 8;
  if (cell.num_samples >= kEnough) {
    return static_cast<double>(cell.completion_tokens) / static_cast<double>(cell.num_samples);
  }
  const auto lengths = lengths_.find({cell.spec.load.model_id, cell.spec.benchmark_id});
  if (lengths != lengths_.end() && lengths->second.MeanTokens() > 0) {
    return lengths->second.MeanTokens();
  }
  // Nothing is known: answers that stop by themselves use about a quarter of a sensible limit.
  return static_cast<double>(cell.spec.max_tokens) / 4;
}

// Units and sweeps ------------------------------------------------------------------------------

void Scheduler::MoveUnit(CellState& cell, int32_t index, UnitStatus to) {
  const UnitStatus from = cell.units.Get(index);
  if (from == to) return;
  cell.units.Set(index, to);
  const int32_t item = cell.units.ItemOf(index);
  const int32_t repeat = cell.units.RepeatOf(index);
  for (const auto& [sweep_id, position] : cell.places) {
    SweepEntry& sweep = sweeps_.at(sweep_id);
    PlaceState& place = sweep.places[static_cast<size_t>(position)];
    if (!place.Wants(item, repeat)) continue;
    --place.counts[static_cast<size_t>(from)];
    ++place.counts[static_cast<size_t>(to)];
    --sweep.counts[static_cast<size_t>(from)];
    ++sweep.counts[static_cast<size_t>(to)];
    if (to == UnitStatus::kQueued) {
      place.cursor.position = 0;
      work_arrived_ = true;
    }
    RefreshPlace(sweep, position);
  }
}

void Scheduler::RefreshPlace(SweepEntry& sweep, int32_t position) {
  PlaceState& place = sweep.places[static_cast<size_t>(position)];
  const CellState& cell = cells_.at(place.cell_id);
  const int64_t num_queued = place.counts[static_cast<size_t>(UnitStatus::kQueued)];
  const int64_t num_leased = place.counts[static_cast<size_t>(UnitStatus::kLeased)];
  const LoadId& load = cell.spec.load;
  if (!sweep.paused && cell.runnable() && cell.placeable && num_queued > 0) {
    if (sweep.eligible.insert(position).second) {
      sweep.eligible_by_load[load].insert(position);
      work_arrived_ = true;
    }
  } else if (sweep.eligible.erase(position) > 0) {
    const auto of_load = sweep.eligible_by_load.find(load);
    of_load->second.erase(position);
    if (of_load->second.empty()) sweep.eligible_by_load.erase(of_load);
  }
  const bool open = num_leased > 0 || (num_queued > 0 && !cell.failed());
  if (open == place.open) return;
  place.open = open;
  sweep.num_open_places += open ? 1 : -1;
  if (!open) {
    const bool failed = place.counts[static_cast<size_t>(UnitStatus::kDone)] < place.num_units();
    settled_cells_.push_back({sweep.sweep_id, place.cell_id, failed});
    dirty_sweeps_.insert(sweep.sweep_id);
  }
}

void Scheduler::RefreshCell(CellState& cell) {
  for (const auto& [sweep_id, position] : cell.places) {
    RefreshPlace(sweeps_.at(sweep_id), position);
  }
}

void Scheduler::SettleDirty(Actions* actions) {
  for (const SettleCell& cell : settled_cells_) actions->push_back(cell);
  settled_cells_.clear();
  // Forgetting a sweep ends no place of another one, so nothing new gets dirty meanwhile.
  const std::set<int64_t> dirty = std::move(dirty_sweeps_);
  dirty_sweeps_.clear();
  for (const int64_t sweep_id : dirty) {
    const auto it = sweeps_.find(sweep_id);
    if (it == sweeps_.end() || it->second.num_open_places > 0) continue;
    int64_t num_units = 0;
    for (const int64_t count : it->second.counts) num_units += count;
    const bool failed = it->second.counts[static_cast<size_t>(UnitStatus::kDone)] < num_units;
    actions->push_back(coordinator::SettleSweep{sweep_id, failed});
    ForgetSweep(sweep_id, actions);
  }
}

void Scheduler::ForgetSweep(int64_t sweep_id, Actions* actions) {
  const auto it = sweeps_.find(sweep_id);
  const SweepEntry sweep = std::move(it->second);
  for (const PlaceState& place : sweep.places) {
    CellState& cell = cells_.at(place.cell_id);
    std::erase_if(cell.places, [&](const auto& entry) { return entry.first == sweep_id; });
  }
  OwnerEntry& owner = owners_.at(sweep.owner);
  --owner.num_sweeps;
  owner.num_charged -= sweep.num_charged;
  DropOwnerIfUnused(sweep.owner);
  sweeps_.erase(it);
  dirty_sweeps_.erase(sweep_id);
  job_queue_stale_ = true;
  for (const PlaceState& place : sweep.places) {
    RevokeUnwanted(place.cell_id, actions);
    DropCellIfUnused(place.cell_id);
  }
}

void Scheduler::DropCellIfUnused(int64_t cell_id) {
  const auto it = cells_.find(cell_id);
  if (it == cells_.end() || !it->second.places.empty()) return;
  const int64_t artifact_id = it->second.spec.load.artifact_id;
  DropNeed(it->second);
  cells_.erase(it);
  if (artifact_id == 0) return;
  std::set<int64_t>& sharers = cells_of_artifact_[artifact_id];
  sharers.erase(cell_id);
  if (!sharers.empty()) return;
  cells_of_artifact_.erase(artifact_id);
  // A job in progress runs to its end, for the artifact may be wanted again.
  std::erase_if(jobs_, [&](const auto& entry) {
    return entry.second.spec.load.artifact_id == artifact_id &&
           entry.second.status == JobStatus::kQueued;
  });
}

bool Scheduler::WantedByActive(const CellState& cell, int32_t index) const {
  const int32_t item = cell.units.ItemOf(index);
  const int32_t repeat = cell.units.RepeatOf(index);
  return std::any_of(cell.places.begin(), cell.places.end(), [&](const auto& entry) {
    const SweepEntry& sweep = sweeps_.at(entry.first);
    return !sweep.paused && sweep.places[static_cast<size_t>(entry.second)].Wants(item, repeat);
  });
}

void Scheduler::SetArtifact(int64_t artifact_id, ArtifactStatus status, const std::string& error) {
  const auto it = cells_of_artifact_.find(artifact_id);
  if (it == cells_of_artifact_.end()) return;
  for (const int64_t cell_id : it->second) {
    CellState& cell = cells_.at(cell_id);
    cell.spec.artifact = status;
    cell.last_error = error;
    RefreshCell(cell);
  }
}

void Scheduler::ChargeOrphans(const CellState& cell) {
  if (cell.places.empty()) return;
  std::set<int64_t> numbers;
  for (const auto& [index, number] : cell.holder) numbers.insert(number);
  for (const int64_t number : numbers) {
    LeaseState& lease = leases_.at(number);
    if (sweeps_.contains(lease.sweep_id)) continue;
    lease.sweep_id = cell.places.front().first;
    Charge(lease.sweep_id, static_cast<int64_t>(lease.units.size()));
  }
}

// Shares ----------------------------------------------------------------------------------------

void Scheduler::Charge(int64_t sweep_id, int64_t num_units) {
  const auto sweep = sweeps_.find(sweep_id);
  if (sweep == sweeps_.end()) return;
  sweep->second.num_charged += num_units;
  owners_.at(sweep->second.owner).num_charged += num_units;
}

void Scheduler::ChargeJob(JobEntry& job, const std::string& owner) {
  job.owner = owner;
  ++owners_[owner].num_jobs;
}

void Scheduler::UnchargeJob(JobEntry& job) {
  const std::optional<std::string> owner = std::exchange(job.owner, std::nullopt);
  if (!owner) return;
  --owners_.at(*owner).num_jobs;
  DropOwnerIfUnused(*owner);
}

void Scheduler::DropOwnerIfUnused(const std::string& owner) {
  const auto it = owners_.find(owner);
  if (it->second.num_sweeps == 0 && it->second.num_jobs == 0) owners_.erase(it);
}

OwnerShare Scheduler::ShareOf(const std::string& owner) const {
  const auto it = owners_.find(owner);
  if (it == owners_.end()) return {};
  return {it->second.num_charged + kUnitsOfAJob * it->second.num_jobs, it->second.last_served};
}

LengthTable& Scheduler::Lengths(const CellState& cell) {
  // Cells of one benchmark version have the same items.
  return lengths_
      .try_emplace({cell.spec.load.model_id, cell.spec.benchmark_id}, cell.spec.num_items)
      .first->second;
}

}  // namespace assay::coordinator
