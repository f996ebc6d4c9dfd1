// The product of few rows with a weight of any format; few_rows.h and packed_product.h say what is
// computed and promised.
//
// A block computes a tile of 64 or 128 features of y for all rows and one chunk of in_features. Its
// last warp is the producer: copies of weights and inputs go into a ring of stages, weights before
// WaitForKernelsBefore(), inputs after it. The other warps are warpgroups of 64 features each and
// multiply with wgmma, the weights on its left side: the features fill its 64 rows, and its width
// is 8 to 128 rows of x, so that few rows cost few operations. The blocks of a tile's chunks are a
// cluster: each leaves its sums in its shared memory, and they are added in the order of chunks,
// without a trip through device memory.
//
// A result is the same for every width: wgmma sums 16 products into each element of d, in the order
// in which it is issued, and chunks are the same for every width.
//
// Bound: the bytes of the weight. 132 multiprocessors need 20 KB each in flight to hide a
// microsecond at 3 TB/s; rings are as deep as shared memory allows, for what is fetched before the
// inputs are there is won. From 128 rows on the inputs, which every block fetches from the
// second-level cache, are as many bytes again.
#pragma once

#include <cooperative_groups.h>
#include <cuda.h>
#include <cuda_bf16.h>

#include <algorithm>
#include <cstdint>

#include "engine/kernels/cuda/attention/ptx.cuh"
#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/few_rows.h"
#include "engine/kernels/cuda/launch.cuh"
#include "engine/kernels/cuda/tensor_map.h"
#include "engine/kernels/cuda/wgmma.cuh"

namespace assay::engine::cuda {

constexpr int kWarpgroupThreads = 128;
constexpr int kWarpgroupFeatures = 64;
constexpr int kMostChunks = 8;         // a cluster's portable size
constexpr int kMostStages = 24;        // of a ring
constexpr int kMultiprocessors = 132;  // of the device that grids are cut for
constexpr int kTileAlignment = 1024;

template <typename Weights>
struct FewRowsParams {
  CUtensorMap x;  // boxes of the tile's rows
  typename Weights::Params weights;
  const __nv_bfloat16* bias;  // [out_features] or null
  void* y;                    // [num_rows, out_features]
  int num_rows;               // at most the tile's
  int64_t out_features;
  int num_steps;  // of Weights::kDepth in_features
  int steps_per_chunk;
  int num_stages;
  bool float_output;
};

// Shapes known to the compiler: kRows of x at most, 64 features for each warpgroup.
template <typename Weights, int kRows, int kWarpgroups>
struct FewRowsTile {
  static constexpr int kFeatures = kWarpgroups * kWarpgroupFeatures;
  static constexpr int kConsumers = kWarpgroups * kWarpgroupThreads;
  static constexpr int kThreads = kConsumers + 32;
  static constexpr int kBoxBytes = kRows * kBoxColumns * 2;  // of inputs
  static constexpr int kInputBytes = kBoxBytes * (Weights::kDepth / kBoxColumns);
  // The swizzle wants inputs, and weights that it holds for too, on whole kilobytes.
  static constexpr int kWeightBytes = kWarpgroups * Weights::kBytes;
  static constexpr int kInputsAt =
      (kWeightBytes + kTileAlignment - 1) / kTileAlignment * kTileAlignment;
  static constexpr int kStageBytes = kInputsAt + kInputBytes;
  // As many blocks on a multiprocessor as leave each a ring that is deep enough.
  static constexpr int kSharedBytes = 216 << 10;  // of a multiprocessor, for rings
  static constexpr int BlocksWith(int num_stages) {
    return std::min(Weights::kMostBlocks, kSharedBytes / (num_stages * kStageBytes));
  }
  static constexpr int kBlocks = BlocksWith(4) >= 3 ? BlocksWith(4) : BlocksWith(3) >= 2 ? 2 : 1;
  // A small grid has room for deeper rings.
  static constexpr int StagesOf(int num_blocks) {
    return std::min(kMostStages, kSharedBytes / num_blocks / kStageBytes);
  }
  // Rows of sums: 4 floats more, and the lanes of a warp write to 32 different banks.
  static constexpr int kSumStride = kFeatures + 4;
  static constexpr int kSumBytes = kRows * kSumStride * 4;
  static constexpr int kWidth = std::min(kRows, 128);  // of one instruction
  static constexpr int kInstructions = kRows / kWidth;
  static_assert(kInstructions * kWidth == kRows && kBoxBytes % kTileAlignment == 0);
  static_assert(StagesOf(kBlocks) >= 2 && kSumBytes <= kSharedBytes / kBlocks);

  using Sums = float[kInstructions][kWidth / 2];

