// What a warp of the decode kernel keeps of one (row, KV head), and how a tile of tokens enters it.
//
// Scores are made transposed, keys [16 tokens] times queries [8 heads], so that a GQA group of any
// size up to 8 costs the same and the cache is the operand that streams. Thread (r, c) has the
// scores of tokens r and r + 8 for heads 2c and 2c + 1, in powers of two:
//
//   K per token      x = s_t (q.k_int - z_t sum(q))          the grid is folded out of the product
//   K before RoPE    see rotated_query.cuh
//
// Values enter as integers too: with p_t = 2^x_t and the value's grid (s, z) of its own,
//
//   output = sum_t p_t s_t (v_int - z_t) / sum_t p_t
//
// P'_t = p_t s_t is one exponential, of x_t + log2 s_t; the running maximum is taken over that sum,
// so that P' fits FP16 whatever the scales are. sum_t P'_t z_t and sum_t P'_t / s_t are carried as
// scalars, from the P' that was rounded to FP16 for the product, so that a rounding error moves
// weight between tokens but does not meet the zero points.
#pragma once

#include <cmath>

#include "engine/kernels/cuda/attention/codes.cuh"

namespace assay::engine::cuda {

constexpr unsigned kAllLanes = 0xFFFFFFFFu;
constexpr int kMaxGroup = 8;  // heads of a GQA group: the columns of an MMA

// P' is at most 2^kTopExponent: below FP16's largest, and far above its subnormals.
constexpr float kTopExponent = 15;
constexpr uint32_t kNeutralGrid = 0x3F800000;  // scale 1, zero 0

__device__ __forceinline__ float GridScale(uint32_t grid) {
  return __uint_as_float(grid & 0xFFFFFF00u);
}
__device__ __forceinline__ float GridZero(uint32_t grid) {
  // 2^23 + zero, exactly.
  return __uint_as_float((grid & 0xFFu) | 0x4B000000u) - 0x1p23f;
}

// The query of a GQA group as B fragments, and what undoes its scaling.
struct QueryFragments {
  uint32_t pairs[kPairs];
  float sums[2];      // of heads 2c and 2c + 1, in units of the products: times a zero point
  float score_scale;  // from products to powers of two
};

// How the sums of consecutive parts of a context become those of both.
struct PartFactors {
  float max;
  float before;
  float part;

  __device__ PartFactors(float max_before, float max_part)
      : max(fmaxf(max_before, max_part)),
        before(Exp2(max_before - max)),
        part(Exp2(max_part - max)) {}
  __device__ float Add(float sum_before, float sum_of_part) const {
    return __fmaf_rn(sum_of_part, part, __fmul_rn(sum_before, before));
  }
};

struct SoftmaxState {
  float output[kValueTiles][4];  // MMA accumulators: rows are dims, columns heads
  float max[2];                  // of x + log2 s; of heads 2c, 2c + 1
  float sum[2];                  // of p, this thread's tokens
  float zero_sum[2];             // of P' z, likewise

  __device__ void Reset() {
#pragma unroll
    for (int m = 0; m < kValueTiles; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) output[m][i] = 0;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      max[i] = -INFINITY;
      sum[i] = 0;
      zero_sum[i] = 0;
    }
  }

  // Raises the maxima to those of a tile, whose `tile_max` differ between threads.
  __device__ void Raise(float (&tile_max)[2]) {
    bool grows = false;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int distance = 4; distance < 32; distance *= 2) {
        tile_max[i] = fmaxf(tile_max[i], __shfl_xor_sync(kAllLanes, tile_max[i], distance));
      }
      tile_max[i] = fmaxf(tile_max[i], max[i]);
      grows = grows || tile_max[i] > max[i];
    }
    // Multiplying by one would change nothing: skipping it neither.
    if (!__any_sync(kAllLanes, grows)) return;
    float factor[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      factor[i] = Exp2(max[i] - tile_max[i]);
      max[i] = tile_max[i];
      sum[i] *= factor[i];
      zero_sum[i] *= factor[i];
    }
