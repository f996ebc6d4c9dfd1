#include "coordinator/api/worker_service.h"

#include "base/status.h"
#include "coordinator/api/artifact_transfer.h"
#include "coordinator/api/convert_worker.h"
#include "coordinator/api/grpc_status.h"
#include "coordinator/api/limits.h"

namespace assay::coordinator {
namespace {

v1::ReportSamplesResponse::Outcome ToProto(storage::InsertOutcome outcome) {
  switch (outcome) {
    case storage::InsertOutcome::kAccepted:
      return v1::ReportSamplesResponse::OUTCOME_ACCEPTED;
    case storage::InsertOutcome::kDuplicate:
      return v1::ReportSamplesResponse::OUTCOME_DUPLICATE;
    case storage::InsertOutcome::kFenced:
      break;
  }
  return v1::ReportSamplesResponse::OUTCOME_FENCED;
}

// What the job says it made is here, whole.
absl::Status CheckArtifact(const storage::ArtifactStore& artifacts, const JobReport& report) {
  if (!storage::IsArtifactKey(report.artifact_key)) {
    return InvalidArgument("artifact_key '{}' is not a content key", report.artifact_key);
  }
  ASSAY_ASSIGN_OR_RETURN(const storage::Manifest manifest,
                         artifacts.ReadManifest(report.artifact_key));
  if (manifest.manifest_sha256 != report.manifest_sha256) {
    return DataLoss("artifact {}: stored with manifest {}, reported with {}", report.artifact_key,
                    manifest.manifest_sha256, report.manifest_sha256);
  }
  return absl::OkStatus();
}

}  // namespace

grpc::ServerBidiReactor<v1::SyncRequest, v1::SyncResponse>* WorkerServiceImpl::Sync(
    grpc::CallbackServerContext* context) {
  return SyncStream::Start(api_->loop, api_->streams, CallerOf(*api_, *context));
}

grpc::ServerUnaryReactor* WorkerServiceImpl::ReportSamples(grpc::CallbackServerContext* context,
                                                           const v1::ReportSamplesRequest* request,
                                                           v1::ReportSamplesResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  absl::Status status = AdmitCall(*api_, *context);
  if (status.ok()) status = CallerOf(*api_, *context).CheckIsWorker(request->worker_id());
  if (status.ok()) status = CheckReport(*request);
  if (!status.ok()) {
    reactor->Finish(ToGrpc(status));
    return reactor;
  }
  absl::StatusOr<ReportCommand> command = FromProto(*request);
  if (!command.ok()) {
    reactor->Finish(ToGrpc(command.status()));
    return reactor;
  }
  using Outcomes = absl::StatusOr<std::vector<storage::InsertOutcome>>;
  const auto outcomes = std::make_shared<Outcomes>();
  api_->loop->Post([outcomes, command = *std::move(command)](
                       ControlPlane& plane) { *outcomes = plane.HandleReport(command); },
                   [outcomes, reactor, response](const absl::Status& committed) {
                     if (committed.ok() && outcomes->ok()) {
                       for (const storage::InsertOutcome outcome : **outcomes) {
                         response->add_outcomes(ToProto(outcome));
                       }
                     }
                     reactor->Finish(ToGrpc(committed.ok() ? outcomes->status() : committed));
                   },
                   request->ByteSizeLong());
  return reactor;
}

grpc::ServerUnaryReactor* WorkerServiceImpl::CompleteJob(grpc::CallbackServerContext* context,
                                                         const v1::CompleteJobRequest* request,
                                                         v1::CompleteJobResponse*) {
  return AnswerOnReader(*api_, context, [api = api_, context, request]() -> absl::Status {
    ASSAY_RETURN_IF_ERROR(CallerOf(*api, *context).CheckIsWorker(request->worker_id()));
    ASSAY_RETURN_IF_ERROR(CheckCompleteJob(*request));
    const JobReport report = FromProto(*request);
    if (report.error.empty()) ASSAY_RETURN_IF_ERROR(CheckArtifact(*api->artifacts, report));
    absl::Status outcome;
    ASSAY_RETURN_IF_ERROR(
        api->loop->Run([&](ControlPlane& plane) { outcome = plane.HandleJobReport(report); }));
    return outcome;
  });
}

grpc::ServerReadReactor<v1::UploadArtifactRequest>* WorkerServiceImpl::UploadArtifact(
    grpc::CallbackServerContext* context, v1::UploadArtifactResponse*) {
  return StartUpload(api_->artifacts, api_->transfers,
                     MayTransfer(CallerOf(*api_, *context), &ControlPlane::MakesArtifact));
}

grpc::ServerWriteReactor<v1::FetchArtifactResponse>* WorkerServiceImpl::FetchArtifact(
    grpc::CallbackServerContext* context, const v1::FetchArtifactRequest* request) {
  return StartFetch(context, request->artifact_key(), api_->artifacts, api_->transfers,
                    MayTransfer(CallerOf(*api_, *context), &ControlPlane::NeedsArtifact));
}

// With TLS a worker moves only what its present work is about: others' artifacts are not its
// business, and nobody else may put a file in the place of one that is being made.
ArtifactGuard WorkerServiceImpl::MayTransfer(
    const Caller& caller,
    bool (ControlPlane::*is_its_business)(const std::string&, const std::string&) const) {
  return [api = api_, caller, is_its_business](const std::string& key) -> absl::Status {
    if (caller.kind == Caller::Kind::kLocal) return absl::OkStatus();
    bool allowed = false;
    ASSAY_RETURN_IF_ERROR(api->loop->Run(
        [&](ControlPlane& plane) { allowed = (plane.*is_its_business)(caller.name, key); }));
    if (allowed) return absl::OkStatus();
    return PermissionDenied("artifact {}: worker {} has no work now that it belongs to", key,
                            caller.name);
  };
}

}  // namespace assay::coordinator
