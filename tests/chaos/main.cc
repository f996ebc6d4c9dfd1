// chaos: as many faults as one likes against the real programs (README.md).
#include <absl/time/clock.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <map>

#include "base/exit_codes.h"
#include "base/status.h"
#include "tests/chaos/round.h"
#include "tests/testing/paths.h"

namespace assay::chaos {
namespace {

struct Flags {
  int num_faults = 200;
  uint64_t seed = 0;
  bool verbose = false;
  std::string keep;
};

struct Totals {
  std::map<FaultKind, int> injected;
  std::map<std::string, int> lies;
  int num_rounds = 0;
  int64_t num_samples = 0;
  int num_lost = 0;
  int num_doubled = 0;
  int num_altered = 0;
  int num_problems = 0;
};

void Say(const std::string& line) { fmt::print("{}\n", line); }

void Print(const Totals& totals, absl::Duration wall) {
  int num_faults = 0;
  for (const auto& [kind, times] : totals.injected) {
    fmt::print("{:>5}  {}\n", times, NameOf(kind));
    num_faults += times;
  }
  int num_lies = 0;
  for (const auto& [lie, times] : totals.lies) {
    fmt::print("{:>5}  refused lie: {}\n", times, lie);
    num_lies += times;
  }
  fmt::print(
      "{} faults and {} refused lies in {} sweeps, {} samples: {} lost, {} doubled, {} altered, {} "
      "problems; {}\n",
      num_faults, num_lies, totals.num_rounds, totals.num_samples, totals.num_lost,
      totals.num_doubled, totals.num_altered, totals.num_problems,
      absl::FormatDuration(absl::Trunc(wall, absl::Seconds(1))));
}

absl::StatusOr<RoundReport> RunRound(const Flags& flags, const Means& means, int number,
                                     std::deque<Fault>* plan) {
  const testing::TemporaryDirectory temporary;
  const std::string directory =
      flags.keep.empty() ? temporary.path() : fmt::format("{}/round-{}", flags.keep, number);
  std::filesystem::create_directories(directory);
  const absl::Time start = absl::Now();
  return Round(
             directory, means,
             [&](const std::string& line) {
               if (!flags.verbose && !line.starts_with("PROBLEM")) return;
               Say(fmt::format("{:7.1f} s  {}", absl::ToDoubleSeconds(absl::Now() - start), line));
             })
      .Run(plan);
}

absl::Status Chaos(const Flags& flags) {
  const absl::Time start = absl::Now();
  const Means means = Means::Find();
  std::vector<std::string> skipped;
  const std::vector<FaultKind> kinds = PossibleKinds(means, &skipped);
  for (const std::string& line : skipped) Say(line);
  const std::vector<Fault> plan = MakePlan(flags.seed, flags.num_faults, kinds);
  std::deque<Fault> left(plan.begin(), plan.end());

  std::deque<Fault> none;
  ASSAY_ASSIGN_OR_RETURN(const RoundReport undisturbed, RunRound(flags, means, 0, &none));
  if (!undisturbed.problems.empty()) return Internal("the undisturbed sweep has problems");
  Say(fmt::format("undisturbed: {} samples in {}", undisturbed.results.size(),
                  absl::FormatDuration(undisturbed.wall)));

  Totals totals;
  while (!left.empty()) {
    ASSAY_ASSIGN_OR_RETURN(const RoundReport round,
                           RunRound(flags, means, ++totals.num_rounds, &left));
    // A sweep that was broken off has said so.
    const Differences differences =
        round.problems.empty() ? Compare(undisturbed.results, round.results) : Differences();
    for (const std::string& line : differences.lines) Say(line);
    for (const auto& [kind, times] : round.injected) totals.injected[kind] += times;
    for (const auto& [lie, times] : round.lies) totals.lies[lie] += times;
    totals.num_samples += std::ssize(round.results);
    totals.num_lost += differences.num_lost;
    totals.num_doubled += differences.num_doubled + differences.num_added;
    totals.num_altered += differences.num_altered;
    totals.num_problems += static_cast<int>(round.problems.size());
    Say(fmt::format("sweep {}: {} faults left, {} samples, {} differences, {} problems, {}",
                    totals.num_rounds, left.size(), round.results.size(), differences.lines.size(),
                    round.problems.size(),
                    absl::FormatDuration(absl::Trunc(round.wall, absl::Seconds(1)))));
    if (!round.problems.empty() || !differences.none()) break;
  }
  Print(totals, absl::Now() - start);
  if (totals.num_problems + totals.num_lost + totals.num_doubled + totals.num_altered == 0) {
    return absl::OkStatus();
  }
  return Internal("faults changed what is stored, or stopped the sweep");
}

int Main(int argc, char** argv) {
  CLI::App app("Faults against the programs of this build; the sweep must come out the same.",
               "chaos");
  Flags flags;
  app.add_option("--faults", flags.num_faults, "how many")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_option("--seed", flags.seed, "which, when and how long")->capture_default_str();
  app.add_flag("--verbose", flags.verbose, "a line for each fault");
  app.add_option("--keep", flags.keep, "a folder for databases and logs, which stay");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  Say(fmt::format("chaos --faults {} --seed {}", flags.num_faults, flags.seed));
  const absl::Status status = Chaos(flags);
  if (status.ok()) return kExitOk;
  fmt::print(stderr, "chaos: {}\n", Message(status));
  return kExitFailure;
}

}  // namespace
}  // namespace assay::chaos

int main(int argc, char** argv) { return assay::chaos::Main(argc, argv); }
