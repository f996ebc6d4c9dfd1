// How the copy engine is told of a matrix: bf16, row-major, dense, in device memory.
//
// The matrix is cut into slabs of 64 columns. A box is `box_rows` rows of `box_slabs` of them and
// arrives in shared memory slab behind slab, each with the 128-byte swizzle that wgmma.cuh reads;
// what lies outside the matrix arrives as zeros. The map is passed to a
// kernel by value (__grid_constant__), holds the matrix's address and reads none of it.
//
// INVALID_ARGUMENT when the engine cannot: an address of whole 16 bytes, whole slabs, box_rows
// 1..256.
// Thread-safe.
#pragma once

#include <absl/status/statusor.h>
#include <cuda.h>
#include <cuda_bf16.h>

#include <cstdint>

namespace assay::engine::cuda {

inline constexpr int kSlabColumns = 64;

absl::StatusOr<CUtensorMap> MakeTensorMap(const __nv_bfloat16* matrix, int64_t rows,
                                          int64_t columns, int box_rows, int box_slabs);

}  // namespace assay::engine::cuda
