// What people ask for.
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/status.h"
#include "coordinator/control/control_plane.h"

namespace assay::coordinator {

using storage::ArtifactState;
using storage::JobState;
using storage::SweepState;

namespace {

const char* NameOf(SweepState state) {
  switch (state) {
    case SweepState::kActive:
      return "active";
    case SweepState::kPaused:
      return "paused";
    case SweepState::kCancelled:
      return "cancelled";
    case SweepState::kDone:
      return "done";
    case SweepState::kFailed:
      return "failed";
  }
  return "unknown";
}

absl::Status HasEnded(const storage::SweepRecord& sweep) {
  return FailedPrecondition("{} has ended: it is {}", sweep.sweep_id, NameOf(sweep.state));
}

}  // namespace

// Submitting ------------------------------------------------------------------------------------

absl::StatusOr<storage::ControlStore::InsertedSweep> ControlPlane::HandleSubmit(
    const SubmitCommand& command) {
  ASSAY_RETURN_IF_ERROR(CheckInBatch());
  const PlannedSweep& plan = command.plan;
  std::vector<int64_t> model_ids;
  for (const storage::ModelRecord& model : plan.models) {
    ASSAY_ASSIGN_OR_RETURN(const int64_t id, Guard(store_->UpsertModel(model)));
    model_ids.push_back(id);
  }
  std::vector<int64_t> benchmark_ids;
  for (const PlannedBenchmark& benchmark : plan.benchmarks) {
    ASSAY_ASSIGN_OR_RETURN(const int64_t id,
                           Guard(store_->UpsertBenchmark(benchmark.benchmark, benchmark.items)));
    benchmark_ids.push_back(id);
  }
  // An artifact's model and gang are those of the cells that use it.
  std::vector<int64_t> artifact_ids(plan.artifacts.size(), 0);
  for (const PlannedCell& cell : plan.cells) {
    if (cell.artifact_index < 0) continue;
    const auto index = static_cast<size_t>(cell.artifact_index);
    if (artifact_ids[index] != 0) continue;
    storage::ArtifactRecord artifact = plan.artifacts[index];
    artifact.model_id = model_ids.at(static_cast<size_t>(cell.model_index));
    if (!artifact.calibration_hash.empty()) {
      ASSAY_RETURN_IF_ERROR(Guard(
          store_->UpsertCalibration(artifact.calibration_hash, plan.calibration_jsonl.at(index))));
    }
    ASSAY_ASSIGN_OR_RETURN(artifact_ids[index], Guard(store_->UpsertArtifact(artifact)));
  }
  std::vector<storage::SweepCellRecord> places;
  std::vector<int64_t> cell_ids;
  for (const PlannedCell& planned : plan.cells) {
    storage::CellRecord cell = planned.cell;
    cell.model_id = model_ids.at(static_cast<size_t>(planned.model_index));
    cell.benchmark_id = benchmark_ids.at(static_cast<size_t>(planned.benchmark_index));
    cell.artifact_id = planned.artifact_index < 0
                           ? 0
                           : artifact_ids.at(static_cast<size_t>(planned.artifact_index));
    ASSAY_ASSIGN_OR_RETURN(const int64_t cell_id, Guard(store_->UpsertCell(cell)));
    storage::SweepCellRecord place;
    place.position = static_cast<int32_t>(places.size());
    place.cell_id = cell_id;
    place.num_repeats = planned.num_repeats;
    place.num_items = planned.num_items;
    // The baseline of a (model, benchmark) stands before the cells that are measured against it.
    if (planned.baseline_index >= 0) {
      place.baseline_cell_id = cell_ids.at(static_cast<size_t>(planned.baseline_index));
    }
    cell_ids.push_back(cell_id);
    places.push_back(place);
  }
  storage::SweepRecord sweep;
  sweep.sweep_id = options_.make_id("sweep");
  sweep.name = plan.name;
  sweep.owner = command.owner;
  sweep.priority = plan.priority;
  sweep.created_time_us = now_us_;
  sweep.spec_yaml = command.spec_yaml;
  sweep.resolved_yaml = plan.resolved_yaml;
  sweep.request_id = command.request_id;
  ASSAY_ASSIGN_OR_RETURN(storage::ControlStore::InsertedSweep inserted,
                         Guard(store_->InsertSweep(sweep, places)));
  if (!inserted.created) return inserted;

  for (size_t i = 0; i < plan.artifacts.size(); ++i) {
    if (artifact_ids[i] != 0) {
      ASSAY_RETURN_IF_ERROR(Guard(EnsureJob(plan.artifacts[i].key, artifact_ids[i])));
    }
  }
  ASSAY_RETURN_IF_ERROR(Guard(RecordEvent(
      {.kind = "sweep_submitted",
       .sweep_id = inserted.sweep_id,
       .detail_json =
           nlohmann::json{
               {"name", plan.name}, {"owner", command.owner}, {"num_cells", plan.cells.size()}}
               .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)})));
  ASSAY_ASSIGN_OR_RETURN(const storage::SweepData data, Guard(store_->LoadSweep(inserted.id)));
  ASSAY_RETURN_IF_ERROR(Guard(LoadIntoMemory(data)));
  ASSAY_RETURN_IF_ERROR(Guard(ScheduleJobs(data)));
  return inserted;
}

