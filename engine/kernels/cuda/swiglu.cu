// out = bf16(gate / (1 + e^-gate) * up)
//
// Reference: silu_multiply of kernels/cpu. The two exponentials differ in their last bits: out may
// differ by one rounding of bf16.
//
// Memory-bound: 4 B read and 2 B written per element, 16 bytes per access. A thread computes one
// vector, so that small batches spread over the whole device.
#include "engine/kernels/cuda/bf16_vector.cuh"
#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/launch.cuh"
#include "engine/kernels/cuda/swiglu.h"

namespace assay::engine::cuda {
namespace {

constexpr int kThreadsPerBlock = 256;

__device__ float SiluTimes(float gate, float up) { return gate / (1.0f + __expf(-gate)) * up; }

__global__ void VectorSwigluKernel(const SwigluArgs args) {
  LetNextKernelStart();
  WaitForKernelsBefore();
  const int offset = (blockIdx.x * kThreadsPerBlock + threadIdx.x) * kBf16VectorSize;
  if (offset >= args.size) return;
  const int64_t row = blockIdx.y;
  const __nv_bfloat16* gates = args.gate_up + row * 2 * args.size + offset;
  const Bf16Vector gate = LoadVector(gates);
  const Bf16Vector up = LoadVector(gates + args.size);
  Bf16Vector out;
#pragma unroll
  for (int i = 0; i < kBf16VectorSize; ++i) {
    out.values[i] = SiluTimes(gate.values[i], up.values[i]);
  }
  StoreVector(out, args.out + row * args.size + offset);
}

__global__ void ScalarSwigluKernel(const SwigluArgs args) {
  LetNextKernelStart();
  WaitForKernelsBefore();
  const int i = blockIdx.x * kThreadsPerBlock + threadIdx.x;
  if (i >= args.size) return;
  const int64_t row = blockIdx.y;
  const __nv_bfloat16* gates = args.gate_up + row * 2 * args.size + i;
  args.out[row * args.size + i] = __float2bfloat16_rn(
      SiluTimes(__bfloat162float(gates[0]), __bfloat162float(gates[args.size])));
}

}  // namespace

absl::Status Swiglu(const SwigluArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0) return absl::OkStatus();
  const bool vectors = args.size % kBf16VectorSize == 0;
  const int per_block = kThreadsPerBlock * (vectors ? kBf16VectorSize : 1);
  const dim3 grid((args.size + per_block - 1) / per_block, args.num_rows);
  return CudaStatus(LaunchOverlapped(vectors ? VectorSwigluKernel : ScalarSwigluKernel, grid,
                                     kThreadsPerBlock, 0, 1, stream, args),
                    "Swiglu");
}

}  // namespace assay::engine::cuda
