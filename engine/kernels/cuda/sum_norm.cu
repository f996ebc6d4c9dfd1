// See sum_norm.h. Three ways to the parts, by the size of the message; the bits are the same.
//
// Pushed, small messages: each rank writes its part into its peers' inboxes and polls its own. One
// hop over NVLink, and nobody waits for anybody but for the data.
// One-shot: behind a barrier every rank reads all parts where they are. For two ranks that is no
// more than any other way moves.
// Two-shot, large messages among more than two: each rank sums the rows that are its own, in the
// place of its part of them, which nobody else reads; then all read the sums where they are,
// 2 (n - 1) / n of a message instead of n - 1.
//
// Bound by NVLink's latency, then by its bandwidth: 2 B per element and peer. A block takes whole
// rows, 16 bytes per access, and has the residual in registers before it waits for its peers.
#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/launch.cuh"
#include "engine/kernels/cuda/peer_sync.cuh"
#include "engine/kernels/cuda/row_norm.cuh"
#include "engine/kernels/cuda/sum_norm.h"

namespace assay::engine::cuda {
namespace {

constexpr int kBlocksPerMultiprocessor = 2;  // as PeerSync::num_blocks assumes
// Beyond it the second barrier of two shots costs less than what they save.
constexpr int64_t kMaxOneShotBytes = int64_t{512} << 10;

// The sum in the order of the ranks, of which there are kRanks at most.
template <int kRanks>
__device__ Bf16Vector SumInOrder(const uint4 (&parts)[kRanks], int num_ranks) {
  Bf16Vector sum = UnpackVector(parts[0]);
#pragma unroll
  for (int rank = 1; rank < kRanks; ++rank) {
    if (rank >= num_ranks) break;
    const Bf16Vector part = UnpackVector(parts[rank]);
#pragma unroll
    for (int i = 0; i < kBf16VectorSize; ++i) sum.values[i] += part.values[i];
  }
  return sum;
}

// 16 bytes of what the ranks have contributed, where it is.
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
  return SumInOrder<kRanks>(parts, gang.num_ranks);
}

// x += bf16(update); returns the sum of the squares.
__device__ float AddUpdate(const Bf16Vector& update, float squares, Bf16Vector* x) {
#pragma unroll
  for (int i = 0; i < kBf16VectorSize; ++i) {
    x->values[i] = RoundToBf16(x->values[i] + RoundToBf16(update.values[i]));
    squares += x->values[i] * x->values[i];
  }
  return squares;
}

// The first of two shots: parts[rank][row] = bf16(sum of the parts' row) for this rank's own rows.
__global__ void __launch_bounds__(kRowThreads, kBlocksPerMultiprocessor)
    SumOwnRowsKernel(const __grid_constant__ SumNormArgs args) {
  LetNextKernelStart();
  WaitForKernelsBefore();
  WaitForPeers(args.update);
  const int rank = args.update.sync.rank;
  auto* own = static_cast<__nv_bfloat16*>(const_cast<void*>(args.update.parts[rank]));
  const int num_ranks = args.update.num_ranks;
  for (int row = rank + static_cast<int>(blockIdx.x) * num_ranks; row < args.num_rows;
       row += static_cast<int>(gridDim.x) * num_ranks) {
    for (int i = RowOffset(0); i < args.size; i += kRowThreads * kBf16VectorSize) {
      const int64_t offset = int64_t{row} * args.size + i;
      StoreVector(SumOfParts<kMaxRanks>(args.update, offset), own + offset);
    }
  }
}

// kRanks: at least as many as there are; 1: the rows are summed already, and with their owners.
template <int kVectors, int kRanks>
__global__ void __launch_bounds__(kRowThreads, kBlocksPerMultiprocessor)
    SumNormKernel(const __grid_constant__ SumNormArgs args) {
  LetNextKernelStart();
  WaitForKernelsBefore();
  for (int row = static_cast<int>(blockIdx.x); row < args.num_rows;
       row += static_cast<int>(gridDim.x)) {
    const int64_t source = int64_t{args.rows == nullptr ? row : args.rows[row]} * args.size;
    Bf16Vector x[kVectors];
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (RowOffset(v) < args.size) x[v] = LoadVector(args.hidden + source + RowOffset(v));
    }
    if (row == static_cast<int>(blockIdx.x)) WaitForPeers(args.update);
    float squares = 0;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int offset = RowOffset(v);
      if (offset >= args.size) break;
      Bf16Vector update;
      if constexpr (kRanks == 1) {
        const int owner = row % args.update.num_ranks;
        update = LoadVector(static_cast<const __nv_bfloat16*>(args.update.parts[owner]) + source +
                            offset);
      } else {
        update = SumOfParts<kRanks>(args.update, source + offset);
      }
      squares = AddUpdate(update, squares, &x[v]);
      if (args.sum != nullptr) StoreVector(x[v], args.sum + int64_t{row} * args.size + offset);
    }
    RowWeights<kVectors> weights;
    weights.Load(args.weight, args.size);
    NormalizeRow(x, squares, weights, args.eps, args.size, args.normed + int64_t{row} * args.size);
  }
}

