// A page of integer codes as FP16 operands of the tensor cores, by a whole block: keys rotated
// where they are stored before RoPE, rounded to bf16 where the CPU rounds them. For kernels in
// which many rows share a page; head_dim 128.
#pragma once

#include <cuda_bf16.h>

#include "engine/kernels/cuda/attention/attention.h"
#include "engine/kernels/cuda/attention/ptx.cuh"

namespace assay::engine::cuda {

constexpr int kOperandBytes = kKvPageTokens * kTensorCoreHeadDim * 2;

// Eight codes of a token's row from dim `dim`, a multiple of 8.
__device__ __forceinline__ void ReadCodes(const uint8_t* part, KvCodes codes, int token, int dim,
                                          float (&out)[8]) {
  const uint8_t* const from = part + PlaceOfCode(codes, token, dim, kTensorCoreHeadDim).byte;
  if (codes == KvCodes::k8Bit) {
    const uint2 words = *reinterpret_cast<const uint2*>(from);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      out[i] = static_cast<float>((i < 4 ? words.x : words.y) >> (8 * (i % 4)) & 0xFF);
    }
  } else if (codes == KvCodes::k4Bit) {
    const uint32_t word = *reinterpret_cast<const uint32_t*>(from);
#pragma unroll
    for (int i = 0; i < 8; ++i) out[i] = static_cast<float>(word >> (4 * i) & 0xF);
  } else {
    const uint32_t lower = *reinterpret_cast<const uint16_t*>(from);
    const CodePlace place = PlaceOfThirdBit(token, dim, kTensorCoreHeadDim);
    // Of dims d.. and d + 64.. alternately, 16 bits.
    const uint32_t third = *reinterpret_cast<const uint16_t*>(part + place.byte) >> place.shift;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      out[i] = static_cast<float>((lower >> (2 * i) & 3) | (third >> (2 * i) & 1) << 2);
    }
  }
}

__device__ __forceinline__ void StoreOperand(uint8_t* operand, int token, int dim,
                                             const float (&x)[8]) {
  const int chunk = SwizzledChunk(token, dim / 8, 256);
  *reinterpret_cast<uint4*>(operand + token * 256 + chunk * 16) =
      make_uint4(PackHalves(x[0], x[1]), PackHalves(x[2], x[3]), PackHalves(x[4], x[5]),
                 PackHalves(x[6], x[7]));
}

__device__ __forceinline__ void DecodeRow(const uint8_t* part, const KvPartLayout& layout,
                                          int token, int dim, float (&x)[8]) {
  const uint32_t grid =
      *reinterpret_cast<const uint32_t*>(part + layout.code_bytes(kTensorCoreHeadDim) + 4 * token);
  const float scale = __uint_as_float(grid & 0xFFFFFF00u);
  const auto zero = static_cast<float>(grid & 0xFF);
  ReadCodes(part, layout.codes, token, dim, x);
#pragma unroll
  for (int i = 0; i < 8; ++i) x[i] = scale * (x[i] - zero);
}

__device__ __forceinline__ void DecodeChannels(const AttentionArgs& args, const uint8_t* part,
                                               int kv_head, int token, int dim, float (&x)[8]) {
  ReadCodes(part, args.cache.layout.key.codes, token, dim, x);
  const int channel = kv_head * kTensorCoreHeadDim + dim;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    x[i] = args.key_scale[channel + i] * (x[i] - args.key_zero[channel + i]);
    if (args.key_bias == nullptr) continue;
    x[i] = __bfloat162float(__float2bfloat16_rn(x[i] + args.key_bias[channel + i]));
  }
}

// Dims dim.. and dim + 64.. of a key before RoPE, rotated to `position`.
__device__ __forceinline__ void DecodeRotated(const AttentionArgs& args, const uint8_t* part,
                                              int kv_head, int token, int dim, int64_t position,
                                              float (&low)[8], float (&high)[8]) {
  constexpr int kHalf = kTensorCoreHeadDim / 2;
  DecodeChannels(args, part, kv_head, token, dim, low);
  DecodeChannels(args, part, kv_head, token, dim + kHalf, high);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float cosine = args.rope.cosines[position * kHalf + dim + i];
    const float sine = args.rope.sines[position * kHalf + dim + i];
    const float a = low[i];
    const float b = high[i];
    low[i] = __bfloat162float(__float2bfloat16_rn(a * cosine - b * sine));
    high[i] = __bfloat162float(__float2bfloat16_rn(b * cosine + a * sine));
  }
}

// `page` lies in shared memory, as do the operands: 64 rows of 256 bytes, swizzled as bf16 pages.
// Tokens from `num_valid` on become zeros.
template <int kThreads>
__device__ void DecodePage(const AttentionArgs& args, const uint8_t* page, int kv_head,
                           int first_position, int num_valid, uint8_t* keys, uint8_t* values) {
  constexpr int kHalf = kTensorCoreHeadDim / 2;
  constexpr int kPieces = kHalf / 8;  // of 8 dims in the lower half of a row
  const KvPageLayout& layout = args.cache.layout;
  const uint8_t* const value_part = page + layout.value_offset();
  for (int i = static_cast<int>(threadIdx.x); i < kKvPageTokens * kPieces; i += kThreads) {
    const int token = i / kPieces;
    const int dim = i % kPieces * 8;
    float low[8] = {};
    float high[8] = {};
    if (token < num_valid) {
      if (layout.key.params == KvParams::kPerChannel) {
        DecodeRotated(args, page, kv_head, token, dim, first_position + token, low, high);
      } else {
        DecodeRow(page, layout.key, token, dim, low);
        DecodeRow(page, layout.key, token, dim + kHalf, high);
      }
    }
    StoreOperand(keys, token, dim, low);
    StoreOperand(keys, token, dim + kHalf, high);
    if (token < num_valid) {
      DecodeRow(value_part, layout.value, token, dim, low);
      DecodeRow(value_part, layout.value, token, dim + kHalf, high);
    }
    StoreOperand(values, token, dim, low);
    StoreOperand(values, token, dim + kHalf, high);
  }
}

}  // namespace assay::engine::cuda
