// From packed codes in shared memory to operands of the tensor cores, head_dim 128.
//
// An integer n < 1024 in the low bits of a 16-bit half is the FP16 number n * 2^-24 (a subnormal,
// or just above), which HMMA multiplies exactly. So masking out two fields of a word, 16 bits
// apart, makes two operands in one instruction; a field that lies s bits up is 2^s too large, which
// goes into what it is multiplied by (keys: the query) or into the result (values: output rows).
// Instructions per code: 8 bits 0.5, 4 bits 0.63, 3 bits 1.2.
//
// Keys are rows of A: thread (r, c) holds 32 dims of tokens r and r + 8, as 16 pairs. Which 32
// dims, and which two make a pair, is free as long as the query is taken alike:
//
//   local element e of column c:  bf16  dim 32 (e / 8) + 8 c + e % 8
//                                 codes dim 64 (e / 16) + 16 c + e % 16
//   pair p holds local elements PairElement(p, 0) and PairElement(p, 1), times PairFactor(p)
//
// Values are columns, transposed on the way by ldmatrix: a 16-bit element holds 1, 2, 4 or 8
// neighbouring dims of a token. Row tile m of the transposed values, rows r and r + 8, are the dims
// ValueDim(m, 0, r) and ValueDim(m, 1, r), times ValueFactor(m, half).
#pragma once

#include "engine/kernels/cuda/attention/ptx.cuh"
#include "engine/kernels/cuda/kv_pages.h"

namespace assay::engine::cuda {

constexpr int kHeadDim = kTensorCoreHeadDim;
constexpr int kPairs = 16;         // of a thread's 32 dims
constexpr int kValueTiles = 8;     // of 16 dims
constexpr float kUnit = 0x1p-24f;  // what code 1 is as an operand

// One over 2^exponent.
__host__ __device__ constexpr float NegativePower(int exponent) {
  return 1.0f / static_cast<float>(1 << exponent);
}

// Two fields of a word that are 16 bits apart.
__device__ __forceinline__ constexpr uint32_t Both(uint32_t mask) { return mask | mask << 16; }

// Of each 64 bytes of a row, column c's 16.
template <int kWords>
__device__ __forceinline__ void LoadQuarters(const uint8_t* codes, int row, int c,
                                             uint32_t (&raw)[kWords]) {
  constexpr int kRowBytes = 4 * kWords * 4;  // of four columns
#pragma unroll
  for (int i = 0; i < kWords / 4; ++i) {
    const int chunk = SwizzledChunk(row, 4 * i + c, kRowBytes);
    const uint4 words = *reinterpret_cast<const uint4*>(codes + row * kRowBytes + chunk * 16);
    raw[4 * i] = words.x;
    raw[4 * i + 1] = words.y;
    raw[4 * i + 2] = words.z;
    raw[4 * i + 3] = words.w;
  }
}

template <KvCodes kCodes>
struct Codes;

template <>
struct Codes<KvCodes::kBf16> {
  static constexpr bool kIsBf16 = true;
  static constexpr int kRawWords = 16;
  static constexpr int kDimsPerHalf = 1;

  __host__ __device__ static constexpr int Dim(int e, int c) { return e / 8 * 32 + 8 * c + e % 8; }
  __host__ __device__ static constexpr int PairElement(int p, int which) { return 2 * p + which; }
  __host__ __device__ static constexpr float PairFactor(int) { return 1; }

  // `codes` is the first byte of the tile's rows.
  __device__ static void LoadKey(const uint8_t* codes, int row, int c, uint32_t (&raw)[kRawWords]) {
    LoadQuarters(codes, row, c, raw);
  }

  __device__ static void KeyPairs(const uint32_t (&raw)[kRawWords], uint32_t (&pairs)[kPairs]) {
#pragma unroll
    for (int p = 0; p < kPairs; ++p) pairs[p] = raw[p];
  }

  // Calls multiply(m, a0, a1, a2, a3) for the row tiles of 16 tokens from `token` on.
  template <typename Multiply>
  __device__ static void ForEachValueTile(const uint8_t* codes, int token, int lane,
                                          const Multiply& multiply) {
    const int row = token + lane % 8 + (lane & 16) / 2;
    const uint32_t row_address = SharedAddress(codes + row * 256);
#pragma unroll
    for (int m = 0; m < kValueTiles; ++m) {
      const int chunk = SwizzledChunk(row, 2 * m + (lane >> 3 & 1), 256);
      uint32_t a[4];
      LoadTransposed(a, row_address + static_cast<uint32_t>(chunk * 16));
      multiply(m, a[0], a[1], a[2], a[3]);
    }
  }
};

template <>
struct Codes<KvCodes::k8Bit> {
  static constexpr bool kIsBf16 = false;
  static constexpr int kRawWords = 8;
  static constexpr int kDimsPerHalf = 2;

