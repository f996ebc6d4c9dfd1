#include "tests/chaos/faults.h"

#include <algorithm>
#include <random>

namespace assay::chaos {
namespace {

// The standard library's distributions differ between libraries; a seed should not.
uint64_t Below(std::mt19937_64& random, uint64_t limit) { return random() % limit; }

absl::Duration Milliseconds(std::mt19937_64& random, uint64_t low, uint64_t high) {
  return absl::Milliseconds(low + Below(random, high - low + 1));
}

void Shuffle(std::mt19937_64& random, std::vector<FaultKind>* kinds) {
  for (size_t i = kinds->size(); i > 1; --i) {
    std::swap((*kinds)[i - 1], (*kinds)[Below(random, i)]);
  }
}

}  // namespace

std::string NameOf(FaultKind kind) {
  switch (kind) {
    case FaultKind::kKillCoordinator:
      return "kill coordinator";
    case FaultKind::kKillCoordinatorUnacknowledged:
      return "kill coordinator between commit and answer";
    case FaultKind::kKillWorker:
      return "kill worker";
    case FaultKind::kKillRunner:
      return "kill runner";
    case FaultKind::kKillGrader:
      return "kill grader";
    case FaultKind::kStopCoordinator:
      return "stop coordinator";
    case FaultKind::kStopWorker:
      return "stop worker";
    case FaultKind::kStopRunner:
      return "stop runner";
    case FaultKind::kStopGrader:
      return "stop grader";
    case FaultKind::kBlackholeLink:
      return "blackhole link";
    case FaultKind::kSlowLink:
      return "slow link";
    case FaultKind::kCutLink:
      return "cut link in a message";
    case FaultKind::kBlackholeNetwork:
      return "blackhole network namespace";
    case FaultKind::kUnplugNetwork:
      return "unplug network namespace";
    case FaultKind::kDegradeNetwork:
      return "late and lossy network namespace";
    case FaultKind::kFullStoreDisk:
      return "full disk under the store";
    case FaultKind::kFullSpoolDisk:
      return "full disk under the spool";
    case FaultKind::kLimitStoreFiles:
      return "file size limit on the store";
    case FaultKind::kLimitSpoolFiles:
      return "file size limit on the spool";
    case FaultKind::kStepCoordinatorClock:
      return "step coordinator's clock";
    case FaultKind::kStepWorkerClock:
      return "step worker's clock";
    case FaultKind::kLyingWorker:
      return "lying worker";
  }
  return "unknown";
}

std::vector<Fault> MakePlan(uint64_t seed, int num_faults, const std::vector<FaultKind>& kinds) {
  std::mt19937_64 random(seed);
  std::vector<Fault> plan;
  while (static_cast<int>(plan.size()) < num_faults && !kinds.empty()) {
    std::vector<FaultKind> order = kinds;
    Shuffle(random, &order);
    for (const FaultKind kind : order) {
      if (static_cast<int>(plan.size()) == num_faults) break;
      Fault& fault = plan.emplace_back();
      fault.kind = kind;
      fault.pause = Milliseconds(random, 0, 400);
      // Half of them shorter and half longer than the leases' time to live.
      fault.hold =
          Below(random, 2) == 0 ? Milliseconds(random, 0, 1500) : Milliseconds(random, 1500, 5000);
      fault.overlaps = Below(random, 3) == 0;
      fault.choice = random();
    }
  }
  return plan;
}

}  // namespace assay::chaos
