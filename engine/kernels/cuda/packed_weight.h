// Weights of 8, 4 or 3 bits as they lie in device memory, and what is done with them.
//
//   w[n, k] = bf16(scale[n, k / 128] * (code[n, k] - zero[n, k / 128]))
//
// scale is float32, code and zero are unsigned integers of 8, 4 or 3 bits, d = code - zero.
//   8 bits   scale d is rounded to float32, then to bf16
//   4, 3     fma(d, high, bf16(d low)) in bf16, where high = bf16(scale), low = bf16(scale - high)
// A weight is thus DecodeLinearWeight's (engine/quant/packed_linear.h) rounded to bf16, bit for bit
// with 8 bits, and with scales of 11 significant bits, those of float16; other scales leave it
// within 0.5 + 2^-7 units of bf16's last place of the exact product (low and its product are
// rounded, each by at most 2^-8 of a unit). Every kernel makes the same 16
// bits of a weight: few rows multiply what they decode in registers (MultiplyPacked), many rows
// decode the weight into memory first (UnpackWeight) and use gemm.h.
//
// Layout: tiles of 64 features by 128 in_features, a row of tiles behind the other, each with its
// codes in the order in which a warpgroup's threads use them (packed_weight.cuh), 64 scales and 64
// zeros. Rows and columns that fill the last tiles decode to zeros. A whole number of double tiles
// (128 features) is allocated.
//
// Bytes a weight: 8 bits 1.04, 4 bits 0.54, 3 bits 0.41.
#pragma once

#include <absl/status/status.h>
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "engine/kernels/cuda/few_rows.h"

namespace assay::engine::cuda {

inline constexpr int kPackedTileFeatures = 64;
inline constexpr int kPackedTileDepth = 128;

// In device memory; the tiles are the owner's.
struct PackedWeight {
  int bit_width = 0;  // 8, 4 or 3
  const uint8_t* tiles = nullptr;
};

constexpr bool IsPackedBitWidth(int bit_width) {
  return bit_width == 8 || bit_width == 4 || bit_width == 3;
}
constexpr int64_t PackedTileBytes(int bit_width) {
  return kPackedTileFeatures * (kPackedTileDepth / 8 * bit_width + 4 + 1);
}
constexpr int64_t PackedWeightBytes(int bit_width, int64_t out_features, int64_t in_features) {
  return (out_features + 2 * kPackedTileFeatures - 1) / (2 * kPackedTileFeatures) * 2 *
         ((in_features + kPackedTileDepth - 1) / kPackedTileDepth) * PackedTileBytes(bit_width);
}

// A part of a linear as description.h lays its tensors out, in device memory.
struct PackWeightArgs {
  const uint8_t* codes = nullptr;  // [features, row_bytes], lowest bits first
  int64_t row_bytes = 0;
  const float* scales = nullptr;   // [features, num_groups]
  const uint8_t* zeros = nullptr;  // [features, num_groups]; null: symmetric, two's complement
  int64_t num_groups = 0;          // in a row of scales and zeros
  int64_t group_width = 0;         // in_features of a group: a multiple of 128
  int64_t first_column = 0;        // of the part: a multiple of 128
  int bit_width = 0;
  int64_t num_features = 0;   // of the part
  int64_t first_feature = 0;  // of the part in the packed weight: a multiple of 64
  int64_t in_features = 0;    // of the part, and of the packed weight
  uint8_t* tiles = nullptr;   // of the packed weight
};

// Fills the tiles of the part's features. INVALID_ARGUMENT for what the layout cannot hold.
absl::Status PackWeight(const PackWeightArgs& args, cudaStream_t stream);

// weight [out_features, in_features], row-major.
absl::Status UnpackWeight(const PackedWeight& packed, int64_t out_features, int64_t in_features,
                          __nv_bfloat16* weight, cudaStream_t stream);

// MultiplyFewRows with the packed weight in place of args.weight. A row's bits do not depend on the
// batch here either, but in_features are summed in chunks, cut by the shape of the weight alone:
// they are not those of cuBLASLt's kernels.
absl::Status MultiplyPacked(const FewRowsArgs& args, const PackedWeight& packed,
                            cudaStream_t stream);

}  // namespace assay::engine::cuda