absl::Status ControlPlane::EnsureJob(const std::string& artifact_key, int64_t artifact_id) {
  ASSAY_ASSIGN_OR_RETURN(const std::optional<storage::ArtifactRecord> artifact,
                         store_->FindArtifactByKey(artifact_key));
  ASSAY_CHECK(artifact.has_value(), "artifact {} vanished within its transaction", artifact_key);
  if (artifact->state == ArtifactState::kReady) return absl::OkStatus();
  ASSAY_ASSIGN_OR_RETURN(const storage::JobRecord job,
                         store_->InsertJob(storage::JobKind::kQuantize, artifact_id, now_us_));
  // It failed for an earlier sweep: who submits again wants another try.
  if (job.state == JobState::kFailed || job.state == JobState::kDone) {
    ASSAY_RETURN_IF_ERROR(store_->RetryJob(job.id));
    ASSAY_RETURN_IF_ERROR(store_->SetArtifactState(artifact_id, ArtifactState::kMissing, ""));
    scheduler_->ForgiveArtifact(artifact_id);
  }
  return absl::OkStatus();
}

absl::Status ControlPlane::ScheduleJobs(const storage::SweepData& sweep) {
  std::map<int64_t, JobSpec> jobs;  // by artifact, without their ids
  for (const storage::SweepCellRecord& place : sweep.cells) {
    const auto cell = scheduler_->cells().find(place.cell_id);
    if (cell == scheduler_->cells().end()) continue;  // it settled at once
    const CellSpec& spec = cell->second.spec;
    if (spec.artifact != ArtifactStatus::kNone && spec.artifact != ArtifactStatus::kReady) {
      jobs.emplace(spec.load.artifact_id, JobSpec{0, spec.load, spec.artifact_need_bytes});
    }
  }
  for (auto& [artifact_id, spec] : jobs) {
    ASSAY_ASSIGN_OR_RETURN(const storage::JobRecord job,
                           store_->InsertJob(storage::JobKind::kQuantize, artifact_id, now_us_));
    job_epochs_[job.id] = job.epoch;
    if (scheduler_->jobs().contains(job.id)) continue;
    spec.job_id = job.id;
    if (job.state == JobState::kQueued) scheduler_->AddJob(spec);
    if (job.state == JobState::kLeased) {
      scheduler_->RestoreLeasedJob(spec, job.worker_id, job.incarnation, now_);
    }
  }
  return absl::OkStatus();
}

// Stopping and going on -------------------------------------------------------------------------

absl::StatusOr<storage::SweepData> ControlPlane::FindSweep(int64_t sweep_row_id) {
  absl::StatusOr<storage::SweepData> data = store_->LoadSweep(sweep_row_id);
  if (absl::IsNotFound(data.status())) return data;  // the caller's mistake, not the store's
  return Guard(std::move(data));
}

absl::Status ControlPlane::HandleCancel(int64_t sweep_row_id) {
  ASSAY_RETURN_IF_ERROR(CheckInBatch());
  ASSAY_ASSIGN_OR_RETURN(const storage::SweepData data, FindSweep(sweep_row_id));
  if (data.sweep.state == SweepState::kCancelled) return absl::OkStatus();
  if (data.sweep.state != SweepState::kActive && data.sweep.state != SweepState::kPaused) {
    return HasEnded(data.sweep);
  }
  Actions actions;
  scheduler_->CancelSweep(sweep_row_id, &actions);
  ASSAY_RETURN_IF_ERROR(Guard(Apply(actions)));
  return SetState(data.sweep, SweepState::kCancelled, now_us_);
}

