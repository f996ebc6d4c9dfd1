// y = x W^T (+ bias) for few rows of x and a packed weight; see packed_weight.h.
//
// Reference: linear of kernels/cpu on DecodeLinearWeight's numbers, rounded to bf16. Sums agree up
// to float32's rounding in another order.
//
// Features stand on wgmma's left side, for that one comes from registers, into which weights are
// decoded; its width is 8 to 64 rows of x. A block computes a tile of 64 features for each of its
// warpgroups, for all rows and one chunk of in_features: decoding wants many warps, more than there
// are tiles. Its last warp is the producer, as in few_rows.cu. The blocks of a tile's chunks are a
// cluster: each leaves its sums in its shared memory, and they are added in the order of chunks,
// without a trip through device memory. Chunks follow from the shape of the weight alone.
//
// Bound: 1.04, 0.54 or 0.41 bytes a weight. Decoding takes 2.4 instructions a weight of 4 bits (a
// mask, a sum, a product and an fma for two, three shifts for eight), 2.8 of 3 bits, 3.5 of 8; half
// of a step is decoded while the other half is multiplied.
#include <cooperative_groups.h>
#include <cuda.h>

#include <algorithm>

#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/few_rows.h"
#include "engine/kernels/cuda/launch.cuh"
#include "engine/kernels/cuda/packed_weight.cuh"
#include "engine/kernels/cuda/product_ring.cuh"
#include "engine/kernels/cuda/tensor_map.h"
#include "engine/kernels/cuda/wgmma.cuh"

namespace assay::engine::cuda {
namespace {

constexpr int kMostChunks = 8;         // a cluster's portable size
constexpr int kMostStages = 24;        // of a ring
constexpr int kMultiprocessors = 132;  // of the device that grids are cut for
constexpr int kSlabRowBytes = kSlabColumns * 2;
constexpr int kSlabsOfStep = kPackedTileDepth / kSlabColumns;
constexpr int kMultipliesOfSlab = kSlabColumns / 16;

using PackedRing = Ring<kMostStages>;

struct PackedParams {
  CUtensorMap x;         // boxes of the block's rows
  const uint8_t* tiles;  // [feature tiles, steps, tile bytes]
  ProductOutput output;
  int num_steps;  // of kPackedTileDepth in_features
  int steps_per_chunk;
  int num_stages;
};

// Decoding waits for itself: as many blocks on a multiprocessor as there are registers for, where
// stages are small.
constexpr int MostBlocks(int bits) { return bits == 8 ? 3 : 5; }

// Shapes known to the compiler: of a block for kRows rows at most.
template <int kBits, int kRows>
struct PackedBlock {
  static constexpr int kWarpgroups = kRows > 32 ? 2 : 1;  // that share the inputs they fetch
  static constexpr int kFeatures = kWarpgroups * kPackedTileFeatures;
  static constexpr int kConsumers = kWarpgroups * kTileThreads;
  static constexpr int kThreads = kConsumers + 32;
  static constexpr int kTileBytes = static_cast<int>(PackedTileBytes(kBits));
  static constexpr int kSlabBytes = kRows * kSlabRowBytes;
  static constexpr int kInputBytes = kSlabsOfStep * kSlabBytes;
  static constexpr int kFetchedBytes = kInputBytes + kWarpgroups * kTileBytes;
  static constexpr int kStageBytes =
      (kFetchedBytes + kTileAlignment - 1) / kTileAlignment * kTileAlignment;
  // As many blocks on a multiprocessor as leave each a ring that is deep enough.
  static constexpr int kSharedBytes = 216 << 10;  // of a multiprocessor, for rings
  static constexpr int kBlocks = std::min(MostBlocks(kBits), kSharedBytes / (4 * kStageBytes));
  // Rows of sums: 4 floats more, and the lanes of a warp write to 32 different banks.
  static constexpr int kSumStride = kFeatures + 4;
  static constexpr int kSumBytes = kRows * kSumStride * 4;
  static_assert(kBlocks >= 1 && kSumBytes <= kSharedBytes / kBlocks);

  using Sums = float[kRows / 2];

