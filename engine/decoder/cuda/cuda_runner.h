// The CUDA backend behind ModelRunner: cuts steps into passes, which its ranks (cuda_rank.h) run,
// one on each GPU of a tensor-parallel gang. No CUDA in this header, so that what chooses among
// backends needs no toolkit; a build without the backend answers FAILED_PRECONDITION.
#pragma once

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/decoder/model_runner.h"

namespace assay::engine {

// How the GPUs of a gang see each other's results (engine/parallel). Either gives the same tokens.
enum class GangTransport {
  kAuto,  // kPeer where all have access to each other's memory
  kPeer,
  kNccl,
};

struct CudaRunnerOptions {
  std::vector<int> devices = {0};  // in the order of the ranks
  int max_num_seqs = 64;
  int prefill_chunk = 2048;    // most prompt tokens of one step
  int64_t max_model_len = 0;   // 0: the model's max_position_embeddings
  int64_t kv_cache_bytes = 0;  // of all devices, at most; 0: what they have left
  // The longest sequence that Forward is promised room for; it tries with longer ones.
  int64_t max_forward_len = 0;
  // Of host memory for preempted sequences: at most this and what the cache takes; -1: at most a
  // quarter of the machine's memory (pinned_blocks.h: less while others use it).
  int64_t swap_bytes = -1;
  // The folder holds config.json alone: weights are drawn, for measurements of shapes.
  bool random_weights = false;
  int random_weight_bits = 16;  // RandomWeights::bit_width
  GangTransport transport = GangTransport::kAuto;
  // A rank that has not done its part of a pass by then is given up, and the gang with it.
  absl::Duration pass_timeout = absl::Seconds(60);
};

// Errors as LoadCpuModel; NOT_FOUND without the device; INVALID_ARGUMENT when the model does not
// divide over the devices; RESOURCE_EXHAUSTED with all numbers of the memory plan when one sequence
// of max_model_len does not fit; UNIMPLEMENTED for what only the CPU backend runs; INTERNAL, from
// then on also from the runner, when a device fails or hangs.
absl::StatusOr<std::unique_ptr<ModelRunner>> LoadCudaRunner(const std::string& model_dir,
                                                            const CudaRunnerOptions& options);

// "NVIDIA H100 80GB HBM3". NOT_FOUND without it.
absl::StatusOr<std::string> CudaDeviceName(int device);

}  // namespace assay::engine