  __host__ __device__ static constexpr int Dim(int e, int c) {
    return e / 16 * 64 + 16 * c + e % 16;
  }
  __host__ __device__ static constexpr int PairElement(int p, int which) {
    return p / 2 * 4 + p % 2 + 2 * which;
  }
  __host__ __device__ static constexpr float PairFactor(int) { return 1; }

  __device__ static uint32_t Even(uint32_t word) { return word & Both(0xFF); }
  __device__ static uint32_t Odd(uint32_t word) { return __byte_perm(word, 0, 0x4341); }

  __device__ static void LoadKey(const uint8_t* codes, int row, int c, uint32_t (&raw)[kRawWords]) {
    LoadQuarters(codes, row, c, raw);
  }

  __device__ static void KeyPairs(const uint32_t (&raw)[kRawWords], uint32_t (&pairs)[kPairs]) {
#pragma unroll
    for (int w = 0; w < kRawWords; ++w) {
      pairs[2 * w] = Even(raw[w]);
      pairs[2 * w + 1] = Odd(raw[w]);
    }
  }

  template <typename Multiply>
  __device__ static void ForEachValueTile(const uint8_t* codes, int token, int lane,
                                          const Multiply& multiply) {
    const int row = token + lane % 16;
    const uint32_t row_address = SharedAddress(codes + row * 128);
#pragma unroll
    for (int m = 0; m < kValueTiles; m += 2) {
      const int chunk = SwizzledChunk(row, m + lane / 16, 128);
      uint32_t v[4];
      LoadTransposed(v, row_address + static_cast<uint32_t>(chunk * 16));
      multiply(m, Even(v[0]), Odd(v[0]), Even(v[1]), Odd(v[1]));
      multiply(m + 1, Even(v[2]), Odd(v[2]), Even(v[3]), Odd(v[3]));
    }
  }
};

template <>
struct Codes<KvCodes::k4Bit> {
  static constexpr bool kIsBf16 = false;
  static constexpr int kRawWords = 4;
  static constexpr int kDimsPerHalf = 4;

  __host__ __device__ static constexpr int Dim(int e, int c) {
    return e / 16 * 64 + 16 * c + e % 16;
  }
  __host__ __device__ static constexpr int PairElement(int p, int which) {
    return p / 4 * 8 + p % 4 + 4 * which;
  }
  __host__ __device__ static constexpr float PairFactor(int p) {
    return NegativePower(4 * (p % 2));
  }

  __device__ static void LoadKey(const uint8_t* codes, int row, int c, uint32_t (&raw)[kRawWords]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int chunk = SwizzledChunk(row, 2 * i + c / 2, 64);
      const uint2 words =
          *reinterpret_cast<const uint2*>(codes + row * 64 + chunk * 16 + c % 2 * 8);
      raw[2 * i] = words.x;
      raw[2 * i + 1] = words.y;
    }
  }

  __device__ static void KeyPairs(const uint32_t (&raw)[kRawWords], uint32_t (&pairs)[kPairs]) {
#pragma unroll
    for (int w = 0; w < kRawWords; ++w) {
      const uint32_t upper = raw[w] >> 8;
      pairs[4 * w] = raw[w] & Both(0x0F);
      pairs[4 * w + 1] = raw[w] & Both(0xF0);
      pairs[4 * w + 2] = upper & Both(0x0F);
      pairs[4 * w + 3] = upper & Both(0xF0);
    }
  }

  template <typename Multiply>
  __device__ static void ForEachValueTile(const uint8_t* codes, int token, int lane,
                                          const Multiply& multiply) {
    constexpr uint32_t kLow = Both(0x0F);
    constexpr uint32_t kHigh = Both(0xF0);
    const int row = token + lane % 16;
    const uint32_t row_address = SharedAddress(codes + row * 64);
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      const int chunk = SwizzledChunk(row, 2 * pair + lane / 16, 64);
      uint32_t v[4];
      LoadTransposed(v, row_address + static_cast<uint32_t>(chunk * 16));
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int m = 4 * pair + 2 * i;
        const uint32_t first = v[2 * i];
        const uint32_t second = v[2 * i + 1];
        multiply(m, first & kLow, first & kHigh, second & kLow, second & kHigh);
        const uint32_t upper_first = first >> 8;
        const uint32_t upper_second = second >> 8;
        multiply(m + 1, upper_first & kLow, upper_first & kHigh, upper_second & kLow,
                 upper_second & kHigh);
      }
    }
  }
};

