// Artifacts in and out, in chunks of at most 1 MiB. Disk work runs on the transfer threads; a chunk
// is read from the wire when the one before is on disk.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <string>

#include "assay/v1/worker_service.pb.h"
#include "coordinator/api/task_pool.h"
#include "storage/artifacts/artifact_store.h"

namespace assay::coordinator {

// Asked on a transfer thread, which may wait, before anything moves: OK, or why not.
using ArtifactGuard = std::function<absl::Status(const std::string& artifact_key)>;

// The reactors own themselves. `artifacts` and `transfers` outlive them.
grpc::ServerReadReactor<v1::UploadArtifactRequest>* StartUpload(storage::ArtifactStore* artifacts,
                                                                TaskPool* transfers,
                                                                ArtifactGuard guard);
grpc::ServerWriteReactor<v1::FetchArtifactResponse>* StartFetch(
    grpc::CallbackServerContext* context, const std::string& key, storage::ArtifactStore* artifacts,
    TaskPool* transfers, ArtifactGuard guard);

}  // namespace assay::coordinator