  static size_t SharedBytes(int num_stages) {
    return static_cast<size_t>(std::max(num_stages * kStageBytes, kSumBytes)) + kTileAlignment;
  }
};

// The producer: a warp, one lane of which fetches. Steps are the chunk's own.
template <typename Block>
class Producer {
 public:
  __device__ Producer(const PackedParams& p, const PackedRing& ring, int first_step, int num_steps)
      : p_(p), ring_(ring), first_step_(first_step), num_steps_(num_steps), fetches_(IsElected()) {}

  // The weights of the first steps, as far as there is room.
  __device__ void FetchWeightsAhead() const {
    for (int step = 0; step < num_ahead(); ++step) FetchWeights(step, step);
  }

  // Everything else.
  __device__ void FetchTheRest() const {
    WaitForKernelsBefore();
    for (int step = 0; step < num_ahead(); ++step) FetchInputs(step, step);
    PackedRing::Place place;
    for (int step = num_ahead(); step < num_steps_; ++step, ring_.Advance(&place)) {
      ring_.WaitUntilEmpty(place);
      FetchWeights(place.stage, step);
      FetchInputs(place.stage, step);
    }
  }

 private:
  __device__ int num_ahead() const { return min(num_steps_, p_.num_stages); }
  __device__ void FetchWeights(int stage, int step) const {
    if (!fetches_) return;
    ExpectBytes(ring_.Full(stage), Block::kFetchedBytes);
#pragma unroll
    for (int group = 0; group < Block::kWarpgroups; ++group) {
      const int64_t tile = int64_t{blockIdx.y} * Block::kWarpgroups + group;
      BulkCopy(ring_.Stage(stage) + Block::kInputBytes + group * Block::kTileBytes,
               p_.tiles + (tile * p_.num_steps + first_step_ + step) * Block::kTileBytes,
               Block::kTileBytes, ring_.Full(stage), ReadOncePolicy());
    }
  }
  __device__ void FetchInputs(int stage, int step) const {
    if (!fetches_) return;
    CopyBox(ring_.Stage(stage), &p_.x, 0, (first_step_ + step) * kSlabsOfStep, ring_.Full(stage),
            ReadOftenPolicy());
  }

  const PackedParams& p_;
  const PackedRing& ring_;
  const int first_step_;
  const int num_steps_;
  const bool fetches_;
};

// A warpgroup's work: its 64 features' sums over the chunk.
template <int kBits, typename Block>
__device__ void MultiplySteps(const PackedRing& ring, int num_steps, typename Block::Sums& sums) {
  const int thread = static_cast<int>(threadIdx.x) % kTileThreads;
  const int group = static_cast<int>(threadIdx.x) / kTileThreads;
  const bool signals = thread % 32 == 0;
#pragma unroll
  for (float& sum : sums) sum = 0;
  PackedRing::Place place;
  int previous = -1;  // stage, of which products may still run
  uint32_t left[kSlabsOfStep][kMultipliesOfSlab][4];
  for (int step = 0; step < num_steps; ++step, ring.Advance(&place)) {
    ring.WaitUntilFull(place);
    const uint32_t inputs = ring.Stage(place.stage);
    const auto* const tile = static_cast<const uint8_t*>(__cvta_shared_to_generic(
        static_cast<size_t>(inputs) + Block::kInputBytes + group * Block::kTileBytes));
    ThreadCodes<kBits> codes;
    codes.Load(tile, thread);
    RowGrid<kBits> grids[2];
    ThreadCodes<kBits>::LoadGrids(tile, thread, grids);
#pragma unroll
    for (int slab = 0; slab < kSlabsOfStep; ++slab) {
      // The products of this slab of the step before have ended: their registers are free.
      WaitForProducts<kSlabsOfStep - 1>();
      if (slab + 1 == kSlabsOfStep && signals && previous >= 0) Arrive(ring.Empty(previous));
#pragma unroll
      for (int i = 0; i < kMultipliesOfSlab; ++i) {
        codes.Decode(slab * kMultipliesOfSlab + i, grids, left[slab][i]);
      }
      BeginProducts();
#pragma unroll
      for (int i = 0; i < kMultipliesOfSlab; ++i) {
        const uint64_t right = TileDescriptor(inputs + slab * Block::kSlabBytes);
        MultiplyTiles(sums, left[slab][i], Columns16(right, i));
      }
      CommitProducts();
    }
    previous = place.stage;
  }
  WaitForProducts<0>();
  KeepInRegisters(sums);
}

// sums as [row][feature] in shared memory.
template <typename Block>
__device__ void LeaveSums(const typename Block::Sums& sums, float* shared) {
  const int thread = static_cast<int>(threadIdx.x);
  const int column = thread / 32 * 16 + thread % 32 / 4;
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(sums) / sizeof(float)); ++i) {
    const int row = i / 4 * 8 + thread % 4 * 2 + i % 2;
    shared[row * Block::kSumStride + column + (i % 4 >= 2 ? 8 : 0)] = sums[i];
  }
}