template <>
struct Codes<KvCodes::k3Bit> {
  static constexpr bool kIsBf16 = false;
  static constexpr int kRawWords = 3;  // lower bits of dims 16 c.., of 64 + 16 c.., third bits
  static constexpr int kDimsPerHalf = 8;

  __host__ __device__ static constexpr int Dim(int e, int c) {
    return e / 16 * 64 + 16 * c + e % 16;
  }
  __host__ __device__ static constexpr int PairElement(int p, int which) {
    return p / 8 * 16 + p % 8 + 8 * which;
  }
  __host__ __device__ static constexpr float PairFactor(int p) {
    return NegativePower(2 * (p % 4));
  }

  // The third bits of fields 0..3 (upper: 4..7) of plane word k, at bits 2, 4, 6, 8 of each half.
  __device__ static uint32_t Aligned(uint32_t third, int k, bool upper) {
    return upper ? third >> (6 + k) : third << (2 - k);
  }

  // Field n of 8 of a word of lower bits whose third bits are `aligned`.
  __device__ static uint32_t Field(uint32_t lower, uint32_t aligned, int n) {
    const int shift = 2 * (n % 4);
    return (lower & Both(3u << shift)) | (aligned & Both(4u << shift));
  }

  __device__ static void LoadKey(const uint8_t* codes, int row, int c, uint32_t (&raw)[kRawWords]) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const int chunk = SwizzledChunk(row, k, 32);
      raw[k] = *reinterpret_cast<const uint32_t*>(codes + row * 32 + chunk * 16 + c * 4);
    }
    raw[2] = *reinterpret_cast<const uint32_t*>(codes + kKvPageTokens * 32 + row * 16 + c * 4);
  }

  __device__ static void KeyPairs(const uint32_t (&raw)[kRawWords], uint32_t (&pairs)[kPairs]) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const bool upper = n >= 4;
        pairs[8 * k + n] = Field(upper ? raw[k] >> 8 : raw[k], Aligned(raw[2], k, upper), n);
      }
    }
  }

  template <typename Multiply>
  __device__ static void ForEachValueTile(const uint8_t* codes, int token, int lane,
                                          const Multiply& multiply) {
    const int row = token + lane % 16;
    const int chunk = SwizzledChunk(row, lane / 16, 32);
    uint32_t lower[4];  // tokens 0..7 and 8..15 of dims below 64, then of dims from 64 on
    LoadTransposed(lower, SharedAddress(codes + row * 32 + chunk * 16));
    uint32_t third[2];
    LoadTransposed(third, SharedAddress(codes + kKvPageTokens * 32 + row * 16));
#pragma unroll
    for (int k = 0; k < 2; ++k) {
#pragma unroll
      for (int u = 0; u < 4; ++u) {
        const bool upper = u >= 2;
        uint32_t a[4];
#pragma unroll
        for (int i = 0; i < 2; ++i) {  // tokens
          const uint32_t word = upper ? lower[2 * k + i] >> 8 : lower[2 * k + i];
          const uint32_t aligned = Aligned(third[i], k, upper);
          a[2 * i] = Field(word, aligned, 2 * u);
          a[2 * i + 1] = Field(word, aligned, 2 * u + 1);
        }
        multiply(4 * k + u, a[0], a[1], a[2], a[3]);
      }
    }
  }
};

// Of row tile m of transposed values: the dim of row r (half 0) or r + 8 (half 1), and the factor
// with which its sums come out too large, beside kUnit.
template <KvCodes kCodes>
__host__ __device__ constexpr int ValueDim(int m, int half, int r) {
  constexpr int kRun = Codes<kCodes>::kDimsPerHalf;
  if constexpr (kRun == 1) return 16 * m + 8 * half + r;
  constexpr int kTilesPerRun = kRun > 1 ? kRun / 2 : 1;
  return m / kTilesPerRun * 8 * kRun + r * kRun + m % kTilesPerRun * 2 + half;
}

template <KvCodes kCodes>
__host__ __device__ constexpr float ValueFactor(int m, int half) {
  if constexpr (kCodes == KvCodes::k4Bit) return static_cast<float>(1 << (4 * half));
  if constexpr (kCodes == KvCodes::k3Bit) return static_cast<float>(1 << (2 * (2 * m % 4 + half)));
  return 1;
}

}  // namespace assay::engine::cuda
