// How a GPU's memory is divided, decided before the first byte is taken.
//
//   free = weights + activations + workspace + scoring + reserve + KV cache
//
// The cache gets what it was asked to take, or all that is left. Numbers only, no CUDA: what a
// device would refuse can be asked anywhere.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>

namespace assay::engine::cuda {

struct MemoryDemand {
  std::string device;            // for messages: "cuda:0 (NVIDIA H100 80GB HBM3)"
  int64_t free_bytes = 0;        // on the device now
  int64_t weight_bytes = 0;      // exact
  int64_t activation_bytes = 0;  // exact: of the largest step
  int64_t workspace_bytes = 0;   // exact: attention's partial sums, RoPE tables, step inputs
  int64_t scoring_bytes = 0;     // the cache of a sequence that is teacher-forced
  int64_t reserve_bytes = 0;     // for what CUDA takes itself: kernels, graphs
  int64_t block_bytes = 0;       // of one KV block over all layers
  int64_t wanted_blocks = 0;     // more would never be used
  int64_t limit_bytes = 0;       // on the cache; 0: none
  int64_t max_model_len = 0;     // one sequence of it must fit
  int block_size = 0;            // tokens
};

struct MemoryPlan {
  int64_t num_blocks = 0;
  int64_t cache_bytes = 0;
  int64_t total_bytes = 0;  // without the reserve and the cache of scoring
  std::string summary;      // one line with all numbers, for the log
};

// RESOURCE_EXHAUSTED naming every number when one sequence of max_model_len does not fit.
absl::StatusOr<MemoryPlan> PlanMemory(const MemoryDemand& demand);

}  // namespace assay::engine::cuda
