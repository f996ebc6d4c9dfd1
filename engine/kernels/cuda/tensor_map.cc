#include "engine/kernels/cuda/tensor_map.h"

#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include "base/status.h"
#include "engine/kernels/cuda/device.h"

namespace assay::engine::cuda {
namespace {

// The driver's function through the runtime, so that nothing links against the driver.
absl::StatusOr<PFN_cuTensorMapEncodeTiled_v12000> FindEncoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  ASSAY_RETURN_IF_CUDA_ERROR(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                              12000, cudaEnableDefault, &found));
  if (found != cudaDriverEntryPointSuccess || function == nullptr) {
    return Internal("the CUDA driver has no cuTensorMapEncodeTiled");
  }
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
}

}  // namespace

absl::StatusOr<CUtensorMap> MakeTensorMap(const __nv_bfloat16* matrix, int64_t rows,
                                          int64_t columns, int box_rows, int box_slabs) {
  static const absl::StatusOr<PFN_cuTensorMapEncodeTiled_v12000> encode = FindEncoder();
  if (!encode.ok()) return encode.status();
  if (columns % kSlabColumns != 0) {
    return InvalidArgument("no tensor map for {} columns: not a multiple of {}", columns,
                           kSlabColumns);
  }
  const cuuint64_t sizes[] = {kSlabColumns, static_cast<cuuint64_t>(rows),
                              static_cast<cuuint64_t>(columns / kSlabColumns)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(columns) * sizeof(__nv_bfloat16),
                                kSlabColumns * sizeof(__nv_bfloat16)};
  const cuuint32_t box[] = {kSlabColumns, static_cast<cuuint32_t>(box_rows),
                            static_cast<cuuint32_t>(box_slabs)};
  const cuuint32_t steps[] = {1, 1, 1};
  CUtensorMap map;
  const CUresult result = (*encode)(
      &map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<__nv_bfloat16*>(matrix), sizes, strides,
      box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    return InvalidArgument(
        "no tensor map for {} x {} bf16 at {}: error {}; needed: an address of whole 16 bytes",
        rows, columns, static_cast<const void*>(matrix), static_cast<int>(result));
  }
  return map;
}

}  // namespace assay::engine::cuda
