// The token at a rank of a row: the first at which a running sum of masses, or of tokens, exceeds a
// target, in the order of (level, id). Found by digits of the level (sample.cu). The nucleus' edge
// and the draw from it are two ranks that one look at the row finds.
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
    const Running other = {__shfl_up_sync(kAllLanes, inclusive.mass, distance),
                           __shfl_up_sync(kAllLanes, inclusive.count, distance)};
    if (lane >= distance) inclusive = inclusive + other;
  }
  __syncthreads();  // the warps' sums of the last scan have been read
  if (lane == 31) shared->warp_sums[warp] = inclusive;
  __syncthreads();
  Running before;
  Running all;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    if (w == warp) before = all;
    all = all + shared->warp_sums[w];
  }
  *total = all;
  return {before.mass + inclusive.mass - value.mass, before.count + inclusive.count - value.count};
}

// An item among others, and the sums around it.
struct Item {
  uint32_t index;
  Running before;
  Running through;  // and with it
};

// Consecutive items, kPerThread a thread, and the sums around them.
template <int kPerThread>
struct Items {
  Running each[kPerThread];
  Running before;  // this thread's first
  Running total;   // of all threads' items, and what was before them

  __device__ void AddUp(Running before_all, SharedState* shared) {
    Running sum;
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) sum = sum + each[i];
    before = before_all + ScanThreads(sum, shared, &total);
    total = before_all + total;
  }

  // The first at which the running sum exceeds target, which total does; in all threads.
  __device__ Item FindFirst(bool by_count, uint64_t target, SharedState* shared) const {
    __syncthreads();  // the last answer has been read
    Running running = before;
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      const Running through = running + each[i];
      // One thread at most: sums never fall.
      if (running.by(by_count) <= target && through.by(by_count) > target) {
        shared->item = threadIdx.x * kPerThread + i;
        shared->item_before = running;
        shared->item_through = through;
      }
      running = through;
    }
    __syncthreads();
    return {shared->item, shared->item_before, shared->item_through};
  }
};

using Bins = Items<kBinsPerThread>;

__device__ inline void AddUpBins(const Histogram& histogram, Running before, SharedState* shared,
                                 Bins* bins) {
#pragma unroll
  for (int i = 0; i < kBinsPerThread; ++i) {
    const int bin = threadIdx.x * kBinsPerThread + i;
    bins->each[i] = {histogram.mass(bin), histogram.counts[bin]};
  }
  bins->AddUp(before, shared);
}

// shared->list ascending, in place; n <= kListSize.
__device__ inline void SortList(int n, SharedState* shared) {
  // A warp's pairs of up to so many elements' distance lie in 64 elements that are its own.
  constexpr int kWarpDistance = 32;
  int padded = 1;
  while (padded < n) padded *= 2;
  for (int i = n + threadIdx.x; i < padded; i += kThreads) shared->list[i] = ~uint64_t{0};
  __syncthreads();
#pragma unroll 1
  for (int run = 2; run <= padded; run *= 2) {
#pragma unroll 1
    for (int distance = run / 2; distance > 0; distance /= 2) {
      for (int pair = threadIdx.x; pair < padded / 2; pair += kThreads) {
        const int place = pair & (distance - 1);
        const int low = 2 * (pair - place) + place;
        const int high = low + distance;
        const bool ascending = (low & run) == 0;
        const uint64_t a = shared->list[low];
        const uint64_t b = shared->list[high];
        if ((a > b) == ascending) {
          shared->list[low] = b;
          shared->list[high] = a;
        }
      }
      const int next = distance > 1 ? distance / 2 : run;
      if (distance > kWarpDistance || next > kWarpDistance) {
        __syncthreads();
      } else {
        __syncwarp();
      }
    }
  }
  __syncthreads();
}

// A rank: its token, and the mass of all ranks through it.
struct Rank {
  int32_t id = 0;
  uint64_t running_mass = 0;
};

// How many tokens a block found, those before it, and all.
struct Found {
  int own;
  int before;
  int all;
};

