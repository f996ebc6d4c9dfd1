// What the services share.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/model_files.h"
#include "base/status.h"
#include "coordinator/api/grpc_status.h"
#include "coordinator/api/read_stores.h"
#include "coordinator/api/sync_stream.h"
#include "coordinator/api/task_pool.h"
#include "coordinator/api/watch_hub.h"
#include "coordinator/auth/doorkeeper.h"
#include "coordinator/auth/rate_limiter.h"
#include "coordinator/auth/token_book.h"
#include "coordinator/control/control_loop.h"
#include "coordinator/planner/plan_sweep.h"
#include "storage/artifacts/artifact_store.h"

namespace assay::coordinator {

// Everything outlives the services. Services run on gRPC's threads and hand on: mutations of
// workers to `loop`, what reads or waits to `readers`, artifacts to `transfers`.
struct ApiContext {
  const Clock* clock = nullptr;
  ControlLoop* loop = nullptr;
  StreamRegistry* streams = nullptr;
  ReadStores* stores = nullptr;
  storage::ArtifactStore* artifacts = nullptr;
  TaskPool* readers = nullptr;
  TaskPool* transfers = nullptr;
  WatchHub* watches = nullptr;
  PlannerRoots roots;
  ModelHasher* hasher = nullptr;
  const std::atomic<bool>* stopping = nullptr;  // long work looks now and then
  TokenBook* tokens = nullptr;
  const Doorkeeper* door = nullptr;  // null without TLS: every caller is local
  RateLimiter* limiter = nullptr;
  std::string query_program;  // query_process.h
};

// Who has made this call.
inline Caller CallerOf(const ApiContext& api, const grpc::CallbackServerContext& context) {
  if (api.door == nullptr) return {.kind = Caller::Kind::kLocal};
  return api.door->Identify(*context.auth_context(), context.client_metadata());
}

// RESOURCE_EXHAUSTED when the caller of this unary call has called too often.
inline absl::Status AdmitCall(const ApiContext& api, const grpc::CallbackServerContext& context) {
  const std::string key = CallerOf(api, context).key();
  // Without TLS the connection is all that is known of a caller.
  if (api.limiter->Admit(key.empty() ? context.peer() : key)) return absl::OkStatus();
  return ResourceExhausted(
      "more than {} calls a second: call less often, or raise --max-calls-per-second of the "
      "coordinator",
      api.limiter->calls_per_s());
}

// Runs `answer` on a reader thread and finishes the call with its status. UNAVAILABLE when too many
// wait.
template <typename Answer>
grpc::ServerUnaryReactor* AnswerOnReader(const ApiContext& api,
                                         grpc::CallbackServerContext* context, Answer answer) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  if (const absl::Status admitted = AdmitCall(api, *context); !admitted.ok()) {
    reactor->Finish(ToGrpc(admitted));
    return reactor;
  }
  const bool posted = api.readers->Post(
      [reactor, answer = std::move(answer)] { reactor->Finish(ToGrpc(answer())); });
  if (!posted) {
    reactor->Finish({grpc::StatusCode::UNAVAILABLE, "too many requests wait; try again"});
  }
  return reactor;
}

}  // namespace assay::coordinator
