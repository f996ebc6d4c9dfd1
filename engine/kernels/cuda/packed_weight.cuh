// A tile of a packed weight, and how a thread of a warpgroup decodes its part of it.
//
// Thread 32 w + 4 r + c (w 0..3, r 0..7, c 0..3) holds what wgmma wants of it on the left side
// (wgmma.cuh): of rows 16 w + r and that + 8, of every 16 columns 2c, 2c+1, 2c+8, 2c+9: 64 codes
// a tile, 8 of each of 8 steps of 16 columns. Codes of 4 bits: a word a step, from the lowest
//   row r: 2c; row r+8: 2c; row r: 2c+8; row r+8: 2c+8; then the same rows' 2c+1 and 2c+9,
// so that a shift and a mask leave two neighbours in the halves of a word. 3 bits: the same word is
// put together from two planes, the lower two bits and the third. 8 bits: a word of row r, a word
// of row r+8.
//
// In a tile, vectors of 16 bytes of the 128 threads lie behind each other, so that a warp's loads
// from shared memory do not collide:
//   8 bits: 4 vectors, steps 2 i and 2 i + 1 each, row r before row r+8
//   4 bits: 2 vectors, steps 4 i .. 4 i + 3
//   3 bits: a vector of lower bits, word i for steps 2 i (even pairs of bits) and 2 i + 1 (odd
//           ones); then two words of third bits, word i for steps 4 i + t at bit t of every 4
// then 64 scales of 32 bits (RowGrid) and 64 zeros.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "engine/kernels/cuda/attention/ptx.cuh"
#include "engine/kernels/cuda/packed_weight.h"

namespace assay::engine::cuda {

constexpr int kTileThreads = 128;
constexpr int kStepsOfTile = kPackedTileDepth / 16;
constexpr int kCodesOfStep = 8;

// Where the i-th code of a step's word stands.
struct TilePlace {
  int row;     // in the tile
  int column;  // in the tile
};
__host__ __device__ constexpr TilePlace PlaceOf(int thread, int step, int i) {
  const int row = thread / 32 * 16 + thread % 32 / 4;
  const int column = step * 16 + thread % 4 * 2;
  return {row + (i & 1 ? 8 : 0), column + (i & 2 ? 8 : 0) + (i & 4 ? 1 : 0)};
}

// Scale and zero of a row, in the form that decoding uses, and the scale as a tile holds it.
template <int kBits>
struct RowGrid {
  // Both halves the same. A scale is high + low, up to 2^-16 of it; offset is -(128 + zero), which
  // 8 bits hold exactly.
  __nv_bfloat162 high;
  __nv_bfloat162 low;
  __nv_bfloat162 offset;

  // high below low.
  static __device__ __forceinline__ uint32_t Encode(float scale) {
    const float nearest = __bfloat162float(__float2bfloat16_rn(scale));
    return PackBf16(nearest, scale - nearest);
  }
  __device__ __forceinline__ void Set(uint32_t scale, uint32_t zero) {
    high = Pair(__byte_perm(scale, 0, 0x1010));
    low = Pair(__byte_perm(scale, 0, 0x3232));
    offset = Pair(0xC300C300u | zero * 0x00010001u);
  }

 private:
  static __device__ __forceinline__ __nv_bfloat162 Pair(uint32_t bits) {
    return *reinterpret_cast<const __nv_bfloat162*>(&bits);
  }
};

// 8 bits: over 2^23, a code is a float's lowest byte.
template <>
struct RowGrid<8> {
  float scale;
  float offset;  // -(2^23 + zero)

  static __device__ __forceinline__ uint32_t Encode(float row_scale) {
    return __float_as_uint(row_scale);
  }
  __device__ __forceinline__ void Set(uint32_t row_scale, uint32_t zero) {
    scale = __uint_as_float(row_scale);
    offset = __uint_as_float(0xCB000000u | zero);
  }
};

// A word of 4-bit fields: the left side of one step. code + 128 is a bf16 whose last bits are the
// code; taking 128 + zero away is exact, and so is the product with `high` within the last fma.
template <int kBits>
__device__ __forceinline__ void DecodeFields(uint32_t word, const RowGrid<kBits> (&grids)[2],
                                             uint32_t (&left)[4]) {
  // In a register: an instruction takes one constant, the mask.
  uint32_t magic;
  asm("mov.b32 %0, 0x43004300;" : "=r"(magic));
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    uint32_t bits;  // (word >> 4 i & 0x000F000F) | magic
    asm("lop3.b32 %0, %1, 0x000F000F, %2, 0xEA;" : "=r"(bits) : "r"(word >> (4 * i)), "r"(magic));
    const RowGrid<kBits>& grid = grids[i % 2];
    const __nv_bfloat162 code =
        __hadd2_rn(*reinterpret_cast<const __nv_bfloat162*>(&bits), grid.offset);
    const __nv_bfloat162 weight = __hfma2(code, grid.high, __hmul2_rn(code, grid.low));
    left[i] = *reinterpret_cast<const uint32_t*>(&weight);
  }
}

