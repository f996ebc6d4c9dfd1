// Which slots can hold a cell, and what people are told when none can. Pure functions.
//
// A gang is all or nothing: a slot runs cells of exactly its own tensor_parallel_size, since a
// smaller one would leave its GPUs idle and a result depends on that size. The memory of a slot is
// what weights and cache may take over all of its GPUs; a slot that says none (a CPU slot) is not
// limited, and a cell of which nothing is known (0) goes anywhere.
#pragma once

#include <compare>
#include <cstdint>
#include <set>
#include <string>

namespace assay::coordinator {

struct SlotShape {
  int32_t tensor_parallel_size = 1;
  int64_t memory_bytes = 0;  // 0: not limited
  friend auto operator<=>(const SlotShape&, const SlotShape&) = default;
};

struct SlotNeed {
  int32_t tensor_parallel_size = 1;
  int64_t memory_bytes = 0;  // over all GPUs of the gang; 0: not known
  friend auto operator<=>(const SlotNeed&, const SlotNeed&) = default;
};

bool Fits(const SlotNeed& need, const SlotShape& slot);

// Why none of these slots can take it, as "needs 2 GPUs of 74.0 GiB; the largest slot has 1 of 78.0
// GiB". Empty when one can. `slots` are those of workers that take work.
std::string WhyNoSlotFits(const SlotNeed& need, const std::set<SlotShape>& slots);

}  // namespace assay::coordinator
