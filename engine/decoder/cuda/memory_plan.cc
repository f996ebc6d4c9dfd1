#include "engine/decoder/cuda/memory_plan.h"

#include <algorithm>

#include "base/status.h"

namespace assay::engine::cuda {
namespace {

double Gib(int64_t bytes) { return static_cast<double>(bytes) / (int64_t{1} << 30); }

}  // namespace

absl::StatusOr<MemoryPlan> PlanMemory(const MemoryDemand& demand) {
  const int64_t fixed = demand.weight_bytes + demand.activation_bytes + demand.workspace_bytes;
  const int64_t left = demand.free_bytes - fixed - demand.scoring_bytes - demand.reserve_bytes;
  const int64_t allowed = demand.limit_bytes == 0 ? left : std::min(left, demand.limit_bytes);
  const int64_t needed_blocks = (demand.max_model_len + demand.block_size - 1) / demand.block_size;
  const std::string numbers = fmt::format(
      "{:.2f} GiB free; weights {:.2f}, activations {:.2f}, workspace {:.2f}{}, reserve {:.2f}",
      Gib(demand.free_bytes), Gib(demand.weight_bytes), Gib(demand.activation_bytes),
      Gib(demand.workspace_bytes),
      demand.scoring_bytes == 0 ? "" : fmt::format(", scoring {:.2f}", Gib(demand.scoring_bytes)),
      Gib(demand.reserve_bytes));
  MemoryPlan plan;
  plan.num_blocks =
      std::min(demand.wanted_blocks, std::max<int64_t>(allowed, 0) / demand.block_bytes);
  if (plan.num_blocks < needed_blocks) {
    return ResourceExhausted(
        "{}: {} leave {:.3f} GiB for the KV cache{}, but one sequence of max_model_len {} takes "
        "{:.3f} GiB; lower max_model_len or max_num_seqs, or use a larger device",
        demand.device, numbers, Gib(std::max<int64_t>(left, 0)),
        demand.limit_bytes == 0 ? "" : fmt::format(" (limited to {:.3f})", Gib(demand.limit_bytes)),
        demand.max_model_len, Gib(needed_blocks * demand.block_bytes));
  }
  plan.cache_bytes = plan.num_blocks * demand.block_bytes;
  plan.total_bytes = fixed + plan.cache_bytes;
  plan.summary = fmt::format("{}: {}, KV cache {:.2f} GiB: {} blocks of {} tokens", demand.device,
                             numbers, Gib(plan.cache_bytes), plan.num_blocks, demand.block_size);
  return plan;
}

}  // namespace assay::engine::cuda
