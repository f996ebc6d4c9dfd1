// What workers say.
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/status.h"
#include "coordinator/control/control_plane.h"
#include "coordinator/control/unit_seed.h"

namespace assay::coordinator {

using storage::InsertOutcome;

absl::StatusOr<bool> ControlPlane::HandleHello(const HelloCommand& command) {
  ASSAY_RETURN_IF_ERROR(CheckInBatch());
  WorkerHello hello = command.hello;
  // An order to drain is for the start that it was given to: who starts the program again wants it.
  const auto drained = drained_.find(hello.worker_id);
  hello.drain = drained != drained_.end() && drained->second == hello.incarnation;
  batch_hellos_.insert(hello.worker_id);
  Actions actions;
  const bool let_in = scheduler_->OnHello(hello, now_, &actions);
  if (let_in) {
    ASSAY_ASSIGN_OR_RETURN(const int64_t provenance_id,
                           Guard(store_->UpsertProvenance(command.provenance)));
    worker_provenance_[hello.worker_id] = provenance_id;
    storage::WorkerRecord record;
    record.worker_id = hello.worker_id;
    record.incarnation = hello.incarnation;
    record.version = hello.version;
    record.provenance_id = provenance_id;
    record.first_seen_time_us = now_us_;
    record.last_seen_time_us = now_us_;
    ASSAY_RETURN_IF_ERROR(Guard(store_->UpsertWorker(record)));
    if (drained != drained_.end() && !hello.drain) {
      ASSAY_RETURN_IF_ERROR(Guard(store_->SetWorkerDrain(hello.worker_id, false)));
      drained_.erase(drained);
    }
    batch_messages_.push_back(
        {hello.worker_id, hello.incarnation, WelcomeMessage{command.protocol_revision}});
  }
  ASSAY_RETURN_IF_ERROR(Guard(Apply(actions)));
  return let_in;
}

absl::Status ControlPlane::HandleHeartbeat(const HeartbeatCommand& command) {
  ASSAY_RETURN_IF_ERROR(CheckInBatch());
  const WorkerHeartbeat& heartbeat = command.heartbeat;
  Actions actions;
  // Failures first: a lease whose last unit failed is not listed any more.
  for (const UnitFailureReport& failure : command.failures) {
    const LeaseState* lease = scheduler_->FindLease(failure.lease_id);
    if (lease == nullptr || lease->worker_id != heartbeat.worker_id) continue;
    const absl::StatusOr<int32_t> num_distinct =
        store_->RecordUnitFailure(failure.lease_id, failure.unit, failure.epoch, failure.message,
                                  failure.infrastructure, now_us_);
    if (absl::IsFailedPrecondition(num_distinct.status())) continue;  // reported before
    ASSAY_RETURN_IF_ERROR(Guard(num_distinct.status()));
    ++batch_counters_.num_unit_failures;
    scheduler_->OnUnitFailed(failure.lease_id, failure.unit, *num_distinct, failure.infrastructure,
                             failure.message, now_, &actions);
    ASSAY_RETURN_IF_ERROR(Guard(RecordEvent(
        {.kind = "unit_failed",
         .cell_id = failure.unit.cell_id,
         .worker_id = heartbeat.worker_id,
         .detail_json = nlohmann::json{{"lease_id", failure.lease_id},
                                       {"item_index", failure.unit.item_index},
                                       {"repeat", failure.unit.repeat},
                                       {"infrastructure", failure.infrastructure},
                                       {"message", failure.message}}
                            .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)})));
  }
  scheduler_->OnHeartbeat(heartbeat, now_, &actions);
  ASSAY_RETURN_IF_ERROR(Guard(Apply(actions)));
  if (!command.failures.empty()) {
    batch_messages_.push_back(
        {heartbeat.worker_id, heartbeat.incarnation, AcknowledgeMessage{command.sequence}});
  }
  return absl::OkStatus();
}

// A cell that no live sweep wants is not in memory; late samples of it are rare enough to ask the
// store. Empty for a cell that does not exist.
absl::StatusOr<std::shared_ptr<const CellContext>> ControlPlane::FindContext(int64_t cell_id) {
  const auto live = contexts_.find(cell_id);
  if (live != contexts_.end()) return live->second;
  const absl::StatusOr<std::vector<storage::CellData>> stored =
      store_->LoadCells(std::span(&cell_id, 1));
  if (absl::IsNotFound(stored.status())) return std::shared_ptr<const CellContext>();
  ASSAY_RETURN_IF_ERROR(Guard(stored.status()));
  const storage::CellData& data = stored->front();
  return std::make_shared<const CellContext>(
      CellContext{data.cell, data.model, data.benchmark, data.artifact});
}

absl::Status ControlPlane::CheckSample(const storage::SampleRecord& sample, const CellContext& cell,
                                       const std::vector<storage::ItemRecord>& items) const {
  const auto unit = [&] {
    return fmt::format("unit (cell {}, item {}, repeat {})", sample.unit.cell_id,
                       sample.unit.item_index, sample.unit.repeat);
  };
  if (sample.unit.item_index < 0 || sample.unit.item_index >= std::ssize(items)) {
    return InvalidArgument("{}: the cell has {} items", unit(), items.size());
  }
  const storage::ItemRecord& item = items[static_cast<size_t>(sample.unit.item_index)];
  if (sample.seed != UnitSeed(cell, item.name, sample.unit.repeat)) {
    return InvalidArgument("{}: seed {} is not its seed", unit(), sample.seed);
  }
  // Budget forcing puts in texts of its own; nothing else makes an answer longer than its limit.
  constexpr int64_t kForcedTokens = 1024;
  const int64_t max_tokens = cell.cell.sampling.max_tokens;
  if (sample.completion_tokens > max_tokens + kForcedTokens) {
    return InvalidArgument("{}: {} tokens, its limit is {}", unit(), sample.completion_tokens,
                           max_tokens);
  }
  return absl::OkStatus();
}

