// The short form: every kind of fault that this machine allows strikes once, from one seed, and
// every sweep comes out as the undisturbed one. `chaos` is the long form (README.md).
#include <gmock/gmock.h>

#include <cstdio>
#include <deque>
#include <filesystem>

#include "storage/sqlite/connection.h"
#include "storage/text/text_codec.h"
#include "tests/chaos/round.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::chaos {
namespace {

using storage::sqlite::Connection;
using testing::TemporaryDirectory;

constexpr uint64_t kSeed = 1;

// The undisturbed sweep, run once; its database stays for as long as the program.
class ChaosTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    means_ = new Means(Means::Find());
    directory_ = new TemporaryDirectory();
    std::deque<Fault> none;
    auto undisturbed = RunRound(*directory_ / "undisturbed", &none);
    ASSERT_OK(undisturbed);
    ASSERT_TRUE(undisturbed->problems.empty()) << undisturbed->problems[0];
    undisturbed_ = new RoundReport(*std::move(undisturbed));
  }
  static void TearDownTestSuite() {
    delete undisturbed_;
    delete directory_;
    delete means_;
    undisturbed_ = nullptr;
  }
  void SetUp() override { ASSERT_NE(undisturbed_, nullptr) << "there is nothing to compare with"; }

  static absl::StatusOr<RoundReport> RunRound(const std::string& directory,
                                              std::deque<Fault>* plan) {
    std::filesystem::create_directories(directory);
    return Round(directory, *means_,
                 [](const std::string& line) { std::printf("  %s\n", line.c_str()); })
        .Run(plan);
  }

  // What the comparison says of a copy of the undisturbed database after `sql`.
  template <typename... Args>
  Differences After(const std::string& sql, const Args&... args) {
    const TemporaryDirectory directory;
    const std::string copy = directory / "assay.db";
    std::filesystem::copy_file(*directory_ / "undisturbed/stored/assay.db", copy);
    auto connection = Connection::OpenWriter(copy);
    EXPECT_OK(connection);
    if (!connection.ok()) return {};
    EXPECT_OK((*connection)->Execute("PRAGMA foreign_keys = OFF"));
    EXPECT_OK((*connection)->Run(sql, args...));
    EXPECT_EQ((*connection)->num_changes(), 1) << sql;
    connection->reset();
    auto results = ReadResults(copy);
    EXPECT_OK(results);
    return results.ok() ? Compare(undisturbed_->results, *results) : Differences();
  }

  static inline Means* means_ = nullptr;
  static inline TemporaryDirectory* directory_ = nullptr;
  static inline RoundReport* undisturbed_ = nullptr;
};

TEST_F(ChaosTest, EveryKindOfFaultStrikesAndNoSampleIsLostDoubledOrAltered) {
  std::vector<std::string> skipped;
  const std::vector<FaultKind> kinds = PossibleKinds(*means_, &skipped);
  for (const std::string& line : skipped) std::printf("%s\n", line.c_str());
  const std::vector<Fault> plan = MakePlan(kSeed, static_cast<int>(kinds.size()), kinds);
  std::deque<Fault> left(plan.begin(), plan.end());
  std::map<FaultKind, int> injected;
  std::map<std::string, int> lies;
  for (int round = 1; !left.empty(); ++round) {
    std::printf("sweep %d, seed %llu, %zu faults to come\n", round,
                static_cast<unsigned long long>(kSeed), left.size());
    const TemporaryDirectory directory;
    auto report = RunRound(directory.path(), &left);
    ASSERT_OK(report);
    ASSERT_TRUE(report->problems.empty()) << report->problems[0];
    const Differences differences = Compare(undisturbed_->results, report->results);
    ASSERT_TRUE(differences.none())
        << differences.lines.size() << " differences, the first: " << differences.lines[0];
    for (const auto& [kind, times] : report->injected) injected[kind] += times;
    for (const auto& [lie, times] : report->lies) lies[lie] += times;
  }
  for (const FaultKind kind : kinds) EXPECT_GT(injected[kind], 0) << NameOf(kind);
  for (const char* lie :
       {"a stale lease", "the wrong cell", "another worker's lease", "another worker's unit",
        "a negative count", "more tokens than the limit", "another count than ids",
        "oversized text", "another seed", "report as another worker"}) {
    EXPECT_GT(lies[lie], 0) << lie;
  }
}

// The comparison bites: whoever changes one thing in a copy of the database is caught.
TEST_F(ChaosTest, OneOtherTokenIsFound) {
  std::vector<int32_t> ids = undisturbed_->results[0].token_ids;
  ASSERT_FALSE(ids.empty());
  ids.back() ^= 1;
  const std::string packed = storage::CompressTokenIds(ids);
  const Differences differences = After(
      "UPDATE sample_text SET token_ids = ?1 WHERE sample_id ="
      " (SELECT sample.id FROM sample JOIN cell ON cell.id = sample.cell_id"
      "   ORDER BY cell.key, item_index, repeat LIMIT 1)",
      storage::sqlite::Blob{packed});
  EXPECT_EQ(differences.num_altered, 1);
  ASSERT_EQ(differences.lines.size(), 1u);
  EXPECT_THAT(differences.lines[0], ::testing::HasSubstr("token"));
}

TEST_F(ChaosTest, AnotherTextOrFinishReasonOrVerdictIsFound) {
  const std::string packed = storage::CompressText("something else");
  EXPECT_EQ(
      After("UPDATE sample_text SET text = ?1 WHERE sample_id = 1", storage::sqlite::Blob{packed})
          .num_altered,
      1);
  EXPECT_EQ(After("UPDATE sample SET finish_reason = 3 - finish_reason WHERE id = 1").num_altered,
            1);
  EXPECT_EQ(After("UPDATE grade SET verdict = verdict % 3 + 1 WHERE sample_id = 1").num_altered, 1);
}

TEST_F(ChaosTest, AMissingSampleAndOneInAnothersPlaceAreFound) {
  EXPECT_EQ(After("DELETE FROM sample WHERE id = 1").num_lost, 1);
  const Differences moved = After("UPDATE sample SET repeat = 7 WHERE id = 1");
  EXPECT_EQ(moved.num_lost, 1);
  EXPECT_EQ(moved.num_added, 1);
}

// The schema does not let two samples of a unit in, so these are in memory.
TEST_F(ChaosTest, ADoubledSampleIsFound) {
  std::vector<UnitResult> results = undisturbed_->results;
  results.push_back(results.front());
  const Differences differences = Compare(undisturbed_->results, results);
  EXPECT_EQ(differences.num_doubled, 1);
  EXPECT_EQ(differences.lines.size(), 1u);
  EXPECT_TRUE(Compare(undisturbed_->results, undisturbed_->results).none());
}

}  // namespace
}  // namespace assay::chaos
