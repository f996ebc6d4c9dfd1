#include "tests/unit/cli/fake_coordinator.h"

#include <fmt/format.h>

#include <chrono>
#include <thread>

namespace assay::cli {
namespace {

grpc::Status NoSweep(const std::string& id) {
  return {grpc::StatusCode::NOT_FOUND, fmt::format("there is no sweep '{}'", id)};
}

}  // namespace

class FakeCoordinator::Sweeps final : public v1::SweepService::Service {
 public:
  explicit Sweeps(FakeCoordinator* fake) : fake_(fake) {}

  grpc::Status PlanSweep(grpc::ServerContext*, const v1::PlanSweepRequest* request,
                         v1::PlanSweepResponse* response) override {
    if (request->spec_yaml().find("wrong") != std::string::npos) {
      return {grpc::StatusCode::INVALID_ARGUMENT,
              request->spec_name() + ":1:1: unknown key 'wrong'"};
    }
    *response->mutable_plan() = fake_->plan;
    return grpc::Status::OK;
  }
  grpc::Status SubmitSweep(grpc::ServerContext*, const v1::SubmitSweepRequest* request,
                           v1::SubmitSweepResponse* response) override {
    const grpc::Status status = fake_->Mutation(request->request_id());
    if (!status.ok()) return status;
    const std::lock_guard lock(fake_->mutex_);
    fake_->submitted_yaml_ = request->spec_yaml();
    response->set_sweep_id("sweep-1");
    *response->mutable_plan() = fake_->plan;
    return grpc::Status::OK;
  }
  grpc::Status GetSweep(grpc::ServerContext*, const v1::GetSweepRequest* request,
                        v1::GetSweepResponse* response) override {
    if (request->sweep_id() != fake_->sweep.id()) return NoSweep(request->sweep_id());
    *response->mutable_sweep() = fake_->sweep;
    return grpc::Status::OK;
  }
  grpc::Status ListSweeps(grpc::ServerContext*, const v1::ListSweepsRequest*,
                          v1::ListSweepsResponse* response) override {
    *response->add_sweeps() = fake_->sweep;
    return grpc::Status::OK;
  }
  grpc::Status WatchSweep(grpc::ServerContext*, const v1::WatchSweepRequest* request,
                          grpc::ServerWriter<v1::WatchSweepResponse>* writer) override {
    if (request->sweep_id() != fake_->sweep.id()) return NoSweep(request->sweep_id());
    for (const v1::Sweep& state : fake_->watched) {
      v1::WatchSweepResponse response;
      *response.mutable_sweep() = state;
      writer->Write(response);
    }
    return grpc::Status::OK;
  }
  grpc::Status CancelSweep(grpc::ServerContext*, const v1::CancelSweepRequest* request,
                           v1::CancelSweepResponse* response) override {
    if (request->sweep_id() != fake_->sweep.id()) return NoSweep(request->sweep_id());
    const grpc::Status status = fake_->Mutation(request->request_id());
    if (!status.ok()) return status;
    *response->mutable_sweep() = fake_->sweep;
    response->mutable_sweep()->set_state(v1::SWEEP_STATE_CANCELLED);
    return grpc::Status::OK;
  }

 private:
  FakeCoordinator* const fake_;
};

class FakeCoordinator::Results final : public v1::ResultsService::Service {
 public:
  explicit Results(FakeCoordinator* fake) : fake_(fake) {}

