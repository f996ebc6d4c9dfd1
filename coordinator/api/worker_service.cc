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
    grpc::CallbackServerContext*) {
  return SyncStream::Start(api_->loop, api_->streams);
}

grpc::ServerUnaryReactor* WorkerServiceImpl::ReportSamples(grpc::CallbackServerContext* context,
                                                           const v1::ReportSamplesRequest* request,
                                                           v1::ReportSamplesResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  if (const absl::Status status = CheckReport(*request); !status.ok()) {
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
                   });
  return reactor;
}

grpc::ServerUnaryReactor* WorkerServiceImpl::CompleteJob(grpc::CallbackServerContext* context,
                                                         const v1::CompleteJobRequest* request,
                                                         v1::CompleteJobResponse*) {
  return AnswerOnReader(*api_, context, [api = api_, request]() -> absl::Status {
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
    grpc::CallbackServerContext*, v1::UploadArtifactResponse*) {
  return StartUpload(api_->artifacts, api_->transfers);
}

grpc::ServerWriteReactor<v1::FetchArtifactResponse>* WorkerServiceImpl::FetchArtifact(
    grpc::CallbackServerContext* context, const v1::FetchArtifactRequest* request) {
  return StartFetch(context, request->artifact_key(), api_->artifacts, api_->transfers);
}

}  // namespace assay::coordinator
