#include "storage/stores/maintain_database.h"

#include <sys/stat.h>

#include "base/file.h"
#include "storage/sqlite/connection.h"
#include "storage/stores/check_database.h"
#include "tests/unit/storage/stores/store_fixture.h"

namespace assay::storage {
namespace {

using absl::StatusCode;
using assay::testing::IsError;

bool Always() { return true; }

class MaintainDatabaseTest : public StoreTest {
 protected:
  void SetUp() override {
    StoreTest::SetUp();
    Finish({baseline_, 0, 0}, Verdict::kCorrect);
    Finish({cell_, 0, 0}, Verdict::kWrong);
    Do([&] {
      Grant("lease-expired", {{cell_, 1, 0}});
      ASSERT_OK(store_->EndLease("lease-expired", "expired", AttemptEnd::kExpired, 20));
      Grant("lease-open", {{cell_, 1, 0}});
    });
  }

  // Names of the checks that found something, in order.
  static std::vector<std::string> Findings(const std::string& path, bool quick = false) {
    const absl::StatusOr<DatabaseCheck> check = CheckDatabase(path, quick);
    EXPECT_OK(check);
    std::vector<std::string> names;
    if (!check.ok()) return names;
    for (const DatabaseFinding& finding : check->findings) names.push_back(finding.check);
    return names;
  }

  // Changes the file behind the store's back.
  void Damage(const std::string& sql) {
    store_.reset();
    ASSERT_OK_AND_ASSIGN(const auto db, sqlite::Connection::OpenWriter(path_));
    ASSERT_OK(db->Execute("PRAGMA foreign_keys=OFF"));
    ASSERT_OK(db->Execute(sql));
  }