#pragma unroll
    for (int m = 0; m < kValueTiles; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) output[m][i] *= factor[i % 2];
    }
  }

  // The part behind `num_before` ones, which are here; its sums are reduced. For bf16, which has no
  // zero_sum.
  __device__ void AddPart(const SoftmaxState& next, int num_before) {
    if (num_before == 0) {
      *this = next;
      return;
    }
    const PartFactors factors[2] = {{max[0], next.max[0]}, {max[1], next.max[1]}};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      max[i] = factors[i].max;
      sum[i] = factors[i].Add(sum[i], next.sum[i]);
    }
#pragma unroll
    for (int m = 0; m < kValueTiles; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        output[m][i] = factors[i % 2].Add(output[m][i], next.output[m][i]);
    }
  }

  // Makes sum and zero_sum those of all tokens, in every thread.
  __device__ void ReduceSums() {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int distance = 4; distance < 32; distance *= 2) {
        sum[i] += __shfl_xor_sync(kAllLanes, sum[i], distance);
        zero_sum[i] += __shfl_xor_sync(kAllLanes, zero_sum[i], distance);
      }
    }
  }
};

// Scores of 16 tokens against the query: products, not yet scaled.
template <KvCodes kCodes>
__device__ __forceinline__ void ScoreKeys(const uint8_t* codes, int token, int lane,
                                          const uint32_t (&query)[kPairs], float (&scores)[4]) {
  using C = Codes<kCodes>;
  const int r = lane / 4;
  const int c = lane % 4;
  uint32_t raw[2][C::kRawWords];
  C::LoadKey(codes, token + r, c, raw[0]);
  C::LoadKey(codes, token + r + 8, c, raw[1]);
  uint32_t first[kPairs];
  uint32_t second[kPairs];
  C::KeyPairs(raw[0], first);
  C::KeyPairs(raw[1], second);
#pragma unroll
  for (int i = 0; i < 4; ++i) scores[i] = 0;
#pragma unroll
  for (int p = 0; p < kPairs; p += 2) {
    Mma<C::kIsBf16>(scores, first[p], second[p], first[p + 1], second[p + 1], query[p],
                    query[p + 1]);
  }
}

// The query of one row: `raw` is bf16, local elements of column c of head r (zeros beyond the
// group). bf16 caches take it as it is; integer ones in FP16, scaled by a power of two such that
// nothing overflows, which rounds nothing that matters: bf16 has fewer bits.
template <KvCodes kCodes>
__device__ __forceinline__ void MakeQuery(const uint32_t (&raw)[kPairs], int lane,
                                          QueryFragments* query) {
  using C = Codes<kCodes>;
  constexpr float kSoftmaxScale = 0.08838834764831845f * 1.4426950408889634f;  // log2 e / sqrt(128)
  if constexpr (C::kIsBf16) {
#pragma unroll
    for (int p = 0; p < kPairs; ++p) query->pairs[p] = raw[p];
    query->score_scale = kSoftmaxScale;
  } else {
    float largest = 0;
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      largest = fmaxf(largest, fmaxf(fabsf(LowBf16(raw[p])), fabsf(HighBf16(raw[p]))));
    }
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, distance));
    }
    // 2^(13 - exponent of the largest), for exponents of any normal number.
    const int exponent = max(static_cast<int>(__float_as_uint(largest) >> 23), 27);
    const float up = __uint_as_float(static_cast<uint32_t>(267 - exponent) << 23);
    const float down = __uint_as_float(static_cast<uint32_t>(exponent - 13) << 23);
    float sum = 0;
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      float pair[2];
#pragma unroll
      for (int which = 0; which < 2; ++which) {
        const int e = C::PairElement(p, which);
        const float q = e % 2 == 0 ? LowBf16(raw[e / 2]) : HighBf16(raw[e / 2]);
        pair[which] = q * (up * C::PairFactor(p));
      }
      query->pairs[p] = PackHalves(pair[0], pair[1]);
      const float2 rounded = UnpackHalves(query->pairs[p]);
      sum += (rounded.x + rounded.y) * (kUnit / C::PairFactor(p));
    }
    sum += __shfl_xor_sync(kAllLanes, sum, 1);
    sum += __shfl_xor_sync(kAllLanes, sum, 2);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      query->sums[i] = __shfl_sync(kAllLanes, sum, (2 * (lane % 4) + i) * 4);
    }
    query->score_scale = kSoftmaxScale * down * (1 / kUnit);
  }
}

