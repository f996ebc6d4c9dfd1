// y = x W^T (+ bias) for few rows of x and a bf16 weight; see few_rows.h.
//
// Reference: linear of kernels/cpu with inputs rounded to bf16. Sums agree up to float32's rounding
// in another order.
//
// A tile of y is up to 64 rows and kWidth features: rows stand on wgmma's left side, whose 64 rows
// need not be there, features on its right side, whose width is chosen so that the tiles are one
// even wave over the device's multiprocessors, or several. A block stays on its multiprocessor and
// goes through its tiles. Its last warps fill a ring of stages: one with weights, from the start,
// and one with inputs, after WaitForKernelsBefore(). The others are a warpgroup that multiplies and
// stores from its registers.
//
// Bound: 2 bytes a weight. The ring is as deep as shared memory allows, for what is fetched before
// the inputs are there is won. But no more is asked for at once than keeps the memory busy: 132
// multiprocessors need 30 KB each on its way to hide a microsecond at 4 TB/s, and what is asked for
// beyond that makes a queue that everybody stands in, the small kernels that this one waits for and
// its own inputs: with the whole ring asked for at once, the norm in front took 5.4 us, and 1.6
// with nothing behind it. Rows of x, which every block fetches from the second-level cache, are as
// many bytes as the weights where there are as many rows as a tile has features. One step of 16
// in_features is 16 + kWidth / 4 clocks of wgmma, one after the other: 24 with 32 features, of the
// 66 in which their bytes arrive at 3 TB/s.
#include <cuda.h>

#include <algorithm>
#include <iterator>

#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/few_rows.h"
#include "engine/kernels/cuda/launch.cuh"
#include "engine/kernels/cuda/product_ring.cuh"
#include "engine/kernels/cuda/tensor_map.h"
#include "engine/kernels/cuda/wgmma.cuh"

namespace assay::engine::cuda {
namespace {

constexpr int kConsumers = 128;  // threads
constexpr int kWeightWarp = kConsumers / 32;
constexpr int kInputWarp = kWeightWarp + 1;
constexpr int kThreads = (kInputWarp + 1) * 32;
constexpr int kMostStages = 32;
constexpr int kSlabRowBytes = kSlabColumns * 2;
// Of a multiprocessor's 227 KB; small kernels that stand beside the product want some too.
constexpr int kRingBytes = 208 << 10;
// Of weights that a block has asked for and that have not come; measured: 64 to 96 KB.
constexpr int kMostPendingBytes = 64 << 10;
// wgmma reads 64 rows of inputs, also where the box has fewer: those of the last stage are read
// beyond the ring.
constexpr int kBeyondRing = (kMostFewRows - 8) * kSlabRowBytes;

struct FewRowsParams {
  CUtensorMap x;       // boxes of box_rows rows
  CUtensorMap weight;  // boxes of a tile's features
  ProductOutput output;
  int box_rows;  // 8, 16, 32 or 64
  int num_tiles;
  int num_steps;  // of a stage's in_features
  int num_stages;
  int most_pending;  // stages of weights on their way
};

// Shapes known to the compiler.
template <int kWidth>
struct FewRowsTile {
  // A stage is some 16 KB of weights, so that what a stage costs by itself is little beside them;
  // less where 64 rows of inputs would take more room than the weights.
  static constexpr int kSlabs = kWidth <= 32 ? 4 : kWidth <= 64 ? 2 : 1;
  static constexpr int kWeightSlabBytes = kWidth * kSlabRowBytes;
  static_assert(kWeightSlabBytes % kTileAlignment == 0);

  static constexpr int InputBytes(int box_rows) { return kSlabs * box_rows * kSlabRowBytes; }
  static constexpr int StageBytes(int box_rows) {
    return InputBytes(box_rows) + kSlabs * kWeightSlabBytes;
  }
};

// Full is told of the inputs; of the weights there is a barrier besides, so that it is known how
// many are on their way.
class FewRowsRing : public Ring<kMostStages> {
 public:
  struct Barriers {
    Ring::Barriers of_ring;
    uint64_t landed[kMostStages];
  };