// This block's share of the tile's results: the chunks' sums, in their order.
template <typename Block>
__device__ void StoreResults(const PackedParams& p, const float* shared, int num_chunks) {
  constexpr int kPairs = Block::kFeatures / 2;
  const auto cluster = cooperative_groups::this_cluster();
  const int64_t first_feature = int64_t{blockIdx.y} * Block::kFeatures;
  for (int i = static_cast<int>(blockIdx.x * Block::kThreads + threadIdx.x);
       i < p.output.num_rows * kPairs; i += num_chunks * Block::kThreads) {
    const int row = i / kPairs;
    const int pair = i % kPairs;
    const float* const own = shared + row * Block::kSumStride + 2 * pair;
    float2 parts[kMostChunks];
#pragma unroll
    for (int chunk = 0; chunk < kMostChunks; ++chunk) {
      if (chunk < num_chunks) {
        parts[chunk] = *reinterpret_cast<const float2*>(cluster.map_shared_rank(own, chunk));
      }
    }
    float2 sum = parts[0];
#pragma unroll
    for (int chunk = 1; chunk < kMostChunks; ++chunk) {
      if (chunk < num_chunks) {
        sum.x += parts[chunk].x;
        sum.y += parts[chunk].y;
      }
    }
    const int64_t feature = first_feature + 2 * pair;
    if (p.output.bias != nullptr) {
      const uint32_t bias = p.output.BiasOf(feature);
      sum.x += LowBf16(bias);
      sum.y += HighBf16(bias);
    }
    const float2 pairs[] = {sum};
    p.output.Store(row, feature, pairs);
  }
}

template <int kBits, int kRows>
__global__ void __launch_bounds__((PackedBlock<kBits, kRows>::kThreads),
                                  (PackedBlock<kBits, kRows>::kBlocks))
    PackedKernel(const __grid_constant__ PackedParams p) {
  using Block = PackedBlock<kBits, kRows>;
  LetNextKernelStart();
  extern __shared__ uint8_t memory[];
  __shared__ PackedRing::Barriers barriers;
  const PackedRing ring(memory, &barriers, Block::kStageBytes, p.num_stages);
  const int first_step = static_cast<int>(blockIdx.x) * p.steps_per_chunk;
  const int num_steps = max(0, min(p.steps_per_chunk, p.num_steps - first_step));
  const Producer<Block> producer(p, ring, first_step, num_steps);
  const bool produces = WarpOfBlock() == Block::kConsumers / 32;
  if (produces) {
    if (threadIdx.x == Block::kConsumers) ring.InitBarriers(Block::kConsumers / 32);
    __syncwarp();
    producer.FetchWeightsAhead();
  }
  __syncthreads();
  // The sums go where the tiles were, when no warpgroup reads those any more.
  auto* const shared_sums =
      static_cast<float*>(__cvta_shared_to_generic(static_cast<size_t>(ring.Stage(0))));
  if (produces) {
    producer.FetchTheRest();
  } else {
    typename Block::Sums sums;
    MultiplySteps<kBits, Block>(ring, num_steps, sums);
    asm volatile("bar.sync 1, %0;" ::"n"(Block::kConsumers) : "memory");
    LeaveSums<Block>(sums, shared_sums);
  }
  __syncwarp();
  const auto cluster = cooperative_groups::this_cluster();
  cluster.sync();
  StoreResults<Block>(p, shared_sums, static_cast<int>(gridDim.x));
  cluster.sync();  // nobody leaves while its sums are read
}

