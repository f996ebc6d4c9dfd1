#include "engine/kernels/cuda/kv_pages.h"

#include "base/status.h"

namespace assay::engine::cuda {
namespace {

constexpr int kMaxHeadDim = 256;

// The codes of a part, or bf16 where pages have none for the spec.
KvPartLayout PartOf(const CacheSpec& spec, int head_dim) {
  const bool whole_head = spec.group_size == 0 || spec.group_size == head_dim;
  if (spec.code_type != CodeType::kUniform || !whole_head) return {};
  KvPartLayout part;
  using Position = CacheSpec::Position;
  if (spec.granularity == CacheSpec::Granularity::kPerToken) {
    const bool as_multiplied =
        spec.position == Position::kAfterRope || spec.position == Position::kAfterProjection;
    if (!as_multiplied) return {};
    part.params = KvParams::kPerToken;
  } else {
    const bool before_rope =
        spec.position == Position::kBeforeBias || spec.position == Position::kBeforeRope;
    if (!before_rope) return {};
    part.params = KvParams::kPerChannel;
  }
  part.codes = spec.bit_width <= 3   ? KvCodes::k3Bit
               : spec.bit_width <= 4 ? KvCodes::k4Bit
                                     : KvCodes::k8Bit;
  return part;
}

}  // namespace

absl::StatusOr<KvPageLayout> MakeKvPageLayout(const CacheSpec& key, const CacheSpec& value,
                                              int head_dim) {
  if (head_dim < 8 || head_dim > kMaxHeadDim || head_dim % 8 != 0) {
    return InvalidArgument("head_dim {}: pages hold multiples of 8 up to {}", head_dim,
                           kMaxHeadDim);
  }
  return KvPageLayout{
      .head_dim = head_dim, .key = PartOf(key, head_dim), .value = PartOf(value, head_dim)};
}

}  // namespace assay::engine::cuda