template <int kBlocks>
__device__ Found CountFound(const Cluster<kBlocks>& cluster, int turn, int block) {
  const int lane = threadIdx.x % 32;
  const int found = lane < kBlocks ? static_cast<int>(cluster.shared_of(lane)->num_found[turn]) : 0;
  return {__shfl_sync(kAllLanes, found, block),
          static_cast<int>(__reduce_add_sync(kAllLanes, lane < block ? found : 0)),
          static_cast<int>(__reduce_add_sync(kAllLanes, found))};
}

// The tokens of all blocks' slices whose level is `wanted`, into this block's list, ascending. How
// many they are; of more than the list takes, it has none.
template <int kBlocks, typename Wanted>
__device__ int ListTokens(const Row& row, const Cluster<kBlocks>& cluster, int* turn,
                          const Wanted& wanted) {
  SharedState* const shared = cluster.own;
  // The list that was not read last: who reads it has passed the cluster's barrier since.
  *turn ^= 1;
  uint64_t* const found = shared->found[*turn];
  uint32_t* const num_found = &shared->num_found[*turn];
  if (threadIdx.x == 0) *num_found = 0;
  __syncthreads();
  row.ForEach([&](int id, float logit) {
    const uint32_t level = row.Level(logit);
    if (!wanted(level)) return;
    const uint32_t place = atomicAdd(num_found, 1u);
    if (place < kListSize) found[place] = uint64_t{level} << 32 | static_cast<uint32_t>(id);
  });
  cluster.Sync();

  static_assert(kBlocks <= kWarps);
  const int block = static_cast<int>(threadIdx.x) / 32 % kBlocks;  // which this warp copies
  const Found counts = CountFound(cluster, *turn, block);
  if (counts.all > kListSize) return counts.all;
  if (kBlocks == 1 || threadIdx.x / 32 < kBlocks) {
    const SharedState* const from = cluster.shared_of(block);
    const int step = kBlocks == 1 ? kThreads : 32;
    for (int i = threadIdx.x % step; i < counts.own; i += step) {
      shared->list[counts.before + i] = from->found[*turn][i];
    }
  }
  __syncthreads();
  SortList(counts.all, shared);
  return counts.all;
}

__device__ inline uint32_t LevelAt(const SharedState& shared, int place) {
  return static_cast<uint32_t>(shared.list[place] >> 32);
}
__device__ inline int32_t IdAt(const SharedState& shared, int place) {
  return static_cast<int32_t>(static_cast<uint32_t>(shared.list[place]));
}

// The first `n` of the list, without what comes before them.
using ListItems = Items<kItemsPerThread>;

__device__ inline ListItems ListedItems(const Row& row, int n, const SharedState& shared) {
  ListItems items;
#pragma unroll
  for (int i = 0; i < kItemsPerThread; ++i) {
    const int place = threadIdx.x * kItemsPerThread + i;
    if (place < n) items.each[i] = {row.Mass(row.logits[IdAt(shared, place)]), 1};
  }
  return items;
}

// All tokens of `level`, more than the list takes: they rank by id, so they are added up in tiles.
// Every block goes through the whole row for itself.
__device__ inline Rank FindAmongEquals(const Row& row, uint32_t level, Running before,
                                       bool by_count, uint64_t target, SharedState* shared) {
  for (int tile = 0; tile < row.vocab_size; tile += kThreads) {
    const int id = tile + threadIdx.x;
    Items<1> items;
    if (id < row.vocab_size && row.Level(row.logits[id]) == level) {
      items.each[0] = {row.Mass(row.logits[id]), 1};
    }
    items.AddUp(before, shared);
    if (items.total.by(by_count) > target) {
      const Item item = items.FindFirst(by_count, target, shared);
      return {static_cast<int32_t>(tile + item.index), item.through.mass};
    }
    before = items.total;
  }
  return {};  // not reached: the histogram said that the rank is here
}

