// How often somebody may call: a token bucket per key (a worker, a person's token, a connection).
//
// Generous: it is there for the client gone wild, not to shape traffic. Thread-safe; what it
// remembers is bounded.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/synchronization/mutex.h>
#include <absl/time/time.h>

#include <cstddef>
#include <map>
#include <string>

#include "base/clock.h"

namespace assay::coordinator {

class RateLimiter {
 public:
  // `calls_per_s` on average and twice as many at once; 0 is no limit. `clock` outlives it.
  RateLimiter(double calls_per_s, const Clock* clock) : calls_per_s_(calls_per_s), clock_(clock) {}

  // False when `key` has called too often; that call does not count.
  bool Admit(const std::string& key);

  double calls_per_s() const { return calls_per_s_; }

 private:
  struct Bucket {
    double calls = 0;  // that may come now
    absl::Duration filled;
  };
  // Above this many, full buckets are dropped: whoever comes back gets a full one anyway.
  static constexpr size_t kMaxBuckets = 16'384;

  void DropFull(absl::Duration now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const double calls_per_s_;
  const Clock* const clock_;
  absl::Mutex mutex_;
  std::map<std::string, Bucket> buckets_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace assay::coordinator
