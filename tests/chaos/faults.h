// The kinds of fault, and which of them strike when.
#pragma once

#include <absl/time/time.h>

#include <cstdint>
#include <string>
#include <vector>

namespace assay::chaos {

enum class FaultKind {
  kKillCoordinator,                // SIGKILL, and started again after `hold`, as are all that end
  kKillCoordinatorUnacknowledged,  // samples committed, the answer never sent
  kKillWorker,
  kKillRunner,
  kKillGrader,
  kStopCoordinator,  // SIGSTOP, SIGCONT after `hold`
  kStopWorker,
  kStopRunner,
  kStopGrader,
  kBlackholeLink,  // by the proxy: both directions, or one
  kSlowLink,
  kCutLink,           // in the middle of a message
  kBlackholeNetwork,  // in the worker's network namespace, one direction
  kUnplugNetwork,
  kDegradeNetwork,  // late and lossy
  kFullStoreDisk,
  kFullSpoolDisk,
  kLimitStoreFiles,  // as full disks, by limits of file sizes
  kLimitSpoolFiles,
  kStepCoordinatorClock,
  kStepWorkerClock,
  kLyingWorker,
};
inline constexpr int kNumFaultKinds = static_cast<int>(FaultKind::kLyingWorker) + 1;

std::string NameOf(FaultKind kind);

struct Fault {
  FaultKind kind = FaultKind::kKillRunner;
  absl::Duration pause;   // before it, once the system has got over what came before
  absl::Duration hold;    // how long it lasts, where it lasts
  bool overlaps = false;  // strikes while the one before still holds
  uint64_t choice = 0;    // whatever else it has to choose
};

// `num_faults` of `kinds`: every kind once in random order, then every kind again, and so on.
std::vector<Fault> MakePlan(uint64_t seed, int num_faults, const std::vector<FaultKind>& kinds);

}  // namespace assay::chaos
