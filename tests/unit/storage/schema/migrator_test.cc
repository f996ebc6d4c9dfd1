#include "storage/schema/migrator.h"

#include <sys/stat.h>

#include "base/file.h"
#include "storage/sqlite/connection.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::storage {
namespace {

using absl::StatusCode;
using assay::testing::IsError;
using sqlite::Connection;

constexpr Migration kSteps[] = {
    {1, "0001_first", "CREATE TABLE first(x INTEGER NOT NULL) STRICT;"},
    {2, "0002_second",
     "CREATE TABLE second(y TEXT); INSERT INTO second SELECT 'was ' || x FROM first;"},
    {3, "0003_broken", "CREATE TABLE third(z); INSERT INTO nowhere VALUES(1);"},
};

class MigratorTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_OK_AND_ASSIGN(db_, Connection::OpenWriter(path_)); }

  int64_t Integer(std::string_view sql) { return db_->QueryInteger(sql).value_or(-1); }

  assay::testing::TemporaryDirectory directory_;
  const std::string path_ = directory_ / "assay.db";
  std::unique_ptr<Connection> db_;
};

TEST_F(MigratorTest, AFreshFileGetsEveryStepAndIsSound) {
  ASSERT_OK(Migrate(db_.get()));
  EXPECT_EQ(Integer("PRAGMA user_version"), Migrations().back().version);
  EXPECT_EQ(Integer("PRAGMA application_id"), sqlite::kApplicationId);
  ASSERT_OK(db_->CheckIntegrity(/*full=*/true));
  ASSERT_OK(CheckSchemaVersion(db_.get()));
  ASSERT_OK(Migrate(db_.get())) << "and once more changes nothing";
  struct stat info;
  EXPECT_NE(stat((path_ + ".before-schema-" + std::to_string(Migrations().back().version)).c_str(),
                 &info),
            0)
      << "nothing to keep a copy of";
}

TEST_F(MigratorTest, StepsAreNumberedFromOneAndTablesAreStrict) {
  int version = 0;
  for (const Migration& migration : Migrations()) {
    EXPECT_EQ(migration.version, ++version);
    EXPECT_EQ(std::stoi(std::string(migration.name.substr(0, 4))), version);
  }
  ASSERT_OK(Migrate(db_.get()));
  EXPECT_EQ(Integer("SELECT count(*) FROM pragma_table_list WHERE schema = 'main'"
                    " AND type = 'table' AND name NOT LIKE 'sqlite_%' AND NOT strict"),
            0);
}

TEST_F(MigratorTest, AnOlderFileIsCopiedFirstAndThenMigratedWithItsData) {
  ASSERT_OK(Migrate(db_.get(), std::span(kSteps).first(1)));
  ASSERT_OK(db_->Execute("INSERT INTO first VALUES(7)"));
  EXPECT_THAT(CheckSchemaVersion(db_.get()),
              IsError(StatusCode::kInvalidArgument, "made by an older Assay (schema 1"));
  ASSERT_OK(Migrate(db_.get(), std::span(kSteps).first(2)));
  EXPECT_EQ(Integer("SELECT count(*) FROM second WHERE y = 'was 7'"), 1);

  ASSERT_OK_AND_ASSIGN(const auto copy, Connection::OpenReader(path_ + ".before-schema-2"));
  ASSERT_OK_AND_ASSIGN(const int64_t version, copy->QueryInteger("PRAGMA user_version"));
  EXPECT_EQ(version, 1);
  ASSERT_OK_AND_ASSIGN(const int64_t value, copy->QueryInteger("SELECT x FROM first"));
  EXPECT_EQ(value, 7);
}

TEST_F(MigratorTest, ACellPlannedBeforeItsNeedWasKnownStaysAndSaysSo) {
  ASSERT_OK(Migrate(db_.get(), Migrations().first(6)));
  ASSERT_OK(db_->Execute(
      "INSERT INTO model VALUES(1, 'm', 'h');"
      "INSERT INTO benchmark VALUES(1, 'b', 'v', 'p', 'g', 1);"
      "INSERT INTO method VALUES(1, 'bf16', '16-16-16', 0, 0, 0, 1, '', '{}', 'bf16');"
      "INSERT INTO cell VALUES(1, 'k', 1, NULL, 1, 1, 0.6, 0.95, 0, 10, 0, 42, '', 1, 'cpu-1');"));
  ASSERT_OK(Migrate(db_.get()));
  EXPECT_EQ(Integer("SELECT count(*) FROM v_cell WHERE cell_key = 'k' AND memory_need_bytes = 0"
                    " AND num_rerolled = 0 AND rerolled_rate IS NULL"),
            1);
}

TEST_F(MigratorTest, AStepThatFailsLeavesTheOldFile) {
  ASSERT_OK(Migrate(db_.get(), std::span(kSteps).first(1)));
  EXPECT_THAT(Migrate(db_.get(), kSteps), IsError(StatusCode::kInternal, "0003_broken"));
  EXPECT_EQ(Integer("PRAGMA user_version"), 1);
  EXPECT_EQ(Integer("SELECT count(*) FROM sqlite_schema WHERE name IN ('second', 'third')"), 0);
  EXPECT_FALSE(db_->in_transaction());
  // The copy of the failed try is kept and does not stop the next one.
  ASSERT_OK(Migrate(db_.get(), std::span(kSteps).first(2)));
}

TEST_F(MigratorTest, ANewerFileIsRefusedAndLeftAsItIs) {
  ASSERT_OK(Migrate(db_.get()));
  ASSERT_OK(db_->Execute("PRAGMA user_version=999"));
  EXPECT_THAT(Migrate(db_.get()),
              IsError(StatusCode::kInvalidArgument, "made by a newer Assay (schema 999"));
  EXPECT_THAT(CheckSchemaVersion(db_.get()),
              IsError(StatusCode::kInvalidArgument, "made by a newer Assay (schema 999"));
  EXPECT_EQ(Integer("PRAGMA user_version"), 999);
}

}  // namespace
}  // namespace assay::storage
