// SQL of people, run on a database that it must not be able to change: `assay query`.
//
// The statement is hostile. It runs on a read-only connection with untrusted schema and defensive
// mode, under an authorizer that knows only SELECT, reading, recursion and harmless functions and
// pragmas, within limits of time, rows and bytes. One statement at a time. The clock is looked at
// between SQLite's instructions, one of which may take long (instr, printf, replace over
// megabytes): who must not wait runs it in a process that can be ended.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

namespace assay::storage::sqlite {

class Connection;

struct BlobValue {
  std::string bytes;
  friend bool operator==(const BlobValue&, const BlobValue&) = default;
};
// NULL, INTEGER, REAL, TEXT, BLOB.
using QueryValue = std::variant<std::monostate, int64_t, double, std::string, BlobValue>;

struct QueryLimits {
  int64_t max_rows = 10'000;
  int64_t max_result_bytes = int64_t{256} << 20;
  absl::Duration timeout = absl::Seconds(10);
};

// DEADLINE_EXCEEDED.
absl::Status QueryTookTooLong(const QueryLimits& limits);

struct QuerySummary {
  int64_t num_rows = 0;
  bool truncated = false;  // a limit of rows or bytes cut the result
};

// Bounds the memory that SQLite takes in this process; a statement that wants more fails.
void LimitHeapOfProcess(int64_t bytes);

// Thread-compatible.
class QueryRunner {
 public:
  // Opens the file read-only. NOT_FOUND; INVALID_ARGUMENT when it is not an Assay database.
  static absl::StatusOr<std::unique_ptr<QueryRunner>> Open(const std::string& path);
  ~QueryRunner();
  QueryRunner(const QueryRunner&) = delete;
  QueryRunner& operator=(const QueryRunner&) = delete;

  // Calls `on_columns` once and then `on_row` for each row. A false from either stops: CANCELLED.
  // INVALID_ARGUMENT with SQLite's message when the statement is wrong, is not one statement or
  // wants what is not allowed; RESOURCE_EXHAUSTED when it needs too much memory; DEADLINE_EXCEEDED
  // after the timeout, in the midst of the rows.
  using OnColumns = std::function<bool(const std::vector<std::string>&)>;
  using OnRow = std::function<bool(const std::vector<QueryValue>&)>;
  absl::StatusOr<QuerySummary> Run(const std::string& sql, const QueryLimits& limits,
                                   const OnColumns& on_columns, const OnRow& on_row);

 private:
  explicit QueryRunner(std::unique_ptr<Connection> connection);

  const std::unique_ptr<Connection> connection_;
};

}  // namespace assay::storage::sqlite
