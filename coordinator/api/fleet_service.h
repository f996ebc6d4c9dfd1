// FleetService: workers and events.
#pragma once

#include <atomic>

#include "assay/v1/fleet_service.grpc.pb.h"
#include "coordinator/api/api_context.h"

namespace assay::coordinator {

class FleetServiceImpl final : public v1::FleetService::CallbackService {
 public:
  // `api` outlives the service.
  explicit FleetServiceImpl(const ApiContext* api) : api_(api) {}

  grpc::ServerUnaryReactor* ListWorkers(grpc::CallbackServerContext* context,
                                        const v1::ListWorkersRequest* request,
                                        v1::ListWorkersResponse* response) override;
  grpc::ServerUnaryReactor* DrainWorker(grpc::CallbackServerContext* context,
                                        const v1::DrainWorkerRequest* request,
                                        v1::DrainWorkerResponse* response) override;
  grpc::ServerUnaryReactor* BackupDatabase(grpc::CallbackServerContext* context,
                                           const v1::BackupDatabaseRequest* request,
                                           v1::BackupDatabaseResponse* response) override;
  grpc::ServerWriteReactor<v1::WatchFleetResponse>* WatchFleet(
      grpc::CallbackServerContext* context, const v1::WatchFleetRequest* request) override;
  grpc::ServerWriteReactor<v1::WatchEventsResponse>* WatchEvents(
      grpc::CallbackServerContext* context, const v1::WatchEventsRequest* request) override;

 private:
  const ApiContext* const api_;
  std::atomic<bool> backup_runs_ = false;
};

}  // namespace assay::coordinator