// This block's rows of the own part, into the inboxes of the others.
__device__ void PushRows(const SumNormArgs& args) {
  const GangParts& gang = args.update;
  const auto* const own = static_cast<const __nv_bfloat16*>(gang.parts[gang.sync.rank]);
  for (int row = static_cast<int>(blockIdx.x); row < args.num_rows;
       row += static_cast<int>(gridDim.x)) {
    const int64_t source = int64_t{args.rows == nullptr ? row : args.rows[row]} * args.size;
    for (int i = RowOffset(0); i < args.size; i += kRowThreads * kBf16VectorSize) {
      const uint4 words = Sendable(*reinterpret_cast<const uint4*>(own + source + i));
      const int64_t place = (int64_t{row} * args.size + i) * 2;
      for (int peer = 0; peer < gang.num_ranks; ++peer) {
        if (peer == gang.sync.rank) continue;
        PushWords(words, static_cast<uint8_t*>(gang.inbox.at[peer]) + place);
      }
    }
  }
}

template <int kVectors, int kRanks>
__global__ void __launch_bounds__(kRowThreads, kBlocksPerMultiprocessor)
    PushedSumNormKernel(const __grid_constant__ SumNormArgs args) {
  // As far as registers go: vectors whose parts are on their way at once, and the norm's weights
  // before there is anything to wait for.
  constexpr int kAtOnce = kVectors * kRanks <= 4 ? kVectors : 1;
  constexpr bool kWeightsFirst = kVectors * kRanks <= 4;
  LetNextKernelStart();
  RowWeights<kVectors> weights;
  if constexpr (kWeightsFirst) weights.Load(args.weight, args.size);
  WaitForKernelsBefore();
  const GangParts& gang = args.update;
  PushRows(args);
  for (int row = static_cast<int>(blockIdx.x); row < args.num_rows;
       row += static_cast<int>(gridDim.x)) {
    const int64_t source = int64_t{args.rows == nullptr ? row : args.rows[row]} * args.size;
    const int64_t target = int64_t{row} * args.size;
    // Its own part is where the product left it.
    const auto place = [&](int rank, int v) {
      const int64_t first = rank == gang.sync.rank ? source : target;
      const void* const from = rank == gang.sync.rank ? gang.parts[rank] : gang.inbox.from[rank];
      return static_cast<uint4*>(const_cast<void*>(from)) +
             (first + RowOffset(v)) / kBf16VectorSize;
    };
    uint4 hidden[kVectors];
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (RowOffset(v) >= args.size) break;
      hidden[v] = *reinterpret_cast<const uint4*>(args.hidden + source + RowOffset(v));
    }
    Bf16Vector x[kVectors];
    float squares = 0;
#pragma unroll
    for (int first = 0; first < kVectors; first += kAtOnce) {
      uint4 parts[kAtOnce][kRanks];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        if (RowOffset(first + i) >= args.size) break;
#pragma unroll
        for (int rank = 0; rank < kRanks; ++rank) {
          if (rank < gang.num_ranks) parts[i][rank] = PollWords(place(rank, first + i));
        }
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int v = first + i;
        if (RowOffset(v) >= args.size) break;
#pragma unroll
        for (int rank = 0; rank < kRanks; ++rank) {
          if (rank < gang.num_ranks && rank != gang.sync.rank) {
            ReceiveWords(gang.sync, place(rank, v), &parts[i][rank]);
          }
        }
        x[v] = UnpackVector(hidden[v]);
        squares = AddUpdate(SumInOrder<kRanks>(parts[i], gang.num_ranks), squares, &x[v]);
        if (args.sum != nullptr) StoreVector(x[v], args.sum + target + RowOffset(v));
      }
    }
    if constexpr (!kWeightsFirst) weights.Load(args.weight, args.size);
    NormalizeRow(x, squares, weights, args.eps, args.size, args.normed + target);
  }
}

template <int kRanks>
auto KernelFor(int size) {
  constexpr int kPerBlock = kRowThreads * kBf16VectorSize;
  return size <= kPerBlock       ? SumNormKernel<1, kRanks>
         : size <= 2 * kPerBlock ? SumNormKernel<2, kRanks>
                                 : SumNormKernel<4, kRanks>;
}

template <int kRanks>
auto PushedKernelFor(int size) {
  constexpr int kPerBlock = kRowThreads * kBf16VectorSize;
  return size <= kPerBlock       ? PushedSumNormKernel<1, kRanks>
         : size <= 2 * kPerBlock ? PushedSumNormKernel<2, kRanks>
                                 : PushedSumNormKernel<4, kRanks>;
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
  const int64_t bytes = int64_t{args.num_rows} * args.size * 2;
  const bool is_pushed = bytes <= args.update.inbox.bytes;
  const dim3 grid(static_cast<unsigned>(num_blocks));
  // A norm of some rows leaves the parts as they are: others may follow.
  const bool in_two_shots = !is_pushed && num_ranks > 2 && most_blocks > 0 &&
                            args.rows == nullptr && args.sum != nullptr && bytes > kMaxOneShotBytes;
  if (in_two_shots) {
    ASSAY_RETURN_IF_CUDA_ERROR(
        LaunchOverlapped(SumOwnRowsKernel, grid, kRowThreads, 0, 1, stream, args));
  }
  const auto pushed = num_ranks <= 2   ? PushedKernelFor<2>(args.size)
                      : num_ranks <= 4 ? PushedKernelFor<4>(args.size)
                                       : PushedKernelFor<kMaxRanks>(args.size);
  const auto pulled = in_two_shots     ? KernelFor<1>(args.size)
                      : num_ranks <= 2 ? KernelFor<2>(args.size)
                                       : KernelFor<kMaxRanks>(args.size);
  return CudaStatus(
      LaunchOverlapped(is_pushed ? pushed : pulled, grid, kRowThreads, 0, 1, stream, args),
      "SumNorm");
}

}  // namespace assay::engine::cuda
