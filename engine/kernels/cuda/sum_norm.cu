// See sum_norm.h. One-shot: every rank reads all parts, its peers' over NVLink. For two ranks that
// is no more than any other way moves; for more it is what small messages want, being one hop and
// one barrier. Large messages among more than two go in two shots: each rank sums the rows that are
// its own, in the place of its part of them, which nobody else reads; then all read the sums where
// they are, 2 (n - 1) / n of a message instead of n - 1. The bits are the same.
//
// Bound by NVLink's latency, then by its bandwidth: 2 B per element and peer. A block takes whole
// rows, 16 bytes per access, and has the residual in registers before it waits for its peers.
#include "engine/kernels/cuda/bf16_vector.cuh"
#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/launch.cuh"
#include "engine/kernels/cuda/peer_sync.cuh"
#include "engine/kernels/cuda/sum_norm.h"

namespace assay::engine::cuda {
namespace {

constexpr int kThreadsPerBlock = 512;
constexpr int kWarps = kThreadsPerBlock / 32;
constexpr int kBlocksPerMultiprocessor = 2;  // as PeerSync::num_blocks assumes
// Beyond it the second barrier of two shots costs less than what they save.
constexpr int64_t kMaxOneShotBytes = int64_t{512} << 10;

// As in rms_norm.cu, so that one GPU and a gang norm alike.
__device__ float SumOverBlock(float value) {
  __shared__ float warp_sums[kWarps];
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xFFFFFFFFu, value, distance);
  }
  __syncthreads();  // the row before has been read
  if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) sum += warp_sums[warp];
  return sum;
}

// 16 bytes of what the first kRanks ranks at most have contributed, summed in their order.
template <int kRanks>
__device__ Bf16Vector SumOfParts(const GangParts& gang, int64_t offset) {
  // As they come, so that all are on their way at once.
  uint4 parts[kRanks];
#pragma unroll
  for (int rank = 0; rank < kRanks; ++rank) {
    if (rank >= gang.num_ranks) break;
    parts[rank] = *reinterpret_cast<const uint4*>(
        static_cast<const __nv_bfloat16*>(gang.parts[rank]) + offset);
  }
  Bf16Vector sum = UnpackVector(parts[0]);
#pragma unroll
  for (int rank = 1; rank < kRanks; ++rank) {
    if (rank >= gang.num_ranks) break;
    const Bf16Vector part = UnpackVector(parts[rank]);
#pragma unroll
    for (int i = 0; i < kBf16VectorSize; ++i) sum.values[i] += part.values[i];
  }
  return sum;
}

// The first of two shots: parts[rank][row] = bf16(sum of the parts' row) for this rank's own rows.
__global__ void __launch_bounds__(kThreadsPerBlock, kBlocksPerMultiprocessor)
    SumOwnRowsKernel(const __grid_constant__ SumNormArgs args) {
  LetNextKernelStart();
  WaitForKernelsBefore();
  WaitForPeers(args.update);
  const int rank = args.update.sync.rank;
  auto* own = static_cast<__nv_bfloat16*>(const_cast<void*>(args.update.parts[rank]));
  const int num_ranks = args.update.num_ranks;
  for (int row = rank + static_cast<int>(blockIdx.x) * num_ranks; row < args.num_rows;
       row += static_cast<int>(gridDim.x) * num_ranks) {
    for (int i = static_cast<int>(threadIdx.x) * kBf16VectorSize; i < args.size;
         i += kThreadsPerBlock * kBf16VectorSize) {
      const int64_t offset = int64_t{row} * args.size + i;
      StoreVector(SumOfParts<kMaxRanks>(args.update, offset), own + offset);
    }
  }
}

