// Opening, transactions and upkeep. The statements are in control_load.cc, control_plans.cc,
// control_units.cc, control_samples.cc and control_jobs.cc.
#include "storage/stores/control_store.h"

#include "base/status.h"
#include "storage/schema/migrator.h"
#include "storage/sqlite/backup.h"
#include "storage/sqlite/connection.h"
#include "storage/sqlite/database_lock.h"
#include "storage/sqlite/transaction.h"
#include "storage/stores/rows.h"

namespace assay::storage {

absl::StatusOr<std::unique_ptr<ControlStore>> ControlStore::Open(const std::string& path) {
  ASSAY_ASSIGN_OR_RETURN(std::unique_ptr<sqlite::DatabaseLock> lock,
                         sqlite::DatabaseLock::Take(path));
  ASSAY_ASSIGN_OR_RETURN(std::unique_ptr<sqlite::Connection> connection,
                         sqlite::Connection::OpenWriter(path));
  const bool was_unclean = lock->last_owner_died();
  if (was_unclean) ASSAY_RETURN_IF_ERROR(connection->CheckIntegrity(/*full=*/false));
  ASSAY_RETURN_IF_ERROR(Migrate(connection.get()));
  return std::unique_ptr<ControlStore>(
      new ControlStore(path, std::move(lock), std::move(connection), was_unclean));
}

ControlStore::ControlStore(std::string path, std::unique_ptr<sqlite::DatabaseLock> lock,
                           std::unique_ptr<sqlite::Connection> connection, bool was_unclean)
    : path_(std::move(path)),
      lock_(std::move(lock)),
      connection_(std::move(connection)),
      was_unclean_(was_unclean) {}

ControlStore::~ControlStore() = default;

absl::Status ControlStore::Begin() {
  ASSAY_CHECK(transaction_ == nullptr, "{}: Begin within a transaction", path_);
  ASSAY_ASSIGN_OR_RETURN(sqlite::Transaction transaction,
                         sqlite::Transaction::Begin(connection_.get()));
  transaction_ = std::make_unique<sqlite::Transaction>(std::move(transaction));
  return absl::OkStatus();
}

absl::Status ControlStore::Commit() {
  ASSAY_CHECK(transaction_ != nullptr, "{}: Commit without a transaction", path_);
  const absl::Status status = transaction_->Commit();
  transaction_.reset();
  return status;
}

void ControlStore::Rollback() { transaction_.reset(); }

bool ControlStore::in_transaction() const { return transaction_ != nullptr; }

absl::StatusOr<sqlite::Connection*> ControlStore::Writable() {
  ASSAY_CHECK(transaction_ != nullptr, "{}: a write without a transaction", path_);
  if (!connection_->in_transaction()) {
    return Unavailable("{}: an earlier error undid the transaction; try again", path_);
  }
  return connection_.get();
}

absl::Status ControlStore::SetMeta(const std::string& key, const std::string& value) {
  ASSAY_ASSIGN_OR_RETURN(sqlite::Connection* const db, Writable());
  return db->Run(
      "INSERT INTO meta(key, value) VALUES(?1, ?2)"
      " ON CONFLICT(key) DO UPDATE SET value = excluded.value",
      key, value);
}

absl::StatusOr<std::string> ControlStore::GetMeta(const std::string& key) {
  return storage::GetMeta(connection_.get(), key);
}

absl::Status ControlStore::CheckpointIfLarge() {
  ASSAY_CHECK(transaction_ == nullptr, "{}: a checkpoint within a transaction", path_);
  return connection_->CheckpointIfLarge();
}

absl::Status ControlStore::CheckpointWhenIdle() {
  ASSAY_CHECK(transaction_ == nullptr, "{}: a checkpoint within a transaction", path_);
  return connection_->CheckpointTruncate();
}

absl::Status ControlStore::BackupTo(const std::string& target_path) {
  ASSAY_ASSIGN_OR_RETURN(const std::unique_ptr<sqlite::Backup> backup,
                         sqlite::Backup::Start(connection_.get(), target_path));
  ASSAY_ASSIGN_OR_RETURN(const bool done, backup->Step(-1));  // all pages
  ASSAY_CHECK(done, "{}: a backup without limit stopped early", target_path);
  return backup->Finish();
}

absl::StatusOr<int64_t> ControlStore::DatabaseBytes() { return FileBytes(path_); }

}  // namespace assay::storage
