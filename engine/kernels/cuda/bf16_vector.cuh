// Eight bf16 values as one 16-byte access, computed on in float32.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace assay::engine::cuda {

inline constexpr int kBf16VectorSize = 8;

struct Bf16Vector {
  float values[kBf16VectorSize];
};

__device__ inline Bf16Vector UnpackVector(const uint4& bits) {
  const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
  Bf16Vector vector;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    vector.values[2 * i] = __uint_as_float(words[i] << 16);
    vector.values[2 * i + 1] = __uint_as_float(words[i] & 0xFFFF0000u);
  }
  return vector;
}

// `p` is 16-byte aligned.
__device__ inline Bf16Vector LoadVector(const __nv_bfloat16* p) {
  return UnpackVector(*reinterpret_cast<const uint4*>(p));
}

// Rounded to nearest even.
__device__ inline uint4 PackVector(const Bf16Vector& vector) {
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const __nv_bfloat162 pair =
        __floats2bfloat162_rn(vector.values[2 * i], vector.values[2 * i + 1]);
    words[i] = *reinterpret_cast<const uint32_t*>(&pair);
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

__device__ inline void StoreVector(const Bf16Vector& vector, __nv_bfloat16* p) {
  *reinterpret_cast<uint4*>(p) = PackVector(vector);
}

__device__ inline float RoundToBf16(float x) { return __bfloat162float(__float2bfloat16_rn(x)); }

}  // namespace assay::engine::cuda
