// Stands for cuda_runner.cc in builds with ASSAY_CUDA=OFF.
#include "base/status.h"
#include "engine/decoder/cuda_runner.h"

namespace assay::engine {

absl::StatusOr<std::unique_ptr<ModelRunner>> LoadCudaRunner(const std::string&,
                                                            const CudaRunnerOptions&) {
  return FailedPrecondition(
      "this build has no CUDA backend: configure with -DASSAY_CUDA=ON, or use --device cpu");
}

bool HasCudaBackend() { return false; }

}  // namespace assay::engine
