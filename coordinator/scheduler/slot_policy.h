// Which slots can hold a cell, and what people are told when none can. Pure functions.
//
// A slot runs cells of its own arithmetic (base/numerics_version.h) alone: samples of two never
// mix. A gang is all or nothing: a slot runs cells of exactly its own tensor_parallel_size, since a
// smaller one would leave its GPUs idle and a result depends on that size. The memory of a slot is
// what weights and cache may take over all of its GPUs; a slot that says none is not limited, and a
// cell of which nothing is known (0) goes anywhere. A slot without GPUs holds the cache as float32
// whatever its bits, so it needs another amount for the same cell.
#pragma once

#include <compare>
#include <cstdint>
#include <set>
#include <string>

namespace assay::coordinator {

struct SlotShape {
  int32_t tensor_parallel_size = 1;
  int64_t memory_bytes = 0;  // 0: not limited
  bool is_cpu = false;
  std::string numerics_version;  // empty: not known, and the runner refuses what is not its own
  friend auto operator<=>(const SlotShape&, const SlotShape&) = default;
};

struct SlotNeed {
  int32_t tensor_parallel_size = 1;
  int64_t memory_bytes = 0;      // over all GPUs of the gang; 0: not known
  int64_t cpu_memory_bytes = 0;  // of a slot without GPUs; 0: not known
  std::string numerics_version;  // empty: any, as for a job, which is no sample
  int64_t BytesOn(const SlotShape& slot) const {
    return slot.is_cpu ? cpu_memory_bytes : memory_bytes;
  }
  friend auto operator<=>(const SlotNeed&, const SlotNeed&) = default;
};

bool Fits(const SlotNeed& need, const SlotShape& slot);

// Why none of these slots can take it, as "needs 2 GPUs of 74.0 GiB; the largest slot has 1 GPU of
// 78.0 GiB" or "needs a slot with cuda-1; workers offer cpu-2". Empty when one can. `slots` are
// those of workers that take work.
std::string WhyNoSlotFits(const SlotNeed& need, const std::set<SlotShape>& slots);

}  // namespace assay::coordinator