absl::Status ControlPlane::HandlePause(int64_t sweep_row_id) {
  ASSAY_RETURN_IF_ERROR(CheckInBatch());
  ASSAY_ASSIGN_OR_RETURN(const storage::SweepData data, FindSweep(sweep_row_id));
  if (data.sweep.state == SweepState::kPaused) return absl::OkStatus();
  if (data.sweep.state != SweepState::kActive) return HasEnded(data.sweep);
  Actions actions;
  scheduler_->PauseSweep(sweep_row_id, &actions);
  ASSAY_RETURN_IF_ERROR(Guard(Apply(actions)));
  return SetState(data.sweep, SweepState::kPaused, 0);
}

absl::Status ControlPlane::HandleResume(int64_t sweep_row_id) {
  ASSAY_RETURN_IF_ERROR(CheckInBatch());
  ASSAY_ASSIGN_OR_RETURN(const storage::SweepData data, FindSweep(sweep_row_id));
  if (data.sweep.state == SweepState::kActive) return absl::OkStatus();
  if (data.sweep.state != SweepState::kPaused) return HasEnded(data.sweep);
  ASSAY_RETURN_IF_ERROR(SetState(data.sweep, SweepState::kActive, 0));
  Actions actions;
  scheduler_->ResumeSweep(sweep_row_id, &actions);
  return Guard(Apply(actions));
}

absl::Status ControlPlane::SetState(const storage::SweepRecord& sweep, SweepState state,
                                    int64_t finished_time_us) {
  ASSAY_RETURN_IF_ERROR(Guard(store_->SetSweepState(sweep.id, state, finished_time_us)));
  return Guard(
      RecordEvent({.kind = fmt::format("sweep_{}", NameOf(state)), .sweep_id = sweep.sweep_id}));
}

// Trying again ----------------------------------------------------------------------------------

absl::StatusOr<RetryResult> ControlPlane::HandleRetry(int64_t sweep_row_id,
                                                      const std::string& request_id) {
  ASSAY_RETURN_IF_ERROR(CheckInBatch());
  RetryResult result;
  ASSAY_ASSIGN_OR_RETURN(const std::optional<std::string> before,
                         Guard(FindAnswer("RetrySweep", request_id)));
  if (before) {
    const nlohmann::json answer = nlohmann::json::parse(*before);
    return RetryResult{answer.at(0).get<int64_t>(), answer.at(1).get<int32_t>()};
  }
  ASSAY_ASSIGN_OR_RETURN(const storage::SweepData data, FindSweep(sweep_row_id));
  if (data.sweep.state == SweepState::kCancelled) return HasEnded(data.sweep);

  ASSAY_ASSIGN_OR_RETURN(const std::vector<storage::UnitId> units,
                         Guard(store_->RetryQuarantined(sweep_row_id)));
  result.num_units = static_cast<int64_t>(units.size());
  for (const storage::UnitId& unit : units) scheduler_->RequeueUnit(unit);

  ASSAY_ASSIGN_OR_RETURN(const std::set<int64_t> failed, Guard(FailedArtifacts(data)));
  for (const int64_t artifact_id : failed) {
    ASSAY_ASSIGN_OR_RETURN(
        const storage::JobRecord job,
        Guard(store_->InsertJob(storage::JobKind::kQuantize, artifact_id, now_us_)));
    ASSAY_RETURN_IF_ERROR(Guard(store_->RetryJob(job.id)));
    ASSAY_RETURN_IF_ERROR(
        Guard(store_->SetArtifactState(artifact_id, ArtifactState::kMissing, "")));
    scheduler_->ForgiveArtifact(artifact_id);
    ++result.num_jobs;
  }
  if (data.sweep.state == SweepState::kFailed) {
    ASSAY_RETURN_IF_ERROR(SetState(data.sweep, SweepState::kActive, 0));
    ASSAY_RETURN_IF_ERROR(Guard(LoadIntoMemory(data)));
  }
  ASSAY_RETURN_IF_ERROR(Guard(ScheduleJobs(data)));
  ASSAY_RETURN_IF_ERROR(
      Guard(SaveAnswer("RetrySweep", request_id,
                       nlohmann::json::array({result.num_units, result.num_jobs}).dump())));
  return result;
}

