#include "storage/sqlite/connection.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <filesystem>

#include "base/file.h"
#include "base/status.h"
#include "storage/sqlite/error.h"

namespace assay::storage::sqlite {
namespace {

constexpr int64_t kCheckpointBytes = int64_t{64} << 20;

// Measured (tests/bench/store_bench.cc, texts of 30 KB, batches of 64, two busy cores): 4096 2,120
// samples/s, 8192 2,730, 16384 2,720.
constexpr int kPageBytes = 8192;

// How long another's lock is waited for.
constexpr int kBusyTimeoutMs = 5000;

constexpr char kWriterSettings[] =
    "PRAGMA journal_mode=WAL;"
    "PRAGMA synchronous=FULL;"  // an acknowledged sample is on disk
    "PRAGMA foreign_keys=ON;"
    "PRAGMA wal_autocheckpoint=0;"
    "PRAGMA trusted_schema=OFF;"
    "PRAGMA cache_size=-32768;";

constexpr char kReaderSettings[] =
    "PRAGMA query_only=ON;"
    "PRAGMA wal_autocheckpoint=0;"
    "PRAGMA trusted_schema=OFF;"
    "PRAGMA cache_size=-16384;";

// A path as SQLite's URI: everything but plain characters is percent-encoded.
std::string FileUri(const std::string& path, std::string_view options) {
  std::string uri = "file:";
  for (const char c : std::filesystem::absolute(path).string()) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '/' || c == '.' || c == '-' || c == '_';
    if (plain) {
      uri += c;
    } else {
      uri += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return fmt::format("{}?{}", uri, options);
}

bool HasWal(const std::string& path) {
  struct stat info;
  return stat((path + "-wal").c_str(), &info) == 0 && info.st_size > 0;
}

bool Exists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

absl::Status SyncFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return Unavailable("{}: cannot be opened to sync it", path);
  const int result = fsync(fd);
  close(fd);
  if (result != 0) return Unavailable("{}: fsync failed; is the disk full?", path);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Connection>> Connection::OpenFile(const std::string& path,
                                                                 const std::string& uri,
                                                                 int flags) {
  sqlite3* db = nullptr;
  const int code = sqlite3_open_v2(
      uri.c_str(), &db, flags | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
      nullptr);
  // SQLite gives a handle even when it fails; the connection closes it.
  std::unique_ptr<Connection> connection(new Connection(path, db));
  if (code != SQLITE_OK) return MakeError(db, code, path);
  // Before the first read: after a crash it may meet whoever is bringing the WAL back.
  sqlite3_busy_timeout(db, kBusyTimeoutMs);
  // A database file is data from outside: its schema must not reach functions with side effects or
  // write to SQLite's own tables.
  sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0, nullptr);
  return connection;
}

absl::StatusOr<std::unique_ptr<Connection>> Connection::OpenWriter(const std::string& path) {
  ASSAY_ASSIGN_OR_RETURN(
      std::unique_ptr<Connection> connection,
      OpenFile(path, FileUri(path, "mode=rwc"), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE));
  bool is_empty = false;
  ASSAY_RETURN_IF_ERROR(connection->CheckApplicationId(&is_empty));
  if (is_empty) {  // the page size is fixed when WAL mode begins
    ASSAY_RETURN_IF_ERROR(connection->Execute(fmt::format("PRAGMA page_size={}", kPageBytes)));
  }
  ASSAY_RETURN_IF_ERROR(connection->Execute(kWriterSettings));
  ASSAY_ASSIGN_OR_RETURN(connection->page_bytes_, connection->QueryInteger("PRAGMA page_size"));
  connection->next_checkpoint_wal_bytes_ = kCheckpointBytes;
  sqlite3_wal_hook(connection->db_, &Connection::OnCommit, connection.get());
  return connection;
}

absl::StatusOr<std::unique_ptr<Connection>> Connection::OpenReader(const std::string& path) {
  if (!Exists(path)) return NotFound("{}: no such database", path);
  ASSAY_ASSIGN_OR_RETURN(std::unique_ptr<Connection> connection,
                         OpenFile(path, FileUri(path, "mode=ro"), SQLITE_OPEN_READONLY));
  bool is_empty = false;
  absl::Status status = connection->CheckApplicationId(&is_empty);
  if (absl::IsUnavailable(status) && !HasWal(path)) {
    ASSAY_ASSIGN_OR_RETURN(
        connection, OpenFile(path, FileUri(path, "mode=ro&immutable=1"), SQLITE_OPEN_READONLY));
    status = connection->CheckApplicationId(&is_empty);
  }
  ASSAY_RETURN_IF_ERROR(status);
  if (is_empty) return InvalidArgument("{}: not an Assay database: the file is empty", path);
  sqlite3_db_config(connection->db_, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  ASSAY_RETURN_IF_ERROR(connection->Execute(kReaderSettings));
  return connection;
}

Connection::~Connection() {
  for (auto& [sql, statements] : idle_statements_) {
    for (sqlite3_stmt* statement : statements) sqlite3_finalize(statement);
  }
  const int code = sqlite3_close(db_);
  ASSAY_CHECK(code == SQLITE_OK, "{}: closed while a statement is in use", path_);
}

absl::Status Connection::CheckApplicationId(bool* is_empty) {
  absl::StatusOr<int64_t> application_id = QueryInteger("PRAGMA application_id");
  if (absl::IsDataLoss(application_id.status())) {
    return InvalidArgument("{}: not an Assay database: not a SQLite file", path_);
  }
  ASSAY_RETURN_IF_ERROR(application_id.status());
  ASSAY_ASSIGN_OR_RETURN(const int64_t num_objects,
                         QueryInteger("SELECT count(*) FROM sqlite_schema"));
  *is_empty = num_objects == 0 && *application_id == 0;
  if (!*is_empty && *application_id != kApplicationId) {
    return InvalidArgument("{}: not an Assay database: its application id is {:#x}, not {:#x}",
                           path_, *application_id, kApplicationId);
  }
  return absl::OkStatus();
}

absl::Status Connection::Execute(const std::string& script) {
  const int code = sqlite3_exec(db_, script.c_str(), nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) return MakeError(db_, code, path_);
  return absl::OkStatus();
}

absl::StatusOr<Statement> Connection::Prepare(std::string_view sql) {
  auto idle = idle_statements_.find(sql);
  if (idle != idle_statements_.end() && !idle->second.empty()) {
    sqlite3_stmt* const statement = idle->second.back();
    idle->second.pop_back();
    return Statement(this, statement);
  }
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v3(db_, sql.data(), static_cast<int>(sql.size()),
                                      SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  if (code != SQLITE_OK) return MakeError(db_, code, path_);
  return Statement(this, statement);
}

void Connection::Return(sqlite3_stmt* statement) {
  sqlite3_reset(statement);
  sqlite3_clear_bindings(statement);  // a bound text may be large
  idle_statements_[sqlite3_sql(statement)].push_back(statement);
}

absl::StatusOr<int64_t> Connection::QueryInteger(std::string_view sql) {
  ASSAY_ASSIGN_OR_RETURN(Statement statement, Prepare(sql));
  ASSAY_ASSIGN_OR_RETURN(const bool found, statement.Step());
  if (!found) return Internal("{}: '{}' gave no row", path_, sql);
  int64_t value = 0;
  Row(statement).Read(&value);
  return value;
}

int64_t Connection::last_insert_id() const { return sqlite3_last_insert_rowid(db_); }
int64_t Connection::num_changes() const { return sqlite3_changes64(db_); }
bool Connection::in_transaction() const { return sqlite3_get_autocommit(db_) == 0; }

int Connection::OnCommit(void* self, sqlite3* /*db*/, const char* /*database*/, int num_wal_pages) {
  auto* connection = static_cast<Connection*>(self);
  connection->wal_bytes_ = num_wal_pages * connection->page_bytes_;
  return SQLITE_OK;
}

absl::Status Connection::CheckpointIfLarge() {
  if (wal_bytes_ < kCheckpointBytes) next_checkpoint_wal_bytes_ = kCheckpointBytes;
  if (wal_bytes_ < next_checkpoint_wal_bytes_) return absl::OkStatus();
  int num_pages = 0;
  int num_copied = 0;
  const int code =
      sqlite3_wal_checkpoint_v2(db_, nullptr, SQLITE_CHECKPOINT_PASSIVE, &num_pages, &num_copied);
  next_checkpoint_wal_bytes_ = wal_bytes_ + kCheckpointBytes;
  if (code != SQLITE_OK && code != SQLITE_BUSY) return MakeError(db_, code, path_);
  return absl::OkStatus();
}

absl::Status Connection::CheckpointTruncate() {
  // A reader may keep its pages as long as it likes: better a WAL for a while than a writer that
  // waits.
  sqlite3_busy_timeout(db_, 0);
  const int code =
      sqlite3_wal_checkpoint_v2(db_, nullptr, SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr);
  sqlite3_busy_timeout(db_, kBusyTimeoutMs);
  if ((code & 0xff) == SQLITE_BUSY) return absl::OkStatus();
  if (code != SQLITE_OK) return MakeError(db_, code, path_);
  wal_bytes_ = 0;
  return absl::OkStatus();
}

namespace {

// The check reports a page that the disk does not give as a finding ("unable to get the page. error
// code=266"), beside real damage: the primary code is in the low byte.
bool SaysUnreadable(std::string_view findings) {
  constexpr std::string_view kMark = "error code=";
  for (size_t at = findings.find(kMark); at != std::string_view::npos;
       at = findings.find(kMark, at + 1)) {
    int code = 0;
    std::from_chars(findings.data() + at + kMark.size(), findings.data() + findings.size(), code);
    const int primary = code & 0xff;
    if (primary == SQLITE_IOERR || primary == SQLITE_NOMEM || primary == SQLITE_CANTOPEN) {
      return true;
    }
  }
  return false;
}

}  // namespace

absl::Status Connection::CheckIntegrity(bool full) {
  ASSAY_ASSIGN_OR_RETURN(Statement statement,
                         Prepare(full ? "PRAGMA integrity_check(5)" : "PRAGMA quick_check(5)"));
  std::string findings;
  while (true) {
    ASSAY_ASSIGN_OR_RETURN(const bool more, statement.Step());
    if (!more) break;
    std::string line;
    Row(statement).Read(&line);
    if (line != "ok") findings += (findings.empty() ? "" : "; ") + line;
  }
  if (findings.empty()) return absl::OkStatus();
  if (SaysUnreadable(findings)) {
    return Unavailable("{}: pages cannot be read ({}); look at the machine's log and try again",
                       path_, findings);
  }
  return DataLoss("{}: the database is damaged ({}); stop and restore a backup", path_, findings);
}

absl::Status Connection::VacuumInto(const std::string& target_path) {
  if (Exists(target_path)) return AlreadyExists("{}: exists already", target_path);
  // SQLite does not sync what it writes here, so the name appears only after we did.
  const std::string partial_path = target_path + ".partial";
  unlink(partial_path.c_str());
  absl::Status status = Run("VACUUM INTO ?1", partial_path);
  if (status.ok()) status = SyncFile(partial_path);
  if (status.ok() && rename(partial_path.c_str(), target_path.c_str()) != 0) {
    status = Unavailable("{}: cannot be renamed to {}", partial_path, target_path);
  }
  if (!status.ok()) {
    unlink(partial_path.c_str());
    return status;
  }
  return SyncDirectory(std::filesystem::absolute(target_path).parent_path().string());
}

}  // namespace assay::storage::sqlite