  static size_t SharedBytes(int num_stages) {
    return static_cast<size_t>(std::max(num_stages * kStageBytes, kSumBytes)) + kTileAlignment;
  }
};

// Copies a box of a tensor map; column and row are its first.
__device__ __forceinline__ void CopyBox(uint32_t to, const CUtensorMap* map, int column, int row,
                                        uint32_t barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_"
      "hint [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(barrier), "l"(policy)
      : "memory");
}

__device__ __forceinline__ uint64_t ReadOftenPolicy() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// A place in the ring, and how often it was passed.
struct RingPlace {
  int num_stages;
  int stage = 0;
  uint32_t parity = 0;

  __device__ void Advance() {
    if (++stage == num_stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

struct Ring {
  uint32_t stages;  // shared addresses
  uint32_t full;
  uint32_t empty;
};

// One thread's work. Steps are the chunk's own.
template <typename Weights, typename Tile>
__device__ void FetchTiles(const FewRowsParams<Weights>& p, const Ring& ring, int first_step,
                           int num_steps) {
  const uint64_t once = ReadOncePolicy();
  const uint64_t often = ReadOftenPolicy();
  const auto barrier = [&](int stage) { return ring.full + static_cast<uint32_t>(stage * 8); };
  const auto place = [&](int stage) {
    return ring.stages + static_cast<uint32_t>(stage * Tile::kStageBytes);
  };
  const auto fetch_weights = [&](int stage, int step) {
    ExpectBytes(barrier(stage), Tile::kWeightBytes + Tile::kInputBytes);
    Weights::template Fetch<Tile::kFeatures / kWarpgroupFeatures>(
        p.weights, static_cast<int>(blockIdx.y), first_step + step, place(stage), barrier(stage),
        once);
  };
  const auto fetch_inputs = [&](int stage, int step) {
#pragma unroll
    for (int box = 0; box < Weights::kDepth / kBoxColumns; ++box) {
      CopyBox(place(stage) + Tile::kInputsAt + box * Tile::kBoxBytes, &p.x,
              (first_step + step) * Weights::kDepth + box * kBoxColumns, 0, barrier(stage), often);
    }
  };
  const int ahead = min(num_steps, p.num_stages);
  for (int step = 0; step < ahead; ++step) fetch_weights(step, step);
  WaitForKernelsBefore();
  for (int step = 0; step < ahead; ++step) fetch_inputs(step, step);
  RingPlace at = {p.num_stages};
  for (int step = ahead; step < num_steps; ++step, at.Advance()) {
    WaitForPhase(ring.empty + static_cast<uint32_t>(at.stage * 8), at.parity);
    fetch_weights(at.stage, step);
    fetch_inputs(at.stage, step);
  }
}

// A warpgroup's work: its 64 features' sums over the chunk.
template <typename Weights, typename Tile>
__device__ void MultiplySteps(const FewRowsParams<Weights>& p, const Ring& ring, int num_steps,
                              typename Tile::Sums& sums) {
  const int thread = static_cast<int>(threadIdx.x) % kWarpgroupThreads;
  const int group = static_cast<int>(threadIdx.x) / kWarpgroupThreads;
  const bool signals = thread % 32 == 0;
#pragma unroll
  for (auto& part : sums) {
#pragma unroll
    for (float& sum : part) sum = 0;
  }
  RingPlace at = {p.num_stages};
  int previous = -1;
  for (int step = 0; step < num_steps; ++step, at.Advance()) {
    WaitForPhase(ring.full + static_cast<uint32_t>(at.stage * 8), at.parity);
    const uint32_t stage = ring.stages + static_cast<uint32_t>(at.stage * Tile::kStageBytes);
    Weights::template Multiply<Tile>(stage + static_cast<uint32_t>(group * Weights::kBytes),
                                     stage + Tile::kInputsAt, thread, sums);
    CommitProducts();
    // The products of one step overlap the wait for the next one.
    WaitForProducts<Weights::kPendingSteps>();
    const int done = Weights::kPendingSteps == 0 ? at.stage : previous;
    if (signals && done >= 0) Arrive(ring.empty + static_cast<uint32_t>(done * 8));
    previous = at.stage;
  }
  WaitForProducts<0>();
#pragma unroll
  for (auto& part : sums) KeepInRegisters(part);
}

// sums as [row][feature] in shared memory.
template <typename Tile>
__device__ void LeaveSums(const typename Tile::Sums& sums, float* shared) {
  const int thread = static_cast<int>(threadIdx.x);
  const int column = thread / 32 * 16 + thread % 32 / 4;
#pragma unroll
  for (int part = 0; part < Tile::kInstructions; ++part) {
#pragma unroll
    for (int i = 0; i < Tile::kWidth / 2; ++i) {
      const int row = part * Tile::kWidth + i / 4 * 8 + thread % 4 * 2 + i % 2;
      shared[row * Tile::kSumStride + column + (i % 4 >= 2 ? 8 : 0)] = sums[part][i];
    }
  }
}

// This block's share of the tile's results: the chunks' sums, in their order.
template <typename Weights, typename Tile>
__device__ void StoreResults(const FewRowsParams<Weights>& p, const float* shared, int num_chunks) {
  constexpr int kPairs = Tile::kFeatures / 2;
  const auto cluster = cooperative_groups::this_cluster();
  const int chunk = static_cast<int>(blockIdx.x);
  const int64_t first_feature = int64_t{blockIdx.y} * Tile::kFeatures;
  const bool whole_pairs = p.out_features % 2 == 0;
  for (int i = chunk * Tile::kThreads + static_cast<int>(threadIdx.x); i < p.num_rows * kPairs;
       i += num_chunks * Tile::kThreads) {
    const int row = i / kPairs;
    const int pair = i % kPairs;
    const int64_t feature = first_feature + 2 * pair;
    if (feature >= p.out_features) continue;
    const float* const own = shared + row * Tile::kSumStride + 2 * pair;
    float2 parts[kMostChunks];
#pragma unroll
    for (int c = 0; c < kMostChunks; ++c) {
      if (c >= num_chunks) break;
      parts[c] = num_chunks == 1
                     ? *reinterpret_cast<const float2*>(own)
                     : *reinterpret_cast<const float2*>(cluster.map_shared_rank(own, c));
    }
    float2 sum = parts[0];
#pragma unroll
    for (int c = 1; c < kMostChunks; ++c) {
      if (c >= num_chunks) break;
      sum.x += parts[c].x;
      sum.y += parts[c].y;
    }
    const bool both = feature + 1 < p.out_features;
    if (p.bias != nullptr) {
      sum.x += __bfloat162float(p.bias[feature]);
      if (both) sum.y += __bfloat162float(p.bias[feature + 1]);
    }
    const int64_t at = row * p.out_features + feature;
    if (p.float_output) {
      float* const out = static_cast<float*>(p.y) + at;
      if (whole_pairs) {
        *reinterpret_cast<float2*>(out) = sum;
      } else {
        out[0] = sum.x;
        if (both) out[1] = sum.y;
      }
    } else {
      auto* const out = static_cast<__nv_bfloat16*>(p.y) + at;
      if (whole_pairs) {
        *reinterpret_cast<uint32_t*>(out) = PackBf16(sum.x, sum.y);
      } else {
        out[0] = __float2bfloat16_rn(sum.x);
        if (both) out[1] = __float2bfloat16_rn(sum.y);
      }
    }
  }
}

template <typename Weights, int kRows, int kWarpgroups>
__global__ void __launch_bounds__((FewRowsTile<Weights, kRows, kWarpgroups>::kThreads),
                                  (FewRowsTile<Weights, kRows, kWarpgroups>::kBlocks))
    FewRowsKernel(const __grid_constant__ FewRowsParams<Weights> p) {
  using Tile = FewRowsTile<Weights, kRows, kWarpgroups>;
  LetNextKernelStart();
  extern __shared__ uint8_t dynamic_memory[];
  __shared__ __align__(8) uint64_t full[kMostStages];
  __shared__ __align__(8) uint64_t empty[kMostStages];
  const uint32_t begin = SharedAddress(dynamic_memory);
  const uint32_t padding = (kTileAlignment - begin % kTileAlignment) % kTileAlignment;
  const Ring ring = {begin + padding, SharedAddress(full), SharedAddress(empty)};
  auto* const shared_sums = reinterpret_cast<float*>(dynamic_memory + padding);

  const int num_chunks = static_cast<int>(gridDim.x);
  const int first_step = static_cast<int>(blockIdx.x) * p.steps_per_chunk;
  const int num_steps = max(0, min(p.steps_per_chunk, p.num_steps - first_step));
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < p.num_stages; ++stage) {
      InitBarrier(ring.full + static_cast<uint32_t>(stage * 8));
      InitBarrier(ring.empty + static_cast<uint32_t>(stage * 8), Tile::kConsumers / 32);
    }
    PublishBarriers();
  }
  __syncthreads();

  if (threadIdx.x < Tile::kConsumers) {
    typename Tile::Sums sums;
    MultiplySteps<Weights, Tile>(p, ring, num_steps, sums);
    // The sums go where the tiles were: no warpgroup reads those any more.
    asm volatile("bar.sync 1, %0;" ::"n"(Tile::kConsumers) : "memory");
    LeaveSums<Tile>(sums, shared_sums);
  } else if (threadIdx.x == Tile::kConsumers) {
    FetchTiles<Weights, Tile>(p, ring, first_step, num_steps);
  }
  __syncwarp();
  if (num_chunks == 1) {
    __syncthreads();
    StoreResults<Weights, Tile>(p, shared_sums, num_chunks);
  } else {
    const auto cluster = cooperative_groups::this_cluster();
    cluster.sync();
    StoreResults<Weights, Tile>(p, shared_sums, num_chunks);
    cluster.sync();  // nobody leaves while its sums are read
  }
}

// As many, a power of two, as leave the blocks of 64 features one wave of kWaveBlocks on every
// multiprocessor.
template <typename Weights>
int ChunksOf(int64_t out_features, int num_steps) {
  const int64_t tiles = (out_features + kWarpgroupFeatures - 1) / kWarpgroupFeatures;
  const int64_t wave = int64_t{Weights::kWaveBlocks} * kMultiprocessors;
  int chunks = 1;
  while (chunks < kMostChunks && tiles * chunks * 2 <= wave && chunks * 2 <= num_steps) chunks *= 2;
  return chunks;
}

template <typename Weights, int kRows, int kWarpgroups>
absl::Status LaunchFewRows(const FewRowsArgs& args, const typename Weights::Source& weights,
                           cudaStream_t stream) {
  using Tile = FewRowsTile<Weights, kRows, kWarpgroups>;
  const int num_steps =
      static_cast<int>((args.in_features + Weights::kDepth - 1) / Weights::kDepth);
  const int num_chunks = ChunksOf<Weights>(args.out_features, num_steps);
  const int steps_per_chunk = (num_steps + num_chunks - 1) / num_chunks;
  const int64_t num_tiles = (args.out_features + Tile::kFeatures - 1) / Tile::kFeatures;
  const int64_t blocks_each =
      (num_tiles * num_chunks + kMultiprocessors - 1) / kMultiprocessors;  // a multiprocessor
  const int most_stages =
      Tile::StagesOf(static_cast<int>(std::min<int64_t>(blocks_each, Tile::kBlocks)));
  auto input_map = MakeTensorMap(args.x, args.num_rows, args.in_features, kRows);
  if (!input_map.ok()) return input_map.status();
  auto source = Weights::MakeParams(weights, args.out_features, args.in_features, Tile::kFeatures);
  if (!source.ok()) return source.status();
  const FewRowsParams<Weights> params = {.x = *input_map,
                                         .weights = *source,
                                         .bias = args.bias,
                                         .y = args.y,
                                         .num_rows = args.num_rows,
                                         .out_features = args.out_features,
                                         .num_steps = num_steps,
                                         .steps_per_chunk = steps_per_chunk,
                                         .num_stages = std::min(most_stages, steps_per_chunk),
                                         .float_output = args.float_output};

  const auto kernel = FewRowsKernel<Weights, kRows, kWarpgroups>;
  ASSAY_RETURN_IF_CUDA_ERROR(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(Tile::SharedBytes(most_stages))));
  const dim3 grid(static_cast<unsigned>(num_chunks), static_cast<unsigned>(num_tiles));
  return CudaStatus(
      LaunchOverlapped(kernel, grid, Tile::kThreads, Tile::SharedBytes(params.num_stages),
                       num_chunks, stream, params),
      "MultiplyFewRows");
}

