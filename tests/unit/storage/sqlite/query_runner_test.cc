#include "storage/sqlite/query_runner.h"

#include "base/file.h"
#include "base/hash.h"
#include "storage/schema/migrator.h"
#include "storage/sqlite/connection.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::storage::sqlite {
namespace {

using absl::StatusCode;
using assay::testing::IsError;
using ::testing::ElementsAre;

struct Answer {
  std::vector<std::string> columns;
  std::vector<std::vector<QueryValue>> rows;
  QuerySummary summary;
};

class QueryRunnerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(writer_, Connection::OpenWriter(path_));
    ASSERT_OK(Migrate(writer_.get()));
    ASSERT_OK(writer_->Run("INSERT INTO meta(key, value) VALUES('a', '1'), ('b', '2')"));
    ASSERT_OK_AND_ASSIGN(runner_, QueryRunner::Open(path_));
  }

  absl::StatusOr<Answer> Run(const std::string& sql, const QueryLimits& limits = {}) {
    Answer answer;
    absl::StatusOr<QuerySummary> summary = runner_->Run(
        sql, limits,
        [&](const std::vector<std::string>& columns) {
          answer.columns = columns;
          return true;
        },
        [&](const std::vector<QueryValue>& row) {
          answer.rows.push_back(row);
          return true;
        });
    if (!summary.ok()) return summary.status();
    answer.summary = *summary;
    return answer;
  }

  assay::testing::TemporaryDirectory directory_;
  const std::string path_ = directory_ / "assay.db";
  std::unique_ptr<Connection> writer_;
  std::unique_ptr<QueryRunner> runner_;
};

TEST_F(QueryRunnerTest, EveryKindOfValueArrives) {
  ASSERT_OK_AND_ASSIGN(const Answer answer,
                       Run("SELECT NULL AS n, 1 AS i, 0.5 AS r, 'x' AS t, x'00ff' AS b -- done;"));
  EXPECT_THAT(answer.columns, ElementsAre("n", "i", "r", "t", "b"));
  ASSERT_EQ(answer.rows.size(), 1u);
  EXPECT_THAT(answer.rows[0], ElementsAre(QueryValue(std::monostate()), QueryValue(int64_t{1}),
                                          QueryValue(0.5), QueryValue(std::string("x")),
                                          QueryValue(BlobValue{std::string("\0\xff", 2)})));
  EXPECT_FALSE(answer.summary.truncated);
}

TEST_F(QueryRunnerTest, WhatOnlyReadsIsAllowed) {
  for (const char* sql : {
           "SELECT key, value FROM meta ORDER BY key;",
           "  /* a comment */ SELECT 1; -- and another",
           "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9)"
           " SELECT sum(i) FROM n",
           "VALUES (1, 2), (3, 4)",
           "EXPLAIN QUERY PLAN SELECT * FROM v_cell",
           "PRAGMA table_info(sample)",
           "SELECT name FROM pragma_table_info('unit')",
           "PRAGMA user_version",
           "SELECT name, sql FROM sqlite_schema",
           "SELECT json_extract('{\"a\": 1}', '$.a'), upper('x'), date('now')",
           "SELECT value FROM json_each('[1, 2]')",
           "SELECT * FROM v_sweep_cell",
           "SELECT * FROM v_cell",
           "SELECT * FROM v_sample",
           "SELECT * FROM v_paired",
           "SELECT * FROM v_difficulty",
           "SELECT * FROM v_length",
           "SELECT * FROM v_latency",
           "SELECT * FROM v_attempt",
           "SELECT * FROM v_provenance",
       }) {
    EXPECT_OK(Run(sql)) << sql;
  }
}

