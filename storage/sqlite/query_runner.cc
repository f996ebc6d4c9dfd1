#include "storage/sqlite/query_runner.h"

#include <sqlite3.h>

#include <algorithm>
#include <cctype>
#include <set>
#include <string_view>

#include "base/clock.h"
#include "base/status.h"
#include "storage/sqlite/connection.h"
#include "storage/sqlite/error.h"

namespace assay::storage::sqlite {
namespace {

// Instructions of SQLite's machine between looks at the clock: some 100 microseconds.
constexpr int kInstructionsPerCheck = 10'000;

constexpr int kMaxSqlBytes = 100'000;
constexpr int kMaxValueBytes = 64 << 20;
constexpr int kMaxPatternBytes = 1'000;  // matching takes pattern times text

bool IsHarmlessPragma(std::string_view name, const char* argument) {
  static constexpr std::string_view kDescribing[] = {// these take a name
                                                     "foreign_key_list", "index_info", "index_list",
                                                     "index_xinfo",      "table_info", "table_list",
                                                     "table_xinfo"};
  static constexpr std::string_view kAsking[] = {
      // these set something when given a value
      "application_id", "collation_list", "compile_options", "data_version",
      "encoding",       "freelist_count", "function_list",   "page_count",
      "page_size",      "schema_version", "user_version"};
  const auto is_name = [name](std::string_view known) { return known == name; };
  if (std::ranges::any_of(kDescribing, is_name)) return true;
  return argument == nullptr && std::ranges::any_of(kAsking, is_name);
}

std::string Lower(const char* text) {
  std::string lower = text == nullptr ? "" : text;
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

// Called while a statement is compiled, for each thing that it would do.
int Authorize(void* /*unused*/, int action, const char* first, const char* second,
              const char* /*database*/, const char* /*view*/) {
  switch (action) {
    case SQLITE_READ:
      // Hashes of tokens are nobody's business, however little they tell.
      return Lower(first) == "token" ? SQLITE_DENY : SQLITE_OK;
    case SQLITE_SELECT:
    case SQLITE_RECURSIVE:
      return SQLITE_OK;
    case SQLITE_FUNCTION: {
      static const std::set<std::string, std::less<>> kRefused = {
          "fts3_tokenizer", "load_extension", "optimize", "rebuild"};
      return kRefused.contains(Lower(second)) ? SQLITE_DENY : SQLITE_OK;
    }
    case SQLITE_PRAGMA:
      return IsHarmlessPragma(Lower(first), second) ? SQLITE_OK : SQLITE_DENY;
    case SQLITE_UPDATE:
      // SQLite asks this when it declares a table-valued function (json_each, pragma_table_info).
      // A statement that meant it fails on defensive mode and is not a reading one besides.
      return Lower(first) == "sqlite_master" ? SQLITE_OK : SQLITE_DENY;
    default:
      return SQLITE_DENY;
  }
}

struct Deadline {
  absl::Duration end;  // on the monotonic clock
  bool passed() const { return RealClock::Get()->Monotonic() >= end; }
};

int StopAtDeadline(void* deadline) { return static_cast<Deadline*>(deadline)->passed() ? 1 : 0; }

// SQLite's own words, and where in the text it means.
absl::Status BadStatement(sqlite3* db, int code, const std::string& path) {
  switch (code & 0xff) {
    case SQLITE_AUTH:
      return InvalidArgument("{}; only reading statements are allowed here", sqlite3_errmsg(db));
    case SQLITE_ERROR: {
      const int offset = sqlite3_error_offset(db);
      if (offset < 0) return InvalidArgument("{}", sqlite3_errmsg(db));
      return InvalidArgument("{} (at character {})", sqlite3_errmsg(db), offset + 1);
    }
    case SQLITE_NOMEM:
      return ResourceExhausted("the query needs too much memory; ask for less at once");
    case SQLITE_MISMATCH:
    case SQLITE_RANGE:
    case SQLITE_TOOBIG:
      return InvalidArgument("{}", sqlite3_errmsg(db));
    default:
      return MakeError(db, code, path);
  }
}

// Whether anything but white space and comments follows.
bool HasAnotherStatement(sqlite3* db, const char* tail) {
  while (*tail != '\0') {
    sqlite3_stmt* statement = nullptr;
    const char* rest = tail;
    const int code = sqlite3_prepare_v2(db, tail, -1, &statement, &rest);
    sqlite3_finalize(statement);
    if (code != SQLITE_OK || statement != nullptr) return true;
    if (rest == tail) return false;
    tail = rest;
  }
  return false;
}

QueryValue ReadValue(sqlite3_stmt* statement, int column, int64_t* num_bytes) {
  const auto bytes = [&] {
    const void* data = sqlite3_column_blob(statement, column);
    const int size = sqlite3_column_bytes(statement, column);
    *num_bytes += size;
    return data == nullptr ? std::string()
                           : std::string(static_cast<const char*>(data), static_cast<size_t>(size));
  };
  *num_bytes += 8;
  switch (sqlite3_column_type(statement, column)) {
    case SQLITE_INTEGER:
      return int64_t{sqlite3_column_int64(statement, column)};
    case SQLITE_FLOAT:
      return sqlite3_column_double(statement, column);
    case SQLITE_TEXT:
      return bytes();
    case SQLITE_BLOB:
      return BlobValue{bytes()};
    default:
      return std::monostate();
  }
}

struct FinalizeStatement {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using StatementHandle = std::unique_ptr<sqlite3_stmt, FinalizeStatement>;

}  // namespace

absl::Status QueryTookTooLong(const QueryLimits& limits) {
  return DeadlineExceeded("the query ran longer than {} s; narrow it, or raise the limit",
                          absl::ToDoubleSeconds(limits.timeout));
}

void LimitHeapOfProcess(int64_t bytes) { sqlite3_hard_heap_limit64(bytes); }

absl::StatusOr<std::unique_ptr<QueryRunner>> QueryRunner::Open(const std::string& path) {
  ASSAY_ASSIGN_OR_RETURN(std::unique_ptr<Connection> connection, Connection::OpenReader(path));
  sqlite3* const db = connection->handle();
  sqlite3_limit(db, SQLITE_LIMIT_SQL_LENGTH, kMaxSqlBytes);
  sqlite3_limit(db, SQLITE_LIMIT_LENGTH, kMaxValueBytes);
  sqlite3_limit(db, SQLITE_LIMIT_LIKE_PATTERN_LENGTH, kMaxPatternBytes);
  sqlite3_limit(db, SQLITE_LIMIT_ATTACHED, 0);
  sqlite3_limit(db, SQLITE_LIMIT_WORKER_THREADS, 0);
  sqlite3_set_authorizer(db, &Authorize, nullptr);
  return std::unique_ptr<QueryRunner>(new QueryRunner(std::move(connection)));
}

QueryRunner::QueryRunner(std::unique_ptr<Connection> connection)
    : connection_(std::move(connection)) {}

QueryRunner::~QueryRunner() = default;

absl::StatusOr<QuerySummary> QueryRunner::Run(const std::string& sql, const QueryLimits& limits,
                                              const OnColumns& on_columns, const OnRow& on_row) {
  sqlite3* const db = connection_->handle();
  if (sql.size() > kMaxSqlBytes) {
    return InvalidArgument("the statement has {} bytes; at most {} are allowed", sql.size(),
                           kMaxSqlBytes);
  }
  if (sql.find('\0') != std::string::npos) {
    return InvalidArgument("the statement holds a zero byte");
  }
  Deadline deadline{RealClock::Get()->Monotonic() + limits.timeout};
  sqlite3_progress_handler(db, kInstructionsPerCheck, &StopAtDeadline, &deadline);
  struct ClearHandler {
    sqlite3* db;
    ~ClearHandler() { sqlite3_progress_handler(db, 0, nullptr, nullptr); }
  } clear_handler{db};

  sqlite3_stmt* compiled = nullptr;
  const char* tail = nullptr;
  int code = sqlite3_prepare_v2(db, sql.c_str(), -1, &compiled, &tail);
  const StatementHandle statement(compiled);
  if (code != SQLITE_OK) return BadStatement(db, code, connection_->path());
  if (statement == nullptr) return InvalidArgument("there is no statement; try SELECT ...");
  if (HasAnotherStatement(db, tail)) {
    return InvalidArgument("one statement at a time: something follows the first one");
  }
  const int num_columns = sqlite3_column_count(statement.get());
  if (sqlite3_stmt_readonly(statement.get()) == 0 || num_columns == 0) {
    return InvalidArgument("only statements that read and give rows are allowed here");
  }

  std::vector<std::string> columns;
  columns.reserve(static_cast<size_t>(num_columns));
  for (int i = 0; i < num_columns; ++i) {
    columns.emplace_back(sqlite3_column_name(statement.get(), i));
  }
  if (!on_columns(columns)) return Cancelled("the query was stopped by its reader");

  QuerySummary summary;
  int64_t num_bytes = 0;
  std::vector<QueryValue> row(static_cast<size_t>(num_columns));
  while ((code = sqlite3_step(statement.get())) == SQLITE_ROW) {
    if (summary.num_rows >= limits.max_rows || num_bytes >= limits.max_result_bytes) {
      summary.truncated = true;
      return summary;
    }
    if (deadline.passed())
      return QueryTookTooLong(limits);  // a slow reader counts too: it holds the WAL
    for (int i = 0; i < num_columns; ++i) {
      row[static_cast<size_t>(i)] = ReadValue(statement.get(), i, &num_bytes);
    }
    if (!on_row(row)) return Cancelled("the query was stopped by its reader");
    ++summary.num_rows;
  }
  if (code == SQLITE_DONE) return summary;
  if ((code & 0xff) == SQLITE_INTERRUPT) return QueryTookTooLong(limits);
  return BadStatement(db, code, connection_->path());
}

}  // namespace assay::storage::sqlite
