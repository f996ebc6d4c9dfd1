#include "tests/unit/worker/agent/fake_coordinator.h"

#include <chrono>
#include <thread>
#include <utility>

#include "base/status.h"
#include "worker/agent/unit_id.h"

namespace assay::worker {
namespace {

constexpr auto kPatience = std::chrono::seconds(60);

}  // namespace

FakeCoordinator::FakeCoordinator(int port) {
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:" + std::to_string(port), grpc::InsecureServerCredentials(),
                           &port_);
  builder.SetMaxReceiveMessageSize(16 << 20);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  ASSAY_CHECK(server_ != nullptr, "port {} is taken", port);
}

FakeCoordinator::~FakeCoordinator() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
}

void FakeCoordinator::Send(v1::SyncResponse directive) {
  {
    const std::lock_guard lock(mutex_);
    directives_.push_back(std::move(directive));
  }
  changed_.notify_all();
}

void FakeCoordinator::Disconnect() {
  const std::lock_guard lock(mutex_);
  if (stream_context_ != nullptr) stream_context_->TryCancel();
}

void FakeCoordinator::SetReportHandler(ReportHandler handler) {
  const std::lock_guard lock(mutex_);
  report_handler_ = std::move(handler);
}

void FakeCoordinator::SetAcknowledge(bool acknowledge) {
  const std::lock_guard lock(mutex_);
  acknowledge_ = acknowledge;
}

bool FakeCoordinator::WaitFor(const std::function<bool(const Record&)>& condition) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kPatience, [&] { return condition(record_); });
}

FakeCoordinator::Record FakeCoordinator::record() const {
  const std::lock_guard lock(mutex_);
  return record_;
}

grpc::Status FakeCoordinator::Sync(grpc::ServerContext* context, Stream* stream) {
  v1::SyncRequest request;
  if (!stream->Read(&request) || !request.has_hello()) {
    return {grpc::StatusCode::INVALID_ARGUMENT, "no hello"};
  }
  {
    const std::lock_guard lock(mutex_);
    record_.hellos.push_back(request.hello());
    stream_context_ = context;
    v1::SyncResponse welcome;
    welcome.mutable_welcome()->set_heartbeat_interval_us(50'000);
    welcome.mutable_welcome()->set_max_unreported_samples(256);
    directives_.push_front(std::move(welcome));
  }
  std::thread writer([this, stream] { WriteDirectives(stream); });
  while (stream->Read(&request)) {
    if (request.has_heartbeat()) OnHeartbeat(request.heartbeat());
  }
  {
    const std::lock_guard lock(mutex_);
    stream_context_ = nullptr;
  }
  changed_.notify_all();
  writer.join();
  return grpc::Status::OK;
}

void FakeCoordinator::WriteDirectives(Stream* stream) {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(
        lock, [this] { return stopping_ || stream_context_ == nullptr || !directives_.empty(); });
    if (stopping_ || stream_context_ == nullptr) return;
    const v1::SyncResponse directive = std::move(directives_.front());
    directives_.pop_front();
    lock.unlock();
    stream->Write(directive);
    lock.lock();
  }
}

void FakeCoordinator::OnHeartbeat(const v1::Heartbeat& heartbeat) {
  {
    const std::lock_guard lock(mutex_);
    record_.last_heartbeat = heartbeat;
    ++record_.num_heartbeats;
    for (const v1::UnitFailure& failure : heartbeat.failures()) {
      bool known = false;
      for (const v1::UnitFailure& other : record_.failures) {
        known |=
            IdOf(other.unit()) == IdOf(failure.unit()) && other.lease_id() == failure.lease_id();
      }
      if (!known) record_.failures.push_back(failure);
    }
    if (acknowledge_ && !heartbeat.failures().empty()) {
      v1::SyncResponse response;
      response.mutable_acknowledge()->set_sequence(heartbeat.sequence());
      directives_.push_back(std::move(response));
    }
  }
  changed_.notify_all();
}

grpc::Status FakeCoordinator::ReportSamples(grpc::ServerContext*,
                                            const v1::ReportSamplesRequest* request,
                                            v1::ReportSamplesResponse* response) {
  ReportHandler handler;
  {
    const std::lock_guard lock(mutex_);
    ++record_.num_reports;
    handler = report_handler_;
  }
  grpc::Status status = grpc::Status::OK;
  if (handler != nullptr) {
    status = handler(*request, response);
  } else {
    for (int i = 0; i < request->samples_size(); ++i) {
      response->add_outcomes(v1::ReportSamplesResponse::OUTCOME_ACCEPTED);
    }
  }
  {
    const std::lock_guard lock(mutex_);
    for (int i = 0; status.ok() && i < response->outcomes_size(); ++i) {
      if (response->outcomes(i) == v1::ReportSamplesResponse::OUTCOME_ACCEPTED) {
        record_.samples.push_back(request->samples(i));
      }
    }
  }
  changed_.notify_all();
  return status;
}

grpc::Status FakeCoordinator::CompleteJob(grpc::ServerContext*,
                                          const v1::CompleteJobRequest* request,
                                          v1::CompleteJobResponse*) {
  {
    const std::lock_guard lock(mutex_);
    record_.jobs.push_back(*request);
  }
  changed_.notify_all();
  return grpc::Status::OK;
}

grpc::Status FakeCoordinator::UploadArtifact(grpc::ServerContext*,
                                             grpc::ServerReader<v1::UploadArtifactRequest>* reader,
                                             v1::UploadArtifactResponse*) {
  std::string key;
  std::string bytes;
  v1::UploadArtifactRequest request;
  while (reader->Read(&request)) {
    if (request.has_header()) key = request.header().artifact_key();
    if (request.has_chunk()) bytes += request.chunk().data();
  }
  {
    const std::lock_guard lock(mutex_);
    record_.uploads[key] = bytes;
  }
  changed_.notify_all();
  return grpc::Status::OK;
}

grpc::Status FakeCoordinator::FetchArtifact(grpc::ServerContext*,
                                            const v1::FetchArtifactRequest* request,
                                            grpc::ServerWriter<v1::FetchArtifactResponse>*) {
  return {grpc::StatusCode::NOT_FOUND, "no artifact " + request->artifact_key()};
}

}  // namespace assay::worker
