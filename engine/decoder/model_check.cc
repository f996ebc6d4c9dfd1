#include "engine/decoder/model_check.h"

#include <algorithm>
#include <vector>

#include "base/status.h"
#include "engine/model/linears.h"

namespace assay::engine {

absl::Status CheckDescription(const ModelConfig& config, const QuantDescription& description) {
  const std::vector<LinearInfo> linears = QuantizableLinears(config);
  for (const auto& [name, spec] : description.linears) {
    const bool known =
        std::any_of(linears.begin(), linears.end(),
                    [&name = name](const LinearInfo& info) { return info.name == name; });
    if (!known) {
      return InvalidArgument(
          "the quantization description names {}, which this model of {} layers "
          "does not have",
          name, config.num_layers);
    }
  }
  const CacheSpec& keys = description.k_cache;
  const bool before_rope = keys.position == CacheSpec::Position::kBeforeBias ||
                           keys.position == CacheSpec::Position::kBeforeRope;
  if (before_rope && keys.transform != CacheSpec::Transform::kNone) {
    return InvalidArgument(
        "k_cache has a transform and is quantized before RoPE: queries could "
        "not be transformed alike; supported after RoPE only");
  }
  if (keys.position == CacheSpec::Position::kBeforeBias && config.qk_norm) {
    return InvalidArgument(
        "k_cache is quantized before the bias, but this model normalizes keys "
        "after it (qk_norm); use before RoPE");
  }
  return absl::OkStatus();
}

}  // namespace assay::engine
