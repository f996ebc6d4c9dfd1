// What the thread blocks that draw a row's token keep of it: the row, how its tokens weigh, and
// sums of these weights in shared memory (sample.cu).
#pragma once

#include <cooperative_groups.h>

#include "engine/kernels/token_mass.h"

namespace assay::engine::cuda::sampling {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;
constexpr int kBins = 1024;
constexpr int kBinsPerThread = kBins / kThreads;
constexpr int kListSize = 2048;
constexpr int kItemsPerThread = kListSize / kThreads;
// From here on e^-d has no mass: e^-28 is 0.8 steps of 2^-40.
constexpr uint32_t kFirstMasslessLevel = uint32_t{28} << 26;
// The first digit of a level's 31 bits; the next have 10, 10 and 1.
constexpr int kFirstShift = 21;
constexpr int kDigitBits = 10;

// e^x as engine/kernels/cpu/simd.h has it, operation for operation.
__device__ inline float Exponential(float x) {
  if (x != x) return 0;
  x = fminf(fmaxf(x, -87.0f), 88.0f);
  constexpr float kMagic = 12582912.0f;
  const float shifted = __fmaf_rn(x, 1.44269504088896341f, kMagic);
  const float n = __fsub_rn(shifted, kMagic);
  float r = __fmaf_rn(n, -0.693359375f, x);
  r = __fmaf_rn(n, 2.12194440e-4f, r);
  float p = 1.9875691500e-4f;
  p = __fmaf_rn(p, r, 1.3981999507e-3f);
  p = __fmaf_rn(p, r, 8.3334519073e-3f);
  p = __fmaf_rn(p, r, 4.1665795894e-2f);
  p = __fmaf_rn(p, r, 1.6666665459e-1f);
  p = __fmaf_rn(p, r, 5.0000001201e-1f);
  p = __fmaf_rn(p, __fmul_rn(r, r), __fadd_rn(r, 1.0f));
  const int exponent = (__float_as_int(shifted) - __float_as_int(kMagic) + 127) << 23;
  return __fmul_rn(p, __int_as_float(exponent));
}

// Masses and counts over one digit of the levels.
struct Histogram {
  uint32_t low[kBins];  // of the masses' sums
  uint32_t high[kBins];
  uint32_t counts[kBins];

  __device__ void Clear() {
    for (int bin = threadIdx.x; bin < kBins; bin += kThreads) {
      low[bin] = 0;
      high[bin] = 0;
      counts[bin] = 0;
    }
    __syncthreads();
  }
  // Two native 32-bit additions; the 64-bit one of shared memory is a loop.
  __device__ void Add(uint32_t bin, uint64_t mass) {
    const uint32_t low_part = static_cast<uint32_t>(mass);
    const uint32_t before = atomicAdd(&low[bin], low_part);
    const uint32_t carry = before + low_part < before ? 1 : 0;
    const uint32_t high_part = static_cast<uint32_t>(mass >> 32) + carry;
    if (high_part != 0) atomicAdd(&high[bin], high_part);
  }
  __device__ uint64_t mass(int bin) const { return uint64_t{high[bin]} << 32 | low[bin]; }
};

// Sums of masses and of tokens up to a rank.
struct Running {
  uint64_t mass = 0;
  uint32_t count = 0;

  __device__ uint64_t by(bool counts) const { return counts ? uint64_t{count} : mass; }
  __device__ Running operator+(const Running& other) const {
    return {mass + other.mass, count + other.count};
  }
};

struct alignas(16) SharedState {
  Histogram first;  // over all levels
  union {
    Histogram second;  // within a bin that holds too many tokens for a list
    // A bin's tokens in this block's slice, (level, id). Two lists take turns.
    uint64_t found[2][kListSize];
  };
  uint32_t num_found[2];     // may be more than there is room for
  uint64_t list[kListSize];  // what all blocks found
  Running warp_sums[kWarps];
  uint64_t warp_bests[kWarps];
  uint64_t best;         // of this block's slice
  Running item_before;   // of the ranks before the bin or item that was found
  Running item_through;  // and with it
  uint32_t item;
  uint64_t loaded;  // a barrier: the slice is here
};

// The blocks that share a row; alone, a block is its own cluster. They read and write each other's
// memory by plain accesses alone: what the compiler makes of a 64-bit atomic maximum does not reach
// another block's.
template <int kBlocks>
struct Cluster {
  SharedState* own;