  __device__ FewRowsRing(uint8_t* memory, Barriers* barriers, int stage_bytes, int num_stages)
      : Ring(memory, &barriers->of_ring, stage_bytes, num_stages),
        num_stages_(num_stages),
        landed_(Uniform(SharedAddress(barriers->landed))) {}

  __device__ void InitBarriers() const {
    for (int stage = 0; stage < num_stages_; ++stage) InitBarrier(Landed(stage));
    Ring::InitBarriers(kConsumers / 32);
  }
  __device__ uint32_t Landed(int stage) const { return landed_ + static_cast<uint32_t>(stage * 8); }
  __device__ void WaitUntilLanded(const Place& place) const {
    WaitForPhase(Landed(place.stage), place.parity);
  }
  __device__ void WaitUntilFull(const Place& place) const {
    WaitUntilLanded(place);
    Ring::WaitUntilFull(place);
  }

 private:
  int num_stages_;
  uint32_t landed_;  // shared address
};

// A step of one of the block's tiles.
struct TileStep {
  int tile;
  int step = 0;

  __device__ void Advance(int num_steps) {
    if (++step == num_steps) {
      step = 0;
      tile += static_cast<int>(gridDim.x);
    }
  }
};

// A warp that fetches, through one of its lanes. All lanes go through the steps, so that addresses
// are the warp's.
template <int kWidth>
class WeightFetcher {
 public:
  __device__ WeightFetcher(const FewRowsParams& p, const FewRowsRing& ring)
      : p_(p), ring_(ring), fetches_(IsElected()) {}

  // What may be on its way at first.
  __device__ void Begin() {
    for (int i = 0; i < p_.most_pending && at_.tile < p_.num_tiles; ++i) Fetch();
  }
  __device__ void GoOn() {
    FewRowsRing::Place landed;
    for (; at_.tile < p_.num_tiles; ring_.Advance(&landed)) {
      ring_.WaitUntilFree(place_);
      ring_.WaitUntilLanded(landed);
      Fetch();
    }
  }

 private:
  using Tile = FewRowsTile<kWidth>;

  __device__ void Fetch() {
    const int input_bytes = Tile::InputBytes(p_.box_rows);
    if (fetches_) {
      const uint32_t landed = ring_.Landed(place_.stage);
      ExpectBytes(landed, static_cast<uint32_t>(Tile::StageBytes(p_.box_rows) - input_bytes));
      CopyBox(ring_.Stage(place_.stage) + static_cast<uint32_t>(input_bytes), &p_.weight,
              at_.tile * kWidth, at_.step * Tile::kSlabs, landed, ReadOncePolicy());
    }
    at_.Advance(p_.num_steps);
    ring_.Advance(&place_);
  }

  const FewRowsParams& p_;
  const FewRowsRing& ring_;
  const bool fetches_;
  TileStep at_ = {static_cast<int>(blockIdx.x)};
  FewRowsRing::Place place_;
};

template <int kWidth>
__device__ void FetchInputs(const FewRowsParams& p, const FewRowsRing& ring) {
  using Tile = FewRowsTile<kWidth>;
  const bool fetches = IsElected();
  WaitForKernelsBefore();
  FewRowsRing::Place place;
  for (TileStep at = {static_cast<int>(blockIdx.x)}; at.tile < p.num_tiles;
       at.Advance(p.num_steps), ring.Advance(&place)) {
    ring.WaitUntilFree(place);
    if (!fetches) continue;
    ExpectBytes(ring.Full(place.stage), static_cast<uint32_t>(Tile::InputBytes(p.box_rows)));
    CopyBox(ring.Stage(place.stage), &p.x, 0, at.step * Tile::kSlabs, ring.Full(place.stage),
            ReadOftenPolicy());
  }
}

// A thread's sums of a tile, which wgmma.cuh says where to find: pairs of two rows.
template <int kWidth>
struct ThreadTile {
  static constexpr int kPairs = kWidth / 8;  // of a row

  int row;  // and the one 8 further
  int64_t feature;
  uint32_t bias[kPairs];

