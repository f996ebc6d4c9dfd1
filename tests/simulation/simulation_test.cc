// Twenty thousand hours of faults, and the proof that they would have shown a bug.
#include "tests/simulation/simulation.h"

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <iostream>

#include "tests/simulation/mutants.h"
#include "tests/simulation/totals.h"

namespace assay::simulation {
namespace {

class SimulationTest : public ::testing::Test {
 protected:
  SimulationTest() { spdlog::set_level(spdlog::level::off); }  // lost batches are loud
  ~SimulationTest() override {
    PlantMutant(Mutant::kNone);
    spdlog::set_level(spdlog::level::info);
  }
};

TEST_F(SimulationTest, EqualSeedsGiveEqualHistories) {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    const SimulationResult first = Simulate({.seed = seed});
    const SimulationResult second = Simulate({.seed = seed});
    EXPECT_EQ(first.digest, second.digest);
    EXPECT_EQ(first.num_events, second.num_events);
  }
}

TEST_F(SimulationTest, TwentyThousandHoursOfFaultsLoseAndDoubleNothing) {
  Totals totals;
  for (uint64_t seed = 1; totals.hours() < 20'000; ++seed) {
    const SimulationResult result = Simulate({.seed = seed});
    totals.Add(result);
    ASSERT_EQ(result.violation, "") << "again: simulation --verbose --seed " << seed;
  }
  std::cout << totals.Print();
  // Each kind of fault did happen.
  for (const char* kind : {"crash in commit",
                           "crash while handling",
                           "crash after commit",
                           "crash after some answers",
                           "sectors lost at power cuts",
                           "writes refused",
                           "batches lost by the disk",
                           "messages dropped",
                           "messages duplicated",
                           "messages replayed hours later",
                           "partitions",
                           "worker crashes",
                           "worker stalls",
                           "runner hangs",
                           "runner crashes by poison",
                           "lies",
                           "samples answered duplicate",
                           "samples answered fenced",
                           "units quarantined",
                           "requeues"}) {
    EXPECT_GT(totals[kind], 20) << kind;
  }
}

TEST_F(SimulationTest, EveryPlantedBugIsFound) {
  constexpr uint64_t kSeeds = 40;  // a small part of those above
  for (const MutantInfo& mutant : AllMutants()) {
    std::string violation;
    uint64_t seed = 0;
    long num_mutations = 0;
    while (violation.empty() && ++seed <= kSeeds) {
      PlantMutant(mutant.mutant);
      violation = Simulate({.seed = seed}).violation;
      num_mutations += NumMutations();
    }
    EXPECT_GT(num_mutations, 0) << mutant.name << " changes nothing: its seam has moved";
    EXPECT_NE(violation, "") << mutant.name << " survives";
    std::cout << mutant.name << ": seed " << seed << ": " << violation << "\n";
  }
}

}  // namespace
}  // namespace assay::simulation
