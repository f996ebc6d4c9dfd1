// Tokens of people.
#include "base/status.h"
#include "storage/sqlite/connection.h"
#include "storage/stores/control_store.h"

namespace assay::storage {

using sqlite::Connection;
using sqlite::Row;
using sqlite::Statement;

absl::StatusOr<std::vector<TokenRecord>> ControlStore::LoadTokens() {
  ASSAY_ASSIGN_OR_RETURN(
      Statement find,
      connection_->Prepare("SELECT public_id, name, role, hash, created_time_us, last_used_time_us,"
                           "   revoked_time_us FROM token ORDER BY id"));
  std::vector<TokenRecord> tokens;
  while (true) {
    ASSAY_ASSIGN_OR_RETURN(const bool found, find.Step());
    if (!found) return tokens;
    TokenRecord& token = tokens.emplace_back();
    Row(find).Read(&token.token_id, &token.name, &token.role, &token.hash, &token.created_time_us,
                   &token.last_used_time_us, &token.revoked_time_us);
  }
}

absl::Status ControlStore::InsertToken(const TokenRecord& token) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  return db->Run(
      "INSERT INTO token(public_id, name, role, hash, created_time_us) VALUES(?1, ?2, ?3, ?4, ?5)",
      token.token_id, token.name, token.role, token.hash, token.created_time_us);
}

absl::Status ControlStore::RevokeToken(const std::string& token_id, int64_t time_us) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  ASSAY_RETURN_IF_ERROR(
      db->Run("UPDATE token SET revoked_time_us = iif(revoked_time_us = 0, ?2, revoked_time_us)"
              " WHERE public_id = ?1",
              token_id, time_us));
  if (db->num_changes() == 0) return NotFound("there is no token {}", token_id);
  return absl::OkStatus();
}

absl::Status ControlStore::NoteTokenUse(const std::string& token_id, int64_t time_us) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  return db->Run("UPDATE token SET last_used_time_us = ?2 WHERE public_id = ?1", token_id, time_us);
}

}  // namespace assay::storage