// kRanks: at least as many as there are; 1: the rows are summed already, and with their owners.
template <int kVectors, int kRanks>
__global__ void __launch_bounds__(kThreadsPerBlock, kBlocksPerMultiprocessor)
    SumNormKernel(const __grid_constant__ SumNormArgs args) {
  LetNextKernelStart();
  WaitForKernelsBefore();
  for (int row = static_cast<int>(blockIdx.x); row < args.num_rows;
       row += static_cast<int>(gridDim.x)) {
    const int64_t source = int64_t{args.rows == nullptr ? row : args.rows[row]} * args.size;
    Bf16Vector x[kVectors];
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int offset = (v * kThreadsPerBlock + static_cast<int>(threadIdx.x)) * kBf16VectorSize;
      if (offset < args.size) x[v] = LoadVector(args.hidden + source + offset);
    }
    if (row == static_cast<int>(blockIdx.x)) WaitForPeers(args.update);
    float squares = 0;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int offset = (v * kThreadsPerBlock + static_cast<int>(threadIdx.x)) * kBf16VectorSize;
      if (offset >= args.size) break;
      Bf16Vector update;
      if constexpr (kRanks == 1) {
        const int owner = row % args.update.num_ranks;
        update = LoadVector(static_cast<const __nv_bfloat16*>(args.update.parts[owner]) + source +
                            offset);
      } else {
        update = SumOfParts<kRanks>(args.update, source + offset);
      }
#pragma unroll
      for (int i = 0; i < kBf16VectorSize; ++i) {
        x[v].values[i] = RoundToBf16(x[v].values[i] + RoundToBf16(update.values[i]));
        squares += x[v].values[i] * x[v].values[i];
      }
      if (args.sum != nullptr) StoreVector(x[v], args.sum + int64_t{row} * args.size + offset);
    }
    const float mean = SumOverBlock(squares) / static_cast<float>(args.size);
    const float factor = 1.0f / sqrtf(mean + args.eps);
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int offset = (v * kThreadsPerBlock + static_cast<int>(threadIdx.x)) * kBf16VectorSize;
      if (offset >= args.size) break;
      const float4* weight = reinterpret_cast<const float4*>(args.weight + offset);
      const float4 low = weight[0];
      const float4 high = weight[1];
      const float w[kBf16VectorSize] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
      for (int i = 0; i < kBf16VectorSize; ++i) x[v].values[i] = x[v].values[i] * factor * w[i];
      StoreVector(x[v], args.normed + int64_t{row} * args.size + offset);
    }
  }
}

template <int kRanks>
auto KernelFor(int size) {
  constexpr int kPerBlock = kThreadsPerBlock * kBf16VectorSize;
  return size <= kPerBlock       ? SumNormKernel<1, kRanks>
         : size <= 2 * kPerBlock ? SumNormKernel<2, kRanks>
                                 : SumNormKernel<4, kRanks>;
}

}  // namespace

absl::Status SumNorm(const SumNormArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0) return absl::OkStatus();
  if (args.size % kBf16VectorSize != 0 || args.size > kMaxSumNormSize) {
    return absl::InvalidArgumentError(
        "a gang's rows are of a multiple of 8 elements, 16384 at most");
  }
  const int num_ranks = args.update.num_ranks;
  const int most_blocks = args.update.sync.num_blocks;
  const int num_blocks =
      most_blocks > 0 && most_blocks < args.num_rows ? most_blocks : args.num_rows;
  const dim3 grid(static_cast<unsigned>(num_blocks));
  // A norm of some rows leaves the parts as they are: others may follow.
  const bool in_two_shots = num_ranks > 2 && most_blocks > 0 && args.rows == nullptr &&
                            args.sum != nullptr &&
                            int64_t{args.num_rows} * args.size * 2 > kMaxOneShotBytes;
  if (in_two_shots) {
    ASSAY_RETURN_IF_CUDA_ERROR(
        LaunchOverlapped(SumOwnRowsKernel, grid, kThreadsPerBlock, 0, 1, stream, args));
  }
  const auto kernel = in_two_shots     ? KernelFor<1>(args.size)
                      : num_ranks <= 2 ? KernelFor<2>(args.size)
                                       : KernelFor<kMaxRanks>(args.size);
  return CudaStatus(LaunchOverlapped(kernel, grid, kThreadsPerBlock, 0, 1, stream, args),
                    "SumNorm");
}

}  // namespace assay::engine::cuda
