#include "engine/quant/input_path.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/status.h"
#include "engine/quant/matrix.h"
#include "engine/quant/uniform.h"

namespace assay::engine {
namespace {

using Kind = TransformSpec::Kind;

const std::string& OwnerOf(const std::string& linear, const TransformSpec& transform) {
  return transform.owner.empty() ? linear : transform.owner;
}

// [size, size] for each shard; one shard has no leading dimension.
absl::StatusOr<std::vector<float>> ReadMatrices(const Checkpoint& checkpoint,
                                                const std::string& name, int num_shards,
                                                int64_t size) {
  std::vector<int64_t> shape = {size, size};
  if (num_shards > 1) shape.insert(shape.begin(), num_shards);
  return ReadFiniteFloats(checkpoint, name, shape);
}

// The rounding of one slice; `shard` picks learned clip factors.
void RoundSlice(std::span<float> slice, size_t shard, const InputQuantizerSpec& spec) {
  if (spec.code_type == CodeType::kMxfp4) {
    RoundToMxfp4(slice, spec.ties);
    return;
  }
  const bool learned = !spec.clip_max.empty();
  RoundToOwnGrid(slice, {.bit_width = spec.bit_width,
                         .symmetric = spec.symmetric,
                         .clip_max = learned ? spec.clip_max[shard] : spec.clip_ratio,
                         .clip_min = learned ? spec.clip_min[shard] : spec.clip_ratio});
}

}  // namespace

absl::StatusOr<InputTransform> InputTransform::Load(const Checkpoint& checkpoint,
                                                    const std::string& linear,
                                                    const LinearSpec& spec, int in_features) {
  const TransformSpec& transform = spec.input_transform;
  InputTransform result;
  result.kind_ = transform.kind;
  result.num_shards_ = spec.num_shards;
  if (spec.num_shards < 1 || in_features % spec.num_shards != 0) {
    return InvalidArgument("{}: {} inputs do not divide over {} shards", linear, in_features,
                           spec.num_shards);
  }
  result.slice_ = in_features / spec.num_shards;
  result.left_size_ = transform.left;
  result.right_size_ = transform.right;
  const std::string prefix = OwnerOf(linear, transform) + ".transform.";
  if (transform.with_diagonal) {
    const int64_t shape[] = {in_features};
    ASSAY_ASSIGN_OR_RETURN(result.diagonal_,
                           ReadFiniteFloats(checkpoint, prefix + "diagonal", shape));
  }
  if (transform.kind == Kind::kHadamard && !IsHadamardOrder(result.slice_)) {
    return InvalidArgument("{}: no Hadamard matrix of order {}", linear, result.slice_);
  }
  if (transform.kind == Kind::kKronecker || transform.kind == Kind::kHeadMix) {
    if (int64_t{transform.left} * transform.right != result.slice_) {
      return InvalidArgument("{}: a transform of {} x {} does not fit {} inputs a shard", linear,
                             transform.left, transform.right, result.slice_);
    }
    ASSAY_ASSIGN_OR_RETURN(
        result.left_, ReadMatrices(checkpoint, prefix + "left", spec.num_shards, transform.left));
  }
  if (transform.kind == Kind::kKronecker) {
    ASSAY_ASSIGN_OR_RETURN(result.right_, ReadMatrices(checkpoint, prefix + "right",
                                                       spec.num_shards, transform.right));
  }
  if (transform.kind == Kind::kMatrix) {
    ASSAY_ASSIGN_OR_RETURN(
        result.left_, ReadMatrices(checkpoint, prefix + "matrix", spec.num_shards, result.slice_));
  }
  return result;
}

void InputTransform::Apply(float* row) const {
  for (size_t i = 0; i < diagonal_.size(); ++i) row[i] *= diagonal_[i];
  if (kind_ == Kind::kNone) return;
  const auto slice = static_cast<size_t>(slice_);
  std::vector<float> product(slice);
  for (size_t shard = 0; shard < static_cast<size_t>(num_shards_); ++shard) {
    float* const x = row + shard * slice;
    const float* const left =
        left_.data() + shard * left_.size() / static_cast<size_t>(num_shards_);
    const float* const right =
        right_.data() + shard * right_.size() / static_cast<size_t>(num_shards_);
    switch (kind_) {
      case Kind::kNone:
        break;
      case Kind::kHadamard:
        HadamardTransform({x, slice});
        break;
      case Kind::kKronecker:
        MultiplyRight(x, left_size_, right, right_size_, product.data());
        MultiplyLeftTransposed(left, left_size_, product.data(), right_size_, x);
        break;
      case Kind::kMatrix:
        MultiplyRight(x, 1, left, slice_, product.data());
        std::copy(product.begin(), product.end(), x);
        break;
      case Kind::kHeadMix:
        MultiplyLeftTransposed(left, left_size_, x, right_size_, product.data());
        std::copy(product.begin(), product.end(), x);
        break;
    }
  }
}

void QuantizeInput(float* row, int in_features, const LinearSpec& spec) {
  if (spec.input_quantizer.code_type == CodeType::kNone) return;
  const auto num_shards = static_cast<size_t>(spec.num_shards);
  const size_t slice = static_cast<size_t>(in_features) / num_shards;
  for (size_t shard = 0; shard < num_shards; ++shard) {
    RoundSlice({row + shard * slice, slice}, shard, spec.input_quantizer);
  }
}

bool SharesInputPath(const std::string& linear_a, const LinearSpec& a, const std::string& linear_b,
                     const LinearSpec& b) {
  if (a.num_shards != b.num_shards || a.input_quantizer != b.input_quantizer) return false;
  TransformSpec transform_a = a.input_transform;
  TransformSpec transform_b = b.input_transform;
  const bool has_tensors = transform_a.with_diagonal ||
                           (transform_a.kind != Kind::kNone && transform_a.kind != Kind::kHadamard);
  if (has_tensors && OwnerOf(linear_a, transform_a) != OwnerOf(linear_b, transform_b)) return false;
  transform_a.owner.clear();
  transform_b.owner.clear();
  return transform_a == transform_b;
}

}  // namespace assay::engine
