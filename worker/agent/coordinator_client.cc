#include "worker/agent/coordinator_client.h"

#include <chrono>

#include "base/address.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/status.h"
#include "storage/artifacts/artifact_upload.h"

namespace assay::worker {
namespace {

constexpr auto kReportDeadline = std::chrono::seconds(30);
constexpr auto kControlDeadline = std::chrono::seconds(15);
// Beyond any artifact that a link of 10 MB/s carries in a working day.
constexpr auto kTransferDeadline = std::chrono::hours(8);
constexpr auto kConnectPoll = std::chrono::milliseconds(200);
constexpr int64_t kChunkBytes = int64_t{1} << 20;
constexpr int64_t kMaxPemBytes = 1 << 20;
constexpr int kMaxMessageBytes = 16 << 20;

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address, const ClientTls& tls) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  // A link that swallows packets is noticed within 40 s, idle or not.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // gRPC's own reconnecting would wait up to two minutes; the callers here wait by themselves.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);
  // Its name misleads: how long one attempt may take. TLS over a slow link takes seconds.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 15'000);
  // One connection per client object, whatever else the process connects to.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  const std::shared_ptr<grpc::ChannelCredentials> credentials =
      tls.ca.empty() ? grpc::InsecureChannelCredentials()
                     : grpc::SslCredentials({tls.ca, tls.key, tls.cert});
  return grpc::CreateCustomChannel(address, credentials, arguments);
}

// A call that waits for its connection rather than fail at once: while it waits, gRPC makes one.
template <typename Span>
void SetPatience(grpc::ClientContext* context, Span span) {
  context->set_deadline(std::chrono::system_clock::now() + span);
  context->set_wait_for_ready(true);
}

template <typename Span>
void SetDeadline(grpc::ClientContext* context, Span span) {
  context->set_deadline(std::chrono::system_clock::now() + span);
}

v1::ArtifactHeader ToProto(const std::string& key, const storage::Manifest& manifest) {
  v1::ArtifactHeader header;
  header.set_artifact_key(key);
  header.set_manifest_sha256(manifest.manifest_sha256);
  for (const storage::ManifestFile& file : manifest.files) {
    v1::ArtifactFile* out = header.add_files();
    out->set_name(file.name);
    out->set_size_bytes(file.size_bytes);
    out->set_sha256(file.sha256);
  }
  return header;
}

storage::Manifest FromProto(const v1::ArtifactHeader& header) {
  storage::Manifest manifest;
  manifest.manifest_sha256 = header.manifest_sha256();
  for (const v1::ArtifactFile& file : header.files()) {
    manifest.files.push_back({file.name(), file.size_bytes(), file.sha256()});
  }
  return manifest;
}

using UploadWriter = grpc::ClientWriter<v1::UploadArtifactRequest>;

// False when the coordinator wants no more; Finish says why.
absl::StatusOr<bool> SendFiles(const storage::ArtifactStore& store, const std::string& key,
                               const storage::Manifest& manifest, UploadWriter* writer) {
  for (int index = 0; index < static_cast<int>(manifest.files.size()); ++index) {
    const int64_t size = manifest.files[static_cast<size_t>(index)].size_bytes;
    for (int64_t offset = 0; offset < size;) {
      v1::UploadArtifactRequest request;
      v1::ArtifactChunk* chunk = request.mutable_chunk();
      chunk->set_file_index(index);
      chunk->set_offset_bytes(offset);
      ASSAY_ASSIGN_OR_RETURN(*chunk->mutable_data(),
                             store.ReadChunk(key, index, offset, kChunkBytes));
      if (chunk->data().empty()) {
        return DataLoss("{}: {} is shorter than its manifest says", store.Path(key),
                        manifest.files[static_cast<size_t>(index)].name);
      }
      offset += std::ssize(chunk->data());
      if (!writer->Write(request)) return false;
    }
  }
  return true;
}

}  // namespace

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

absl::StatusOr<ClientTls> ReadClientTls(const std::string& address, const std::string& ca_path,
                                        const std::string& cert_path, const std::string& key_path) {
  if (ca_path.empty() && cert_path.empty() && key_path.empty()) {
    if (IsLoopbackAddress(address)) return ClientTls();
    return InvalidArgument(
        "--coordinator {}: another machine is dialled with TLS only: give --tls-ca, --tls-cert and "
        "--tls-key (deploy/certs.sh makes them)",
        address);
  }
  if (ca_path.empty() || cert_path.empty() || key_path.empty()) {
    return InvalidArgument("TLS needs --tls-ca, --tls-cert and --tls-key, all three");
  }
  ClientTls tls;
  ASSAY_ASSIGN_OR_RETURN(tls.ca, ReadFile(ca_path, kMaxPemBytes));
  ASSAY_ASSIGN_OR_RETURN(tls.cert, ReadFile(cert_path, kMaxPemBytes));
  ASSAY_ASSIGN_OR_RETURN(tls.key, ReadSecretFile(key_path));
  for (const auto& [path, text] : {std::pair(&ca_path, &tls.ca), std::pair(&cert_path, &tls.cert),
                                   std::pair(&key_path, &tls.key)}) {
    if (text->find("-----BEGIN ") == std::string::npos) {
      return InvalidArgument("{}: is no PEM file", *path);
    }
  }
  return tls;
}

