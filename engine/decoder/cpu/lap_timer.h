// Splits the time of a step among buckets with one clock reading per boundary.
#pragma once

#include <absl/time/time.h>

#include "base/clock.h"

namespace assay::engine {

class LapTimer {
 public:
  explicit LapTimer(const Clock* clock) : clock_(clock) {}

  // Starts a lap; the time since the last one belongs to nobody.
  void Start() { last_ = clock_->Monotonic(); }

  // Adds the time since the last boundary to *bucket and starts the next lap.
  void Lap(absl::Duration* bucket) {
    const absl::Duration now = clock_->Monotonic();
    *bucket += now - last_;
    last_ = now;
  }

 private:
  const Clock* const clock_;
  absl::Duration last_;
};

}  // namespace assay::engine