  __device__ ThreadTile(const ProductOutput& output, int tile)
      : row(static_cast<int>(threadIdx.x) / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4),
        feature(int64_t{tile} * kWidth + threadIdx.x % 4 * 2) {
    if (output.bias == nullptr || row >= output.num_rows) return;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) bias[i] = output.BiasOf(feature + 8 * i);
  }

  __device__ void Store(const ProductOutput& output, const float (&sums)[kWidth / 2]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float2 pairs[kPairs];
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        pairs[i] = make_float2(sums[4 * i + 2 * half], sums[4 * i + 2 * half + 1]);
        if (output.bias != nullptr) {
          pairs[i].x += LowBf16(bias[i]);
          pairs[i].y += HighBf16(bias[i]);
        }
      }
      output.Store(row + 8 * half, feature, pairs);
    }
  }
};

// The consumers: a warpgroup.
template <int kWidth>
__device__ void MultiplyAndStore(const FewRowsParams& p, const FewRowsRing& ring) {
  using Tile = FewRowsTile<kWidth>;
  const bool signals = threadIdx.x % 32 == 0;
  float sums[kWidth / 2];
  FewRowsRing::Place place;
  for (int tile = static_cast<int>(blockIdx.x); tile < p.num_tiles; tile += gridDim.x) {
    const ThreadTile<kWidth> own(p.output, tile);
#pragma unroll
    for (float& sum : sums) sum = 0;
    int previous = -1;  // stage, of which products may still run
    for (int step = 0; step < p.num_steps; ++step, ring.Advance(&place)) {
      ring.WaitUntilFull(place);
      const uint32_t inputs = ring.Stage(place.stage);
      const uint32_t weights = inputs + static_cast<uint32_t>(Tile::InputBytes(p.box_rows));
      BeginProducts();
#pragma unroll
      for (int slab = 0; slab < Tile::kSlabs; ++slab) {
        const uint64_t left =
            TileDescriptor(inputs + static_cast<uint32_t>(slab * p.box_rows * kSlabRowBytes));
        const uint64_t right = TileDescriptor(weights + slab * Tile::kWeightSlabBytes);
#pragma unroll
        for (int k = 0; k < kSlabColumns / 16; ++k) {
          MultiplyTiles(sums, Columns16(left, k), Columns16(right, k));
        }
      }
      CommitProducts();
      // The products of one step overlap the wait for the next one.
      WaitForProducts<1>();
      if (signals && previous >= 0) Arrive(ring.Empty(previous));
      previous = place.stage;
    }
    WaitForProducts<0>();
    KeepInRegisters(sums);
    if (signals && previous >= 0) Arrive(ring.Empty(previous));
    own.Store(p.output, sums);
  }
}

template <int kWidth>
__global__ void __launch_bounds__(kThreads, 1)
    FewRowsKernel(const __grid_constant__ FewRowsParams p) {
  LetNextKernelStart();
  extern __shared__ uint8_t memory[];
  __shared__ FewRowsRing::Barriers barriers;
  const FewRowsRing ring(memory, &barriers, FewRowsTile<kWidth>::StageBytes(p.box_rows),
                         p.num_stages);
  WeightFetcher<kWidth> weights(p, ring);
  const int warp = WarpOfBlock();
  if (warp == kWeightWarp) {
    if (threadIdx.x % 32 == 0) ring.InitBarriers();
    __syncwarp();
    weights.Begin();
  }
  __syncthreads();
  if (warp == kWeightWarp) {
    weights.GoOn();
  } else if (warp == kInputWarp) {
    FetchInputs<kWidth>(p, ring);
  } else {
    MultiplyAndStore<kWidth>(p, ring);
  }
}

