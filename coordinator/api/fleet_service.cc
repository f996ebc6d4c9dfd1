#include "coordinator/api/fleet_service.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/file.h"
#include "base/log.h"
#include "base/status.h"
#include "coordinator/api/convert_views.h"
#include "coordinator/api/limits.h"
#include "coordinator/api/stream_writer.h"
#include "storage/stores/maintain_database.h"

namespace assay::coordinator {
namespace {

constexpr absl::Duration kEventInterval = absl::Milliseconds(200);
constexpr int kEventsPerMessage = 500;

absl::Status ListAll(const ApiContext& api, v1::ListWorkersResponse* response) {
  const std::shared_ptr<const LiveSnapshot> present = api.loop->Snapshot(/*fresh=*/true);
  if (!present) return Unavailable("the coordinator is starting or stopping; try again");
  std::set<std::string> live;
  for (const LiveWorker& worker : present->workers) {
    live.insert(worker.worker_id);
    *response->add_workers() = ToProto(worker, api.clock->NowMicros());
  }
  ASSAY_ASSIGN_OR_RETURN(const ReadStores::Borrowed store, api.stores->Borrow());
  ASSAY_ASSIGN_OR_RETURN(const std::vector<storage::WorkerRecord> known, store->Workers());
  for (const storage::WorkerRecord& worker : known) {
    if (!live.contains(worker.worker_id)) *response->add_workers() = OfflineWorker(worker);
  }
  return absl::OkStatus();
}

absl::Status ReadFleet(const ApiContext& api, v1::WatchFleetResponse* response) {
  const std::shared_ptr<const LiveSnapshot> present = api.loop->Snapshot();
  if (!present) return Unavailable("the coordinator is stopping; watch again later");
  for (const LiveWorker& worker : present->workers) {
    *response->add_workers() = ToProto(worker, api.clock->NowMicros());
  }
  response->set_num_units_queued(present->num_units_queued);
  response->set_num_units_running(present->num_units_running);
  response->set_tokens_per_s(present->tokens_per_s);
  response->set_samples_per_s(present->samples_per_s);
  response->set_num_duplicates(present->counters.num_duplicates);
  response->set_num_fenced(present->counters.num_fenced);
  response->set_commit_p99_ms(present->commit_p99_ms);
  ASSAY_ASSIGN_OR_RETURN(const ReadStores::Borrowed store, api.stores->Borrow());
  ASSAY_ASSIGN_OR_RETURN(const int64_t num_samples, store->NumSamples());
  response->set_num_samples(num_samples);
  ASSAY_ASSIGN_OR_RETURN(const int64_t database_bytes, store->DatabaseBytes());
  response->set_database_bytes(database_bytes);
  // The newest live sweeps; a page holds more than anybody looks at.
  constexpr int32_t kSweeps = 200;
  ASSAY_ASSIGN_OR_RETURN(const std::vector<storage::SweepRecord> records,
                         store->ListSweeps(kSweeps, 0));
  for (const storage::SweepRecord& record : records) {
    const auto live = present->sweeps.find(record.id);
    if (live == present->sweeps.end()) continue;
    v1::SweepBrief* brief = response->add_sweeps();
    brief->set_id(record.sweep_id);
    brief->set_name(record.name);
    brief->set_owner(record.owner);
    brief->set_num_units(live->second.num_units);
    brief->set_num_units_done(live->second.num_done);
    brief->set_tokens_per_s(live->second.tokens_per_s);
    brief->set_eta_us(live->second.eta_us);
  }
  return absl::OkStatus();
}

absl::Status Backup(const ApiContext& api, const v1::BackupDatabaseRequest& request,
                    const std::function<bool()>& go_on, v1::BackupDatabaseResponse* response) {
  std::string name = request.name();
  if (name.empty()) {
    name = absl::FormatTime("assay-%Y%m%dT%H%M%SZ.db", api.clock->Now(), absl::UTCTimeZone());
  }
  ASSAY_RETURN_IF_ERROR(CheckWorkerName("name", name));  // also what is safe as a file's name
  if (name.starts_with('.')) return InvalidArgument("name {}: must not begin with a dot", name);
  const std::string folder =
      (std::filesystem::absolute(api.stores->path()).parent_path() / "backups").string();
  ASSAY_RETURN_IF_ERROR(MakeDirectories(folder));
  const std::string path = folder + "/" + name;
  const absl::Duration start = api.clock->Monotonic();
  ASSAY_ASSIGN_OR_RETURN(const int64_t num_bytes,
                         storage::BackupDatabase(api.stores->path(), path, go_on));
  const absl::Duration duration = api.clock->Monotonic() - start;
  spdlog::info("backup {}: {} bytes in {}", path, num_bytes, absl::FormatDuration(duration));
  response->set_path(path);
  response->set_num_bytes(num_bytes);
  response->set_duration_us(absl::ToInt64Microseconds(duration));
  return absl::OkStatus();
}

// One watcher of the events, on the hub's thread.
class EventWatch {
 public:
  EventWatch(const ApiContext* api, const v1::WatchEventsRequest& request,
             std::shared_ptr<WatchWriter<v1::WatchEventsResponse>> writer)
      : api_(api), request_(request), writer_(std::move(writer)), next_(request.after_id()) {}

