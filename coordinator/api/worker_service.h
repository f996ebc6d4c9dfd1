// WorkerService: what workers call.
#pragma once

#include "assay/v1/worker_service.grpc.pb.h"
#include "coordinator/api/api_context.h"
#include "coordinator/api/artifact_transfer.h"

namespace assay::coordinator {

class WorkerServiceImpl final : public v1::WorkerService::CallbackService {
 public:
  // `api` outlives the service.
  explicit WorkerServiceImpl(const ApiContext* api) : api_(api) {}

  grpc::ServerBidiReactor<v1::SyncRequest, v1::SyncResponse>* Sync(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* ReportSamples(grpc::CallbackServerContext* context,
                                          const v1::ReportSamplesRequest* request,
                                          v1::ReportSamplesResponse* response) override;
  grpc::ServerUnaryReactor* CompleteJob(grpc::CallbackServerContext* context,
                                        const v1::CompleteJobRequest* request,
                                        v1::CompleteJobResponse* response) override;
  grpc::ServerReadReactor<v1::UploadArtifactRequest>* UploadArtifact(
      grpc::CallbackServerContext* context, v1::UploadArtifactResponse* response) override;
  grpc::ServerWriteReactor<v1::FetchArtifactResponse>* FetchArtifact(
      grpc::CallbackServerContext* context, const v1::FetchArtifactRequest* request) override;

 private:
  ArtifactGuard MayTransfer(const Caller& caller,
                            bool (ControlPlane::*is_its_business)(const std::string&,
                                                                  const std::string&) const);

  const ApiContext* const api_;
};

}  // namespace assay::coordinator
