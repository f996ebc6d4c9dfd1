#include "coordinator/api/metrics_endpoint.h"

#include "base/status.h"
#include "coordinator/metrics/exposition.h"
#include "coordinator/metrics/metrics.h"

namespace assay::coordinator {
namespace {

HttpResponse Unhealthy(const absl::Status& status) {
  return {.status = 503, .body = Message(status) + "\n"};
}

absl::StatusOr<std::string> ReadMetrics(const ApiContext& api, const RpcCounter& rpcs) {
  // Fresh, so that it is as new as what is read from the database below.
  const std::shared_ptr<const LiveSnapshot> present = api.loop->Snapshot(/*fresh=*/true);
  if (!present) return Unavailable("the coordinator is starting or stopping");
  MetricsInput input;
  input.live = *present;
  ASSAY_ASSIGN_OR_RETURN(const ReadStores::Borrowed store, api.stores->Borrow());
  ASSAY_ASSIGN_OR_RETURN(input.store, store->Totals());
  input.rpcs = rpcs.Counts();
  input.process = ReadProcessStats();
  return RenderMetrics(input);
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> ServeMetrics(const std::string& listen,
                                                         const ApiContext* api,
                                                         const RpcCounter* rpcs) {
  HttpServer::Options options;
  options.listen = listen;
  options.handlers["/metrics"] = [api, rpcs] {
    absl::StatusOr<std::string> text = ReadMetrics(*api, *rpcs);
    if (!text.ok()) return Unhealthy(text.status());
    return HttpResponse{.content_type = Exposition::kContentType, .body = *std::move(text)};
  };
  options.handlers["/healthz"] = [api] {
    const absl::Status committed = api->loop->Run([](ControlPlane&) {});
    return committed.ok() ? HttpResponse{.body = "ok\n"} : Unhealthy(committed);
  };
  return HttpServer::Start(std::move(options));
}

}  // namespace assay::coordinator
