// What happens to the input of a linear before the product: its transform, then its rounding
// (description.h, TransformSpec and InputQuantizerSpec). Both work on
// one row (one token) in place, in float32, and on each of the linear's num_shards equal slices
// separately. A spec with everything at its default does nothing at all.
//
// Thread-safe: immutable after Load.
#pragma once

#include <absl/status/statusor.h>

#include <memory>
#include <string>
#include <vector>

#include "engine/quant/description.h"
#include "engine/weights/checkpoint.h"

namespace assay::engine {

class InputTransform {
 public:
  // The identity.
  InputTransform() = default;

  // Reads the transform's tensors. INVALID_ARGUMENT or NOT_FOUND naming the linear and the tensor
  // when sizes do not fit or a Hadamard order does not exist.
  static absl::StatusOr<InputTransform> Load(const Checkpoint& checkpoint,
                                             const std::string& linear, const LinearSpec& spec,
                                             int in_features);

  bool is_identity() const { return kind_ == TransformSpec::Kind::kNone && diagonal_.empty(); }

  // row: [in_features].
  void Apply(float* row) const;

 private:
  TransformSpec::Kind kind_ = TransformSpec::Kind::kNone;
  int num_shards_ = 1;
  int slice_ = 0;  // inputs of one shard
  int left_size_ = 0;
  int right_size_ = 0;
  std::vector<float> diagonal_;  // [in_features], or empty
  std::vector<float> left_;      // [shards, left, left]; kMatrix: [shards, slice, slice]
  std::vector<float> right_;     // [shards, right, right]
};

// Rounds row [in_features] as spec.input_quantizer says, per shard slice.
void QuantizeInput(float* row, int in_features, const LinearSpec& spec);

// True when two linears with the same input do the same to it (transform by the same tensors, same
// rounding, same shards), so that a backend may do it once: q, k, v and gate, up.
bool SharesInputPath(const std::string& linear_a, const LinearSpec& a, const std::string& linear_b,
                     const LinearSpec& b);

}  // namespace assay::engine
