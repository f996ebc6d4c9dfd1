// Stands for cuda_runner.cc and benchmark.cc in builds with ASSAY_CUDA=OFF.
#include "base/status.h"
#include "engine/decoder/cuda/benchmark.h"
#include "engine/decoder/cuda/cuda_runner.h"

namespace assay::engine {
namespace {

absl::Status NoBackend() {
  return FailedPrecondition(
      "this build has no CUDA backend: configure with -DASSAY_CUDA=ON, or use --device cpu");
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelRunner>> LoadCudaRunner(const std::string&,
                                                            const CudaRunnerOptions&) {
  return NoBackend();
}

absl::StatusOr<double> MeasureCopyRate(int) { return NoBackend(); }

absl::StatusOr<BenchmarkReport> RunCudaBenchmark(const BenchmarkOptions&) { return NoBackend(); }

absl::StatusOr<std::string> CudaDeviceName(int) { return NoBackend(); }

}  // namespace assay::engine
