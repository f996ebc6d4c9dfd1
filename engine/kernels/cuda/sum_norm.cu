// See sum_norm.h. Three ways to the parts, by the size of the message; the bits are the same.
//
// Pushed, small messages: each rank writes its part into its peers' inboxes and polls its own. One
// hop over NVLink, and nobody waits for anybody but for the data.
// In place, large messages: behind a barrier every rank reads all parts where they are.
// In two shots, among more than two: each rank sums the rows that are its own, from what was pushed
// to it alone, or in the place of its part of them, which nobody else reads; then it pushes the
// sums, or all read them where they are. 2 (n - 1) / n of a message are moved instead of n - 1; for
// two ranks that is the same.
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
// Beyond them the second hop, or barrier, of two shots costs less than what they save.
constexpr int64_t kMaxOneHopBytes = int64_t{64} << 10;
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
  LetNextKernelStart(args.update.sync);
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
  LetNextKernelStart(args.update.sync);
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

// Among more than two, a message that is not tiny is pushed in two shots: each row to its owner,
// and the owner's sum to all. A row belongs to one rank for every number of rows.
__device__ int OwnerOf(int row, const GangParts& gang) { return row % gang.num_ranks; }

__device__ void PushToPeers(const uint4& words, int64_t element, const GangParts& gang) {
  for (int peer = 0; peer < gang.num_ranks; ++peer) {
    if (peer == gang.sync.rank) continue;
    PushWords(words, static_cast<__nv_bfloat16*>(gang.inbox.at[peer]) + element);
  }
}

// This block's rows of the own part, into the inboxes of the others or of their owner.
template <bool kTwoShots>
__device__ void PushRows(const SumNormArgs& args) {
  const GangParts& gang = args.update;
  const auto* const own = static_cast<const __nv_bfloat16*>(gang.parts[gang.sync.rank]);
  for (int row = static_cast<int>(blockIdx.x); row < args.num_rows;
       row += static_cast<int>(gridDim.x)) {
    const int owner = OwnerOf(row, gang);
    if (kTwoShots && owner == gang.sync.rank) continue;
    const int64_t source = int64_t{args.rows == nullptr ? row : args.rows[row]} * args.size;
    for (int i = RowOffset(0); i < args.size; i += kRowThreads * kBf16VectorSize) {
      const uint4 words = Sendable(*reinterpret_cast<const uint4*>(own + source + i));
      const int64_t element = int64_t{row} * args.size + i;
      if constexpr (kTwoShots) {
        PushWords(words, static_cast<__nv_bfloat16*>(gang.inbox.at[owner]) + element);
      } else {
        PushToPeers(words, element, gang);
      }
    }
  }
}

