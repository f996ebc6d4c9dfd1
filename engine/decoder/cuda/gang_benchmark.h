// What an exchange between the GPUs of a gang takes, by the size of the message.
#pragma once

#include <absl/status/statusor.h>

#include <span>
#include <vector>

#include "engine/decoder/cuda/benchmark.h"

namespace assay::engine::cuda {

// For each number of rows of bf16 [rows, hidden_size], in microseconds of the first GPU's clock:
//   "allreduce"  the sum over the ranks with residual and norm, as a decode step does it
//   "in place"   the same with all parts read where they are, whatever the size
//   "nccl"       NCCL's sum alone, where the library is there
//   "norm"       residual and norm alone, as one GPU does it
// Medians of many, launched as graphs.
absl::StatusOr<std::vector<BenchmarkRow>> MeasureAllReduce(std::span<const int> devices,
                                                           int hidden_size,
                                                           std::span<const int> num_rows);

}  // namespace assay::engine::cuda
