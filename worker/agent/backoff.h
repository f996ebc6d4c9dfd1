// How long to wait before trying again: doubling, bounded, and spread so that a fleet that lost its
// coordinator at one moment does not come back at one moment.
#pragma once

#include <absl/time/time.h>

#include <algorithm>
#include <random>

namespace assay::worker {

// Not thread-safe.
class Backoff {
 public:
  Backoff(absl::Duration first, absl::Duration longest)
      : first_(first), longest_(longest), random_(std::random_device{}()) {}

  // The next wait: half to all of first * 2^n.
  absl::Duration Next() {
    const absl::Duration full = std::min(longest_, first_ * (int64_t{1} << num_failures_));
    num_failures_ = std::min(num_failures_ + 1, 20);
    return full * std::uniform_real_distribution<double>(0.5, 1.0)(random_);
  }
  void Reset() { num_failures_ = 0; }

 private:
  const absl::Duration first_;
  const absl::Duration longest_;
  int num_failures_ = 0;
  std::minstd_rand random_;
};

}  // namespace assay::worker
