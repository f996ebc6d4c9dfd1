// Draws a token from each row of logits.
//
// Reference: engine/sampling/sampler.cc; the same id from the same logits. A row's ranks are the
// order of (level, id); a draw looks for the first rank at which a running sum of masses exceeds a
// target. Instead of sorting, the rank is found by digits of the level:
//
//   pass 1  the maximum, and with it the greedy id
//   pass 2  a histogram of the masses over the upper 10 bits of the levels, 1/32 of temperature
//   pass 3  the tokens of the bin that holds the rank are listed, sorted and added up in shared
//           memory; a bin that holds more than the list takes is split by its next digits
//
// The draw's target is a share of the nucleus' mass, which its edge's rank says exactly and its
// edge's bin nearly: pass 3 lists the tokens of both bins and finds both ranks. Where they are more
// than the list takes, and for top_k, it runs once for each rank.
//
// Bound: for many rows memory and atomics of shared memory, three reads of the row, 0.6 MB each for
// 152k tokens, the later ones in part from L2; for few rows latency, so a cluster of thread blocks
// shares each. Each block has a slice (a copy of it in shared memory, where rows are fewest),
// histograms are added through distributed shared memory, and every block sorts the whole list for
// itself, which is sooner done than handed out. Integers: the id is the same.
#include "engine/kernels/cuda/attention/ptx.cuh"
#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/launch.cuh"
#include "engine/kernels/cuda/sample.h"
#include "engine/kernels/cuda/sample_rank.cuh"
#include "engine/kernels/philox.h"

namespace assay::engine::cuda {
namespace {

using namespace sampling;  // NOLINT: the other half of this file

constexpr int kMostBlocks = 16;      // of a row, where the device grants clusters of so many
constexpr int kPortableBlocks = 8;   // which every device does
constexpr int kBlocksAtOnce = 256;   // two on each multiprocessor
constexpr int kSharedSlice = 12288;  // tokens: of a row that kMostBlocks share

// The tokens of a block's slice: whole vectors; the last slice may be shorter, or empty.
__host__ __device__ constexpr int SliceSize(int vocab_size, int num_blocks) {
  return (vocab_size + 4 * num_blocks - 1) / (4 * num_blocks) * 4;
}

// Copies go by 16 bytes.
__host__ __device__ constexpr bool KeepsSlice(int vocab_size, int num_blocks) {
  return num_blocks == kMostBlocks && vocab_size % 4 == 0 &&
         SliceSize(vocab_size, num_blocks) <= kSharedSlice;
}

// Floats in the order of integers; 0 is left for NaN.
__device__ uint32_t OrderedBits(float x) {
  const uint32_t bits = __float_as_uint(__fadd_rn(x, 0.0f));  // -0 becomes 0
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ uint64_t WarpMax(uint64_t x) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    const uint64_t other = __shfl_xor_sync(kAllLanes, x, distance);
    x = other > x ? other : x;
  }
  return x;
}

// The largest logit with the lowest id, in all threads: ordered bits above, ~id below.
template <int kBlocks>
__device__ uint64_t FindBest(const Row& row, const Cluster<kBlocks>& cluster) {
  SharedState* const shared = cluster.own;
  uint64_t best = 0;
  row.ForEach([&](int id, float logit) {
    if (logit != logit) return;
    const uint64_t key = uint64_t{OrderedBits(logit)} << 32 | ~static_cast<uint32_t>(id);
    best = key > best ? key : best;
  });
  const int lane = threadIdx.x % 32;
  best = WarpMax(best);
  if (lane == 0) shared->warp_bests[threadIdx.x / 32] = best;
  __syncthreads();
  if (threadIdx.x < 32) {
    best = WarpMax(lane < kWarps ? shared->warp_bests[lane] : 0);
    if (lane == 0) shared->best = best;
  }
  cluster.Sync();
  return WarpMax(lane < kBlocks ? cluster.shared_of(lane)->best : 0);
}

// This block's slice of a row, copied into shared memory where it has a place there.
template <int kBlocks>
__device__ Row TakeSlice(const SampleArgs& args, int rank, SharedState* shared,
                         float* shared_slice) {
  const int size = SliceSize(args.vocab_size, kBlocks);
  const int begin = min(rank * size, args.vocab_size);
  const float* const logits =
      args.logits + static_cast<int64_t>(blockIdx.x / kBlocks) * args.vocab_size;
  Row row = {.logits = logits,
             .vocab_size = args.vocab_size,
             .maximum = 0,
             .inverse_temperature = 0,
             .begin = begin,
             .end = min(begin + size, args.vocab_size),
             .slice = logits + begin};
  if (!KeepsSlice(args.vocab_size, kBlocks)) return row;
  row.slice = shared_slice;
  const uint32_t loaded = SharedAddress(&shared->loaded);
  const auto bytes = static_cast<uint32_t>((row.end - begin) * static_cast<int>(sizeof(float)));
  if (threadIdx.x == 0 && bytes > 0) {
    ExpectBytes(loaded, bytes);
    BulkCopy(SharedAddress(shared_slice), logits + begin, bytes, loaded, ReadOncePolicy());
  }
  if (bytes > 0) WaitForPhase(loaded, 0);
  return row;
}

// Finds are in the order of their names; each one's mass is the next one's total.
enum Find { kTopK, kNucleus, kDraw };

template <int kBlocks>
__global__ void __launch_bounds__(kThreads, 2) SampleKernel(const SampleArgs args) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  const Cluster<kBlocks> cluster = {reinterpret_cast<SharedState*>(shared_bytes)};
  SharedState* const shared = cluster.own;
  LetNextKernelStart();
  if (threadIdx.x == 0) {
    InitBarrier(SharedAddress(&shared->loaded));
    PublishBarriers();
  }
  shared->first.Clear();
  WaitForKernelsBefore();
  const int row_index = static_cast<int>(blockIdx.x) / kBlocks;
  const RowSampling params = args.params[row_index];
  Row row = TakeSlice<kBlocks>(args, cluster.rank(), shared,
                               reinterpret_cast<float*>(shared_bytes + sizeof(SharedState)));

