// Jobs that are not units: making an artifact, and telling the coordinator.
#include <filesystem>

#include "base/log.h"
#include "base/status.h"
#include "worker/agent/agent.h"
#include "worker/wire/utf8.h"

namespace assay::worker {
namespace {

constexpr absl::Duration kFirstRetry = absl::Milliseconds(200);
constexpr absl::Duration kLongestRetry = absl::Seconds(10);

// The coordinator is away or busy: the same call may work later.
bool IsTransient(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kAborted:
      return true;
    default:
      return false;
  }
}

}  // namespace

void Agent::OnJobGrant(const v1::JobGrant& job) {
  bool working = false;
  {
    const std::lock_guard lock(mutex_);
    working = phase_ == Phase::kWorking;
  }
  if (working && job.slot_index() >= 0 && job.slot_index() < std::ssize(slots_)) {
    slots_[static_cast<size_t>(job.slot_index())]->EnqueueJob(job);
    return;
  }
  spdlog::warn("job {} for slot {} is not taken: {}", job.job_id(), job.slot_index(),
               working ? "there is no such slot" : "the worker is stopping");
  v1::CompleteJobRequest request;
  request.set_worker_id(options_.worker_id);
  request.set_incarnation(incarnation_);
  request.set_job_id(job.job_id());
  request.set_epoch(job.epoch());
  request.set_infrastructure(true);
  request.set_error(working ? "there is no such slot" : "the worker is stopping");
  // Once: when this gets lost, the job's lease runs out.
  (void)client_->CompleteJob(request);
}

absl::StatusOr<JobFolders> Agent::PrepareJob(const v1::JobGrant& job) {
  if (!job.has_quantize()) {
    return InvalidArgument("job {} is of a kind that this version does not know", job.job_id());
  }
  const v1::ModelRef& model = job.quantize().model();
  if (!storage::IsArtifactKey(model.artifact_key())) {
    return InvalidArgument("job {}: '{}' is no artifact key", job.job_id(), model.artifact_key());
  }
  JobFolders folders;
  if (artifacts_->Has(model.artifact_key())) {
    folders.is_made = true;
    return folders;
  }
  ASSAY_ASSIGN_OR_RETURN(folders.model_dir, models_->FindBase(model));
  ASSAY_ASSIGN_OR_RETURN(folders.output_dir, artifacts_->MakeWorkFolder());
  // The quantizer makes the folder itself, complete or not at all; the name stays ours.
  std::error_code error;
  if (!std::filesystem::remove(folders.output_dir, error)) {
    return Unavailable("{}: cannot be used: {}", folders.output_dir, error.message());
  }
  return folders;
}

void Agent::FinishJob(const v1::JobGrant& job, const JobFolders& folders, absl::Status status,
                      bool infrastructure, absl::Duration duration) {
  v1::CompleteJobRequest request;
  request.set_worker_id(options_.worker_id);
  request.set_incarnation(incarnation_);
  request.set_job_id(job.job_id());
  request.set_epoch(job.epoch());
  request.set_duration_us(absl::ToInt64Microseconds(duration));
  if (status.ok()) {
    // From before it is in its place: another slot may be making room.
    const std::string user = fmt::format("job {}", job.job_id());
    models_->Keep(job.quantize().model().artifact_key(), user);
    status = PublishJob(job, folders, &request);
    models_->LetGo(user);
    infrastructure = true;  // the quantizer did its part
  } else if (!folders.output_dir.empty()) {
    std::error_code ignored;
    std::filesystem::remove_all(folders.output_dir, ignored);
  }
  if (!status.ok()) {
    spdlog::error("job {}: {}", job.job_id(), Message(status));
    request.set_error(ValidUtf8(Message(status)));
    request.set_infrastructure(infrastructure);
  }
  CompleteJob(std::move(request));
}

absl::Status Agent::PublishJob(const v1::JobGrant& job, const JobFolders& folders,
                               v1::CompleteJobRequest* request) {
  const std::string& key = job.quantize().model().artifact_key();
  storage::Manifest manifest;
  if (folders.is_made) {
    ASSAY_ASSIGN_OR_RETURN(manifest, artifacts_->ReadManifest(key));
  } else {
    ASSAY_ASSIGN_OR_RETURN(manifest, artifacts_->Publish(folders.output_dir, key));
    spdlog::info("job {}: artifact {} of {} bytes", job.job_id(), key.substr(0, 12),
                 manifest.total_bytes());
  }
  request->set_artifact_key(key);
  request->set_artifact_manifest_sha256(manifest.manifest_sha256);
  return RetryWhileAway("uploading artifact " + key.substr(0, 12),
                        [&] { return client_->UploadArtifact(*artifacts_, key); });
}

void Agent::CompleteJob(v1::CompleteJobRequest request) {
  const std::string what = fmt::format("completing job {}", request.job_id());
  absl::Status told = RetryWhileAway(what, [&] { return client_->CompleteJob(request); });
  if (told.code() == absl::StatusCode::kFailedPrecondition) {
    spdlog::info("job {} belongs to another worker by now", request.job_id());
    return;
  }
  if (told.ok() || finished()) return;
  spdlog::error("job {}: the coordinator does not take its end: {}", request.job_id(),
                Message(told));
  if (!request.error().empty()) return;
  // What was made is not what the coordinator has or wants: without a word the job would be leased
  // to this worker until it is given up by the clock, again and again.
  request.set_error(ValidUtf8(Message(told)));
  request.set_infrastructure(true);
  told = RetryWhileAway(what, [&] { return client_->CompleteJob(request); });
  if (!told.ok()) spdlog::error("job {}: {}", request.job_id(), Message(told));
}

absl::Status Agent::RetryWhileAway(const std::string& what,
                                   const std::function<absl::Status()>& call) {
  Backoff backoff(kFirstRetry, kLongestRetry);
  while (true) {
    const absl::Status status = call();
    if (status.ok() || !IsTransient(status)) return status;
    spdlog::warn("{}: {}; trying again", what, Message(status));
    const absl::Duration wait = backoff.Next();
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, absl::ToChronoMilliseconds(wait),
                      [this] { return phase_ == Phase::kEnded; });
    if (phase_ == Phase::kEnded) return status;
  }
}

}  // namespace assay::worker
