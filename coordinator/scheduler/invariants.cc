// The scheduler's own audit: every counter and link recomputed from the units.
#include <fmt/format.h>

#include <algorithm>

#include "coordinator/scheduler/scheduler.h"

namespace assay::coordinator {

std::string Scheduler::CheckInvariants() const {
  std::map<int64_t, int64_t> charged;  // by sweep
  std::map<std::pair<std::string, int32_t>, int32_t> committed;
  std::map<LoadId, std::set<std::pair<std::string, int32_t>>> slots_on_load;
  for (const auto& [number, lease] : leases_) {
    if (lease.units.empty()) return fmt::format("lease {} is open and empty", lease.lease_id);
    const auto cell = cells_.find(lease.cell_id);
    if (cell == cells_.end()) return fmt::format("lease {} of no cell", lease.lease_id);
    for (const int32_t index : lease.units) {
      const auto holder = cell->second.holder.find(index);
      if (holder == cell->second.holder.end() || holder->second != number) {
        return fmt::format("unit {} of lease {} is held by another", index, lease.lease_id);
      }
    }
    charged[lease.sweep_id] += static_cast<int64_t>(lease.units.size());
    committed[{lease.worker_id, lease.slot_index}] += static_cast<int32_t>(lease.units.size());
    slots_on_load[cell->second.spec.load].insert({lease.worker_id, lease.slot_index});
    const auto worker = workers_.find(lease.worker_id);
    if (worker == workers_.end() || worker->second.incarnation != lease.incarnation) {
      return fmt::format("lease {} of an incarnation that is gone", lease.lease_id);
    }
  }
  for (const auto& [worker_id, worker] : workers_) {
    for (const SlotState& slot : worker.slots) {
      const auto it = committed.find({worker_id, slot.info.index});
      const int32_t expected = it == committed.end() ? 0 : it->second;
      if (slot.num_committed != expected) {
        return fmt::format("slot {} of {} counts {} units, its leases {}", slot.info.index,
                           worker_id, slot.num_committed, expected);
      }
    }
  }
  for (const auto& [load, slots] : slots_on_load) {
    if (NumSlotsOn(load) != static_cast<int32_t>(slots.size())) return "slots on a load miscounted";
  }
  if (slots_on_load.size() != slots_on_load_.size()) return "a load without leases is counted";

  std::set<SlotShape> shapes;
  for (const auto& [worker_id, worker] : workers_) {
    for (const SlotState& slot : worker.slots) {
      if (TakesWork(worker)) shapes.insert(slot.info.shape());
    }
  }
  for (const auto& [cell_id, cell] : cells_) {
    const bool placeable =
        shapes.empty() || std::ranges::any_of(shapes, [&cell = cell](const auto& shape) {
          return Fits(cell.need(), shape);
        });
    if (!fleet_stale_ && cell.placeable != placeable) {
      return fmt::format("cell {}: whether a slot holds it is stale", cell_id);
    }
    for (int32_t index = 0; index < cell.units.num_units(); ++index) {
      const bool leased = cell.units.Get(index) == UnitStatus::kLeased;
      const auto holder = cell.holder.find(index);
      if (leased != (holder != cell.holder.end())) {
        return fmt::format("unit {} of cell {}: state and holder disagree", index, cell_id);
      }
      if (leased && !leases_.contains(holder->second)) {
        return fmt::format("unit {} of cell {} is held by no open lease", index, cell_id);
      }
    }
  }
  for (const auto& [sweep_id, sweep] : sweeps_) {
    UnitCounts total{};
    int64_t num_open = 0;
    for (size_t i = 0; i < sweep.places.size(); ++i) {
      const PlaceState& place = sweep.places[i];
      const CellState& cell = cells_.at(place.cell_id);
      UnitCounts counts{};
      for (int32_t repeat = 0; repeat < place.num_repeats; ++repeat) {
        for (int32_t item = 0; item < place.num_items; ++item) {
          ++counts[static_cast<size_t>(cell.units.Get(cell.units.IndexOf(item, repeat)))];
        }
      }
      if (counts != place.counts) {
        return fmt::format("sweep {} counts cell {} wrongly", sweep_id, place.cell_id);
      }
      for (size_t j = 0; j < counts.size(); ++j) total[j] += counts[j];
      num_open += place.open ? 1 : 0;
      const bool eligible = !sweep.paused && cell.runnable() && cell.placeable &&
                            counts[static_cast<size_t>(UnitStatus::kQueued)] > 0;
      if (eligible != sweep.eligible.contains(static_cast<int32_t>(i))) {
        return fmt::format("sweep {}: eligibility of cell {} is stale", sweep_id, place.cell_id);
      }
    }
    if (total != sweep.counts) return fmt::format("sweep {} totals are wrong", sweep_id);
    if (num_open != sweep.num_open_places) return fmt::format("sweep {} open places", sweep_id);
    if (num_open == 0) return fmt::format("sweep {} has ended and is still here", sweep_id);
    if (charged[sweep_id] != sweep.num_charged) {
      return fmt::format("sweep {} is charged {} units, its leases hold {}", sweep_id,
                         sweep.num_charged, charged[sweep_id]);
    }
  }
  std::map<std::string, OwnerEntry> owners;
  for (const auto& [sweep_id, sweep] : sweeps_) {
    ++owners[sweep.owner].num_sweeps;
    owners[sweep.owner].num_charged += sweep.num_charged;
  }
  for (const auto& [job_id, job] : jobs_) {
    if (job.owner && job.status != JobStatus::kLeased) return "a job that waits is charged";
    if (job.owner) ++owners[*job.owner].num_jobs;
  }
  if (owners.size() != owners_.size()) return "an owner of nothing is kept";
  for (const auto& [name, owner] : owners) {
    const auto it = owners_.find(name);
    if (it == owners_.end() || it->second.num_sweeps != owner.num_sweeps ||
        it->second.num_charged != owner.num_charged || it->second.num_jobs != owner.num_jobs) {
      return fmt::format("the share of owner '{}' is wrong", name);
    }
  }
  return {};
}

}  // namespace assay::coordinator
