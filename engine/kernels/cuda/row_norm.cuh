// The second half of rms_norm.cu and sum_norm.cu: a row that a block holds in its registers becomes
//
//   y = bf16(x / sqrt(mean(x^2) + eps) * weight)
//
// Squares are added within a thread in the order of its elements, within a warp by halving
// distances, then in the order of the warps: the order depends on the row's size alone, and one GPU
// and a gang norm alike.
#pragma once

#include <cstdint>

#include "engine/kernels/cuda/bf16_vector.cuh"

namespace assay::engine::cuda {

constexpr int kRowThreads = 512;  // of the block
constexpr int kRowWarps = kRowThreads / 32;

// The place in a row of a thread's v-th vector.
__device__ inline int RowOffset(int v) {
  return (v * kRowThreads + static_cast<int>(threadIdx.x)) * kBf16VectorSize;
}

// The sum over the block, the same for every thread.
__device__ inline float SumOverBlock(float value) {
  __shared__ float warp_sums[kRowWarps];
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xFFFFFFFFu, value, distance);
  }
  __syncthreads();  // the sums of the row before have been read
  if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kRowWarps; ++warp) sum += warp_sums[warp];
  return sum;
}

// The norm's weights for a thread's vectors. No kernel writes them: a block may load them before
// the kernels in front of it have ended, which takes them out of its critical path.
template <int kVectors>
struct RowWeights {
  float4 low[kVectors];
  float4 high[kVectors];

  __device__ void Load(const float* weight, int size) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (RowOffset(v) >= size) break;
      const auto* const from = reinterpret_cast<const float4*>(weight + RowOffset(v));
      low[v] = from[0];
      high[v] = from[1];
    }
  }
};

// `squares`: the sum of this thread's.
template <int kVectors>
__device__ void NormalizeRow(Bf16Vector (&x)[kVectors], float squares,
                             const RowWeights<kVectors>& weights, float eps, int size,
                             __nv_bfloat16* normed) {
  const float mean = SumOverBlock(squares) / static_cast<float>(size);
  const float factor = 1.0f / sqrtf(mean + eps);
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (RowOffset(v) >= size) break;
    const float4 low = weights.low[v];
    const float4 high = weights.high[v];
    const float w[kBf16VectorSize] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < kBf16VectorSize; ++i) x[v].values[i] = x[v].values[i] * factor * w[i];
    StoreVector(x[v], normed + RowOffset(v));
  }
}

}  // namespace assay::engine::cuda
