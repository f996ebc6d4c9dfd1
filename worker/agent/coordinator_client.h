// Calls to the coordinator, as absl::Status. Every call starts here, none comes from it.
//
// Thread-safe. After Shutdown, calls in flight end with CANCELLED and new ones fail at once.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>
#include <grpcpp/grpcpp.h>

#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "assay/v1/worker_service.grpc.pb.h"
#include "storage/artifacts/artifact_store.h"

namespace assay::worker {

absl::Status FromGrpc(const grpc::Status& status);

// TLS as PEM texts; all empty: none.
struct ClientTls {
  std::string ca;    // signs the coordinator's certificate
  std::string cert;  // of this worker: names its worker_id
  std::string key;
};
// Reads the three files. INVALID_ARGUMENT when some are named and some are not, or none is and
// `address` is not on this machine; ReadSecretFile's errors for the key.
absl::StatusOr<ClientTls> ReadClientTls(const std::string& address, const std::string& ca_path,
                                        const std::string& cert_path, const std::string& key_path);

class CoordinatorClient {
 public:
  using SyncStream = grpc::ClientReaderWriter<v1::SyncRequest, v1::SyncResponse>;

  // `address` is HOST:PORT. Connects in the background and again whenever the connection is lost.
  explicit CoordinatorClient(const std::string& address, const ClientTls& tls = {});

  // gRPC connects only while somebody waits in it: between calls that fail at once a connection
  // that takes several steps (TLS) is never finished. So whoever needs one waits here, or in a call
  // that waits for its connection, as those two below. False after `timeout` or Shutdown.
  bool WaitForConnection(absl::Duration timeout);

  // The codes are the service's (worker_service.proto); UNAVAILABLE and DEADLINE_EXCEEDED mean that
  // the coordinator is away, and has been for their whole deadline.
  absl::StatusOr<v1::ReportSamplesResponse> ReportSamples(const v1::ReportSamplesRequest& request);
  absl::Status CompleteJob(const v1::CompleteJobRequest& request);

  // OK also when the coordinator has it.
  absl::Status UploadArtifact(const storage::ArtifactStore& store, const std::string& key);
  // Into `store`, checked and published.
  absl::Status FetchArtifact(const std::string& key, storage::ArtifactStore* store);

  // A call that belongs to somebody: its context is cancelled by Shutdown.
  class Call {
   public:
    explicit Call(CoordinatorClient* client);
    ~Call();
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    grpc::ClientContext* context() { return &context_; }

   private:
    CoordinatorClient* const client_;
    grpc::ClientContext context_;
  };
  // The stream lives no longer than `call`.
  std::unique_ptr<SyncStream> OpenSync(Call* call);

  void Shutdown();
  bool is_shut_down() const;

 private:
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::WorkerService::Stub> stub_;
  mutable std::mutex mutex_;
  std::set<grpc::ClientContext*> contexts_;
  bool shut_down_ = false;
};

}  // namespace assay::worker
