#include "coordinator/api/sweep_service.h"

#include <google/protobuf/util/message_differencer.h>

#include <algorithm>
#include <charconv>

#include "base/status.h"
#include "coordinator/api/limits.h"
#include "coordinator/api/make_plan.h"
#include "coordinator/api/stream_writer.h"
#include "coordinator/api/sweep_views.h"

namespace assay::coordinator {
namespace {

constexpr int kDefaultPage = 100;
constexpr int kMaxPage = 1000;
constexpr absl::Duration kDefaultInterval = absl::Milliseconds(500);
constexpr absl::Duration kShortestInterval = absl::Milliseconds(100);

// Finds the sweep, which must be the caller's to change, has the control plane do something with
// it, and reads it again.
template <typename Handle>
absl::Status Change(const ApiContext& api, const Caller& caller, const std::string& request_id,
                    const std::string& sweep_id, v1::Sweep* sweep, Handle handle) {
  ASSAY_RETURN_IF_ERROR(CheckRequestId(request_id));
  ASSAY_RETURN_IF_ERROR(CheckSweepId(sweep_id));
  ASSAY_ASSIGN_OR_RETURN(const ReadStores::Borrowed store, api.stores->Borrow());
  ASSAY_ASSIGN_OR_RETURN(const storage::SweepRecord record, store->FindSweep(sweep_id));
  ASSAY_RETURN_IF_ERROR(caller.CheckMayChange(record.owner));
  absl::Status outcome;
  ASSAY_RETURN_IF_ERROR(
      api.loop->Run([&](ControlPlane& plane) { outcome = handle(plane, record.id); }));
  ASSAY_RETURN_IF_ERROR(outcome);
  ASSAY_ASSIGN_OR_RETURN(*sweep, ReadSweep(*store, api.loop, record.sweep_id,
                                           /*with_cells=*/true, /*fresh=*/true));
  return absl::OkStatus();
}

// A person's sweeps are her own: only an admin, and who needs no token, may name another owner.
std::string OwnerOf(const Caller& caller, const std::string& wanted) {
  if (caller.kind == Caller::Kind::kLocal) return wanted;
  return caller.is_admin() && !wanted.empty() ? wanted : caller.name;
}

absl::Status Submit(const ApiContext& api, const Caller& caller,
                    const v1::SubmitSweepRequest& request, v1::SubmitSweepResponse* response) {
  ASSAY_RETURN_IF_ERROR(CheckRequestId(request.request_id()));
  ASSAY_RETURN_IF_ERROR(CheckSpec(request.spec_yaml(), request.spec_name()));
  if (request.owner().size() > 200) {
    return InvalidArgument("owner has {} bytes; at most 200 are allowed", request.owner().size());
  }
  ASSAY_ASSIGN_OR_RETURN(const ReadStores::Borrowed store, api.stores->Borrow());
  ASSAY_ASSIGN_OR_RETURN(MadePlan made,
                         MakePlan(api, *store, request.spec_yaml(), request.spec_name()));
  *response->mutable_plan() = std::move(made.proto);
  const std::string owner = OwnerOf(caller, request.owner().empty() ? made.owner : request.owner());
  const SubmitCommand command{std::move(made.sweep), request.request_id(), owner,
                              request.spec_yaml()};
  absl::StatusOr<storage::ControlStore::InsertedSweep> inserted;
  ASSAY_RETURN_IF_ERROR(
      api.loop->Run([&](ControlPlane& plane) { inserted = plane.HandleSubmit(command); }));
  ASSAY_RETURN_IF_ERROR(inserted.status());
  response->set_sweep_id(inserted->sweep_id);
  return absl::OkStatus();
}

absl::Status List(const ApiContext& api, const v1::ListSweepsRequest& request,
                  v1::ListSweepsResponse* response) {
  const int page_size =
      request.page_size() == 0 ? kDefaultPage : std::clamp(request.page_size(), 1, kMaxPage);
  int64_t before_id = 0;
  const std::string& token = request.page_token();
  if (!token.empty()) {
    const auto parsed = std::from_chars(token.data(), token.data() + token.size(), before_id);
    if (parsed.ec != std::errc() || parsed.ptr != token.data() + token.size() || before_id <= 0) {
      return InvalidArgument("page_token is not one that an earlier page gave");
    }
  }
  ASSAY_ASSIGN_OR_RETURN(const ReadStores::Borrowed store, api.stores->Borrow());
  ASSAY_ASSIGN_OR_RETURN(const std::vector<storage::SweepRecord> records,
                         store->ListSweeps(page_size, before_id));
  for (const storage::SweepRecord& record : records) {
    ASSAY_ASSIGN_OR_RETURN(*response->add_sweeps(),
                           ReadSweep(*store, api.loop, record, /*with_cells=*/false,
                                     /*fresh=*/false));
  }
  if (records.size() == static_cast<size_t>(page_size)) {
    response->set_next_page_token(std::to_string(records.back().id));
  }
  return absl::OkStatus();
}

bool IsSettled(v1::SweepState state) {
  return state == v1::SWEEP_STATE_DONE || state == v1::SWEEP_STATE_FAILED ||
         state == v1::SWEEP_STATE_CANCELLED;
}

// One watcher of one sweep, on the hub's thread.
class SweepWatch {
 public:
  SweepWatch(const ApiContext* api, std::string sweep_id,
             std::shared_ptr<WatchWriter<v1::WatchSweepResponse>> writer)
      : api_(api), sweep_id_(std::move(sweep_id)), writer_(std::move(writer)) {}

