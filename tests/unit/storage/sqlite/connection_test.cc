#include "storage/sqlite/connection.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "base/file.h"
#include "storage/sqlite/backup.h"
#include "storage/sqlite/database_lock.h"
#include "storage/sqlite/transaction.h"
#include "tests/testing/local_system.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::storage::sqlite {
namespace {

using absl::StatusCode;
using assay::testing::IsError;

class ConnectionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(db_, Connection::OpenWriter(path_));
    ASSERT_OK(db_->Execute(
        "PRAGMA application_id=0x41535359;"
        "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER, r REAL, s TEXT, b BLOB) STRICT;"
        "CREATE TABLE child(t_id INTEGER NOT NULL REFERENCES t(id)) STRICT;"));
  }

  int64_t Integer(Connection* db, std::string_view sql) {
    absl::StatusOr<int64_t> value = db->QueryInteger(sql);
    EXPECT_OK(value);
    return value.value_or(-1);
  }

  assay::testing::TemporaryDirectory directory_;
  const std::string path_ = directory_ / "test.db";
  std::unique_ptr<Connection> db_;
};

TEST_F(ConnectionTest, AWriterHasTheSettingsThatDurabilityNeeds) {
  EXPECT_EQ(Integer(db_.get(), "PRAGMA synchronous"), 2);  // FULL
  EXPECT_EQ(Integer(db_.get(), "PRAGMA foreign_keys"), 1);
  EXPECT_EQ(Integer(db_.get(), "PRAGMA wal_autocheckpoint"), 0);
  EXPECT_EQ(Integer(db_.get(), "PRAGMA trusted_schema"), 0);
  EXPECT_GE(Integer(db_.get(), "PRAGMA page_size"), 4096);
  ASSERT_OK_AND_ASSIGN(Statement statement, db_->Prepare("PRAGMA journal_mode"));
  ASSERT_OK_AND_ASSIGN(const bool found, statement.Step());
  ASSERT_TRUE(found);
  std::string mode;
  Row(statement).Read(&mode);
  EXPECT_EQ(mode, "wal");
}

TEST_F(ConnectionTest, ValuesComeBackAsTheyWereBound) {
  const std::string bytes("a\0b", 3);
  ASSERT_OK(db_->Run("INSERT INTO t(id, n, r, s, b) VALUES(?1, ?2, ?3, ?4, ?5)", 1,
                     uint64_t{0xffffffffffffffff}, 0.5, std::string("text"), Blob{bytes}));
  ASSERT_OK(db_->Run("INSERT INTO t(id, n, r, s, b) VALUES(?1, ?2, ?3, ?4, ?5)", 2, NullIfZero{0},
                     std::optional<double>(), std::string_view(), Blob{}));
  ASSERT_OK_AND_ASSIGN(Statement statement, db_->Prepare("SELECT n, r, s, b FROM t WHERE id = ?1"));
  uint64_t n = 0;
  std::optional<int64_t> optional_n;
  double r = 0;
  std::optional<std::string> s;
  std::optional<std::string> b;
  ASSERT_OK(statement.Bind(1).Step());
  Row(statement).Read(&n, &r, &s, &b);
  EXPECT_EQ(n, 0xffffffffffffffff);
  EXPECT_EQ(r, 0.5);
  EXPECT_EQ(s, "text");
  EXPECT_EQ(b, bytes);
  ASSERT_OK(statement.Bind(2).Step());
  Row(statement).Read(&optional_n, &r, &s, &b);
  EXPECT_FALSE(optional_n.has_value());
  EXPECT_EQ(r, 0);
  EXPECT_EQ(s, "") << "an empty text is not NULL";
  EXPECT_EQ(b, "");
}

TEST_F(ConnectionTest, ABrokenConstraintIsFailedPrecondition) {
  EXPECT_THAT(db_->Run("INSERT INTO child(t_id) VALUES(99)"),
              IsError(StatusCode::kFailedPrecondition, "FOREIGN KEY"));
  EXPECT_THAT(db_->Run("INSERT INTO t(id, n) VALUES(1, 'word')"),
              IsError(StatusCode::kFailedPrecondition, "cannot store TEXT"));
  EXPECT_THAT(db_->Run("INSERT INTO t(id, nothing) VALUES(1, 1)"),
              IsError(StatusCode::kInternal, "nothing"));
}

