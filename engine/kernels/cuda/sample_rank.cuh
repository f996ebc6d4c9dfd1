// The token at a rank of a row: the first at which a running sum of masses, or of tokens, exceeds a
// target, in the order of (level, id). Found by digits of the level (sample.cu).
#pragma once

#include "engine/kernels/cuda/sample_row.cuh"

namespace assay::engine::cuda::sampling {

// The sum over the threads before this one (exclusive) and over all.
__device__ inline Running ScanThreads(Running value, SharedState* shared, Running* total) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  Running inclusive = value;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const Running other = {__shfl_up_sync(0xFFFFFFFFu, inclusive.mass, distance),
                           __shfl_up_sync(0xFFFFFFFFu, inclusive.count, distance)};
    if (lane >= distance) inclusive = inclusive + other;
  }
  __syncthreads();  // the warps' sums of the last scan have been read
  if (lane == 31) shared->warp_sums[warp] = inclusive;
  __syncthreads();
  Running before;
  Running all;
  for (int w = 0; w < kWarps; ++w) {
    if (w == warp) before = all;
    all = all + shared->warp_sums[w];
  }
  *total = all;
  return {before.mass + inclusive.mass - value.mass, before.count + inclusive.count - value.count};
}

// Of consecutive items, kPerThread a thread, the first at which the running sum exceeds target;
// false when there is none. The answer is in shared->found_*: its index and the sums around it.
template <int kPerThread>
__device__ bool FindFirst(const Running (&items)[kPerThread], Running before, bool by_count,
                          uint64_t target, SharedState* shared) {
  Running sum;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) sum = sum + items[i];
  Running total;
  Running running = before + ScanThreads(sum, shared, &total);
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const Running through = running + items[i];
    // One thread at most: sums never fall.
    if (running.by(by_count) <= target && through.by(by_count) > target) {
      shared->found_index = threadIdx.x * kPerThread + i;
      shared->found_before = running;
      shared->found_through = through;
    }
    running = through;
  }
  __syncthreads();
  return (before + total).by(by_count) > target;
}

__device__ inline bool FindBin(const Histogram& histogram, Running before, bool by_count,
                               uint64_t target, SharedState* shared) {
  Running bins[kBinsPerThread];
#pragma unroll
  for (int i = 0; i < kBinsPerThread; ++i) {
    const int bin = threadIdx.x * kBinsPerThread + i;
    bins[i] = {histogram.mass(bin), histogram.counts[bin]};
  }
  return FindFirst(bins, before, by_count, target, shared);
}

// Ascending, in place; n <= kListSize.
__device__ inline void SortList(int n, SharedState* shared) {
  int padded = 1;
  while (padded < n) padded *= 2;
  for (int i = n + threadIdx.x; i < padded; i += kThreads) shared->list[i] = ~uint64_t{0};
  __syncthreads();
  for (int run = 2; run <= padded; run *= 2) {
    for (int distance = run / 2; distance > 0; distance /= 2) {
      for (int pair = threadIdx.x; pair < padded / 2; pair += kThreads) {
        const int low = pair / distance * 2 * distance + pair % distance;
        const int high = low + distance;
        const bool ascending = (low & run) == 0;
        const uint64_t a = shared->list[low];
        const uint64_t b = shared->list[high];
        if ((a > b) == ascending) {
          shared->list[low] = b;
          shared->list[high] = a;
        }
      }
      __syncthreads();
    }
  }
}

// A rank: its token, and the mass of all ranks through it.
struct Rank {
  int32_t id = 0;
  uint64_t running_mass = 0;
};

