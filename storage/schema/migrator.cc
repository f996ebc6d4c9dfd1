#include "storage/schema/migrator.h"

#include "base/status.h"
#include "storage/sqlite/connection.h"
#include "storage/sqlite/transaction.h"

namespace assay::storage {
namespace {

absl::Status NewerFile(const std::string& path, int64_t version, int known) {
  return InvalidArgument(
      "{}: made by a newer Assay (schema {}; this program knows {}): use that one", path, version,
      known);
}

}  // namespace

absl::Status Migrate(sqlite::Connection* connection, std::span<const Migration> migrations) {
  ASSAY_ASSIGN_OR_RETURN(const int64_t version, connection->QueryInteger("PRAGMA user_version"));
  const int newest = migrations.back().version;
  if (version > newest) return NewerFile(connection->path(), version, newest);
  if (version == newest) return absl::OkStatus();
  if (version > 0) {
    const std::string copy = fmt::format("{}.before-schema-{}", connection->path(), newest);
    const absl::Status status = connection->VacuumInto(copy);
    if (!status.ok() && !absl::IsAlreadyExists(status)) return status;
  }
  ASSAY_ASSIGN_OR_RETURN(sqlite::Transaction transaction, sqlite::Transaction::Begin(connection));
  for (const Migration& migration : migrations) {
    if (migration.version <= version) continue;
    absl::Status status = connection->Execute(std::string(migration.sql));
    if (!status.ok()) return Annotate(status, fmt::format("schema step {}", migration.name));
  }
  ASSAY_RETURN_IF_ERROR(connection->Execute(fmt::format(
      "PRAGMA application_id={}; PRAGMA user_version={};", sqlite::kApplicationId, newest)));
  return transaction.Commit();
}

absl::Status CheckSchemaVersion(sqlite::Connection* connection) {
  ASSAY_ASSIGN_OR_RETURN(const int64_t version, connection->QueryInteger("PRAGMA user_version"));
  const int newest = Migrations().back().version;
  if (version > newest) return NewerFile(connection->path(), version, newest);
  if (version < newest) {
    return InvalidArgument(
        "{}: made by an older Assay (schema {}, now {}): start a coordinator on it once, which "
        "brings it up to date",
        connection->path(), version, newest);
  }
  return absl::OkStatus();
}

}  // namespace assay::storage
