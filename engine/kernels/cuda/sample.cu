// Draws a token from each row of logits.
//
// Reference: engine/sampling/sampler.cc; the same id from the same logits. A row's ranks are the
// order of (level, id); a draw looks for the first rank at which a running sum of masses exceeds a
// target. Instead of sorting, the rank is found by digits of the level:
//
//   pass 1  the maximum, and with it the greedy id
//   pass 2  a histogram of the masses over the upper 10 bits of the levels, 1/32 of temperature
//   each pass 3  the tokens of the one bin that holds the rank are listed, sorted and added up in
//   shared
//           memory; a bin that holds more than the list takes is split by its next digits
//
// Pass 3 runs once for the edge of the nucleus and once for the draw (and once more for top_k).
//
// Bound by memory and by atomics of shared memory: four reads of the row, 0.6 MB each for 152k
// tokens, the later ones mostly from L2. Where rows are few a cluster of thread blocks shares one:
// each reads its slice, histograms are added through distributed shared memory, and the list is the
// first block's. Integers: the id is the same.
#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/launch.cuh"
#include "engine/kernels/cuda/sample.h"
#include "engine/kernels/cuda/sample_rank.cuh"
#include "engine/kernels/philox.h"

namespace assay::engine::cuda {
namespace {

using namespace sampling;  // NOLINT: the other half of this file

// Floats in the order of integers; 0 is left for NaN.
__device__ uint32_t OrderedBits(float x) {
  const uint32_t bits = __float_as_uint(__fadd_rn(x, 0.0f));  // -0 becomes 0
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The largest logit with the lowest id, in all threads: ordered bits above, ~id below.
template <int kBlocks>
__device__ uint64_t FindBest(const Row& row, const Cluster<kBlocks>& cluster) {
  SharedState* const shared = cluster.own;
  if (threadIdx.x == 0) shared->best = 0;
  __syncthreads();
  uint64_t best = 0;
  row.ForEach([&](int id, float logit) {
    if (logit != logit) return;
    const uint64_t key = uint64_t{OrderedBits(logit)} << 32 | ~static_cast<uint32_t>(id);
    best = key > best ? key : best;
  });
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    const uint64_t other = __shfl_xor_sync(0xFFFFFFFFu, best, distance);
    best = other > best ? other : best;
  }
  if (threadIdx.x % 32 == 0) {
    atomicMax(reinterpret_cast<unsigned long long*>(&shared->best), best);
  }
  cluster.Sync();
  best = shared->best;
  for (int other = 0; other < kBlocks; ++other) {
    const uint64_t theirs = cluster.shared_of(other)->best;
    best = theirs > best ? theirs : best;
  }
  return best;
}

template <int kBlocks>
__global__ void __launch_bounds__(kThreads, 2) SampleKernel(const SampleArgs args) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  const Cluster<kBlocks> cluster = {reinterpret_cast<SharedState*>(shared_bytes)};
  SharedState* const shared = cluster.own;
  LetNextKernelStart();
  WaitForKernelsBefore();
  const int row_index = blockIdx.x / kBlocks;
  const RowSampling params = args.params[row_index];
  // Slices of whole vectors; the last may be shorter, or empty.
  const int slice = (args.vocab_size + 4 * kBlocks - 1) / (4 * kBlocks) * 4;
  const int begin = min(cluster.rank() * slice, args.vocab_size);
  Row row = {args.logits + int64_t{row_index} * args.vocab_size,
             args.vocab_size,
             0,
             0,
             begin,
             min(begin + slice, args.vocab_size)};

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
  shared->first.Clear();
  row.ForEach([&](int, float logit) {
    const uint32_t level = row.Level(logit);
    if (level >= kFirstMasslessLevel && (!counts || level == kLastLevel)) return;
    const uint32_t bin = level >> kFirstShift;
    shared->first.Add(bin, row.Mass(logit));
    if (counts) atomicAdd(&shared->first.counts[bin], 1u);
  });
  cluster.AddUp(&SharedState::first);

  Rank rank;
  uint64_t total = 0;
  if (!counts || !FindRank(row, true, static_cast<uint64_t>(params.top_k) - 1, cluster, &rank)) {
    Running bins;
    for (int i = 0; i < kBinsPerThread; ++i) {
      bins.mass += shared->first.mass(threadIdx.x * kBinsPerThread + i);
    }
    Running all;
    ScanThreads(bins, shared, &all);
    rank.running_mass = all.mass;
  }
  total = rank.running_mass;
  if (params.top_p < 1) {
    const uint64_t wanted = NucleusMass(params.top_p, total);
    FindRank(row, false, wanted == 0 ? 0 : wanted - 1, cluster, &rank);
    total = rank.running_mass;
  }
  const uint64_t word = UniformWord(params.seed, params.position);
  FindRank(row, false, __umul64hi(word, total), cluster, &rank);
  if (writes) args.ids[row_index] = rank.id;
}

}  // namespace

absl::Status Sample(const SampleArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0) return absl::OkStatus();
  constexpr size_t kSharedBytes = sizeof(SharedState);
  static_assert(kSharedBytes <= 48 * 1024, "needs no opt-in");
  // Measured on an H100, 152k tokens: 77 us against 184 for one row; for 64 rows, 245 against 204.
  constexpr int kBlocksOfFewRows = 8;
  constexpr int kFewRows = 16;
  const bool few = args.num_rows <= kFewRows;
  const int blocks = few ? kBlocksOfFewRows : 1;
  const auto kernel = few ? SampleKernel<kBlocksOfFewRows> : SampleKernel<1>;
  return CudaStatus(LaunchOverlapped(kernel, dim3(static_cast<unsigned>(args.num_rows * blocks)),
                                     kThreads, kSharedBytes, blocks, stream, args),
                    "Sample");
}

}  // namespace assay::engine::cuda
