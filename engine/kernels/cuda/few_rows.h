// Linears for few rows, those of decoding: y = x W^T (+ bias), bound by the bytes of W.
//
// W is [out_features, in_features] bf16, row-major. x is [rows, in_features] bf16 and y [rows,
// out_features], bf16 or float32, both dense. Products are summed in float32, over all in_features
// in steps of 16 in order: a row's bits do not depend on how many rows there are nor on its place
// among them, and they are those of cuBLASLt's kernels that split no sum (gemm.h), as far as was
// tried (linear.h tries it where it matters).
//
// The beginning of W is fetched before the kernels in front of it on the stream have ended: W must
// have been there before those were launched. x may be what they write.
//
// Any number of rows; above kMostFewRows they are computed in several launches, and well before
// that another way is faster.
#pragma once

#include <absl/status/status.h>
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace assay::engine::cuda {

inline constexpr int kMostFewRows = 64;  // of one launch

struct FewRowsArgs {
  const __nv_bfloat16* x = nullptr;
  const __nv_bfloat16* weight = nullptr;
  const __nv_bfloat16* bias = nullptr;  // [out_features] or null
  void* y = nullptr;
  int num_rows = 0;
  int64_t out_features = 0;
  int64_t in_features = 0;
  bool float_output = false;  // y in float32 instead of bf16
};

// What the copy engine can fetch: rows of whole slabs (tensor_map.h).
inline bool FewRowsSupports(int64_t in_features) { return in_features % 64 == 0; }

// INVALID_ARGUMENT for in_features or an address that are not supported.
absl::Status MultiplyFewRows(FewRowsArgs args, cudaStream_t stream);

}  // namespace assay::engine::cuda
