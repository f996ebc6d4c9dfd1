// hash[row] = sum over i of mix(halfword i, i), modulo 2^64: the sum has no order. Equal rows have
// equal hashes; different ones do not but for one case in 2^64. One block a row, not tuned.
#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/row_hash.h"

namespace assay::engine::cuda {
namespace {

constexpr int kThreadsPerBlock = 256;

__global__ void HashRowsKernel(const RowHashArgs args) {
  const int64_t num_halves = args.row_bytes / 2;
  const uint16_t* row = static_cast<const uint16_t*>(args.matrix) + blockIdx.x * num_halves;
  uint64_t sum = 0;
  for (int64_t i = threadIdx.x; i < num_halves; i += kThreadsPerBlock) {
    // The finalizer of SplitMix64.
    uint64_t z = static_cast<uint64_t>(i) << 16 | row[i];
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    sum += z ^ (z >> 31);
  }
  __shared__ unsigned long long total;
  if (threadIdx.x == 0) total = 0;
  __syncthreads();
  atomicAdd(&total, static_cast<unsigned long long>(sum));
  __syncthreads();
  if (threadIdx.x == 0) args.hashes[blockIdx.x] = total;
}

}  // namespace

absl::Status HashRows(const RowHashArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0) return absl::OkStatus();
  HashRowsKernel<<<args.num_rows, kThreadsPerBlock, 0, stream>>>(args);
  return CudaStatus(cudaGetLastError(), "HashRows");
}

}  // namespace assay::engine::cuda
