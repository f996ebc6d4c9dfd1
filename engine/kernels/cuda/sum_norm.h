// The end of a row-parallel linear in a gang: the sum over the ranks, the residual stream and the
// norm in one pass. It is RmsNorm (rms_norm.h) with an update that is a sum:
//
//   update = bf16(parts[0] + parts[1] + ...),  h = bf16(hidden + update),
//   y = bf16(h / sqrt(mean(h^2) + eps) * weight)
//
// The sum is taken in float32 in the order of the ranks and rounded once: all ranks get the same
// bits, whatever the number of rows and however the parts travel.
#pragma once

#include <absl/status/status.h>
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "engine/kernels/gang_parts.h"

namespace assay::engine::cuda {

struct SumNormArgs {
  const __nv_bfloat16* hidden = nullptr;  // [rows, size]
  // bf16 [rows, size] each; where the rows fit an inbox, the own part alone is read there. Of more
  // than two ranks they may be summed in place, where `sum` is given and `rows` is not.
  GangParts update;
  // Rows of hidden and update that are normed, [num_rows]; null: row i is row i.
  const int32_t* rows = nullptr;
  const float* weight = nullptr;    // [size]; no kernel before on the stream writes it
  __nv_bfloat16* sum = nullptr;     // hidden + update, [num_rows, size]; may be hidden; null: no
  __nv_bfloat16* normed = nullptr;  // [num_rows, size]
  int num_rows = 0;
  int size = 0;  // a multiple of 8, at most kMaxSumNormSize
  float eps = 0;
};

inline constexpr int kMaxSumNormSize = 16384;

// Every rank of the gang launches it with the same num_rows.
absl::Status SumNorm(const SumNormArgs& args, cudaStream_t stream);

}  // namespace assay::engine::cuda
