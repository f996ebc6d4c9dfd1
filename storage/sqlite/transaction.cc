#include "storage/sqlite/transaction.h"

#include "base/log.h"
#include "base/status.h"
#include "storage/sqlite/connection.h"

namespace assay::storage::sqlite {

absl::StatusOr<Transaction> Transaction::Begin(Connection* connection, Kind kind) {
  ASSAY_CHECK(!connection->in_transaction(), "{}: a transaction is open", connection->path());
  ASSAY_RETURN_IF_ERROR(connection->Run(kind == Kind::kWrite ? "BEGIN IMMEDIATE" : "BEGIN"));
  return Transaction(connection);
}

Transaction::~Transaction() {
  if (connection_ != nullptr) Rollback();
}

absl::Status Transaction::Commit() {
  ASSAY_CHECK(connection_ != nullptr, "the transaction is over");
  if (!connection_->in_transaction()) {
    const std::string& path = connection_->path();
    connection_ = nullptr;
    return Unavailable("{}: an earlier error undid the transaction; try again", path);
  }
  absl::Status status = connection_->Run("COMMIT");
  if (!status.ok()) {
    Rollback();
    return status;
  }
  connection_ = nullptr;
  return absl::OkStatus();
}

void Transaction::Rollback() {
  // A full disk or an I/O error may have rolled it back already.
  if (connection_->in_transaction()) {
    const absl::Status status = connection_->Run("ROLLBACK");
    if (!status.ok()) spdlog::error("rollback failed: {}", Message(status));
  }
  connection_ = nullptr;
}

}  // namespace assay::storage::sqlite
