// Decode attention alone at a model's shape: one layer's launch over a cache of random values.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>

#include "engine/model/config.h"
#include "engine/quant/description.h"

namespace assay::engine::cuda {

struct AttentionTiming {
  double microseconds = 0;  // of one layer
  double bytes = 0;         // codes and parameters of every cached token
};

// On the calling thread's device. Layers are read in turn, as many as the second-level cache does
// not hold. RESOURCE_EXHAUSTED when the cache does not fit.
absl::StatusOr<AttentionTiming> TimeDecodeAttention(const ModelConfig& config,
                                                    const QuantDescription& description,
                                                    int batch_size, int64_t context_len);

}  // namespace assay::engine::cuda
