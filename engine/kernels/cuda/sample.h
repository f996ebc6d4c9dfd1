// From logits to token ids on the device: greedy, or temperature, top_k and top_p without a sort.
//
// The definition is engine/sampling/sampler.h's, to the id: levels and masses are integers, so the
// order in which a thread block adds them does not show.
#pragma once

#include <absl/status/status.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace assay::engine::cuda {

// How one row's token is chosen (engine/sampling/sampling_params.h, and the output position).
struct RowSampling {
  float temperature = 0;
  float top_p = 1;
  int32_t top_k = 0;
  int32_t unused = 0;
  uint64_t seed = 0;
  uint64_t position = 0;
};

struct SampleArgs {
  const float* logits = nullptr;        // [num_rows, vocab_size]
  const RowSampling* params = nullptr;  // [num_rows], device memory
  int32_t* ids = nullptr;               // [num_rows]
  int num_rows = 0;
  int vocab_size = 0;
};

absl::Status Sample(const SampleArgs& args, cudaStream_t stream);

}  // namespace assay::engine::cuda
