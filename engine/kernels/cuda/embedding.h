// Rows of the embedding table: out[row] = table[ids[row]]. An id that the host does not know yet is
// looked up where the sampler left it.
#pragma once

#include <absl/status/status.h>
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace assay::engine::cuda {

struct EmbeddingArgs {
  const int32_t* ids = nullptr;    // [num_rows]; one outside of the vocabulary gives zeros
  const int32_t* drawn = nullptr;  // an id of -1 - i stands for drawn[i]; null: there are none
  const __nv_bfloat16* table = nullptr;  // [vocab_size, hidden_size]
  __nv_bfloat16* out = nullptr;          // [num_rows, hidden_size]
  int num_rows = 0;
  int hidden_size = 0;
  int vocab_size = 0;
};

// No kernel behind this one starts before those in front of it have ended: what they wrote may be
// read without waiting.
absl::Status GatherEmbeddings(const EmbeddingArgs& args, cudaStream_t stream);

}  // namespace assay::engine::cuda
