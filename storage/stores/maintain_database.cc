#include "storage/stores/maintain_database.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <memory>

#include "base/file.h"
#include "base/status.h"
#include "storage/schema/migrator.h"
#include "storage/sqlite/backup.h"
#include "storage/sqlite/connection.h"
#include "storage/sqlite/database_lock.h"
#include "storage/sqlite/transaction.h"
#include "storage/stores/rows.h"

namespace assay::storage {
namespace {

constexpr int kPagesPerStep = 256;

bool HasBytes(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && info.st_size > 0;
}

}  // namespace

absl::StatusOr<int64_t> BackupDatabase(const std::string& path, const std::string& target_path,
                                       const std::function<bool()>& go_on) {
  ASSAY_ASSIGN_OR_RETURN(const std::unique_ptr<sqlite::Connection> source,
                         sqlite::Connection::OpenReader(path));
  // The moment that is copied: without it, a commit between two steps would begin the copy anew.
  ASSAY_ASSIGN_OR_RETURN(
      const sqlite::Transaction moment,
      sqlite::Transaction::Begin(source.get(), sqlite::Transaction::Kind::kRead));
  ASSAY_RETURN_IF_ERROR(source->QueryInteger("SELECT count(*) FROM sqlite_schema").status());
  ASSAY_ASSIGN_OR_RETURN(const std::unique_ptr<sqlite::Backup> backup,
                         sqlite::Backup::Start(source.get(), target_path));
  while (true) {
    if (!go_on()) return Cancelled("the backup to {} was stopped", target_path);
    ASSAY_ASSIGN_OR_RETURN(const bool done, backup->Step(kPagesPerStep));
    if (done) break;
  }
  ASSAY_RETURN_IF_ERROR(backup->Finish());
  return FileBytes(target_path);
}

absl::StatusOr<VacuumResult> VacuumDatabase(const std::string& path) {
  if (!HasBytes(path)) return NotFound("{}: no such database", path);
  ASSAY_ASSIGN_OR_RETURN(const std::unique_ptr<sqlite::DatabaseLock> lock,
                         sqlite::DatabaseLock::Take(path));
  const std::string compact_path = path + ".vacuum";
  VacuumResult result;
  {
    ASSAY_ASSIGN_OR_RETURN(const std::unique_ptr<sqlite::Connection> db,
                           sqlite::Connection::OpenWriter(path));
    ASSAY_RETURN_IF_ERROR(CheckSchemaVersion(db.get()));
    ASSAY_RETURN_IF_ERROR(db->CheckIntegrity(/*full=*/true));
    ASSAY_RETURN_IF_ERROR(db->CheckpointTruncate());
    result.bytes_before = FileBytes(path);
    unlink(compact_path.c_str());  // of a try that was cut off
    ASSAY_RETURN_IF_ERROR(db->VacuumInto(compact_path));
  }
  // The last connection takes the WAL away. One that stays, were it empty, belongs to a reader,
  // which would go on with the old file beside the new one's WAL.
  if (access((path + "-wal").c_str(), F_OK) == 0) {
    unlink(compact_path.c_str());
    return Unavailable("{}: another program reads it; close that one and try again", path);
  }
  unlink((path + "-shm").c_str());
  if (rename(compact_path.c_str(), path.c_str()) != 0) {
    unlink(compact_path.c_str());
    return Unavailable("{}: cannot be renamed to {}", compact_path, path);
  }
  ASSAY_RETURN_IF_ERROR(SyncDirectory(std::filesystem::absolute(path).parent_path().string()));
  result.bytes_after = FileBytes(path);
  return result;
}

}  // namespace assay::storage