  static bool Exists(const std::string& path) {
    struct stat info;
    return stat(path.c_str(), &info) == 0;
  }
};

TEST_F(MaintainDatabaseTest, ABackupIsOfOneMomentWhileTheStoreGoesOn) {
  const std::string copy = directory_ / "copy.db";
  // A commit in the midst of the copy: before its first step.
  bool written = false;
  const absl::StatusOr<int64_t> bytes = BackupDatabase(path_, copy, [&] {
    if (!written) Finish({baseline_, 1, 0}, Verdict::kCorrect);
    written = true;
    return true;
  });
  ASSERT_OK(bytes);
  EXPECT_GT(*bytes, 0);
  ASSERT_OK_AND_ASSIGN(const auto reader, ReadStore::Open(copy));
  ASSERT_OK_AND_ASSIGN(const int64_t num_samples, reader->NumSamples());
  EXPECT_EQ(num_samples, 2) << "as it was when the backup began";
  EXPECT_EQ(Findings(copy), std::vector<std::string>());
  EXPECT_THAT(BackupDatabase(path_, copy, Always), IsError(StatusCode::kAlreadyExists, "copy.db"));
}

TEST_F(MaintainDatabaseTest, AStoppedBackupLeavesNothing) {
  const std::string copy = directory_ / "copy.db";
  EXPECT_THAT(BackupDatabase(path_, copy, [] { return false; }),
              IsError(StatusCode::kCancelled, "stopped"));
  EXPECT_FALSE(Exists(copy));
  EXPECT_FALSE(Exists(copy + ".partial"));
  EXPECT_THAT(BackupDatabase(directory_ / "none.db", copy, Always),
              IsError(StatusCode::kNotFound, "none.db"));
}

TEST_F(MaintainDatabaseTest, VacuumKeepsEveryRowAndGivesSpaceBack) {
  EXPECT_THAT(VacuumDatabase(path_), IsError(StatusCode::kFailedPrecondition, "in use by process"));
  Damage(
      "CREATE TABLE filler(x BLOB) STRICT;"
      "INSERT INTO filler VALUES(zeroblob(4000000)); DROP TABLE filler;");
  ASSERT_OK_AND_ASSIGN(const VacuumResult result, VacuumDatabase(path_));
  EXPECT_GT(result.bytes_before, result.bytes_after + 3'000'000);
  EXPECT_FALSE(Exists(path_ + ".vacuum"));
  EXPECT_EQ(Findings(path_), std::vector<std::string>());
  Reopen();  // the store takes it as its own
  ASSERT_OK_AND_ASSIGN(const int64_t num_samples, OpenReader()->NumSamples());
  EXPECT_EQ(num_samples, 2);
}

TEST_F(MaintainDatabaseTest, VacuumRefusesWhileAReaderIsThere) {
  store_.reset();
  const auto reader = OpenReader();
  ASSERT_OK_AND_ASSIGN(const ReadStore::Snapshot snapshot, reader->TakeSnapshot());
  ASSERT_OK(reader->NumSamples());
  EXPECT_THAT(VacuumDatabase(path_), IsError(StatusCode::kUnavailable, "another program reads it"));
  EXPECT_FALSE(Exists(path_ + ".vacuum"));
  ASSERT_OK_AND_ASSIGN(const int64_t num_samples, reader->NumSamples());
  EXPECT_EQ(num_samples, 2);
}

struct DamageCase {
  const char* name;
  const char* sql;
  const char* check;
};

class CheckDatabaseTest : public MaintainDatabaseTest,
                          public ::testing::WithParamInterface<DamageCase> {};

TEST_P(CheckDatabaseTest, FindsIt) {
  EXPECT_EQ(Findings(path_), std::vector<std::string>()) << "sound before";
  Damage(GetParam().sql);
  EXPECT_THAT(Findings(path_), ::testing::Contains(GetParam().check));
}

INSTANTIATE_TEST_SUITE_P(
    Table, CheckDatabaseTest,
    ::testing::Values(
        DamageCase{"NoText", "DELETE FROM sample_text WHERE sample_id = 1", "sample-text"},
        DamageCase{"NoSample", "INSERT INTO sample_text VALUES(77, 1, x'', x'')", "text-sample"},
        DamageCase{"LeaseGone", "DELETE FROM lease WHERE id = 1", "sample-lease"},
        DamageCase{"LeaseOfAnotherCell", "UPDATE lease SET cell_id = 2 WHERE id = 1",
                   "sample-lease"},
        DamageCase{"ForeignKey", "UPDATE unit SET lease_id = 99 WHERE state = 3", "foreign-keys"},
        DamageCase{"UnitForgot", "UPDATE unit SET state = 1, sample_id = NULL WHERE sample_id = 1",
                   "sample-unit"},
        DamageCase{"SampleLost", "DELETE FROM sample WHERE id = 1", "unit-sample"},
        DamageCase{"EpochAhead", "UPDATE sample SET epoch = 9 WHERE id = 1", "sample-epoch"},
        DamageCase{"AttemptAhead", "UPDATE attempt SET epoch = 9", "attempt-epoch"},
        DamageCase{"Grants", "UPDATE unit SET num_grants = 9 WHERE sample_id = 1", "unit-grants"},
        DamageCase{"LeaseEnded",
                   "UPDATE lease SET ended_time_us = 5 WHERE public_id = 'lease-open'",
                   "leased-unit"},
        DamageCase{"OtherTokens", "UPDATE sample SET completion_tokens = 8 WHERE id = 1",
                   "unit-copy"},
        DamageCase{"OtherVerdict", "UPDATE unit SET verdict = 3 WHERE sample_id = 1",
                   "unit-verdict"},
        DamageCase{"ItemTooFar", "UPDATE benchmark SET num_items = 1", "unit-item"},
        DamageCase{"ItemsMissing", "DELETE FROM item WHERE item_index = 2", "benchmark-items"},
        DamageCase{"NotDone", "UPDATE sweep SET state = 4", "done-sweep"},
        DamageCase{"TextBroken", "UPDATE sample_text SET text = x'00'", "text-bytes"}),
    [](const auto& damage) { return damage.param.name; });

TEST_F(MaintainDatabaseTest, AFileThatIsCutIsNotSound) {
  Damage("PRAGMA wal_checkpoint(TRUNCATE)");
  ASSERT_OK_AND_ASSIGN(std::string bytes, ReadFile(path_));
  for (size_t i = bytes.size() / 2; i < bytes.size() / 2 + 40'000 && i < bytes.size(); ++i) {
    bytes[i] = '\x5a';
  }
  ASSERT_OK(WriteFileAtomically(path_, bytes));
  const absl::StatusOr<DatabaseCheck> check = CheckDatabase(path_, /*quick=*/true);
  EXPECT_TRUE(!check.ok() || !check->findings.empty());
}

}  // namespace
}  // namespace assay::storage