// The first rank at which the running mass (or count) exceeds target, which that of all ranks does;
// in all threads of all blocks. `bins`: of the first histogram. `turn`: of the lists.
template <int kBlocks>
__device__ Rank FindRank(const Row& row, const Bins& bins, bool by_count, uint64_t target,
                         const Cluster<kBlocks>& cluster, int* turn) {
  SharedState* const shared = cluster.own;
  Item bin = bins.FindFirst(by_count, target, shared);
  int shift = kFirstShift;
  uint32_t prefix = bin.index;
#pragma unroll 1
  while (true) {
    const int n = ListTokens(row, cluster, turn, [&](uint32_t level) {
      return level >> shift == prefix && level != kLastLevel;
    });
    if (n <= kListSize) {
      ListItems items = ListedItems(row, n, *shared);
      items.AddUp(bin.before, shared);
      const Item item = items.FindFirst(by_count, target, shared);
      return {IdAt(*shared, static_cast<int>(item.index)), item.through.mass};
    }
    if (shift == 0) return FindAmongEquals(row, prefix, bin.before, by_count, target, shared);

    // Too many: by the next digit. The last one repeats bits of the prefix, which does no harm:
    // they are the same in all.
    const int next_shift = shift > kDigitBits ? shift - kDigitBits : 0;
    shared->second.Clear();
    row.ForEach([&](int, float logit) {
      const uint32_t level = row.Level(logit);
      if (level >> shift != prefix || level == kLastLevel) return;
      const uint32_t bin = level >> next_shift & (kBins - 1);
      shared->second.Add(bin, row.Mass(logit));
      atomicAdd(&shared->second.counts[bin], 1u);
    });
    cluster.AddUp(&SharedState::second);
    Bins next;
    AddUpBins(shared->second, bin.before, shared, &next);
    bin = next.FindFirst(by_count, target, shared);
    prefix = prefix << (shift - next_shift) | bin.index;
    shift = next_shift;
  }
}

// The draw from the nucleus, the first ranks that hold `wanted` of mass, at least 1; in all threads
// of all blocks. How much they hold is known when the rank at their edge is, but bounded by the
// sums around its bin, and with it the bins that the draw may fall in. False where the tokens of
// them all are more than the list takes.
template <int kBlocks>
__device__ bool DrawFromNucleus(const Row& row, const Bins& bins, uint64_t wanted, uint64_t word,
                                const Cluster<kBlocks>& cluster, int* turn, int32_t* id) {
  SharedState* const shared = cluster.own;
  const Item edge = bins.FindFirst(false, wanted - 1, shared);
  const Item first = bins.FindFirst(false, __umul64hi(word, wanted), shared);
  const Item last = bins.FindFirst(false, __umul64hi(word, edge.through.mass), shared);
  const int n = ListTokens(row, cluster, turn, [&](uint32_t level) {
    const uint32_t bin = level >> kFirstShift;
    return (bin >= first.index && bin <= last.index) || bin == edge.index;
  });
  if (n > kListSize) return false;

  ListItems items = ListedItems(row, n, *shared);
  // What lies between the last bin of the draw and the edge's is added where the edge's begins.
  const auto is_edge = [&](int place) {
    return LevelAt(*shared, place) >> kFirstShift == edge.index;
  };
#pragma unroll
  for (int i = 0; i < kItemsPerThread; ++i) {
    const int place = threadIdx.x * kItemsPerThread + i;
    if (last.index == edge.index || place == 0 || place >= n) continue;
    if (is_edge(place) && !is_edge(place - 1)) {
      items.each[i].mass += edge.before.mass - last.through.mass;
    }
  }
  items.AddUp(first.before, shared);
  const uint64_t mass = items.FindFirst(false, wanted - 1, shared).through.mass;
  const Item drawn = items.FindFirst(false, __umul64hi(word, mass), shared);
  *id = IdAt(*shared, static_cast<int>(drawn.index));
  return true;
}

}  // namespace assay::engine::cuda::sampling