TEST_F(ConnectionTest, AFullDatabaseIsUnavailableAndWhatWasThereStays) {
  ASSERT_OK(db_->Run("INSERT INTO t(id, s) VALUES(1, 'kept')"));
  ASSERT_OK(db_->Execute("PRAGMA max_page_count=20"));
  {
    ASSERT_OK_AND_ASSIGN(Transaction transaction, Transaction::Begin(db_.get()));
    EXPECT_THAT(db_->Run("INSERT INTO t(id, s) VALUES(2, ?1)", std::string(1 << 20, 'x')),
                IsError(StatusCode::kUnavailable, "no space left"));
    EXPECT_THAT(transaction.Commit(), IsError(StatusCode::kUnavailable, "try again"));
  }
  EXPECT_EQ(Integer(db_.get(), "SELECT count(*) FROM t"), 1);
  ASSERT_OK(db_->CheckIntegrity(/*full=*/true));
  ASSERT_OK(db_->Run("INSERT INTO t(id, s) VALUES(3, 'small')"));
}

TEST_F(ConnectionTest, ATransactionThatIsNotCommittedIsUndone) {
  {
    ASSERT_OK_AND_ASSIGN(Transaction transaction, Transaction::Begin(db_.get()));
    ASSERT_OK(db_->Run("INSERT INTO t(id) VALUES(1)"));
  }
  EXPECT_EQ(Integer(db_.get(), "SELECT count(*) FROM t"), 0);
  ASSERT_OK_AND_ASSIGN(Transaction transaction, Transaction::Begin(db_.get()));
  ASSERT_OK(db_->Run("INSERT INTO t(id) VALUES(1)"));
  ASSERT_OK(transaction.Commit());
  EXPECT_EQ(Integer(db_.get(), "SELECT count(*) FROM t"), 1);
}

TEST_F(ConnectionTest, AReaderSeesCommitsAndCannotWrite) {
  ASSERT_OK_AND_ASSIGN(const auto reader, Connection::OpenReader(path_));
  ASSERT_OK(db_->Run("INSERT INTO t(id) VALUES(1)"));
  EXPECT_EQ(Integer(reader.get(), "SELECT count(*) FROM t"), 1);
  EXPECT_THAT(reader->Run("DELETE FROM t"), IsError(StatusCode::kUnavailable, "not writable"));
}

// The WAL-reset race: only the writer may checkpoint, so a reader that closes last must not.
TEST_F(ConnectionTest, AReaderNeverCheckpointsNotEvenWhenItClosesLast) {
  ASSERT_OK(db_->CheckpointTruncate());
  ASSERT_OK(db_->Run("INSERT INTO t(id) VALUES(1)"));
  ASSERT_OK_AND_ASSIGN(auto reader, Connection::OpenReader(path_));
  EXPECT_EQ(Integer(reader.get(), "SELECT count(*) FROM t"), 1);
  db_.reset();  // not the last: leaves the WAL to others
  struct stat wal;
  ASSERT_EQ(stat((path_ + "-wal").c_str(), &wal), 0);
  const auto size = wal.st_size;
  EXPECT_GT(size, 0);
  reader.reset();
  ASSERT_EQ(stat((path_ + "-wal").c_str(), &wal), 0);
  EXPECT_EQ(wal.st_size, size);
  ASSERT_OK_AND_ASSIGN(db_, Connection::OpenWriter(path_));
  EXPECT_EQ(Integer(db_.get(), "SELECT count(*) FROM t"), 1);
}

// After a crash the first one to open the file brings its WAL back under an exclusive lock: a
// reader that polls must not keep the coordinator from starting.
TEST_F(ConnectionTest, OpeningWaitsForALockThatIsSoonGone) {
  ASSERT_OK(db_->Execute("PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t(n) VALUES(1)"));
  absl::Status opened;
  std::atomic<bool> done = false;
  std::thread opener([&] {
    opened = Connection::OpenWriter(path_).status();
    done = true;
  });
  // Enough for one that does not wait to fail.
  assay::testing::WaitUntil([&] { return done.load(); }, absl::Milliseconds(200));
  db_.reset();
  opener.join();
  EXPECT_OK(opened);
}

