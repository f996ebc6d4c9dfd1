// out[row, :] = table[id, :], id = ids[row] >= 0 ? ids[row] : drawn[-1 - ids[row]]
//
// Reference: CpuDecoder::Embed. Bit for bit: nothing is computed. Memory-bound and small: a block
// copies a row, 16 bytes a thread where rows are whole vectors.
#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/embedding.h"
#include "engine/kernels/cuda/launch.cuh"

namespace assay::engine::cuda {
namespace {

constexpr int kThreadsPerBlock = 256;

template <typename Unit>                                         // what a thread copies at once
__global__ void GatherKernel(const int32_t* __restrict__ ids,    // [rows]
                             const int32_t* __restrict__ drawn,  // or null
                             const Unit* __restrict__ table,     // [vocab, units_per_row]
                             Unit* __restrict__ out,             // [rows, units_per_row]
                             int units_per_row, int vocab_size) {
  WaitForKernelsBefore();
  LetNextKernelStart();  // only now: see the header
  const int64_t row = blockIdx.x;
  int32_t id = ids[row];
  if (id < 0 && drawn != nullptr) id = drawn[-1 - id];
  const bool known = id >= 0 && id < vocab_size;
  for (int i = threadIdx.x; i < units_per_row; i += kThreadsPerBlock) {
    out[row * units_per_row + i] = known ? table[int64_t{id} * units_per_row + i] : Unit{};
  }
}

template <typename Unit>
cudaError_t Launch(const EmbeddingArgs& args, cudaStream_t stream) {
  const int units = static_cast<int>(args.hidden_size * sizeof(__nv_bfloat16) / sizeof(Unit));
  return LaunchOverlapped(GatherKernel<Unit>, dim3(static_cast<unsigned>(args.num_rows)),
                          kThreadsPerBlock, 0, 1, stream, args.ids, args.drawn,
                          reinterpret_cast<const Unit*>(args.table),
                          reinterpret_cast<Unit*>(args.out), units, args.vocab_size);
}

}  // namespace

absl::Status GatherEmbeddings(const EmbeddingArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0) return absl::OkStatus();
  const bool vectors = args.hidden_size % 8 == 0;
  return CudaStatus(vectors ? Launch<uint4>(args, stream) : Launch<uint16_t>(args, stream),
                    "GatherEmbeddings");
}

}  // namespace assay::engine::cuda
