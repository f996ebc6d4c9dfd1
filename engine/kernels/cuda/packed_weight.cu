// Packing and unpacking of weights; see packed_weight.h. Both take one block for a tile: packing
// reads codes bit by bit (once, at load), unpacking is bound by the 2 bytes a weight that it
// writes, through shared memory so that rows of a tile are written as 256 contiguous bytes.
//
// Reference: DecodeLinearWeight of engine/quant, rounded to bf16; packed_weight.h says how near.
#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/launch.cuh"
#include "engine/kernels/cuda/packed_weight.cuh"

namespace assay::engine::cuda {
namespace {

// Code `column` of a row of packed codes; at most two bytes hold it.
__device__ uint32_t CodeAt(const uint8_t* row, int64_t column, int bits) {
  const int64_t bit = column * bits;
  const int shift = static_cast<int>(bit % 8);
  uint32_t word = row[bit / 8];
  if (shift + bits > 8) word |= uint32_t{row[bit / 8 + 1]} << 8;
  return word >> shift & ((1u << bits) - 1);
}

template <int kBits>
__global__ void __launch_bounds__(kTileThreads) PackKernel(const PackWeightArgs args) {
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t column = int64_t{blockIdx.x} * kPackedTileDepth;
  const int64_t feature = int64_t{blockIdx.y} * kPackedTileFeatures;  // of the part
  const int64_t index =
      (args.first_feature / kPackedTileFeatures + blockIdx.y) * gridDim.x + blockIdx.x;
  uint8_t* const tile = args.tiles + index * PackedTileBytes(kBits);
  // Two's complement becomes an unsigned code around half the range.
  const uint32_t symmetric = args.zeros == nullptr ? 1u << (kBits - 1) : 0;

  const auto grid_at = [&](int row) {
    return (feature + row) * args.num_groups + (args.first_column + column) / args.group_width;
  };
  const auto zero_of = [&](int row) {
    return args.zeros == nullptr ? symmetric : uint32_t{args.zeros[grid_at(row)]};
  };
  ThreadCodes<kBits> codes = {};
#pragma unroll
  for (int step = 0; step < kStepsOfTile; ++step) {
#pragma unroll
    for (int i = 0; i < kCodesOfStep; ++i) {
      const TilePlace place = PlaceOf(thread, step, i);
      const bool inside =
          feature + place.row < args.num_features && column + place.column < args.in_features;
      uint32_t code = 0;
      if (inside) {
        code = CodeAt(args.codes + (feature + place.row) * args.row_bytes,
                      args.first_column + column + place.column, kBits) ^
               symmetric;
      } else if (feature + place.row < args.num_features) {
        code = zero_of(place.row);  // decodes to zero
      }
      codes.Insert(step, i, code);
    }
  }
  codes.Store(tile, thread);
  if (thread >= kPackedTileFeatures) return;
  const bool inside = feature + thread < args.num_features;
  reinterpret_cast<uint32_t*>(tile + ThreadCodes<kBits>::kScalesAt)[thread] =
      RowGrid<kBits>::Encode(inside ? args.scales[grid_at(thread)] : 1.0f);
  tile[ThreadCodes<kBits>::kZerosAt + thread] = static_cast<uint8_t>(inside ? zero_of(thread) : 0);
}

template <int kBits>
__global__ void __launch_bounds__(kTileThreads)
    UnpackKernel(const uint8_t* __restrict__ tiles,   // [feature tiles, depth tiles, bytes]
                 __nv_bfloat16* __restrict__ weight,  // [out_features, in_features]
                 int64_t out_features, int64_t in_features) {
  LetNextKernelStart();
  WaitForKernelsBefore();
  constexpr int kStride = kPackedTileDepth / 2 + 4;  // in pairs; shifts the banks of rows
  __shared__ __align__(16) uint32_t rows[kPackedTileFeatures * kStride];
  const int thread = static_cast<int>(threadIdx.x);
  const uint8_t* const tile =
      tiles + (int64_t{blockIdx.y} * gridDim.x + blockIdx.x) * PackedTileBytes(kBits);
  ThreadCodes<kBits> codes;
  codes.Load(tile, thread);
  RowGrid<kBits> grids[2];
  ThreadCodes<kBits>::LoadGrids(tile, thread, grids);
#pragma unroll
  for (int step = 0; step < kStepsOfTile; ++step) {
    uint32_t left[4];
    codes.Decode(step, grids, left);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const TilePlace place = PlaceOf(thread, step, i);
      rows[place.row * kStride + place.column / 2] = left[i];
    }
  }
  __syncthreads();
  constexpr int kVectors = kPackedTileDepth / 8;  // of 16 bytes, in a row
  const int64_t first_column = int64_t{blockIdx.x} * kPackedTileDepth;
  const int64_t first_feature = int64_t{blockIdx.y} * kPackedTileFeatures;
  for (int i = thread; i < kPackedTileFeatures * kVectors; i += kTileThreads) {
    const int row = i / kVectors;
    const int64_t column = first_column + i % kVectors * 8;
    // in_features is a multiple of 8: a vector is inside or outside.
    if (first_feature + row >= out_features || column >= in_features) continue;
    *reinterpret_cast<uint4*>(weight + (first_feature + row) * in_features + column) =
        *reinterpret_cast<const uint4*>(rows + row * kStride + i % kVectors * 4);
  }
}

dim3 TileGrid(int64_t features, int64_t in_features) {
  return dim3(static_cast<unsigned>((in_features + kPackedTileDepth - 1) / kPackedTileDepth),
              static_cast<unsigned>((features + kPackedTileFeatures - 1) / kPackedTileFeatures));
}

}  // namespace

absl::Status PackWeight(const PackWeightArgs& args, cudaStream_t stream) {
  if (!IsPackedBitWidth(args.bit_width) || args.group_width % kPackedTileDepth != 0 ||
      args.first_column % kPackedTileDepth != 0 || args.first_feature % kPackedTileFeatures != 0 ||
      args.in_features % 8 != 0) {
    return absl::InvalidArgumentError(
        "PackWeight: 8, 4 or 3 bits; groups and first column of whole 128 columns; first feature "
        "a multiple of 64");
  }
  if (args.num_features == 0) return absl::OkStatus();
  const auto kernel = args.bit_width == 8   ? PackKernel<8>
                      : args.bit_width == 4 ? PackKernel<4>
                                            : PackKernel<3>;
  kernel<<<TileGrid(args.num_features, args.in_features), kTileThreads, 0, stream>>>(args);
  return CudaStatus(cudaGetLastError(), "PackWeight");
}

absl::Status UnpackWeight(const PackedWeight& packed, int64_t out_features, int64_t in_features,
                          __nv_bfloat16* weight, cudaStream_t stream) {
  if (!IsPackedBitWidth(packed.bit_width) || in_features % 8 != 0) {
    return absl::InvalidArgumentError("UnpackWeight: 8, 4 or 3 bits, in_features of whole vectors");
  }
  const auto kernel = packed.bit_width == 8   ? UnpackKernel<8>
                      : packed.bit_width == 4 ? UnpackKernel<4>
                                              : UnpackKernel<3>;
  return CudaStatus(LaunchOverlapped(kernel, TileGrid(out_features, in_features), kTileThreads, 0,
                                     1, stream, packed.tiles, weight, out_features, in_features),
                    "UnpackWeight");
}

}  // namespace assay::engine::cuda
