#include "storage/sqlite/backup.h"

#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.h"
#include "base/status.h"
#include "storage/sqlite/connection.h"
#include "storage/sqlite/error.h"

namespace assay::storage::sqlite {

struct Backup::Target {
  std::string path;
  sqlite3* db = nullptr;
  sqlite3_backup* backup = nullptr;

  ~Target() {
    sqlite3_backup_finish(backup);  // null is fine
    sqlite3_close(db);
  }
};

absl::StatusOr<std::unique_ptr<Backup>> Backup::Start(Connection* source,
                                                      const std::string& target_path) {
  struct stat info;
  if (stat(target_path.c_str(), &info) == 0) {
    return AlreadyExists("{}: exists already; choose another name", target_path);
  }
  auto target = std::make_unique<Target>();
  target->path = target_path + ".partial";
  unlink(target->path.c_str());
  const int code = sqlite3_open_v2(
      target->path.c_str(), &target->db,
      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
      nullptr);
  if (code != SQLITE_OK) return MakeError(target->db, code, target->path);
  target->backup = sqlite3_backup_init(target->db, "main", source->handle(), "main");
  if (target->backup == nullptr) {
    return MakeError(target->db, sqlite3_extended_errcode(target->db), target->path);
  }
  return std::unique_ptr<Backup>(new Backup(target_path, std::move(target)));
}

Backup::Backup(std::string target_path, std::unique_ptr<Target> target)
    : target_path_(std::move(target_path)), target_(std::move(target)) {}

Backup::~Backup() {
  if (target_ == nullptr) return;
  const std::string path = target_->path;
  target_.reset();
  unlink(path.c_str());
}

absl::StatusOr<bool> Backup::Step(int num_pages) {
  const int code = sqlite3_backup_step(target_->backup, num_pages);
  if (code == SQLITE_DONE) return true;
  if (code == SQLITE_OK) return false;
  return MakeError(target_->db, code, target_->path);
}

absl::Status Backup::Finish() {
  const int code = sqlite3_backup_finish(target_->backup);  // its commit syncs the copy
  target_->backup = nullptr;
  if (code != SQLITE_OK) return MakeError(target_->db, code, target_->path);
  const std::string partial_path = target_->path;
  sqlite3_close(target_->db);
  target_->db = nullptr;
  if (rename(partial_path.c_str(), target_path_.c_str()) != 0) {
    return Unavailable("{}: cannot be renamed to {}", partial_path, target_path_);
  }
  target_.reset();
  return SyncDirectory(std::filesystem::absolute(target_path_).parent_path().string());
}

}  // namespace assay::storage::sqlite
