// A coordinator in the test's process: a real gRPC server that records what the worker says and
// sends what the test tells it to.
#pragma once

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "assay/v1/worker_service.grpc.pb.h"

namespace assay::worker {

class FakeCoordinator final : public v1::WorkerService::Service {
 public:
  // Port 0 picks one.
  explicit FakeCoordinator(int port = 0);
  ~FakeCoordinator() override;

  int port() const { return port_; }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  // Sends a directive as soon as a worker is connected.
  void Send(v1::SyncResponse directive);
  // Ends the conversation under way.
  void Disconnect();

  // What ReportSamples does; default: accept everything.
  using ReportHandler =
      std::function<grpc::Status(const v1::ReportSamplesRequest&, v1::ReportSamplesResponse*)>;
  void SetReportHandler(ReportHandler handler);
  void SetAcknowledge(bool acknowledge);

  // Waits until `condition` holds for what was recorded; it is called with the lock held.
  struct Record {
    std::vector<v1::Hello> hellos;
    v1::Heartbeat last_heartbeat;
    int64_t num_heartbeats = 0;
    std::vector<v1::Sample> samples;        // accepted
    std::vector<v1::UnitFailure> failures;  // each once
    std::vector<v1::CompleteJobRequest> jobs;
    std::map<std::string, std::string> uploads;  // key -> bytes of all its files
    int num_reports = 0;
  };
  bool WaitFor(const std::function<bool(const Record&)>& condition);
  Record record() const;

 private:
  using Stream = grpc::ServerReaderWriter<v1::SyncResponse, v1::SyncRequest>;
  grpc::Status Sync(grpc::ServerContext* context, Stream* stream) override;
  grpc::Status ReportSamples(grpc::ServerContext*, const v1::ReportSamplesRequest* request,
                             v1::ReportSamplesResponse* response) override;
  grpc::Status CompleteJob(grpc::ServerContext*, const v1::CompleteJobRequest* request,
                           v1::CompleteJobResponse*) override;
  grpc::Status UploadArtifact(grpc::ServerContext*,
                              grpc::ServerReader<v1::UploadArtifactRequest>* reader,
                              v1::UploadArtifactResponse*) override;
  grpc::Status FetchArtifact(grpc::ServerContext*, const v1::FetchArtifactRequest* request,
                             grpc::ServerWriter<v1::FetchArtifactResponse>* writer) override;
  void WriteDirectives(Stream* stream);
  void OnHeartbeat(const v1::Heartbeat& heartbeat);

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Record record_;
  std::deque<v1::SyncResponse> directives_;
  ReportHandler report_handler_;
  grpc::ServerContext* stream_context_ = nullptr;
  bool acknowledge_ = true;
  bool stopping_ = false;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace assay::worker
