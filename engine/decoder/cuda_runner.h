// The CUDA backend behind ModelRunner: cuts steps into passes, which a rank (cuda_rank.h) runs. No
// CUDA in this header, so that what chooses among backends needs no toolkit; a build without the
// backend answers FAILED_PRECONDITION.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "engine/decoder/model_runner.h"

namespace assay::engine {

struct CudaRunnerOptions {
  int device = 0;
  int max_num_seqs = 64;
  int prefill_chunk = 2048;    // most prompt tokens of one step
  int64_t max_model_len = 0;   // 0: the model's max_position_embeddings
  int64_t kv_cache_bytes = 0;  // at most; 0: what the device has left
  // Of host memory for preempted sequences: at most this and what the cache takes; -1: at most a
  // quarter of the machine's memory.
  int64_t swap_bytes = -1;
  // The folder holds config.json alone: weights are drawn, for measurements of shapes.
  bool random_weights = false;
};

// Errors as LoadCpuModel; NOT_FOUND without the device; RESOURCE_EXHAUSTED with all numbers of the
// memory plan when one sequence of max_model_len does not fit; UNIMPLEMENTED for what only the CPU
// backend runs; INTERNAL when the device fails.
absl::StatusOr<std::unique_ptr<ModelRunner>> LoadCudaRunner(const std::string& model_dir,
                                                            const CudaRunnerOptions& options);

// "NVIDIA H100 80GB HBM3". NOT_FOUND without it.
absl::StatusOr<std::string> CudaDeviceName(int device);

}  // namespace assay::engine
