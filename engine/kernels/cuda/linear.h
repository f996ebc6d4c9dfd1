// A linear of a model on one GPU, of the same shape in every layer: y = x W^T (+ bias), W in bf16
// or packed (packed_weight.h).
//
// Few rows are computed by products of our own, many by cuBLASLt, which packed weights are unpacked
// for, into memory that all linears share. A weight's numbers are the same on both ways. It is
// tried, when a model is loaded, whether the sums are the same too, bit for bit: both add in steps
// of 16 in_features in order, where cuBLASLt has a kernel that does. If they are, the number of
// rows alone decides, and rows of prompts and of decoding are one product. If not, and for packed
// weights, whose products add chunks of in_features, they agree to rounding, and a token is always
// computed by the same one of the two, whatever the batch: rows of decoding by ours, rows of
// prompts by cuBLASLt.
//
// Where the copy engine cannot fetch W (few_rows.h), all rows go through cuBLASLt.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <cuda_bf16.h>

#include <optional>
#include <span>

#include "engine/kernels/cuda/gemm.h"
#include "engine/kernels/cuda/packed_weight.h"

namespace assay::engine::cuda {

// In device memory.
struct LinearWeight {
  const __nv_bfloat16* bf16 = nullptr;  // [out_features, in_features], or null where packed
  PackedWeight packed;
};

class Linear {
 public:
  // Chooses kernels as Gemm::Choose does, with its errors. `unpacked` has room for the shape where
  // a weight is packed, and holds nothing between calls; it outlives the linear.
  static absl::StatusOr<Linear> Make(cublasLtHandle_t lt, const GemmShape& shape, int max_rows,
                                     std::span<const LinearWeight> weights, __nv_bfloat16* unpacked,
                                     cudaStream_t stream);

  // The first num_decode_rows of the rows are decoding.
  absl::Status Run(const LinearWeight& weight, const __nv_bfloat16* x, const __nv_bfloat16* bias,
                   void* y, int num_decode_rows, int num_rows, cudaStream_t stream) const;

  const Gemm& gemm() const { return gemm_; }
  bool few_rows_agree() const { return few_rows_agree_; }

 private:
  Linear(Gemm gemm, __nv_bfloat16* unpacked) : gemm_(std::move(gemm)), unpacked_(unpacked) {}

  // Whether bf16 products of few rows are gemm_'s, bit for bit, on random rows.
  absl::StatusOr<bool> CompareFewRows(const __nv_bfloat16* weight, int num_rows,
                                      cudaStream_t stream) const;
  FewRowsArgs ArgsOf(const __nv_bfloat16* x, const __nv_bfloat16* weight, const __nv_bfloat16* bias,
                     void* y, int num_rows) const;

  Gemm gemm_;
  __nv_bfloat16* unpacked_;
  bool few_rows_agree_ = false;
};

}  // namespace assay::engine::cuda
