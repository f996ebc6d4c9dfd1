#include "coordinator/scheduler/unit_policy.h"

namespace assay::coordinator {

std::vector<int32_t> PickUnits(const UnitTable& units, std::span<const int32_t> item_order,
                               int64_t order_version, int32_t num_items, int32_t num_repeats,
                               const std::set<int32_t>& suspects, int32_t count,
                               PickCursor* cursor) {
  if (cursor->order_version != order_version) *cursor = {order_version, 0};
  std::vector<int32_t> picked;
  const int64_t end = static_cast<int64_t>(item_order.size()) * num_repeats;
  // A suspect stays queued behind the cursor, so the cursor stops at the first one.
  bool may_advance = true;
  for (int64_t position = cursor->position;
       position < end && picked.size() < static_cast<size_t>(count); ++position) {
    const int32_t item = item_order[static_cast<size_t>(position / num_repeats)];
    const auto repeat = static_cast<int32_t>(position % num_repeats);
    if (item < num_items) {
      const int32_t index = units.IndexOf(item, repeat);
      if (units.Get(index) == UnitStatus::kQueued) {
        if (suspects.contains(index)) {
          may_advance = false;
        } else {
          picked.push_back(index);
        }
      }
    }
    if (may_advance) cursor->position = position + 1;
  }
  return picked;
}

}  // namespace assay::coordinator
