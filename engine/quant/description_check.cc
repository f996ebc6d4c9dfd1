// What a description must keep to: within itself, and towards the model.
#include <algorithm>
#include <map>

#include "base/names.h"
#include "base/status.h"
#include "engine/model/linears.h"
#include "engine/quant/description.h"
#include "engine/quant/uniform.h"

namespace assay::engine {
namespace {

using Position = CacheSpec::Position;
using Kind = TransformSpec::Kind;

absl::Status CheckCodes(CodeType code_type, int bit_width, const std::string& where) {
  if (code_type == CodeType::kUniform && (bit_width < 2 || bit_width > 8)) {
    return InvalidArgument("{}: uniform codes of {} bits; supported: 2..8", where, bit_width);
  }
  if (code_type == CodeType::kMxfp4 && bit_width != 4) {
    return InvalidArgument("{}: MXFP4 codes of {} bits; there are only 4", where, bit_width);
  }
  return absl::OkStatus();
}

absl::Status CheckCache(const CacheSpec& cache, bool is_key, const std::string& where) {
  ASSAY_RETURN_IF_ERROR(CheckCodes(cache.code_type, cache.bit_width, where));
  if ((cache.position == Position::kAfterProjection) == is_key) {
    return InvalidArgument(
        "{}: position: keys are taken before the bias, before or after RoPE; "
        "values after their projection",
        where);
  }
  if (is_key && cache.transform != CacheSpec::Transform::kNone &&
      cache.position != Position::kAfterRope) {
    return InvalidArgument("{}: a transform needs position after_rope, since queries go through it",
                           where);
  }
  if (cache.granularity == CacheSpec::Granularity::kPerChannelStatic) {
    if (cache.code_type == CodeType::kMxfp4 || cache.group_size != 0 || cache.learned_clip) {
      return InvalidArgument(
          "{}: per_channel_static goes with uniform codes, without group_size "
          "and learned_clip",
          where);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckLinear(const LinearSpec& spec, const std::string& name) {
  ASSAY_RETURN_IF_ERROR(CheckCodes(spec.code_type, spec.bit_width, name));
  if (spec.group_size == 0) {
    return InvalidArgument("{}: group_size 0; needed: -1 (the whole row) or a positive number",
                           name);
  }
  const InputQuantizerSpec& input = spec.input_quantizer;
  ASSAY_RETURN_IF_ERROR(CheckCodes(input.code_type, input.bit_width, name + ": input_quantizer"));
  const size_t num_factors = input.clip_max.size();
  if (num_factors != input.clip_min.size() ||
      (num_factors != 0 && num_factors != static_cast<size_t>(spec.num_shards))) {
    return InvalidArgument("{}: clip_max and clip_min have {} and {} factors for {} shards", name,
                           num_factors, input.clip_min.size(), spec.num_shards);
  }
  const TransformSpec& transform = spec.input_transform;
  const bool sized = transform.kind == Kind::kKronecker || transform.kind == Kind::kHeadMix;
  if (sized && (transform.left < 1 || transform.right < 1)) {
    return InvalidArgument("{}: input_transform needs positive left and right, not {} and {}", name,
                           transform.left, transform.right);
  }
  return absl::OkStatus();
}

absl::Status CheckLinearFits(const LinearSpec& spec, const LinearInfo& linear, int virtual_shards) {
  const int in_features = linear.in_features;
  if (spec.num_shards != 1 && (!linear.row_parallel() || spec.num_shards != virtual_shards)) {
    return InvalidArgument(
        "{}: num_shards {}; only o_proj and down_proj are split, into "
        "virtual_shards {}",
        linear.name, spec.num_shards, virtual_shards);
  }
  if (in_features % spec.num_shards != 0) {
    return InvalidArgument("{}: {} inputs do not divide over {} shards", linear.name, in_features,
                           spec.num_shards);
  }
  const int slice = in_features / spec.num_shards;
  if ((spec.code_type == CodeType::kMxfp4 || spec.input_quantizer.code_type == CodeType::kMxfp4) &&
      slice % kMxfp4Block != 0) {
    return InvalidArgument("{}: {} inputs a shard are no multiple of MXFP4's block of {}",
                           linear.name, slice, kMxfp4Block);
  }
  const TransformSpec& transform = spec.input_transform;
  if (transform.kind == Kind::kHadamard && !IsHadamardOrder(slice)) {
    return InvalidArgument("{}: no Hadamard matrix of order {}", linear.name, slice);
  }
  const bool sized = transform.kind == Kind::kKronecker || transform.kind == Kind::kHeadMix;
  if (sized && int64_t{transform.left} * transform.right != slice) {
    return InvalidArgument("{}: a transform of {} x {} does not fit {} inputs a shard", linear.name,
                           transform.left, transform.right, slice);
  }
  return absl::OkStatus();
}

absl::Status CheckCacheFits(const CacheSpec& cache, int head_dim, const std::string& where) {
  if (cache.group_size > 0 && head_dim % cache.group_size != 0) {
    return InvalidArgument("{}: group_size {} does not divide head_dim {}", where, cache.group_size,
                           head_dim);
  }
  if (cache.code_type == CodeType::kMxfp4 && head_dim % kMxfp4Block != 0) {
    return InvalidArgument("{}: head_dim {} is no multiple of MXFP4's block of {}", where, head_dim,
                           kMxfp4Block);
  }
  if (cache.transform == CacheSpec::Transform::kHadamard && !IsHadamardOrder(head_dim)) {
    return InvalidArgument("{}: no Hadamard matrix of order head_dim {}", where, head_dim);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckConsistent(const QuantDescription& description) {
  ASSAY_RETURN_IF_ERROR(CheckCache(description.k_cache, /*is_key=*/true, "k_cache"));
  ASSAY_RETURN_IF_ERROR(CheckCache(description.v_cache, /*is_key=*/false, "v_cache"));
  for (const auto& [name, spec] : description.linears) {
    ASSAY_RETURN_IF_ERROR(CheckLinear(spec, name));
  }
  return absl::OkStatus();
}

absl::Status CheckFits(const QuantDescription& description, const ModelConfig& config) {
  std::map<std::string, LinearInfo> known;
  for (LinearInfo& linear : QuantizableLinears(config)) known[linear.name] = std::move(linear);
  for (const auto& [name, spec] : description.linears) {
    const auto linear = known.find(name);
    if (linear == known.end()) {
      return InvalidArgument("linear {}: the model of {} layers has none of that name", name,
                             config.num_layers);
    }
    ASSAY_RETURN_IF_ERROR(CheckLinearFits(spec, linear->second, description.virtual_shards));
    const std::string& owner = spec.input_transform.owner;
    if (!owner.empty() && !description.linears.contains(owner)) {
      return InvalidArgument("{}: input_transform: its owner {} is not described", name, owner);
    }
  }
  if (config.qk_norm && config.qkv_bias &&
      description.k_cache.position == CacheSpec::Position::kBeforeBias) {
    return InvalidArgument(
        "k_cache: position before_bias: this model normalizes keys after their bias");
  }
  ASSAY_RETURN_IF_ERROR(CheckCacheFits(description.k_cache, config.head_dim, "k_cache"));
  return CheckCacheFits(description.v_cache, config.head_dim, "v_cache");
}

}  // namespace assay::engine
