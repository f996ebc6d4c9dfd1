#include "worker/agent/model_finder.h"

#include "base/log.h"
#include "base/status.h"

namespace assay::worker {

absl::StatusOr<std::string> ModelFinder::Find(const v1::ModelRef& model) {
  return model.artifact_key().empty() ? FindBase(model) : FindArtifact(model.artifact_key());
}

absl::StatusOr<std::string> ModelFinder::FindBase(const v1::ModelRef& model) {
  ASSAY_ASSIGN_OR_RETURN(const std::string folder, FindModel(model_roots_, model.name()));
  ASSAY_ASSIGN_OR_RETURN(const std::string hash, hasher_.Hash(folder));
  if (hash != model.model_hash()) {
    return FailedPrecondition(
        "{}: its content is {}, and the sweep was planned with {}: give this worker the same files",
        folder, hash.substr(0, 12), model.model_hash().substr(0, 12));
  }
  return folder;
}

absl::StatusOr<std::string> ModelFinder::FindArtifact(const std::string& key) {
  if (!storage::IsArtifactKey(key)) return InvalidArgument("'{}' is no artifact key", key);
  const std::lock_guard lock(fetch_mutex_);
  if (!store_->Has(key)) {
    spdlog::info("artifact {}: fetching it from the coordinator", key.substr(0, 12));
    const absl::Status fetched = client_->FetchArtifact(key, store_);
    if (!fetched.ok()) return Annotate(fetched, "artifact " + key.substr(0, 12));
  }
  store_->Touch(key);
  return store_->Path(key);
}

}  // namespace assay::worker
