// The linears of a layer alone: qkv, o, gate and up, down, on rows of decoding, one behind the
// other.
#pragma once

#include <absl/status/statusor.h>

#include "engine/decoder/cuda/cuda_model.h"

namespace assay::engine::cuda {

struct LinearsTiming {
  double microseconds = 0;  // of one layer
  double bytes = 0;         // of its weights, as they lie in memory
};

// On the calling thread's device, with weights drawn in the shapes and formats of `plan`, of as
// many layers as the second-level cache does not hold. RESOURCE_EXHAUSTED when they do not fit.
absl::StatusOr<LinearsTiming> TimeLinears(const CudaModelPlan& plan, int batch_size);

}  // namespace assay::engine::cuda
