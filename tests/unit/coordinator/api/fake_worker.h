// A worker that answers everything at once, over real gRPC: samples by arithmetic, artifacts of one
// small file.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "assay/v1/worker_service.grpc.pb.h"
#include "base/hash.h"
#include "storage/artifacts/manifest.h"
#include "storage/text/text_codec.h"
#include "tests/testing/worker_messages.h"

namespace assay::coordinator::testing {

class FakeWorker {
 public:
  FakeWorker(const std::shared_ptr<grpc::Channel>& channel, std::string worker_id,
             std::string incarnation)
      : stub_(v1::WorkerService::NewStub(channel)),
        worker_id_(std::move(worker_id)),
        incarnation_(std::move(incarnation)) {}
  ~FakeWorker() { Disconnect(); }

  v1::Hello MakeHello() const {
    v1::Hello hello;
    hello.set_worker_id(worker_id_);
    hello.set_incarnation(incarnation_);
    hello.set_version("0.1.0");
    hello.set_protocol_revision(2);
    hello.mutable_provenance()->set_device("a fake");
    hello.mutable_provenance()->set_engine_numerics_version(numerics_version_);
    v1::Slot* slot = hello.add_slots();
    slot->set_index(0);
    slot->set_tensor_parallel_size(1);
    slot->set_memory_bytes(memory_bytes_);
    return hello;
  }
  static v1::Heartbeat MakeHeartbeat() {
    v1::Heartbeat heartbeat;
    v1::SlotState* slot = heartbeat.add_slots();
    slot->set_index(0);
    slot->set_phase(v1::SlotState::PHASE_IDLE);
    slot->set_num_free_lanes(64);
    return heartbeat;
  }

  // Opens a stream and sends these two; what comes back is answered on a thread until Disconnect.
  void Connect() {
    context_ = std::make_unique<grpc::ClientContext>();
    stream_ = stub_->Sync(context_.get());
    v1::SyncRequest request;
    *request.mutable_hello() = MakeHello();
    EXPECT_TRUE(stream_->Write(request));
    *request.mutable_heartbeat() = MakeHeartbeat();
    EXPECT_TRUE(stream_->Write(request));
    reader_ = std::thread([this] {
      v1::SyncResponse response;
      while (stream_->Read(&response)) Answer(response);
      status_ = stream_->Finish();
    });
  }
  // The stream's end, from either side.
  grpc::Status Disconnect() {
    if (!reader_.joinable()) return status_;
    context_->TryCancel();
    reader_.join();
    return status_;
  }

  // Sends one first message on a stream of its own and returns how the stream ends.
  grpc::Status TryFirst(const v1::SyncRequest& first) {
    grpc::ClientContext context;
    const auto stream = stub_->Sync(&context);
    stream->Write(first);
    v1::SyncResponse response;
    while (stream->Read(&response)) {
    }
    return stream->Finish();
  }

  v1::Sample MakeSample(const v1::Grant& grant, const v1::Unit& unit) const {
    v1::Sample sample = assay::testing::MakeSample(unit.key(), grant.lease_id(), unit.epoch(),
                                                   unit.seed(), "\\boxed{" + unit.gold() + "}");
    sample.mutable_grade()->set_grader(grant.grader());
    sample.mutable_grade()->set_grader_version("1");
    sample.mutable_grade()->set_verdict(v1::Grade::VERDICT_CORRECT);
    return sample;
  }
  grpc::Status Report(const std::vector<v1::Sample>& samples, v1::ReportSamplesResponse* response) {
    v1::ReportSamplesRequest request;
    request.set_worker_id(worker_id_);
    request.set_incarnation(incarnation_);
    for (const v1::Sample& sample : samples) *request.add_samples() = sample;
    return Report(request, response);
  }
  grpc::Status Report(const v1::ReportSamplesRequest& request,
                      v1::ReportSamplesResponse* response) {
    grpc::ClientContext context;
    return stub_->ReportSamples(&context, request, response);
  }

