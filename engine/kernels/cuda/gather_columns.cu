// See gather_columns.h. Nothing is computed. Bound by NVLink: 4 B per element of the peers' parts.
// A block copies pieces of rows, 16 bytes per access where rows are whole vectors, several in
// flight.
#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/gather_columns.h"
#include "engine/kernels/cuda/launch.cuh"
#include "engine/kernels/cuda/peer_sync.cuh"

namespace assay::engine::cuda {
namespace {

constexpr int kThreadsPerBlock = 512;
constexpr int kUnitsInFlight = 4;  // of a thread
constexpr int kUnitsPerPiece = kThreadsPerBlock * kUnitsInFlight;
constexpr int kDefaultBlocks = 264;

template <typename Unit>  // what a thread copies at once
__global__ void __launch_bounds__(kThreadsPerBlock, 2)
    GatherColumnsKernel(const __grid_constant__ GatherColumnsArgs args) {
  constexpr int kPerUnit = sizeof(Unit) / sizeof(float);
  LetNextKernelStart(args.gang.sync);
  WaitForKernelsBefore();
  WaitForPeers(args.gang);
  const int64_t row_units = args.columns / kPerUnit;
  const int64_t part_units = args.part_columns / kPerUnit;
  const int64_t pieces_per_row = (row_units + kUnitsPerPiece - 1) / kUnitsPerPiece;
  auto* out = reinterpret_cast<Unit*>(args.out);
  for (int64_t piece = blockIdx.x; piece < args.num_rows * pieces_per_row; piece += gridDim.x) {
    const int64_t row = piece / pieces_per_row;
    const int64_t first = piece % pieces_per_row * kUnitsPerPiece + threadIdx.x;
    Unit units[kUnitsInFlight];
#pragma unroll
    for (int i = 0; i < kUnitsInFlight; ++i) {
      const int64_t column = first + i * kThreadsPerBlock;
      if (column >= row_units) break;
      const auto rank = static_cast<int>(column / part_units);
      units[i] =
          static_cast<const Unit*>(args.gang.parts[rank])[row * part_units + column % part_units];
    }
#pragma unroll
    for (int i = 0; i < kUnitsInFlight; ++i) {
      const int64_t column = first + i * kThreadsPerBlock;
      if (column < row_units) out[row * row_units + column] = units[i];
    }
  }
}

}  // namespace

absl::Status GatherColumns(const GatherColumnsArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0) return absl::OkStatus();
  if (args.part_columns % 4 != 0 || args.columns > args.gang.num_ranks * args.part_columns) {
    return absl::InvalidArgumentError("the ranks' columns are whole vectors and make up the whole");
  }
  const int most_blocks = args.gang.sync.num_blocks;
  const int num_blocks = most_blocks > 0 ? most_blocks : kDefaultBlocks;
  const auto kernel =
      args.columns % 4 == 0 ? GatherColumnsKernel<float4> : GatherColumnsKernel<float>;
  return CudaStatus(LaunchOverlapped(kernel, dim3(static_cast<unsigned>(num_blocks)),
                                     kThreadsPerBlock, 0, 1, stream, args),
                    "GatherColumns");
}

}  // namespace assay::engine::cuda