// Adds `kTokens` tokens to the state. `scores`: products of ScoreKeys by 16 tokens; `key_grids`
// (null: none) and `value_grids` lie in shared memory. Tokens from `num_valid` on are left out.
template <KvCodes kCodes, int kTokens, bool kKeyGrids>
__device__ __forceinline__ void AddTile(float (&scores)[kTokens / 16][4], int num_valid, int lane,
                                        const QueryFragments& query, const uint32_t* key_grids,
                                        const uint32_t* value_grids, const uint8_t* value_codes,
                                        SoftmaxState* state) {
  using C = Codes<kCodes>;
  constexpr int kTiles = kTokens / 16;
  const int r = lane / 4;
  uint32_t grids[kTiles][2];
  float tile_max[2] = {-INFINITY, -INFINITY};
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int token = 16 * t + 8 * half + r;
      const bool valid = token < num_valid;
      float scale = query.score_scale;
      float zero = 0;
      float log_scale = 0;
      if constexpr (kKeyGrids) {
        const uint32_t grid = key_grids[token];
        scale *= GridScale(grid);
        zero = GridZero(grid);
      }
      if constexpr (!C::kIsBf16) {
        grids[t][half] = valid ? value_grids[token] : kNeutralGrid;
        log_scale = Log2(GridScale(grids[t][half]));
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& score = scores[t][2 * half + i];
        if constexpr (kKeyGrids) score = fmaf(-zero, query.sums[i], score);
        score = C::kIsBf16 ? score * scale : fmaf(score, scale, log_scale);
        score = valid ? score : -INFINITY;
        tile_max[i] = fmaxf(tile_max[i], score);
      }
    }
  }
  state->Raise(tile_max);

  float subtrahend[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) subtrahend[i] = state->max[i] - (C::kIsBf16 ? 0 : kTopExponent);
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    uint32_t weights[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float p0 = Exp2(scores[t][2 * half] - subtrahend[0]);
      const float p1 = Exp2(scores[t][2 * half + 1] - subtrahend[1]);
      if constexpr (C::kIsBf16) {
        weights[half] = PackBf16(p0, p1);
        state->sum[0] += LowBf16(weights[half]);
        state->sum[1] += HighBf16(weights[half]);
      } else {
        weights[half] = PackHalves(p0, p1);
        const float2 rounded = UnpackHalves(weights[half]);
        const float inverse = Reciprocal(GridScale(grids[t][half]));
        const float zero = GridZero(grids[t][half]);
        state->sum[0] = fmaf(rounded.x, inverse, state->sum[0]);
        state->sum[1] = fmaf(rounded.y, inverse, state->sum[1]);
        state->zero_sum[0] = fmaf(rounded.x, zero, state->zero_sum[0]);
        state->zero_sum[1] = fmaf(rounded.y, zero, state->zero_sum[1]);
      }
    }
    const uint32_t b0 = Transposed(weights[0]);
    const uint32_t b1 = Transposed(weights[1]);
    // A bf16 value that nobody wrote may be a NaN, which zero weight does not silence. Tokens 2c
    // and 2c + 1 are the halves of a0 and a1, and 8 more of a2 and a3.
    const int left = num_valid - 16 * t - 2 * (lane % 4);
    const bool masks = C::kIsBf16 && num_valid < kTokens;
    const auto mask_of = [](int count) {
      return count >= 2 ? 0xFFFFFFFFu : count == 1 ? 0xFFFFu : 0u;
    };
    const uint32_t first_mask = masks ? mask_of(left) : 0xFFFFFFFFu;
    const uint32_t second_mask = masks ? mask_of(left - 8) : 0xFFFFFFFFu;
    C::ForEachValueTile(value_codes, 16 * t, lane,
                        [&](int m, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3) {
                          if constexpr (C::kIsBf16) {
                            a0 &= first_mask;
                            a1 &= first_mask;
                            a2 &= second_mask;
                            a3 &= second_mask;
                          }
                          Mma<C::kIsBf16>(state->output[m], a0, a1, a2, a3, b0, b1);
                        });
  }
}

}  // namespace assay::engine::cuda
