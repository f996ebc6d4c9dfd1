// h = bf16(hidden + update),  y = bf16(h / sqrt(mean(h^2) + eps) * weight)
//
// Reference: rms_norm and add of kernels/cpu, activations rounded to bf16. The sum of squares is
// added in another order (row_norm.cuh): y may differ by one rounding of bf16.
//
// Memory-bound: 4 B read and 4 B written per element. A block takes a row and keeps it in
// registers, 16 bytes per access.
#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/launch.cuh"
#include "engine/kernels/cuda/rms_norm.h"
#include "engine/kernels/cuda/row_norm.cuh"

namespace assay::engine::cuda {
namespace {

template <int kVectors>  // of 8 elements a thread
__global__ void __launch_bounds__(kRowThreads) VectorNormKernel(const RmsNormArgs args) {
  LetNextKernelStart();
  RowWeights<kVectors> weights;
  weights.Load(args.weight, args.size);
  WaitForKernelsBefore();
  const int64_t row = blockIdx.x;
  const int64_t source = (args.rows == nullptr ? row : args.rows[row]) * args.size;
  // All loads first: the sum may be stored where they come from.
  uint4 hidden[kVectors];
  uint4 update[kVectors];
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (RowOffset(v) >= args.size) break;
    hidden[v] = *reinterpret_cast<const uint4*>(args.hidden + source + RowOffset(v));
    if (args.update == nullptr) continue;
    update[v] = *reinterpret_cast<const uint4*>(args.update + source + RowOffset(v));
  }
  Bf16Vector x[kVectors];
  float squares = 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (RowOffset(v) >= args.size) break;
    x[v] = UnpackVector(hidden[v]);
    if (args.update != nullptr) {
      const Bf16Vector added = UnpackVector(update[v]);
#pragma unroll
      for (int i = 0; i < kBf16VectorSize; ++i) {
        x[v].values[i] = RoundToBf16(x[v].values[i] + added.values[i]);
      }
    }
    if (args.sum != nullptr) StoreVector(x[v], args.sum + row * args.size + RowOffset(v));
#pragma unroll
    for (int i = 0; i < kBf16VectorSize; ++i) squares += x[v].values[i] * x[v].values[i];
  }
  NormalizeRow(x, squares, weights, args.eps, args.size, args.normed + row * args.size);
}

// Any size, an element a thread and step. `sum` is written last: it may be `hidden`.
__global__ void __launch_bounds__(kRowThreads) ScalarNormKernel(const RmsNormArgs args) {
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
  for (int i = threadIdx.x; i < args.size; i += kRowThreads) {
    squares += element(i) * element(i);
  }
  const float mean = SumOverBlock(squares) / static_cast<float>(args.size);
  const float factor = 1.0f / sqrtf(mean + args.eps);
  for (int i = threadIdx.x; i < args.size; i += kRowThreads) {
    const float x = element(i);
    args.normed[row * args.size + i] = __float2bfloat16_rn(x * factor * args.weight[i]);
    if (args.sum != nullptr) args.sum[row * args.size + i] = __float2bfloat16_rn(x);
  }
}

}  // namespace

absl::Status RmsNorm(const RmsNormArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0) return absl::OkStatus();
  constexpr int kPerBlock = kRowThreads * kBf16VectorSize;
  const bool vectors = args.size % kBf16VectorSize == 0 && args.size <= 4 * kPerBlock;
  const auto kernel = !vectors                     ? ScalarNormKernel
                      : args.size <= kPerBlock     ? VectorNormKernel<1>
                      : args.size <= 2 * kPerBlock ? VectorNormKernel<2>
                                                   : VectorNormKernel<4>;
  return CudaStatus(LaunchOverlapped(kernel, dim3(args.num_rows), kRowThreads, 0, 1, stream, args),
                    "RmsNorm");
}

}  // namespace assay::engine::cuda
