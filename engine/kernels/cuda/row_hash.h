// A number per row of a matrix that changes with any of its bits: whether two ways to compute a
// matrix agree is asked about row by row, without a copy of either.
#pragma once

#include <absl/status/status.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace assay::engine::cuda {

struct RowHashArgs {
  const void* matrix = nullptr;  // [num_rows, row_bytes]
  uint64_t* hashes = nullptr;    // [num_rows]
  int num_rows = 0;
  int64_t row_bytes = 0;  // a multiple of 2
};

absl::Status HashRows(const RowHashArgs& args, cudaStream_t stream);

}  // namespace assay::engine::cuda
