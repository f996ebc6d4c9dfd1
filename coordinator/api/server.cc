#include "coordinator/api/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include "base/address.h"
#include "base/file.h"
#include "base/ids.h"
#include "base/log.h"
#include "base/status.h"
#include "coordinator/api/api_context.h"
#include "coordinator/api/fleet_service.h"
#include "coordinator/api/limits.h"
#include "coordinator/api/metrics_endpoint.h"
#include "coordinator/api/results_service.h"
#include "coordinator/api/rpc_counter.h"
#include "coordinator/api/sweep_service.h"
#include "coordinator/api/token_service.h"
#include "coordinator/api/worker_service.h"

namespace assay::coordinator {
namespace {

constexpr absl::Duration kStopGrace = absl::Seconds(2);
constexpr int kMaxStreamsPerConnection = 4096;
constexpr size_t kMaxWaiting = 256;  // calls that wait for a reader

std::unique_ptr<grpc::Server> BuildServer(const std::string& listen,
                                          const std::shared_ptr<grpc::ServerCredentials>& door,
                                          const std::vector<grpc::Service*>& services,
                                          RpcCounter* rpcs, int* port) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  builder.AddListeningPort(listen, door, port);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  // A second coordinator on the same port must fail, not share its workers.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // A peer that opens calls or connections and does nothing with them holds little.
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, 10'000);
  // Clients ping every 30 s without data; gRPC's default would answer with GOAWAY
  // ENHANCE_YOUR_CALM below 5 minutes.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  for (grpc::Service* service : services) builder.RegisterService(service);
  builder.experimental().SetInterceptorCreators(rpcs->Interceptors());
  return builder.BuildAndStart();
}

}  // namespace

// In the order of construction; each uses what stands above it.
struct Server::Parts {
  Options options;
  std::unique_ptr<storage::ControlStore> store;
  std::unique_ptr<storage::ArtifactStore> artifacts;
  std::unique_ptr<ControlPlane> plane;
  StreamRegistry streams;
  std::unique_ptr<ControlLoop> loop;
  std::unique_ptr<ReadStores> stores;
  ModelHasher hasher;
  TokenBook tokens;
  std::unique_ptr<RateLimiter> limiter;
  std::shared_ptr<Doorkeeper> door;  // null without TLS
  std::unique_ptr<TaskPool> readers;
  std::unique_ptr<TaskPool> transfers;
  std::unique_ptr<WatchHub> watches;
  ApiContext api;
  std::unique_ptr<WorkerServiceImpl> worker_service;
  std::unique_ptr<SweepServiceImpl> sweep_service;
  std::unique_ptr<FleetServiceImpl> fleet_service;
  std::unique_ptr<ResultsServiceImpl> results_service;
  std::unique_ptr<TokenServiceImpl> token_service;
  RpcCounter rpcs;
  std::unique_ptr<grpc::Server> server;
  int port = 0;
  std::unique_ptr<HttpServer> metrics;  // null when not asked for
  bool stopped = false;
  std::atomic<bool> stopping = false;
};

