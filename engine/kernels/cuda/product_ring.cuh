// What the blocks of products have in common (few_rows.cu, few_rows_packed.cu): a ring of stages in
// shared memory, which a producer's thread fills through the copy engine and warps of consumers
// empty, and the store of results.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>

#include <cstdint>

#include "engine/kernels/cuda/attention/ptx.cuh"
#include "engine/kernels/cuda/few_rows.h"

namespace assay::engine::cuda {

constexpr int kTileAlignment = 1024;  // of what the copy engine swizzles

// Copies a box of a tensor map; row and slab are its first.
__device__ __forceinline__ void CopyBox(uint32_t to, const CUtensorMap* map, int row, int slab,
                                        uint32_t barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_"
      "hint [%0], [%1, {0, %2, %3}], [%4], %5;" ::"r"(to),
      "l"(map), "r"(row), "r"(slab), "r"(barrier), "l"(policy)
      : "memory");
}

__device__ __forceinline__ uint64_t ReadOftenPolicy() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// The same number in all lanes, told to the compiler: what follows from it is computed once a warp,
// in the registers that tensor instructions take their addresses from.
__device__ __forceinline__ uint32_t Uniform(uint32_t value) {
  return __shfl_sync(0xFFFFFFFFu, value, 0);
}
// True in one lane of a warp, of which the compiler knows that it is one.
__device__ __forceinline__ bool IsElected() {
  uint32_t elected;
  asm volatile(
      "{\n"
      ".reg .pred one;\n"
      "elect.sync _|one, 0xFFFFFFFF;\n"
      "selp.u32 %0, 1, 0, one;\n"
      "}\n"
      : "=r"(elected));
  return elected != 0;
}

__device__ __forceinline__ int WarpOfBlock() { return static_cast<int>(Uniform(threadIdx.x / 32)); }

// Stages behind each other from a whole kilobyte on, and two barriers for each: a stage is full
// when its bytes have come, and empty when every warp of consumers has said so.
template <int kMostStages>
class Ring {
 public:
  struct Barriers {
    uint64_t full[kMostStages];
    uint64_t empty[kMostStages];
  };

  // Called by the whole block. Needs kTileAlignment bytes more than the stages.
  __device__ Ring(uint8_t* memory, Barriers* barriers, int stage_bytes, int num_stages)
      : stage_bytes_(static_cast<uint32_t>(stage_bytes)),
        num_stages_(num_stages),
        full_(Uniform(SharedAddress(barriers->full))),
        empty_(Uniform(SharedAddress(barriers->empty))) {
    const uint32_t begin = SharedAddress(memory);
    stages_ = Uniform(begin + (kTileAlignment - begin % kTileAlignment) % kTileAlignment);
  }

  // Called by one thread, the first that fetches; then the block synchronizes.
  __device__ void InitBarriers(int num_consumer_warps) const {
    for (int stage = 0; stage < num_stages_; ++stage) {
      InitBarrier(Full(stage));
      InitBarrier(Empty(stage), static_cast<uint32_t>(num_consumer_warps));
    }
    PublishBarriers();
  }

  __device__ uint32_t Stage(int stage) const {
    return stages_ + static_cast<uint32_t>(stage) * stage_bytes_;
  }
  __device__ uint32_t Full(int stage) const { return full_ + static_cast<uint32_t>(stage * 8); }
  __device__ uint32_t Empty(int stage) const { return empty_ + static_cast<uint32_t>(stage * 8); }

  // Which stage is next, and whether the ring was passed an odd number of times.
  struct Place {
    int stage = 0;
    uint32_t parity = 0;
  };
  __device__ void Advance(Place* place) const {
    if (++place->stage < num_stages_) return;
    place->stage = 0;
    place->parity ^= 1;
  }
  __device__ void WaitUntilFull(const Place& place) const {
    WaitForPhase(Full(place.stage), place.parity);
  }
  __device__ void WaitUntilEmpty(const Place& place) const {
    WaitForPhase(Empty(place.stage), place.parity);
  }
  // For the pass that has this place: of the pass before, if there was one.
  __device__ void WaitUntilFree(const Place& place) const {
    WaitForPhase(Empty(place.stage), place.parity ^ 1);
  }

 private:
  uint32_t stage_bytes_;
  int num_stages_;
  uint32_t stages_;  // shared addresses
  uint32_t full_;
  uint32_t empty_;
};

// Where results go.
struct ProductOutput {
  const __nv_bfloat16* bias;  // [out_features] or null
  void* y;                    // [num_rows, out_features]
  int num_rows;
  int64_t out_features;
  bool is_float;  // y in float32 instead of bf16

  // Of two neighbours, as PackBf16 packs them; where there is a bias.
  __device__ __forceinline__ uint32_t BiasOf(int64_t feature) const {
    const auto* const bits = reinterpret_cast<const uint16_t*>(bias);
    const uint32_t low = feature < out_features ? bits[feature] : 0u;
    const uint32_t high = feature + 1 < out_features ? bits[feature + 1] : 0u;
    return high << 16 | low;
  }

  // kCount pairs of a row of y: of neighbours from `feature` on, which is even, and of every 8th.
  template <int kCount>
  __device__ __forceinline__ void Store(int row, int64_t feature,
                                        const float2 (&pairs)[kCount]) const {
    if (row >= num_rows) return;
    const int64_t begin = row * out_features;
    const auto store = [&](const auto& one) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        if (feature + 8 * i < out_features) one(feature + 8 * i, pairs[i]);
      }
    };
    auto* const halves = static_cast<__nv_bfloat16*>(y) + begin;
    auto* const floats = static_cast<float*>(y) + begin;
    if (out_features % 2 == 0) {  // pairs are whole, and aligned
      if (is_float) {
        store([&](int64_t at, float2 pair) { *reinterpret_cast<float2*>(floats + at) = pair; });
      } else {
        store([&](int64_t at, float2 pair) {
          *reinterpret_cast<uint32_t*>(halves + at) = PackBf16(pair.x, pair.y);
        });
      }
    } else {
      store([&](int64_t at, float2 pair) {
        const int count = at + 1 < out_features ? 2 : 1;
        for (int i = 0; i < count; ++i) {
          const float value = i == 0 ? pair.x : pair.y;
          if (is_float) {
            floats[at + i] = value;
          } else {
            halves[at + i] = __float2bfloat16_rn(value);
          }
        }
      });
    }
  }
};

inline ProductOutput OutputOf(const FewRowsArgs& args) {
  return {.bias = args.bias,
          .y = args.y,
          .num_rows = args.num_rows,
          .out_features = args.out_features,
          .is_float = args.float_output};
}

}  // namespace assay::engine::cuda