TEST_F(ConnectionTest, ALargeWalIsCheckpointedAndReusedAndAReaderDelaysThat) {
  const std::string text(1 << 20, 'x');
  const auto write_mb = [&](int num_mb) {
    for (int i = 0; i < num_mb; ++i) {
      ASSERT_OK(db_->Run("INSERT OR REPLACE INTO t(id, s) VALUES(?1, ?2)", i % 8, text));
      ASSERT_OK(db_->CheckpointIfLarge());
    }
  };
  const auto wal_mb = [&] {
    struct stat wal;
    return stat((path_ + "-wal").c_str(), &wal) == 0 ? wal.st_size >> 20 : -1;
  };
  write_mb(200);
  EXPECT_LT(wal_mb(), 80);
  ASSERT_OK_AND_ASSIGN(const auto reader, Connection::OpenReader(path_));
  {
    ASSERT_OK_AND_ASSIGN(const Transaction read,
                         Transaction::Begin(reader.get(), Transaction::Kind::kRead));
    EXPECT_EQ(Integer(reader.get(), "SELECT count(*) FROM t"), 8);
    write_mb(150);
    EXPECT_GT(wal_mb(), 100);
    ASSERT_OK(db_->CheckpointTruncate()) << "gives way to the reader at once";
  }
  ASSERT_OK(db_->CheckpointTruncate());
  EXPECT_EQ(wal_mb(), 0);
}

TEST_F(ConnectionTest, ADatabaseOfAnotherProgramIsRefusedAndLeftAsItIs) {
  const std::string other = directory_ / "other.db";
  {
    ASSERT_OK_AND_ASSIGN(const auto db, Connection::OpenWriter(other));
    ASSERT_OK(db->Execute("CREATE TABLE theirs(x); PRAGMA application_id=77;"));
    ASSERT_OK(db->CheckpointTruncate());
  }
  ASSERT_OK_AND_ASSIGN(const std::string before, ReadFile(other));
  EXPECT_THAT(Connection::OpenWriter(other),
              IsError(StatusCode::kInvalidArgument, "application id is 0x4d"));
  EXPECT_THAT(Connection::OpenReader(other),
              IsError(StatusCode::kInvalidArgument, "not an Assay database"));
  ASSERT_OK_AND_ASSIGN(const std::string after, ReadFile(other));
  EXPECT_EQ(before, after);

  const std::string text = directory_ / "text.db";
  ASSERT_OK(WriteFileAtomically(text, std::string(5000, 'x')));
  EXPECT_THAT(Connection::OpenWriter(text),
              IsError(StatusCode::kInvalidArgument, "not a SQLite file"));
  const std::string empty = directory_ / "empty.db";
  ASSERT_OK(WriteFileAtomically(empty, ""));
  EXPECT_THAT(Connection::OpenReader(empty),
              IsError(StatusCode::kInvalidArgument, "the file is empty"));
  EXPECT_THAT(Connection::OpenReader(directory_ / "absent.db"),
              IsError(StatusCode::kNotFound, "no such database"));
  EXPECT_THAT(Connection::OpenWriter(directory_ / "no/folder.db"),
              IsError(StatusCode::kUnavailable, "check the path"));
}

TEST_F(ConnectionTest, AFileInAFolderThatCannotBeWrittenIsReadAsItIs) {
  ASSERT_OK(db_->Run("INSERT INTO t(id) VALUES(1)"));
  db_.reset();  // the last one: the WAL is gone
  ASSERT_EQ(chmod(directory_.path().c_str(), 0555), 0);
  const pid_t child = fork();
  if (child == 0) {
    // Root ignores permissions, so it becomes somebody else.
    if (geteuid() == 0 && setuid(65534) != 0) _exit(9);
    const auto reader = Connection::OpenReader(path_);
    if (!reader.ok()) _exit(8);
    _exit((*reader)->QueryInteger("SELECT count(*) FROM t").value_or(7) == 1 ? 0 : 6);
  }
  int status = 0;
  waitpid(child, &status, 0);
  chmod(directory_.path().c_str(), 0755);
  EXPECT_EQ(status, 0) << WEXITSTATUS(status);
}

TEST_F(ConnectionTest, ANameWithSpecialCharactersIsAPlainFile) {
  const std::string odd = directory_ / "a?mode=memory#b%41 ü.db";
  {
    ASSERT_OK_AND_ASSIGN(const auto db, Connection::OpenWriter(odd));
    ASSERT_OK(db->Execute("PRAGMA application_id=0x41535359; CREATE TABLE t(x);"));
  }
  struct stat info;
  EXPECT_EQ(stat(odd.c_str(), &info), 0);
  ASSERT_OK(Connection::OpenReader(odd));
}