template <int kVectors, int kRanks, bool kTwoShots>
__global__ void __launch_bounds__(kRowThreads, kBlocksPerMultiprocessor)
    PushedSumNormKernel(const __grid_constant__ SumNormArgs args) {
  // As far as registers go: vectors whose parts are on their way at once, and the norm's weights
  // before there is anything to wait for.
  constexpr int kAtOnce = kVectors * kRanks <= 4 ? kVectors : 1;
  constexpr bool kWeightsFirst = kVectors * kRanks <= 4;
  LetNextKernelStart(args.update.sync);
  RowWeights<kVectors> weights;
  if constexpr (kWeightsFirst) weights.Load(args.weight, args.size);
  WaitForKernelsBefore();
  const GangParts& gang = args.update;
  const int own = gang.sync.rank;
  PushRows<kTwoShots>(args);
  for (int row = static_cast<int>(blockIdx.x); row < args.num_rows;
       row += static_cast<int>(gridDim.x)) {
    const int64_t source = int64_t{args.rows == nullptr ? row : args.rows[row]} * args.size;
    const int64_t target = int64_t{row} * args.size;
    // Its own part is where the product left it.
    const auto place = [&](int rank, int v) {
      const void* const from = rank == own ? gang.parts[rank] : gang.inbox.from[rank];
      const int64_t first = rank == own ? source : target;
      return static_cast<uint4*>(const_cast<void*>(from)) +
             (first + RowOffset(v)) / kBf16VectorSize;
    };
    uint4 hidden[kVectors];
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (RowOffset(v) >= args.size) break;
      hidden[v] = *reinterpret_cast<const uint4*>(args.hidden + source + RowOffset(v));
    }
    const int owner = OwnerOf(row, gang);
    const bool comes_as_sum = kTwoShots && owner != own;
    Bf16Vector x[kVectors];
    float squares = 0;
#pragma unroll
    for (int first = 0; first < kVectors; first += kAtOnce) {
      uint4 parts[kAtOnce][kRanks];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        if (RowOffset(first + i) >= args.size) break;
        if (comes_as_sum) {
          parts[i][0] = PollWords(place(owner, first + i));
          continue;
        }
#pragma unroll
        for (int rank = 0; rank < kRanks; ++rank) {
          if (rank < gang.num_ranks) parts[i][rank] = PollWords(place(rank, first + i));
        }
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int v = first + i;
        if (RowOffset(v) >= args.size) break;
        Bf16Vector update;
        if (comes_as_sum) {
          ReceiveWords(gang.sync, place(owner, v), &parts[i][0]);
          update = UnpackVector(parts[i][0]);
        } else {
#pragma unroll
          for (int rank = 0; rank < kRanks; ++rank) {
            if (rank < gang.num_ranks && rank != own) {
              ReceiveWords(gang.sync, place(rank, v), &parts[i][rank]);
            }
          }
          update = SumInOrder<kRanks>(parts[i], gang.num_ranks);
          if constexpr (kTwoShots) {
            PushToPeers(Sendable(PackVector(update)), target + RowOffset(v), gang);
          }
        }
        x[v] = UnpackVector(hidden[v]);
        squares = AddUpdate(update, squares, &x[v]);
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

template <int kRanks, bool kTwoShots>
auto PushedKernelFor(int size) {
  constexpr int kPerBlock = kRowThreads * kBf16VectorSize;
  return size <= kPerBlock       ? PushedSumNormKernel<1, kRanks, kTwoShots>
         : size <= 2 * kPerBlock ? PushedSumNormKernel<2, kRanks, kTwoShots>
                                 : PushedSumNormKernel<4, kRanks, kTwoShots>;
}

auto PushedKernelFor(int size, int num_ranks, bool in_two_shots) {
  if (num_ranks <= 2) return PushedKernelFor<2, false>(size);
  if (num_ranks <= 4) {
    return in_two_shots ? PushedKernelFor<4, true>(size) : PushedKernelFor<4, false>(size);
  }
  return in_two_shots ? PushedKernelFor<kMaxRanks, true>(size)
                      : PushedKernelFor<kMaxRanks, false>(size);
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
  const dim3 grid(static_cast<unsigned>(num_blocks));
  const auto launch = [&](auto kernel) {
    return LaunchOverlapped(kernel, grid, kRowThreads, 0, 1, stream, args);
  };
  if (bytes <= args.update.inbox.bytes) {
    const bool in_two_shots = num_ranks > 2 && bytes > kMaxOneHopBytes;
    return CudaStatus(launch(PushedKernelFor(args.size, num_ranks, in_two_shots)), "SumNorm");
  }
  // A norm of some rows leaves the parts as they are: others may follow.
  const bool in_two_shots = num_ranks > 2 && most_blocks > 0 && args.rows == nullptr &&
                            args.sum != nullptr && bytes > kMaxOneShotBytes;
  if (in_two_shots) ASSAY_RETURN_IF_CUDA_ERROR(launch(SumOwnRowsKernel));
  return CudaStatus(launch(in_two_shots     ? KernelFor<1>(args.size)
                           : num_ranks <= 2 ? KernelFor<2>(args.size)
                                            : KernelFor<kMaxRanks>(args.size)),
                    "SumNorm");
}

}  // namespace assay::engine::cuda
