// simulation --seeds N --hours H --seed S: worlds with seeds S, S+1, ... for at least H hours of
// virtual time each. A violation prints the seed that shows it again, and exits with 1.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <chrono>

#include "tests/simulation/mutants.h"
#include "tests/simulation/simulation.h"
#include "tests/simulation/totals.h"

int main(int argc, char** argv) {
  using namespace assay::simulation;
  CLI::App app("Simulates the control plane under faults, from a seed.");
  uint64_t seed = 1;
  int num_seeds = 1;
  double hours = 36;
  bool verbose = false;
  std::string mutant_name;
  app.add_option("--seed", seed, "the first seed");
  app.add_option("--seeds", num_seeds, "how many");
  app.add_option("--hours", hours, "with faults, per seed");
  app.add_option("--mutant", mutant_name, "plants a bug (mutants.cc)");
  app.add_flag("--verbose", verbose, "tells every fault");
  CLI11_PARSE(app, argc, argv);
  spdlog::set_level(verbose ? spdlog::level::info : spdlog::level::off);
  bool found = mutant_name.empty();
  for (const MutantInfo& mutant : AllMutants()) {
    if (mutant.name != mutant_name) continue;
    PlantMutant(mutant.mutant);
    found = true;
  }
  if (!found) {
    fmt::print(stderr, "there is no mutant '{}'\n", mutant_name);
    return 64;
  }

  const auto start = std::chrono::steady_clock::now();
  Totals totals;
  for (int i = 0; i < num_seeds; ++i) {
    const SimulationResult result =
        Simulate({seed + static_cast<uint64_t>(i), absl::Hours(1) * hours, verbose});
    totals.Add(result);
    if (result.violation.empty()) continue;
    fmt::print("seed {}: {}\nagain: simulation --seed {} --hours {} --verbose\n", result.seed,
               result.violation, result.seed, hours);
    return 1;
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  fmt::print("{}{:.1f} s, {:.0f} simulated hours a second\n", totals.Print(), seconds,
             totals.hours() / seconds);
  return 0;
}
