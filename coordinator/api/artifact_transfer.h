// Artifacts in and out, in chunks of at most 1 MiB. Disk work runs on the transfer threads; a chunk
// is read from the wire when the one before is on disk.
#pragma once

#include <grpcpp/grpcpp.h>

#include <string>

#include "assay/v1/worker_service.pb.h"
#include "coordinator/api/task_pool.h"
#include "storage/artifacts/artifact_store.h"

namespace assay::coordinator {

// The reactors own themselves. `artifacts` and `transfers` outlive them.
grpc::ServerReadReactor<v1::UploadArtifactRequest>* StartUpload(storage::ArtifactStore* artifacts,
                                                                TaskPool* transfers);
grpc::ServerWriteReactor<v1::FetchArtifactResponse>* StartFetch(
    grpc::CallbackServerContext* context, const std::string& key, storage::ArtifactStore* artifacts,
    TaskPool* transfers);

}  // namespace assay::coordinator
