#include "worker/agent/model_finder.h"

#include <set>

#include "base/log.h"
#include "base/status.h"

namespace assay::worker {

absl::StatusOr<std::string> ModelFinder::Find(const v1::ModelRef& model, const std::string& user) {
  if (model.artifact_key().empty()) {
    LetGo(user);
    return FindBase(model);
  }
  Keep(model.artifact_key(), user);
  return FindArtifact(model.artifact_key());
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
  MakeRoom();
  return store_->Path(key);
}

void ModelFinder::Keep(const std::string& key, const std::string& user) {
  const std::lock_guard lock(use_mutex_);
  in_use_[user] = key;
}

void ModelFinder::LetGo(const std::string& user) {
  {
    const std::lock_guard lock(use_mutex_);
    if (in_use_.erase(user) == 0) return;
  }
  const std::lock_guard lock(fetch_mutex_);
  MakeRoom();
}

// Under fetch_mutex_, so that nothing is removed between the look at the users and the removal: a
// user who asks for an artifact meanwhile finds it gone and fetches it.
void ModelFinder::MakeRoom() {
  if (max_cache_bytes_ == 0) return;
  std::set<std::string> in_use;
  {
    const std::lock_guard lock(use_mutex_);
    for (const auto& [user, key] : in_use_) in_use.insert(key);
  }
  const absl::StatusOr<int> num_removed = store_->Evict(max_cache_bytes_, in_use);
  if (!num_removed.ok()) {
    spdlog::warn("artifacts: {}", Message(num_removed.status()));
  } else if (*num_removed > 0) {
    spdlog::info("artifacts: {} removed to stay within {} MiB", *num_removed,
                 max_cache_bytes_ >> 20);
  }
}

}  // namespace assay::worker
