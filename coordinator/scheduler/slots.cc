// The fleet as places for cells: which needs some slot can hold, and who is told when none can.
#include "coordinator/scheduler/scheduler.h"

namespace assay::coordinator {

bool Scheduler::TakesWork(const WorkerEntry& worker) {
  return worker.known && worker.online && !worker.draining && !worker.drain_ordered;
}

void Scheduler::AddNeed(CellState& cell) {
  const auto [it, is_new] = needs_.try_emplace(cell.need());
  if (is_new) it->second.why_not = WhyNoSlotFits(it->first, shapes_);
  it->second.cells.insert(cell.spec.cell_id);
  cell.placeable = IsPlaceable(it->second);
}

void Scheduler::DropNeed(const CellState& cell) {
  const auto it = needs_.find(cell.need());
  it->second.cells.erase(cell.spec.cell_id);
  if (it->second.cells.empty()) needs_.erase(it);
}

// Without any slot nothing can be granted anyway: cells then wait for a worker, not for a larger
// one.
bool Scheduler::IsPlaceable(const NeedEntry& need) const {
  return shapes_.empty() || need.why_not.empty();
}

std::string Scheduler::WhyNoSlot(int64_t cell_id) const {
  const CellState& cell = cells_.at(cell_id);
  const std::string& why_not = needs_.at(cell.need()).why_not;
  if (!why_not.empty() || cell.spec.artifact != ArtifactStatus::kMissing) return why_not;
  const std::string job =
      WhyNoSlotFits(JobSpec{0, cell.spec.load, cell.spec.artifact_need_bytes}.need(), shapes_);
  return job.empty() ? job : "quantizing " + job;
}

void Scheduler::RefreshFleet() {
  if (!std::exchange(fleet_stale_, false)) return;
  std::set<SlotShape> shapes;
  for (const auto& [worker_id, worker] : workers_) {
    if (!TakesWork(worker)) continue;
    for (const SlotState& slot : worker.slots) shapes.insert(slot.info.shape());
  }
  if (shapes == shapes_) return;
  shapes_ = std::move(shapes);
  for (auto& [need, entry] : needs_) {
    entry.why_not = WhyNoSlotFits(need, shapes_);
    const bool placeable = IsPlaceable(entry);
    for (const int64_t cell_id : entry.cells) {
      CellState& cell = cells_.at(cell_id);
      if (cell.placeable == placeable) continue;
      cell.placeable = placeable;
      RefreshCell(cell);
    }
  }
  waiting_stale_ = true;
  job_queue_stale_ = true;
}

void Scheduler::TellWaiting(Actions* actions) {
  if (!std::exchange(waiting_stale_, false) || shapes_.empty()) return;
  for (auto& [sweep_id, sweep] : sweeps_) {
    std::map<std::string, CellsWait> waits;  // by reason
    for (const PlaceState& place : sweep.places) {
      if (sweep.paused || place.counts[static_cast<size_t>(UnitStatus::kQueued)] == 0) continue;
      const std::string reason = WhyNoSlot(place.cell_id);
      if (reason.empty()) continue;
      const auto it =
          waits.try_emplace(reason, CellsWait{sweep_id, place.cell_id, 0, reason}).first;
      ++it->second.num_cells;
    }
    std::erase_if(sweep.told_to_wait,
                  [&](const std::string& reason) { return !waits.contains(reason); });
    for (const auto& [reason, wait] : waits) {
      if (sweep.told_to_wait.insert(reason).second) actions->push_back(wait);
    }
  }
}

}  // namespace assay::coordinator
