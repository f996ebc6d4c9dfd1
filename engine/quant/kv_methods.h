// The methods that quantize the KV cache alone: KVQuant* and QuaRot-KV (quantize.h). They
// change no weight; what they make is the cache's description and, for KVQuant*, static tables.
#pragma once

#include <absl/status/status.h>

#include "engine/model/config.h"
#include "engine/quant/artifact.h"
#include "engine/quant/quantize.h"
#include "engine/weights/checkpoint.h"

namespace assay::engine {

// Runs request.forward over the calibration documents and takes each key channel's range over all
// of their tokens. `method` is request.method, resolved.
absl::Status QuantizeKvquantStar(const MethodSpec& method, const QuantizeRequest& request,
                                 const ModelConfig& config, const Checkpoint& checkpoint,
                                 Artifact* artifact);

absl::Status QuantizeQuarotKv(const MethodSpec& method, const ModelConfig& config,
                              Artifact* artifact);

}  // namespace assay::engine
