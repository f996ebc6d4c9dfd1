// One state of the database for all statements of a method, unless its caller holds a snapshot.
#pragma once

#include <absl/status/statusor.h>

#include <memory>

#include "base/status.h"
#include "storage/sqlite/connection.h"
#include "storage/sqlite/transaction.h"

namespace assay::storage {

class ReadScope {
 public:
  static absl::StatusOr<ReadScope> Open(sqlite::Connection* db) {
    ReadScope scope;
    if (!db->in_transaction()) {
      ASSAY_ASSIGN_OR_RETURN(sqlite::Transaction transaction,
                             sqlite::Transaction::Begin(db, sqlite::Transaction::Kind::kRead));
      scope.transaction_ = std::make_unique<sqlite::Transaction>(std::move(transaction));
    }
    return scope;
  }

 private:
  std::unique_ptr<sqlite::Transaction> transaction_;  // rolled back at the end: nothing was written
};

}  // namespace assay::storage