Server::Server(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

Server::~Server() { Stop(); }

int Server::port() const { return parts_->port; }

int Server::metrics_port() const { return parts_->metrics ? parts_->metrics->port() : 0; }

absl::StatusOr<std::unique_ptr<Server>> Server::Start(Options options, const Clock* clock) {
  std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
  if (options.tls.any()) {
    ASSAY_ASSIGN_OR_RETURN(credentials, MakeTlsCredentials(options.tls));
  } else if (!IsLoopbackAddress(options.listen)) {
    return InvalidArgument(
        "--listen {}: only loopback addresses (127.0.0.1, [::1], localhost) are served without "
        "TLS; give --tls-cert, --tls-key and --tls-ca (deploy/certs.sh makes them)",
        options.listen);
  }
  if (options.control.make_id == nullptr) {
    options.control.make_id = [](const std::string& prefix) { return RandomId(prefix); };
  }
  auto parts = std::make_unique<Parts>();
  parts->options = options;
  ASSAY_RETURN_IF_ERROR(MakeDirectories(options.data_dir));
  ASSAY_ASSIGN_OR_RETURN(parts->store, storage::ControlStore::Open(options.data_dir + "/assay.db"));
  ASSAY_ASSIGN_OR_RETURN(parts->artifacts,
                         storage::ArtifactStore::Open(options.data_dir + "/artifacts"));
  ASSAY_ASSIGN_OR_RETURN(parts->plane,
                         ControlPlane::Open(parts->store.get(), clock, options.control));
  Parts* const p = parts.get();
  parts->loop = std::make_unique<ControlLoop>(
      parts->plane.get(), parts->store.get(),
      [p](const std::vector<OutgoingMessage>& messages) {
        p->streams.Deliver(messages, p->options.control);
      },
      options.loop);
  parts->stores = std::make_unique<ReadStores>(parts->store->path());
  parts->readers = std::make_unique<TaskPool>(options.num_readers, kMaxWaiting);
  parts->transfers = std::make_unique<TaskPool>(options.num_transfers, kMaxWaiting);
  parts->watches = std::make_unique<WatchHub>();
  parts->api = {clock,
                parts->loop.get(),
                &parts->streams,
                parts->stores.get(),
                parts->artifacts.get(),
                parts->readers.get(),
                parts->transfers.get(),
                parts->watches.get(),
                options.roots,
                &parts->hasher};
  parts->limiter = std::make_unique<RateLimiter>(options.max_calls_per_s, clock);
  parts->api.tokens = &parts->tokens;
  parts->api.stopping = &parts->stopping;
  parts->api.query_program = options.query_program;
  parts->api.limiter = parts->limiter.get();
  if (options.tls.any()) {
    ASSAY_ASSIGN_OR_RETURN(const std::vector<storage::TokenRecord> tokens,
                           parts->store->LoadTokens());
    parts->tokens.Reset(tokens);
    if (tokens.empty()) {
      spdlog::warn(
          "there is no token yet: nobody can submit until `assay-coordinator token create "
          "--role admin --data {}` has made one (stop this program first)",
          options.data_dir);
    }
    parts->door = std::make_shared<Doorkeeper>(
        &parts->tokens, clock, [p](const std::string& token_id, int64_t time_us) {
          p->loop->Post([token_id, time_us](
                            ControlPlane& plane) { (void)plane.HandleTokenUse(token_id, time_us); },
                        [](const absl::Status&) {});
        });
    credentials->SetAuthMetadataProcessor(parts->door);
    parts->api.door = parts->door.get();
  }
  parts->worker_service = std::make_unique<WorkerServiceImpl>(&parts->api);
  parts->sweep_service = std::make_unique<SweepServiceImpl>(&parts->api);
  parts->fleet_service = std::make_unique<FleetServiceImpl>(&parts->api);
  parts->results_service = std::make_unique<ResultsServiceImpl>(&parts->api);
  parts->token_service = std::make_unique<TokenServiceImpl>(&parts->api);
  parts->loop->Start();
  std::unique_ptr<Server> server(new Server(std::move(parts)));
  p->server = BuildServer(options.listen, credentials,
                          {p->worker_service.get(), p->sweep_service.get(), p->fleet_service.get(),
                           p->results_service.get(), p->token_service.get()},
                          &p->rpcs, &p->port);
  if (p->server == nullptr || p->port == 0) {
    return Unavailable("cannot listen on {}: the address is in use or not of this machine",
                       options.listen);
  }
  if (!options.metrics_listen.empty()) {
    ASSAY_ASSIGN_OR_RETURN(p->metrics, ServeMetrics(options.metrics_listen, &p->api, &p->rpcs));
  }
  p->server->GetHealthCheckService()->SetServingStatus(true);
  return server;
}

void Server::Stop() {
  Parts& parts = *parts_;
  if (std::exchange(parts.stopped, true)) return;
  parts.stopping = true;
  // Watches and conversations first: they would hold the server's shutdown for ever.
  parts.metrics.reset();
  parts.watches->Stop();
  if (parts.server) {
    parts.server->GetHealthCheckService()->SetServingStatus(false);
    parts.streams.CloseAll();
    parts.server->Shutdown(std::chrono::system_clock::now() +
                           absl::ToChronoMilliseconds(kStopGrace));
  }
  // Calls in progress wait for readers, readers for the loop.
  parts.readers->Stop();
  parts.transfers->Stop();
  parts.loop->Stop();
  parts.server.reset();
}

}  // namespace assay::coordinator
