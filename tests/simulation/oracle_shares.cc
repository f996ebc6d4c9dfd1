// Who gets what: priority, shares of owners and sweeps, slots that hold what they are given, and
// people who stop a sweep.
#include <fmt/format.h>

#include <algorithm>

#include "coordinator/scheduler/cell_policy.h"
#include "coordinator/scheduler/slot_policy.h"
#include "storage/sqlite/statement.h"
#include "tests/simulation/oracle.h"

namespace assay::simulation {

using coordinator::CellState;
using coordinator::GrantMessage;
using coordinator::JobMessage;
using coordinator::LeaseState;
using coordinator::OutgoingMessage;
using coordinator::RevokeMessage;
using coordinator::Scheduler;
using coordinator::SlotShape;
using coordinator::SweepEntry;
using coordinator::UnitStatus;
using storage::sqlite::Row;

namespace {

int64_t CountOf(const coordinator::PlaceState& place, UnitStatus status) {
  return place.counts[static_cast<size_t>(status)];
}

// Whether cells of this arithmetic would be refused by the slot's runner; a job has none.
bool IsOther(const std::string& numerics, const SlotShape& slot) {
  return !numerics.empty() && !slot.numerics_version.empty() && numerics != slot.numerics_version;
}

}  // namespace

// The scheduler's Fits is not asked: a bug in it would hide itself.
void Oracle::CheckSlots(const std::vector<OutgoingMessage>& messages) {
  const auto check = [&](const std::string& worker_id, int32_t slot_index, int32_t gang,
                         int64_t bytes, int64_t cpu_bytes, const std::string& numerics,
                         const std::string& what) {
    const SlotShape& slot = slots_.at(worker_id).at(static_cast<size_t>(slot_index));
    const int64_t need = slot.is_cpu ? cpu_bytes : bytes;
    if (gang != slot.tensor_parallel_size) {
      Fail(fmt::format("{} for a gang of {} goes to {}, which has {}", what, gang, worker_id,
                       slot.tensor_parallel_size));
    }
    if (IsOther(numerics, slot)) {
      Fail(fmt::format("{} for {} goes to {}, which computes {}", what, numerics, worker_id,
                       slot.numerics_version));
    }
    if (slot.memory_bytes != 0 && need > slot.memory_bytes) {
      Fail(fmt::format("{} needs {} bytes and goes to {}, which has {}", what, need, worker_id,
                       slot.memory_bytes));
    }
  };
  for (const OutgoingMessage& message : messages) {
    if (const auto* grant = std::get_if<GrantMessage>(&message.body)) {
      const storage::CellRecord& cell = grant->cell->cell;
      check(message.worker_id, grant->slot_index, cell.tensor_parallel_size, cell.memory_need_bytes,
            cell.cpu_memory_need_bytes, cell.engine_numerics_version, "lease " + grant->lease_id);
    } else if (const auto* job = std::get_if<JobMessage>(&message.body)) {
      check(message.worker_id, job->slot_index, job->cell->cell.tensor_parallel_size,
            job->cell->artifact->memory_need_bytes, 0, "", fmt::format("job {}", job->job_id));
    }
  }
}

// Whether the slot could have been given units of the sweep.
bool Oracle::HasWorkFor(const Scheduler& scheduler, const SweepEntry& sweep,
                        const LeaseState& instead_of) const {
  const coordinator::WorkerEntry& worker = scheduler.workers().at(instead_of.worker_id);
  const SlotShape& slot =
      slots_.at(instead_of.worker_id).at(static_cast<size_t>(instead_of.slot_index));
  return std::ranges::any_of(sweep.eligible, [&](int32_t position) {
    const coordinator::PlaceState& place = sweep.places[static_cast<size_t>(position)];
    const CellState& cell = scheduler.cells().at(place.cell_id);
    if (cell.spec.load.tensor_parallel_size != slot.tensor_parallel_size) return false;
    if (IsOther(cell.spec.numerics_version, slot)) return false;
    const int64_t need =
        slot.is_cpu ? cell.spec.cpu_memory_need_bytes : cell.spec.memory_need_bytes;
    if (slot.memory_bytes != 0 && need > slot.memory_bytes) return false;
    const auto blocked = worker.blocked.find(cell.spec.load);
    if (blocked != worker.blocked.end() && blocked->second.until > instead_of.granted) return false;
    const auto num_suspects = std::ranges::count_if(
        cell.suspects, [&](int32_t index) { return cell.units.Get(index) == UnitStatus::kQueued; });
    return CountOf(place, UnitStatus::kQueued) > num_suspects;
  });
}

// A slot that takes on something new takes it from the sweeps of the highest priority that have
// work for it; of those from an owner with the fewest units in flight, and of hers from a sweep
// with the fewest. Eligible after a batch means eligible when it was decided, and shares only grow
// while slots are filled: what this asks for is the least that must hold.
void Oracle::CheckShares(const Scheduler& scheduler, const std::vector<OutgoingMessage>& messages) {
  std::map<int64_t, int64_t> granted;            // by sweep, in this batch
  std::map<std::string, int64_t> owner_granted;  // with jobs
  for (const OutgoingMessage& message : messages) {
    if (const auto* job = std::get_if<JobMessage>(&message.body)) {
      const auto entry = scheduler.jobs().find(job->job_id);
      if (entry != scheduler.jobs().end() && entry->second.owner) {
        owner_granted[*entry->second.owner] += coordinator::kUnitsOfAJob;
      }
    }
    const auto* const grant = std::get_if<GrantMessage>(&message.body);
    const auto* const lease = grant == nullptr ? nullptr : scheduler.FindLease(grant->lease_id);
    if (lease == nullptr || !scheduler.sweeps().contains(lease->sweep_id)) continue;
    granted[lease->sweep_id] += static_cast<int64_t>(grant->units.size());
    owner_granted[scheduler.sweeps().at(lease->sweep_id).owner] +=
        static_cast<int64_t>(grant->units.size());
  }
  std::map<std::string, int64_t> shares;  // of owners, counted here from leases and jobs
  for (const auto& [number, lease] : scheduler.leases()) {
    const auto sweep = scheduler.sweeps().find(lease.sweep_id);
    if (sweep != scheduler.sweeps().end()) {
      shares[sweep->second.owner] += static_cast<int64_t>(lease.units.size());
    }
  }
  for (const auto& [job_id, job] : scheduler.jobs()) {
    if (job.owner) shares[*job.owner] += coordinator::kUnitsOfAJob;
  }
  std::set<std::pair<std::string, int32_t>> filled;  // slots
  for (const OutgoingMessage& message : messages) {
    const auto* const grant = std::get_if<GrantMessage>(&message.body);
    if (grant == nullptr) continue;
    const LeaseState* const lease = scheduler.FindLease(grant->lease_id);
    if (lease == nullptr || !scheduler.sweeps().contains(lease->sweep_id)) continue;
    const SweepEntry& served = scheduler.sweeps().at(lease->sweep_id);
    const auto& slot =
        scheduler.workers().at(lease->worker_id).slots.at(static_cast<size_t>(lease->slot_index));
    // The first grant decided what to load; a further one stays with it.
    const bool is_first = filled.emplace(lease->worker_id, lease->slot_index).second;
    const bool just_loaded = is_first && slot.load_since == lease->granted;
    const bool sticky =
        !just_loaded && lease->granted - slot.load_since < coordinator::kStickinessCap;
    for (const auto& [sweep_id, sweep] : scheduler.sweeps()) {
      if (sweep_id == lease->sweep_id || sweep.priority < served.priority ||
          !HasWorkFor(scheduler, sweep, *lease)) {
        continue;
      }
      if (sweep.priority > served.priority) {
        return Fail(fmt::format("lease {} serves sweep {} while sweep {} of higher priority waits",
                                lease->lease_id, lease->sweep_id, sweep_id));
      }
      if (sticky) continue;
      const bool same_owner = sweep.owner == served.owner;
      const int64_t had = same_owner ? served.num_charged - granted[lease->sweep_id]
                                     : shares[served.owner] - owner_granted[served.owner];
      const int64_t other_has = same_owner ? sweep.num_charged : shares[sweep.owner];
      if (had > other_has) {
        return Fail(fmt::format("lease {} gives {} {} more than {} units while {} {} has {}",
                                lease->lease_id, same_owner ? "sweep" : "owner",
                                same_owner ? std::to_string(lease->sweep_id) : served.owner, had,
                                same_owner ? "sweep" : "owner",
                                same_owner ? std::to_string(sweep_id) : sweep.owner, other_has));
      }
    }
  }
}

// Paused in the database is paused in memory; what only paused or cancelled sweeps want is with
// nobody; and a worker that still lists such a lease is told again, whatever it missed before.
void Oracle::CheckStopped(const Scheduler& scheduler,
                          const std::vector<OutgoingMessage>& messages) {
  for (const auto& [number, lease] : scheduler.leases()) {
    const auto places = places_.find(lease.cell_id);
    const auto& units = scheduler.cells().at(lease.cell_id).units;
    for (const int32_t index : lease.units) {
      const bool wanted =
          places != places_.end() && std::ranges::any_of(places->second, [&](const Place& place) {
            return !place.cancelled && !place.paused && units.ItemOf(index) < place.num_items &&
                   units.RepeatOf(index) < place.num_repeats;
          });
      if (wanted) continue;
      return Fail(fmt::format("lease {} holds {}, which no active sweep wants", lease.lease_id,
                              Name({lease.cell_id, units.ItemOf(index), units.RepeatOf(index)})));
    }
  }
  for (const auto& entry : batch_foreign_) {
    const std::string& worker_id = entry.first;
    const std::string& lease_id = entry.second;
    const bool told = std::ranges::any_of(messages, [&](const OutgoingMessage& message) {
      const auto* const revoke = std::get_if<RevokeMessage>(&message.body);
      return revoke != nullptr && message.worker_id == worker_id && revoke->lease_id == lease_id &&
             revoke->units.empty();
    });
    if (!told) return Fail(fmt::format("{} goes on with lease {}, untold", worker_id, lease_id));
  }
}

void Oracle::CheckSweepsInMemory(const Scheduler& scheduler) {
  auto statement = reader_->Prepare("SELECT id, state = 2 FROM sweep WHERE state <= 2 ORDER BY id");
  if (!statement.ok()) return Fail("sweeps cannot be read");
  std::map<int64_t, bool> paused;
  while (statement->Step().value_or(false)) {
    int64_t id = 0;
    bool is_paused = false;
    Row(*statement).Read(&id, &is_paused);
    paused[id] = is_paused;
  }
  if (paused.size() != scheduler.sweeps().size()) Fail("a sweep is live in one place only");
  for (const auto& [sweep_id, sweep] : scheduler.sweeps()) {
    const auto row = paused.find(sweep_id);
    if (row == paused.end() || row->second != sweep.paused) {
      return Fail(fmt::format("sweep {} is paused in memory or in the database only", sweep_id));
    }
  }
}

}  // namespace assay::simulation
