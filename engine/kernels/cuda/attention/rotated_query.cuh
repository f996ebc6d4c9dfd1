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
// numbers.
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

// Per KV head: {s1, b1, s2, b2} of pair i, at [(i % 16) * 4 + i / 16]; s times the factor of its
// key pair, b times kUnit.
using KeyGridTable = float4[kHalfDim];

// Filled by the whole block.
template <KvCodes kCodes>
__device__ void FillRotationTable(const RopeTables& rope, RotationTable* table) {
  using C = Codes<kCodes>;
  for (int i = static_cast<int>(threadIdx.x); i < kKvPageTokens * 16;
       i += static_cast<int>(blockDim.x)) {
    const int j = i / 16;
    const int piece = i % 16;
    const int c = piece % 4;
    const float* const from = (piece < 8 ? rope.cosines : rope.sines) + j * kHalfDim + 16 * c;
    uint32_t words[4];
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const int p = piece / 4 % 2 * 4 + w;  // one of the pairs of dims below 64
      words[w] = PackHalves(from[C::PairElement(p, 0)] * kTableUnit,
                            from[C::PairElement(p, 1)] * kTableUnit);
    }
    table->pieces[j][RotationTable::Place(j, piece)] =
        make_uint4(words[0], words[1], words[2], words[3]);
  }
}

// PairFactor of the pair that local element e < 16 is in.
template <KvCodes kCodes>
__host__ __device__ constexpr float ElementFactor(int e) {
  using C = Codes<kCodes>;
  for (int p = 0; p < kPairs / 2; ++p) {
    if (C::PairElement(p, 0) == e || C::PairElement(p, 1) == e) return C::PairFactor(p);
  }
  return 0;
}

// `bias` may be null. All are [kv_heads, head_dim].
template <KvCodes kCodes>
__device__ void FillKeyGrids(const float* scale, const float* zero, const float* bias,
                             int num_kv_heads, KeyGridTable* tables) {
  for (int i = static_cast<int>(threadIdx.x); i < num_kv_heads * kHalfDim;
       i += static_cast<int>(blockDim.x)) {
    const int head = i / kHalfDim;
    const int low = head * kHeadDim + i % kHalfDim;
    const int high = low + kHalfDim;
    const float low_bias = bias == nullptr ? 0 : bias[low];
    const float high_bias = bias == nullptr ? 0 : bias[high];
    const int e = i % 16;
    const float factor = ElementFactor<kCodes>(e);
    tables[head][e * 4 + i % kHalfDim / 16] =
        make_float4(scale[low] * factor, fmaf(-scale[low], zero[low], low_bias) * kUnit,
                    scale[high] * factor, fmaf(-scale[high], zero[high], high_bias) * kUnit);
  }
}

// The weights of a page: B fragments.
struct RotatedQuery {
  uint32_t by_cosine[kPairs];  // of c cos
  uint32_t by_sine[kPairs];    // of c sin
  uint32_t constant_cosine[kPairs / 2];
  uint32_t constant_sine[kPairs / 2];
};

// What scales the weights of a row and head into FP16's range, and the scores back.
struct RotatedScale {
  float up;
  float score_scale;
};

// `raw`: the query's local elements, bf16, as MakeQuery takes them.
template <KvCodes kCodes>
__device__ __forceinline__ RotatedScale ScaleOfRotated(const uint32_t (&raw)[kPairs],
                                                       const float4* grids, int lane) {
  constexpr float kSoftmaxScale = 0.08838834764831845f * 1.4426950408889634f;
  float largest = 0;
#pragma unroll
  for (int e = 0; e < 16; ++e) {
    const float4 grid = grids[e * 4 + lane % 4];
    const uint32_t low = raw[e / 2];
    const uint32_t high = raw[8 + e / 2];
    const float q1 = e % 2 == 0 ? LowBf16(low) : HighBf16(low);
    const float q2 = e % 2 == 0 ? LowBf16(high) : HighBf16(high);
    const float scale = fmaxf(grid.x, grid.z) * (1 / ElementFactor<kCodes>(e));
    largest = fmaxf(largest, (fabsf(q1) + fabsf(q2)) * scale);
  }
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, distance));
  }
  const int exponent = min(max(static_cast<int>(__float_as_uint(largest) >> 23), 27), 230);
  RotatedScale scale;
  scale.up = __uint_as_float(static_cast<uint32_t>(267 - exponent) << 23);
  scale.score_scale = __uint_as_float(static_cast<uint32_t>(exponent - 13) << 23) *
                      (kSoftmaxScale / (kUnit * kTableUnit));
  return scale;
}