  grpc::Status GetResults(grpc::ServerContext*, const v1::GetResultsRequest* request,
                          v1::GetResultsResponse* response) override {
    const std::lock_guard lock(fake_->mutex_);
    fake_->results_by_ = request->by();
    *response = fake_->results;
    return grpc::Status::OK;
  }
  grpc::Status ListSamples(grpc::ServerContext*, const v1::ListSamplesRequest* request,
                           v1::ListSamplesResponse* response) override {
    for (const v1::GetSampleResponse& sample : fake_->samples) {
      if (request->cell_id() != 0 && sample.summary().cell_id() != request->cell_id()) continue;
      if (!request->item().empty() && sample.summary().item() != request->item()) continue;
      *response->add_samples() = sample.summary();
    }
    return grpc::Status::OK;
  }
  grpc::Status GetSample(grpc::ServerContext*, const v1::GetSampleRequest* request,
                         v1::GetSampleResponse* response) override {
    for (const v1::GetSampleResponse& sample : fake_->samples) {
      if (sample.summary().sample_id() != request->sample_id()) continue;
      *response = sample;
      return grpc::Status::OK;
    }
    return {grpc::StatusCode::NOT_FOUND,
            fmt::format("there is no sample {}", request->sample_id())};
  }
  grpc::Status CompareCells(grpc::ServerContext*, const v1::CompareCellsRequest*,
                            v1::CompareCellsResponse* response) override {
    *response = fake_->comparison;
    return grpc::Status::OK;
  }
  grpc::Status RunQuery(grpc::ServerContext*, const v1::RunQueryRequest* request,
                        grpc::ServerWriter<v1::RunQueryResponse>* writer) override {
    if (request->sql().find("SELECT") == std::string::npos) {
      return {grpc::StatusCode::INVALID_ARGUMENT, "only SELECT is allowed"};
    }
    for (const v1::RunQueryResponse& part : fake_->query) writer->Write(part);
    return fake_->query_end;
  }

 private:
  FakeCoordinator* const fake_;
};

class FakeCoordinator::Fleet final : public v1::FleetService::Service {
 public:
  explicit Fleet(FakeCoordinator* fake) : fake_(fake) {}

  grpc::Status ListWorkers(grpc::ServerContext*, const v1::ListWorkersRequest*,
                           v1::ListWorkersResponse* response) override {
    *response->mutable_workers() = fake_->fleet.workers();
    return grpc::Status::OK;
  }
  grpc::Status DrainWorker(grpc::ServerContext*, const v1::DrainWorkerRequest* request,
                           v1::DrainWorkerResponse*) override {
    for (const v1::Worker& worker : fake_->fleet.workers()) {
      if (worker.worker_id() == request->worker_id()) return grpc::Status::OK;
    }
    return {grpc::StatusCode::NOT_FOUND,
            fmt::format("there is no worker '{}'", request->worker_id())};
  }
  grpc::Status WatchFleet(grpc::ServerContext* context, const v1::WatchFleetRequest*,
                          grpc::ServerWriter<v1::WatchFleetResponse>* writer) override {
    while (!context->IsCancelled() && writer->Write(fake_->fleet) && fake_->fleet_goes_on) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return grpc::Status::OK;
  }

 private:
  FakeCoordinator* const fake_;
};

FakeCoordinator::FakeCoordinator()
    : sweeps_(std::make_unique<Sweeps>(this)),
      results_service_(std::make_unique<Results>(this)),
      fleet_service_(std::make_unique<Fleet>(this)) {
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
  builder.RegisterService(sweeps_.get());
  builder.RegisterService(results_service_.get());
  builder.RegisterService(fleet_service_.get());
  server_ = builder.BuildAndStart();
}

FakeCoordinator::~FakeCoordinator() {
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
}

std::string FakeCoordinator::address() const { return fmt::format("127.0.0.1:{}", port_); }

std::vector<std::string> FakeCoordinator::request_ids() {
  const std::lock_guard lock(mutex_);
  return request_ids_;
}

std::string FakeCoordinator::submitted_yaml() {
  const std::lock_guard lock(mutex_);
  return submitted_yaml_;
}

std::string FakeCoordinator::results_by() {
  const std::lock_guard lock(mutex_);
  return results_by_;
}

grpc::Status FakeCoordinator::Mutation(const std::string& request_id) {
  const std::lock_guard lock(mutex_);
  request_ids_.push_back(request_id);
  if (num_unavailable-- > 0) return {grpc::StatusCode::UNAVAILABLE, "the disk is full"};
  return grpc::Status::OK;
}

}  // namespace assay::cli
