// h = bf16(hidden + update),  y = bf16(h / sqrt(mean(h^2) + eps) * weight)
//
// Reference: rms_norm and add of kernels/cpu, activations rounded to bf16. The sum of squares is
// added in another order: y may differ by one rounding of bf16. The order depends on `size` alone.
//
// Memory-bound: 4 B read and 4 B written per element. A block takes a row and keeps it in
// registers, 16 bytes per access.
#include "engine/kernels/cuda/bf16_vector.cuh"
#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/launch.cuh"
#include "engine/kernels/cuda/rms_norm.h"

namespace assay::engine::cuda {
namespace {

constexpr int kThreadsPerBlock = 512;
constexpr int kWarps = kThreadsPerBlock / 32;

// The sum over the block, the same for every thread: within warps by halving distances, then the
// warps' sums in the order of the warps.
__device__ float SumOverBlock(float value) {
  __shared__ float warp_sums[kWarps];
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xFFFFFFFFu, value, distance);
  }
  if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) sum += warp_sums[warp];
  return sum;
}

template <int kVectors>  // of 8 elements a thread
__global__ void __launch_bounds__(kThreadsPerBlock) VectorNormKernel(const RmsNormArgs args) {
  LetNextKernelStart();
  WaitForKernelsBefore();
  const int64_t row = blockIdx.x;
  const int64_t source = (args.rows == nullptr ? row : args.rows[row]) * args.size;
  Bf16Vector x[kVectors];
  float squares = 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int offset = (v * kThreadsPerBlock + threadIdx.x) * kBf16VectorSize;
    if (offset >= args.size) break;
    x[v] = LoadVector(args.hidden + source + offset);
    if (args.update != nullptr) {
      const Bf16Vector update = LoadVector(args.update + source + offset);
#pragma unroll
      for (int i = 0; i < kBf16VectorSize; ++i) {
        x[v].values[i] = RoundToBf16(x[v].values[i] + update.values[i]);
      }
    }
    if (args.sum != nullptr) StoreVector(x[v], args.sum + row * args.size + offset);
#pragma unroll
    for (int i = 0; i < kBf16VectorSize; ++i) squares += x[v].values[i] * x[v].values[i];
  }
  const float mean = SumOverBlock(squares) / static_cast<float>(args.size);
  const float factor = 1.0f / sqrtf(mean + args.eps);
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int offset = (v * kThreadsPerBlock + threadIdx.x) * kBf16VectorSize;
    if (offset >= args.size) break;
    const float4* weight = reinterpret_cast<const float4*>(args.weight + offset);
    const float4 low = weight[0];
    const float4 high = weight[1];
    const float w[kBf16VectorSize] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < kBf16VectorSize; ++i) x[v].values[i] = x[v].values[i] * factor * w[i];
    StoreVector(x[v], args.normed + row * args.size + offset);
  }
}

// Any size, an element a thread and step. `sum` is written last: it may be `hidden`.
__global__ void __launch_bounds__(kThreadsPerBlock) ScalarNormKernel(const RmsNormArgs args) {
  LetNextKernelStart();
  WaitForKernelsBefore();
  const int64_t row = blockIdx.x;
  const int64_t source = (args.rows == nullptr ? row : args.rows[row]) * args.size;
  const auto element = [&](int i) {
    const float hidden = __bfloat162float(args.hidden[source + i]);
    if (args.update == nullptr) return hidden;
    return RoundToBf16(hidden + __bfloat162float(args.update[source + i]));
  };
  float squares = 0;
  for (int i = threadIdx.x; i < args.size; i += kThreadsPerBlock) {
    squares += element(i) * element(i);
  }
  const float mean = SumOverBlock(squares) / static_cast<float>(args.size);
  const float factor = 1.0f / sqrtf(mean + args.eps);
  for (int i = threadIdx.x; i < args.size; i += kThreadsPerBlock) {
    const float x = element(i);
    args.normed[row * args.size + i] = __float2bfloat16_rn(x * factor * args.weight[i]);
    if (args.sum != nullptr) args.sum[row * args.size + i] = __float2bfloat16_rn(x);
  }
}

}  // namespace

absl::Status RmsNorm(const RmsNormArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0) return absl::OkStatus();
  constexpr int kPerBlock = kThreadsPerBlock * kBf16VectorSize;
  const bool vectors = args.size % kBf16VectorSize == 0 && args.size <= 4 * kPerBlock;
  const auto kernel = !vectors                     ? ScalarNormKernel
                      : args.size <= kPerBlock     ? VectorNormKernel<1>
                      : args.size <= 2 * kPerBlock ? VectorNormKernel<2>
                                                   : VectorNormKernel<4>;
  return CudaStatus(
      LaunchOverlapped(kernel, dim3(args.num_rows), kThreadsPerBlock, 0, 1, stream, args),
      "RmsNorm");
}

}  // namespace assay::engine::cuda