absl::StatusOr<std::set<int64_t>> ControlPlane::FailedArtifacts(const storage::SweepData& sweep) {
  std::set<int64_t> failed;
  std::vector<int64_t> missing;
  for (const storage::SweepCellRecord& place : sweep.cells) {
    const auto cell = scheduler_->cells().find(place.cell_id);
    if (cell == scheduler_->cells().end()) {
      missing.push_back(place.cell_id);
    } else if (cell->second.failed()) {
      failed.insert(cell->second.spec.load.artifact_id);
    }
  }
  ASSAY_ASSIGN_OR_RETURN(const std::vector<storage::CellData> cells, store_->LoadCells(missing));
  for (const storage::CellData& cell : cells) {
    if (cell.artifact && cell.artifact->state == ArtifactState::kFailed) {
      failed.insert(cell.artifact->id);
    }
  }
  return failed;
}

absl::StatusOr<storage::UnitId> ControlPlane::HandleRequeue(int64_t sample_id,
                                                            const std::string& request_id) {
  ASSAY_RETURN_IF_ERROR(CheckInBatch());
  ASSAY_ASSIGN_OR_RETURN(const std::optional<std::string> before,
                         Guard(FindAnswer("RequeueSample", request_id)));
  if (before) {
    const nlohmann::json answer = nlohmann::json::parse(*before);
    return storage::UnitId{answer.at(0).get<int64_t>(), answer.at(1).get<int32_t>(),
                           answer.at(2).get<int32_t>()};
  }
  const absl::StatusOr<storage::UnitId> unit = store_->RequeueSample(sample_id, now_us_);
  if (absl::IsNotFound(unit.status())) return unit;
  ASSAY_RETURN_IF_ERROR(Guard(unit.status()));
  if (scheduler_->HasCell(unit->cell_id)) {
    scheduler_->RequeueUnit(*unit);
    const int64_t cell_id = unit->cell_id;
    ASSAY_ASSIGN_OR_RETURN(const std::vector<storage::CellData> cells,
                           Guard(store_->LoadCells({&cell_id, 1})));
    scheduler_->RestoreCellTotals(cell_id, static_cast<int64_t>(cells.front().done.size()),
                                  cells.front().num_correct, cells.front().completion_tokens,
                                  cells.front().num_rerolls);
  }
  ASSAY_ASSIGN_OR_RETURN(const std::vector<int64_t> settled, Guard(store_->SettledSweepsOf(*unit)));
  for (const int64_t sweep_row_id : settled) {
    ASSAY_ASSIGN_OR_RETURN(const storage::SweepData data, Guard(store_->LoadSweep(sweep_row_id)));
    ASSAY_RETURN_IF_ERROR(SetState(data.sweep, SweepState::kActive, 0));
    ASSAY_RETURN_IF_ERROR(Guard(LoadIntoMemory(data)));
  }
  ASSAY_RETURN_IF_ERROR(Guard(RecordEvent({.kind = "sample_requeued",
                                           .cell_id = unit->cell_id,
                                           .detail_json = nlohmann::json{
                                               {"sample_id", sample_id},
                                               {"item_index", unit->item_index},
                                               {"repeat",
                                                unit->repeat}}.dump()})));
  ASSAY_RETURN_IF_ERROR(Guard(
      SaveAnswer("RequeueSample", request_id,
                 nlohmann::json::array({unit->cell_id, unit->item_index, unit->repeat}).dump())));
  return unit;
}

absl::Status ControlPlane::HandleDrain(const std::string& worker_id) {
  ASSAY_RETURN_IF_ERROR(CheckInBatch());
  const absl::Status ordered = store_->SetWorkerDrain(worker_id, true);
  if (absl::IsNotFound(ordered)) return ordered;
  ASSAY_RETURN_IF_ERROR(Guard(ordered));
  const auto worker = scheduler_->workers().find(worker_id);
  if (worker != scheduler_->workers().end()) drained_[worker_id] = worker->second.incarnation;
  Actions actions;
  scheduler_->DrainWorker(worker_id, &actions);
  ASSAY_RETURN_IF_ERROR(Guard(RecordEvent({.kind = "worker_draining", .worker_id = worker_id})));
  return Guard(Apply(actions));
}

// Answers given before --------------------------------------------------------------------------

absl::StatusOr<std::optional<std::string>> ControlPlane::FindAnswer(const std::string& method,
                                                                    const std::string& request_id) {
  if (request_id.empty()) return std::optional<std::string>();
  return store_->FindAnswer(method, request_id);
}

absl::Status ControlPlane::SaveAnswer(const std::string& method, const std::string& request_id,
                                      const std::string& answer) {
  if (request_id.empty()) return absl::OkStatus();
  return store_->SaveAnswer(method, request_id, answer, now_us_);
}

}  // namespace assay::coordinator