TEST_F(ConnectionTest, CompactedCopiesHoldTheDataAndAreNotOverwritten) {
  ASSERT_OK(db_->Run("INSERT INTO t(id) VALUES(1)"));
  const std::string copy = directory_ / "copy.db";
  ASSERT_OK(db_->VacuumInto(copy));
  EXPECT_THAT(db_->VacuumInto(copy), IsError(StatusCode::kAlreadyExists, "copy.db"));
  EXPECT_THAT(db_->VacuumInto(directory_ / "no/copy.db"),
              IsError(StatusCode::kUnavailable, "no/copy.db"));
  ASSERT_OK_AND_ASSIGN(const auto reader, Connection::OpenReader(copy));
  EXPECT_EQ(Integer(reader.get(), "SELECT count(*) FROM t"), 1);
}

TEST_F(ConnectionTest, ABackupInStepsTakesInWhatIsWrittenMeanwhile) {
  for (int i = 0; i < 100; ++i) {
    ASSERT_OK(db_->Run("INSERT INTO t(id, s) VALUES(?1, ?2)", i, std::string(5000, 'x')));
  }
  const std::string copy = directory_ / "copy.db";
  ASSERT_OK_AND_ASSIGN(auto backup, Backup::Start(db_.get(), copy));
  ASSERT_OK_AND_ASSIGN(bool done, backup->Step(5));
  EXPECT_FALSE(done);
  ASSERT_OK(db_->Run("INSERT INTO t(id) VALUES(1000)"));
  while (!done) {
    ASSERT_OK_AND_ASSIGN(done, backup->Step(5));
  }
  struct stat info;
  EXPECT_NE(stat(copy.c_str(), &info), 0) << "not under its name before it is complete";
  ASSERT_OK(backup->Finish());
  ASSERT_OK_AND_ASSIGN(const auto reader, Connection::OpenReader(copy));
  EXPECT_EQ(Integer(reader.get(), "SELECT count(*) FROM t"), 101);
  EXPECT_THAT(Backup::Start(db_.get(), copy), IsError(StatusCode::kAlreadyExists, "copy.db"));

  const std::string dropped = directory_ / "dropped.db";
  ASSERT_OK(Backup::Start(db_.get(), dropped));
  EXPECT_NE(stat((dropped + ".partial").c_str(), &info), 0);
}

TEST_F(ConnectionTest, ADamagedFileIsDataLoss) {
  for (int i = 0; i < 50; ++i) {
    ASSERT_OK(db_->Run("INSERT INTO t(id, s) VALUES(?1, ?2)", i, std::string(5000, 'x')));
  }
  db_.reset();
  FILE* const file = fopen(path_.c_str(), "r+b");
  ASSERT_NE(file, nullptr);
  fseek(file, 3 * 8192, SEEK_SET);
  for (int i = 0; i < 8192; ++i) fputc(0xa5, file);
  fclose(file);
  ASSERT_OK_AND_ASSIGN(db_, Connection::OpenWriter(path_));
  EXPECT_THAT(db_->CheckIntegrity(/*full=*/false),
              IsError(StatusCode::kDataLoss, "restore a backup"));
}

TEST_F(ConnectionTest, AStatementInUseTwiceIsTwoStatements) {
  for (int i = 0; i < 3; ++i) ASSERT_OK(db_->Run("INSERT INTO t(id) VALUES(?1)", i));
  constexpr char kSql[] = "SELECT id FROM t ORDER BY id";
  ASSERT_OK_AND_ASSIGN(Statement outer, db_->Prepare(kSql));
  int num_pairs = 0;
  while (true) {
    ASSERT_OK_AND_ASSIGN(const bool more_outer, outer.Step());
    if (!more_outer) break;
    ASSERT_OK_AND_ASSIGN(Statement inner, db_->Prepare(kSql));
    while (true) {
      ASSERT_OK_AND_ASSIGN(const bool more, inner.Step());
      if (!more) break;
      ++num_pairs;
    }
  }
  EXPECT_EQ(num_pairs, 9);
}

TEST(DatabaseLockTest, ALockIsFreeAfterItsOwnerAndTellsWhetherItDied) {
  const assay::testing::TemporaryDirectory directory;
  const std::string path = directory / "assay.db";
  {
    ASSERT_OK_AND_ASSIGN(const auto lock, DatabaseLock::Take(path));
    EXPECT_FALSE(lock->last_owner_died());
    EXPECT_THAT(DatabaseLock::Take(path),
                IsError(StatusCode::kFailedPrecondition, std::to_string(getpid())));
  }
  const pid_t child = fork();
  if (child == 0) _exit(DatabaseLock::Take(path).ok() ? (raise(SIGKILL), 1) : 2);
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_OK_AND_ASSIGN(const auto lock, DatabaseLock::Take(path));
  EXPECT_TRUE(lock->last_owner_died());
}

}  // namespace
}  // namespace assay::storage::sqlite
