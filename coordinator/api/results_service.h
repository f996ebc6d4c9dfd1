// ResultsService: reads of what is stored, and the one way to put a sample back.
#pragma once

#include "assay/v1/results_service.grpc.pb.h"
#include "coordinator/api/api_context.h"

namespace assay::coordinator {

class ResultsServiceImpl final : public v1::ResultsService::CallbackService {
 public:
  // `api` outlives the service.
  explicit ResultsServiceImpl(const ApiContext* api) : api_(api) {}

  grpc::ServerUnaryReactor* GetResults(grpc::CallbackServerContext* context,
                                       const v1::GetResultsRequest* request,
                                       v1::GetResultsResponse* response) override;
  grpc::ServerUnaryReactor* ListSamples(grpc::CallbackServerContext* context,
                                        const v1::ListSamplesRequest* request,
                                        v1::ListSamplesResponse* response) override;
  grpc::ServerUnaryReactor* GetSample(grpc::CallbackServerContext* context,
                                      const v1::GetSampleRequest* request,
                                      v1::GetSampleResponse* response) override;
  grpc::ServerUnaryReactor* RequeueSample(grpc::CallbackServerContext* context,
                                          const v1::RequeueSampleRequest* request,
                                          v1::RequeueSampleResponse* response) override;
  grpc::ServerUnaryReactor* CompareCells(grpc::CallbackServerContext* context,
                                         const v1::CompareCellsRequest* request,
                                         v1::CompareCellsResponse* response) override;
  grpc::ServerWriteReactor<v1::RunQueryResponse>* RunQuery(
      grpc::CallbackServerContext* context, const v1::RunQueryRequest* request) override;

 private:
  const ApiContext* const api_;
};

}  // namespace assay::coordinator