absl::Status ControlPlane::CheckReport(const ReportCommand& command) {
  for (const storage::SampleRecord& sample : command.samples) {
    const auto lease = scheduler_->FindLease(sample.lease_id);
    if (lease != nullptr && lease->worker_id != command.worker_id) {
      return InvalidArgument("lease {} is not of worker {}", sample.lease_id, command.worker_id);
    }
    ASSAY_ASSIGN_OR_RETURN(const std::shared_ptr<const CellContext> cell,
                           FindContext(sample.unit.cell_id));
    if (cell == nullptr) continue;  // fenced by the store, which has no such unit
    ASSAY_ASSIGN_OR_RETURN(const Items items, Guard(ItemsOf(cell->cell.benchmark_id)));
    ASSAY_RETURN_IF_ERROR(CheckSample(sample, *cell, *items));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<InsertOutcome>> ControlPlane::HandleReport(
    const ReportCommand& command) {
  ASSAY_RETURN_IF_ERROR(CheckInBatch());
  ASSAY_RETURN_IF_ERROR(CheckReport(command));
  std::vector<InsertOutcome> outcomes;
  outcomes.reserve(command.samples.size());
  Actions actions;
  for (const storage::SampleRecord& sample : command.samples) {
    ASSAY_ASSIGN_OR_RETURN(const storage::ControlStore::InsertedSample inserted,
                           Guard(store_->InsertSample(sample, now_us_)));
    outcomes.push_back(inserted.outcome);
    switch (inserted.outcome) {
      case InsertOutcome::kDuplicate:
        ++batch_counters_.num_duplicates;
        break;
      case InsertOutcome::kFenced:
        ++batch_counters_.num_fenced;
        // Common after a partition: in the log, not in the table of events.
        batch_events_.push_back({.kind = "sample_fenced",
                                 .cell_id = sample.unit.cell_id,
                                 .worker_id = command.worker_id,
                                 .detail_json = nlohmann::json{
                                     {"lease_id", sample.lease_id},
                                     {"item_index", sample.unit.item_index},
                                     {"repeat", sample.unit.repeat},
                                     {"epoch",
                                      sample.epoch}}.dump()});
        break;
      case InsertOutcome::kAccepted: {
        ++batch_counters_.num_accepted;
        constexpr int32_t kVerdictCorrect = 1;
        const bool correct = sample.grade && sample.grade->verdict == kVerdictCorrect;
        scheduler_->OnSampleStored({sample.unit, command.worker_id, command.incarnation,
                                    sample.completion_tokens, correct},
                                   now_, &actions);
        break;
      }
    }
  }
  ASSAY_RETURN_IF_ERROR(Guard(Apply(actions)));
  return outcomes;
}

absl::Status ControlPlane::HandleJobReport(const JobReport& report) {
  ASSAY_RETURN_IF_ERROR(CheckInBatch());
  const absl::StatusOr<storage::JobRecord> job = store_->LoadJob(report.job_id);
  if (absl::IsNotFound(job.status())) return job.status();
  ASSAY_RETURN_IF_ERROR(Guard(job.status()));
  if (job->worker_id != report.worker_id) {
    return FailedPrecondition("job {} is not of worker {}", report.job_id, report.worker_id);
  }
  // A retry of a report whose answer was lost.
  if (job->state == storage::JobState::kDone && job->epoch == report.epoch &&
      report.error.empty()) {
    return absl::OkStatus();
  }
  Actions actions;
  storage::EventRecord event{.worker_id = report.worker_id};
  if (report.error.empty()) {
    const absl::Status completed =
        store_->CompleteJob(report.job_id, report.epoch, report.duration_us, now_us_);
    if (absl::IsFailedPrecondition(completed)) return completed;
    ASSAY_RETURN_IF_ERROR(Guard(completed));
    ASSAY_RETURN_IF_ERROR(Guard(store_->SetArtifactState(
        job->artifact_id, storage::ArtifactState::kReady, report.manifest_sha256)));
    scheduler_->OnJobDone(report.job_id, job->artifact_id, &actions);
    event.kind = "job_done";
  } else {
    const bool give_up = scheduler_->WouldGiveUp(report.job_id, report.infrastructure);
    const absl::Status failed = store_
                                    ->FailJob(report.job_id, report.epoch, report.error,
                                              report.infrastructure, give_up, now_us_)
                                    .status();
    if (absl::IsFailedPrecondition(failed)) return failed;
    ASSAY_RETURN_IF_ERROR(Guard(failed));
    if (give_up) {
      ASSAY_RETURN_IF_ERROR(
          Guard(store_->SetArtifactState(job->artifact_id, storage::ArtifactState::kFailed, "")));
    }
    scheduler_->OnJobFailed(report.job_id, job->artifact_id, give_up, report.error, now_, &actions);
    event.kind = give_up ? "job_failed" : "job_retried";
  }
  event.detail_json = nlohmann::json{{"job_id", report.job_id}, {"error", report.error}}.dump(
      -1, ' ', false, nlohmann::json::error_handler_t::replace);
  ASSAY_RETURN_IF_ERROR(Guard(RecordEvent(std::move(event))));
  return Guard(Apply(actions));
}

}  // namespace assay::coordinator
