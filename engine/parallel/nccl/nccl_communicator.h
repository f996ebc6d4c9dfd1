// A gang over NCCL, one communicator per GPU of this process: for GPUs that cannot read each
// other's memory. Share gathers the parts on every GPU. What is summed is the same as with peer
// access, bit for bit, because NCCL moves bytes only.
//
// The library is opened when it is needed (libnccl.so.2): one GPU, and a gang with peer access, run
// without it. NVLink multicast (NVLS) is switched off before it starts.
#pragma once

#include <absl/status/statusor.h>
#include <cuda_bf16.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/parallel/communicator.h"

namespace assay::engine::cuda {

class NcclCommunicator : public Communicator {
 public:
  // NCCL's own sum over the ranks, in place: what our sums are measured against. Its order depends
  // on the algorithm that NCCL takes for the size.
  virtual absl::Status AllReduceSum(__nv_bfloat16* values, int64_t count, CUstream_st* stream) = 0;
};

// Of each device's memory, without NCCL's own.
int64_t NcclCommunicatorBytes(int size, const std::vector<int64_t>& window_bytes);

// FAILED_PRECONDITION when the library is not there, INTERNAL when it fails. Changes the calling
// thread's device. Graphs that hold a communicator's work are destroyed before it.
absl::StatusOr<std::vector<std::unique_ptr<NcclCommunicator>>> MakeNcclCommunicators(
    std::span<const int> devices, const std::vector<int64_t>& window_bytes);

}  // namespace assay::engine::cuda
