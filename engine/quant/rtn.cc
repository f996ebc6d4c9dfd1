#include "engine/quant/rtn.h"

#include <cmath>
#include <utility>

#include "base/status.h"
#include "engine/model/linears.h"
#include "engine/quant/method.h"
#include "engine/quant/uniform.h"

namespace assay::engine {
namespace {

constexpr float kMinWeightRange = 1e-5f;  // as in the study

void RoundGroup(std::span<const float> weights, const LinearSpec& spec, LinearCodes* codes) {
  if (spec.code_type == CodeType::kMxfp4) {
    const int exponent = Mxfp4Exponent(weights);
    codes->exponents.push_back(static_cast<uint8_t>(exponent + 127));
    for (const float weight : weights) {
      codes->codes.push_back(EncodeE2m1(std::ldexp(weight, -exponent)));
    }
    return;
  }
  const GridParams params = ChooseParams(
      weights,
      {.bit_width = spec.bit_width, .symmetric = spec.symmetric, .min_range = kMinWeightRange});
  codes->scales.push_back(params.scale);
  if (!spec.symmetric) codes->zeros.push_back(static_cast<uint8_t>(params.zero));
  for (const float weight : weights) {
    const int code = Encode(weight, params, spec.bit_width, spec.symmetric);
    codes->codes.push_back(static_cast<uint8_t>(code));
  }
}

}  // namespace

LinearCodes RoundWeight(std::span<const float> weight, const LinearSpec& spec, int64_t out_features,
                        int64_t in_features) {
  const auto columns = static_cast<size_t>(in_features);
  const auto width = static_cast<size_t>(GroupWidth(spec, in_features));
  LinearCodes codes;
  codes.codes.reserve(weight.size());
  for (size_t row = 0; row < static_cast<size_t>(out_features); ++row) {
    for (size_t column = 0; column < columns; column += width) {
      const size_t size = std::min(width, columns - column);
      RoundGroup(weight.subspan(row * columns + column, size), spec, &codes);
    }
  }
  return codes;
}

absl::Status QuantizeRtn(const MethodSpec& method, const ModelConfig& config,
                         const Checkpoint& checkpoint, Artifact* artifact) {
  ASSAY_ASSIGN_OR_RETURN(const BitWidths bits, ParseBits(method.bits));
  for (const LinearInfo& linear : QuantizableLinears(config)) {
    LinearSpec spec = {.code_type = CodeType::kUniform,
                       .bit_width = bits.weight,
                       .symmetric = method.symmetric,
                       .group_size = method.group_size};
    if (linear.row_parallel() && method.group_size == -1) spec.num_shards = method.virtual_shards;
    if (linear.in_features % spec.num_shards != 0) {
      return InvalidArgument("{}: {} inputs do not divide over virtual_shards {}", linear.name,
                             linear.in_features, spec.num_shards);
    }
    const int64_t shape[] = {linear.out_features, linear.in_features};
    ASSAY_ASSIGN_OR_RETURN(const std::vector<float> weight,
                           checkpoint.ReadFloats(linear.name + ".weight", shape));
    for (const float value : weight) {
      if (!std::isfinite(value)) {
        return InvalidArgument("tensor {}.weight: a value is {}; the model is damaged", linear.name,
                               value);
      }
    }
    AppendLinearTensors(linear.name, spec,
                        RoundWeight(weight, spec, linear.out_features, linear.in_features),
                        linear.out_features, linear.in_features, &artifact->tensors);
    artifact->dropped.insert(linear.name + ".weight");
    artifact->description.linears[linear.name] = spec;
  }
  return absl::OkStatus();
}

}  // namespace assay::engine
