// What an engine reaches, said once a minute while it works and when it has become idle: a line
// that tells whether the device is the limit. One engine's.
#pragma once

#include <absl/time/time.h>

#include <optional>
#include <string>

#include "base/clock.h"
#include "engine/runtime/engine.h"

namespace assay::worker {

class ThroughputLog {
 public:
  explicit ThroughputLog(const Clock* clock) : clock_(clock) {}

  // After each step. A line when a minute has passed since the last, or when the engine has become
  // idle after five seconds of work or more:
  //   60.0 s: 4004 tokens/s, 44.1 GB of weights and cache at 2760 GB/s, device idle 0.4 %, 64
  //   running, 120 waiting, 3 preempted
  std::optional<std::string> Observe(const engine::EngineStats& stats, bool idle);

 private:
  std::optional<std::string> Describe(const engine::EngineStats& stats,
                                      absl::Duration elapsed) const;

  const Clock* const clock_;
  bool working_ = false;
  absl::Duration start_;
  engine::EngineStats at_start_;
  engine::EngineStats before_;  // as last observed
};

}  // namespace assay::worker
