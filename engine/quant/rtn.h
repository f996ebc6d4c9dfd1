// Round to nearest: every weight to the nearest point of its group's grid, nothing
// else. It is also the last step of methods that transform weights first.
#pragma once

#include <absl/status/status.h>

#include <cstdint>
#include <span>

#include "engine/model/config.h"
#include "engine/quant/artifact.h"
#include "engine/quant/packed_linear.h"
#include "engine/quant/quantize.h"
#include "engine/weights/checkpoint.h"

namespace assay::engine {

// The codes of weight [out_features, in_features] on the grids that `spec` names (uniform, with the
// degenerate groups of weights, or MXFP4), in float32. The columns are in the order of the
// codes: with a permutation the caller has applied it.
LinearCodes RoundWeight(std::span<const float> weight, const LinearSpec& spec, int64_t out_features,
                        int64_t in_features);

// Quantizes all seven linears of every block into `artifact`. `method` is resolved.
absl::Status QuantizeRtn(const MethodSpec& method, const ModelConfig& config,
                         const Checkpoint& checkpoint, Artifact* artifact);

}  // namespace assay::engine
