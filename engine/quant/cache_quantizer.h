// What happens to keys and values on their way into the cache (description.h, CacheSpec):
// transform, then rounding. The cache holds what Apply leaves: values on the grid, in the
// transformed basis.
//
//   K: queries go through TransformQuery, so that (q P^-T)(k P) = q k.
//   V: attention's output is in the transformed basis too, and o_proj's weight holds the inverse.
//
// The caller takes the values at spec.position: before the bias, before RoPE, or after it.
// Thread-safe: immutable after Load.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <vector>

#include "engine/quant/description.h"
#include "engine/weights/checkpoint.h"

namespace assay::engine {

class CacheQuantizer {
 public:
  // Leaves everything as it is.
  CacheQuantizer() = default;

  // Reads the tensors that the spec names for `layer`. INVALID_ARGUMENT or NOT_FOUND naming the
  // tensor when one is missing, misshapen or holds values that no writer makes.
  static absl::StatusOr<CacheQuantizer> Load(const Checkpoint& checkpoint, int layer,
                                             const CacheSpec& spec, int kv_heads, int head_dim,
                                             bool is_key);

  bool is_identity() const {
    return spec_.code_type == CodeType::kNone && spec_.transform == CacheSpec::Transform::kNone;
  }

  // values: [kv_heads, head_dim] of one token.
  void Apply(float* values) const;

  // True when queries must go through TransformQuery (keys only).
  bool transforms_queries() const {
    return is_key_ && spec_.transform != CacheSpec::Transform::kNone;
  }

  // query: [head_dim] of one query head, after RoPE.
  void TransformQuery(float* query) const;

  // What was read, for backends that round by kernels of their own. Empty where the spec has none.
  struct Tables {
    float clip_max = 1;
    float clip_min = 1;
    std::vector<float> scales;  // static: [kv_heads, head_dim]
    std::vector<float> zeros;   // likewise; zeros when symmetric
    std::vector<float> matrix;  // [head_dim, head_dim]
    std::vector<float> query_matrix;
  };
  Tables tables() const;

 private:
  CacheSpec spec_;
  bool is_key_ = false;
  int kv_heads_ = 0;
  int head_dim_ = 0;
  float clip_max_ = 1;
  float clip_min_ = 1;
  std::vector<float> scales_;        // static: [kv_heads, head_dim]
  std::vector<float> lowest_;        // static: smallest and largest code minus the zero point,
  std::vector<float> highest_;       //   [kv_heads, head_dim]
  std::vector<float> matrix_;        // [head_dim, head_dim]: k <- k P
  std::vector<float> query_matrix_;  // [head_dim, head_dim]: q <- q P^-T
};

}  // namespace assay::engine
