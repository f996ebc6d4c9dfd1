// A transaction that rolls back unless it is committed.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

namespace assay::storage::sqlite {

class Connection;

// Not nested: one transaction of a connection at a time.
class Transaction {
 public:
  enum class Kind {
    // BEGIN IMMEDIATE. A deferred one that writes after another commit fails at once, whatever the
    // busy timeout (measured: SQLITE_BUSY_SNAPSHOT).
    kWrite,
    kRead,
  };
  static absl::StatusOr<Transaction> Begin(Connection* connection, Kind kind = Kind::kWrite);

  ~Transaction();
  Transaction(Transaction&& other) noexcept : connection_(other.connection_) {
    other.connection_ = nullptr;
  }
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  Transaction& operator=(Transaction&&) = delete;

  // The transaction is over when this returns, rolled back when it fails.
  absl::Status Commit();

 private:
  explicit Transaction(Connection* connection) : connection_(connection) {}
  void Rollback();

  Connection* connection_;  // null once it is over
};

}  // namespace assay::storage::sqlite
