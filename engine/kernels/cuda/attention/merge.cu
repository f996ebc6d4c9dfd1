// Merges the chunks of a row's decode attention in their order:
//
//   output = sum_i 2^(max_i - max) output_i / sum_i 2^(max_i - max) sum_i
//
// A warp owns a head of a row: its lanes make the weights of up to 32 chunks at once, then add the
// chunks' outputs, 4 dims a lane. Bound: the second-level cache, where the sums just went (15 MB
// for 64 rows of 28 heads and 16 chunks). Launched while decode attention ends, and waits for its
// end.
#include <cuda_bf16.h>

#include <cmath>

#include "engine/kernels/cuda/attention/decode.cuh"
#include "engine/kernels/cuda/attention/ptx.cuh"
#include "engine/kernels/cuda/launch.cuh"

namespace assay::engine::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kWarpSize = 32;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;
static_assert(kTensorCoreHeadDim == 4 * kWarpSize, "4 dims a lane");

// Grid: [rows, heads / kWarps].
__global__ void __launch_bounds__(kWarps* kWarpSize)
    MergeKernel(const int32_t* positions, int num_heads, const DecodeBuffers buffers,
                __nv_bfloat16* out, int64_t out_stride) {
  LetNextKernelStart();
  WaitForKernelsBefore();
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int row = static_cast<int>(blockIdx.x);
  const int head =
      static_cast<int>(blockIdx.y) * kWarps + static_cast<int>(threadIdx.x) / kWarpSize;
  const int num_chunks = NumChunks(PagesOf(max(positions[row] + 1, 0)));
  if (head >= num_heads || num_chunks < 2) return;

  const auto place = [&](int chunk) {
    return (int64_t{row} * buffers.max_chunks + chunk) * num_heads + head;
  };
  float max = -INFINITY;
  for (int chunk = lane; chunk < num_chunks; chunk += kWarpSize) {
    max = fmaxf(max, buffers.sums[place(chunk)].x);
  }
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    max = fmaxf(max, __shfl_xor_sync(kAllLanes, max, distance));
  }
  float sum = 0;
  float4 output = make_float4(0, 0, 0, 0);
  for (int begin = 0; begin < num_chunks; begin += kWarpSize) {
    float weight = 0;
    if (begin + lane < num_chunks) {
      const float2 sums = buffers.sums[place(begin + lane)];
      weight = Exp2(sums.x - max);
      sum = fmaf(sums.y, weight, sum);
    }
    const int count = min(kWarpSize, num_chunks - begin);
#pragma unroll 8
    for (int i = 0; i < count; ++i) {
      const float factor = __shfl_sync(kAllLanes, weight, i);
      const auto* const from =
          reinterpret_cast<const float4*>(buffers.outputs + place(begin + i) * kTensorCoreHeadDim);
      const float4 part = from[lane];
      output.x = fmaf(part.x, factor, output.x);
      output.y = fmaf(part.y, factor, output.y);
      output.z = fmaf(part.z, factor, output.z);
      output.w = fmaf(part.w, factor, output.w);
    }
  }
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    sum += __shfl_xor_sync(kAllLanes, sum, distance);
  }
  const float inverse = 1.0f / sum;
  uint2 packed;
  packed.x = PackBf16(output.x * inverse, output.y * inverse);
  packed.y = PackBf16(output.z * inverse, output.w * inverse);
  *reinterpret_cast<uint2*>(out + row * out_stride + int64_t{head} * kTensorCoreHeadDim +
                            4 * lane) = packed;
}

}  // namespace

absl::Status MergeChunks(const AttentionArgs& args, const DecodeBuffers& buffers,
                         cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(args.rows.num_rows),
                  static_cast<unsigned>((args.num_heads + kWarps - 1) / kWarps));
  return CudaStatus(
      LaunchOverlapped(MergeKernel, grid, kWarps * kWarpSize, 0, 1, stream, args.rows.positions,
                       args.num_heads, buffers, args.output, args.output_stride),
      "MergeChunks");
}

}  // namespace assay::engine::cuda
