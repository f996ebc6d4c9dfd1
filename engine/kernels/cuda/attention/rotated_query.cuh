// Scores against keys that are stored before RoPE on a static per-channel grid.
//
// Key dims i and i + 64 are a pair (k1, k2); k = s c + b with codes c and, per channel, scale s and
// b = bias - s * zero. At position n0 + j the score is, with q' = the query rotated back by n0,
//
//   sum_i  cos(j t_i) (k1 q1' + k2 q2')  +  sin(j t_i) (k1 q2' - k2 q1')
//
// which is a product of keys' features {c cos, c sin, cos, sin} with weights made of q', s and b.
// So a page costs one multiplication per code and feature, no rotation and no dequantization of
// keys; the weights are made anew for every page of 64 tokens (n0), and cos and sin of j in 0..63
// stay in shared memory. The constant part, which holds large biases, is apart from the codes.
//
// The codes are FP16 subnormals; cos and sin are stored times 2^15, so that the products are normal
// numbers. Weights are made in FP16 from the rotated query, scales and b, each brought into range
// by a power of two: of a row, and of a KV head.
#pragma once

#include "engine/kernels/cuda/attention/codes.cuh"
#include "engine/kernels/cuda/attention/decode_tile.cuh"
#include "engine/kernels/cuda/kv_write.h"

namespace assay::engine::cuda {

constexpr int kHalfDim = kHeadDim / 2;
constexpr float kTableUnit = 0x1p15f;

// cos and sin of j * frequency i in FP16: row j has 16 pieces of 16 bytes; a thread of column c
// reads the pieces 4 q + c, q in 0..3 (cosines, cosines, sines, sines of its 16 dims i, in the
// order of the key pairs), rows of odd j with halves exchanged, against bank conflicts.
struct RotationTable {
  uint4 pieces[kKvPageTokens][16];

  __device__ static int Place(int j, int piece) { return piece ^ ((j & 1) << 2); }
};

// A KV head's grid in FP16. pairs[4 p + c]: {s1, s2, b1, b2} of the two dims of key pair p < 8 in
// column c; s times PairFactor and the power of two that brings the largest to 8, b likewise.
struct KeyGridTable {
  uint4 pairs[kPairs / 2 * 4];
  float code_scale;      // products of codes over what they stand for, for a query as it is
  float constant_ratio;  // of products of constants: times this they are as those of codes
};

// Filled by the whole block.
template <KvCodes kCodes, int kThreads>
__device__ void FillRotationTable(const RopeTables& rope, RotationTable* table) {
  using C = Codes<kCodes>;
  constexpr int kPieces = kKvPageTokens * 16;
  static_assert(kPieces % kThreads == 0);
#pragma unroll 4  // loads of several pieces at once: this is the kernel's start
  for (int begin = 0; begin < kPieces; begin += kThreads) {
    const int i = begin + static_cast<int>(threadIdx.x);
    const int j = i / 16;
    const int piece = i % 16;
    const int c = piece % 4;
    const int first = piece / 4 % 2 * 4;  // of the pairs of dims below 64
    const float* const from = (piece < 8 ? rope.cosines : rope.sines) + j * kHalfDim + 16 * c;
    const float4 low = __ldg(reinterpret_cast<const float4*>(from + C::PairElement(first, 0)));
    const float4 high = __ldg(reinterpret_cast<const float4*>(from + C::PairElement(first, 1)));
    table->pieces[j][RotationTable::Place(j, piece)] =
        make_uint4(PackHalves(low.x * kTableUnit, high.x * kTableUnit),
                   PackHalves(low.y * kTableUnit, high.y * kTableUnit),
                   PackHalves(low.z * kTableUnit, high.z * kTableUnit),
                   PackHalves(low.w * kTableUnit, high.w * kTableUnit));
  }
}

// 2^(exponent - floor(log2 x)), for x in the range of normal numbers.
__device__ __forceinline__ float PowerToReach(int exponent, float x) {
  const int biased = min(max(static_cast<int>(__float_as_uint(x) >> 23), 40), 230);
  return __uint_as_float(static_cast<uint32_t>(254 + exponent - biased) << 23);
}

__device__ __forceinline__ float WarpMax(float x) {
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, distance));
  }
  return x;
}

