// y = x W^T (+ bias) for few rows of x and a bf16 weight; see few_rows.h and few_rows.cuh.
//
// Reference: linear of kernels/cpu with inputs rounded to bf16. Sums agree up to float32's rounding
// in another order.
//
// Bound: 2 bytes a weight.
#include "engine/kernels/cuda/few_rows.cuh"
#include "engine/kernels/cuda/few_rows.h"

namespace assay::engine::cuda {
namespace {

// Row-major weights, fetched by the copy engine and multiplied where they land.
struct Bf16Weights {
  static constexpr int kDepth = 64;
  static constexpr int kBytes = kWarpgroupFeatures * kDepth * 2;  // of a warpgroup's step
  static constexpr int kPendingSteps = 1;
  static constexpr int kMostRows = 256;
  static constexpr int kMostBlocks = 3;  // on a multiprocessor
  static constexpr int kWaveBlocks = 2;  // fewer, with deeper rings; measured
  using Source = const __nv_bfloat16*;
  struct Params {
    CUtensorMap map;  // boxes of the block's features
  };

  static absl::StatusOr<Params> MakeParams(Source weight, int64_t out_features, int64_t in_features,
                                           int block_features) {
    auto map = MakeTensorMap(weight, out_features, in_features, block_features);
    if (!map.ok()) return map.status();
    return Params{*map};
  }

  template <int kWarpgroups>
  static __device__ void Fetch(const Params& params, int tile, int step, uint32_t to,
                               uint32_t barrier, uint64_t policy) {
    CopyBox(to, &params.map, step * kDepth, tile * kWarpgroups * kWarpgroupFeatures, barrier,
            policy);
  }

  template <typename Tile>
  static __device__ void Multiply(uint32_t weights, uint32_t inputs, int /*thread*/,
                                  typename Tile::Sums& sums) {
    const uint64_t left = TileDescriptor(weights);
    BeginProducts();
#pragma unroll
    for (int k = 0; k < kDepth / 16; ++k) {
#pragma unroll
      for (int part = 0; part < Tile::kInstructions; ++part) {
        const uint64_t right = TileDescriptor(inputs + part * Tile::kWidth * kBoxColumns * 2);
        MultiplyTiles(sums[part], left + k * kNext16Columns, right + k * kNext16Columns);
      }
    }
  }
};

}  // namespace

int FewRowsChunks(int64_t out_features, int64_t in_features) {
  return ChunksOf<Bf16Weights>(
      out_features,
      static_cast<int>((in_features + Bf16Weights::kDepth - 1) / Bf16Weights::kDepth));
}

absl::Status MultiplyFewRows(const FewRowsArgs& args, cudaStream_t stream) {
  return MultiplyFewRowsWith<Bf16Weights>(args, args.weight, stream);
}

}  // namespace assay::engine::cuda
