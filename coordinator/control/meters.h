// Two small measures of the control plane: how many samples a second, how long commits take.
#pragma once

#include <absl/time/time.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace assay::coordinator {

// Events per second over the last ten full seconds. Not thread-safe.
class RateMeter {
 public:
  void Add(absl::Duration now, int64_t count) {
    MoveTo(absl::ToInt64Seconds(now));
    buckets_[Index(second_)] += count;
  }
  double PerSecond(absl::Duration now) {
    MoveTo(absl::ToInt64Seconds(now));
    int64_t total = 0;
    for (const int64_t bucket : buckets_) total += bucket;
    return static_cast<double>(total - buckets_[Index(second_)]) / (kBuckets - 1);
  }

 private:
  static constexpr int64_t kBuckets = 11;  // ten full ones and the present second
  static size_t Index(int64_t second) { return static_cast<size_t>(second % kBuckets); }
  void MoveTo(int64_t second) {
    if (second - second_ >= kBuckets) buckets_.fill(0);
    while (second_ < second) {
      second_ = std::max(second_ + 1, second - kBuckets);
      buckets_[Index(second_)] = 0;
    }
  }
  std::array<int64_t, kBuckets> buckets_{};
  int64_t second_ = 0;
};

// The 99th percentile of the last thousand durations. Not thread-safe.
class LatencyMeter {
 public:
  void Add(absl::Duration duration) {
    if (values_.size() < kWindow) {
      values_.push_back(duration);
    } else {
      values_[next_] = duration;
    }
    next_ = (next_ + 1) % kWindow;
  }
  absl::Duration P99() const {
    if (values_.empty()) return absl::ZeroDuration();
    std::vector<absl::Duration> sorted = values_;
    const size_t rank = (sorted.size() - 1) * 99 / 100;
    std::nth_element(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(rank),
                     sorted.end());
    return sorted[rank];
  }

 private:
  static constexpr size_t kWindow = 1000;
  std::vector<absl::Duration> values_;
  size_t next_ = 0;
};

}  // namespace assay::coordinator