CoordinatorClient::CoordinatorClient(const std::string& address, const ClientTls& tls)
    : channel_(MakeChannel(address, tls)), stub_(v1::WorkerService::NewStub(channel_)) {}

CoordinatorClient::Call::Call(CoordinatorClient* client) : client_(client) {
  const std::lock_guard lock(client_->mutex_);
  if (client_->shut_down_) context_.TryCancel();
  client_->contexts_.insert(&context_);
}

CoordinatorClient::Call::~Call() {
  const std::lock_guard lock(client_->mutex_);
  client_->contexts_.erase(&context_);
}

void CoordinatorClient::Shutdown() {
  const std::lock_guard lock(mutex_);
  shut_down_ = true;
  for (grpc::ClientContext* context : contexts_) context->TryCancel();
}

bool CoordinatorClient::is_shut_down() const {
  const std::lock_guard lock(mutex_);
  return shut_down_;
}

bool CoordinatorClient::WaitForConnection(absl::Duration timeout) {
  const absl::Duration deadline = RealClock::Get()->Monotonic() + timeout;
  while (!is_shut_down()) {
    if (channel_->WaitForConnected(std::chrono::system_clock::now() + kConnectPoll)) return true;
    if (RealClock::Get()->Monotonic() >= deadline) return false;
  }
  return false;
}

std::unique_ptr<CoordinatorClient::SyncStream> CoordinatorClient::OpenSync(Call* call) {
  return stub_->Sync(call->context());
}

absl::StatusOr<v1::ReportSamplesResponse> CoordinatorClient::ReportSamples(
    const v1::ReportSamplesRequest& request) {
  Call call(this);
  SetPatience(call.context(), kReportDeadline);
  v1::ReportSamplesResponse response;
  ASSAY_RETURN_IF_ERROR(FromGrpc(stub_->ReportSamples(call.context(), request, &response)));
  return response;
}

absl::Status CoordinatorClient::CompleteJob(const v1::CompleteJobRequest& request) {
  Call call(this);
  SetPatience(call.context(), kControlDeadline);
  v1::CompleteJobResponse response;
  return FromGrpc(stub_->CompleteJob(call.context(), request, &response));
}

absl::Status CoordinatorClient::UploadArtifact(const storage::ArtifactStore& store,
                                               const std::string& key) {
  ASSAY_ASSIGN_OR_RETURN(const storage::Manifest manifest, store.ReadManifest(key));
  Call call(this);
  SetDeadline(call.context(), kTransferDeadline);
  v1::UploadArtifactResponse response;
  const std::unique_ptr<UploadWriter> writer = stub_->UploadArtifact(call.context(), &response);
  v1::UploadArtifactRequest request;
  *request.mutable_header() = ToProto(key, manifest);
  absl::StatusOr<bool> sent = writer->Write(request);
  if (*sent) sent = SendFiles(store, key, manifest, writer.get());
  if (!sent.ok()) {
    call.context()->TryCancel();
    (void)writer->Finish();
    return sent.status();
  }
  writer->WritesDone();
  const absl::Status finished = FromGrpc(writer->Finish());
  if (finished.code() == absl::StatusCode::kAlreadyExists) return absl::OkStatus();
  return finished;
}

absl::Status CoordinatorClient::FetchArtifact(const std::string& key,
                                              storage::ArtifactStore* store) {
  Call call(this);
  SetDeadline(call.context(), kTransferDeadline);
  v1::FetchArtifactRequest request;
  request.set_artifact_key(key);
  const auto reader = stub_->FetchArtifact(call.context(), request);
  std::unique_ptr<storage::ArtifactUpload> upload;
  absl::Status received;
  v1::FetchArtifactResponse response;
  while (received.ok() && reader->Read(&response)) {
    if (response.has_header() && upload == nullptr) {
      absl::StatusOr<std::unique_ptr<storage::ArtifactUpload>> begun =
          store->BeginUpload(key, FromProto(response.header()));
      received = begun.status();
      if (begun.ok()) upload = *std::move(begun);
    } else if (response.has_chunk() && upload != nullptr) {
      received = upload->Append(response.chunk().file_index(), response.chunk().offset_bytes(),
                                response.chunk().data());
    } else {
      received = DataLoss("artifact {}: the coordinator sent its parts out of order", key);
    }
  }
  if (!received.ok()) call.context()->TryCancel();
  const absl::Status finished = FromGrpc(reader->Finish());
  if (received.code() == absl::StatusCode::kAlreadyExists) return absl::OkStatus();
  ASSAY_RETURN_IF_ERROR(received);
  ASSAY_RETURN_IF_ERROR(finished);
  if (upload == nullptr) return DataLoss("artifact {}: the coordinator sent nothing", key);
  return upload->Finish();
}

}  // namespace assay::worker
