#include "coordinator/scheduler/lease_policy.h"

#include <algorithm>

namespace assay::coordinator {

int32_t Allowance(int32_t num_lanes, int32_t num_committed) {
  return std::max(num_lanes, kChunkUnits) + kChunkUnits - num_committed;
}

int32_t LeaseSize(int32_t allowance, int64_t num_queued, int32_t num_slots_on_cell) {
  if (allowance <= 0 || num_queued <= 0) return 0;
  const int64_t num_shares = 2 * int64_t{std::max(num_slots_on_cell, 1)};
  const int64_t share = (num_queued + num_shares - 1) / num_shares;
  const int64_t size =
      std::min({std::clamp<int64_t>(share, kMinTailUnits, kMaxLeaseUnits), num_queued});
  if (allowance < std::min<int64_t>(size, kChunkUnits)) return 0;
  return static_cast<int32_t>(std::min<int64_t>(size, allowance));
}

}  // namespace assay::coordinator
