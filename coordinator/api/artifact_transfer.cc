#include "coordinator/api/artifact_transfer.h"

#include <memory>
#include <mutex>
#include <utility>

#include "base/status.h"
#include "coordinator/api/grpc_status.h"
#include "coordinator/api/limits.h"
#include "coordinator/api/stream_writer.h"
#include "storage/artifacts/artifact_upload.h"

namespace assay::coordinator {
namespace {

storage::Manifest FromProto(const v1::ArtifactHeader& header) {
  storage::Manifest manifest;
  manifest.manifest_sha256 = header.manifest_sha256();
  for (const v1::ArtifactFile& file : header.files()) {
    manifest.files.push_back({file.name(), file.size_bytes(), file.sha256()});
  }
  return manifest;
}

class Upload final : public grpc::ServerReadReactor<v1::UploadArtifactRequest> {
 public:
  Upload(storage::ArtifactStore* artifacts, TaskPool* transfers, ArtifactGuard guard)
      : artifacts_(artifacts), transfers_(transfers), guard_(std::move(guard)) {
    StartRead(&request_);
  }

  // The reactor lives until Finish, so the task may use it.
  void OnReadDone(bool ok) override {
    const bool posted = transfers_->Post([this, ok] {
      absl::Status status;
      {
        const std::lock_guard lock(mutex_);
        status = ok ? Take() : End();
      }
      if (ok && status.ok()) {
        StartRead(&request_);
      } else {
        Finish(ToGrpc(status));
      }
    });
    if (!posted) {
      Finish({grpc::StatusCode::UNAVAILABLE, "too many artifacts are on their way; try again"});
    }
  }
  void OnDone() override { delete this; }

 private:
  absl::Status Take() {
    if (request_.has_header()) {
      if (upload_) return InvalidArgument("an upload has one header, its first message");
      const v1::ArtifactHeader& header = request_.header();
      if (!storage::IsArtifactKey(header.artifact_key())) {
        return InvalidArgument("artifact_key is not a content key: 64 hexadecimal digits");
      }
      ASSAY_RETURN_IF_ERROR(guard_(header.artifact_key()));
      const storage::Manifest manifest = FromProto(header);
      ASSAY_RETURN_IF_ERROR(storage::CheckManifest(manifest));
      ASSAY_ASSIGN_OR_RETURN(upload_, artifacts_->BeginUpload(header.artifact_key(), manifest));
      return absl::OkStatus();
    }
    if (!request_.has_chunk() || !upload_) {
      return InvalidArgument("an upload is a header and then chunks");
    }
    const v1::ArtifactChunk& chunk = request_.chunk();
    if (chunk.data().size() > kMaxChunkBytes) {
      return InvalidArgument("a chunk has {} bytes; at most {} are allowed", chunk.data().size(),
                             kMaxChunkBytes);
    }
    return upload_->Append(chunk.file_index(), chunk.offset_bytes(), chunk.data());
  }
  absl::Status End() {
    if (!upload_) return InvalidArgument("an upload is a header and then chunks");
    return upload_->Finish();
  }

  storage::ArtifactStore* const artifacts_;
  TaskPool* const transfers_;
  const ArtifactGuard guard_;
  v1::UploadArtifactRequest request_;
  // One read is in progress at a time, but each ends on a thread of its own: the lock is never
  // waited for, and carries the state from one to the next.
  std::mutex mutex_;
  std::unique_ptr<storage::ArtifactUpload> upload_;  // guarded by mutex_
};

using FetchWriter = BlockingWriter<v1::FetchArtifactResponse>;

absl::Status Fetch(storage::ArtifactStore* artifacts, const std::string& key,
                   const ArtifactGuard& guard, FetchWriter* writer) {
  if (!storage::IsArtifactKey(key)) return InvalidArgument("artifact_key is not a content key");
  ASSAY_RETURN_IF_ERROR(guard(key));
  ASSAY_ASSIGN_OR_RETURN(const storage::Manifest manifest, artifacts->ReadManifest(key));
  artifacts->Touch(key);
  v1::FetchArtifactResponse first;
  first.mutable_header()->set_artifact_key(key);
  first.mutable_header()->set_manifest_sha256(manifest.manifest_sha256);
  for (const storage::ManifestFile& file : manifest.files) {
    v1::ArtifactFile* added = first.mutable_header()->add_files();
    added->set_name(file.name);
    added->set_size_bytes(file.size_bytes);
    added->set_sha256(file.sha256);
  }
  if (!writer->Write(std::move(first))) return Cancelled("the reader is gone");
  for (int i = 0; i < static_cast<int>(manifest.files.size()); ++i) {
    int64_t offset = 0;
    while (offset < manifest.files[static_cast<size_t>(i)].size_bytes) {
      ASSAY_ASSIGN_OR_RETURN(
          std::string data,
          artifacts->ReadChunk(key, i, offset, static_cast<int64_t>(kMaxChunkBytes)));
      if (data.empty()) return DataLoss("artifact {}: file {} is shorter than it was", key, i);
      v1::FetchArtifactResponse response;
      response.mutable_chunk()->set_file_index(i);
      response.mutable_chunk()->set_offset_bytes(offset);
      offset += static_cast<int64_t>(data.size());
      response.mutable_chunk()->set_data(std::move(data));
      if (!writer->Write(std::move(response))) return Cancelled("the reader is gone");
    }
  }
  return absl::OkStatus();
}

}  // namespace

grpc::ServerReadReactor<v1::UploadArtifactRequest>* StartUpload(storage::ArtifactStore* artifacts,
                                                                TaskPool* transfers,
                                                                ArtifactGuard guard) {
  return new Upload(artifacts, transfers, std::move(guard));
}

grpc::ServerWriteReactor<v1::FetchArtifactResponse>* StartFetch(
    grpc::CallbackServerContext* context, const std::string& key, storage::ArtifactStore* artifacts,
    TaskPool* transfers, ArtifactGuard guard) {
  const std::shared_ptr<FetchWriter> writer = FetchWriter::Make(context);
  const bool posted = transfers->Post([writer, key, artifacts, guard = std::move(guard)] {
    writer->End(ToGrpc(Fetch(artifacts, key, guard, writer.get())));
  });
  if (!posted) {
    writer->End({grpc::StatusCode::UNAVAILABLE, "too many artifacts are on their way; try again"});
  }
  return writer.get();
}

}  // namespace assay::coordinator
