#include "coordinator/auth/rate_limiter.h"

#include <algorithm>

namespace assay::coordinator {

bool RateLimiter::Admit(const std::string& key) {
  if (calls_per_s_ <= 0) return true;
  const double most = 2 * calls_per_s_;
  const absl::Duration now = clock_->Monotonic();
  absl::MutexLock lock(&mutex_);
  if (buckets_.size() >= kMaxBuckets && !buckets_.contains(key)) DropFull(now);
  Bucket& bucket = buckets_.try_emplace(key, Bucket{most, now}).first->second;
  const double since = absl::ToDoubleSeconds(now - bucket.filled);
  bucket.calls = std::min(most, bucket.calls + std::max(0.0, since) * calls_per_s_);
  bucket.filled = now;
  if (bucket.calls < 1) return false;
  bucket.calls -= 1;
  return true;
}

void RateLimiter::DropFull(absl::Duration now) {
  std::erase_if(buckets_, [&](const auto& entry) {
    return absl::ToDoubleSeconds(now - entry.second.filled) >= 2;
  });
  // That many in two seconds: start over rather than grow.
  if (buckets_.size() >= kMaxBuckets) buckets_.clear();
}

}  // namespace assay::coordinator