  // False when the watch is over.
  bool Step() {
    if (writer_->gone()) {
      writer_->End(grpc::Status::CANCELLED);
      return false;
    }
    if (!writer_->ready()) return true;
    v1::WatchSweepResponse response;
    if (const absl::Status read = Read(&response); !read.ok()) {
      writer_->End(ToGrpc(read));
      return false;
    }
    if (IsSettled(response.sweep().state())) {
      writer_->SendLast(std::move(response));
      return false;
    }
    if (!google::protobuf::util::MessageDifferencer::Equals(response, last_)) {
      last_ = response;
      writer_->Send(std::move(response));
    }
    return true;
  }
  void Abandon() {
    writer_->End({grpc::StatusCode::UNAVAILABLE, "the coordinator is stopping; watch again later"});
  }

 private:
  absl::Status Read(v1::WatchSweepResponse* response) {
    ASSAY_ASSIGN_OR_RETURN(const ReadStores::Borrowed store, api_->stores->Borrow());
    ASSAY_ASSIGN_OR_RETURN(*response->mutable_sweep(),
                           ReadSweep(*store, api_->loop, sweep_id_, /*with_cells=*/true,
                                     /*fresh=*/false));
    return absl::OkStatus();
  }

  const ApiContext* const api_;
  const std::string sweep_id_;
  const std::shared_ptr<WatchWriter<v1::WatchSweepResponse>> writer_;
  v1::WatchSweepResponse last_;
};

}  // namespace

grpc::ServerUnaryReactor* SweepServiceImpl::PlanSweep(grpc::CallbackServerContext* context,
                                                      const v1::PlanSweepRequest* request,
                                                      v1::PlanSweepResponse* response) {
  return AnswerOnReader(*api_, context, [api = api_, request, response]() -> absl::Status {
    ASSAY_RETURN_IF_ERROR(CheckSpec(request->spec_yaml(), request->spec_name()));
    ASSAY_ASSIGN_OR_RETURN(const ReadStores::Borrowed store, api->stores->Borrow());
    ASSAY_ASSIGN_OR_RETURN(MadePlan made,
                           MakePlan(*api, *store, request->spec_yaml(), request->spec_name()));
    *response->mutable_plan() = std::move(made.proto);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* SweepServiceImpl::SubmitSweep(grpc::CallbackServerContext* context,
                                                        const v1::SubmitSweepRequest* request,
                                                        v1::SubmitSweepResponse* response) {
  return AnswerOnReader(*api_, context, [api = api_, context, request, response] {
    return Submit(*api, CallerOf(*api, *context), *request, response);
  });
}

grpc::ServerUnaryReactor* SweepServiceImpl::GetSweep(grpc::CallbackServerContext* context,
                                                     const v1::GetSweepRequest* request,
                                                     v1::GetSweepResponse* response) {
  return AnswerOnReader(*api_, context, [api = api_, request, response]() -> absl::Status {
    ASSAY_RETURN_IF_ERROR(CheckSweepId(request->sweep_id()));
    ASSAY_ASSIGN_OR_RETURN(const ReadStores::Borrowed store, api->stores->Borrow());
    ASSAY_ASSIGN_OR_RETURN(const storage::SweepRecord record,
                           store->FindSweep(request->sweep_id()));
    ASSAY_ASSIGN_OR_RETURN(
        *response->mutable_sweep(),
        ReadSweep(*store, api->loop, record, /*with_cells=*/true, /*fresh=*/true));
    response->mutable_sweep()->set_spec_yaml(record.spec_yaml);
    response->mutable_sweep()->set_resolved_yaml(record.resolved_yaml);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* SweepServiceImpl::ListSweeps(grpc::CallbackServerContext* context,
                                                       const v1::ListSweepsRequest* request,
                                                       v1::ListSweepsResponse* response) {
  return AnswerOnReader(*api_, context,
                        [api = api_, request, response] { return List(*api, *request, response); });
}

grpc::ServerWriteReactor<v1::WatchSweepResponse>* SweepServiceImpl::WatchSweep(
    grpc::CallbackServerContext*, const v1::WatchSweepRequest* request) {
  const auto writer = WatchWriter<v1::WatchSweepResponse>::Make();
  if (const absl::Status status = CheckSweepId(request->sweep_id()); !status.ok()) {
    writer->End(ToGrpc(status));
    return writer.get();
  }
  const absl::Duration interval = request->min_interval_us() <= 0
                                      ? kDefaultInterval
                                      : std::clamp(absl::Microseconds(request->min_interval_us()),
                                                   kShortestInterval, absl::Minutes(10));
  const auto watch = std::make_shared<SweepWatch>(api_, request->sweep_id(), writer);
  api_->watches->Add(
      interval, [watch] { return watch->Step(); }, [watch] { watch->Abandon(); });
  return writer.get();
}

grpc::ServerUnaryReactor* SweepServiceImpl::CancelSweep(grpc::CallbackServerContext* context,
                                                        const v1::CancelSweepRequest* request,
                                                        v1::CancelSweepResponse* response) {
  return AnswerOnReader(*api_, context, [api = api_, context, request, response] {
    return Change(*api, CallerOf(*api, *context), request->request_id(), request->sweep_id(),
                  response->mutable_sweep(),
                  [](ControlPlane& plane, int64_t id) { return plane.HandleCancel(id); });
  });
}

grpc::ServerUnaryReactor* SweepServiceImpl::PauseSweep(grpc::CallbackServerContext* context,
                                                       const v1::PauseSweepRequest* request,
                                                       v1::PauseSweepResponse* response) {
  return AnswerOnReader(*api_, context, [api = api_, context, request, response] {
    return Change(*api, CallerOf(*api, *context), request->request_id(), request->sweep_id(),
                  response->mutable_sweep(),
                  [](ControlPlane& plane, int64_t id) { return plane.HandlePause(id); });
  });
}

grpc::ServerUnaryReactor* SweepServiceImpl::ResumeSweep(grpc::CallbackServerContext* context,
                                                        const v1::ResumeSweepRequest* request,
                                                        v1::ResumeSweepResponse* response) {
  return AnswerOnReader(*api_, context, [api = api_, context, request, response] {
    return Change(*api, CallerOf(*api, *context), request->request_id(), request->sweep_id(),
                  response->mutable_sweep(),
                  [](ControlPlane& plane, int64_t id) { return plane.HandleResume(id); });
  });
}

grpc::ServerUnaryReactor* SweepServiceImpl::RetrySweep(grpc::CallbackServerContext* context,
                                                       const v1::RetrySweepRequest* request,
                                                       v1::RetrySweepResponse* response) {
  return AnswerOnReader(*api_, context, [api = api_, context, request, response] {
    return Change(*api, CallerOf(*api, *context), request->request_id(), request->sweep_id(),
                  response->mutable_sweep(), [&](ControlPlane& plane, int64_t id) -> absl::Status {
                    ASSAY_ASSIGN_OR_RETURN(const RetryResult result,
                                           plane.HandleRetry(id, request->request_id()));
                    response->set_num_units_requeued(result.num_units);
                    response->set_num_jobs_requeued(result.num_jobs);
                    return absl::OkStatus();
                  });
  });
}

}  // namespace assay::coordinator
