// Puts the ranks' columns of a matrix side by side: the logits of a gang, of which each rank has
// computed those of its part of the vocabulary.
//
//   out[row, rank * part_columns + c] = parts[rank][row, c]   as far as `columns` goes
#pragma once

#include <absl/status/status.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "engine/kernels/gang_parts.h"

namespace assay::engine::cuda {

struct GatherColumnsArgs {
  GangParts gang;        // float32 [num_rows, part_columns] each
  float* out = nullptr;  // [num_rows, columns]
  int num_rows = 0;
  int64_t part_columns = 0;  // a multiple of 4
  int64_t columns = 0;       // at most num_ranks * part_columns
};

// Every rank of the gang launches it with the same num_rows.
absl::Status GatherColumns(const GatherColumnsArgs& args, cudaStream_t stream);

}  // namespace assay::engine::cuda
