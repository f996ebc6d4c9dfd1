#include "engine/quant/kv_methods.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "engine/model/linears.h"
#include "engine/quant/method.h"
#include "engine/quant/uniform.h"

namespace assay::engine {
namespace {

// Ranges of the key channels of one layer, over all tokens seen; zero is always within.
struct ChannelRanges {
  std::vector<float> offset;  // subtracted from the keys: their bias, or zeros
  std::vector<float> min;
  std::vector<float> max;
  int64_t num_tokens = 0;
};

class KeyRangeObserver final : public ForwardObserver {
 public:
  explicit KeyRangeObserver(std::vector<ChannelRanges> layers) : layers_(std::move(layers)) {}

  const std::vector<ChannelRanges>& layers() const { return layers_; }
  bool saw_bad_value() const { return saw_bad_value_; }

  void OnKeysBeforeRope(int layer, int num_tokens, std::span<const float> keys) override {
    ASSAY_CHECK(layer >= 0 && static_cast<size_t>(layer) < layers_.size(), "layer {}", layer);
    ChannelRanges& ranges = layers_[static_cast<size_t>(layer)];
    const size_t num_channels = ranges.offset.size();
    ASSAY_CHECK(keys.size() == static_cast<size_t>(num_tokens) * num_channels);
    for (size_t i = 0; i < keys.size(); ++i) {
      const size_t channel = i % num_channels;
      const float key = keys[i] - ranges.offset[channel];
      saw_bad_value_ = saw_bad_value_ || !std::isfinite(key);
      ranges.min[channel] = std::min(ranges.min[channel], key);
      ranges.max[channel] = std::max(ranges.max[channel], key);
    }
    ranges.num_tokens += num_tokens;
  }

 private:
  std::vector<ChannelRanges> layers_;
  bool saw_bad_value_ = false;
};

template <typename T>
TensorToWrite Table(const std::string& name, DType dtype, const ModelConfig& config,
                    const std::vector<T>& values) {
  return {.name = name,
          .dtype = dtype,
          .shape = {config.num_kv_heads, config.head_dim},
          .bytes = {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)}};
}

absl::StatusOr<std::vector<ChannelRanges>> EmptyRanges(const ModelConfig& config,
                                                       const Checkpoint& checkpoint,
                                                       bool before_bias) {
  const auto num_channels = static_cast<size_t>(config.kv_size());
  std::vector<ChannelRanges> layers;
  for (int layer = 0; layer < config.num_layers; ++layer) {
    ChannelRanges ranges = {.offset = std::vector<float>(num_channels),
                            .min = std::vector<float>(num_channels),
                            .max = std::vector<float>(num_channels)};
    if (before_bias) {
      const int64_t shape[] = {config.kv_size()};
      ASSAY_ASSIGN_OR_RETURN(
          ranges.offset, checkpoint.ReadFloats(LinearName(layer, LinearKind::kK) + ".bias", shape));
    }
    layers.push_back(std::move(ranges));
  }
  return layers;
}

}  // namespace

absl::Status QuantizeKvquantStar(const MethodSpec& method, const QuantizeRequest& request,
                                 const ModelConfig& config, const Checkpoint& checkpoint,
                                 Artifact* artifact) {
  if (!request.forward || request.calibration_ids.empty()) {
    return InvalidArgument("method {} needs calibration texts; give some", method.method);
  }
  const bool before_bias = method.pre_bias && config.qkv_bias;
  if (before_bias && config.qk_norm) {
    return InvalidArgument("method {} with pre_bias: this model normalizes keys after their bias",
                           method.method);
  }
  ASSAY_ASSIGN_OR_RETURN(std::vector<ChannelRanges> layers,
                         EmptyRanges(config, checkpoint, before_bias));
  KeyRangeObserver observer(std::move(layers));
  for (const std::vector<int32_t>& ids : request.calibration_ids) {
    if (!ids.empty()) ASSAY_RETURN_IF_ERROR(request.forward(ids, &observer));
  }
  if (observer.saw_bad_value()) {
    return InvalidArgument("calibration: the model's keys are not finite; the model is damaged");
  }

  ASSAY_ASSIGN_OR_RETURN(const BitWidths bits, ParseBits(method.bits));
  const GridSpec grid = {.bit_width = bits.kv};
  for (size_t layer = 0; layer < observer.layers().size(); ++layer) {
    const ChannelRanges& ranges = observer.layers()[layer];
    if (ranges.num_tokens == 0) {
      return InvalidArgument("calibration: no token was seen; the texts are empty");
    }
    std::vector<float> scales;
    std::vector<uint8_t> zeros;
    for (size_t channel = 0; channel < ranges.min.size(); ++channel) {
      const GridParams params = ParamsOfRange(ranges.min[channel], ranges.max[channel], grid);
      scales.push_back(params.scale);
      zeros.push_back(static_cast<uint8_t>(params.zero));
    }
    const std::string prefix = fmt::format("model.layers.{}.self_attn.k_cache", layer);
    artifact->tensors.push_back(Table(prefix + ".scale", DType::kF32, config, scales));
    artifact->tensors.push_back(Table(prefix + ".zero", DType::kU8, config, zeros));
  }

  QuantDescription& description = artifact->description;
  description.k_cache = {.code_type = CodeType::kUniform,
                         .bit_width = bits.kv,
                         .granularity = CacheSpec::Granularity::kPerChannelStatic,
                         .position = before_bias ? CacheSpec::Position::kBeforeBias
                                                 : CacheSpec::Position::kBeforeRope};
  description.v_cache = {.code_type = CodeType::kUniform,
                         .bit_width = bits.kv,
                         .position = CacheSpec::Position::kAfterProjection};
  return absl::OkStatus();
}

absl::Status QuantizeQuarotKv(const MethodSpec& method, const ModelConfig& config,
                              Artifact* artifact) {
  if (!IsHadamardOrder(config.head_dim)) {
    return InvalidArgument(
        "method {}: no Hadamard matrix of order head_dim {}; kvquant_star needs none",
        method.method, config.head_dim);
  }
  ASSAY_ASSIGN_OR_RETURN(const BitWidths bits, ParseBits(method.bits));
  const auto clip_ratio = [&](const char* name) {
    return ParseClipRatio(name, method.parameters.at(name));
  };
  ASSAY_ASSIGN_OR_RETURN(const float k_clip_ratio, clip_ratio("k_clip_ratio"));
  ASSAY_ASSIGN_OR_RETURN(const float v_clip_ratio, clip_ratio("v_clip_ratio"));
  artifact->description.k_cache = {.code_type = CodeType::kUniform,
                                   .bit_width = bits.kv,
                                   .clip_ratio = k_clip_ratio,
                                   .position = CacheSpec::Position::kAfterRope,
                                   .transform = CacheSpec::Transform::kHadamard};
  artifact->description.v_cache = {.code_type = CodeType::kUniform,
                                   .bit_width = bits.kv,
                                   .clip_ratio = v_clip_ratio,
                                   .position = CacheSpec::Position::kAfterProjection};
  return absl::OkStatus();
}

}  // namespace assay::engine
