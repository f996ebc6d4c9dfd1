// The rows of a query on their way to stdout. CSV and JSON are written as the rows arrive; a table
// waits for the last row, to know its widths.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/output/table.h"
#include "storage/sqlite/query_runner.h"

namespace assay::cli {

enum class QueryFormat { kTable, kCsv, kJsonArray, kJsonLines };

// Not thread-safe. Begin, any number of AddRow, End. NULL is NULL in a table, empty in CSV, null in
// JSON; a blob is hexadecimal. On a terminal, control characters are written out in CSV too.
class QueryOutput {
 public:
  explicit QueryOutput(QueryFormat format) : format_(format) {}

  void Begin(const std::vector<std::string>& columns);
  void AddRow(const std::vector<storage::sqlite::QueryValue>& values);
  void End(bool truncated);

  bool truncated() const { return truncated_; }

 private:
  const QueryFormat format_;
  std::vector<std::string> columns_;  // unique: a second "id" is "id_2"
  std::optional<Table> table_;
  int64_t num_rows_ = 0;
  bool truncated_ = false;
};

}  // namespace assay::cli