  const uint64_t best = FindBest(row, cluster);
  const uint32_t ordered = static_cast<uint32_t>(best >> 32);
  const int32_t best_id = best == 0 ? 0 : static_cast<int32_t>(~static_cast<uint32_t>(best));
  const bool writes = cluster.rank() == 0 && threadIdx.x == 0;
  row.maximum = __uint_as_float(ordered & 0x80000000u ? ordered & 0x7FFFFFFFu : ~ordered);
  row.inverse_temperature = __fdiv_rn(1.0f, params.temperature);
  if (best == 0 || !(params.temperature > 0) || !isfinite(row.inverse_temperature) ||
      !isfinite(row.maximum)) {
    if (writes) args.ids[row_index] = best_id;
    cluster.Sync();  // nobody leaves while its memory is read
    return;
  }

  const bool counts = params.top_k > 0;
  row.ForEach([&](int, float logit) {
    const uint32_t level = row.Level(logit);
    if (level >= kFirstMasslessLevel && (!counts || level == kLastLevel)) return;
    const uint32_t bin = level >> kFirstShift;
    shared->first.Add(bin, row.Mass(logit));
    if (counts) atomicAdd(&shared->first.counts[bin], 1u);
  });
  cluster.AddUp(&SharedState::first);
  Bins bins;
  AddUpBins(shared->first, {}, shared, &bins);

  Rank rank = {.id = best_id, .running_mass = bins.total.mass};
  const uint64_t word = UniformWord(params.seed, params.position);
  int turn = 0;
#pragma unroll 1
  for (int find = kTopK; find <= kDraw; ++find) {
    uint64_t target = 0;
    if (find == kTopK) {
      target = static_cast<uint64_t>(params.top_k) - 1;
      if (!counts || bins.total.count <= target) continue;
    } else if (find == kNucleus) {
      if (!(params.top_p < 1)) continue;
      const uint64_t mass = NucleusMass(params.top_p, rank.running_mass);
      const uint64_t wanted = mass > 0 ? mass : 1;
      if (DrawFromNucleus(row, bins, wanted, word, cluster, &turn, &rank.id)) break;
      target = wanted - 1;
    } else {
      target = __umul64hi(word, rank.running_mass);
    }
    rank = FindRank(row, bins, find == kTopK, target, cluster, &turn);
  }
  if (writes) args.ids[row_index] = rank.id;
  cluster.Sync();
}

template <int kBlocks>
absl::Status Launch(const SampleArgs& args, cudaStream_t stream) {
  const auto kernel = SampleKernel<kBlocks>;
  const int slice = KeepsSlice(args.vocab_size, kBlocks) ? SliceSize(args.vocab_size, kBlocks) : 0;
  const size_t bytes = sizeof(SharedState) + static_cast<size_t>(slice) * sizeof(float);
  ASSAY_RETURN_IF_CUDA_ERROR(cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
  if constexpr (kBlocks > kPortableBlocks) {
    ASSAY_RETURN_IF_CUDA_ERROR(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
  }
  return CudaStatus(LaunchOverlapped(kernel, dim3(static_cast<unsigned>(args.num_rows * kBlocks)),
                                     kThreads, bytes, kBlocks, stream, args),
                    "Sample");
}

// Whether the devices of this process (they are all of one kind) run clusters of kMostBlocks. They
// need as many free multiprocessors side by side, which a slice of a GPU may not have.
bool HasLargeClusters() {
  static const bool has = [] {
    const auto kernel = SampleKernel<kMostBlocks>;
    constexpr int kBytes = static_cast<int>(sizeof(SharedState) + kSharedSlice * sizeof(float));
    cudaLaunchAttribute cluster = {};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {kMostBlocks, 1, 1};
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(kMostBlocks);
    config.blockDim = dim3(kThreads);
    config.dynamicSmemBytes = kBytes;
    config.attrs = &cluster;
    config.numAttrs = 1;
    int count = 0;
    const bool fits =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1) ==
            cudaSuccess &&
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes) ==
            cudaSuccess &&
        cudaOccupancyMaxActiveClusters(&count, kernel, &config) == cudaSuccess && count > 0;
    if (!fits) (void)cudaGetLastError();
    return fits;
  }();
  return has;
}

}  // namespace

absl::Status Sample(const SampleArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0) return absl::OkStatus();
  const int blocks = kBlocksAtOnce / args.num_rows;  // for each row
  if (blocks >= kMostBlocks && HasLargeClusters()) return Launch<kMostBlocks>(args, stream);
  if (blocks >= kPortableBlocks) return Launch<kPortableBlocks>(args, stream);
  if (blocks >= 4) return Launch<4>(args, stream);
  if (blocks >= 2) return Launch<2>(args, stream);
  return Launch<1>(args, stream);
}

}  // namespace assay::engine::cuda
