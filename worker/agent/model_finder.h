// The folder of a model or artifact with exactly the content that a cell was planned with.
//
// Plain models are found by name under the roots and must have the hash; artifacts are found by
// their key in the store, and fetched from the coordinator when they are not there. Nothing trusts
// a path alone.
//
// The store is a cache with a bound: artifacts beyond it are removed, the longest unused first, and
// none that somebody here uses. One more than the bound may be there while it arrives.
//
// Thread-safe; hashing and fetching take long, and fetching happens once however many slots ask.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "assay/v1/worker_service.pb.h"
#include "base/model_files.h"
#include "storage/artifacts/artifact_store.h"
#include "worker/agent/coordinator_client.h"

namespace assay::worker {

class ModelFinder {
 public:
  // `store` and `client` outlive the finder. `max_cache_bytes` 0: no bound, for a folder that
  // others share.
  ModelFinder(std::vector<std::string> model_roots, storage::ArtifactStore* store,
              CoordinatorClient* client, int64_t max_cache_bytes)
      : model_roots_(std::move(model_roots)),
        store_(store),
        client_(client),
        max_cache_bytes_(max_cache_bytes) {}

  // The artifact when the reference names one, else the model; an artifact stays until `user` asks
  // for something else. NOT_FOUND without it; FAILED_PRECONDITION when the folder of that name has
  // another content; else why fetching failed.
  absl::StatusOr<std::string> Find(const v1::ModelRef& model, const std::string& user);

  // An artifact that was made here stays until `user` lets go of it, whatever the bound.
  void Keep(const std::string& key, const std::string& user);
  void LetGo(const std::string& user);

  // The model as it is, whatever artifact is named.
  absl::StatusOr<std::string> FindBase(const v1::ModelRef& model);

 private:
  absl::StatusOr<std::string> FindArtifact(const std::string& key);
  void MakeRoom();

  const std::vector<std::string> model_roots_;
  storage::ArtifactStore* const store_;
  CoordinatorClient* const client_;
  const int64_t max_cache_bytes_;
  ModelHasher hasher_;
  std::mutex fetch_mutex_;  // one transfer at a time
  std::mutex use_mutex_;
  std::map<std::string, std::string> in_use_;  // keys by user; guarded by use_mutex_
};

}  // namespace assay::worker