// As many, a power of two, as leave the blocks of 64 features one wave.
int ChunksOf(int bits, int64_t out_features, int num_steps) {
  const int64_t tiles = (out_features + kPackedTileFeatures - 1) / kPackedTileFeatures;
  const int64_t wave = int64_t{MostBlocks(bits)} * kMultiprocessors;
  int chunks = 1;
  while (chunks < kMostChunks && tiles * chunks * 2 <= wave && chunks * 2 <= num_steps) chunks *= 2;
  return chunks;
}

template <int kBits, int kRows>
absl::Status Launch(const FewRowsArgs& args, const uint8_t* tiles, cudaStream_t stream) {
  using Block = PackedBlock<kBits, kRows>;
  const auto num_steps =
      static_cast<int>((args.in_features + kPackedTileDepth - 1) / kPackedTileDepth);
  const int num_chunks = ChunksOf(kBits, args.out_features, num_steps);
  const int steps_per_chunk = (num_steps + num_chunks - 1) / num_chunks;
  const int64_t num_tiles = (args.out_features + Block::kFeatures - 1) / Block::kFeatures;
  // A small grid has room for deeper rings.
  const int64_t blocks_each = (num_tiles * num_chunks + kMultiprocessors - 1) / kMultiprocessors;
  const auto num_blocks = static_cast<int>(std::min<int64_t>(blocks_each, Block::kBlocks));
  const int most_stages =
      std::min(kMostStages, Block::kSharedBytes / num_blocks / Block::kStageBytes);
  auto x = MakeTensorMap(args.x, args.num_rows, args.in_features, kRows, kSlabsOfStep);
  if (!x.ok()) return x.status();
  const PackedParams params = {.x = *x,
                               .tiles = tiles,
                               .output = OutputOf(args),
                               .num_steps = num_steps,
                               .steps_per_chunk = steps_per_chunk,
                               .num_stages = std::min(most_stages, steps_per_chunk)};
  const auto kernel = PackedKernel<kBits, kRows>;
  ASSAY_RETURN_IF_CUDA_ERROR(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(Block::SharedBytes(most_stages))));
  const dim3 grid(static_cast<unsigned>(num_chunks), static_cast<unsigned>(num_tiles));
  return CudaStatus(
      LaunchOverlapped(kernel, grid, Block::kThreads, Block::SharedBytes(params.num_stages),
                       num_chunks, stream, params),
      "MultiplyPacked");
}

// The narrowest block that holds the rows, or several launches.
template <int kBits>
absl::Status Multiply(FewRowsArgs args, const uint8_t* tiles, cudaStream_t stream) {
  const int64_t row_bytes = args.out_features * (args.float_output ? 4 : 2);
  for (int left = args.num_rows; left > 0; left -= kMostFewRows) {
    args.num_rows = std::min(left, kMostFewRows);
    const auto launch = args.num_rows <= 8    ? Launch<kBits, 8>
                        : args.num_rows <= 16 ? Launch<kBits, 16>
                        : args.num_rows <= 32 ? Launch<kBits, 32>
                                              : Launch<kBits, 64>;
    const absl::Status status = launch(args, tiles, stream);
    if (!status.ok()) return status;
    args.x += int64_t{args.num_rows} * args.in_features;
    args.y = static_cast<uint8_t*>(args.y) + args.num_rows * row_bytes;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status MultiplyPacked(const FewRowsArgs& args, const PackedWeight& packed,
                            cudaStream_t stream) {
  switch (packed.bit_width) {
    case 8:
      return Multiply<8>(args, packed.tiles, stream);
    case 4:
      return Multiply<4>(args, packed.tiles, stream);
    case 3:
      return Multiply<3>(args, packed.tiles, stream);
    default:
      return absl::InvalidArgumentError("MultiplyPacked: 8, 4 or 3 bits");
  }
}

}  // namespace assay::engine::cuda