// One head by one warp. `bias` may be null. All are [kv_heads, head_dim].
template <KvCodes kCodes>
__device__ void FillKeyGrids(const float* scale, const float* zero, const float* bias, int head,
                             int lane, KeyGridTable* table) {
  using C = Codes<kCodes>;
  float scales[4];  // of dims lane + 32 i
  float constants[4];
  float largest_scale = 0;
  float largest_constant = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int channel = head * kHeadDim + lane + 32 * i;
    scales[i] = scale[channel];
    constants[i] = fmaf(-scales[i], zero[channel], bias == nullptr ? 0.0f : bias[channel]);
    largest_scale = fmaxf(largest_scale, scales[i]);
    largest_constant = fmaxf(largest_constant, fabsf(constants[i]));
  }
  const float scale_up = PowerToReach(3, WarpMax(largest_scale));
  const float constant_up = PowerToReach(3, WarpMax(largest_constant));
  auto* const halves = reinterpret_cast<__half*>(table->pairs);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int dim = lane + 32 * i;
    const int side = dim / kHalfDim;
    const int e = dim % 16;
#pragma unroll
    for (int p = 0; p < kPairs / 2; ++p) {
#pragma unroll
      for (int which = 0; which < 2; ++which) {
        if (C::PairElement(p, which) != e) continue;
        __half* const at = halves + (4 * p + dim % kHalfDim / 16) * 8 + which;
        at[2 * side] = __float2half_rn(scales[i] * (scale_up * C::PairFactor(p)));
        at[4 + 2 * side] = __float2half_rn(constants[i] * constant_up);
      }
    }
  }
  if (lane == 0) {
    table->code_scale = scale_up * (kUnit * kTableUnit);
    table->constant_ratio = scale_up / constant_up * kUnit;
  }
}

// The weights of a page: B fragments.
struct RotatedQuery {
  uint32_t by_cosine[kPairs];  // of c cos
  uint32_t by_sine[kPairs];    // of c sin
  uint32_t constant_cosine[kPairs / 2];
  uint32_t constant_sine[kPairs / 2];
};

// Scales the query's local elements, bf16 as MakeQuery takes them, by a power of two that brings
// rotated ones below 2^10. Returns what makes powers of two of the scores' products.
template <KvCodes kCodes>
__device__ __forceinline__ float ScaleForRotation(const KeyGridTable& grids,
                                                  uint32_t (&raw)[kPairs]) {
  constexpr float kSoftmaxScale = 0.08838834764831845f * 1.4426950408889634f;  // log2 e / sqrt(128)
  float largest = 0;
#pragma unroll
  for (int i = 0; i < kPairs / 2; ++i) {
    largest = fmaxf(largest, fabsf(LowBf16(raw[i])) + fabsf(LowBf16(raw[i + 8])));
    largest = fmaxf(largest, fabsf(HighBf16(raw[i])) + fabsf(HighBf16(raw[i + 8])));
  }
  const float up = PowerToReach(9, WarpMax(largest));
  const __nv_bfloat162 factor = __float2bfloat162_rn(up);
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    const __nv_bfloat162 scaled = __hmul2(*reinterpret_cast<__nv_bfloat162*>(&raw[i]), factor);
    raw[i] = *reinterpret_cast<const uint32_t*>(&scaled);
  }
  return kSoftmaxScale / (up * grids.code_scale);
}

