// Killing any process at any time changes nothing in the results: the samples of a disturbed sweep
// equal those of an undisturbed one, token for token, none lost and none doubled.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "tests/testing/local_system.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay {
namespace {

using testing::CommandResult;
using testing::LocalSystem;
using testing::TemporaryDirectory;
using testing::WaitUntil;

// Three kinds of cell: the model as it is, quantized weights, a quantized cache with calibration.
// W2 runs most problems to the token limit, so there is always something in flight to kill.
constexpr char kSpec[] = R"(
name: crash
models: [{name: tiny-qwen2-1m}]
methods:
  - {method: rtn, bits: 2-16-16}
  - {method: kvquant_star, bits: 16-16-4, pre_bias: true, calibration: arith-traces}
benchmarks: [{name: arith500, per_level: 30}]
sampling: {temperature: 0.6, top_p: 0.95, max_tokens: 384, seed: 7}
)";
constexpr int64_t kNumUnits = 3 * 150;
constexpr absl::Duration kPatience = absl::Minutes(4);

// Short enough that lost leases come back within the test.
LocalSystem::Options SystemIn(const TemporaryDirectory& directory) {
  return {.directory = directory.path(),
          .coordinator_flags = {"--heartbeat-interval", "200ms", "--lease-ttl", "3s"}};
}

void ExpectEachUnitOnce(const std::vector<std::string>& fingerprints) {
  EXPECT_EQ(std::ssize(fingerprints), kNumUnits);
  std::set<std::string> units;
  for (const std::string& line : fingerprints) {
    size_t end = 0;
    for (int field = 0; field < 3; ++field) end = line.find(' ', end + 1);
    units.insert(line.substr(0, end));
  }
  EXPECT_EQ(units.size(), fingerprints.size()) << "a unit has two samples";
}

class CrashResumeTest : public ::testing::Test {
 protected:
  // Runs the sweep; `disturb` is called once about a third of the samples are stored.
  static std::vector<std::string> Run(const std::function<void(LocalSystem&)>& disturb) {
    const TemporaryDirectory directory;
    LocalSystem system(SystemIn(directory));
    EXPECT_OK(system.StartCoordinator());
    EXPECT_OK(system.StartWorker("w1", 2));
    const auto sweep = system.Submit(kSpec);
    EXPECT_OK(sweep) << system.Logs();
    if (!sweep.ok()) return {};
    if (disturb) {
      EXPECT_TRUE(WaitUntil([&] { return system.NumSamples() >= kNumUnits / 3; }, kPatience))
          << system.Logs();
      EXPECT_LT(system.NumSamples(), kNumUnits) << "nothing was left to disturb";
      disturb(system);
    }
    EXPECT_TRUE(WaitUntil([&] { return system.SweepSettled(*sweep); }, kPatience))
        << system.NumSamples() << " samples\n"
        << system.Logs();
    const CommandResult show = system.Assay({"sweep", "show", *sweep, "--json"});
    EXPECT_NE(show.out.find("\"done\""), std::string::npos) << show.out << system.Logs();
    return system.SampleFingerprints();
  }

  static const std::vector<std::string>& Undisturbed() {
    static const std::vector<std::string> fingerprints = Run(nullptr);
    return fingerprints;
  }
};

TEST_F(CrashResumeTest, AnUndisturbedSweepStoresEachUnitOnce) { ExpectEachUnitOnce(Undisturbed()); }

TEST_F(CrashResumeTest, KillingARunnerChangesNoSample) {
  const auto disturbed = Run([](LocalSystem& system) { EXPECT_TRUE(system.KillARunner("w1")); });
  EXPECT_EQ(disturbed, Undisturbed());
}

TEST_F(CrashResumeTest, KillingTheWorkerChangesNoSample) {
  const auto disturbed = Run([](LocalSystem& system) {
    system.KillWorker("w1");
    EXPECT_OK(system.StartWorker("w1", 2));
  });
  EXPECT_EQ(disturbed, Undisturbed());
}

TEST_F(CrashResumeTest, AnotherWorkerTakesOverFromADeadOne) {
  const auto disturbed = Run([](LocalSystem& system) {
    system.KillWorker("w1");
    EXPECT_OK(system.StartWorker("w2", 1));
  });
  EXPECT_EQ(disturbed, Undisturbed());
}

TEST_F(CrashResumeTest, KillingTheCoordinatorChangesNoSample) {
  const auto disturbed = Run([](LocalSystem& system) {
    system.KillCoordinator();
    EXPECT_OK(system.StartCoordinator());
  });
  EXPECT_EQ(disturbed, Undisturbed());
}

TEST_F(CrashResumeTest, KillingEverythingAtOnceChangesNoSample) {
  const auto disturbed = Run([](LocalSystem& system) {
    system.KillWorker("w1");
    system.KillCoordinator();
    EXPECT_OK(system.StartCoordinator());
    EXPECT_OK(system.StartWorker("w1", 2));
  });
  EXPECT_EQ(disturbed, Undisturbed());
}

// A second submission of an equal sweep finds every cell in the store.
TEST_F(CrashResumeTest, AnEqualSweepFinishesAtOnceWithoutAWorker) {
  const TemporaryDirectory directory;
  LocalSystem system(SystemIn(directory));
  ASSERT_OK(system.StartCoordinator());
  ASSERT_OK(system.StartWorker("w1", 2));
  ASSERT_OK_AND_ASSIGN(const std::string first, system.Submit(kSpec));
  ASSERT_TRUE(WaitUntil([&] { return system.SweepSettled(first); }, kPatience)) << system.Logs();
  system.KillWorker("w1");

  ASSERT_OK_AND_ASSIGN(const std::string second, system.Submit(kSpec));
  EXPECT_NE(first, second);
  EXPECT_TRUE(WaitUntil([&] { return system.SweepSettled(second); }, absl::Seconds(10)));
  EXPECT_EQ(system.NumSamples(), kNumUnits);
}

}  // namespace
}  // namespace assay
