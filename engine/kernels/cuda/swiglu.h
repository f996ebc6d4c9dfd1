// The MLP's activation: out = silu(gate) * up.
#pragma once

#include <absl/status/status.h>
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

namespace assay::engine::cuda {

struct SwigluArgs {
  const __nv_bfloat16* gate_up = nullptr;  // [rows, 2 * size]: gates, then ups
  __nv_bfloat16* out = nullptr;            // [rows, size]
  int num_rows = 0;
  int size = 0;
};

absl::Status Swiglu(const SwigluArgs& args, cudaStream_t stream);

}  // namespace assay::engine::cuda
