// Stands for nccl_communicator.cc where there is no nccl.h to build with: gangs need peer access.
#include "base/status.h"
#include "engine/parallel/nccl/nccl_communicator.h"

namespace assay::engine::cuda {

int64_t NcclCommunicatorBytes(int, const std::vector<int64_t>&) { return 0; }

absl::StatusOr<std::vector<std::unique_ptr<NcclCommunicator>>> MakeNcclCommunicators(
    std::span<const int>, const std::vector<int64_t>&) {
  return FailedPrecondition(
      "these GPUs cannot read each other's memory, and this build has no NCCL: build it where "
      "nccl.h is");
}

}  // namespace assay::engine::cuda
