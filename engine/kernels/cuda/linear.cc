#include "engine/kernels/cuda/linear.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/status.h"
#include "engine/kernels/cuda/few_rows.h"
#include "engine/kernels/cuda/random_fill.h"
#include "engine/kernels/cuda/row_hash.h"

namespace assay::engine::cuda {
namespace {

// Where both give the same bits, cuBLASLt is faster with more rows than these (measured on an H100
// and an H200).
int MostOwnRows(const GemmShape& shape) { return shape.float_output ? 32 : kMostFewRows; }

int64_t RowBytes(const GemmShape& shape) {
  return shape.out_features * (shape.float_output ? 4 : 2);
}

}  // namespace

absl::StatusOr<Linear> Linear::Make(cublasLtHandle_t lt, const GemmShape& shape, int max_rows,
                                    std::span<const LinearWeight> weights, __nv_bfloat16* unpacked,
                                    cudaStream_t stream) {
  std::vector<const __nv_bfloat16*> plain;
  const PackedWeight* packed = nullptr;
  for (const LinearWeight& weight : weights) {
    if (weight.bf16 != nullptr) {
      plain.push_back(weight.bf16);
    } else {
      packed = &weight.packed;
    }
  }
  if (packed != nullptr) {
    ASSAY_RETURN_IF_ERROR(
        UnpackWeight(*packed, shape.out_features, shape.in_features, unpacked, stream));
    plain.push_back(unpacked);
  }
  ASSAY_ASSIGN_OR_RETURN(Gemm gemm, Gemm::Choose(lt, shape, max_rows, plain, stream));
  Linear linear(std::move(gemm), unpacked);
  if (packed == nullptr && FewRowsSupports(shape.in_features)) {
    ASSAY_ASSIGN_OR_RETURN(linear.few_rows_agree_,
                           linear.CompareFewRows(plain[0], kMostFewRows, stream));
  }
  return linear;
}

FewRowsArgs Linear::ArgsOf(const __nv_bfloat16* x, const __nv_bfloat16* weight,
                           const __nv_bfloat16* bias, void* y, int num_rows) const {
  const GemmShape& shape = gemm_.shape();
  return {.x = x,
          .weight = weight,
          .bias = shape.has_bias ? bias : nullptr,
          .y = y,
          .num_rows = num_rows,
          .out_features = shape.out_features,
          .in_features = shape.in_features,
          .float_output = shape.float_output};
}

absl::StatusOr<bool> Linear::CompareFewRows(const __nv_bfloat16* weight, int num_rows,
                                            cudaStream_t stream) const {
  const GemmShape& shape = gemm_.shape();
  const int64_t row_bytes = RowBytes(shape);
  ASSAY_ASSIGN_OR_RETURN(const auto x,
                         DeviceBuffer<__nv_bfloat16>::Allocate(num_rows * shape.in_features));
  ASSAY_ASSIGN_OR_RETURN(const auto bias,
                         DeviceBuffer<__nv_bfloat16>::Allocate(shape.out_features));
  ASSAY_ASSIGN_OR_RETURN(const auto y, DeviceBuffer<uint8_t>::Allocate(num_rows * row_bytes));
  ASSAY_ASSIGN_OR_RETURN(const auto hashes, DeviceBuffer<uint64_t>::Allocate(num_rows));
  ASSAY_RETURN_IF_ERROR(FillRandom(x.data(), x.size(), 0, 1, /*seed=*/3, stream));
  ASSAY_RETURN_IF_ERROR(FillRandom(bias.data(), bias.size(), 0, 1, /*seed=*/4, stream));
  std::vector<uint64_t> results[2];
  for (const bool few : {false, true}) {
    ASSAY_RETURN_IF_ERROR(
        few ? MultiplyFewRows(ArgsOf(x.data(), weight, bias.data(), y.data(), num_rows), stream)
            : gemm_.Run(x.data(), weight, bias.data(), y.data(), num_rows, stream));
    ASSAY_RETURN_IF_ERROR(HashRows(
        {.matrix = y.data(), .hashes = hashes.data(), .num_rows = num_rows, .row_bytes = row_bytes},
        stream));
    results[few].resize(static_cast<size_t>(num_rows));
    ASSAY_RETURN_IF_ERROR(hashes.CopyTo(std::span(results[few]), stream));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));
  }
  return results[0] == results[1];
}

absl::Status Linear::Run(const LinearWeight& weight, const __nv_bfloat16* x,
                         const __nv_bfloat16* bias, void* y, int num_decode_rows, int num_rows,
                         cudaStream_t stream) const {
  const GemmShape& shape = gemm_.shape();
  const bool packed = weight.bf16 == nullptr;
  int num_few = num_decode_rows;
  if (!FewRowsSupports(shape.in_features)) {
    num_few = 0;
  } else if (few_rows_agree_) {
    num_few = num_rows <= MostOwnRows(shape) ? num_rows : 0;
  }
  if (num_few > 0) {
    const FewRowsArgs few = ArgsOf(x, weight.bf16, bias, y, num_few);
    ASSAY_RETURN_IF_ERROR(packed ? MultiplyPacked(few, weight.packed, stream)
                                 : MultiplyFewRows(few, stream));
  }
  if (num_few == num_rows) return absl::OkStatus();
  const __nv_bfloat16* many = weight.bf16;
  if (packed) {
    ASSAY_RETURN_IF_ERROR(
        UnpackWeight(weight.packed, shape.out_features, shape.in_features, unpacked_, stream));
    many = unpacked_;
  }
  return gemm_.Run(x + num_few * shape.in_features, many, bias,
                   static_cast<uint8_t*>(y) + num_few * RowBytes(shape), num_rows - num_few,
                   stream);
}

}  // namespace assay::engine::cuda
