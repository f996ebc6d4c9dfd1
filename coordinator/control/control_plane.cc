// Batches, and the memory that is built from the database.
#include "coordinator/control/control_plane.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/status.h"

namespace assay::coordinator {

using storage::CellData;
using storage::UnitState;

namespace {

ArtifactStatus StatusOf(const std::optional<storage::ArtifactRecord>& artifact) {
  if (!artifact) return ArtifactStatus::kNone;
  switch (artifact->state) {
    case storage::ArtifactState::kReady:
      return ArtifactStatus::kReady;
    case storage::ArtifactState::kFailed:
      return ArtifactStatus::kFailed;
    case storage::ArtifactState::kMissing:
      break;
  }
  return ArtifactStatus::kMissing;
}

CellSpec SpecOf(const CellContext& context) {
  CellSpec spec;
  spec.cell_id = context.cell.id;
  spec.load = {context.cell.model_id, context.cell.artifact_id, context.cell.tensor_parallel_size};
  spec.artifact_key = context.artifact ? context.artifact->key : "";
  spec.artifact = StatusOf(context.artifact);
  spec.benchmark_id = context.cell.benchmark_id;
  spec.num_items = context.benchmark.num_items;
  spec.max_tokens = context.cell.sampling.max_tokens;
  spec.numerics_version = context.cell.engine_numerics_version;
  spec.memory_need_bytes = context.cell.memory_need_bytes;
  spec.cpu_memory_need_bytes = context.cell.cpu_memory_need_bytes;
  spec.artifact_need_bytes = context.artifact ? context.artifact->memory_need_bytes : 0;
  return spec;
}

ScheduledSweep SpecOf(const storage::SweepData& data) {
  ScheduledSweep spec;
  spec.sweep_id = data.sweep.id;
  spec.priority = data.sweep.priority;
  spec.owner = data.sweep.owner;
  spec.paused = data.sweep.state == storage::SweepState::kPaused;
  for (const storage::SweepCellRecord& cell : data.cells) {
    spec.cells.push_back({cell.cell_id, cell.num_repeats, cell.num_items});
  }
  return spec;
}

}  // namespace

ControlPlane::ControlPlane(storage::ControlStore* store, const Clock* clock, Options options)
    : store_(store), clock_(clock), options_(std::move(options)) {}

absl::StatusOr<std::unique_ptr<ControlPlane>> ControlPlane::Open(storage::ControlStore* store,
                                                                 const Clock* clock,
                                                                 Options options) {
  ASSAY_CHECK(options.make_id != nullptr, "ControlPlane needs a source of ids");
  std::unique_ptr<ControlPlane> plane(new ControlPlane(store, clock, std::move(options)));
  plane->now_ = clock->Monotonic();
  plane->now_us_ = clock->NowMicros();
  ASSAY_RETURN_IF_ERROR(plane->Rebuild());
  return plane;
}

// Batches ---------------------------------------------------------------------------------------

absl::Status ControlPlane::BeginBatch() {
  now_ = clock_->Monotonic();
  now_us_ = clock_->NowMicros();
  if (needs_rebuild_) {
    ASSAY_RETURN_IF_ERROR(Rebuild());
    needs_rebuild_ = false;
  }
  ASSAY_RETURN_IF_ERROR(store_->Begin());
  batch_status_ = absl::OkStatus();
  batch_messages_.clear();
  batch_events_.clear();
  batch_hellos_.clear();
  batch_counters_ = counters_;
  return absl::OkStatus();
}

absl::Status ControlPlane::CommitBatch() {
  const absl::Duration start = clock_->Monotonic();
  if (batch_status_.ok()) {
    Actions actions;
    scheduler_->Assign(now_, &actions);
    (void)Guard(Apply(actions));
  }
  if (batch_status_.ok()) {
    batch_status_ = store_->Commit();
  } else {
    store_->Rollback();
  }
  if (!batch_status_.ok()) {
    spdlog::error("a batch is lost and will be repeated by those who sent it: {}",
                  Message(batch_status_));
    ++counters_.num_failed_commits;
    needs_rebuild_ = true;
    // Whatever the code was, for the callers the disk is briefly gone.
    return Unavailable("the store could not commit: {}", Message(batch_status_));
  }
  sample_rate_.Add(now_, batch_counters_.num_accepted - counters_.num_accepted);
  const absl::Duration latency = clock_->Monotonic() - start;
  commit_latency_.Add(latency);
  commit_seconds_.Add(absl::ToDoubleSeconds(latency));
  counters_ = batch_counters_;
  ++counters_.num_commits;
  std::move(batch_messages_.begin(), batch_messages_.end(), std::back_inserter(messages_));
  batch_messages_.clear();
  LogEvents();
  ForgetUnused();
  return absl::OkStatus();
}

std::vector<OutgoingMessage> ControlPlane::TakeMessages() { return std::exchange(messages_, {}); }

absl::Status ControlPlane::Guard(absl::Status status) {
  if (!status.ok() && batch_status_.ok()) batch_status_ = status;
  return status;
}

absl::Status ControlPlane::CheckInBatch() const {
  ASSAY_CHECK(store_->in_transaction() || !batch_status_.ok(), "Handle... outside of a batch");
  if (batch_status_.ok()) return absl::OkStatus();
  return Unavailable("the batch is lost: {}", Message(batch_status_));
}

absl::Status ControlPlane::HandleTick() {
  ASSAY_RETURN_IF_ERROR(CheckInBatch());
  Actions actions;
  scheduler_->Tick(now_, &actions);
  ASSAY_RETURN_IF_ERROR(Guard(Apply(actions)));
  // The speed last seen, from which plans estimate their time; a row a minute is enough.
  double tokens_per_s = 0;
  for (const auto& [worker_id, worker] : scheduler_->workers()) {
    if (!worker.online) continue;
    for (const SlotState& slot : worker.slots) tokens_per_s += slot.status.tokens_per_s;
  }
  if (tokens_per_s > 0 && now_ - speed_saved_ >= absl::Minutes(1)) {
    speed_saved_ = now_;
    ASSAY_RETURN_IF_ERROR(
        Guard(store_->SetMeta("tokens_per_s", fmt::format("{:.1f}", tokens_per_s))));
  }
  return absl::OkStatus();
}

// Memory from the database ----------------------------------------------------------------------

absl::Status ControlPlane::Rebuild() {
  ASSAY_ASSIGN_OR_RETURN(storage::ControlSnapshot snapshot, store_->LoadAll());
  Scheduler::Options options;
  options.lease_ttl = options_.lease_ttl;
  options.heartbeat_interval = options_.heartbeat_interval;
  options.max_unreported_samples = options_.max_unreported_samples;
  options.lease_prefix = options_.make_id("lease");
  auto scheduler = std::make_unique<Scheduler>(options);

  contexts_.clear();
  items_.clear();
  sweep_names_.clear();
  job_epochs_.clear();
  drained_.clear();
  for (auto& [benchmark_id, items] : snapshot.items) {
    items_[benchmark_id] =
        std::make_shared<const std::vector<storage::ItemRecord>>(std::move(items));
  }
  std::map<std::string, std::vector<storage::UnitId>> leased;
  for (const CellData& data : snapshot.cells) RestoreCell(data, scheduler.get(), &leased);
  for (const auto& [cell_id, context] : contexts_) {
    ASSAY_RETURN_IF_ERROR(SeedLengths(*context, scheduler.get()));
  }
  std::vector<std::string> orphans;  // leases of cells that no live sweep wants
  for (const storage::LeaseRecord& lease : snapshot.open_leases) {
    const auto units = leased.find(lease.lease_id);
    if (units == leased.end()) {
      orphans.push_back(lease.lease_id);
      continue;
    }
    scheduler->RestoreLease({lease.lease_id, lease.cell_id, lease.worker_id, lease.incarnation,
                             lease.slot_index, units->second},
                            now_);
  }
  for (const storage::JobRecord& job : snapshot.jobs) {
    const auto cell = std::find_if(contexts_.begin(), contexts_.end(), [&](const auto& entry) {
      return entry.second->cell.artifact_id == job.artifact_id;
    });
    if (cell == contexts_.end()) continue;
    job_epochs_[job.id] = job.epoch;
    const CellSpec cell_spec = SpecOf(*cell->second);
    const JobSpec spec{job.id, cell_spec.load, cell_spec.artifact_need_bytes};
    if (job.state == storage::JobState::kLeased) {
      scheduler->RestoreLeasedJob(spec, job.worker_id, job.incarnation, now_);
    } else if (job.state == storage::JobState::kQueued) {
      scheduler->AddJob(spec);
    }
  }
  Actions actions;
  for (const storage::SweepData& sweep : snapshot.sweeps) {
    sweep_names_[sweep.sweep.id] = sweep.sweep.sweep_id;
    scheduler->AddSweep(SpecOf(sweep), &actions);
  }
  for (const storage::WorkerRecord& worker : snapshot.draining_workers) {
    drained_[worker.worker_id] = worker.incarnation;
  }
  // A worker that said hello in a lost batch is not known: it says hello again.
  if (scheduler_) scheduler->AdoptWorkers(*scheduler_, batch_hellos_);
  batch_hellos_.clear();
  scheduler_ = std::move(scheduler);

  // What the last owner of the file left undone. Cells that settled then were told of then.
  std::erase_if(actions,
                [](const Action& action) { return std::holds_alternative<SettleCell>(action); });
  if (orphans.empty() && actions.empty()) return absl::OkStatus();
  ASSAY_RETURN_IF_ERROR(store_->Begin());
  batch_status_ = absl::OkStatus();
  batch_counters_ = counters_;
  absl::Status tidied = EndOrphans(orphans);
  if (tidied.ok()) tidied = Apply(actions);
  if (tidied.ok()) return store_->Commit();
  store_->Rollback();
  return tidied;
}

absl::Status ControlPlane::EndOrphans(const std::vector<std::string>& lease_ids) {
  for (const std::string& lease_id : lease_ids) {
    ASSAY_RETURN_IF_ERROR(
        store_->EndLease(lease_id, "revoked", storage::AttemptEnd::kRevoked, now_us_).status());
  }
  return absl::OkStatus();
}

void ControlPlane::RestoreCell(const CellData& data, Scheduler* scheduler,
                               std::map<std::string, std::vector<storage::UnitId>>* leased) {
  auto context = std::make_shared<const CellContext>(
      CellContext{data.cell, data.model, data.benchmark, data.artifact});
  scheduler->AddCell(SpecOf(*context));
  contexts_[data.cell.id] = std::move(context);
  for (const storage::ItemRepeat& done : data.done) {
    scheduler->RestoreUnit({data.cell.id, done.item_index, done.repeat}, UnitStatus::kDone, 0);
  }
  for (const storage::UnitRecord& unit : data.open) {
    UnitStatus status = UnitStatus::kQueued;
    if (unit.state == UnitState::kQuarantined) status = UnitStatus::kQuarantined;
    if (unit.state == UnitState::kLeased) {
      status = UnitStatus::kLeased;
      (*leased)[unit.lease_id].push_back(unit.unit);
    }
    scheduler->RestoreUnit(unit.unit, status, unit.num_failures);
  }
  scheduler->RestoreCellTotals(data.cell.id, static_cast<int64_t>(data.done.size()),
                               data.num_correct, data.completion_tokens, data.num_rerolls);
}

absl::Status ControlPlane::SeedLengths(const CellContext& cell, Scheduler* scheduler) {
  if (scheduler->HasLengths(cell.cell.model_id, cell.cell.benchmark_id)) return absl::OkStatus();
  ASSAY_ASSIGN_OR_RETURN(
      const std::vector<double> lengths,
      store_->MeanBaselineTokens(cell.model.content_hash, cell.benchmark.version_hash));
  scheduler->SeedLengths(cell.cell.model_id, cell.cell.benchmark_id, cell.benchmark.num_items,
                         lengths);
  return absl::OkStatus();
}

absl::Status ControlPlane::LoadIntoMemory(const storage::SweepData& sweep) {
  std::vector<int64_t> missing;
  for (const storage::SweepCellRecord& cell : sweep.cells) {
    if (!scheduler_->HasCell(cell.cell_id)) missing.push_back(cell.cell_id);
  }
  ASSAY_ASSIGN_OR_RETURN(const std::vector<CellData> cells, store_->LoadCells(missing));
  std::map<std::string, std::vector<storage::UnitId>> leased;
  for (const CellData& data : cells) {
    RestoreCell(data, scheduler_.get(), &leased);
    ASSAY_RETURN_IF_ERROR(SeedLengths(*contexts_.at(data.cell.id), scheduler_.get()));
  }
  // Cells outside the memory have no open leases: they ended when the last sweep was forgotten.
  ASSAY_CHECK(leased.empty(), "a cell that no live sweep wanted has leased units");
  sweep_names_[sweep.sweep.id] = sweep.sweep.sweep_id;
  Actions actions;
  scheduler_->AddSweep(SpecOf(sweep), &actions);
  return Apply(actions);
}

absl::StatusOr<ControlPlane::Items> ControlPlane::ItemsOf(int64_t benchmark_id) {
  const auto it = items_.find(benchmark_id);
  if (it != items_.end()) return it->second;
  ASSAY_ASSIGN_OR_RETURN(std::vector<storage::ItemRecord> items, store_->LoadItems(benchmark_id));
  return items_[benchmark_id] =
             std::make_shared<const std::vector<storage::ItemRecord>>(std::move(items));
}

void ControlPlane::ForgetUnused() {
  if (contexts_.size() == scheduler_->cells().size() &&
      sweep_names_.size() == scheduler_->sweeps().size()) {
    return;
  }
  std::set<int64_t> benchmarks;
  std::erase_if(contexts_, [&](const auto& entry) {
    if (!scheduler_->HasCell(entry.first)) return true;
    benchmarks.insert(entry.second->cell.benchmark_id);
    return false;
  });
  std::erase_if(items_, [&](const auto& entry) { return !benchmarks.contains(entry.first); });
  std::erase_if(sweep_names_,
                [&](const auto& entry) { return !scheduler_->sweeps().contains(entry.first); });
  std::erase_if(job_epochs_,
                [&](const auto& entry) { return !scheduler_->jobs().contains(entry.first); });
}

}  // namespace assay::coordinator
