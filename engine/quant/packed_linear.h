// The weight of a linear, from the tensors of an artifact to numbers: the reference decoding of
// description.h's tensor layout, and its inverse for writers.
//
// Shapes: a weight is [out_features, in_features] row-major, y = W x. Codes run along in-features,
// and so do their groups: group g of a row holds code columns [g * width, (g + 1) * width), the
// last group being shorter where width does not divide in_features. With a permutation the groups
// are groups of code columns, and code column j is input column perm[j].
//
// Everything read is checked: what is missing, has another shape or dtype, or holds a value that no
// writer makes (a zero point above the largest code, a scale that is not finite and positive, a
// permutation that is none) is INVALID_ARGUMENT or NOT_FOUND naming the tensor.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/quant/description.h"
#include "engine/quant/uniform.h"
#include "engine/weights/checkpoint.h"

namespace assay::engine {

// Code columns of one scale, and scales of one row. group_size > 0 runs over the whole row whatever
// the shards; -1 is one group per shard. MXFP4: 32.
int64_t GroupWidth(const LinearSpec& spec, int64_t in_features);
int64_t NumGroups(const LinearSpec& spec, int64_t in_features);

// The tensors of a quantized linear as they are stored, checked.
struct PackedLinear {
  std::span<const uint8_t> codes;  // [out_features, row_bytes], in the checkpoint
  size_t row_bytes = 0;
  std::vector<float> scales;         // [out_features, num_groups]; of MXFP4 powers of two
  std::span<const uint8_t> zeros;    // likewise, in the checkpoint; empty for a symmetric grid
  std::vector<int32_t> permutation;  // [in_features]; empty without one
};

// For a spec that quantizes.
absl::StatusOr<PackedLinear> ReadPackedLinear(const Checkpoint& checkpoint,
                                              const std::string& linear, const LinearSpec& spec,
                                              int64_t out_features, int64_t in_features);

// The weight as float32 [out_features, in_features]: dequantized codes in the order of the inputs,
// or L.weight converted when the linear is not quantized. What the linear multiplies is the input
// after its transform.
absl::StatusOr<std::vector<float>> DecodeLinearWeight(const Checkpoint& checkpoint,
                                                      const std::string& linear,
                                                      const LinearSpec& spec, int64_t out_features,
                                                      int64_t in_features);

// INVALID_ARGUMENT naming the tensor and the place when a zero point is above the largest code.
absl::Status CheckZeros(const std::string& tensor, std::span<const uint8_t> zeros, int bit_width);

// The codes of a linear before they are packed; what a method makes.
struct LinearCodes {
  std::vector<uint8_t> codes;        // [out, in]; symmetric: two's complement; E2M1: sign in bit 3
  std::vector<float> scales;         // [out, num_groups]; empty for MXFP4
  std::vector<uint8_t> exponents;    // MXFP4: [out, in / 32], e + 127
  std::vector<uint8_t> zeros;        // [out, num_groups]; asymmetric only
  std::vector<int32_t> permutation;  // [in]; with_permutation only
};

// The tensors of `linear`, packed, appended to `tensors`. The sizes must fit the spec (a bug if
// they do not).
void AppendLinearTensors(const std::string& linear, const LinearSpec& spec,
                         const LinearCodes& codes, int64_t out_features, int64_t in_features,
                         std::vector<TensorToWrite>* tensors);

}  // namespace assay::engine
