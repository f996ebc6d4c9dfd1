// Random values in device memory: weights of models without a checkpoint, probes, benchmarks.
#pragma once

#include <absl/status/status.h>
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace assay::engine::cuda {

// values[i] = mean + deviation * (a draw of unit variance): a function of seed and i alone. The
// draw is a sum of four uniform ones, near enough to a normal one and never far out.
absl::Status FillRandom(__nv_bfloat16* values, int64_t size, float mean, float deviation,
                        uint64_t seed, cudaStream_t stream);
absl::Status FillRandom(float* values, int64_t size, float mean, float deviation, uint64_t seed,
                        cudaStream_t stream);
// The slice [first_row, + rows) x [first_column, + columns) of a matrix with `whole_columns`
// columns that FillRandom would fill with the same seed, dense in `values`.
struct RandomSlice {
  int64_t first_row = 0;
  int64_t rows = 0;
  int64_t first_column = 0;
  int64_t columns = 0;
  int64_t whole_columns = 0;
};
absl::Status FillRandomSlice(__nv_bfloat16* values, const RandomSlice& slice, float mean,
                             float deviation, uint64_t seed, cudaStream_t stream);
absl::Status FillRandomBytes(void* bytes, int64_t size, uint64_t seed, cudaStream_t stream);

}  // namespace assay::engine::cuda
