// The paths that a monitor asks: /metrics for Prometheus, /healthz for a load balancer or systemd.
#pragma once

#include <absl/status/statusor.h>

#include <memory>
#include <string>

#include "coordinator/api/api_context.h"
#include "coordinator/api/rpc_counter.h"
#include "coordinator/metrics/http_server.h"

namespace assay::coordinator {

// Serves both on `listen`; HttpServer::Start's errors. `api` and `rpcs` outlive the server.
//
// /healthz says 200 when the control plane has just committed, 503 with the reason when it could
// not: then nothing that anybody asks for can be done.
absl::StatusOr<std::unique_ptr<HttpServer>> ServeMetrics(const std::string& listen,
                                                         const ApiContext* api,
                                                         const RpcCounter* rpcs);

}  // namespace assay::coordinator
