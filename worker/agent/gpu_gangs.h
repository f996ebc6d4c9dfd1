// Which GPUs a worker uses, and how they form gangs: each gang is the place of one runner. Pure
// functions.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "worker/agent/gpu_inventory.h"

namespace assay::worker {

// GPUs that hold one model together, in rank order.
struct GpuGang {
  std::vector<Gpu> gpus;

  // What weights and cache may take over all of them: a GPU's memory less what the engine keeps for
  // its context, workspace and reserve (2 GiB), as far as the smallest goes, since all hold equal
  // shares.
  int64_t memory_bytes() const;

  // "NVIDIA H100 80GB HBM3", "2x NVIDIA H200".
  std::string name() const;

  // The runner sees its own GPUs alone, and numbers them from 0: "cuda:0,1" under
  // "CUDA_VISIBLE_DEVICES=GPU-8f0b...,GPU-31c2...". By UUID, for CUDA counts otherwise than
  // nvidia-smi does.
  std::string device() const;
  std::string environment() const;
};

// The GPUs that a flag means: "all", or numbers or UUIDs with commas between them, in that order.
// `visible` is CUDA_VISIBLE_DEVICES of the worker (empty: not set), which bounds "all".
// INVALID_ARGUMENT for what is not there, for a GPU named twice and for GPUs of several kinds: a
// worker's samples come from one.
absl::StatusOr<std::vector<Gpu>> SelectGpus(const std::string& wanted, const std::string& visible,
                                            const std::vector<Gpu>& gpus);

// Gangs of `sizes`, one after the other; the last size is repeated until no GPU is left.
// INVALID_ARGUMENT when that does not come out even.
absl::StatusOr<std::vector<GpuGang>> FormGangs(const std::vector<Gpu>& gpus,
                                               const std::vector<int>& sizes);

}  // namespace assay::worker