  bool Step() {
    if (writer_->gone()) {
      writer_->End(grpc::Status::CANCELLED);
      return false;
    }
    // Without follow, everything there is goes out as fast as it is taken.
    while (writer_->ready()) {
      v1::WatchEventsResponse response;
      if (const absl::Status read = Read(&response); !read.ok()) {
        writer_->End(ToGrpc(read));
        return false;
      }
      if (response.events_size() == 0) {
        if (request_.follow()) return true;
        writer_->End(grpc::Status::OK);
        return false;
      }
      next_ = response.events(response.events_size() - 1).id();
      writer_->Send(std::move(response));
    }
    return true;
  }
  void Abandon() {
    writer_->End({grpc::StatusCode::UNAVAILABLE, "the coordinator is stopping; watch again later"});
  }

 private:
  absl::Status Read(v1::WatchEventsResponse* response) {
    ASSAY_ASSIGN_OR_RETURN(const ReadStores::Borrowed store, api_->stores->Borrow());
    if (sweep_id_.empty() && !request_.sweep_id().empty()) {
      ASSAY_ASSIGN_OR_RETURN(const storage::SweepRecord sweep,
                             store->FindSweep(request_.sweep_id()));
      sweep_id_ = sweep.sweep_id;
    }
    ASSAY_ASSIGN_OR_RETURN(const std::vector<storage::EventRecord> events,
                           store->Events(next_, sweep_id_, kEventsPerMessage));
    for (const storage::EventRecord& event : events) *response->add_events() = ToProto(event);
    return absl::OkStatus();
  }

  const ApiContext* const api_;
  const v1::WatchEventsRequest request_;
  const std::shared_ptr<WatchWriter<v1::WatchEventsResponse>> writer_;
  std::string sweep_id_;
  int64_t next_;
};

}  // namespace

grpc::ServerUnaryReactor* FleetServiceImpl::ListWorkers(grpc::CallbackServerContext* context,
                                                        const v1::ListWorkersRequest*,
                                                        v1::ListWorkersResponse* response) {
  return AnswerOnReader(*api_, context, [api = api_, response] { return ListAll(*api, response); });
}

grpc::ServerUnaryReactor* FleetServiceImpl::DrainWorker(grpc::CallbackServerContext* context,
                                                        const v1::DrainWorkerRequest* request,
                                                        v1::DrainWorkerResponse*) {
  return AnswerOnReader(*api_, context, [api = api_, request]() -> absl::Status {
    ASSAY_RETURN_IF_ERROR(CheckWorkerName("worker_id", request->worker_id()));
    absl::Status outcome;
    ASSAY_RETURN_IF_ERROR(api->loop->Run(
        [&](ControlPlane& plane) { outcome = plane.HandleDrain(request->worker_id()); }));
    return outcome;
  });
}

// Minutes for a large database, so a transfer thread does it; transfers of artifacts go on beside.
grpc::ServerUnaryReactor* FleetServiceImpl::BackupDatabase(grpc::CallbackServerContext* context,
                                                           const v1::BackupDatabaseRequest* request,
                                                           v1::BackupDatabaseResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  if (const absl::Status admitted = AdmitCall(*api_, *context); !admitted.ok()) {
    reactor->Finish(ToGrpc(admitted));
    return reactor;
  }
  if (backup_runs_.exchange(true)) {
    reactor->Finish({grpc::StatusCode::RESOURCE_EXHAUSTED, "a backup runs; wait for its end"});
    return reactor;
  }
  const bool posted = api_->transfers->Post([this, reactor, context, request, response] {
    const absl::Status done = Backup(
        *api_, *request, [&] { return !api_->stopping->load() && !context->IsCancelled(); },
        response);
    backup_runs_ = false;
    reactor->Finish(ToGrpc(done));
  });
  if (!posted) {
    backup_runs_ = false;
    reactor->Finish({grpc::StatusCode::UNAVAILABLE, "too many transfers wait; try again"});
  }
  return reactor;
}

grpc::ServerWriteReactor<v1::WatchFleetResponse>* FleetServiceImpl::WatchFleet(
    grpc::CallbackServerContext*, const v1::WatchFleetRequest* request) {
  const auto writer = WatchWriter<v1::WatchFleetResponse>::Make();
  const absl::Duration interval = request->interval_us() <= 0
                                      ? absl::Seconds(1)
                                      : std::clamp(absl::Microseconds(request->interval_us()),
                                                   absl::Milliseconds(100), absl::Minutes(10));
  const auto step = [writer, api = api_] {
    if (writer->gone()) {
      writer->End(grpc::Status::CANCELLED);
      return false;
    }
    if (!writer->ready()) return true;
    v1::WatchFleetResponse response;
    if (const absl::Status read = ReadFleet(*api, &response); !read.ok()) {
      writer->End(ToGrpc(read));
      return false;
    }
    writer->Send(std::move(response));
    return true;
  };
  api_->watches->Add(interval, step, [writer] {
    writer->End({grpc::StatusCode::UNAVAILABLE, "the coordinator is stopping; watch again later"});
  });
  return writer.get();
}

grpc::ServerWriteReactor<v1::WatchEventsResponse>* FleetServiceImpl::WatchEvents(
    grpc::CallbackServerContext*, const v1::WatchEventsRequest* request) {
  const auto writer = WatchWriter<v1::WatchEventsResponse>::Make();
  if (request->sweep_id().size() > 64 || request->after_id() < 0) {
    writer->End({grpc::StatusCode::INVALID_ARGUMENT,
                 "sweep_id has at most 64 bytes, after_id is 0 or an event's id"});
    return writer.get();
  }
  const auto watch = std::make_shared<EventWatch>(api_, *request, writer);
  api_->watches->Add(
      kEventInterval, [watch] { return watch->Step(); }, [watch] { watch->Abandon(); });
  return writer.get();
}

}  // namespace assay::coordinator
