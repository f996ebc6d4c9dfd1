// Linears in bf16 through cuBLASLt: y = x W^T (+ bias), accumulated in float32.
//
// A row's result does not depend on how many rows there are, nor on where it stands among them.
// cuBLASLt chooses another kernel for another number of rows, and kernels may add in different
// orders; so for each shape we choose ourselves, when a model is loaded: among the kernels that
// cuBLASLt proposes for several numbers of rows we keep those that do not split the sum over
// in_features and that agree bit for bit on random rows with one reference among them, and of
// those the fastest at each number of rows. Which one is the fastest is a matter of timing and may
// differ from run to run; the result is not.
//
// x is [rows, in_features], y [rows, out_features], both dense. Any number of rows.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/kernels/cuda/device.h"

namespace assay::engine::cuda {

using CublasLt = std::unique_ptr<cublasLtContext, Releaser<cublasLtDestroy>>;
absl::StatusOr<CublasLt> MakeCublasLt();

struct GemmShape {
  int64_t out_features = 0;
  int64_t in_features = 0;
  bool float_output = false;  // y in float32 instead of bf16
  bool has_bias = false;      // bf16 [out_features]

  bool operator==(const GemmShape&) const = default;
};

// What was chosen for up to `max_rows` rows, and what it took.
struct GemmChoice {
  int max_rows = 0;
  cublasLtMatmulAlgo_t algorithm = {};
  float microseconds = 0;
  int num_candidates = 0;  // proposed
  int num_equal = 0;       // of them agree with the reference
};

class Gemm {
 public:
  // Chooses for all numbers of rows up to `max_rows`. `weights`: matrices of this shape in device
  // memory, at least one; timings go around among them, so that they do not sit in the L2 cache.
  // Takes device memory for max_rows rows of x and y while it runs. UNIMPLEMENTED when cuBLASLt
  // has nothing for the shape. `lt` outlives the Gemm.
  static absl::StatusOr<Gemm> Choose(cublasLtHandle_t lt, const GemmShape& shape, int max_rows,
                                     std::span<const __nv_bfloat16* const> weights,
                                     cudaStream_t stream);

  absl::Status Run(const __nv_bfloat16* x, const __nv_bfloat16* weight, const __nv_bfloat16* bias,
                   void* y, int num_rows, cudaStream_t stream) const;

  const GemmShape& shape() const { return shape_; }
  const std::vector<GemmChoice>& choices() const { return choices_; }  // by max_rows, ascending

 private:
  Gemm(cublasLtHandle_t lt, const GemmShape& shape) : lt_(lt), shape_(shape) {}

  friend class GemmChooser;

  cublasLtHandle_t lt_;
  GemmShape shape_;
  std::vector<GemmChoice> choices_;
};

}  // namespace assay::engine::cuda