// `position` is that of the page's first token.
template <KvCodes kCodes>
__device__ __forceinline__ void RotateQuery(const uint32_t (&raw)[kPairs], const float4* grids,
                                            const RopeTables& rope, int64_t position, float up,
                                            int lane, RotatedQuery* query) {
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
      cosines[which][0] = cosine.x * up, cosines[which][1] = cosine.y * up;
      cosines[which][2] = cosine.z * up, cosines[which][3] = cosine.w * up;
      sines[which][0] = sine.x * up, sines[which][1] = sine.y * up;
      sines[which][2] = sine.z * up, sines[which][3] = sine.w * up;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int p = quad + i;
      float weights[6][2];
#pragma unroll
      for (int which = 0; which < 2; ++which) {
        const int e = C::PairElement(p, which);
        const float4 grid = grids[e * 4 + lane % 4];
        const float q1 = e % 2 == 0 ? LowBf16(raw[e / 2]) : HighBf16(raw[e / 2]);
        const float q2 = e % 2 == 0 ? LowBf16(raw[8 + e / 2]) : HighBf16(raw[8 + e / 2]);
        const float rotated1 = q1 * cosines[which][i] + q2 * sines[which][i];
        const float rotated2 = q2 * cosines[which][i] - q1 * sines[which][i];
        weights[0][which] = rotated1 * grid.x;
        weights[1][which] = rotated2 * grid.z;
        weights[2][which] = rotated2 * grid.x;
        weights[3][which] = -rotated1 * grid.z;
        weights[4][which] = grid.y * rotated1 + grid.w * rotated2;
        weights[5][which] = grid.y * rotated2 - grid.w * rotated1;
      }
      query->by_cosine[p] = PackHalves(weights[0][0], weights[0][1]);
      query->by_cosine[p + 8] = PackHalves(weights[1][0], weights[1][1]);
      query->by_sine[p] = PackHalves(weights[2][0], weights[2][1]);
      query->by_sine[p + 8] = PackHalves(weights[3][0], weights[3][1]);
      query->constant_cosine[p] = PackHalves(weights[4][0], weights[4][1]);
      query->constant_sine[p] = PackHalves(weights[5][0], weights[5][1]);
    }
  }
}

// Scores of the tokens [token, token + 16) of a page: products, not yet scaled.
template <KvCodes kCodes>
__device__ __forceinline__ void ScoreUnrotatedKeys(const uint8_t* codes, int token, int lane,
                                                   const RotationTable& table,
                                                   const RotatedQuery& query, float (&scores)[4]) {
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
    const __half2 product =
        __hmul2(*reinterpret_cast<const __half2*>(&a), *reinterpret_cast<const __half2*>(&b));
    return *reinterpret_cast<const uint32_t*>(&product);
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
#pragma unroll
  for (int p = 0; p < kPairs / 2; p += 2) {
    Mma<false>(scores, angles[0][p], angles[1][p], angles[0][p + 1], angles[1][p + 1],
               query.constant_cosine[p], query.constant_cosine[p + 1]);
    Mma<false>(scores, angles[0][p + 8], angles[1][p + 8], angles[0][p + 9], angles[1][p + 9],
               query.constant_sine[p], query.constant_sine[p + 1]);
  }
}

}  // namespace assay::engine::cuda