TEST_F(QueryRunnerTest, HostileSqlIsRefusedAndLeavesTheFileAsItWas) {
  ASSERT_OK(writer_->CheckpointTruncate());
  ASSERT_OK_AND_ASSIGN(const std::string before, Sha256OfFile(path_));
  const std::string other = directory_ / "other.db";
  const std::vector<std::string> hostile = {
      "DELETE FROM meta",
      "INSERT INTO meta VALUES('c', '3')",
      "UPDATE meta SET value = 'x' RETURNING key",
      "DROP TABLE meta",
      "UPDATE sqlite_master SET sql = 'CREATE TABLE meta(x)'",
      "UPDATE sqlite_schema SET sql = ''",
      "CREATE TABLE t(x)",
      "CREATE TEMP TABLE t(x)",
      "CREATE TEMP VIEW w AS SELECT 1",
      "CREATE VIRTUAL TABLE t USING fts5(x)",
      "ALTER TABLE meta RENAME TO metb",
      "ATTACH '" + other + "' AS other",
      "ATTACH ':memory:' AS m",
      "DETACH main",
      "VACUUM INTO '" + other + "'",
      "VACUUM",
      "REINDEX",
      "ANALYZE",
      "BEGIN",
      "COMMIT",
      "SAVEPOINT s",
      "PRAGMA query_only=OFF",
      "PRAGMA writable_schema=ON",
      "PRAGMA journal_mode=DELETE",
      "PRAGMA journal_mode",
      "PRAGMA wal_checkpoint(TRUNCATE)",
      "PRAGMA user_version=9",
      "PRAGMA application_id=9",
      "PRAGMA mmap_size=1000000000",
      "PRAGMA temp_store_directory='/'",
      "PRAGMA optimize",
      "PRAGMA integrity_check",
      "SELECT * FROM pragma_wal_checkpoint",
      "SELECT load_extension('/tmp/evil.so')",
      "SELECT LOAD_EXTENSION('/tmp/evil.so')",
      "SELECT fts3_tokenizer('simple', x'0000000000000000')",
      "SELECT 1; DELETE FROM meta",
      "SELECT 1; SELECT 2",
      "SELECT 1; nonsense",
      "; SELECT 1; SELECT 2",
      std::string("SELECT 1\0; DELETE FROM meta", 26),
      "",
      "   -- only a comment",
      "SELECT nowhere FROM meta",
      "SELECT FROM",
      "SELECT abs(-9223372036854775807 - 1)",
      "SELECT length(zeroblob(1000000000))",
      "SELECT 'x' LIKE printf('%.*c', 2000, '%')",
      "SELECT " + std::string(200'000, '1'),
      "SELECT " + std::string(5'000, '(') + "1" + std::string(5'000, ')'),
  };
  for (const std::string& sql : hostile) {
    EXPECT_THAT(Run(sql), IsError(StatusCode::kInvalidArgument, "")) << sql.substr(0, 100);
  }
  ASSERT_OK_AND_ASSIGN(const std::string after, Sha256OfFile(path_));
  EXPECT_EQ(before, after);
  EXPECT_FALSE(ReadFile(other).ok()) << "nothing was written beside it";
  EXPECT_OK(Run("SELECT * FROM meta")) << "and the runner goes on";
}

TEST_F(QueryRunnerTest, AMistakeIsToldWithItsPlace) {
  EXPECT_THAT(Run("SELECT nowhere FROM meta"),
              IsError(StatusCode::kInvalidArgument, "no such column: nowhere (at character 8)"));
  EXPECT_THAT(Run("SELECT 1; SELECT 2"),
              IsError(StatusCode::kInvalidArgument, "one statement at a time"));
  EXPECT_THAT(Run("DELETE FROM meta"), IsError(StatusCode::kInvalidArgument, "only reading"));
}

TEST_F(QueryRunnerTest, AnEndlessQueryStopsAtItsTimeLimit) {
  constexpr char kEndless[] =
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
  EXPECT_THAT(Run(kEndless, {.timeout = absl::Milliseconds(50)}),
              IsError(StatusCode::kDeadlineExceeded, "longer than 0.05 s"));
  EXPECT_OK(Run("SELECT 1")) << "the next one has its own time";
}

TEST_F(QueryRunnerTest, LimitsOfRowsAndBytesCutTheResultAndSaySo) {
  constexpr char kMany[] =
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
  ASSERT_OK_AND_ASSIGN(const Answer rows, Run(kMany, {.max_rows = 5}));
  EXPECT_EQ(rows.rows.size(), 5u);
  EXPECT_TRUE(rows.summary.truncated);
  ASSERT_OK_AND_ASSIGN(const Answer exact, Run("SELECT key FROM meta", {.max_rows = 2}));
  EXPECT_FALSE(exact.summary.truncated);
  ASSERT_OK_AND_ASSIGN(const Answer bytes,
                       Run("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
                           " SELECT randomblob(1000000) FROM n",
                           {.max_result_bytes = 3'000'000}));
  EXPECT_EQ(bytes.rows.size(), 3u);
  EXPECT_TRUE(bytes.summary.truncated);
}

TEST_F(QueryRunnerTest, AReaderThatHasEnoughStopsTheQuery) {
  const auto columns = [](const std::vector<std::string>&) { return true; };
  EXPECT_THAT(runner_->Run("SELECT * FROM meta", {}, columns,
                           [](const std::vector<QueryValue>&) { return false; }),
              IsError(StatusCode::kCancelled, "stopped by its reader"));
  EXPECT_THAT(runner_->Run(
                  "SELECT * FROM meta", {}, [](const std::vector<std::string>&) { return false; },
                  [](const std::vector<QueryValue>&) { return true; }),
              IsError(StatusCode::kCancelled, "stopped by its reader"));
}

TEST_F(QueryRunnerTest, AFileThatIsNoDatabaseIsRefused) {
  const std::string text = directory_ / "text";
  ASSERT_OK(WriteFileAtomically(text, "hello"));
  EXPECT_THAT(QueryRunner::Open(text), IsError(StatusCode::kInvalidArgument, "not an Assay"));
  EXPECT_THAT(QueryRunner::Open(directory_ / "none"), IsError(StatusCode::kNotFound, "none"));
}

}  // namespace
}  // namespace assay::storage::sqlite