  __device__ int rank() const {
    return kBlocks == 1 ? 0 : static_cast<int>(cooperative_groups::this_cluster().block_rank());
  }
  __device__ SharedState* shared_of(int rank) const {
    return kBlocks == 1 ? own : cooperative_groups::this_cluster().map_shared_rank(own, rank);
  }
  __device__ void Sync() const {
    if constexpr (kBlocks == 1) {
      __syncthreads();
    } else {
      cooperative_groups::this_cluster().sync();
    }
  }

  // Every block's histogram becomes the sum of all. A block adds its share of the bins, which
  // nobody else reads, and hands the sums out: some neighbouring lanes a bin, a block or two each.
  __device__ void AddUp(Histogram SharedState::*histogram) const {
    Sync();
    if constexpr (kBlocks > 1) {
      constexpr int kShare = kBins / kBlocks;
      constexpr int kLanes = kThreads / kShare;
      constexpr int kBlocksPerLane = kBlocks / kLanes;
      const int bin = rank() * kShare + static_cast<int>(threadIdx.x) / kLanes;
      const int first = static_cast<int>(threadIdx.x) % kLanes * kBlocksPerLane;
      uint64_t mass = 0;
      uint32_t count = 0;
#pragma unroll
      for (int i = 0; i < kBlocksPerLane; ++i) {
        const Histogram& part = shared_of(first + i)->*histogram;
        mass += part.mass(bin);
        count += part.counts[bin];
      }
#pragma unroll
      for (int distance = 1; distance < kLanes; distance *= 2) {
        mass += __shfl_xor_sync(kAllLanes, mass, distance);
        count += __shfl_xor_sync(kAllLanes, count, distance);
      }
#pragma unroll
      for (int i = 0; i < kBlocksPerLane; ++i) {
        Histogram& sum = shared_of(first + i)->*histogram;
        sum.low[bin] = static_cast<uint32_t>(mass);
        sum.high[bin] = static_cast<uint32_t>(mass >> 32);
        sum.counts[bin] = count;
      }
      Sync();
    }
  }
};

// A row and how its tokens weigh.
struct Row {
  const float* logits;  // all of them
  int vocab_size;
  float maximum;
  float inverse_temperature;
  // This block's slice, and where it lies: in the row, or copied into shared memory.
  int begin;
  int end;
  const float* slice;

  __device__ uint32_t Level(float logit) const {
    return TokenLevel(maximum, logit, inverse_temperature);
  }
  __device__ uint64_t Mass(float logit) const {
    return TokenMass(Exponential(__fmul_rn(__fsub_rn(logit, maximum), inverse_temperature)));
  }

  // Of the slice: body(id, logit).
  template <typename Body>
  __device__ void ForEach(const Body& body) const {
    if (vocab_size % 4 != 0) {
      for (int id = begin + threadIdx.x; id < end; id += kThreads) body(id, slice[id - begin]);
      return;
    }
    const float4* vectors = reinterpret_cast<const float4*>(slice);
    const int count = (end - begin) / 4;
    constexpr int kUnroll = 4;  // loads in flight
#pragma unroll 1
    for (int first = threadIdx.x; first < count; first += kUnroll * kThreads) {
      float4 loaded[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int i = first + u * kThreads;
        if (i < count) loaded[u] = vectors[i];
      }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int i = first + u * kThreads;
        if (i >= count) break;
        const int id = begin + 4 * i;
        body(id, loaded[u].x);
        body(id + 1, loaded[u].y);
        body(id + 2, loaded[u].z);
        body(id + 3, loaded[u].w);
      }
    }
  }
};

}  // namespace assay::engine::cuda::sampling