__device__ __forceinline__ __half2 AsHalves(uint32_t pair) {
  return *reinterpret_cast<const __half2*>(&pair);
}
__device__ __forceinline__ uint32_t AsWord(__half2 pair) {
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// `position` is that of the page's first token; `raw` has been scaled.
template <KvCodes kCodes>
__device__ __forceinline__ void RotateQuery(const uint32_t (&raw)[kPairs],
                                            const KeyGridTable& grids, const RopeTables& rope,
                                            int64_t position, int lane, RotatedQuery* query) {
  using C = Codes<kCodes>;
  const int64_t row = position * kHalfDim + lane % 4 * 16;
#pragma unroll
  for (int quad = 0; quad < kPairs / 2; quad += 4) {  // 4 pairs: elements e.. of each side in a row
    float cosines[2][4];
    float sines[2][4];
#pragma unroll
    for (int which = 0; which < 2; ++which) {
      const int64_t from = row + C::PairElement(quad, which);
      const float4 cosine = __ldg(reinterpret_cast<const float4*>(rope.cosines + from));
      const float4 sine = __ldg(reinterpret_cast<const float4*>(rope.sines + from));
      cosines[which][0] = cosine.x, cosines[which][1] = cosine.y;
      cosines[which][2] = cosine.z, cosines[which][3] = cosine.w;
      sines[which][0] = sine.x, sines[which][1] = sine.y;
      sines[which][2] = sine.z, sines[which][3] = sine.w;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int p = quad + i;
      float rotated[2][2];
#pragma unroll
      for (int which = 0; which < 2; ++which) {
        const int e = C::PairElement(p, which);
        const float q1 = e % 2 == 0 ? LowBf16(raw[e / 2]) : HighBf16(raw[e / 2]);
        const float q2 = e % 2 == 0 ? LowBf16(raw[8 + e / 2]) : HighBf16(raw[8 + e / 2]);
        rotated[0][which] = q1 * cosines[which][i] + q2 * sines[which][i];
        rotated[1][which] = q2 * cosines[which][i] - q1 * sines[which][i];
      }
      const __half2 q1 = AsHalves(PackHalves(rotated[0][0], rotated[0][1]));
      const __half2 q2 = AsHalves(PackHalves(rotated[1][0], rotated[1][1]));
      const uint4 grid = grids.pairs[4 * p + lane % 4];
      const __half2 s1 = AsHalves(grid.x);
      const __half2 s2 = AsHalves(grid.y);
      const __half2 b1 = AsHalves(grid.z);
      const __half2 b2 = AsHalves(grid.w);
      query->by_cosine[p] = AsWord(__hmul2(q1, s1));
      query->by_cosine[p + 8] = AsWord(__hmul2(q2, s2));
      query->by_sine[p] = AsWord(__hmul2(q2, s1));
      query->by_sine[p + 8] = AsWord(__hmul2(__hneg2(q1), s2));
      query->constant_cosine[p] = AsWord(__hfma2(b1, q1, __hmul2(b2, q2)));
      query->constant_sine[p] = AsWord(__hfma2(b1, q2, __hmul2(__hneg2(b2), q1)));
    }
  }
}

// Scores of the tokens [token, token + 16) of a page: products, not yet scaled.
template <KvCodes kCodes>
__device__ __forceinline__ void ScoreUnrotatedKeys(const uint8_t* codes, int token, int lane,
                                                   const RotationTable& table,
                                                   const RotatedQuery& query, float constant_ratio,
                                                   float (&scores)[4]) {
  using C = Codes<kCodes>;
  const int c = lane % 4;
  uint32_t codes_of[2][kPairs];
  uint32_t angles[2][kPairs];  // 8 pairs of cosines, 8 of sines
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = token + 8 * half + lane / 4;
    uint32_t raw[C::kRawWords];
    C::LoadKey(codes, row, c, raw);
    C::KeyPairs(raw, codes_of[half]);
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const uint4 piece = table.pieces[row][RotationTable::Place(row, 4 * q + c)];
      angles[half][4 * q] = piece.x;
      angles[half][4 * q + 1] = piece.y;
      angles[half][4 * q + 2] = piece.z;
      angles[half][4 * q + 3] = piece.w;
    }
  }
  const auto times = [](uint32_t a, uint32_t b) {
    return AsWord(__hmul2(AsHalves(a), AsHalves(b)));
  };
#pragma unroll
  for (int i = 0; i < 4; ++i) scores[i] = 0;
#pragma unroll
  for (int p = 0; p < kPairs; p += 2) {
    const int a = p % 8;
    Mma<false>(scores, times(codes_of[0][p], angles[0][a]), times(codes_of[1][p], angles[1][a]),
               times(codes_of[0][p + 1], angles[0][a + 1]),
               times(codes_of[1][p + 1], angles[1][a + 1]), query.by_cosine[p],
               query.by_cosine[p + 1]);
    Mma<false>(scores, times(codes_of[0][p], angles[0][a + 8]),
               times(codes_of[1][p], angles[1][a + 8]), times(codes_of[0][p + 1], angles[0][a + 9]),
               times(codes_of[1][p + 1], angles[1][a + 9]), query.by_sine[p], query.by_sine[p + 1]);
  }
  float constants[4] = {};
#pragma unroll
  for (int p = 0; p < kPairs / 2; p += 2) {
    Mma<false>(constants, angles[0][p], angles[1][p], angles[0][p + 1], angles[1][p + 1],
               query.constant_cosine[p], query.constant_cosine[p + 1]);
    Mma<false>(constants, angles[0][p + 8], angles[1][p + 8], angles[0][p + 9], angles[1][p + 9],
               query.constant_sine[p], query.constant_sine[p + 1]);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) scores[i] = fmaf(constants[i], constant_ratio, scores[i]);
}

}  // namespace assay::engine::cuda
