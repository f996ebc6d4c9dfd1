// SQLite's result codes as statuses that say what to do.
#pragma once

#include <absl/status/status.h>

#include <string>

struct sqlite3;

namespace assay::storage::sqlite {

// What `code` of the last call on `db` means for the caller:
//   FULL, IOERR, READONLY, CANTOPEN, BUSY, LOCKED, NOMEM   UNAVAILABLE: the disk or another process
//   CORRUPT, NOTADB                                        DATA_LOSS: restore a backup
//   CONSTRAINT                                             FAILED_PRECONDITION
//   INTERRUPT                                              DEADLINE_EXCEEDED
//   TOOBIG                                                 INVALID_ARGUMENT
//   anything else                                          INTERNAL: a bug in our SQL
// `db` may be null.
absl::Status MakeError(sqlite3* db, int code, const std::string& path);

}  // namespace assay::storage::sqlite
