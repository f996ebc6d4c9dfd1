// A connection to one SQLite file, set up for one writer. This folder is the only
// place that calls sqlite3_*.
//
// SQLite before 3.51.3 can corrupt a WAL when two connections write or checkpoint (the WAL-reset
// race), and Debian 12 ships 3.40.1 without the fix. So a file has ONE writer, which also makes
// every checkpoint, and DatabaseLock keeps a second one away; all other connections are readers,
// which never checkpoint, not even when they close.
//
// A connection belongs to one thread at a time.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "storage/sqlite/statement.h"

struct sqlite3;

namespace assay::storage::sqlite {

inline constexpr int32_t kApplicationId = 0x41535359;  // "ASSY", in the file's header

class Connection {
 public:
  // Opens `path` for writing, creating it when it is missing. INVALID_ARGUMENT, with nothing
  // changed, when the file holds something that is not an Assay database.
  static absl::StatusOr<std::unique_ptr<Connection>> OpenWriter(const std::string& path);

  // Opens an existing file for reading; nothing through this connection can change it. NOT_FOUND
  // when there is none, INVALID_ARGUMENT as above. A file on a medium that cannot be written, where
  // SQLite cannot make its shared-memory file, is read as immutable if it has no WAL.
  static absl::StatusOr<std::unique_ptr<Connection>> OpenReader(const std::string& path);

  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  const std::string& path() const { return path_; }
  sqlite3* handle() { return db_; }

  // Runs a script of statements without parameters or results.
  absl::Status Execute(const std::string& script);

  // A statement from the cache, compiled at its first use. `sql` is one statement.
  absl::StatusOr<Statement> Prepare(std::string_view sql);

  // Prepare, Bind and Run in one.
  template <typename... Args>
  absl::Status Run(std::string_view sql, const Args&... args) {
    absl::StatusOr<Statement> statement = Prepare(sql);
    if (!statement.ok()) return statement.status();
    return statement->Bind(args...).Run();
  }

  // The first column of the first row of a query that has one, as a PRAGMA or count(*).
  absl::StatusOr<int64_t> QueryInteger(std::string_view sql);

  int64_t last_insert_id() const;
  int64_t num_changes() const;  // rows of the last INSERT, UPDATE or DELETE
  bool in_transaction() const;

  // Checkpoints, by the writer, outside a transaction ---------------------------------------------

  // PASSIVE when the WAL has grown by 64 MB since the last one; else nothing. When a reader holds
  // old pages it copies what it may and tries again 64 MB later.
  absl::Status CheckpointIfLarge();
  // TRUNCATE: the WAL file is empty afterwards, unless a reader needs it.
  absl::Status CheckpointTruncate();

  // DATA_LOSS with the first findings. `full` also compares indices with tables.
  absl::Status CheckIntegrity(bool full);

  // A compacted copy in a new file, durable when this returns. ALREADY_EXISTS.
  absl::Status VacuumInto(const std::string& target_path);

 private:
  friend class Statement;
  Connection(std::string path, sqlite3* db) : path_(std::move(path)), db_(db) {}

  static absl::StatusOr<std::unique_ptr<Connection>> OpenFile(const std::string& path,
                                                              const std::string& uri, int flags);
  absl::Status CheckApplicationId(bool* is_empty);
  void Return(sqlite3_stmt* statement);
  static int OnCommit(void* self, sqlite3* db, const char* database, int num_wal_pages);

  const std::string path_;
  sqlite3* const db_;
  std::map<std::string, std::vector<sqlite3_stmt*>, std::less<>> idle_statements_;
  int64_t page_bytes_ = 0;
  int64_t wal_bytes_ = 0;  // after the last commit
  int64_t next_checkpoint_wal_bytes_ = 0;
};

}  // namespace assay::storage::sqlite
