// y = x W^T (+ bias) for few rows of x and a packed weight; see packed_weight.h and few_rows.cuh.
//
// Reference: linear of kernels/cpu on DecodeLinearWeight's numbers, rounded to bf16. Sums agree up
// to float32's rounding in another order.
//
// Bound: 1.04, 0.54 or 0.41 bytes a weight. Decoding takes 2.4 instructions a weight of 4 bits (a
// mask, a sum, a product and an fma for two, three shifts for eight), 2.8 of 3 bits, 3.5 of 8.
#include "engine/kernels/cuda/few_rows.cuh"
#include "engine/kernels/cuda/packed_weight.cuh"

namespace assay::engine::cuda {
namespace {

template <int kBits>
struct PackedWeights {
  static constexpr int kDepth = kPackedTileDepth;
  static constexpr int kBytes = static_cast<int>(PackedTileBytes(kBits));
  static constexpr int kPendingSteps = 0;  // registers of one step are decoded into by the next
  static constexpr int kMostRows = 128;    // sums of more leave no registers to decode into
  // Decoding waits for itself: more warps hide it, where stages are small.
  static constexpr int kMostBlocks = kBits == 8 ? 3 : 5;
  static constexpr int kWaveBlocks = kMostBlocks;
  using Source = const uint8_t*;
  struct Params {
    const uint8_t* tiles;
    int64_t tiles_per_row;
  };

  static absl::StatusOr<Params> MakeParams(Source tiles, int64_t /*out_features*/,
                                           int64_t in_features, int /*block_features*/) {
    return Params{tiles, (in_features + kDepth - 1) / kDepth};
  }

  template <int kWarpgroups>
  static __device__ void Fetch(const Params& params, int tile, int step, uint32_t to,
                               uint32_t barrier, uint64_t policy) {
#pragma unroll
    for (int group = 0; group < kWarpgroups; ++group) {
      const int64_t index = (int64_t{tile} * kWarpgroups + group) * params.tiles_per_row + step;
      BulkCopy(to + group * kBytes, params.tiles + index * kBytes, kBytes, barrier, policy);
    }
  }

  template <typename Tile>
  static __device__ void Multiply(uint32_t weights, uint32_t inputs, int thread,
                                  typename Tile::Sums& sums) {
    static_assert(Tile::kInstructions == 1);
    const auto* const tile =
        static_cast<const uint8_t*>(__cvta_shared_to_generic(static_cast<size_t>(weights)));
    ThreadCodes<kBits> codes;
    codes.Load(tile, thread);
    RowGrid<kBits> grids[2];
    ThreadCodes<kBits>::LoadGrids(tile, thread, grids);
    constexpr int kStepsOfBox = kBoxColumns / 16;
    constexpr int kBoxes = kDepth / kBoxColumns;
    uint32_t left[kBoxes][kStepsOfBox][4];
    // The second half is decoded while the first is multiplied.
#pragma unroll
    for (int box = 0; box < kBoxes; ++box) {
#pragma unroll
      for (int i = 0; i < kStepsOfBox; ++i) {
        codes.Decode(box * kStepsOfBox + i, grids, left[box][i]);
      }
      BeginProducts();
#pragma unroll
      for (int i = 0; i < kStepsOfBox; ++i) {
        const uint64_t right = TileDescriptor(inputs + box * Tile::kBoxBytes);
        MultiplyTiles(sums[0], left[box][i], right + i * kNext16Columns);
      }
      if (box + 1 < kBoxes) CommitProducts();
    }
  }
};

}  // namespace

absl::Status MultiplyPacked(const FewRowsArgs& args, const PackedWeight& packed,
                            cudaStream_t stream) {
  switch (packed.bit_width) {
    case 8:
      return MultiplyFewRowsWith<PackedWeights<8>>(args, packed.tiles, stream);
    case 4:
      return MultiplyFewRowsWith<PackedWeights<4>>(args, packed.tiles, stream);
    case 3:
      return MultiplyFewRowsWith<PackedWeights<3>>(args, packed.tiles, stream);
    default:
      return absl::InvalidArgumentError("MultiplyPacked: 8, 4 or 3 bits");
  }
}

}  // namespace assay::engine::cuda
