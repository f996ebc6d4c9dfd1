// One sweep under faults: a new system, the sweep, faults from a plan for as long as it runs, and
// then everything that must be true of what it stored.
#pragma once

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/chaos/chaos_system.h"
#include "tests/chaos/faults.h"
#include "tests/chaos/lying_worker.h"
#include "tests/chaos/sweep_results.h"

namespace assay::chaos {

// Three kinds of cell: the model as it is, quantized weights, a quantized cache with calibration,
// so that jobs and artifacts are under way too. W2 runs most problems to the token limit, so there
// is always something in flight to lose.
inline constexpr char kSpec[] = R"(
name: chaos
models: [{name: tiny-qwen2-1m}]
methods:
  - {method: rtn, bits: 2-16-16}
  - {method: kvquant_star, bits: 16-16-4, pre_bias: true, calibration: arith-traces}
benchmarks: [{name: arith500, per_level: 60}]
sampling: {temperature: 0.6, top_p: 0.95, max_tokens: 384, seed: 7}
)";
inline constexpr int kNumUnits = 3 * 300;

struct RoundReport {
  std::vector<UnitResult> results;
  std::map<FaultKind, int> injected;
  std::map<std::string, int> lies;    // refused, by what they were
  std::vector<std::string> problems;  // anything that must not be; empty is what we want
  absl::Duration wall;
};

class Round {
 public:
  // `say` gets a line for each thing that happens. `directory` must exist and be empty.
  Round(std::string directory, const Means& means, std::function<void(const std::string&)> say)
      : directory_(std::move(directory)), means_(means), say_(std::move(say)) {}

  // Takes the faults that it injects off the front of `plan`: fewer than all when the sweep is done
  // before. An error when the system cannot be had at all.
  absl::StatusOr<RoundReport> Run(std::deque<Fault>* plan);

 private:
  struct Active {
    FaultKind kind;
    absl::Time until;
    std::function<void()> heal;
  };

  absl::Status Disturb(std::deque<Fault>* plan);
  void CheckWhatIsStored();
  void KeepWhatIsStored();  // as DIRECTORY/stored/assay.db

  // Supervises and heals what is due; false when something is wrong, which is noted.
  bool Step();
  // Steps until `condition` holds; false after `patience`, or when something is wrong.
  bool StepUntil(const std::function<bool()>& condition, absl::Duration patience);
  bool HealAll();
  bool Settled() const;
  void Hold(const Fault& fault, std::function<void()> heal);

  // False when there was nothing to strike just now.
  bool Inject(const Fault& fault);
  bool KillUnacknowledged();
  bool KillChild(const Fault& fault, const std::string& program);
  bool StopProgram(const Fault& fault, ChaosSystem::Program* program);
  bool StopChild(const Fault& fault, const std::string& program);
  testing::TcpProxy& LinkOf(const Fault& fault);
  bool BlackholeLink(const Fault& fault);
  bool SlowLink(const Fault& fault);
  bool CutLink(const Fault& fault);
  bool DisturbNetwork(const Fault& fault);
  bool FillDisk(const Fault& fault, SmallDisk* disk, ChaosSystem::Program* program);
  bool LimitFiles(const Fault& fault, ChaosSystem::Program* program);
  bool StepClock(const Fault& fault, ShiftedClock* clock);
  bool Lie();

  void Problem(const std::string& what);

  const std::string directory_;
  const Means means_;
  const std::function<void(const std::string&)> say_;
  std::unique_ptr<ChaosSystem> system_;
  std::string sweep_;
  std::list<Active> active_;
  RoundReport report_;
};

// Those that this machine allows; `skipped` gets a line for each other one.
std::vector<FaultKind> PossibleKinds(const Means& means, std::vector<std::string>* skipped);

}  // namespace assay::chaos
