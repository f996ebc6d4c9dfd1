// One simulated world: a coordinator on its disk, workers, people, liars and everything that can go
// wrong between them, all from one number.
//
// For `length` of virtual time things fail; then nothing fails any more, and every sweep must end.
#pragma once

#include <absl/time/time.h>

#include <cstdint>
#include <string>

#include "tests/simulation/network.h"
#include "tests/simulation/sim_coordinator.h"
#include "tests/simulation/sim_worker.h"

namespace assay::simulation {

// Slower than production by the factor 48, so that an hour is cheap; what matters is their ratios:
// a lease outlives several heartbeats, and ticks are more frequent than heartbeats.
inline constexpr absl::Duration kHeartbeatInterval = absl::Minutes(4);
inline constexpr absl::Duration kLeaseTtl = absl::Minutes(24);
inline constexpr absl::Duration kTickInterval = absl::Minutes(2);

struct SimulationOptions {
  uint64_t seed = 1;
  absl::Duration length = absl::Hours(36);
  bool verbose = false;  // tells of every fault on stderr
};

struct PeopleCounts {
  int64_t submits = 0;
  int64_t pauses = 0;
  int64_t cancels = 0;
  int64_t retries = 0;
  int64_t requeues = 0;
  int64_t drains = 0;
  int64_t lies = 0;
  int64_t wall_steps = 0;
  int64_t disk_full = 0;
  int64_t disk_failing = 0;
};

struct SimulationResult {
  uint64_t seed = 0;
  std::string violation;  // empty: nothing was wrong
  absl::Duration simulated;
  uint64_t digest = 0;  // of all that happened: equal for equal seeds
  NetworkCounts network;
  CoordinatorCounts coordinator;
  WorkerCounts workers;
  PeopleCounts people;
  int64_t num_events = 0;
  int64_t num_checks = 0;
  int64_t num_accepted = 0;
  int64_t num_duplicates = 0;
  int64_t num_fenced = 0;
  int64_t num_quarantined = 0;
  int64_t writes_refused = 0;
  int64_t sectors_lost = 0;
};

SimulationResult Simulate(const SimulationOptions& options);

}  // namespace assay::simulation