// Four bytes of one row. The sum is one of integers, exact; the product is rounded to float32.
__device__ __forceinline__ void DecodeBytes(uint32_t word, const RowGrid<8>& grid, uint32_t* low,
                                            uint32_t* high) {
  float values[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t bits = __byte_perm(word, 0x4B000000u, 0x7650u + static_cast<uint32_t>(i));
    values[i] = __fmul_rn(__fadd_rn(__uint_as_float(bits), grid.offset), grid.scale);
  }
  *low = PackBf16(values[0], values[1]);
  *high = PackBf16(values[2], values[3]);
}

// A thread's codes of a tile.
template <int kBits>
struct ThreadCodes {
  static constexpr int kWords = kBits * 2;
  static constexpr int kScalesAt = kTileThreads * kWords * 4;
  static constexpr int kZerosAt = kScalesAt + kPackedTileFeatures * 4;
  static_assert(kZerosAt + kPackedTileFeatures == PackedTileBytes(kBits));

  uint32_t words[kWords];

  // From a tile in shared or device memory.
  __device__ __forceinline__ void Load(const uint8_t* tile, int thread) {
#pragma unroll
    for (int i = 0; i < kWords / 4; ++i) {
      const uint4 vector = reinterpret_cast<const uint4*>(tile)[i * kTileThreads + thread];
      words[4 * i] = vector.x;
      words[4 * i + 1] = vector.y;
      words[4 * i + 2] = vector.z;
      words[4 * i + 3] = vector.w;
    }
    if constexpr (kWords % 4 == 2) {
      const uint2 pair = reinterpret_cast<const uint2*>(tile + kTileThreads * 16)[thread];
      words[kWords - 2] = pair.x;
      words[kWords - 1] = pair.y;
    }
  }
  __device__ __forceinline__ void Store(uint8_t* tile, int thread) const {
#pragma unroll
    for (int i = 0; i < kWords / 4; ++i) {
      reinterpret_cast<uint4*>(tile)[i * kTileThreads + thread] =
          make_uint4(words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]);
    }
    if constexpr (kWords % 4 == 2) {
      reinterpret_cast<uint2*>(tile + kTileThreads * 16)[thread] =
          make_uint2(words[kWords - 2], words[kWords - 1]);
    }
  }

  static __device__ __forceinline__ void LoadGrids(const uint8_t* tile, int thread,
                                                   RowGrid<kBits> (&grids)[2]) {
    const int row = thread / 32 * 16 + thread % 32 / 4;
    const auto* const scales = reinterpret_cast<const uint32_t*>(tile + kScalesAt);
    const uint8_t* const zeros = tile + kZerosAt;
    grids[0].Set(scales[row], zeros[row]);
    grids[1].Set(scales[row + 8], zeros[row + 8]);
  }

  // The left side of step `step`, which the compiler knows.
  __device__ __forceinline__ void Decode(int step, const RowGrid<kBits> (&grids)[2],
                                         uint32_t (&left)[4]) const {
    if constexpr (kBits == 8) {
      DecodeBytes(words[2 * step], grids[0], &left[0], &left[2]);
      DecodeBytes(words[2 * step + 1], grids[1], &left[1], &left[3]);
    } else if constexpr (kBits == 4) {
      DecodeFields(words[step], grids, left);
    } else {
      const uint32_t lower = words[step / 2] >> (step % 2 * 2) & 0x33333333u;
      const uint32_t third = words[4 + step / 4];
      const int bit = step % 4;
      const uint32_t upper = (bit == 3 ? third >> 1 : third << (2 - bit)) & 0x44444444u;
      DecodeFields(lower | upper, grids, left);
    }
  }

  // The inverse of what Decode reads; words start as zeros.
  __device__ __forceinline__ void Insert(int step, int i, uint32_t code) {
    if constexpr (kBits == 8) {
      const int byte = (i & 4 ? 1 : 0) + (i & 2 ? 2 : 0);
      words[2 * step + (i & 1)] |= code << (8 * byte);
    } else if constexpr (kBits == 4) {
      words[step] |= code << (4 * i);
    } else {
      words[step / 2] |= (code & 3) << (4 * i + step % 2 * 2);
      words[4 + step / 4] |= (code >> 2) << (4 * i + step % 4);
    }
  }
};

}  // namespace assay::engine::cuda
