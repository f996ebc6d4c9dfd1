// Clocks and quantiles of the benchmarks.
#pragma once

#include <time.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "base/clock.h"
#include "base/status.h"

namespace assay::bench {

template <typename T>
T Must(absl::StatusOr<T> result) {
  ASSAY_CHECK(result.ok(), "{}", Message(result.status()));
  return *std::move(result);
}
inline void Must(const absl::Status& status) { ASSAY_CHECK(status.ok(), "{}", Message(status)); }

inline double Seconds() { return absl::ToDoubleSeconds(RealClock::Get()->Monotonic()); }

// Of this process: on a busy machine it says more than the wall clock.
inline double CpuSeconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// The value below which the share `q` of `values` lies; 0 for none.
inline double Quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  const auto rank = static_cast<size_t>(q * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(rank),
                   values.end());
  return values[rank];
}

}  // namespace assay::bench
