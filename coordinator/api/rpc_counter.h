// Counts the calls of every service by method and status code, for the metrics. A stream counts
// once, when it ends with a status.
//
// Thread-safe.
#pragma once

#include <grpcpp/support/server_interceptor.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/metrics/metrics.h"

namespace assay::coordinator {

class RpcCounter {
 public:
  // `method` as gRPC has it: "/assay.v1.SweepService/GetSweep".
  void Add(const std::string& method, grpc::StatusCode code);
  std::vector<RpcCount> Counts() const;

  // What a server that counts here is built with; `this` outlives the server.
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>>
  Interceptors();

 private:
  // Methods come from callers: beyond so many pairs, all count as one method "other".
  static constexpr size_t kMaxPairs = 256;

  mutable std::mutex mutex_;
  std::map<std::pair<std::string, grpc::StatusCode>, int64_t> calls_;  // guarded by mutex_
};

}  // namespace assay::coordinator
