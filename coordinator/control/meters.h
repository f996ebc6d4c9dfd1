// Small measures of the control plane: how many samples a second, how long commits take, how large
// batches are.
#pragma once

#include <absl/time/time.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
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

// Values since the start, counted in ranges with fixed upper bounds. Not thread-safe.
class Histogram {
 public:
  // `upper_bounds` rise; what is above the last counts in a range of its own.
  explicit Histogram(std::vector<double> upper_bounds)
      : upper_bounds_(std::move(upper_bounds)), counts_(upper_bounds_.size() + 1) {}

  void Add(double value) {
    const auto bound = std::lower_bound(upper_bounds_.begin(), upper_bounds_.end(), value);
    ++counts_[static_cast<size_t>(bound - upper_bounds_.begin())];
    sum_ += value;
  }
  const std::vector<double>& upper_bounds() const { return upper_bounds_; }
  // How many values lie in each range: one more than there are bounds.
  const std::vector<int64_t>& counts() const { return counts_; }
  double sum() const { return sum_; }

 private:
  std::vector<double> upper_bounds_;
  std::vector<int64_t> counts_;
  double sum_ = 0;
};

// Seconds of a commit: an NVMe disk takes less than one millisecond, a bad one seconds.
inline Histogram MakeCommitHistogram() {
  return Histogram({.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5});
}
// Pieces of work in one transaction: control_loop.h.
inline Histogram MakeBatchHistogram() { return Histogram({1, 2, 4, 8, 16, 32, 64}); }

}  // namespace assay::coordinator