// Any number of rows: the narrowest tile that holds them, or several launches.
template <typename Weights>
absl::Status MultiplyFewRowsWith(FewRowsArgs args, const typename Weights::Source& weights,
                                 cudaStream_t stream) {
  const int64_t row_bytes = args.out_features * (args.float_output ? 4 : 2);
  for (int left = args.num_rows; left > 0; left -= Weights::kMostRows) {
    args.num_rows = std::min(left, Weights::kMostRows);
    auto* launch = LaunchFewRows<Weights, Weights::kMostRows, 2>;
    if (args.num_rows <= 8) {
      launch = LaunchFewRows<Weights, 8, 1>;
    } else if (args.num_rows <= 16) {
      launch = LaunchFewRows<Weights, 16, 1>;
    } else if (args.num_rows <= 32) {
      launch = LaunchFewRows<Weights, 32, 1>;
    } else if (args.num_rows <= 64) {
      launch = LaunchFewRows<Weights, 64, 2>;
    } else if (args.num_rows <= 128) {
      launch = LaunchFewRows<Weights, 128, 2>;
    }
    const absl::Status status = launch(args, weights, stream);
    if (!status.ok()) return status;
    args.x += int64_t{args.num_rows} * args.in_features;
    args.y = static_cast<uint8_t*>(args.y) + args.num_rows * row_bytes;
  }
  return absl::OkStatus();
}

}  // namespace assay::engine::cuda