  // Uploads `content` as the artifact's one file.
  grpc::Status Upload(const std::string& key, const std::string& content,
                      const std::string& sha256) {
    grpc::ClientContext context;
    v1::UploadArtifactResponse response;
    const auto writer = stub_->UploadArtifact(&context, &response);
    v1::UploadArtifactRequest request;
    request.mutable_header()->set_artifact_key(key);
    v1::ArtifactFile* file = request.mutable_header()->add_files();
    file->set_name("weights.bin");
    file->set_size_bytes(static_cast<int64_t>(content.size()));
    file->set_sha256(sha256);
    request.mutable_header()->set_manifest_sha256(ManifestOf(content, sha256));
    writer->Write(request);
    for (size_t offset = 0; offset < content.size(); offset += 1000) {
      request.mutable_chunk()->set_file_index(0);
      request.mutable_chunk()->set_offset_bytes(static_cast<int64_t>(offset));
      request.mutable_chunk()->set_data(content.substr(offset, 1000));
      if (!writer->Write(request)) break;
    }
    writer->WritesDone();
    return writer->Finish();
  }
  static std::string ManifestOf(const std::string& content, const std::string& sha256) {
    return storage::HashOfFiles({{"weights.bin", static_cast<int64_t>(content.size()), sha256}});
  }
  grpc::Status CompleteJob(const v1::JobGrant& job, const std::string& error,
                           const std::string& manifest) {
    v1::CompleteJobRequest request;
    request.set_worker_id(worker_id_);
    request.set_incarnation(incarnation_);
    request.set_job_id(job.job_id());
    request.set_epoch(job.epoch());
    request.set_error(error);
    request.set_artifact_key(job.quantize().model().artifact_key());
    request.set_artifact_manifest_sha256(manifest);
    grpc::ClientContext context;
    v1::CompleteJobResponse response;
    return stub_->CompleteJob(&context, request, &response);
  }
  std::string Fetch(const std::string& key, grpc::Status* status) {
    grpc::ClientContext context;
    v1::FetchArtifactRequest request;
    request.set_artifact_key(key);
    const auto reader = stub_->FetchArtifact(&context, request);
    v1::FetchArtifactResponse response;
    std::string content;
    while (reader->Read(&response)) content += response.chunk().data();
    *status = reader->Finish();
    return content;
  }

  // Before Connect.
  void set_memory_bytes(int64_t bytes) { memory_bytes_ = bytes; }
  void set_numerics_version(std::string version) { numerics_version_ = std::move(version); }

  int num_grants() const { return num_grants_; }
  int num_welcomes() const { return num_welcomes_; }

 private:
  void Answer(const v1::SyncResponse& response) {
    if (response.has_welcome()) ++num_welcomes_;
    if (response.has_grant()) {
      ++num_grants_;
      const v1::Grant& grant = response.grant();
      std::vector<v1::Sample> batch;
      for (const v1::Unit& unit : grant.units()) {
        batch.push_back(MakeSample(grant, unit));
        if (batch.size() == 32) ReportAll(&batch);
      }
      ReportAll(&batch);
    }
    if (response.has_job()) {
      const std::string content = "weights of " + response.job().quantize().model().artifact_key();
      const std::string sha256 = Sha256Hex(content);
      EXPECT_TRUE(Upload(response.job().quantize().model().artifact_key(), content, sha256).ok());
      const grpc::Status status = CompleteJob(response.job(), "", ManifestOf(content, sha256));
      EXPECT_TRUE(status.ok()) << status.error_message();
    }
  }
  void ReportAll(std::vector<v1::Sample>* batch) {
    v1::ReportSamplesResponse outcomes;
    const grpc::Status status = Report(*batch, &outcomes);
    EXPECT_TRUE(status.ok()) << status.error_message();
    for (const int outcome : outcomes.outcomes()) {
      EXPECT_EQ(outcome, v1::ReportSamplesResponse::OUTCOME_ACCEPTED);
    }
    batch->clear();
  }

  const std::unique_ptr<v1::WorkerService::Stub> stub_;
  const std::string worker_id_;
  const std::string incarnation_;
  int64_t memory_bytes_ = 0;      // of its slot; 0 is not limited
  std::string numerics_version_;  // empty: it does not say
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::SyncRequest, v1::SyncResponse>> stream_;
  std::thread reader_;
  grpc::Status status_;
  std::atomic<int> num_grants_ = 0;
  std::atomic<int> num_welcomes_ = 0;
};

}  // namespace assay::coordinator::testing
