// Tokens of people, and which artifacts are whose business.
#include <nlohmann/json.hpp>

#include "base/status.h"
#include "coordinator/control/control_plane.h"

namespace assay::coordinator {

absl::Status ControlPlane::HandleCreateToken(const storage::TokenRecord& token) {
  ASSAY_RETURN_IF_ERROR(CheckInBatch());
  ASSAY_RETURN_IF_ERROR(Guard(store_->InsertToken(token)));
  return Guard(RecordEvent(
      {.kind = "token_created",
       .detail_json =
           nlohmann::json{{"token_id", token.token_id}, {"name", token.name}, {"role", token.role}}
               .dump()}));
}

absl::Status ControlPlane::HandleRevokeToken(const std::string& token_id) {
  ASSAY_RETURN_IF_ERROR(CheckInBatch());
  const absl::Status revoked = store_->RevokeToken(token_id, now_us_);
  if (absl::IsNotFound(revoked)) return revoked;
  ASSAY_RETURN_IF_ERROR(Guard(revoked));
  return Guard(RecordEvent(
      {.kind = "token_revoked", .detail_json = nlohmann::json{{"token_id", token_id}}.dump()}));
}

absl::Status ControlPlane::HandleTokenUse(const std::string& token_id, int64_t time_us) {
  ASSAY_RETURN_IF_ERROR(CheckInBatch());
  return Guard(store_->NoteTokenUse(token_id, time_us));
}

bool ControlPlane::NeedsArtifact(const std::string& worker_id,
                                 const std::string& artifact_key) const {
  for (const auto& [number, lease] : scheduler_->leases()) {
    if (lease.worker_id != worker_id) continue;
    const auto cell = scheduler_->cells().find(lease.cell_id);
    if (cell != scheduler_->cells().end() && cell->second.spec.artifact_key == artifact_key) {
      return true;
    }
  }
  return MakesArtifact(worker_id, artifact_key);
}

bool ControlPlane::MakesArtifact(const std::string& worker_id,
                                 const std::string& artifact_key) const {
  for (const auto& [job_id, job] : scheduler_->jobs()) {
    if (job.status != JobStatus::kLeased || job.worker_id != worker_id) continue;
    for (const auto& [cell_id, cell] : scheduler_->cells()) {
      if (cell.spec.load.artifact_id == job.spec.load.artifact_id) {
        if (cell.spec.artifact_key == artifact_key) return true;
        break;  // an artifact has one key
      }
    }
  }
  return false;
}

}  // namespace assay::coordinator