// The rank among the tokens that all blocks listed, for every block to read. Called by the first.
template <int kBlocks>
__device__ void FindInList(const Row& row, Running before, bool by_count, uint64_t target,
                           const Cluster<kBlocks>& cluster) {
  SharedState* const shared = cluster.own;
  int num_listed = static_cast<int>(shared->list_size);
  for (int other = 1; other < kBlocks; ++other) {
    const SharedState* const from = cluster.shared_of(other);
    const int count = static_cast<int>(from->list_size);
    for (int i = threadIdx.x; i < count; i += kThreads) {
      shared->list[num_listed + i] = from->list[i];
    }
    num_listed += count;
  }
  SortList(num_listed, shared);
  Running items[kItemsPerThread];
#pragma unroll
  for (int i = 0; i < kItemsPerThread; ++i) {
    const int place = threadIdx.x * kItemsPerThread + i;
    if (place >= num_listed) continue;
    const int32_t id = static_cast<int32_t>(static_cast<uint32_t>(shared->list[place]));
    items[i] = {row.Mass(row.logits[id]), 1};
  }
  FindFirst(items, before, by_count, target, shared);
  if (threadIdx.x < kBlocks) {
    SharedState* const reader = cluster.shared_of(threadIdx.x);
    reader->answer_id =
        static_cast<int32_t>(static_cast<uint32_t>(shared->list[shared->found_index]));
    reader->answer_mass = shared->found_through.mass;
  }
}

// All tokens of `level`, more than the list takes: they rank by id, so they are added up in tiles.
// Every block goes through the whole row for itself.
__device__ inline Rank FindAmongEquals(const Row& row, uint32_t level, Running before,
                                       bool by_count, uint64_t target, SharedState* shared) {
  for (int tile = 0; tile < row.vocab_size; tile += kThreads) {
    const int id = tile + threadIdx.x;
    Running items[1];
    if (id < row.vocab_size && row.Level(row.logits[id]) == level) {
      items[0] = {row.Mass(row.logits[id]), 1};
    }
    if (FindFirst(items, before, by_count, target, shared)) {
      return {static_cast<int32_t>(tile + shared->found_index), shared->found_through.mass};
    }
    Running total;
    ScanThreads(items[0], shared, &total);
    before = before + total;
  }
  return {};  // not reached: the histogram said that the rank is here
}

// The first rank at which the running mass (or count) exceeds target. False when there is none.
// The first histogram is there; all threads of all blocks get the answer.
template <int kBlocks>
__device__ bool FindRank(const Row& row, bool by_count, uint64_t target,
                         const Cluster<kBlocks>& cluster, Rank* rank) {
  SharedState* const shared = cluster.own;
  if (!FindBin(shared->first, {}, by_count, target, shared)) return false;
  int shift = kFirstShift;
  uint32_t prefix = shared->found_index;
  Running before = shared->found_before;
  while (true) {
    cluster.Sync();  // found_* and the list's size have been read
    if (threadIdx.x == 0) shared->list_size = 0;
    shared->second.Clear();
    cluster.Sync();
    const int next_shift = shift > kDigitBits ? shift - kDigitBits : 0;
    row.ForEach([&](int id, float logit) {
      const uint32_t level = row.Level(logit);
      if (level >> shift != prefix || level == kLastLevel) return;
      const uint32_t place = atomicAdd(&shared->list_size, 1u);
      if (place < kListSize) {
        shared->list[place] = uint64_t{level} << 32 | static_cast<uint32_t>(id);
      }
      // The last digit repeats bits of the prefix, which does no harm: they are the same in all.
      const uint32_t bin = level >> next_shift & (kBins - 1);
      shared->second.Add(bin, row.Mass(logit));
      atomicAdd(&shared->second.counts[bin], 1u);
    });
    cluster.AddUp(&SharedState::second);
    int num_listed = 0;
    for (int other = 0; other < kBlocks; ++other) {
      num_listed += static_cast<int>(cluster.shared_of(other)->list_size);
    }
    if (num_listed <= kListSize) {
      if (cluster.rank() == 0) FindInList(row, before, by_count, target, cluster);
      cluster.Sync();
      rank->id = shared->answer_id;
      rank->running_mass = shared->answer_mass;
      cluster.Sync();
      return true;
    }
    if (shift == 0) {
      *rank = FindAmongEquals(row, prefix, before, by_count, target, shared);
      cluster.Sync();
      return true;
    }
    FindBin(shared->second, before, by_count, target, shared);
    prefix = prefix << (shift - next_shift) | shared->found_index;
    before = shared->found_before;
    shift = next_shift;
  }
}

}  // namespace assay::engine::cuda::sampling