template <int kWidth>
absl::Status Launch(const FewRowsArgs& args, int num_multiprocessors, cudaStream_t stream) {
  using Tile = FewRowsTile<kWidth>;
  int box_rows = 8;
  while (box_rows < args.num_rows) box_rows *= 2;
  auto x = MakeTensorMap(args.x, args.num_rows, args.in_features, box_rows, Tile::kSlabs);
  if (!x.ok()) return x.status();
  auto weight =
      MakeTensorMap(args.weight, args.out_features, args.in_features, kWidth, Tile::kSlabs);
  if (!weight.ok()) return weight.status();
  const auto num_tiles = static_cast<int>((args.out_features + kWidth - 1) / kWidth);
  const auto num_steps =
      static_cast<int>((args.in_features / kSlabColumns + Tile::kSlabs - 1) / Tile::kSlabs);
  const int num_blocks = std::min(num_tiles, num_multiprocessors);
  const int steps_of_block = (num_tiles + num_blocks - 1) / num_blocks * num_steps;
  const int stage_bytes = Tile::StageBytes(box_rows);
  const int num_stages = std::min({kMostStages, kRingBytes / stage_bytes, steps_of_block});
  constexpr int kWeightBytes = Tile::kSlabs * Tile::kWeightSlabBytes;
  constexpr int kMostPending = (kMostPendingBytes + kWeightBytes - 1) / kWeightBytes;
  const FewRowsParams params = {.x = *x,
                                .weight = *weight,
                                .output = OutputOf(args),
                                .box_rows = box_rows,
                                .num_tiles = num_tiles,
                                .num_steps = num_steps,
                                .num_stages = num_stages,
                                .most_pending = std::min(num_stages, kMostPending)};
  const int most_bytes = kRingBytes + kTileAlignment + kBeyondRing;
  const auto kernel = FewRowsKernel<kWidth>;
  ASSAY_RETURN_IF_CUDA_ERROR(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most_bytes));
  const int bytes = params.num_stages * stage_bytes + kTileAlignment + kBeyondRing;
  return CudaStatus(LaunchOverlapped(kernel, dim3(static_cast<unsigned>(num_blocks)), kThreads,
                                     static_cast<size_t>(bytes), 1, stream, params),
                    "MultiplyFewRows");
}

struct Kernel {
  int width;
  absl::Status (*launch)(const FewRowsArgs&, int num_multiprocessors, cudaStream_t);
};
constexpr Kernel kKernels[] = {
    {8, Launch<8>},     {16, Launch<16>},   {24, Launch<24>},   {32, Launch<32>},
    {40, Launch<40>},   {48, Launch<48>},   {56, Launch<56>},   {64, Launch<64>},
    {80, Launch<80>},   {96, Launch<96>},   {112, Launch<112>}, {128, Launch<128>},
    {144, Launch<144>}, {160, Launch<160>}, {176, Launch<176>}, {192, Launch<192>},
    {208, Launch<208>}, {224, Launch<224>}, {240, Launch<240>}, {256, Launch<256>}};

// The narrowest tiles of as few waves as there can be.
const Kernel& FindKernel(int64_t out_features, int num_multiprocessors) {
  const int64_t widest_wave = int64_t{std::rbegin(kKernels)->width} * num_multiprocessors;
  const int64_t num_waves = (out_features + widest_wave - 1) / widest_wave;
  const int64_t num_blocks = num_waves * num_multiprocessors;
  const int64_t width = (out_features + num_blocks - 1) / num_blocks;
  return *std::ranges::lower_bound(kKernels, width, {}, &Kernel::width);
}

}  // namespace

absl::Status MultiplyFewRows(FewRowsArgs args, cudaStream_t stream) {
  if (args.out_features == 0) return absl::OkStatus();
  int device = 0;
  int num_multiprocessors = 0;
  ASSAY_RETURN_IF_CUDA_ERROR(cudaGetDevice(&device));
  ASSAY_RETURN_IF_CUDA_ERROR(
      cudaDeviceGetAttribute(&num_multiprocessors, cudaDevAttrMultiProcessorCount, device));
  const Kernel& kernel = FindKernel(args.out_features, num_multiprocessors);
  const int64_t row_bytes = args.out_features * (args.float_output ? 4 : 2);
  for (int left = args.num_rows; left > 0; left -= kMostFewRows) {
    args.num_rows = std::min(left, kMostFewRows);
    const absl::Status status = kernel.launch(args, num_multiprocessors, stream);
    if (!status.ok()) return status;
    args.x += int64_t{args.num_rows} * args.in_features;
    args.y = static_cast<uint8_t*>(args.y) + args.num_rows * row_bytes;
  }
  return absl::OkStatus();
}

}  // namespace assay::engine::cuda
