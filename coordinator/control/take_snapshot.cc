// The present as people see it.
#include "coordinator/control/control_plane.h"

namespace assay::coordinator {
namespace {

int64_t Count(const UnitCounts& counts, UnitStatus status) {
  return counts[static_cast<size_t>(status)];
}

LiveCell MakeCell(const PlaceState& place, const CellState& cell,
                  std::shared_ptr<const CellContext> context) {
  LiveCell live;
  live.context = std::move(context);
  live.num_repeats = place.num_repeats;
  live.num_items = place.num_items;
  live.num_queued = Count(place.counts, UnitStatus::kQueued);
  live.num_running = Count(place.counts, UnitStatus::kLeased);
  live.num_done = Count(place.counts, UnitStatus::kDone);
  live.num_quarantined = Count(place.counts, UnitStatus::kQuarantined);
  live.num_correct = cell.num_correct;
  live.tokens_done = cell.completion_tokens;
  live.num_rerolls = cell.num_rerolls;
  live.waits_for_artifact = cell.spec.artifact == ArtifactStatus::kMissing;
  live.artifact_failed = cell.failed();
  live.error = cell.last_error;
  return live;
}

LiveWorker MakeWorker(const WorkerEntry& worker, MonotonicTime now) {
  LiveWorker live;
  live.worker_id = worker.worker_id;
  live.incarnation = worker.incarnation;
  live.version = worker.version;
  live.device = worker.device;
  live.online = worker.known && worker.online;
  live.draining = worker.draining || worker.drain_ordered;
  live.silent_us = absl::ToInt64Microseconds(now - worker.last_seen);
  for (const SlotState& slot : worker.slots) {
    live.slots.push_back(slot.info);
    live.slot_states.push_back(slot.status);
    live.num_leases += static_cast<int32_t>(slot.leases.size());
    live.num_units += slot.num_committed;
    if (live.online) live.tokens_per_s += slot.status.tokens_per_s;
  }
  live.num_samples = worker.num_samples;
  return live;
}

}  // namespace

LiveSnapshot ControlPlane::TakeSnapshot() {
  const MonotonicTime now = clock_->Monotonic();
  LiveSnapshot snapshot;
  snapshot.taken = now;
  // A slot works for the sweep of its oldest lease.
  std::map<int64_t, double> tokens_per_s;  // by sweep
  for (const auto& [worker_id, worker] : scheduler_->workers()) {
    const LiveWorker& live = snapshot.workers.emplace_back(MakeWorker(worker, now));
    snapshot.tokens_per_s += live.tokens_per_s;
    if (!live.online) continue;
    for (const SlotState& slot : worker.slots) {
      if (slot.leases.empty()) continue;
      const LeaseState& lease = scheduler_->leases().at(*slot.leases.begin());
      tokens_per_s[lease.sweep_id] += slot.status.tokens_per_s;
    }
  }
  for (const auto& [sweep_id, sweep] : scheduler_->sweeps()) {
    LiveSweep live;
    live.row_id = sweep_id;
    live.paused = sweep.paused;
    live.num_queued = Count(sweep.counts, UnitStatus::kQueued);
    live.num_running = Count(sweep.counts, UnitStatus::kLeased);
    live.num_done = Count(sweep.counts, UnitStatus::kDone);
    live.num_quarantined = Count(sweep.counts, UnitStatus::kQuarantined);
    double tokens_left = 0;
    live.cells.reserve(sweep.places.size());
    for (const PlaceState& place : sweep.places) {
      const CellState& cell = scheduler_->cells().at(place.cell_id);
      LiveCell& added = live.cells.emplace_back(MakeCell(place, cell, contexts_.at(place.cell_id)));
      if (added.num_queued > 0 && !sweep.paused && !cell.failed()) {
        added.waiting_reason = scheduler_->WhyNoSlot(place.cell_id);
        snapshot.num_cells_without_slot += added.waiting_reason.empty() ? 0 : 1;
      }
      live.num_units += added.num_units();
      live.tokens_done += added.tokens_done;
      live.num_rerolls += added.num_rerolls;
      tokens_left += static_cast<double>(added.num_queued + added.num_running) *
                     scheduler_->MeanTokens(place.cell_id);
    }
    live.tokens_expected = live.tokens_done + static_cast<int64_t>(tokens_left);
    live.tokens_per_s = tokens_per_s[sweep_id];
    if (live.tokens_per_s > 0) {
      live.eta_us = static_cast<int64_t>(tokens_left / live.tokens_per_s * 1e6);
    }
    if (!sweep.paused) {
      snapshot.num_units_queued += live.num_queued;
      snapshot.num_units_running += live.num_running;
    }
    snapshot.sweeps.emplace(sweep_id, std::move(live));
  }
  snapshot.samples_per_s = sample_rate_.PerSecond(now);
  snapshot.commit_p99_ms = absl::ToDoubleMilliseconds(commit_latency_.P99());
  snapshot.counters = counters_;
  snapshot.commit_seconds = commit_seconds_;
  return snapshot;
}

}  // namespace assay::coordinator
