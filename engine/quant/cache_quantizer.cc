#include "engine/quant/cache_quantizer.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/status.h"
#include "engine/quant/matrix.h"
#include "engine/quant/packed_linear.h"
#include "engine/quant/uniform.h"

namespace assay::engine {
namespace {

using Granularity = CacheSpec::Granularity;
using Transform = CacheSpec::Transform;

// The values' groups must fit a head.
absl::Status CheckSizes(const CacheSpec& spec, const std::string& prefix, int head_dim) {
  if (spec.code_type == CodeType::kMxfp4 && head_dim % kMxfp4Block != 0) {
    return InvalidArgument("{}: head_dim {} is no multiple of MXFP4's block of {}", prefix,
                           head_dim, kMxfp4Block);
  }
  if (spec.group_size < 0 || (spec.group_size > 0 && head_dim % spec.group_size != 0)) {
    return InvalidArgument("{}: group_size {} does not divide head_dim {}", prefix, spec.group_size,
                           head_dim);
  }
  if (spec.transform == Transform::kHadamard && !IsHadamardOrder(head_dim)) {
    return InvalidArgument("{}: no Hadamard matrix of order head_dim {}", prefix, head_dim);
  }
  return absl::OkStatus();
}

void MultiplyRow(const std::vector<float>& matrix, float* row, int size) {
  std::vector<float> product(static_cast<size_t>(size));
  MultiplyRight(row, 1, matrix.data(), size, product.data());
  std::copy(product.begin(), product.end(), row);
}

}  // namespace

absl::StatusOr<CacheQuantizer> CacheQuantizer::Load(const Checkpoint& checkpoint, int layer,
                                                    const CacheSpec& spec, int kv_heads,
                                                    int head_dim, bool is_key) {
  const std::string prefix =
      fmt::format("model.layers.{}.self_attn.{}_cache", layer, is_key ? 'k' : 'v');
  ASSAY_RETURN_IF_ERROR(CheckSizes(spec, prefix, head_dim));
  CacheQuantizer result;
  result.spec_ = spec;
  result.is_key_ = is_key;
  result.kv_heads_ = kv_heads;
  result.head_dim_ = head_dim;
  result.clip_max_ = result.clip_min_ = spec.clip_ratio;
  const int64_t table_shape[] = {kv_heads, head_dim};
  const int64_t matrix_shape[] = {head_dim, head_dim};
  if (spec.learned_clip) {
    const int64_t clip_shape[] = {2};
    ASSAY_ASSIGN_OR_RETURN(const std::vector<float> clip,
                           ReadFiniteFloats(checkpoint, prefix + ".clip", clip_shape));
    if (!(clip[0] > 0) || !(clip[1] > 0)) {
      return InvalidArgument("tensor {}.clip: {} and {}; needed: positive factors", prefix, clip[0],
                             clip[1]);
    }
    result.clip_max_ = clip[0];
    result.clip_min_ = clip[1];
  }
  if (spec.transform == Transform::kMatrix) {
    ASSAY_ASSIGN_OR_RETURN(result.matrix_,
                           ReadFiniteFloats(checkpoint, prefix + ".matrix", matrix_shape));
    if (is_key) {
      ASSAY_ASSIGN_OR_RETURN(result.query_matrix_,
                             ReadFiniteFloats(checkpoint, prefix + ".query_matrix", matrix_shape));
    }
  }
  if (spec.code_type == CodeType::kUniform && spec.granularity == Granularity::kPerChannelStatic) {
    ASSAY_ASSIGN_OR_RETURN(result.scales_,
                           ReadFiniteFloats(checkpoint, prefix + ".scale", table_shape));
    if (!std::ranges::all_of(result.scales_, [](float scale) { return scale > 0; })) {
      return InvalidArgument("tensor {}.scale: a scale is not positive", prefix);
    }
    std::vector<float> zeros(result.scales_.size(), 0.0f);
    if (!spec.symmetric) {
      ASSAY_ASSIGN_OR_RETURN(const TensorView tensor,
                             checkpoint.FindTyped(prefix + ".zero", DType::kU8, table_shape));
      const std::span bytes(reinterpret_cast<const uint8_t*>(tensor.bytes.data()),
                            tensor.bytes.size());
      ASSAY_RETURN_IF_ERROR(CheckZeros(tensor.name, bytes, spec.bit_width));
      std::ranges::copy(bytes, zeros.begin());
    }
    const auto lowest = static_cast<float>(MinCode(spec.bit_width, spec.symmetric));
    const auto highest = static_cast<float>(MaxCode(spec.bit_width, spec.symmetric));
    for (const float zero : zeros) {
      result.lowest_.push_back(lowest - zero);
      result.highest_.push_back(highest - zero);
    }
  }
  return result;
}

void CacheQuantizer::Apply(float* values) const {
  const auto head_dim = static_cast<size_t>(head_dim_);
  const size_t size = static_cast<size_t>(kv_heads_) * head_dim;
  for (size_t at = 0; at < size; at += head_dim) {
    if (spec_.transform == Transform::kHadamard) HadamardTransform({values + at, head_dim});
    if (spec_.transform == Transform::kMatrix) MultiplyRow(matrix_, values + at, head_dim_);
  }
  if (spec_.code_type == CodeType::kNone) return;
  if (spec_.code_type == CodeType::kMxfp4) {
    RoundToMxfp4({values, size}, spec_.ties);
    return;
  }
  if (spec_.granularity == Granularity::kPerChannelStatic) {
    RoundToStaticGrid({values, size}, scales_.data(), lowest_.data(), highest_.data());
    return;
  }
  const GridSpec grid = {.bit_width = spec_.bit_width,
                         .symmetric = spec_.symmetric,
                         .clip_max = clip_max_,
                         .clip_min = clip_min_};
  const size_t group = spec_.group_size == 0 ? head_dim : static_cast<size_t>(spec_.group_size);
  for (size_t at = 0; at < size; at += group) RoundToOwnGrid({values + at, group}, grid);
}

void CacheQuantizer::TransformQuery(float* query) const {
  if (!transforms_queries()) return;
  if (spec_.transform == Transform::kHadamard) {
    HadamardTransform({query, static_cast<size_t>(head_dim_)});
  } else {
    MultiplyRow(query_matrix_, query, head_dim_);
  }
}

CacheQuantizer::Tables CacheQuantizer::tables() const {
  Tables tables = {.clip_max = clip_max_,
                   .clip_min = clip_min_,
                   .scales = scales_,
                   .zeros = {},
                   .matrix = matrix_,
                   .query_matrix = query_matrix_};
  const auto lowest_code = static_cast<float>(MinCode(spec_.bit_width, spec_.symmetric));
  for (const float lowest : lowest_) tables.zeros.push_back(lowest_code - lowest);
  return tables;
}

}  // namespace assay::engine
