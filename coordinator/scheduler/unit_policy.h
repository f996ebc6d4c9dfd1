// Which queued units of a cell go into the next lease: the longest expected first, the repeats of
// an item together (they share the prompt's cache blocks). Pure but for the cursor.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <vector>

#include "coordinator/scheduler/unit_table.h"

namespace assay::coordinator {

// Where the search for queued units goes on: everything before it is known not to be queued, as
// long as the order has this version and no unit came back to the queue.
struct PickCursor {
  int64_t order_version = 0;
  int64_t position = 0;
};

// At most `count` unit indices among the first `num_items` items and `num_repeats` repeats that are
// queued and not suspect. `item_order` lists all items of the benchmark, longest first.
std::vector<int32_t> PickUnits(const UnitTable& units, std::span<const int32_t> item_order,
                               int64_t order_version, int32_t num_items, int32_t num_repeats,
                               const std::set<int32_t>& suspects, int32_t count,
                               PickCursor* cursor);

}  // namespace assay::coordinator
