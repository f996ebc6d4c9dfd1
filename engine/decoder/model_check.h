// What no backend can run, whatever the weights are.
#pragma once

#include <absl/status/status.h>

#include "engine/model/config.h"
#include "engine/quant/description.h"

namespace assay::engine {

// INVALID_ARGUMENT names what the description has and this model cannot.
absl::Status CheckDescription(const ModelConfig& config, const QuantDescription& description);

}  // namespace assay::engine
