#include "storage/sqlite/error.h"

#include <sqlite3.h>

#include "base/status.h"

namespace assay::storage::sqlite {

absl::Status MakeError(sqlite3* db, int code, const std::string& path) {
  // The connection's text is more exact than the code's, but only while it is of the same error.
  const bool has_text = db != nullptr && sqlite3_extended_errcode(db) == code;
  const char* text = has_text ? sqlite3_errmsg(db) : sqlite3_errstr(code);
  switch (code & 0xff) {
    case SQLITE_FULL:
      return Unavailable("{}: no space left ({}); free some disk space, then try again", path,
                         text);
    case SQLITE_IOERR:
      return Unavailable("{}: the disk failed ({}, code {}); look at the machine's log", path, text,
                         code);
    case SQLITE_READONLY:
      return Unavailable("{}: not writable ({}); check the permissions of the file and its folder",
                         path, text);
    case SQLITE_CANTOPEN:
      return Unavailable("{}: cannot be opened ({}); check the path and its permissions", path,
                         text);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return Unavailable("{}: another program holds it ({}); close that program, then try again",
                         path, text);
    case SQLITE_NOMEM:
      return Unavailable("{}: out of memory", path);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return DataLoss("{}: the database is damaged ({}); stop and restore a backup", path, text);
    case SQLITE_CONSTRAINT:
      return FailedPrecondition("{}: {}", path, text);
    case SQLITE_INTERRUPT:
      return DeadlineExceeded("{}: stopped at its time limit", path);
    case SQLITE_TOOBIG:
      return InvalidArgument("{}: {}", path, text);
    default:
      return Internal("{}: SQLite says '{}' (code {})", path, text, code);
  }
}

}  // namespace assay::storage::sqlite
