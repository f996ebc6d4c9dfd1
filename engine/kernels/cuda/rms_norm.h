// The residual stream's two steps in one pass: h += update, then y = h / rms(h) * weight.
#pragma once

#include <absl/status/status.h>
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace assay::engine::cuda {

struct RmsNormArgs {
  const __nv_bfloat16* hidden = nullptr;  // [rows, size]
  const __nv_bfloat16* update = nullptr;  // likewise, added first; null: nothing to add
  // Rows of hidden and update that are normed, [num_rows]; null: row i is row i.
  const int32_t* rows = nullptr;
  const float* weight = nullptr;    // [size]; no kernel before on the stream writes it
  __nv_bfloat16* sum = nullptr;     // hidden + update, [num_rows, size]; may be hidden; null: no
  __nv_bfloat16* normed = nullptr;  // [num_rows, size]
  int num_rows = 0;
  int size = 0;
  float eps = 0;
};

absl::Status RmsNorm(const RmsNormArgs& args, cudaStream_t stream);

}  // namespace assay::engine::cuda
